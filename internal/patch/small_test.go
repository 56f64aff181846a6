package patch

import (
	"bytes"
	"encoding/binary"
	"slices"
	"testing"
)

// smallELF returns a file of two functions with padding between them. The
// first makes a call whose number is 32, the second one with padding in reach
// only for a hop. Without sections, PT_GNU_EH_FRAME leads to .eh_frame.
func smallELF(sections, frames bool) (file []byte, site uint64) {
	const (
		base    = 0x400000
		codeAt  = 0x200
		tableAt = 0x300 // .eh_frame_hdr, then .eh_frame
		namesAt = 0x380
		symbols = 0x3a0
		headsAt = 0x400
		size    = headsAt + 4*64
	)
	le := binary.LittleEndian
	code := slices.Concat(
		[]byte{0x48, 0x63, 0xff, 0xb8, 0x20, 0, 0, 0, 0x0f, 0x05, 0xc3}, // movslq %edi,%rdi; mov $32,%eax; syscall; ret
		bytes.Repeat([]byte{0x90}, 21),
		[]byte{0x31, 0xff, 0x0f, 0x05, 0x31, 0xc0, 0xc3}, // xor %edi,%edi; syscall; xor %eax,%eax; ret
	)
	first, second := function{base + codeAt, base + codeAt + 11}, function{base + codeAt + 32, base + codeAt + 39}
	file = make([]byte, size)
	put := func(at int, v any) {
		b, _ := binary.Append(nil, le, v)
		copy(file[at:], b)
	}
	h := elfHeader{
		Ident: [16]byte{0x7f, 'E', 'L', 'F', 2, 1, 1}, Type: typeExec, Machine: machineAMD64,
		Phoff: 64, Ehsize: 64, Phentsize: 56, Phnum: 2, Shentsize: 64,
	}
	if sections {
		h.Shoff, h.Shnum, h.Shstrndx = headsAt, 4, 2
		put(headsAt+64, sectionHeader{Name: 1, Type: 1, Addr: base + tableAt + 8, Off: tableAt + 8, Size: 64})
		put(headsAt+2*64, sectionHeader{Name: 11, Type: 3, Off: namesAt, Size: 32})
		put(headsAt+3*64, sectionHeader{Type: 2, Off: symbols, Size: 48})
		if !frames {
			put(headsAt+64, sectionHeader{Type: 1})
		}
	}
	put(0, h)
	put(64, programHeader{Type: ptLoad, Flags: 5, Vaddr: base, Filesz: size, Memsz: size, Align: pageSize})
	if frames {
		put(64+56, programHeader{Type: ptGNUEhFrame, Off: tableAt, Vaddr: base + tableAt, Filesz: 8, Memsz: 8})
	}
	copy(file[codeAt-128:], bytes.Repeat([]byte{0x90}, 128))
	copy(file[codeAt:], code)
	copy(file[namesAt:], "\x00.eh_frame\x00.shstrtab\x00")
	copy(file[tableAt:], []byte{1, 0x1b, 0xff, 0xff, 4, 0, 0, 0})
	eh := []byte{13, 0, 0, 0, 0, 0, 0, 0, 1, 'z', 'R', 0, 1, 0x78, 16, 1, 0x1b}
	for _, f := range []function{first, second} {
		at := uint64(base + tableAt + 8 + len(eh))
		eh = le.AppendUint32(eh, 12)
		eh = le.AppendUint32(eh, uint32(len(eh)))
		eh = le.AppendUint32(eh, uint32(f.start-(at+8)))
		eh = le.AppendUint32(eh, uint32(f.end-f.start))
	}
	copy(file[tableAt+8:], eh)
	for i, f := range []function{first, second} {
		at := symbols + 24*i
		file[at+4], file[at+6] = 2, 1
		put(at+8, f.start)
		put(at+16, f.end-f.start)
	}
	return file, base + codeAt + 8
}

func TestWhereFunctionsAreKnownFrom(t *testing.T) {
	for name, test := range map[string]struct {
		sections, frames bool
		want             Kind
	}{
		"sections and frames": {true, true, Near},
		"frames":              {false, true, Near},
		"symbols":             {true, false, Near},
		"nothing":             {false, false, Moved},
	} {
		t.Run(name, func(t *testing.T) {
			b, site := smallELF(test.sections, test.frames)
			f, err := Open(bytes.NewReader(b), int64(len(b)))
			if err != nil {
				t.Fatal(err)
			}
			checkRoutes(t, f, b)
			if r, err := f.Route(site); err != nil || r.Kind != test.want {
				t.Errorf("route %+v, %v; want %v", r, err, test.want)
			}
		})
	}
}

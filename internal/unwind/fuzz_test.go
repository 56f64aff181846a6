package unwind

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"testing"

	"github.com/seed-055cd0c8/indirect/internal/tracee"
)

// everywhere is a memory in which the same bytes repeat.
type everywhere []byte

func (e everywhere) ReadAt(p []byte, at int64) (int, error) {
	if len(e) == 0 {
		return 0, io.EOF
	}
	for i := range p {
		p[i] = e[(uint64(at)+uint64(i))%uint64(len(e))]
	}
	return len(p), nil
}

func (everywhere) Mappings() ([]tracee.Mapping, error) {
	return []tracee.Mapping{{Start: 0x1000, End: 1 << 40, Perm: "r-xp"}}, nil
}

func (everywhere) Open(*tracee.Mapping) (*os.File, error) { return nil, io.EOF }

func allRegisters(arch Arch, v uint64) Regs {
	r := Regs{Arch: arch}
	for i := range registers {
		r.set(i, v+uint64(i))
	}
	return r
}

func TestExpressions(t *testing.T) {
	stack := everywhere{1, 2, 3, 4, 5, 6, 7, 8}
	for _, test := range []struct {
		name    string
		program []byte
		want    uint64
		err     error
	}{
		// the PLT's: rsp + 8 + ((rip & 15) >= 11) << 3
		{"plt", []byte{0x77, 0x08, 0x80, 0x00, 0x3f, 0x1a, 0x3b, 0x2a, 0x33, 0x24, 0x22}, 107 + 8 + 0<<3, nil},
		{"deref", []byte{0x30, 0x06}, 0x0807060504030201, nil},
		{"deref_size", []byte{0x32, 0x94, 2}, 0x0403, nil},
		{"const1s", []byte{0x09, 0xff}, ^uint64(0), nil},
		{"const2u", []byte{0x0a, 1, 2}, 0x201, nil},
		{"const4s", []byte{0x0d, 0xfe, 0xff, 0xff, 0xff}, ^uint64(1), nil},
		{"constu", []byte{0x10, 0x80, 0x01}, 128, nil},
		{"consts", []byte{0x11, 0x7f}, ^uint64(0), nil},
		{"swap minus", []byte{0x35, 0x33, 0x16, 0x1c}, ^uint64(1), nil},
		{"over plus", []byte{0x35, 0x33, 0x14, 0x22, 0x22}, 13, nil},
		{"rot", []byte{0x31, 0x32, 0x33, 0x17, 0x1c}, ^uint64(0), nil},
		{"div", []byte{0x11, 0x78, 0x34, 0x1b}, ^uint64(1), nil},
		{"div by zero", []byte{0x31, 0x30, 0x1b}, 0, errCorrupt},
		{"mod by zero", []byte{0x31, 0x30, 0x1d}, 0, errCorrupt},
		{"bra", []byte{0x31, 0x28, 1, 0, 0x39, 0x35}, 5, nil},
		{"endless", []byte{0x2f, 0xfd, 0xff}, 0, errCorrupt},
		{"empty", nil, 0, errCorrupt},
		{"underflow", []byte{0x22}, 0, errCorrupt},
		{"truncated", []byte{0x0e, 1}, 0, errCorrupt},
		{"unknown", []byte{0xf0}, 0, errCorrupt},
		{"no such register", []byte{0x92, 0x40, 0x00}, 0, ErrRegisters},
		{"jump out", []byte{0x2f, 0x10, 0x00}, 0, errCorrupt},
		{"abs", []byte{0x11, 0x7b, 0x19}, 5, nil},
		{"shra", []byte{0x11, 0x70, 0x32, 0x26}, ^uint64(3), nil},
		{"shift all out", []byte{0x31, 0x08, 200, 0x24}, 0, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := newWindow(stack, 8)
			defer w.release()
			regs := allRegisters(AMD64, 100)
			got, err := evaluate(test.program, &regs, w, 0)
			if !errors.Is(err, test.err) || got != test.want {
				t.Errorf("%#x, %v; want %#x, %v", got, err, test.want, test.err)
			}
		})
	}
}

func TestCalls(t *testing.T) {
	for _, test := range []struct {
		code []byte
		want bool
	}{
		{[]byte{0x90, 0x90, 0xe8, 1, 2, 3, 4}, true},
		{[]byte{0x90, 0x90, 0x90, 0x90, 0x90, 0xff, 0xd0}, true},  // call *%rax
		{[]byte{0x90, 0x90, 0x90, 0x90, 0x41, 0xff, 0xd4}, true},  // call *%r12
		{[]byte{0x90, 0xff, 0x15, 1, 2, 3, 4}, true},              // call *disp(%rip)
		{[]byte{0x90, 0x90, 0x90, 0x90, 0xff, 0x50, 0x18}, true},  // call *0x18(%rax)
		{[]byte{0xff, 0x94, 0x24, 1, 2, 3, 4}, true},              // call *disp(%rsp)
		{[]byte{0x90, 0x90, 0x90, 0x90, 0xff, 0x14, 0xc8}, true},  // call *(%rax,%rcx,8)
		{[]byte{0x90, 0x90, 0x90, 0x90, 0x90, 0xff, 0xe0}, false}, // jmp *%rax
		{[]byte{0x90, 0x90, 0x90, 0x90, 0x90, 0x90, 0x90}, false}, // nop
		{[]byte{0x48, 0x89, 0xe5, 0x48, 0x83, 0xec, 0x10}, false}, // mov, sub
		{[]byte{0x48, 0xc7, 0xc0, 0x0f, 0x00, 0x00, 0x00}, false}, // mov
		{[]byte{0x90, 0x90, 0x90, 0x90, 0x90, 0x90, 0xe8}, false}, {nil, false},
	} {
		if got := endsWithCall(test.code); got != test.want {
			t.Errorf("%x: %v", test.code, got)
		}
	}
}

func FuzzExpression(f *testing.F) {
	f.Add([]byte{0x77, 0x08, 0x80, 0x00, 0x3f, 0x1a, 0x3b, 0x2a, 0x33, 0x24, 0x22})
	f.Add([]byte{0x2f, 0xfd, 0xff})
	f.Fuzz(func(t *testing.T, program []byte) {
		for _, arch := range []Arch{AMD64, I386} {
			w := newWindow(everywhere{1, 2, 3, 4, 5, 6, 7}, arch.word())
			regs := allRegisters(arch, 1<<20)
			v, err := evaluate(program, &regs, w, 0)
			w.release()
			if arch == I386 && err == nil && v > 1<<32 {
				t.Errorf("%#x has more than 32 bits", v)
			}
		}
	})
}

func FuzzRules(f *testing.F) {
	// zR, and a function that pushes rbp
	f.Add([]byte("\x01zR\x00\x01\x78\x10\x01\x1b\x0c\x07\x08\x90\x01"), []byte("\x00\x00\x00\x00\x20\x00\x00\x00\x00\x41\x0e\x10\x86\x02"), uint64(8))
	f.Add([]byte("\x01zRS\x00\x01\x78\x10\x01\x1b"), []byte("\x00\x00\x00\x00\x20\x00\x00\x00\x00\x0f\x03\x77\xa0\x01"), uint64(0))
	f.Fuzz(func(t *testing.T, common, function []byte, at uint64) {
		for _, word := range []int{4, 8} {
			for _, eh := range []bool{true, false} {
				c, err := parseCIE(common, word, eh)
				if err != nil {
					continue
				}
				d, err := parseFDE(function, 0, c, word)
				if err != nil {
					continue
				}
				r, err := d.row(at, word)
				if err != nil {
					continue
				}
				regs := allRegisters(AMD64, 1<<20)
				if word == 4 {
					regs = allRegisters(I386, 1<<20)
				}
				w := newWindow(everywhere{1, 2, 3}, word)
				r.apply(&regs, w, 0)
				w.release()
			}
		}
	})
}

func FuzzIndex(f *testing.F) {
	f.Add([]byte("\x14\x00\x00\x00\x00\x00\x00\x00\x01zR\x00\x01\x78\x10\x01\x1b\x0c\x07\x08\x90\x01\x00\x00\x10\x00\x00\x00\x1c\x00\x00\x00\x00\x01\x00\x00\x20\x00\x00\x00\x00\x00\x00\x00"))
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, eh := range []bool{true, false} {
			for _, e := range indexFrames(b, 0x1000, 8, eh) {
				if e.at >= uint64(len(b)) || e.start >= e.end {
					t.Errorf("entry %+v", e)
				}
			}
		}
	})
}

// content is a file in memory.
type content struct{ *bytes.Reader }

func (content) Close() error { return nil }

func FuzzModule(f *testing.F) {
	for _, program := range []string{"/proc/self/exe", "/bin/true"} {
		if path, err := filepath.EvalSymlinks(program); err == nil {
			if b, err := os.ReadFile(path); err == nil && len(b) < 1<<17 {
				f.Add(b, uint64(0x1100))
			}
		}
	}
	f.Add([]byte("\x7fELF\x02\x01\x01"), uint64(0))
	f.Fuzz(func(t *testing.T, b []byte, at uint64) {
		m, err := readModule(bytes.NewReader(b))
		if err != nil {
			return
		}
		open := func() (file, error) { return content{bytes.NewReader(b)}, nil }
		m.row(at, open)
		for _, l := range m.loads {
			m.row(l.vaddr+at%(l.size+1), open)
		}
		if m.goTable != nil {
			m.goTable.row(bytes.NewReader(b), m.goTable.textStart+at%4096)
		}
	})
}

// A whole unwinding of nonsense ends.
func FuzzStack(f *testing.F) {
	f.Add([]byte{0, 0x10, 0, 0, 0, 0, 0, 0}, []byte{0xe8, 0, 0, 0, 0, 0, 0}, uint64(0x1000))
	f.Fuzz(func(t *testing.T, stack, code []byte, pc uint64) {
		memory := everywhere(append(stack, code...))
		s := new(Space)
		s.reload(memory)
		for _, arch := range []Arch{AMD64, I386} {
			regs := allRegisters(arch, 1<<30)
			regs.SetPC(pc)
			const depth = 300
			frames, _ := New(Options{}).Stack(s, memory, regs, depth)
			if len(frames) > depth {
				t.Errorf("%d frames", len(frames))
			}
		}
	})
}

func TestGoTableOfThisTest(t *testing.T) {
	f, err := os.Open("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	m, err := readModule(f)
	if err != nil {
		t.Fatal(err)
	}
	if m.goTable == nil {
		t.Fatal("no table was found")
	}
	// Tests are not position-independent: addresses are the linker's.
	row, err := m.goTable.row(f, uint64(reflect.ValueOf(TestGoTableOfThisTest).Pointer()))
	if err != nil || row.cfa.reg != amd64RSP || row.cfa.offset != 8 {
		t.Errorf("the rules at the start of this function are %+v, %v", row, err)
	}
	if _, err := m.goTable.row(f, 1<<60); !errors.Is(err, errNoRules) {
		t.Errorf("outside: %v", err)
	}
}

func TestModulesAreForgotten(t *testing.T) {
	ms := modules{most: 3, known: make(map[identity]*module)}
	dir := t.TempDir()
	header := make([]byte, 64)
	copy(header, "\x7fELF\x02\x01\x01")
	binary.LittleEndian.PutUint16(header[18:], 62)
	for i := range 10 {
		path := filepath.Join(dir, string(rune('a'+i)))
		if err := os.WriteFile(path, header, 0o600); err != nil {
			t.Fatal(err)
		}
		f, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		if ms.of(f) == nil {
			t.Errorf("file %d is no module", i)
		}
		f.Close()
	}
	if len(ms.known) != 3 {
		t.Errorf("%d modules are kept", len(ms.known))
	}
}

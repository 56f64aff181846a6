package patch

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"slices"
)

// function is a range of code that .eh_frame or a symbol describes.
type function struct{ start, end uint64 }

// findFrames returns the bytes of .eh_frame and their address: by its section,
// or, if the file has no section headers, by the header that PT_GNU_EH_FRAME
// points to (LSB Core, 10.6). A file without either has none.
func findFrames(f source, h *elfHeader, sections []sectionHeader, programs []programHeader) ([]byte, uint64) {
	if int(h.Shstrndx) < len(sections) {
		const maxNames = 1 << 20
		names := &sections[h.Shstrndx]
		text, _ := f.read(names.Off, min(names.Size, maxNames))
		for i := range sections {
			s := &sections[i]
			if s.Type == shtNobits || s.Size > maxFrames || uint64(s.Name) >= uint64(len(text)) ||
				!bytes.HasPrefix(text[s.Name:], []byte(".eh_frame\x00")) {
				continue
			}
			if b, err := f.read(s.Off, s.Size); err == nil {
				return b, s.Addr
			}
		}
	}
	for i := range programs {
		p := &programs[i]
		if p.Type != ptGNUEhFrame {
			continue
		}
		// version, encodings of the pointer, the count and the table, pointer
		const pcrelSdata4 = 0x1b
		b, err := f.read(p.Off, 8)
		if err != nil || b[0] != 1 || b[1] != pcrelSdata4 {
			continue
		}
		address := p.Vaddr + 4 + uint64(int64(int32(binary.LittleEndian.Uint32(b[4:]))))
		for j := range programs {
			q := &programs[j]
			at := address - q.Vaddr
			if q.Type != ptLoad || address < q.Vaddr || at >= q.Filesz {
				continue
			}
			if b, err := f.read(q.Off+at, min(q.Filesz-at, maxFrames)); err == nil {
				return b, address
			}
		}
	}
	return nil, 0
}

// Pointer encodings (LSB Core, 10.5).
const (
	peAbsptr, peUdata2, peUdata4, peUdata8 = 0x00, 0x02, 0x03, 0x04
	peSdata2, peSdata4, peSdata8           = 0x0a, 0x0b, 0x0c
	pePcrel                                = 0x10
)

// parseFrames returns the ranges of all the entries of an .eh_frame that it
// understands (LSB Core, 10.6.1), in the order of the section.
func parseFrames(b []byte, address uint64) []function {
	functions := make([]function, 0, len(b)/32)
	encodings := make(map[int]byte) // of pointers, by the offset of the CIE
	for at := 0; at+8 <= len(b); {
		length := int64(binary.LittleEndian.Uint32(b[at:]))
		body := at + 4
		if length == 0 {
			at = body // a terminator; linkers put tables of other files behind it
			continue
		}
		if length == 0xffffffff || length < 4 || length > int64(len(b)-body) {
			break // 64-bit entries do not occur: gcc and clang write none
		}
		end := body + int(length)
		if id := int(binary.LittleEndian.Uint32(b[body:])); id == 0 {
			if e, ok := cieEncoding(b[body+4 : end]); ok {
				encodings[at] = e
			}
		} else if e, ok := encodings[body-id]; ok {
			if fn, ok := fdeRange(b[body+4:end], address+uint64(body+4), e); ok {
				functions = append(functions, fn)
			}
		}
		at = end
	}
	return functions
}

// cieEncoding returns how the FDEs of a CIE write addresses.
func cieEncoding(b []byte) (byte, bool) {
	if len(b) < 2 || b[0] != 1 && b[0] != 3 {
		return 0, false
	}
	version := b[0]
	text, b, ok := bytes.Cut(b[1:], []byte{0})
	if !ok {
		return 0, false
	}
	if len(text) == 0 {
		return peAbsptr, true
	}
	if text[0] != 'z' {
		return 0, false
	}
	b = skipLEB(skipLEB(b)) // code and data alignment
	if version == 1 && len(b) > 0 {
		b = b[1:] // return address register
	} else {
		b = skipLEB(b)
	}
	b = skipLEB(b) // length of the augmentation data
	for _, c := range text[1:] {
		switch c {
		case 'S', 'B':
		case 'L':
			if len(b) == 0 {
				return 0, false
			}
			b = b[1:]
		case 'P':
			if len(b) == 0 {
				return 0, false
			}
			n := pointerSize(b[0])
			if n == 0 || len(b) < 1+n {
				return 0, false
			}
			b = b[1+n:]
		case 'R':
			if len(b) == 0 {
				return 0, false
			}
			return b[0], true
		default:
			return 0, false
		}
	}
	return peAbsptr, true
}

func skipLEB(b []byte) []byte {
	for i, c := range b {
		if c&0x80 == 0 {
			return b[i+1:]
		}
	}
	return nil
}

func pointerSize(encoding byte) int {
	switch encoding & 0x0f {
	case peUdata2, peSdata2:
		return 2
	case peUdata4, peSdata4:
		return 4
	case peAbsptr, peUdata8, peSdata8:
		return 8
	}
	return 0
}

// fdeRange decodes the range at the start of b, which lies at address.
func fdeRange(b []byte, address uint64, encoding byte) (function, bool) {
	n := pointerSize(encoding)
	if n == 0 || len(b) < 2*n || encoding&0xf0 != 0 && encoding&0xf0 != pePcrel {
		return function{}, false
	}
	var start, length uint64
	switch le := binary.LittleEndian; n {
	case 2:
		start, length = uint64(le.Uint16(b)), uint64(le.Uint16(b[2:]))
	case 4:
		start, length = uint64(le.Uint32(b)), uint64(le.Uint32(b[4:]))
	case 8:
		start, length = le.Uint64(b), le.Uint64(b[8:])
	}
	switch encoding & 0x0f {
	case peSdata2:
		start = uint64(int64(int16(start)))
	case peSdata4:
		start = uint64(int64(int32(start)))
	}
	if encoding&0xf0 == pePcrel {
		start += address
	}
	return function{start, start + length}, length > 0 && start+length > start
}

// symbols returns the ranges of the functions in the symbol tables: musl has
// no .eh_frame, but its shared library has dynamic symbols.
func symbols(f source, sections []sectionHeader) []function {
	const (
		symtab, dynsym = 2, 11
		entry          = 24
		maxTable       = 64 << 20
	)
	var functions []function
	for i := range sections {
		s := &sections[i]
		if s.Type != symtab && s.Type != dynsym || s.Size > maxTable {
			continue
		}
		b, err := f.read(s.Off, s.Size)
		if err != nil {
			continue
		}
		for ; len(b) >= entry; b = b[entry:] {
			// name, info, other, section, value, size
			const plain, indirect = 2, 10
			kind, section := b[4]&0xf, binary.LittleEndian.Uint16(b[6:])
			if kind != plain && kind != indirect || section == 0 {
				continue
			}
			start, size := binary.LittleEndian.Uint64(b[8:]), binary.LittleEndian.Uint64(b[16:])
			if size > 0 && start+size > start {
				functions = append(functions, function{start, start + size})
			}
		}
	}
	return functions
}

// trusted sorts the functions and drops those that do not lie in code.
func (m *elfImage) trusted(functions []function) []function {
	functions = slices.DeleteFunc(functions, func(f function) bool { return m.bytes(f.start, f.end-f.start) == nil })
	slices.SortFunc(functions, func(a, b function) int {
		return cmp.Or(cmp.Compare(a.start, b.start), cmp.Compare(a.end, b.end))
	})
	return slices.Compact(functions)
}

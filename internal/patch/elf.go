package patch

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
)

const (
	pageSize = 4096

	maxCode   = 128 << 20 // bytes of executable segments
	maxFrames = 64 << 20  // bytes of .eh_frame
	maxParts  = 16        // executable segments
)

// segment is an executable PT_LOAD.
type segment struct {
	vaddr, offset, filesz uint64
	code                  []byte // filesz bytes
	tail                  []byte // the rest of the last page, if it is mapped with the code
}

func (s *segment) end() uint64 { return s.vaddr + s.filesz }

// elfImage is what a plan is made of.
type elfImage struct {
	segments  []segment // executable, in ascending order, apart from each other
	functions []function
}

// segment returns the executable segment that has the address, or nil.
func (m *elfImage) segment(address uint64) *segment {
	for i := range m.segments {
		if s := &m.segments[i]; address >= s.vaddr && address < s.end() {
			return s
		}
	}
	return nil
}

// bytes returns n bytes of code at address, nil if they are not all code.
func (m *elfImage) bytes(address, n uint64) []byte {
	for i := range m.segments {
		s := &m.segments[i]
		if at := address - s.vaddr; address >= s.vaddr && at <= s.filesz && n <= s.filesz-at {
			return s.code[at:][:n]
		}
	}
	return nil
}

// The layouts are those of elf(5).
type elfHeader struct {
	Ident                      [16]byte
	Type, Machine              uint16
	Version                    uint32
	Entry, Phoff, Shoff        uint64
	Flags                      uint32
	Ehsize, Phentsize, Phnum   uint16
	Shentsize, Shnum, Shstrndx uint16
}

type programHeader struct {
	Type, Flags                             uint32
	Off, Vaddr, Paddr, Filesz, Memsz, Align uint64
}

type sectionHeader struct {
	Name, Type             uint32
	Flags, Addr, Off, Size uint64
	Link, Info             uint32
	Addralign, Entsize     uint64
}

const (
	typeExec, typeDyn = 2, 3
	machineAMD64      = 62
	ptLoad            = 1
	ptGNUEhFrame      = 0x6474e550
	flagExec          = 1
	shtNobits         = 8
)

var errFormat = errors.New("not an x86-64 ELF program or shared object")

// source reads parts of a file of known size.
type source struct {
	r    io.ReaderAt
	size uint64
}

// read returns n bytes at offset, all of which lie within the file.
func (f source) read(offset, n uint64) ([]byte, error) {
	if offset > f.size || n > f.size-offset {
		return nil, fmt.Errorf("%d bytes at offset %d of a file of %d: %w", n, offset, f.size, io.ErrUnexpectedEOF)
	}
	b := make([]byte, n)
	if n == 0 {
		return b, nil
	}
	if got, err := f.r.ReadAt(b, int64(offset)); uint64(got) < n {
		return nil, fmt.Errorf("read %d bytes at offset %d: %w", n, offset, err)
	}
	return b, nil
}

func readELF(r io.ReaderAt, size int64) (*elfImage, error) {
	if size < 0 {
		return nil, errFormat
	}
	f := source{r, uint64(size)}
	var h elfHeader
	b, err := f.read(0, uint64(binary.Size(h)))
	if err != nil {
		return nil, errFormat
	}
	if err := binary.Read(bytes.NewReader(b), binary.LittleEndian, &h); err != nil {
		return nil, err
	}
	const class64, little = 2, 1
	if string(h.Ident[:4]) != "\x7fELF" || h.Ident[4] != class64 || h.Ident[5] != little ||
		h.Machine != machineAMD64 || h.Type != typeExec && h.Type != typeDyn {
		return nil, errFormat
	}
	programs, err := table[programHeader](f, h.Phoff, h.Phnum, h.Phentsize)
	if err != nil {
		return nil, fmt.Errorf("program headers: %w", err)
	}
	m := new(elfImage)
	if m.segments, err = readSegments(f, programs); err != nil {
		return nil, err
	}
	// Damaged section headers count as absent: a plan can do without.
	sections, _ := table[sectionHeader](f, h.Shoff, h.Shnum, h.Shentsize)
	frames, address := findFrames(f, &h, sections, programs)
	m.functions = m.trusted(append(parseFrames(frames, address), symbols(f, sections)...))
	return m, nil
}

// table reads n headers.
func table[T any](f source, offset uint64, n, entsize uint16) ([]T, error) {
	if n == 0 {
		return nil, nil
	}
	t := make([]T, n)
	if int(entsize) != binary.Size(t[0]) {
		return nil, fmt.Errorf("entries of %d bytes", entsize)
	}
	b, err := f.read(offset, uint64(n)*uint64(entsize))
	if err != nil {
		return nil, err
	}
	return t, binary.Read(bytes.NewReader(b), binary.LittleEndian, t)
}

func readSegments(f source, programs []programHeader) ([]segment, error) {
	var segments []segment
	total := uint64(0)
	for i := range programs {
		p := &programs[i]
		if p.Type != ptLoad || p.Flags&flagExec == 0 || p.Filesz == 0 {
			continue
		}
		if p.Off > f.size || p.Filesz > f.size-p.Off || p.Vaddr > math.MaxInt64-f.size-pageSize || (p.Vaddr-p.Off)%pageSize != 0 {
			return nil, fmt.Errorf("executable segment at %#x lies outside the file", p.Vaddr)
		}
		if total += p.Filesz; total > maxCode || len(segments) == maxParts {
			return nil, fmt.Errorf("more than %d MiB of code, or than %d segments of it", maxCode>>20, maxParts)
		}
		if n := len(segments); n > 0 && p.Vaddr < segments[n-1].end() {
			return nil, fmt.Errorf("executable segment at %#x overlaps another", p.Vaddr)
		}
		code, err := f.read(p.Off, p.Filesz)
		if err != nil {
			return nil, err
		}
		s := segment{vaddr: p.Vaddr, offset: p.Off, filesz: p.Filesz, code: code}
		if s.tail, err = readTail(f, p, programs); err != nil {
			return nil, err
		}
		segments = append(segments, s)
	}
	return segments, nil
}

// readTail returns the bytes behind an executable segment that are mapped only
// because mappings are made of whole pages: those of the file, zero behind its
// end. Nothing refers to them.
func readTail(f source, p *programHeader, programs []programHeader) ([]byte, error) {
	start := p.Vaddr + p.Filesz
	end := (start + pageSize - 1) &^ (pageSize - 1)
	if p.Memsz != p.Filesz {
		return nil, nil // it has uninitialised data there
	}
	for i := range programs {
		// Another segment in the same page would be mapped over this one.
		q := &programs[i]
		if q == p || q.Type != ptLoad || q.Memsz == 0 {
			continue
		}
		if first := q.Vaddr &^ (pageSize - 1); first < end && q.Vaddr+q.Memsz > start&^(pageSize-1) || q.Vaddr+q.Memsz < q.Vaddr {
			return nil, nil
		}
	}
	tail := make([]byte, end-start)
	offset := p.Off + p.Filesz
	present, err := f.read(offset, min(uint64(len(tail)), f.size-offset))
	if err != nil {
		return nil, err
	}
	copy(tail, present)
	return tail, nil
}

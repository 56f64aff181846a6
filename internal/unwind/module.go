package unwind

import (
	"bytes"
	"cmp"
	"compress/zlib"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
)

// module is an ELF file with code, and what is known of its frames.
type module struct {
	used       uint64 // by the clock of [modules]
	word       int
	loads      []load
	header     section // .eh_frame_hdr
	frames     section // .eh_frame
	debug      section // .debug_frame
	goTable    *goTable
	debugBytes []byte // of a compressed .debug_frame

	mu         sync.Mutex
	rows       map[uint64]*row // nil: there are no rules
	indexed    bool
	index      []entry // of frames, if there is no header that can be searched
	debugIndex []entry
}

// load is a segment that is mapped.
type load struct {
	offset, vaddr, size uint64
	code                bool
}

// section is a part of a file.
type section struct {
	offset, addr, size uint64
	compressed         bool
}

// entry is a frame description entry in a table.
type entry struct {
	start, end uint64
	at         uint64 // offset in the section
}

// Bounds of what is read from one file.
const (
	maxSegments   = 1 << 10
	maxSections   = 1 << 14
	maxNames      = 1 << 20
	maxSection    = 64 << 20 // of frames that have to be indexed
	maxEntries    = 1 << 20
	maxEntryBytes = 1 << 16
	maxRows       = 1 << 12
)

// elfReader reads the fields of an ELF file of either class.
type elfReader struct {
	f    io.ReaderAt
	wide bool
}

func (e *elfReader) bytes(offset, size uint64) ([]byte, error) {
	if offset > 1<<62 {
		return nil, errCorrupt
	}
	b := make([]byte, size)
	if n, err := e.f.ReadAt(b, int64(offset)); n < len(b) {
		return nil, fmt.Errorf("read an ELF file: %w", err)
	}
	return b, nil
}

// fields splits b into integers of the given sizes; 0 stands for an address.
func (e *elfReader) fields(b []byte, sizes ...int) []uint64 {
	word := 4
	if e.wide {
		word = 8
	}
	d := decoder{b: b, word: word}
	values := make([]uint64, len(sizes))
	for i, size := range sizes {
		if size == 0 {
			size = word
		}
		values[i] = d.unsigned(size)
	}
	return values
}

// readModule reads the headers of an ELF file (System V ABI, chapter 4 and 5).
func readModule(f io.ReaderAt) (*module, error) {
	e := elfReader{f: f}
	ident, err := e.bytes(0, 64)
	if err != nil {
		return nil, err
	}
	const littleEndian, class32, class64 = 1, 1, 2
	if !bytes.HasPrefix(ident, []byte("\x7fELF")) || ident[5] != littleEndian || ident[4] != class32 && ident[4] != class64 {
		return nil, errors.New("not an ELF file of this machine")
	}
	e.wide = ident[4] == class64
	const machine386, machineAMD64 = 3, 62
	h := e.fields(ident[16:], 2, 2, 4, 0, 0, 0, 4, 2, 2, 2, 2, 2, 2)
	if h[1] != machine386 && h[1] != machineAMD64 {
		return nil, errors.New("not an ELF file of this machine")
	}
	phoff, shoff := h[4], h[5]
	phentsize, phnum, shentsize, shnum, shstrndx := h[8], h[9], h[10], h[11], h[12]
	m := &module{word: 4, rows: make(map[uint64]*row)}
	if h[1] == machineAMD64 {
		m.word = 8
	}
	phsize, shsize := uint64(32), uint64(40)
	if e.wide {
		phsize, shsize = 56, 64
	}
	if phentsize == phsize && phnum <= maxSegments {
		b, err := e.bytes(phoff, phnum*phsize)
		if err != nil {
			return nil, err
		}
		for ; len(b) > 0; b = b[phsize:] {
			m.segment(&e, b)
		}
	}
	if shentsize == shsize && shnum > 0 && shnum <= maxSections && shstrndx < shnum {
		// A file that was stripped of its sections is still of use.
		if b, err := e.bytes(shoff, shnum*shsize); err == nil {
			m.sections(&e, b, shsize, shstrndx)
		}
	}
	return m, nil
}

func (m *module) segment(e *elfReader, b []byte) {
	var kind, flags, offset, vaddr, size uint64
	if e.wide {
		p := e.fields(b, 4, 4, 8, 8, 8, 8)
		kind, flags, offset, vaddr, size = p[0], p[1], p[2], p[3], p[5]
	} else {
		p := e.fields(b, 4, 4, 4, 4, 4, 4, 4)
		kind, offset, vaddr, size, flags = p[0], p[1], p[2], p[4], p[6]
	}
	const ptLoad, ptGNUEhFrame, executable = 1, 0x6474e550, 1
	switch kind {
	case ptLoad:
		m.loads = append(m.loads, load{offset, vaddr, size, flags&executable != 0})
	case ptGNUEhFrame:
		m.header = section{offset: offset, addr: vaddr, size: size}
	}
}

func (m *module) sections(e *elfReader, b []byte, shsize, shstrndx uint64) {
	type header struct {
		name, kind, flags, addr, offset, size uint64
	}
	var all []header
	for ; len(b) > 0; b = b[shsize:] {
		s := e.fields(b, 4, 4, 0, 0, 0, 0)
		all = append(all, header{s[0], s[1], s[2], s[3], s[4], s[5]})
	}
	names, err := e.bytes(all[shstrndx].offset, min(all[shstrndx].size, maxNames))
	if err != nil {
		return
	}
	var goText, goSection, goModule, relocations section
	for _, h := range all {
		const nobits, flagCompressed = 8, 0x800
		if h.name >= uint64(len(names)) || h.kind == nobits {
			continue
		}
		name, _, _ := bytes.Cut(names[h.name:], []byte{0})
		s := section{h.offset, h.addr, h.size, h.flags&flagCompressed != 0}
		switch string(name) {
		case ".eh_frame":
			m.frames = s
		case ".debug_frame":
			m.debug = s
		case ".text":
			goText = s
		case ".gopclntab", ".data.rel.ro.gopclntab":
			goSection = s
		case ".go.module":
			goModule = s
		case ".rela.dyn":
			relocations = s
		}
	}
	if goSection.size > 0 {
		start := goTextStart(e, goSection, goModule, goText, relocations)
		m.goTable = readGoTable(e, goSection, start, m)
	}
}

// vaddr converts an offset in the file to the address that the linker gave it.
func (m *module) vaddr(offset uint64) (uint64, bool) {
	for _, l := range m.loads {
		if l.code && offset >= l.offset && offset-l.offset < l.size {
			return l.vaddr + offset - l.offset, true
		}
	}
	return 0, false
}

// offset is the inverse of vaddr, for data as well.
func (m *module) offset(vaddr uint64) (uint64, bool) {
	for _, l := range m.loads {
		if vaddr >= l.vaddr && vaddr-l.vaddr < l.size {
			return l.offset + vaddr - l.vaddr, true
		}
	}
	return 0, false
}

// row returns the rules for the instruction at vaddr, or errNoRules.
func (m *module) row(vaddr uint64, open func() (file, error)) (*row, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if w, ok := m.rows[vaddr]; ok {
		if w == nil {
			return nil, errNoRules
		}
		return w, nil
	}
	f, err := open()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errNoRules, err)
	}
	defer f.Close()
	w, err := m.find(f, vaddr)
	if errors.Is(err, errNoRules) && m.goTable != nil {
		w, err = m.goTable.row(f, vaddr)
	}
	if errors.Is(err, errNoRules) {
		w, err = m.findDebug(f, vaddr)
	}
	if err != nil {
		w = nil
	}
	if len(m.rows) >= maxRows {
		clear(m.rows)
	}
	m.rows[vaddr] = w
	return w, err
}

// find finds the rules in .eh_frame.
func (m *module) find(f io.ReaderAt, vaddr uint64) (*row, error) {
	offset, address, err := m.search(f, vaddr)
	if errors.Is(err, errUnsearchable) {
		if m.frames.size == 0 {
			return nil, errNoRules
		}
		if !m.indexed {
			m.indexed = true
			if b, err := m.read(f, m.frames); err == nil {
				m.index = indexFrames(b, m.frames.addr, m.word, true)
			}
		}
		return m.fromIndex(m.index, vaddr, f, m.frames, true)
	}
	if err != nil {
		return nil, err
	}
	return m.fromFile(f, section{offset: offset, addr: address}, 0, vaddr, true)
}

// findDebug finds the rules in .debug_frame.
func (m *module) findDebug(f io.ReaderAt, vaddr uint64) (*row, error) {
	if m.debug.size == 0 {
		return nil, errNoRules
	}
	if m.debugIndex == nil {
		m.debugIndex = []entry{}
		if b, err := m.read(f, m.debug); err == nil {
			if m.debug.compressed {
				m.debugBytes = b
			}
			m.debugIndex = indexFrames(b, 0, m.word, false)
		}
	}
	if m.debug.compressed {
		return m.fromIndex(m.debugIndex, vaddr, bytes.NewReader(m.debugBytes), section{size: uint64(len(m.debugBytes))}, false)
	}
	return m.fromIndex(m.debugIndex, vaddr, f, m.debug, false)
}

// read reads a whole section.
func (m *module) read(f io.ReaderAt, s section) ([]byte, error) {
	if s.size > maxSection || s.offset > 1<<62 {
		return nil, errCorrupt
	}
	b, err := io.ReadAll(io.NewSectionReader(f, int64(s.offset), int64(s.size)))
	if err != nil || !s.compressed {
		return b, err
	}
	e := elfReader{wide: true}
	const deflate = 1
	header := 24 // type, reserved, size, alignment
	if m.word == 4 {
		header = 12
		e.wide = false
	}
	if len(b) < header || binary.LittleEndian.Uint32(b) != deflate {
		return nil, errCorrupt
	}
	z, err := zlib.NewReader(bytes.NewReader(b[header:]))
	if err != nil {
		return nil, err
	}
	return io.ReadAll(io.LimitReader(z, maxSection))
}

var errUnsearchable = fmt.Errorf("%w: no table to search", errNoRules)

// search finds the FDE of an address by the table of .eh_frame_hdr (LSB Core,
// 10.6.2): its offset in the file and its address.
func (m *module) search(f io.ReaderAt, vaddr uint64) (offset, address uint64, err error) {
	const headerSize, pcrelSdata4, udata4, datarelSdata4, pairSize = 12, 0x1b, 0x03, 0x3b, 8
	if m.header.size < headerSize {
		return 0, 0, errUnsearchable
	}
	e := elfReader{f: f}
	b, err := e.bytes(m.header.offset, headerSize)
	if err != nil {
		return 0, 0, err
	}
	if b[0] != 1 || b[2] != udata4 || b[3] != datarelSdata4 {
		return 0, 0, errUnsearchable
	}
	count := uint64(binary.LittleEndian.Uint32(b[8:]))
	if count*pairSize > m.header.size-headerSize {
		return 0, 0, errUnsearchable
	}
	relative := func(b []byte) uint64 {
		v := m.header.addr + uint64(int64(int32(binary.LittleEndian.Uint32(b))))
		if m.word == 4 {
			v = uint64(uint32(v))
		}
		return v
	}
	// The table stays in the file: to search it takes a few reads, to keep it
	// megabytes. The last steps are in memory.
	low, high := uint64(0), count
	table := m.header.offset + headerSize
	const few = 256
	for high-low > few {
		middle := low + (high-low)/2
		if b, err = e.bytes(table+middle*pairSize, pairSize); err != nil {
			return 0, 0, err
		}
		if relative(b) > vaddr {
			high = middle
		} else {
			low = middle
		}
	}
	if b, err = e.bytes(table+low*pairSize, (high-low)*pairSize); err != nil {
		return 0, 0, err
	}
	found := []byte(nil)
	for ; len(b) >= pairSize && relative(b) <= vaddr; b = b[pairSize:] {
		found = b
	}
	if found == nil {
		return 0, 0, errNoRules
	}
	address = relative(found[4:])
	offset, ok := m.offset(address)
	if !ok {
		return 0, 0, errCorrupt
	}
	return offset, address, nil
}

// fromIndex finds the rules of an address by an index of a section.
func (m *module) fromIndex(index []entry, vaddr uint64, f io.ReaderAt, s section, eh bool) (*row, error) {
	i, ok := slices.BinarySearchFunc(index, vaddr, func(e entry, v uint64) int { return cmp.Compare(e.start, v) })
	if !ok {
		i--
	}
	if i < 0 || vaddr >= index[i].end {
		return nil, errNoRules
	}
	at := index[i].at
	return m.fromFile(f, section{offset: s.offset + at, addr: s.addr + at}, s.offset, vaddr, eh)
}

// fromFile computes the rules of an address by the FDE at s. base is where its
// section starts in the file.
func (m *module) fromFile(f io.ReaderAt, s section, base, vaddr uint64, eh bool) (*row, error) {
	body, head, err := readEntry(f, s.offset)
	if err != nil {
		return nil, err
	}
	id, after := body.id()
	cieAt := s.offset + uint64(head) - id
	if !eh {
		cieAt = base + id
	}
	common, _, err := readEntry(f, cieAt)
	if err != nil {
		return nil, err
	}
	_, rest := common.id()
	c, err := parseCIE(rest, m.word, eh)
	if err != nil {
		return nil, err
	}
	skipped := uint64(head + len(body.b) - len(after))
	d, err := parseFDE(after, s.addr+skipped, c, m.word)
	if err != nil {
		return nil, err
	}
	if vaddr < d.start || vaddr >= d.end {
		return nil, errNoRules
	}
	return d.row(vaddr, m.word)
}

// entryBody is what follows the length of an entry.
type entryBody struct {
	b    []byte
	wide bool // 64-bit DWARF
}

// id splits off the CIE's ID, or the FDE's pointer to its CIE.
func (e *entryBody) id() (uint64, []byte) {
	if e.wide {
		if len(e.b) < 8 {
			return 0, nil
		}
		return binary.LittleEndian.Uint64(e.b), e.b[8:]
	}
	if len(e.b) < 4 {
		return 0, nil
	}
	return uint64(binary.LittleEndian.Uint32(e.b)), e.b[4:]
}

// readEntry reads an entry of .eh_frame or .debug_frame at an offset of the
// file. head is the size of its length.
func readEntry(f io.ReaderAt, offset uint64) (body *entryBody, head int, err error) {
	e := elfReader{f: f}
	if offset > 1<<62 {
		return nil, 0, errCorrupt
	}
	const usual = 256
	b := make([]byte, usual)
	n, err := f.ReadAt(b, int64(offset))
	b = b[:n]
	if n < 4 {
		return nil, 0, fmt.Errorf("read call frame information: %w", err)
	}
	length, head := uint64(binary.LittleEndian.Uint32(b)), 4
	wide := length == 0xffffffff
	if wide {
		if n < 12 {
			return nil, 0, errCorrupt
		}
		length, head = binary.LittleEndian.Uint64(b[4:]), 12
	}
	if length > maxEntryBytes || length < 4 {
		return nil, 0, errCorrupt
	}
	if uint64(head)+length > uint64(n) {
		if b, err = e.bytes(offset, uint64(head)+length); err != nil {
			return nil, 0, err
		}
	}
	return &entryBody{b[head : uint64(head)+length], wide}, head, nil
}

// indexFrames lists the FDEs of a whole section, in order of their addresses.
func indexFrames(b []byte, address uint64, word int, eh bool) []entry {
	var index []entry
	cies := make(map[uint64]*cie)
	common := func(at uint64) *cie {
		if c, ok := cies[at]; ok {
			return c
		}
		var c *cie
		if body, _, err := readEntry(bytes.NewReader(b), at); err == nil {
			_, rest := body.id()
			c, _ = parseCIE(rest, word, eh)
		}
		cies[at] = c
		return c
	}
	r := bytes.NewReader(b)
	for at := uint64(0); at+8 <= uint64(len(b)) && len(index) < maxEntries; {
		if binary.LittleEndian.Uint32(b[at:]) == 0 {
			at += 4 // a terminator; linkers put tables of other files behind it
			continue
		}
		body, head, err := readEntry(r, at)
		if err != nil {
			break
		}
		id, rest := body.id()
		cieAt := id
		isCIE := id == 0xffffffff || body.wide && id == ^uint64(0)
		if eh {
			isCIE = id == 0
			cieAt = at + uint64(head) - id
		}
		if !isCIE {
			if c := common(cieAt); c != nil {
				skipped := uint64(head + len(body.b) - len(rest))
				if d, err := parseFDE(rest, address+at+skipped, c, word); err == nil && d.end > d.start && d.start != 0 {
					index = append(index, entry{d.start, d.end, at})
				}
			}
		}
		at += uint64(head + len(body.b))
	}
	slices.SortFunc(index, func(a, b entry) int { return cmp.Compare(a.start, b.start) })
	return index
}

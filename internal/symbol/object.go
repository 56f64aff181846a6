package symbol

import (
	"cmp"
	"debug/elf"
	"debug/gosym"
	"encoding/binary"
	"encoding/hex"
	"io"
	"slices"

	"github.com/seed-055cd0c8/indirect/internal/unwind"
)

// object is what was read of one module.
type object struct {
	used  uint64
	size  int64 // of the debug information in memory
	loads []elf.ProgHeader

	symbols []namedRange // in order of their addresses
	dwarf   *lines
	goLines *gosym.Table
}

// namedRange is a function in a symbol table.
type namedRange struct {
	start, end uint64
	name       string
	global     bool
}

func newObject(e *elf.File) *object {
	o := &object{}
	for _, p := range e.Progs {
		if p.Type == elf.PT_LOAD {
			o.loads = append(o.loads, p.ProgHeader)
		}
	}
	return o
}

// address converts an offset in the file to the address that the linker gave it.
func (o *object) address(offset uint64) (uint64, bool) {
	for _, code := range []bool{true, false} {
		for _, p := range o.loads {
			if (p.Flags&elf.PF_X != 0) == code && offset >= p.Off && offset-p.Off < p.Memsz {
				return offset - p.Off + p.Vaddr, true
			}
		}
	}
	return 0, false
}

// frames looks up an offset in the file.
func (o *object) frames(offset uint64) []Frame {
	pc, ok := o.address(offset)
	if !ok {
		return nil
	}
	symbol := o.symbol(pc)
	if o.dwarf != nil {
		if frames := o.dwarf.frames(pc); len(frames) > 0 {
			outer := &frames[len(frames)-1]
			if symbol != nil && (outer.Function == "" || symbol.exports(outer.Function)) {
				outer.Function = readable(symbol.name)
			}
			return frames
		}
	}
	if o.goLines != nil {
		if file, line, fn := o.goLines.PCToLine(pc); fn != nil {
			return []Frame{{Function: fn.Name, File: file, Line: line}}
		}
	}
	if symbol != nil {
		return []Frame{{Function: readable(symbol.name)}}
	}
	return nil
}

// symbol finds the function of an address in the symbol tables.
func (o *object) symbol(pc uint64) *namedRange {
	i, ok := slices.BinarySearchFunc(o.symbols, pc, func(r namedRange, pc uint64) int { return cmp.Compare(r.start, pc) })
	if !ok {
		i--
	}
	// A shorter function may lie inside a longer one, or be its other name.
	const nested = 16
	var best *namedRange
	for ; i >= 0 && i < len(o.symbols); i-- {
		r := &o.symbols[i]
		if pc < r.end && (best == nil || r.start == best.start && r.preferable(best)) {
			best = r
		}
		if best != nil && r.start < best.start || pc-r.start > 1<<20 && best == nil && i%nested == 0 {
			break
		}
	}
	return best
}

// preferable says which of two names of a function to show: the global one,
// with fewer underscores in front.
func (r *namedRange) preferable(other *namedRange) bool {
	if r.global != other.global {
		return r.global
	}
	return cmp.Or(cmp.Compare(underscores(r.name), underscores(other.name)), cmp.Compare(len(r.name), len(other.name))) < 0
}

// exports reports whether a symbol is what callers know a function by that has
// an internal name: glibc's read is __GI___libc_read in its sources' macros.
func (r *namedRange) exports(internal string) bool {
	return r.global && underscores(r.name) == 0 && underscores(internal) > 0
}

func underscores(name string) (n int) {
	for n < len(name) && name[n] == '_' {
		n++
	}
	return n
}

// Bounds of what is read of one file.
const (
	maxSymbolSection = 256 << 20
	maxDebugSection  = 1 << 30
	maxSymbols       = 4 << 20
)

// readSymbols adds the functions of the symbol tables.
func (o *object) readSymbols(e *elf.File) {
	for _, s := range e.Sections {
		if (s.Type == elf.SHT_SYMTAB || s.Type == elf.SHT_DYNSYM || s.Type == elf.SHT_STRTAB) && s.Size > maxSymbolSection {
			return
		}
	}
	static, _ := e.Symbols()
	dynamic, _ := e.DynamicSymbols()
	for _, list := range [][]elf.Symbol{static, dynamic} {
		for _, s := range list {
			const indirect = 10 // STT_GNU_IFUNC
			kind := elf.ST_TYPE(s.Info)
			if kind != elf.STT_FUNC && kind != indirect || s.Section == elf.SHN_UNDEF || s.Name == "" || len(o.symbols) >= maxSymbols {
				continue
			}
			o.symbols = append(o.symbols, namedRange{s.Value, s.Value + s.Size, s.Name, elf.ST_BIND(s.Info) != elf.STB_LOCAL})
		}
	}
	slices.SortStableFunc(o.symbols, func(a, b namedRange) int { return cmp.Compare(a.start, b.start) })
	o.symbols = slices.CompactFunc(o.symbols, func(a, b namedRange) bool { return a == b })
	// Symbols of assembler code may have no size: they reach to the next one.
	const longest = 1 << 12
	for i := range o.symbols {
		r := &o.symbols[i]
		if r.end <= r.start {
			r.end = r.start + longest
			for j := i + 1; j < len(o.symbols); j++ {
				if o.symbols[j].start > r.start {
					r.end = min(r.end, o.symbols[j].start)
					break
				}
			}
		}
	}
}

// readGo reads the table that Go programs carry.
func (o *object) readGo(e *elf.File, f io.ReaderAt) {
	defer func() { _ = recover() }()
	var table *elf.Section
	for _, name := range []string{".gopclntab", ".data.rel.ro.gopclntab"} {
		if table = e.Section(name); table != nil {
			break
		}
	}
	start, ok := unwind.GoText(f)
	if table == nil || !ok || table.Size > maxSymbolSection {
		return
	}
	b, err := table.Data()
	if err != nil || len(b) < 32 {
		return
	}
	if t, err := gosym.NewTable(nil, gosym.NewLineTable(b, start)); err == nil {
		o.goLines = t
		o.size += int64(len(b))
	}
}

// readDWARF reads the debug information of a file, and says whether it has any.
func (o *object) readDWARF(e *elf.File) bool {
	info := e.Section(".debug_info")
	if info == nil || info.Type == elf.SHT_NOBITS || info.Size == 0 {
		return false
	}
	var size int64
	for _, s := range e.Sections {
		if len(s.Name) > 7 && s.Name[:7] == ".debug_" && s.Type != elf.SHT_NOBITS {
			if s.Size > maxDebugSection {
				return false
			}
			size += int64(s.Size)
		}
	}
	if size > maxBytes {
		return false
	}
	d, err := e.DWARF()
	if err != nil {
		return false
	}
	raw, err := info.Data()
	if err != nil {
		return false
	}
	o.dwarf = newLines(d, raw)
	o.size += size
	return true
}

// buildID reads the build ID of a file, "" if it has none.
func buildID(e *elf.File) string {
	for _, s := range e.Sections {
		if s.Type != elf.SHT_NOTE || s.Size > 1<<12 {
			continue
		}
		b, err := s.Data()
		if err != nil {
			continue
		}
		if id := gnuNote(b); id != "" {
			return id
		}
	}
	for _, p := range e.Progs {
		if p.Type != elf.PT_NOTE || p.Filesz > 1<<12 {
			continue
		}
		b := make([]byte, p.Filesz)
		n, _ := io.ReadFull(p.Open(), b)
		if id := gnuNote(b[:n]); id != "" {
			return id
		}
	}
	return ""
}

// gnuNote finds the build ID among the notes of a section.
func gnuNote(b []byte) string {
	const header, buildIDType = 12, 3
	for len(b) >= header {
		name, size, kind := uint64(binary.LittleEndian.Uint32(b)), uint64(binary.LittleEndian.Uint32(b[4:])), binary.LittleEndian.Uint32(b[8:])
		b = b[header:]
		padded := (name + 3) &^ 3
		if padded > uint64(len(b)) || size > uint64(len(b))-padded {
			return ""
		}
		if kind == buildIDType && string(b[:name]) == "GNU\x00" {
			return hex.EncodeToString(b[padded : padded+size])
		}
		b = b[min(uint64(len(b)), padded+(size+3)&^3):]
	}
	return ""
}

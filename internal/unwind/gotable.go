package unwind

import (
	"encoding/binary"
	"io"
)

// goTable is the table of functions that Go programs carry for tracebacks
// (runtime.pcHeader and runtime._func in Go's src/runtime/symtab.go and
// runtime2.go): it says how large the frame is at each instruction.
type goTable struct {
	section
	textStart uint64
	quantum   uint64
	word      int
	functions uint64 // how many
	pcTable   uint64 // offsets in the section
	funcTable uint64
}

// Magic numbers of the tables since Go 1.18, which store functions as offsets
// from the start of the text.
const (
	magic118 = 0xfffffff0
	magic120 = 0xfffffff1
)

// readGoTable reads the header of the table, nil if it is of an unknown version.
func readGoTable(e *elfReader, s section, textStart uint64, m *module) *goTable {
	const words = 8
	if m.word != 8 || s.compressed {
		return nil
	}
	b, err := e.bytes(s.offset, 8+words*8)
	if err != nil {
		return nil
	}
	magic := binary.LittleEndian.Uint32(b)
	if magic != magic118 && magic != magic120 || b[7] != 8 {
		return nil
	}
	field := func(i int) uint64 { return binary.LittleEndian.Uint64(b[8+8*i:]) }
	t := &goTable{
		section: s, quantum: uint64(b[6]), word: 8,
		functions: field(0), textStart: textStart, pcTable: field(6), funcTable: field(7),
	}
	const pair = 8
	if t.funcTable > s.size || t.functions > (s.size-t.funcTable)/pair || t.pcTable > s.size {
		return nil
	}
	return t
}

// goTextStart finds the address that the table's offsets count from, which is
// not where the section begins if C code comes first: Go 1.26 has it in
// runtime.moduledata, earlier versions in the table's header. In a
// position-independent program only a relocation may know it.
func goTextStart(e *elfReader, table, module, text, relocations section) uint64 {
	const inTable, inModule, word = 24, 176, 8
	for _, place := range []struct {
		section
		at uint64
	}{{module, inModule}, {table, inTable}} {
		if place.size < place.at+word {
			continue
		}
		b, err := e.bytes(place.offset+place.at, word)
		if err != nil {
			continue
		}
		v := binary.LittleEndian.Uint64(b)
		if v == 0 {
			v = e.addend(relocations, place.addr+place.at)
		}
		if v >= text.addr && v-text.addr < text.size {
			return v
		}
	}
	return text.addr
}

// addend finds the relative relocation of a word in .rela.dyn.
func (e *elfReader) addend(relocations section, address uint64) uint64 {
	const size, relative, largest = 24, 8, 16 << 20
	b, err := e.bytes(relocations.offset, min(relocations.size, largest))
	if err != nil {
		return 0
	}
	for ; len(b) >= size; b = b[size:] {
		if binary.LittleEndian.Uint64(b) == address && binary.LittleEndian.Uint32(b[8:]) == relative {
			return binary.LittleEndian.Uint64(b[16:])
		}
	}
	return 0
}

// GoText returns the address, before relocation, that the functions of a Go
// program's table count from, false for other programs.
func GoText(f io.ReaderAt) (uint64, bool) {
	m, err := readModule(f)
	if err != nil || m.goTable == nil {
		return 0, false
	}
	return m.goTable.textStart, true
}

func (t *goTable) read(f io.ReaderAt, at, size uint64) ([]byte, error) {
	if at > t.size {
		return nil, errCorrupt
	}
	e := elfReader{f: f}
	return e.bytes(t.offset+at, min(size, t.size-at))
}

// row computes the rules at vaddr: the CFA is the stack pointer plus the size
// of the frame.
func (t *goTable) row(f io.ReaderAt, vaddr uint64) (*row, error) {
	if vaddr < t.textStart || t.functions == 0 {
		return nil, errNoRules
	}
	target := vaddr - t.textStart
	const pair = 8
	pairAt := func(i uint64) (entry, function uint64, err error) {
		b, err := t.read(f, t.funcTable+i*pair, pair)
		if err != nil || len(b) < pair {
			return 0, 0, errCorrupt
		}
		return uint64(binary.LittleEndian.Uint32(b)), uint64(binary.LittleEndian.Uint32(b[4:])), nil
	}
	low, high := uint64(0), t.functions // the pair after the last one holds the end
	end, _, err := pairAt(high)
	if err != nil {
		return nil, err
	}
	if target >= end {
		return nil, errNoRules
	}
	for high-low > 1 {
		middle := low + (high-low)/2
		e, _, err := pairAt(middle)
		if err != nil {
			return nil, err
		}
		if e > target {
			high = middle
		} else {
			low = middle
		}
	}
	start, at, err := pairAt(low)
	if err != nil {
		return nil, err
	}
	if start > target {
		return nil, errNoRules
	}
	// entryOff, nameOff, args, deferreturn, pcsp, pcfile, pcln, npcdata, cuOffset, startLine, funcID, flag
	const size = 44
	b, err := t.read(f, t.funcTable+at, size)
	if err != nil || len(b) < size {
		return nil, errCorrupt
	}
	const topFrame, writesSP = 1, 2
	flags := b[41]
	outermost := &row{ra: amd64RIP, cfa: rule{kind: plusOffset, reg: amd64RSP}, regs: []registerRule{{amd64RIP, rule{kind: undefined}}}}
	if flags&topFrame != 0 {
		return outermost, nil
	}
	const asmcgocall = 2 // abi.FuncID_asmcgocall
	if b[40] == asmcgocall && target > start {
		return cgoRow, nil
	}
	delta, ok := t.delta(f, uint64(binary.LittleEndian.Uint32(b[16:])), target-start)
	if !ok {
		return nil, errNoRules
	}
	if flags&writesSP != 0 && delta == 0 {
		return outermost, nil // it may have switched to another stack
	}
	const word = 8
	w := &row{ra: amd64RIP, cfa: rule{kind: plusOffset, reg: amd64RSP, offset: delta + word}}
	w.regs = append(w.regs, registerRule{amd64RIP, rule{kind: atOffset, offset: -word}})
	if delta >= word {
		// Go keeps frame pointers in the word below the return address.
		w.regs = append(w.regs, registerRule{amd64RBP, rule{kind: atOffset, offset: -2 * word}})
	}
	return w, nil
}

// cgoRow leads from C back to Go: runtime.asmcgocall has moved to another stack,
// and left there the goroutine, and how deep in its stack it was (Go's
// src/runtime/asm_amd64.s). A goroutine begins with the bounds of its stack.
var cgoRow = &row{
	ra: amd64RIP,
	cfa: rule{kind: isValue, code: []byte{
		0x77, 8, 0x06, // the goroutine: breg7 8, deref
		0x23, 8, 0x06, // the end of its stack: plus_uconst 8, deref
		0x77, 0, 0x06, 0x1c, // less the depth: breg7 0, deref, minus
		0x23, 8, // behind the return address: plus_uconst 8
	}},
	regs: []registerRule{{amd64RIP, rule{kind: atOffset, offset: -8}}},
}

// delta decodes a table of values by program counter (runtime.step in Go's
// src/runtime/symtab.go).
func (t *goTable) delta(f io.ReaderAt, at, target uint64) (int64, bool) {
	const usual, most = 512, 1 << 16
	for size := uint64(usual); size <= most; size *= 16 {
		b, err := t.read(f, t.pcTable+at, size)
		if err != nil {
			return 0, false
		}
		d := decoder{b: b, word: t.word}
		value, pc := int64(-1), uint64(0)
		for first := true; ; first = false {
			v := d.uleb()
			if v == 0 && !first || d.failed {
				break
			}
			// zigzag
			if v&1 != 0 {
				value += int64(^(v >> 1))
			} else {
				value += int64(v >> 1)
			}
			pc += d.uleb() * t.quantum
			if d.failed {
				break
			}
			if target < pc {
				return value, value >= 0 && value < 1<<30
			}
		}
		if !d.failed {
			return 0, false
		}
	}
	return 0, false
}

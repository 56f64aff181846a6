// Package cpython finds the Python functions that a stopped thread of CPython
// 3.11, 3.12 or 3.13 is in, by what the interpreter keeps in memory.
//
// 3.13 says itself where things are (_Py_DebugOffsets in CPython's
// Include/internal/pycore_runtime.h). The layouts of 3.11 and 3.12 did not
// change between their releases: debuggers depend on them.
//
// The memory is input: whatever it contains, a walk ends, allocates a bounded
// amount and does not panic. An interpreter of another version, or built in
// another way, is not found.
package cpython

import (
	"debug/elf"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"unicode/utf16"

	"github.com/seed-055cd0c8/indirect/internal/symbol"
	"github.com/seed-055cd0c8/indirect/internal/tracee"
)

// layout says where things are in the interpreter's structures, in bytes.
type layout struct {
	interpreters                                   uint64 // in _PyRuntime: the first interpreter
	nextInterpreter, threads                       uint64 // in PyInterpreterState
	nextThread, native, current                    uint64 // in PyThreadState
	frame                                          uint64 // in _PyCFrame
	viaCFrame                                      bool   // current is a _PyCFrame, not a frame
	code, instruction, previous, owner, isEntry    uint64 // in _PyInterpreterFrame
	shims                                          bool   // entries are frames of their own
	filename, name, lineTable, firstLine, bytecode uint64 // in PyCodeObject
	ascii, compact                                 uint64 // sizes of the headers of strings
	bytesData                                      uint64 // in PyBytesObject
}

var layout311 = layout{
	interpreters: 40, threads: 16,
	nextThread: 8, native: 160, current: 56, viaCFrame: true, frame: 8,
	code: 32, instruction: 56, previous: 48, owner: 69, isEntry: 68,
	filename: 112, name: 128, lineTable: 136, firstLine: 72, bytecode: 184,
	ascii: 48, compact: 72, bytesData: 32,
}

var layout312 = layout{
	interpreters: 40, threads: 72,
	nextThread: 8, native: 144, current: 56, viaCFrame: true,
	instruction: 56, previous: 8, owner: 70, shims: true,
	filename: 112, name: 128, lineTable: 136, firstLine: 68, bytecode: 192,
	ascii: 40, compact: 56, bytesData: 32,
}

// Offsets in objects that are the same in all these versions.
const (
	lengthAt = 16 // of strings and bytes
	stateAt  = 32 // of strings
)

// ownedByCStack marks the frame that 3.12 and later put where the interpreter
// was entered.
const ownedByCStack = 3

// Finder finds interpreters, and keeps what it has read of files. It may be
// used by many goroutines at once.
type Finder struct {
	mu    sync.Mutex
	files map[identity]symbols
}

type identity struct {
	dev, ino uint64
	sec, ns  int64
}

// symbols are the addresses of the interpreter's symbols in a file.
type symbols struct {
	runtime, version uint64
	loads            []elf.ProgHeader
}

const maxFiles = 256

// Interpreter is CPython in a process.
type Interpreter struct {
	layout
	runtime uint64
}

// Holds reports whether a mapping may hold the interpreter's code, by the file's name.
func Holds(m *tracee.Mapping) bool {
	base := filepath.Base(m.Path)
	return m.Executable() && m.Inode != 0 && (strings.HasPrefix(base, "python3") || strings.HasPrefix(base, "libpython3"))
}

// Find finds the interpreter in the process that tid belongs to, among its
// mappings. Most processes have none.
func (f *Finder) Find(tid int, memory io.ReaderAt, mappings []tracee.Mapping) (*Interpreter, bool) {
	for i := range mappings {
		m := &mappings[i]
		if !Holds(m) {
			continue
		}
		s, ok := f.symbols(tid, m)
		if !ok {
			continue
		}
		for _, p := range s.loads {
			if m.Offset >= p.Off && m.Offset-p.Off < p.Filesz || m.Offset < p.Off && p.Off-m.Offset < 4096 {
				bias := m.Start - (m.Offset - p.Off + p.Vaddr)
				if in, err := open(memory, bias+s.runtime, bias+s.version); err == nil {
					return in, true
				}
			}
		}
	}
	return nil, false
}

// symbols reads the symbols of a mapped file.
func (f *Finder) symbols(tid int, m *tracee.Mapping) (symbols, bool) {
	file, err := tracee.OpenMapped(tid, m)
	if err != nil {
		return symbols{}, false
	}
	defer file.Close()
	id, ok := identify(file)
	if !ok {
		return symbols{}, false
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	s, ok := f.files[id]
	if !ok {
		s = readSymbols(file)
		if f.files == nil || len(f.files) >= maxFiles {
			f.files = make(map[identity]symbols)
		}
		f.files[id] = s
	}
	return s, s.runtime != 0 && s.version != 0
}

func identify(f *os.File) (identity, bool) {
	info, err := f.Stat()
	if err != nil || !info.Mode().IsRegular() {
		return identity{}, false
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return identity{}, false
	}
	return identity{uint64(st.Dev), st.Ino, st.Mtim.Sec, st.Mtim.Nsec}, true
}

func readSymbols(f io.ReaderAt) (s symbols) {
	defer func() {
		if recover() != nil { // debug/elf promises nothing for hostile files
			s = symbols{}
		}
	}()
	e, err := elf.NewFile(f)
	if err != nil || e.Class != elf.ELFCLASS64 {
		return s
	}
	const largest = 64 << 20
	for _, section := range e.Sections {
		if section.Type == elf.SHT_DYNSYM && section.Size > largest {
			return s
		}
	}
	dynamic, err := e.DynamicSymbols()
	if err != nil {
		return s
	}
	for _, d := range dynamic {
		switch d.Name {
		case "_PyRuntime":
			s.runtime = d.Value
		case "Py_Version": // since 3.11
			s.version = d.Value
		}
	}
	for _, p := range e.Progs {
		if p.Type == elf.PT_LOAD && p.Flags&elf.PF_X != 0 {
			s.loads = append(s.loads, p.ProgHeader)
		}
	}
	return s
}

var errForeign = errors.New("not an interpreter of a known layout")

// open looks at an interpreter's version.
func open(memory io.ReaderAt, runtime, versionAt uint64) (*Interpreter, error) {
	version, err := word(memory, versionAt)
	if err != nil {
		return nil, err
	}
	switch version >> 16 {
	case 0x030b:
		return &Interpreter{layout311, runtime}, nil
	case 0x030c:
		return &Interpreter{layout312, runtime}, nil
	case 0x030d:
		l, err := offsets313(memory, runtime)
		return &Interpreter{l, runtime}, err
	}
	return nil, errForeign
}

// offsets313 reads the offsets that 3.13 tells.
func offsets313(memory io.ReaderAt, runtime uint64) (layout, error) {
	const size = 584
	b := make([]byte, size)
	if n, err := memory.ReadAt(b, int64(runtime)); n < size {
		return layout{}, err
	}
	field := func(i int) uint64 { return binary.LittleEndian.Uint64(b[8*i:]) }
	const freeThreaded = 2
	if string(b[:8]) != "xdebugpy" || field(1)>>16 != 0x030d || field(freeThreaded) != 0 {
		return layout{}, errForeign
	}
	const runtimeState, interpreterState, threadState, frame, code, bytesObject, unicode = 3, 6, 19, 28, 34, 64, 67
	l := layout{
		interpreters:    field(runtimeState + 2),
		nextInterpreter: field(interpreterState + 2), threads: field(interpreterState + 3),
		nextThread: field(threadState + 2), current: field(threadState + 4), native: field(threadState + 6),
		previous: field(frame + 1), code: field(frame + 2), instruction: field(frame + 3), owner: field(frame + 5), shims: true,
		filename: field(code + 1), name: field(code + 3), lineTable: field(code + 4), firstLine: field(code + 5), bytecode: field(code + 9),
		bytesData: field(bytesObject + 2),
		ascii:     field(unicode + 3),
	}
	l.compact = l.ascii + 16
	return l, nil
}

// Activation is a Python function that runs. The same values mean the same
// place in the source, as long as the process has not replaced the code.
type Activation struct {
	Code        uint64 // address of the code object
	Instruction uint64 // offset in its bytecode
	// Entry says that the interpreter's C function was entered for this one:
	// those that it called without recursion come before it.
	Entry bool
}

// Bounds of a walk.
const (
	maxInterpreters = 64
	maxThreads      = 1 << 12
	maxFrames       = 1 << 12
)

// Stack returns the Python functions that a thread is in, the innermost first,
// at most depth of them; none if the thread is not in the interpreter.
func (in *Interpreter) Stack(memory io.ReaderAt, tid, depth int) []Activation {
	thread := in.thread(memory, uint64(tid))
	if thread == 0 {
		return nil
	}
	frame, err := word(memory, thread+in.current)
	if err == nil && in.viaCFrame && frame != 0 {
		frame, err = word(memory, frame+in.frame)
	}
	var all []Activation
	for n := 0; err == nil && frame != 0 && n < maxFrames && len(all) < depth; n++ {
		const size = 80
		var b [size]byte
		if n, _ := memory.ReadAt(b[:], int64(frame)); n < size {
			break
		}
		field := func(at uint64) uint64 {
			if at > size-8 {
				return 0
			}
			return binary.LittleEndian.Uint64(b[at:])
		}
		owner := byte(field(in.owner&^7) >> (8 * (in.owner & 7)))
		if in.shims && owner == ownedByCStack {
			if len(all) > 0 {
				all[len(all)-1].Entry = true
			}
		} else if code := field(in.code); code != 0 {
			entry := !in.shims && byte(field(in.isEntry&^7)>>(8*(in.isEntry&7))) != 0
			all = append(all, Activation{code, field(in.instruction) - code - in.bytecode, entry})
		}
		frame = field(in.previous)
	}
	return all
}

// thread finds the state of a thread: by its ID, or the only one there is,
// because a thread in another PID namespace knows itself by another ID.
func (in *Interpreter) thread(memory io.ReaderAt, tid uint64) uint64 {
	var only uint64
	count := 0
	interpreter, err := word(memory, in.runtime+in.interpreters)
	for range maxInterpreters {
		if err != nil || interpreter == 0 {
			break
		}
		state, e := word(memory, interpreter+in.threads)
		for count < maxThreads && e == nil && state != 0 {
			if id, _ := word(memory, state+in.native); id == tid {
				return state
			}
			only, count = state, count+1
			state, e = word(memory, state+in.nextThread)
		}
		interpreter, err = word(memory, interpreter+in.nextInterpreter)
	}
	if count == 1 {
		return only
	}
	return 0
}

// Frame says which function and line an activation is.
func (in *Interpreter) Frame(memory io.ReaderAt, a Activation) (symbol.Frame, bool) {
	file, ok := in.text(memory, a.Code+in.filename)
	if !ok {
		return symbol.Frame{}, false
	}
	name, ok := in.text(memory, a.Code+in.name)
	if !ok {
		return symbol.Frame{}, false
	}
	f := symbol.Frame{Function: name, File: file}
	first, err := word(memory, a.Code+in.firstLine)
	if err != nil {
		return f, true
	}
	table, err := word(memory, a.Code+in.lineTable)
	if err != nil {
		return f, true
	}
	const largest = 1 << 20
	length, err := word(memory, table+lengthAt)
	if err != nil || length > largest {
		return f, true
	}
	b := make([]byte, length)
	n, _ := memory.ReadAt(b, int64(table+in.bytesData))
	f.Line = lineOf(b[:n], int(int32(first)), a.Instruction)
	return f, true
}

// lineOf finds the line of an instruction in a location table (CPython's
// Objects/locations.md), 0 if it has none.
func lineOf(table []byte, line int, instruction uint64) int {
	at := 0
	next := func() byte {
		if at >= len(table) {
			return 0
		}
		at++
		return table[at-1]
	}
	unsigned := func() (v uint) {
		for shift := 0; ; shift += 6 {
			c := next()
			if shift < 60 {
				v |= uint(c&0x3f) << shift
			}
			if c&0x40 == 0 {
				return v
			}
		}
	}
	signed := func() int {
		v := unsigned()
		if v&1 != 0 {
			return -int(v >> 1)
		}
		return int(v >> 1)
	}
	for pc := uint64(0); at < len(table); {
		head := next()
		code := head >> 3 & 15
		here := true
		switch {
		case code == 15: // no location
			here = false
		case code == 14: // long form
			line += signed()
			unsigned()
			unsigned()
			unsigned()
		case code == 13: // no columns
			line += signed()
		case code >= 10: // one line
			line += int(code) - 10
			next()
			next()
		default: // short form
			next()
		}
		const unit = 2
		pc += (uint64(head&7) + 1) * unit
		if instruction < pc {
			if !here {
				return 0
			}
			return line
		}
	}
	return 0
}

// text reads the string that a pointer at address leads to. It is cut if it
// is very long.
func (in *Interpreter) text(memory io.ReaderAt, address uint64) (string, bool) {
	const longest = 4096
	object, err := word(memory, address)
	if err != nil || object == 0 {
		return "", false
	}
	length, err := word(memory, object+lengthAt)
	if err != nil {
		return "", false
	}
	state, err := word(memory, object+stateAt)
	if err != nil {
		return "", false
	}
	const compact, ascii = 1 << 5, 1 << 6
	kind := state >> 2 & 7
	if state&compact == 0 || kind != 1 && kind != 2 && kind != 4 {
		return "", false
	}
	at := object + in.compact
	if state&ascii != 0 {
		at = object + in.ascii
	}
	b := make([]byte, min(length, longest)*kind)
	if n, _ := memory.ReadAt(b, int64(at)); n < len(b) {
		return "", false
	}
	switch kind {
	case 1:
		runes := make([]rune, len(b))
		for i, c := range b {
			runes[i] = rune(c)
		}
		return string(runes), true
	case 2:
		units := make([]uint16, len(b)/2)
		for i := range units {
			units[i] = binary.LittleEndian.Uint16(b[2*i:])
		}
		return string(utf16.Decode(units)), true
	}
	runes := make([]rune, len(b)/4)
	for i := range runes {
		runes[i] = rune(binary.LittleEndian.Uint32(b[4*i:]))
	}
	return string(runes), true
}

func word(memory io.ReaderAt, address uint64) (uint64, error) {
	var b [8]byte
	if n, err := memory.ReadAt(b[:], int64(address)); n < len(b) {
		return 0, err
	}
	return binary.LittleEndian.Uint64(b[:]), nil
}

// evaluator is the function in which the interpreter runs Python.
const evaluator = "_PyEval_EvalFrameDefault"

// Merge puts the Python functions of a stack in the places of the native
// frames that run them, and leaves out the rest of the interpreter's own
// frames there. python is what [Interpreter.Stack] has returned, named; both
// begin with the innermost. What does not fit is left as it is.
func Merge(native []symbol.Frame, activations []Activation, python []symbol.Frame) []symbol.Frame {
	if len(activations) == 0 || len(activations) != len(python) {
		return native
	}
	merged := make([]symbol.Frame, 0, len(native)+len(python))
	next := 0
	for _, f := range native {
		// compilers split the function: its parts have suffixes
		if name, _, _ := strings.Cut(f.Function, "."); name != evaluator || f.Inlined {
			merged = append(merged, f)
			continue
		}
		before := next
		for next < len(activations) {
			merged = append(merged, python[next])
			next++
			if activations[next-1].Entry {
				break
			}
		}
		if next == before {
			merged = append(merged, f)
		}
	}
	if next == 0 { // a stripped interpreter: nothing says where it is
		return append(append([]symbol.Frame{}, python...), native...)
	}
	return merged
}

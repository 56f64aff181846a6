package recorder

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/seed-055cd0c8/indirect/fdcall"
	"github.com/seed-055cd0c8/indirect/internal/symbol/cpython"
	"github.com/seed-055cd0c8/indirect/internal/tracee"
	"github.com/seed-055cd0c8/indirect/internal/unwind"
	"github.com/seed-055cd0c8/indirect/supervise"
)

// Stack is where a call was made from.
type Stack struct {
	ID     uint64
	Frames []Frame          // the innermost first
	Python []PythonFunction `json:",omitempty"` // what CPython runs in some of the frames, likewise
}

// PythonFunction is a Python function at a line.
type PythonFunction struct {
	Function, File string
	Line           int
	Entry          bool `json:",omitempty"` // as in [cpython.Activation]
}

// Frame is one address of a stack.
type Frame struct {
	Module  uint64 `json:",omitempty"` // 0: code that is in no file
	Offset  uint64 // in the file; the address itself if there is no file
	Exact   bool   `json:",omitempty"` // the next instruction, and not a return address
	Guessed bool   `json:",omitempty"` // found without unwind information
}

// stacks reads the stacks of threads, and knows those that it has seen.
//
// Reading a stack takes long, recognising one does not: if the words that were
// return addresses the last time, counted from the stack pointer, are the same
// again at the same instruction of the same program image, so is the stack.
type stacks struct {
	log      *log
	depth    int
	pointers pointers
	modules  modules
	unwinder *unwind.Unwinder

	finder cpython.Finder

	mu           sync.Mutex
	spaces       map[uint64]*unwind.Space // by where the program's stack begins (see [image])
	seen         map[place][]seenStack
	count        int                             // of what is in seen
	ids          map[string]uint64               // by frames
	interpreters map[uint64]*cpython.Interpreter // as spaces; nil if there is none
	python       map[uint64][]Frame              // stacks that lead through an interpreter
	running      map[string]uint64               // stacks, by one of these and where in Python they are
}

// place is an instruction in a program image.
type place struct{ stack, ip uint64 }

// seenStack is a stack and what to recognise it by.
type seenStack struct {
	id    uint64
	words []word
	width uint64 // of a word, in bytes
	span  uint64 // bytes from the stack pointer to the end of the last word
}

// word is a return address, by its distance from the stack pointer.
type word struct{ distance, value uint64 }

// Bounds of what is known at the same time.
const (
	maxSeen     = 1 << 14
	maxPerPlace = 32
	maxStacks   = 1 << 16
	maxSpan     = 1 << 16
	maxSpaces   = 256
	maxPython   = 1 << 12
)

func newStacks(l *log, depth int) *stacks {
	return &stacks{
		log: l, depth: depth,
		pointers: pointers{files: make(map[int]int)},
		modules:  modules{log: l, ids: make(map[file]uint64)},
		unwinder: unwind.New(unwind.Options{}),
		spaces:   make(map[uint64]*unwind.Space),
		seen:     make(map[place][]seenStack),
		ids:      make(map[string]uint64),

		interpreters: make(map[uint64]*cpython.Interpreter),
		python:       make(map[uint64][]Frame),
		running:      make(map[string]uint64),
	}
}

// ofWaiting is the stack of a thread that waits for its decision, in a program
// whose stack begins at stack. It is false if the thread's registers are needed.
func (s *stacks) ofWaiting(ev *supervise.Event, pid int, stack uint64) (uint64, bool) {
	sp := s.pointers.of(ev.TID)
	if sp == 0 {
		return 0, false
	}
	at := place{stack, ev.IP}
	if id, ok := s.recognise(ev.TID, at, sp); ok {
		return s.inPython(ev.TID, stack, id), true
	}
	arch := archOf(ev)
	frames, err := s.unwind(ev.TID, stack, unwind.At(arch, ev.IP, sp))
	if errors.Is(err, unwind.ErrRegisters) {
		return 0, false
	}
	return s.inPython(ev.TID, stack, s.learn(pid, arch, at, sp, frames)), true
}

func archOf(ev *supervise.Event) unwind.Arch {
	if ev.ABI == fdcall.I386 {
		return unwind.I386
	}
	return unwind.AMD64
}

// ofAttached is the stack of a thread that is held.
func (s *stacks) ofAttached(ev *supervise.Event, a *supervise.Attached, pid int, stack uint64) uint64 {
	at, sp := place{stack, ev.IP}, a.Registers.Rsp
	if id, ok := s.recognise(ev.TID, at, sp); ok {
		return s.inPython(ev.TID, stack, id)
	}
	regs := unwind.FromTracee(&a.Registers)
	regs.SetPC(ev.IP)
	frames, _ := s.unwind(ev.TID, stack, regs) // what there is
	return s.inPython(ev.TID, stack, s.learn(pid, archOf(ev), at, sp, frames))
}

// unwind reads the stack of a thread that stands behind its call.
func (s *stacks) unwind(tid int, stack uint64, regs unwind.Regs) ([]unwind.Frame, error) {
	s.mu.Lock()
	space, known := s.spaces[stack]
	s.mu.Unlock()
	for {
		if !known {
			var err error
			if space, err = unwind.Map(tid); err != nil {
				return nil, err
			}
			s.mu.Lock()
			if len(s.spaces) >= maxSpaces {
				clear(s.spaces)
			}
			s.spaces[stack] = space
			s.mu.Unlock()
		}
		frames, err := s.unwinder.Stack(space, unwind.Memory(tid), regs, s.depth)
		nowhere := func(f unwind.Frame) bool { return f.Mapping == nil }
		if !known || err == nil && !slices.ContainsFunc(frames, nowhere) || errors.Is(err, unwind.ErrRegisters) {
			return frames, err
		}
		known = false // the program may have mapped more code since
	}
}

// recognise finds the stack of a thread among those seen at the same place.
func (s *stacks) recognise(tid int, at place, sp uint64) (uint64, bool) {
	s.mu.Lock()
	known := s.seen[at]
	s.mu.Unlock()
	if len(known) == 0 {
		return 0, false
	}
	var span uint64
	for i := range known {
		span = max(span, known[i].span)
	}
	memory := make([]byte, span)
	memory = memory[:tracee.Peek(tid, sp, memory)]
	for i := range known {
		if known[i].matches(memory) {
			return known[i].id, true
		}
	}
	return 0, false
}

func (k *seenStack) matches(memory []byte) bool {
	if k.span > uint64(len(memory)) {
		return false
	}
	for _, w := range k.words {
		var b [8]byte
		copy(b[:k.width], memory[w.distance:])
		if binary.LittleEndian.Uint64(b[:]) != w.value {
			return false
		}
	}
	return true
}

// learn makes a stack known, and tells of it if it is new.
func (s *stacks) learn(pid int, arch unwind.Arch, at place, sp uint64, found []unwind.Frame) uint64 {
	frames := make([]Frame, len(found))
	python := false
	for i, f := range found {
		frames[i] = Frame{Offset: f.Offset(), Exact: f.Exact, Guessed: f.Guessed}
		if f.Mapping != nil {
			frames[i].Module = s.modules.id(pid, f.Mapping)
			python = python || cpython.Holds(f.Mapping)
		}
	}
	if len(frames) > 0 {
		frames[0].Exact = false // its call is the instruction before
	}
	k := seenStack{id: s.intern(frames, nil), width: 8}
	if arch == unwind.I386 {
		k.width = 4
		python = false // its objects have another layout
	}
	if python {
		s.mu.Lock()
		if len(s.python) >= maxPython {
			clear(s.python)
		}
		s.python[k.id] = frames
		s.mu.Unlock()
	}
	for _, f := range found {
		if f.At == 0 {
			continue
		}
		if f.At < sp || f.At-sp > maxSpan {
			return k.id // not to be recognised
		}
		k.words = append(k.words, word{f.At - sp, f.PC})
		k.span = max(k.span, f.At-sp+k.width)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.count >= maxSeen {
		clear(s.seen)
		s.count = 0
	}
	if len(s.seen[at]) < maxPerPlace {
		s.seen[at] = append(s.seen[at], k)
		s.count++
	}
	return k.id
}

// inPython returns the stack of a thread whose native one is id: the same, if
// that does not lead through an interpreter.
func (s *stacks) inPython(tid int, stack, id uint64) uint64 {
	s.mu.Lock()
	frames := s.python[id]
	s.mu.Unlock()
	if frames == nil {
		return id
	}
	in := s.interpreter(tid, stack)
	if in == nil {
		return id
	}
	memory := unwind.Memory(tid)
	activations := in.Stack(memory, tid, s.depth)
	key := binary.LittleEndian.AppendUint64(nil, stack)
	key = binary.LittleEndian.AppendUint64(key, id)
	for _, a := range activations {
		key = append(key, bit(a.Entry))
		key = binary.LittleEndian.AppendUint64(key, a.Code)
		key = binary.LittleEndian.AppendUint64(key, a.Instruction)
	}
	s.mu.Lock()
	known, ok := s.running[string(key)]
	s.mu.Unlock()
	if ok {
		return known
	}
	var functions []PythonFunction
	for _, a := range activations {
		f, ok := in.Frame(memory, a)
		if !ok {
			f.Function = "?"
		}
		functions = append(functions, PythonFunction{Function: f.Function, File: f.File, Line: f.Line, Entry: a.Entry})
	}
	known = s.intern(frames, functions)
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.running) >= maxStacks {
		clear(s.running)
	}
	s.running[string(key)] = known
	return known
}

// interpreter finds CPython in the program whose stack begins at stack.
func (s *stacks) interpreter(tid int, stack uint64) *cpython.Interpreter {
	s.mu.Lock()
	in, known := s.interpreters[stack]
	s.mu.Unlock()
	if known {
		return in
	}
	maps, err := tracee.Maps(tid)
	if err != nil {
		return nil
	}
	in, _ = s.finder.Find(tid, unwind.Memory(tid), maps)
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.interpreters) >= maxSpaces {
		clear(s.interpreters)
	}
	s.interpreters[stack] = in
	return in
}

// intern returns the ID of a stack, and tells of it at the first time.
func (s *stacks) intern(frames []Frame, python []PythonFunction) uint64 {
	key := make([]byte, 0, 17*len(frames))
	for _, f := range frames {
		key = append(key, bit(f.Exact)|bit(f.Guessed)<<1)
		key = binary.LittleEndian.AppendUint64(key, f.Module)
		key = binary.LittleEndian.AppendUint64(key, f.Offset)
	}
	for _, f := range python {
		key = fmt.Appendf(key, "%q %q %d %t", f.Function, f.File, f.Line, f.Entry)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if id, ok := s.ids[string(key)]; ok {
		return id
	}
	if len(s.ids) >= maxStacks {
		clear(s.ids)
	}
	id := s.log.id()
	s.ids[string(key)] = id
	s.log.write(Entry{Stack: &Stack{ID: id, Frames: frames, Python: python}})
	return id
}

func bit(b bool) byte {
	if b {
		return 1
	}
	return 0
}

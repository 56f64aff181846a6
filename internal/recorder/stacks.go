package recorder

import (
	"encoding/binary"
	"sync"

	"github.com/seed-055cd0c8/indirect/internal/tracee"
	"github.com/seed-055cd0c8/indirect/supervise"
)

// Stack is where a call was made from.
type Stack struct {
	ID     uint64
	Frames []Frame // the innermost first
}

// Frame is one address of a stack.
type Frame struct {
	Module uint64 // 0: code that is in no file
	Offset uint64 // in the file; the address itself if there is no file
}

// step is a frame as it is found: an address, and where on the stack it was.
type step struct {
	address uint64
	at      uint64 // 0 for the innermost
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

	mu    sync.Mutex
	seen  map[place][]seenStack
	count int               // of what is in seen
	ids   map[string]uint64 // by frames
}

// place is an instruction in a program image.
type place struct{ stack, ip uint64 }

// seenStack is a stack and what to recognise it by.
type seenStack struct {
	id    uint64
	words []word
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
)

func newStacks(l *log, depth int) *stacks {
	return &stacks{
		log: l, depth: depth,
		pointers: pointers{files: make(map[int]int)},
		modules:  modules{log: l, ids: make(map[file]uint64), spaces: make(map[uint64]space)},
		seen:     make(map[place][]seenStack),
		ids:      make(map[string]uint64),
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
		return id, true
	}
	steps, ok := s.unwind(pid, ev.IP, sp, nil)
	if !ok {
		return 0, false
	}
	return s.learn(pid, at, sp, steps), true
}

// ofAttached is the stack of a thread that is held.
func (s *stacks) ofAttached(ev *supervise.Event, a *supervise.Attached, pid int, stack uint64) uint64 {
	at, sp := place{stack, ev.IP}, a.Registers.Rsp
	if id, ok := s.recognise(ev.TID, at, sp); ok {
		return id
	}
	steps, _ := s.unwind(pid, ev.IP, sp, &a.Registers)
	return s.learn(pid, at, sp, steps)
}

func (s *stacks) unwind(pid int, ip, sp uint64, regs *tracee.Regs) ([]step, bool) {
	return []step{{address: ip}}, true
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
		if binary.LittleEndian.Uint64(memory[w.distance:]) != w.value {
			return false
		}
	}
	return true
}

// learn makes a stack known, and tells of it if it is new.
func (s *stacks) learn(pid int, at place, sp uint64, steps []step) uint64 {
	id := s.intern(s.frames(pid, at.stack, steps))
	k := seenStack{id: id}
	for _, step := range steps {
		if step.at == 0 {
			continue
		}
		if step.at < sp || step.at-sp > maxSpan {
			return id // not to be recognised
		}
		k.words = append(k.words, word{step.at - sp, step.address})
		k.span = max(k.span, step.at-sp+8)
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
	return id
}

// frames says which files the addresses are in.
func (s *stacks) frames(pid int, stack uint64, steps []step) []Frame {
	code := s.modules.space(pid, stack, false)
	frames := make([]Frame, len(steps))
	for i, step := range steps {
		r := code.find(step.address)
		if r == nil { // mapped since
			code = s.modules.space(pid, stack, true)
			r = code.find(step.address)
		}
		if r == nil {
			frames[i] = Frame{Offset: step.address}
			continue
		}
		frames[i] = Frame{Module: r.module, Offset: step.address - r.start + r.offset}
	}
	return frames
}

// intern returns the ID of a stack, and tells of it at the first time.
func (s *stacks) intern(frames []Frame) uint64 {
	key := make([]byte, 0, 16*len(frames))
	for _, f := range frames {
		key = binary.LittleEndian.AppendUint64(key, f.Module)
		key = binary.LittleEndian.AppendUint64(key, f.Offset)
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
	s.log.write(Entry{Stack: &Stack{ID: id, Frames: frames}})
	return id
}

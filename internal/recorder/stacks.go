package recorder

import "github.com/seed-055cd0c8/indirect/supervise"

// Stack is where a call was made from.
type Stack struct {
	ID     uint64
	Frames []uint64
}

// stacks reads the stacks of threads, and knows those that it has seen.
type stacks struct {
	log      *log
	pointers pointers
}

func newStacks(l *log, depth int) *stacks {
	return &stacks{log: l, pointers: pointers{files: make(map[int]int)}}
}

// ofWaiting is the stack of a thread that waits for its decision, and false if
// its registers are needed to read it.
func (s *stacks) ofWaiting(ev *supervise.Event) (uint64, bool) {
	if s.pointers.of(ev.TID) == 0 {
		return 0, false
	}
	id := s.log.id()
	s.log.write(Entry{Stack: &Stack{ID: id, Frames: []uint64{ev.IP}}})
	return id, true
}

// ofAttached is the stack of a thread that is held.
func (s *stacks) ofAttached(ev *supervise.Event, a *supervise.Attached) uint64 { return 0 }

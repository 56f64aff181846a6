package recorder

import "github.com/seed-055cd0c8/indirect/supervise"

type Stack struct {
	ID     uint64
	Frames []uint64
}

type stacks struct{ log *log }

func newStacks(l *log, depth int) *stacks { return &stacks{log: l} }

func (s *stacks) ofWaiting(ev *supervise.Event) (uint64, bool) {
	id := s.log.id()
	s.log.write(Entry{Stack: &Stack{ID: id, Frames: []uint64{ev.IP}}})
	return id, true
}
func (s *stacks) ofAttached(ev *supervise.Event, a *supervise.Attached) uint64 { return 0 }

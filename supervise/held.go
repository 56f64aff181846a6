package supervise

import (
	"sync/atomic"

	"github.com/seed-055cd0c8/indirect/internal/tracee"
)

// held is a thread that a worker has given registers or a signal mask that are
// not its own, with which it is to go no further than its next stop. It is in
// the ledger, so that a successor can give it its own ones back.
type held struct {
	tid atomic.Int32 // the thread, or 0
	state
}

// state is what a held thread had, and what it has.
type state struct {
	mask tracee.SigMask // its own
	own  tracee.Regs    // in front of its call
	run  tracee.Regs    // with which it makes that call in place; zero if it does not
}

func (h *held) begin(tid int, s state) {
	h.state = s
	h.tid.Store(int32(tid))
}

// end may come late, from a supervisor whose place in the ledger has been
// taken over.
func (h *held) end(tid int) { h.tid.CompareAndSwap(int32(tid), 0) }

package supervise

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/seed-055cd0c8/indirect/internal/tracee"
)

// attach stops a thread; wake ends what it waits for. A thread that a
// supervisor before us held when it died gets its own state back: if it still
// stands in front of its call, or is blocked in it, it is to make its call once
// more, which will trap. One that has come back from its call in the meantime
// keeps the registers that it has.
func (e *engine) attach(tid int, wake func()) (t *tracee.Thread, stop tracee.Stop, sig unix.Signal, err error) {
	if t, err = tracee.Seize(tid); err != nil {
		return nil, 0, 0, err
	}
	e.awaited.add(tid)
	wake()
	stop, sig, err = t.Stopped()
	e.awaited.remove(tid)
	if err != nil {
		return nil, 0, 0, err
	}
	if s, ok := e.orphans.LoadAndDelete(tid); ok {
		err = s.(*state).giveBack(t)
	}
	return t, stop, sig, err
}

// restore attaches to an orphan for a moment, unless another worker does.
func (e *engine) restore(tid int) {
	s, ok := e.orphans.Load(tid)
	if !ok {
		return
	}
	if s.(*state).lacking(tid) {
		t, _, sig, err := e.attach(tid, func() {})
		switch {
		case err == nil:
			err = t.Detach(sig)
		case errors.Is(err, unix.EPERM) && ours(tid, true):
			return // it has the state, or will have it
		case errors.Is(err, unix.EPERM):
			err = nil // by a supervisor that lives on for as long as such calls block
		}
		if err != nil && !errors.Is(err, tracee.ErrGone) {
			e.complain(fmt.Errorf("give thread %d its registers back: %w", tid, err))
		}
	}
	e.orphans.Delete(tid)
}

// lacking reports whether thread tid seems to be where it was left. It may be
// another one by now, with which we must not meddle.
func (s *state) lacking(tid int) bool {
	sp, pc, waits := tracee.Where(tid)
	if waits && sp == s.run.Rsp && (pc == s.run.Rip || pc == s.run.Rip+syscallLen) {
		return true
	}
	status, err := tracee.ReadStatus(tid)
	return err == nil && blocksAll(status.Blocked)
}

func (s *state) giveBack(t *tracee.Thread) error {
	mask, err := t.SigMask()
	if err == nil && blocksAll(mask) {
		err = t.SetSigMask(s.mask)
	}
	if err != nil {
		return err
	}
	r, err := t.Regs()
	if err != nil || !s.stands(r) {
		return err
	}
	return t.SetRegs(s.own)
}

// stands reports whether r are those of the thread in front of the call that it
// makes in place, or interrupted in it.
func (s *state) stands(r tracee.Regs) bool {
	before := r.Rip == s.run.Rip && r.Rax == s.run.Rax
	inside := r.Rip == s.run.Rip+syscallLen && r.Orig_rax == s.run.Rax && restarts(r)
	return s.run.Rip != 0 && (before || inside) && untouched(r) == untouched(s.run)
}

// blocksAll reports whether a signal mask is one that we give to threads.
func blocksAll(m tracee.SigMask) bool {
	const never = 1<<(unix.SIGKILL-1) | 1<<(unix.SIGSTOP-1)
	return m|never|^stepping == tracee.AllSignals
}

// untouched are the registers that no system call changes.
func untouched(r tracee.Regs) tracee.Regs {
	r.Rip, r.Rax, r.Orig_rax, r.Rcx, r.R11, r.Eflags = 0, 0, 0, 0, 0, 0
	return r
}

package supervise

import (
	"github.com/seed-055cd0c8/indirect/fdcall"
	"github.com/seed-055cd0c8/indirect/internal/image"
	"github.com/seed-055cd0c8/indirect/internal/listener"
	"github.com/seed-055cd0c8/indirect/internal/tracee"
)

// Many programs make one flagless call in their life: sort, cat and grep open
// a file. For that one, an image is not worth its mapping: the call is made in
// the vDSO's unused end, by code that then goes back to the program. Programs
// with threads get an image: cancellation must not find them in code that can
// block (see cancels).

// singlePlans returns the calls that this code can make, and how: those that
// return a descriptor, to which they can give all that any program wants of it.
func (e *engine) singlePlans() map[*fdcall.Call]fdcall.Plan {
	plans := make(map[*fdcall.Call]fdcall.Plan)
	calls := e.table.All()
	for i := range calls {
		c := &calls[i]
		if c.Gives != fdcall.Ret || c.Block || c.Nr[native] == fdcall.None || e.trapped(c) {
			continue
		}
		// Its call must pass the filter, which knows no programs.
		p, ok := e.table.Plan(c, fdcall.Cloexec)
		if ok && p.After == 0 && p.FlagWord == 0 && p.Errno.Theirs == 0 && e.Policy.Union(c)|e.Policy.Union(p.To) == fdcall.Cloexec {
			plans[c] = p
		}
	}
	return plans
}

// singly reports how the thread tid is to make the call c, if that is the
// first one that traps in its program image, and the program's images are not
// known to make more.
func (e *engine) singly(tid int, vdso uint64, c *fdcall.Call, p *program) (fdcall.Plan, bool) {
	plan, ok := e.plans[c]
	if !ok || p.Want(c) != fdcall.Cloexec || p.repeats.Load() || !tracee.OneThread(tid) {
		return plan, false
	}
	e.images.Lock()
	defer e.images.Unlock()
	if e.singles[tid] == vdso {
		p.repeats.Store(true)
		return plan, false
	}
	if len(e.singles) >= maxPrograms {
		clear(e.singles)
	}
	e.singles[tid] = vdso
	return plan, true
}

// single sends the thread of n to the code that makes its call c once, as plan says.
func (e *engine) single(n listener.Notification, vdso uint64, c *fdcall.Call, plan fdcall.Plan) error {
	m, t, r, err := e.holdForCave(n, vdso)
	if err != nil {
		return err
	}
	defer m.Close()
	frame := frameOf(r)
	frame.Site = n.IP
	sp := r.Rsp - redZone - image.LandingFrameSize
	if err := m.Write(sp, frame.Marshal()); err != nil {
		return resume(t, r) // there is no stack
	}
	given := registersOf(r, native)
	var args [6]uint64
	for i, a := range plan.Args {
		args[i] = a.Apply(&given)
	}
	setCall(&r, native, uint64(plan.To.Nr[native]), args)
	r.Rsp, r.Rip = sp, vdso+e.cave+e.singleAt
	e.ledger.programs.Add(1)
	return counting(e.served(c, once), func() error { return resume(t, r) })
}

// frameOf is the frame of a thread that was held in front of its call, with
// its arguments.
func frameOf(r tracee.Regs) image.LandingFrame {
	return image.LandingFrame{DI: r.Rdi, SI: r.Rsi, DX: r.Rdx, R10: r.R10, R8: r.R8, R9: r.R9, AX: r.Rax}
}

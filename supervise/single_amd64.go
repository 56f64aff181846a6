package supervise

import (
	"github.com/seed-055cd0c8/indirect/fdcall"
	"github.com/seed-055cd0c8/indirect/internal/image"
	"github.com/seed-055cd0c8/indirect/internal/listener"
	"github.com/seed-055cd0c8/indirect/internal/tracee"
)

// Many programs make one flagless call in their life: sort, cat and grep open
// a file. For that one, an image is not worth its mapping: the call is made in
// the vDSO's unused end, by code that then goes back to the program.

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
	if !ok || p.Want(c) != fdcall.Cloexec || p.repeats.Load() {
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
	tid := int(n.TID)
	m, err := tracee.OpenMemory(tid)
	if err != nil {
		return err
	}
	defer m.Close()
	if err := m.Write(vdso+e.cave, e.code); err != nil {
		return e.again(n)
	}
	t, r, err := e.hold(n)
	if err != nil {
		return err
	}
	if _, ok := e.header(tid); ok {
		return resume(t, r) // another thread has landed, and may be about to cancel this one
	}
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

// unframed are the registers of a thread in our code, with what is in its frame.
func unframed(r tracee.Regs, f image.LandingFrame) tracee.Regs {
	r.Rdi, r.Rsi, r.Rdx, r.R10, r.R8, r.R9, r.Rax = f.DI, f.SI, f.DX, f.R10, f.R8, f.R9, f.AX
	r.Rsp += image.LandingFrameSize + redZone
	return r
}

// beforeSingle is before for a thread that makes its call singly, by the code
// at an address.
func (c *clearing) beforeSingle(r tracee.Regs, at uint64) (tracee.Regs, *tracee.SigMask, bool) {
	made := uint64(0)
	if int64(r.Orig_rax) >= 0 {
		if !restarts(r) {
			return r, nil, false
		}
		made = syscallLen
	}
	if r.Rip-made != at {
		return r, nil, false
	}
	b := make([]byte, image.LandingFrameSize)
	if c.mem.Read(r.Rsp, b) != nil {
		return r, nil, false
	}
	f := image.ParseLandingFrame(b)
	r = unframed(r, f)
	r.Rip, r.Orig_rax = f.Site-syscallLen, ^uint64(0)
	return r, nil, true
}

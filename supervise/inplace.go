package supervise

import (
	"encoding/binary"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/seed-055cd0c8/indirect/fdcall"
	"github.com/seed-055cd0c8/indirect/internal/listener"
	"github.com/seed-055cd0c8/indirect/internal/tracee"
)

// runInPlace runs one call where it stands: the thread is held, the argument
// registers are changed, the program's own instruction makes the call, and
// the registers are changed back before the program sees them. It serves what
// the stub cannot: i386 and x32 calls, images without room for a stub, and
// cancellation points, where the C library looks at the instruction pointer.
func (e *engine) runInPlace(n listener.Notification, abi fdcall.ABI, c *fdcall.Call, p *program) error {
	want := c.Applicable(p.Want(c))
	args := n.Args
	from := c
	if c.Block && want != 0 {
		block, err := readBlock(int(n.TID), args[1])
		if err != nil {
			e.answer(e.listener.Continue(n.ID)) // the kernel will say EFAULT
			return nil
		}
		if from = e.table.ByID(c.Upgrade.To); from == nil {
			return errImpossible
		}
		args, want = block, from.Applicable(want)
		if flags, missing := from.Carries(want); from.FlagsArg != fdcall.NoFlags && missing == 0 && uint32(args[from.FlagsArg])&flags == flags {
			e.answer(e.listener.Continue(n.ID)) // the program asked for all of it itself
			return nil
		}
	}
	plan, ok := e.table.Plan(from, want)
	if !ok {
		if e.listener.Continue(n.ID) == nil {
			e.count(c, spared)
		}
		return nil
	}
	nr := plan.To.Nr[abi]
	if nr == fdcall.None {
		return errImpossible
	}
	t, r, err := e.hold(n)
	if err != nil {
		return err
	}
	// From here on the notification is answered: what goes wrong is counted
	// here, and the thread goes on with the call as it was.
	if err := e.inPlaceHeld(n, abi, from, plan, want, args, t, r); err != nil && !errors.Is(err, tracee.ErrGone) {
		e.ledger.refused[e.row(c)][failed].Add(1)
		e.complain(fmt.Errorf("run %s of thread %d in place: %w", c.ID(), n.TID, err))
		return nil
	}
	e.count(c, inPlace)
	return nil
}

// readBlock reads the six 32-bit arguments that socketcall(2) finds in memory.
func readBlock(tid int, address uint64) (args [6]uint64, err error) {
	var b [24]byte
	// The shortest list has two words; those behind a short list may be
	// unmapped, and do not matter.
	got := tracee.Peek(tid, address, b[:])
	if got < 8 {
		return args, unix.EFAULT
	}
	for i := range args {
		args[i] = uint64(binary.LittleEndian.Uint32(b[4*i:]))
	}
	return args, nil
}

// inPlaceHeld is runInPlace with the thread held in front of the call.
func (e *engine) inPlaceHeld(n listener.Notification, abi fdcall.ABI, c *fdcall.Call, plan fdcall.Plan, want fdcall.Want, args [6]uint64, t *tracee.Thread, r tracee.Regs) error {
	tid := int(n.TID)
	e.inPlace.Store(tid, nil)
	defer e.inPlace.Delete(tid)

	run := r
	var planned [6]uint64
	for i, o := range plan.Args {
		planned[i] = o.Apply(&args)
	}
	if plan.FlagWord != 0 {
		at, err := e.copyFlagWord(tid, abi, r, plan, args)
		if err != nil {
			return errors.Join(err, resume(t, r))
		}
		if at != 0 {
			planned[plan.To.FlagsArg] = at
		}
	}
	setCall(&run, abi, uint64(uint32(plan.To.Nr[abi])), planned)
	mask, err := t.SigMask()
	if err != nil {
		return err
	}
	// No handler may run before the call is made: it would see, and its return
	// would bring back, registers that are not the program's.
	if err := t.SetSigMask(tracee.AllSignals); err != nil {
		return err
	}
	if err := t.SetRegs(run); err != nil {
		return err
	}
	if err := toSyscall(t); err != nil { // entry
		return err
	}
	if err := t.SetSigMask(mask); err != nil {
		return err
	}
	if err := toSyscall(t); err != nil { // exit: this may take for ever
		return err
	}
	end, err := t.Regs()
	if err != nil {
		return err
	}
	result := end.Rax
	if int64(result) >= 0 {
		if result, err = e.settle(t, abi, c, plan, want, args, r, result); err != nil {
			return err
		}
	}
	// The program's registers, with the result; and its own call in case that
	// the kernel restarts it.
	back := end
	setCall(&back, abi, 0, registersOf(r, abi))
	back.Rip, back.Rax, back.Orig_rax = end.Rip, result, uint64(uint32(n.Nr))
	if err := t.SetRegs(back); err != nil {
		return err
	}
	return t.Detach(0)
}

// toSyscall lets the thread go on to its next system call stop.
func toSyscall(t *tracee.Thread) error {
	var sig unix.Signal
	for {
		if err := t.ToSyscall(sig); err != nil {
			return err
		}
		stop, s, err := t.Stopped()
		if err != nil {
			return err
		}
		if stop == tracee.Syscall {
			return nil
		}
		sig = s
	}
}

// settle does the after-work of a call on its new descriptors: the standard
// stream rule, and the properties that the call could not give.
func (e *engine) settle(t *tracee.Thread, abi fdcall.ABI, c *fdcall.Call, plan fdcall.Plan, want fdcall.Want, args [6]uint64, site tracee.Regs, result uint64) (uint64, error) {
	asked := c.Class == fdcall.Always || c.FlagsArg != fdcall.NoFlags && uint32(args[c.FlagsArg])&c.CloexecBits != 0
	if c.Gives != fdcall.Ret {
		return result, nil
	}
	fcntl := uint64(uint32(e.table.ByID("fcntl F_DUPFD").Nr[abi]))
	switch {
	case result <= 2 && want&fdcall.Cloexec != 0 && !asked:
		_, err := inject(t, abi, site, fcntl, result, unix.F_SETFD, 0)
		return result, err
	case result <= 2:
		return result, nil
	}
	if plan.After&fdcall.Cloexec != 0 {
		if _, err := inject(t, abi, site, fcntl, result, unix.F_SETFD, unix.FD_CLOEXEC); err != nil {
			return result, err
		}
	}
	if plan.After&fdcall.Nonblock != 0 {
		flags, err := inject(t, abi, site, fcntl, result, unix.F_GETFL, 0)
		if err != nil {
			return result, err
		}
		if _, err := inject(t, abi, site, fcntl, result, unix.F_SETFL, flags|unix.O_NONBLOCK); err != nil {
			return result, err
		}
	}
	return result, nil
}

// inject makes the stopped thread run one more call at its call site, with
// signals blocked. The registers are the caller's to restore.
func inject(t *tracee.Thread, abi fdcall.ABI, site tracee.Regs, nr uint64, args ...uint64) (uint64, error) {
	mask, err := t.SigMask()
	if err != nil {
		return 0, err
	}
	if err := t.SetSigMask(tracee.AllSignals); err != nil {
		return 0, err
	}
	var six [6]uint64
	copy(six[:], args)
	setCall(&site, abi, nr, six)
	if err := t.SetRegs(site); err != nil {
		return 0, err
	}
	for range 2 {
		if err := toSyscall(t); err != nil {
			return 0, err
		}
	}
	r, err := t.Regs()
	if err != nil {
		return 0, err
	}
	return r.Rax, t.SetSigMask(mask)
}

// copyFlagWord puts a copy of the structure that holds the flags below the
// thread's red zone, with the flags added, and returns its address; or 0 if
// the call is bound to fail.
func (e *engine) copyFlagWord(tid int, abi fdcall.ABI, r tracee.Regs, plan fdcall.Plan, args [6]uint64) (uint64, error) {
	const (
		smallest = 24 // struct open_how in the first kernel that had it
		largest  = 64
	)
	size := args[plan.To.FlagsArg+1]
	if size < smallest || size > largest {
		return 0, nil
	}
	b := make([]byte, size)
	if tracee.Peek(tid, args[plan.To.FlagsArg], b) < len(b) {
		return 0, nil
	}
	flags := binary.LittleEndian.Uint64(b) | uint64(plan.FlagWord)
	if flags&unix.O_PATH != 0 {
		flags &^= unix.O_NONBLOCK // refused together
	}
	binary.LittleEndian.PutUint64(b, flags)
	m, err := tracee.OpenMemory(tid)
	if err != nil {
		return 0, err
	}
	defer m.Close()
	at := (r.Rsp - redZone - largest) &^ 15
	return at, m.Write(at, b)
}

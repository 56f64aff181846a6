package supervise

import (
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/seed-055cd0c8/indirect/fdcall"
	"github.com/seed-055cd0c8/indirect/internal/image"
	"github.com/seed-055cd0c8/indirect/internal/listener"
	"github.com/seed-055cd0c8/indirect/internal/tracee"
)

const native = fdcall.AMD64

const (
	redZone    = 128 // bytes below the stack pointer that are the program's (System V ABI)
	syscallLen = 2   // of syscall, sysenter and int $0x80 alike
)

// abiOf returns the ABI and the table's number of a notification.
func abiOf(n listener.Notification) (fdcall.ABI, int32, bool) {
	switch {
	case n.Arch == unix.AUDIT_ARCH_X86_64 && n.Nr&x32Bit != 0:
		return fdcall.X32, n.Nr, true
	case n.Arch == unix.AUDIT_ARCH_X86_64:
		return fdcall.AMD64, n.Nr, true
	case n.Arch == unix.AUDIT_ARCH_I386:
		return fdcall.I386, n.Nr, true
	}
	return 0, 0, false
}

// isCancel reports whether a call sends a signal; the filter traps only those
// by which the C libraries cancel threads.
func isCancel(abi fdcall.ABI, nr int32) bool {
	return abi == fdcall.AMD64 && (nr == unix.SYS_TGKILL || nr == unix.SYS_TKILL)
}

// enforce gives the call c of the notification n its flags. An error means
// that the call has not been answered.
func (e *engine) enforce(n listener.Notification, abi fdcall.ABI, c *fdcall.Call) error {
	tid := int(n.TID)
	p, err := e.program(tid)
	if err != nil {
		return err
	}
	if abi != native || e.trapped(c) {
		return e.runInPlace(n, abi, c, p)
	}
	e.foreseen.Do(func() { e.foresee(n) })
	h, ok := e.header(tid)
	if !ok {
		vdso, ok := e.mayLand(tid)
		if !ok {
			return e.runInPlace(n, abi, c, p)
		}
		if plan, ok := e.singly(tid, vdso, c, p); ok {
			return e.single(n, vdso, c, plan)
		}
		if p.Want(c) == 0 {
			return e.leaveAlone(n, vdso, c, p)
		}
		return e.land(n, vdso, p)
	}
	if keptOut(h, c) {
		return e.runInPlace(n, abi, c, p)
	}
	return e.divert(n, c, p)
}

// leaveAlone serves the first call of a program image that is exempt from c. The
// less its calls trap, the better: each one may fail with EINTR, which shells do
// not expect. So it gets an image like others, if it can be attached to: most
// have no handlers yet, and their children inherit it.
func (e *engine) leaveAlone(n listener.Notification, vdso uint64, c *fdcall.Call, p *program) error {
	p.repeats.Store(true)
	err := e.land(n, vdso, p)
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) {
		e.letThrough(n, c)
		return nil
	}
	return err
}

// hold attaches to the thread of n and stops it in front of the instruction
// that made the call, as if the call had not been made yet. When the thread is
// let go, it makes the call (again).
//
// If we die after that, the kernel detaches us and the thread goes on with
// whatever registers it has been given: each of our steps leaves it in a state
// from which it comes back to its call by itself.
func (e *engine) hold(n listener.Notification) (*tracee.Thread, tracee.Regs, error) {
	tid := int(n.TID)
	if !e.listener.Valid(n.ID) {
		return nil, tracee.Regs{}, tracee.ErrGone
	}
	var restart error
	t, stop, sig, err := e.attach(tid, func() { restart = e.listener.Restart(n.ID) })
	if f := e.ledger.of(n.ID); f != nil {
		f.share.end(e.cpus)
	}
	if err != nil {
		return nil, tracee.Regs{}, err
	}
	r, err := t.Regs()
	if err != nil {
		return nil, tracee.Regs{}, err
	}
	// Without an answer of ours, it was interrupted before (kernels without
	// SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV), or it is another thread, to which
	// an execve has given this ID.
	const restartSys = -512
	ours := restart == nil || int64(r.Rax) == restartSys
	if !ours || stop != tracee.Interrupted || r.Rip != n.IP || int32(r.Orig_rax) != n.Nr {
		// It will trap again if it makes the call.
		return nil, tracee.Regs{}, fmt.Errorf("thread %d left its call: %w", tid, e.release(t, sig))
	}
	r.Rip -= syscallLen
	r.Rax = uint64(uint32(n.Nr))
	if n.Arch == unix.AUDIT_ARCH_X86_64 {
		r.Rax = r.Orig_rax
	}
	r.Orig_rax = ^uint64(0) // no restart of the kernel's own
	return t, r, nil
}

// release lets a thread go whose call is no longer ours.
func (e *engine) release(t *tracee.Thread, sig unix.Signal) error {
	if err := t.Detach(sig); err != nil {
		return err
	}
	return tracee.ErrGone
}

// resume sets the held thread's registers and lets it go.
func resume(t *tracee.Thread, r tracee.Regs) error {
	if err := t.SetRegs(r); err != nil {
		if !errors.Is(err, tracee.ErrGone) {
			err = errors.Join(err, t.Detach(0))
		}
		return err
	}
	return t.Detach(0)
}

// mayLand returns where the vDSO of tid's process is, if the thread has not
// yet tried to land in the image that it runs. A second try would be for ever
// the same: there may be no room, or a seccomp filter of the program's own
// that does not let it.
func (e *engine) mayLand(tid int) (vdso uint64, ok bool) {
	if e.caveErr != nil {
		return 0, false
	}
	vdso, err := tracee.VDSO(tid)
	if err != nil {
		return 0, false
	}
	e.images.Lock()
	defer e.images.Unlock()
	if tried, ok := e.landings[tid]; ok && tried.vdso == vdso {
		return 0, false
	}
	return vdso, true
}

// noteLanding remembers a landing, which is then not tried again.
func (e *engine) noteLanding(tid int, l landing) {
	e.images.Lock()
	defer e.images.Unlock()
	if len(e.landings) >= maxPrograms {
		clear(e.landings)
	}
	e.landings[tid] = l
}

// landFirst gives the process of n an image, if it has none and can have one.
// It reports whether the call of n comes back.
func (e *engine) landFirst(n listener.Notification) bool {
	tid := int(n.TID)
	if _, ok := e.header(tid); ok || tid == 0 {
		return false
	}
	vdso, ok := e.mayLand(tid)
	if !ok {
		return false
	}
	p, err := e.program(tid)
	if err != nil {
		return false
	}
	err = e.retryTraced(n, func() error { return e.land(n, vdso, p) })
	return err == nil || errors.Is(err, tracee.ErrGone)
}

// land makes the thread map an image of its program p by itself: it is sent to
// the landing code, with its signals blocked, which tells when that is done
// (see landed) and comes back to the call, also when anything goes wrong.
func (e *engine) land(n listener.Notification, vdso uint64, p *program) error {
	e.noteLanding(int(n.TID), landing{vdso: vdso, program: p, ret: n.IP})
	m, t, r, err := e.holdForCave(n, vdso)
	if err != nil {
		return err
	}
	defer m.Close()
	mask, err := t.SigMask()
	if err != nil {
		return err
	}
	frame := frameOf(r)
	frame.Site, frame.Mask = r.Rip, uint64(mask)
	sp := r.Rsp - redZone - image.LandingFrameSize
	if err := m.Write(sp, frame.Marshal()); err != nil {
		return resume(t, r) // there is no stack
	}
	r.Rsp, r.Rip = sp, vdso+e.cave
	r.Rax = unix.SYS_MMAP
	r.Rdi, r.Rsi, r.Rdx = uint64(e.Base), image.Size, unix.PROT_READ|unix.PROT_EXEC
	r.R10 = unix.MAP_PRIVATE | unix.MAP_ANONYMOUS | unix.MAP_FIXED_NOREPLACE
	r.R8, r.R9 = ^uint64(0), 0
	if err := t.SetRegs(r); err != nil {
		return err
	}
	// From here on it restores its own mask. A handler that runs now might run
	// in call sites that are being changed.
	if err := t.SetSigMask(tracee.AllSignals); err != nil {
		return err
	}
	return t.Detach(0)
}

// holdForCave holds the thread of n when our code is in the vDSO of its
// process, on the processor of its worker. If the code cannot be written there,
// or another thread has landed meanwhile, it makes its call again: that thread
// may cancel this one, which it must not find in our code (see clear).
func (e *engine) holdForCave(n listener.Notification, vdso uint64) (*tracee.Memory, *tracee.Thread, tracee.Regs, error) {
	m, err := e.memory(n)
	if err != nil {
		return nil, nil, tracee.Regs{}, err
	}
	if m.Write(vdso+e.cave, e.code) != nil {
		m.Close()
		if err := e.again(n); err != nil {
			return nil, nil, tracee.Regs{}, err
		}
		return nil, nil, tracee.Regs{}, tracee.ErrGone
	}
	if f := e.ledger.of(n.ID); f != nil {
		f.share.begin(int(n.TID))
	}
	t, r, err := e.hold(n)
	if err == nil {
		if _, ok := e.header(int(n.TID)); !ok {
			return m, t, r, nil
		}
		if err = resume(t, r); err == nil {
			err = tracee.ErrGone
		}
	}
	m.Close()
	return nil, nil, r, err
}

// again lets the thread make its call once more.
func (e *engine) again(n listener.Notification) error {
	t, r, err := e.hold(n)
	if err != nil {
		return err
	}
	return resume(t, r)
}

// tells reports whether a thread that lands has made the call of n.
func (e *engine) tells(n listener.Notification) bool {
	const page = 4096 // the vDSO begins with one
	if (n.IP-e.cave-e.told)%page != 0 || n.TID == 0 {
		return false
	}
	e.images.Lock()
	l, known := e.landings[int(n.TID)]
	e.images.Unlock()
	if !known { // a supervisor before us may have sent it there
		l.vdso, _ = tracee.VDSO(int(n.TID))
	}
	return n.IP == l.vdso+e.cave+e.told
}

// landed fills the image of a thread that has landed, and sends it there.
func (e *engine) landed(n listener.Notification) {
	if err := e.fill(n); err == nil {
		return
	}
	if h, ok := e.header(int(n.TID)); ok && h.Flags&image.Cancels != 0 {
		// A signal that waits for its mask must not find it in code of ours.
		if err := e.retryTraced(n, func() error { return e.goBack(n) }); err == nil || errors.Is(err, tracee.ErrGone) {
			return
		}
	}
	e.answer(e.listener.Return(n.ID, 0))
}

// goBack puts a thread that has landed back to its call.
func (e *engine) goBack(n listener.Notification) error {
	m, err := e.memory(n)
	if err != nil {
		return err
	}
	defer m.Close()
	t, r, err := e.hold(n)
	if err != nil {
		return err
	}
	cave := n.IP - e.told
	c := clearing{engine: e, mem: m, vdso: cave - e.cave}
	back, mask, ok := c.before(r)
	if !ok {
		return resume(t, r)
	}
	return errors.Join(t.SetSigMask(*mask), resume(t, back))
}

// ownFilters are the calls by which a program installs a seccomp filter of its
// own. The strict mode is refused to programs that have a filter, as ours do.
var ownFilters = []Trap{
	{Nr: onNative(unix.SYS_PRCTL), When: []fdcall.Cond{{Arg: 0, Mask: 0xffffffff, Value: unix.PR_SET_SECCOMP}}},
	{Nr: onNative(unix.SYS_SECCOMP), When: []fdcall.Cond{{Arg: 0, Mask: 0xffffffff, Value: unix.SECCOMP_SET_MODE_FILTER}}},
}

func onNative(nr int32) fdcall.Numbers {
	n := fdcall.Numbers{fdcall.None, fdcall.None, fdcall.None, fdcall.None}
	n[native] = nr
	return n
}

// installsFilter reports whether a call is one of ownFilters.
func installsFilter(abi fdcall.ABI, nr int32, args *[6]uint64) bool {
	return slices.ContainsFunc(ownFilters, func(t Trap) bool {
		c := fdcall.Call{Nr: t.Nr, When: t.When}
		return t.Nr[abi] == nr && c.Matches(args)
	})
}

// beforeFilter gives a program its image before it installs a filter, which
// may punish the calls that landing makes: they are not the program's.
func (e *engine) beforeFilter(n listener.Notification) {
	if !e.landFirst(n) {
		e.answer(e.listener.Continue(n.ID))
	}
}

// fill makes an image of the mapping at base, and sends the thread that has
// mapped it to the thunk for its call. Call sites are diverted only when a
// second call traps, unless a process of the same program has made one before:
// many programs make just one. Then those in the same file are; the others wait
// for a call that traps. An error means that the thread has no answer: it is to
// go back to its call, which may run in place.
func (e *engine) fill(n listener.Notification) error {
	tid := int(n.TID)
	e.images.Lock()
	l, known := e.landings[tid]
	e.images.Unlock()
	p, err := l.program, error(nil)
	if p == nil { // a supervisor before us has sent it there
		if p, err = e.program(tid); err != nil {
			return err
		}
	}
	m, err := e.memory(n)
	if err != nil {
		return err
	}
	defer m.Close()
	e.images.Lock()
	defer e.images.Unlock()
	if !known { // a supervisor before us may have filled it, and died then
		if _, ok := e.header(tid); ok {
			return errFilled
		}
	}
	s := &imageState{base: e.Base, mem: m, header: image.Header{Magic: e.Magic, Owner: uint32(e.group(tid))}}
	var sites []knownSite
	if l.ret != 0 && p.repeats.Load() && !e.NoPatch {
		if m, err := tracee.CodeMapping(tid, l.ret-syscallLen); err == nil { // or when it traps again
			sites = e.knownSites(s, []tracee.Mapping{m})
		}
	}
	var thunk uint32
	// A call that we have to look at is to be made, again, at its site.
	if l.ret != 0 && !isCancel(native, n.Nr) && !installsFilter(native, n.Nr, &n.Args) {
		i, ok := image.FindThunk(s.thunks, l.ret)
		if !ok {
			i = s.add(l.ret)
		}
		thunk = image.ThunkAddress(e.Base, i)
	}
	if err := e.writeImage(s, p); err != nil {
		return err
	}
	e.divertKnown(s, sites, aloneOnce(tid))
	if c := e.table.Lookup(native, n.Nr, &n.Args); thunk != 0 && c != nil {
		way := once
		if p.Want(c) == 0 {
			way = spared
		}
		e.served(c, way).Add(1)
	}
	e.ledger.images.Add(1)
	if e.singles[tid] != l.vdso || !known { // not counted yet
		e.ledger.programs.Add(1)
	}
	delete(e.singles, tid)
	delete(e.landings, tid)
	e.answer(e.listener.Return(n.ID, int64(thunk)))
	return nil
}

// writeImage fills a new mapping.
func (e *engine) writeImage(s *imageState, p *program) error {
	e.filling = p.code.AppendTo(e.filling[:0], s.header, s.thunks)
	if err := s.mem.Write(uint64(e.Base)+image.FilledAt, e.filling); err != nil {
		return err
	}
	return s.writeHeader()
}

var errFilled = errors.New("it has been filled before")

// divert makes the call site of n lead to the stub: for ever if it can be
// patched, otherwise for this call.
func (e *engine) divert(n listener.Notification, c *fdcall.Call, p *program) error {
	m, err := e.memory(n)
	if err != nil {
		return err
	}
	defer m.Close()
	exempt := p.Want(c) == 0 // and need not wait
	e.images.Lock()
	thunk, diverted, err := e.patchSite(n, c, m, !exempt)
	e.images.Unlock()
	if err != nil {
		return err
	}
	if exempt {
		e.letThrough(n, c)
		return nil
	}
	t, r, err := e.hold(n)
	if err != nil {
		return err
	}
	p.repeats.Store(true)
	way := patched
	if !diverted {
		way = once
	}
	return counting(e.served(c, way), func() error { return e.enter(t, r, thunk, c) })
}

// enter lets a thread that is held in front of its call c, or of an added one
// if that is nil, go on in the image; or in front of its call, if the program
// has begun to cancel threads meanwhile.
func (e *engine) enter(t *tracee.Thread, r tracee.Regs, thunk uint32, c *fdcall.Call) error {
	if h, ok := e.header(t.ID()); ok && keptOut(h, c) {
		return errors.Join(resume(t, r), tracee.ErrGone)
	}
	r.Rip, r.Rcx = uint64(thunk), uint64(thunk)
	return resume(t, r)
}

// setCall loads a call's number and arguments into the registers of abi.
func setCall(r *tracee.Regs, abi fdcall.ABI, nr uint64, args [6]uint64) {
	r.Rax = nr
	if abi == fdcall.I386 {
		r.Rbx, r.Rcx, r.Rdx, r.Rsi, r.Rdi, r.Rbp = args[0], args[1], args[2], args[3], args[4], args[5]
		return
	}
	r.Rdi, r.Rsi, r.Rdx, r.R10, r.R8, r.R9 = args[0], args[1], args[2], args[3], args[4], args[5]
}

// registersOf returns the argument registers of abi.
func registersOf(r tracee.Regs, abi fdcall.ABI) [6]uint64 {
	if abi == fdcall.I386 {
		return [6]uint64{r.Rbx, r.Rcx, r.Rdx, r.Rsi, r.Rdi, r.Rbp}
	}
	return [6]uint64{r.Rdi, r.Rsi, r.Rdx, r.R10, r.R8, r.R9}
}

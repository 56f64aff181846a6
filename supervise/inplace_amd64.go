package supervise

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"

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
	return e.runRequest(n, abi, request{call: c, nr: n.Nr, args: n.Args}, p)
}

// runRequest is runInPlace for a call that need not be the program's own.
func (e *engine) runRequest(n listener.Notification, abi fdcall.ABI, q request, p *program) error {
	j, answered, err := e.plan(n, abi, q, p)
	if answered || err != nil {
		return err
	}
	defer e.blocked.Add(-1)
	if e.blocked.Add(1) > maxBlocked {
		return errCrowded
	}
	t, r, err := e.hold(n)
	if err != nil {
		return err
	}
	return e.finish(n, q, func() error { return e.inPlaceHeld(n, abi, j, t, r) })
}

// finish does what is left to do for a request whose thread is held: its
// notification is answered, so what goes wrong is counted here, and the thread
// goes on with the call as it was.
func (e *engine) finish(n listener.Notification, q request, rest func() error) error {
	row := e.rowOf(q)
	err := counting(&e.ledger.served[row][inPlace], rest)
	if err != nil && !errors.Is(err, tracee.ErrGone) {
		e.ledger.refused[row][failed].Add(1)
		e.complain(fmt.Errorf("run %s of thread %d in place: %w", e.nameOf(n), n.TID, err))
	}
	return nil
}

// plan finds out how to do what is asked. It may be that it is answered by that.
func (e *engine) plan(n listener.Notification, abi fdcall.ABI, q request, p *program) (j job, answered bool, err error) {
	j = job{request: q}
	if c := q.call; c != nil {
		add := p.Want(c)
		if c.Block && add|q.asked != 0 {
			block, err := readBlock(int(n.TID), q.args[1], c.Upgrade)
			if err != nil {
				e.answer(e.listener.Fail(n.ID, unix.EFAULT))
				return j, true, nil
			}
			if j.call = e.table.ByID(c.Upgrade.To); j.call == nil {
				return j, false, errImpossible
			}
			j.args, add = block, p.Want(j.call)
			want := j.call.Applicable(add)
			if flags, missing := j.call.Carries(want); q.added == nil && j.call.FlagsArg != fdcall.NoFlags && missing == 0 && uint32(j.args[j.call.FlagsArg])&flags == flags {
				e.answer(e.listener.Continue(n.ID)) // the program asked for all of it itself
				return j, true, nil
			}
		}
		j.want = j.call.Applicable(add) | q.asked
		var ok bool
		j.plan, ok = e.table.PlanAsked(j.call, add, q.asked)
		switch {
		case ok && j.plan.To.Nr[abi] == fdcall.None:
			return j, false, errImpossible
		case ok:
		case q.added == nil:
			e.letThrough(n, c)
			return j, true, nil
		default:
			j.call, j.args = nil, q.args // as it is
		}
	}
	return j, false, nil
}

// job is a request with the way to do it.
type job struct {
	request
	plan fdcall.Plan
	want fdcall.Want // what the policy and the program want

	attempt bool // if it would block, the thread is to stay where it is: errBusy
}

// readBlock reads the arguments of the call that an operation of
// socketcall(2) stands for: as many 32-bit words as the operation has.
func readBlock(tid int, address uint64, u *fdcall.Upgrade) (args [6]uint64, err error) {
	words := 0
	for _, a := range u.Args {
		words = max(words, int(a.From)+1)
	}
	b := make([]byte, 4*words)
	if tracee.Peek(tid, address, b) < len(b) {
		return args, unix.EFAULT
	}
	var block [6]uint64
	for i := range words {
		block[i] = uint64(binary.LittleEndian.Uint32(b[4*i:]))
	}
	for i, a := range u.Args {
		args[i] = a.Apply(&block)
	}
	return args, nil
}

// inPlaceHeld is runRequest with the thread held in front of the call.
func (e *engine) inPlaceHeld(n listener.Notification, abi fdcall.ABI, j job, t *tracee.Thread, r tracee.Regs) error {
	if j.call == nil {
		return e.runHeld(n, abi, t, r, j.nr, j.args, j.unlessBusy)
	}
	var planned [6]uint64
	for i, o := range j.plan.Args {
		planned[i] = o.Apply(&j.args)
	}
	if j.plan.FlagWord != 0 {
		at, err := e.copyFlagWord(t.ID(), r, j.plan, j.args)
		if err != nil {
			return errors.Join(err, resume(t, r))
		}
		if at != 0 {
			planned[j.plan.To.FlagsArg] = at
		}
	}
	return e.runHeld(n, abi, t, r, j.plan.To.Nr[abi], planned, func(result uint64) (uint64, error) {
		if int64(result) >= 0 {
			return e.settle(t, abi, j, r, result)
		}
		if theirs := j.plan.Errno.Theirs; theirs != 0 && int64(result) == -int64(theirs) {
			result = -uint64(j.plan.Errno.Ours)
		}
		return j.unlessBusy(result)
	})
}

func (j *job) unlessBusy(result uint64) (uint64, error) {
	if j.attempt && int64(result) == -int64(unix.EAGAIN) {
		return 0, errBusy
	}
	return result, nil
}

var errBusy = errors.New("the call would block")

// runHeld makes a thread that is held with the registers r in front of its
// call run call nr with args. The program sees the result that finish makes of
// that call's, and otherwise its own registers.
func (e *engine) runHeld(n listener.Notification, abi fdcall.ABI, t *tracee.Thread, r tracee.Regs, nr int32, args [6]uint64, finish func(uint64) (uint64, error)) error {
	run := r
	setCall(&run, abi, uint64(uint32(nr)), args)
	mask, err := t.SigMask()
	if err != nil {
		return err
	}
	if f := e.ledger.of(n.ID); f != nil {
		f.held.begin(t.ID(), state{mask: mask, own: r, run: run})
		defer f.held.end(t.ID())
	}
	err = e.toEntry(t, abi, run)
	if errors.Is(err, errDiverted) {
		return errors.Join(resume(t, r), tracee.ErrGone) // it makes its call there
	}
	if err != nil {
		return err
	}
	mark := new(byte) // ours, not that of the thread's next call
	e.inPlace.Store(t.ID(), mark)
	defer e.inPlace.CompareAndDelete(t.ID(), mark)
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
	result, err := finish(end.Rax)
	again := errors.Is(err, errAgain)
	if err != nil && !again {
		return err
	}
	// The program's registers, with the result; and its own call in case that
	// the kernel restarts it.
	back := end
	setCall(&back, abi, 0, registersOf(r, abi))
	back.Rip, back.Rax, back.Orig_rax = end.Rip, result, uint64(uint32(n.Nr))
	if again {
		back.Rip, back.Rax, back.Orig_rax = r.Rip, r.Rax, ^uint64(0)
	}
	e.inPlace.CompareAndDelete(t.ID(), mark) // its next call is a new one
	return resume(t, back)
}

// errAgain says that the thread is to make its own call once more.
var errAgain = errors.New("make the call again")

// toEntry lets a held thread, with the registers r in front of a call site,
// begin its call, with all signals blocked. It fails with errDiverted if the
// site has been diverted since the thread came there: what the thread would
// meet first is another call, in the image.
func (e *engine) toEntry(t *tracee.Thread, abi fdcall.ABI, r tracee.Regs) error {
	leave, ok := e.keepSite(t.ID(), abi, r.Rip)
	if !ok {
		return errDiverted
	}
	defer leave()
	// No handler may run before the call is made: it would see, and its return
	// would bring back, registers that are not the program's.
	if err := t.SetSigMask(tracee.AllSignals); err != nil {
		return err
	}
	if err := t.SetRegs(r); err != nil {
		return err
	}
	return toSyscall(t)
}

var errDiverted = errors.New("the call site has been diverted")

// keepSite keeps a call site of tid's process from being diverted until leave
// is called, or reports that it has been diverted. Sites of other processes at
// the same address are kept as well: nothing cheap tells who shares memory.
func (e *engine) keepSite(tid int, abi fdcall.ABI, site uint64) (leave func(), ok bool) {
	if abi != native {
		return func() {}, true // never diverted
	}
	e.images.Lock()
	defer e.images.Unlock()
	if e.diverted(tid, site) {
		return nil, false
	}
	e.kept[site]++
	return func() {
		e.images.Lock()
		defer e.images.Unlock()
		if e.kept[site]--; e.kept[site] == 0 {
			delete(e.kept, site)
		}
	}, true
}

// diverted reports whether a call site of tid's process leads to its image.
func (e *engine) diverted(tid int, site uint64) bool {
	m, err := tracee.OpenMemory(tid)
	if err != nil {
		return false
	}
	defer m.Close()
	b := make([]byte, syscallLen)
	return m.Read(site, b) == nil && !bytes.Equal(b, syscallCode)
}

var syscallCode = []byte{0x0f, 0x05}

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
// stream rule, and the properties that the call could not give. It returns the
// call's result, which is another one if the descriptor was moved.
func (e *engine) settle(t *tracee.Thread, abi fdcall.ABI, j job, site tracee.Regs, result uint64) (uint64, error) {
	tid, c, plan, want, args := t.ID(), j.call, j.plan, j.want, j.args
	if c.Gives == fdcall.Ret && result > 2 && plan.After == 0 {
		return result, nil // nearly always
	}
	m, err := tracee.OpenMemory(tid)
	if err != nil {
		return result, err
	}
	defer m.Close()
	asked := j.asked&fdcall.Cloexec != 0 || c.Class == fdcall.Always || c.FlagsArg != fdcall.NoFlags && uint32(args[c.FlagsArg])&c.CloexecBits != 0
	number := uint64(uint32(e.table.ByID("fcntl F_DUPFD").Nr[abi]))
	fcntl := func(fd uint32, op int, arg uint64) (int64, error) {
		r, err := e.inject(t, abi, site, number, uint64(fd), uint64(op), arg)
		return int64(int32(r)), err
	}
	if !asked {
		if err := hideFlag(m, abi, c, args, result); err != nil {
			return result, err
		}
	}
	for _, d := range created(m, abi, c, args, result) {
		var errs [4]error
		var flags int64
		stream := d.fd <= 2 && j.asked&fdcall.Nonseq == 0
		switch {
		case stream && want&fdcall.Cloexec != 0 && !asked:
			_, errs[0] = fcntl(d.fd, unix.F_SETFD, 0)
		case stream:
		default:
			if plan.After&fdcall.Cloexec != 0 {
				_, errs[0] = fcntl(d.fd, unix.F_SETFD, unix.FD_CLOEXEC)
			}
			if plan.After&fdcall.Nonblock != 0 {
				flags, errs[1] = fcntl(d.fd, unix.F_GETFL, 0)
				_, errs[2] = fcntl(d.fd, unix.F_SETFL, uint64(flags|unix.O_NONBLOCK))
			}
			if plan.After&fdcall.Nonseq != 0 {
				result, errs[3] = e.move(t, m, abi, site, d, want&fdcall.Cloexec != 0 || asked, result, fcntl)
			}
		}
		if err := errors.Join(errs[:]...); err != nil {
			return result, err
		}
	}
	return result, nil
}

// descriptor is a new descriptor and where the program will find its number.
type descriptor struct {
	fd uint32
	at uint64 // 0: in the call's result
}

// created lists the descriptors that a successful call has created.
func created(m *tracee.Memory, abi fdcall.ABI, c *fdcall.Call, args [6]uint64, result uint64) (all []descriptor) {
	at := args[c.GivesArg]
	list := func(at uint64, n int) {
		b := make([]byte, 4*n)
		if m.Read(at, b) != nil {
			return
		}
		for i := range n {
			all = append(all, descriptor{binary.LittleEndian.Uint32(b[4*i:]), at + 4*uint64(i)})
		}
	}
	switch c.Gives {
	case fdcall.Ret, fdcall.Exact:
		return []descriptor{{fd: uint32(result)}}
	case fdcall.Pair:
		list(at, 2)
	case fdcall.Control:
		rights(m, abi, at, list)
	case fdcall.Controls:
		for i := range result {
			rights(m, abi, at+i*layoutOf(abi).mmsghdr, list)
		}
	}
	return all
}

// layout is how an ABI lays out the structures of recvmsg(2).
type layout struct {
	word                        uint64 // size of a long and a pointer
	control, controllen, flags  uint64 // offsets in struct msghdr
	mmsghdr, cmsghdr, cmsgAlign uint64 // sizes
}

func layoutOf(abi fdcall.ABI) layout {
	if abi == fdcall.AMD64 {
		return layout{word: 8, control: 32, controllen: 40, flags: 48, mmsghdr: 64, cmsghdr: 16, cmsgAlign: 8}
	}
	return layout{word: 4, control: 16, controllen: 20, flags: 24, mmsghdr: 32, cmsghdr: 12, cmsgAlign: 4}
}

// hideFlag clears MSG_CMSG_CLOEXEC in the msg_flags of received messages, where
// the kernel reports it although it was not the program that asked.
func hideFlag(m *tracee.Memory, abi fdcall.ABI, c *fdcall.Call, args [6]uint64, result uint64) error {
	l := layoutOf(abi)
	messages := map[fdcall.Gives]uint64{fdcall.Control: 1, fdcall.Controls: result}[c.Gives]
	for i := range messages {
		at := args[c.GivesArg] + i*l.mmsghdr + l.flags
		b := make([]byte, 4)
		if err := m.Read(at, b); err != nil {
			return err
		}
		flags := binary.LittleEndian.Uint32(b) &^ unix.MSG_CMSG_CLOEXEC
		if err := m.Write(at, binary.LittleEndian.AppendUint32(nil, flags)); err != nil {
			return err
		}
	}
	return nil
}

// rights calls list for each array of descriptors among the control messages
// of the msghdr at address.
func rights(m *tracee.Memory, abi fdcall.ABI, address uint64, list func(at uint64, n int)) {
	l := layoutOf(abi)
	word := func(at uint64) uint64 {
		b := make([]byte, 8)
		if m.Read(at, b[:l.word]) != nil {
			return 0
		}
		return binary.LittleEndian.Uint64(b)
	}
	const largest = 1 << 16 // more than the kernel ever writes: 253 descriptors a message
	at := word(address + l.control)
	end := at + min(word(address+l.controllen), largest)
	for at+l.cmsghdr <= end {
		b := make([]byte, l.cmsghdr)
		if m.Read(at, b) != nil {
			return
		}
		size := binary.LittleEndian.Uint64(append(slices.Clone(b[:l.word]), make([]byte, 8-l.word)...))
		level, kind := binary.LittleEndian.Uint32(b[l.word:]), binary.LittleEndian.Uint32(b[l.word+4:])
		if size < l.cmsghdr || size > end-at {
			return
		}
		if level == unix.SOL_SOCKET && kind == unix.SCM_RIGHTS {
			list(at+l.cmsghdr, int(size-l.cmsghdr)/4)
		}
		at += (size + l.cmsgAlign - 1) &^ (l.cmsgAlign - 1)
	}
}

// move gives a descriptor an unpredictable number, as the stub does.
func (e *engine) move(t *tracee.Thread, m *tracee.Memory, abi fdcall.ABI, site tracee.Regs, d descriptor, cloexec bool, result uint64, fcntl func(fd uint32, op int, arg uint64) (int64, error)) (uint64, error) {
	var limit unix.Rlimit
	if err := unix.Prlimit(t.ID(), unix.RLIMIT_NOFILE, nil, &limit); err != nil {
		return result, fmt.Errorf("read RLIMIT_NOFILE of thread %d: %w", t.ID(), err)
	}
	const highest = 65536
	op := unix.F_DUPFD
	if cloexec {
		op = unix.F_DUPFD_CLOEXEC
	}
	if soft := min(limit.Cur, highest); soft >= 8 {
		half := soft / 2
		for _, from := range []uint64{half + rand.Uint64N(soft-half), half, 3} {
			fd, err := fcntl(d.fd, op, from)
			if err != nil {
				return result, err
			}
			if fd < 0 {
				continue
			}
			if _, err := e.inject(t, abi, site, uint64(uint32(e.closeNr(abi))), uint64(d.fd)); err != nil {
				return result, err
			}
			if d.at == 0 {
				return uint64(fd), nil
			}
			return result, m.Write(d.at, binary.LittleEndian.AppendUint32(nil, uint32(fd)))
		}
	}
	if !cloexec {
		_, err := fcntl(d.fd, unix.F_SETFD, 0)
		return result, err
	}
	return result, nil
}

// closeNr is the number of close(2).
func (e *engine) closeNr(abi fdcall.ABI) int32 {
	return map[fdcall.ABI]int32{fdcall.AMD64: unix.SYS_CLOSE, fdcall.X32: unix.SYS_CLOSE | x32Bit, fdcall.I386: 6}[abi]
}

// inject makes the stopped thread run one more call at its call site, or at the
// stub's if that has been diverted, with signals blocked. The registers are the
// caller's to restore.
func (e *engine) inject(t *tracee.Thread, abi fdcall.ABI, site tracee.Regs, nr uint64, args ...uint64) (uint64, error) {
	mask, err := t.SigMask()
	if err != nil {
		return 0, err
	}
	var six [6]uint64
	copy(six[:], args)
	setCall(&site, abi, nr, six)
	err = e.toEntry(t, abi, site)
	if errors.Is(err, errDiverted) {
		site.Rip = uint64(e.Base) + uint64(e.issued) - syscallLen
		err = e.toEntry(t, abi, site)
	}
	if err != nil {
		return 0, err
	}
	if err := toSyscall(t); err != nil { // exit
		return 0, err
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
func (e *engine) copyFlagWord(tid int, r tracee.Regs, plan fdcall.Plan, args [6]uint64) (uint64, error) {
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

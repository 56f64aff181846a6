package supervise

import (
	"encoding/binary"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/seed-055cd0c8/indirect/fdcall"
	"github.com/seed-055cd0c8/indirect/internal/image"
	"github.com/seed-055cd0c8/indirect/internal/listener"
	"github.com/seed-055cd0c8/indirect/internal/tracee"
)

// syslet is what a program says of a syslet: struct syslet_args.
type syslet struct{ ring, data, ip, sp uint64 }

// decodeSyslet reads struct syslet_args, of which the program gives size bytes,
// and checks it and the ring.
func decodeSyslet(tid int, address, size uint64) (*syslet, error) {
	const length, elementsAt = 32, 8
	b := make([]byte, length)
	if tracee.Peek(tid, address, b[:size]) < int(size) {
		return nil, unix.EFAULT
	}
	word := func(i int) uint64 { return binary.LittleEndian.Uint64(b[8*i:]) }
	s := &syslet{ring: word(0), data: word(1), ip: word(2), sp: word(3)}
	if s.ring == 0 {
		return nil, nil // a plain call after all
	}
	if s.ip == 0 || s.sp == 0 {
		return nil, unix.EINVAL
	}
	var elements [4]byte
	if tracee.Peek(tid, s.ring+elementsAt, elements[:]) < len(elements) {
		return nil, unix.EFAULT
	}
	if n := binary.LittleEndian.Uint32(elements[:]); n == 0 || n&(n-1) != 0 {
		return nil, unix.EINVAL
	}
	return s, nil
}

// runSyslet runs a syslet of a program that speaks another ABI than the stub.
// The thread itself does what is left when it is clear that the call may block:
// it is sent to the stub, which is 64-bit code, with the call and its own
// registers on its stack, and comes back from there without us.
func (e *engine) runSyslet(n listener.Notification, abi fdcall.ABI, q request, p *program) error {
	tid := int(n.TID)
	kind := e.kind(abi, q.nr)
	// A number of the native ABI would escape the policy: the filter trusts the stub.
	if kind == image.Refused || abi == fdcall.X32 && q.nr < x32Bit {
		return e.listener.Fail(n.ID, unix.EINVAL)
	}
	if kind == image.Direct || kind.OnDescriptor() && nonBlocking(e.group(tid), q.args[0]) {
		return e.runRequest(n, abi, q, p)
	}
	flags := map[image.Kind]int{image.Flags2: 2, image.Flags3: 3}[kind]
	var j job
	if flags != 0 {
		attempt := q
		attempt.args[flags] |= unix.MSG_DONTWAIT
		var answered bool
		var err error
		if j, answered, err = e.plan(n, abi, attempt, p); answered || err != nil {
			return err
		}
		j.attempt = true
	}
	m, err := e.memory(n)
	if err != nil {
		return err
	}
	defer m.Close()
	t, r, err := e.hold(n)
	if err != nil {
		return err
	}
	return e.finish(n, q, func() error {
		c := carrying{engine: e, n: n, abi: abi, request: q, program: p, mem: m, thread: t, regs: r}
		switch {
		case flags != 0:
			if err := e.inPlaceHeld(n, abi, j, t, r); !errors.Is(err, errBusy) {
				return err
			}
		case kind >= image.Read && kind <= image.Pwrite:
			if done, err := c.attempt(kind); done || err != nil {
				return err
			}
		}
		return c.carry()
	})
}

// kind is what a syslet does with call nr.
func (e *engine) kind(abi fdcall.ABI, nr int32) image.Kind {
	e.images.Lock()
	defer e.images.Unlock()
	if e.kinds[abi] == nil {
		e.kinds[abi] = image.Kinds(abi)
	}
	return e.kinds[abi][nr]
}

// nonBlocking reports whether calls on descriptor fd of a process do not block,
// because its program has made it so. Files on disk block nevertheless.
func nonBlocking(pid int, fd uint64) bool {
	ours, err := descriptorOf(pid, fd)
	if err != nil {
		return false
	}
	defer unix.Close(ours)
	var st unix.Stat_t
	flags, err := unix.FcntlInt(uintptr(ours), unix.F_GETFL, 0)
	if err != nil || flags&unix.O_NONBLOCK == 0 || unix.Fstat(ours, &st) != nil {
		return false
	}
	format := st.Mode & unix.S_IFMT
	return format != unix.S_IFREG && format != unix.S_IFBLK
}

// descriptorOf returns a descriptor of ours for descriptor fd of a process.
func descriptorOf(pid int, fd uint64) (int, error) {
	process, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return -1, fmt.Errorf("open a pidfd of process %d: %w", pid, err)
	}
	defer unix.Close(process)
	ours, err := unix.PidfdGetfd(process, int(int32(fd)), 0)
	if err != nil {
		return -1, fmt.Errorf("take descriptor %d of process %d: %w", int32(fd), pid, err)
	}
	return ours, nil
}

// carrying is a syslet whose thread is held in front of its call.
type carrying struct {
	*engine
	request
	n       listener.Notification
	abi     fdcall.ABI
	program *program
	mem     *tracee.Memory
	thread  *tracee.Thread
	regs    tracee.Regs
}

// The calls that attempt and mapImage make, on the ABIs that syslets are
// carried for.
var (
	preadv2  = map[fdcall.ABI]uint64{fdcall.I386: 378, fdcall.X32: 546 | x32Bit}
	pwritev2 = map[fdcall.ABI]uint64{fdcall.I386: 379, fdcall.X32: 547 | x32Bit}
	mmap     = map[fdcall.ABI]uint64{fdcall.I386: 192, fdcall.X32: unix.SYS_MMAP | x32Bit}
)

// attempt makes a read or write that must not block. It reports whether that
// was all: then the thread has gone on with the result.
func (c *carrying) attempt(kind image.Kind) (done bool, err error) {
	const rwfNowait = 8
	nr, position := preadv2[c.abi], ^uint64(0) // the file's own position
	if kind == image.Write || kind == image.Pwrite {
		nr = pwritev2[c.abi]
	}
	placed := kind == image.Pread || kind == image.Pwrite
	if placed {
		position = c.args[3]
		if c.abi == fdcall.I386 {
			position = c.args[3]&0xffffffff | c.args[4]<<32
		}
		if int64(position) < 0 {
			return false, nil // -1 would be the file's own
		}
	}
	iovec := binary.LittleEndian.AppendUint32(nil, uint32(c.args[1]))
	iovec = binary.LittleEndian.AppendUint32(iovec, uint32(c.args[2]))
	at := (c.regs.Rsp - redZone - uint64(len(iovec))) &^ 15
	if c.mem.Write(at, iovec) != nil {
		return false, nil
	}
	args := []uint64{c.args[0], at, 1, position, rwfNowait}
	if c.abi == fdcall.I386 {
		args = []uint64{c.args[0], at, 1, position & 0xffffffff, position >> 32, rwfNowait}
	}
	raw, err := c.inject(c.thread, c.abi, c.regs, nr, args...)
	result := int64(int32(raw))
	switch {
	case err != nil:
		return false, err
	case result == -int64(unix.EAGAIN), result == -int64(unix.EOPNOTSUPP), result == -int64(unix.EINVAL), result == -int64(unix.ENOSYS):
		return false, nil
	case placed && result > 0 && result < int64(uint32(c.args[2])): // there may be more
		return false, nil
	}
	return true, c.leave(result)
}

// leave lets the thread go on behind its call.
func (c *carrying) leave(result int64) error {
	r := c.regs
	r.Rip, r.Rax = c.n.IP, uint64(result)
	return resume(c.thread, r)
}

// carry sends the thread to the stub.
func (c *carrying) carry() error {
	if errno, err := c.mapImage(); err != nil || errno != 0 {
		return errors.Join(err, c.leave(-int64(errno)))
	}
	mask, err := c.thread.SigMask()
	if err != nil {
		return err
	}
	nr, args, standard := c.planned()
	r := c.regs
	brought := image.Carried{
		Call: [7]uint64{uint64(uint32(nr)), args[0], args[1], args[2], args[3], args[4], args[5]},
		Ring: c.syslet.ring, Data: c.syslet.data, IP: c.syslet.ip, SP: c.syslet.sp,
		I386: c.abi == fdcall.I386, Standard: standard,
		Registers: [image.CarriedRegisters]uint64{
			r.R15, r.R14, r.R13, r.R12, r.Rbp, r.Rbx, r.R11, r.R10, r.R9, r.R8, r.Rax, r.Rcx, r.Rdx, r.Rsi, r.Rdi,
			uint64(mask), c.n.IP, r.Cs, r.Eflags, r.Rsp, r.Ss,
		},
	}
	sp := (r.Rsp - redZone - image.CarriedSize) &^ 15
	if c.mem.Write(sp, brought.Marshal(c.Base)) != nil {
		return c.leave(-int64(unix.EFAULT)) // there is no stack
	}
	const userCS = 0x33 // __USER_CS, 64-bit code (arch/x86/include/asm/segment.h)
	r.Rsp, r.Rip, r.Rcx, r.Cs = sp, uint64(c.Base+c.sysletAt), uint64(c.Base), userCS
	if err := c.thread.SetRegs(r); err != nil {
		return err
	}
	// From here on it restores its own mask, and needs us no more.
	if err := c.thread.SetSigMask(tracee.AllSignals); err != nil {
		return err
	}
	return c.thread.Detach(0)
}

// planned returns the call for the helper: with the flags that the policy wants,
// if they are all that it wants. Otherwise it is the program's own, which traps.
func (c *carrying) planned() (nr int32, args [6]uint64, standard bool) {
	if c.call == nil || c.call.Block || c.call.Gives != fdcall.Ret || c.trapped(c.call) {
		return c.nr, c.args, false
	}
	want := c.program.Want(c.call)
	plan, ok := c.table.Plan(c.call, want)
	if !ok || plan.After != 0 || plan.FlagWord != 0 || plan.Errno.Theirs != 0 || plan.To.Nr[c.abi] == fdcall.None {
		return c.nr, c.args, false
	}
	for i, o := range plan.Args {
		args[i] = o.Apply(&c.args)
	}
	return plan.To.Nr[c.abi], args, want&fdcall.Cloexec != 0
}

// mapImage makes the thread map an image, if its process has none, and sees to
// it that all of the stub is in it.
func (c *carrying) mapImage() (unix.Errno, error) {
	tid := c.thread.ID()
	_, there := c.header(tid)
	if !there {
		raw, err := c.inject(c.thread, c.abi, c.regs, mmap[c.abi], uint64(c.Base), image.Size, unix.PROT_READ|unix.PROT_EXEC,
			unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_FIXED_NOREPLACE, ^uint64(0), 0)
		if err != nil {
			return 0, err
		}
		if address := uint32(raw); address != c.Base {
			if _, there = c.header(tid); !there { // another thread has not
				return unix.ENOMEM, nil
			}
		}
	}
	c.images.Lock()
	defer c.images.Unlock()
	if !there {
		s := &imageState{base: c.Base, mem: c.mem, header: image.Header{Magic: c.Magic, Owner: uint32(c.group(tid))}}
		if err := c.writeImage(s, c.program); err != nil {
			return 0, err
		}
		c.ledger.images.Add(1)
		c.ledger.programs.Add(1)
	}
	s, err := c.loadImage(tid, c.mem)
	if err != nil || s.header.Arena != 0 || s.header.Sets != 0 {
		return 0, err
	}
	return 0, s.writeRest(c.program)
}

// futex's numbers.
var futex = map[fdcall.ABI]int32{fdcall.I386: 240, fdcall.X32: unix.SYS_FUTEX | x32Bit}

// waitRing makes the thread wait until the head of the ring at its argument 0
// is not its argument 1.
func (e *engine) waitRing(n listener.Notification, abi fdcall.ABI, q request) error {
	var head [4]byte
	if tracee.Peek(int(n.TID), n.Args[0], head[:]) < len(head) {
		return e.listener.Fail(n.ID, unix.EFAULT)
	}
	if uint64(binary.LittleEndian.Uint32(head[:])) != n.Args[1] {
		return e.listener.Return(n.ID, 0)
	}
	defer e.blocked.Add(-1)
	if e.blocked.Add(1) > maxBlocked {
		return errCrowded
	}
	t, r, err := e.hold(n)
	if err != nil {
		return err
	}
	const futexWait = 0
	return e.finish(n, q, func() error {
		return e.runHeld(n, abi, t, r, futex[abi], [6]uint64{n.Args[0], futexWait, n.Args[1]}, func(result uint64) (uint64, error) {
			switch int64(result) {
			case 0:
				return 0, errAgain // look again
			case -int64(unix.EAGAIN): // another value
				return 0, nil
			}
			return result, nil
		})
	})
}

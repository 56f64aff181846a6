// Package uring is a small binding of io_uring(7): a pair of rings shared with
// the kernel, a table of direct descriptors, and nothing that decides what to
// submit.
//
// A [Ring] is not safe for concurrent use. Memory whose address is put into an
// [SQE] must stay where it is, and be left alone, until its [CQE] was seen: the
// kernel writes to it at any time in between.
package uring

import (
	"errors"
	"fmt"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ErrTooOld says that the kernel has io_uring without something that this
// package builds on: it wants Linux 5.19 or newer.
var ErrTooOld = errors.New("this kernel's io_uring is too old (Linux 5.19 or newer is needed)")

// Config is the shape of a ring.
type Config struct {
	Submissions uint32 // entries of the submission queue, rounded up to a power of two; 1 to 32768
	Completions uint32 // entries of the completion queue, likewise; Submissions to 65536
	Files       uint32 // direct descriptors; 0 to the soft RLIMIT_NOFILE

	// Alloc is how many more direct descriptors there are, behind the others, for
	// the kernel to choose from ([FileAlloc]). They are left out, and Ring.Allocs
	// says so, before Linux 6.0 and where RLIMIT_NOFILE has no room for them.
	Alloc uint32

	// OneThread promises that one OS thread, the one that calls New, makes every
	// call. The kernel then runs deferred work only when that thread waits
	// (SINGLE_ISSUER and DEFER_TASKRUN, Linux 6.1), which saves locks and
	// interruptions. Older kernels ignore it.
	OneThread bool
}

// Ring is an io_uring instance.
type Ring struct {
	fd       int
	features uint32
	flags    uint32
	mem      []byte // both rings' indices and the CQEs
	sqeMem   []byte

	sqHead, sqTail, sqFlags *atomic.Uint32
	sqes                    []SQE
	next                    uint32 // our tail: what Next handed out, published or not
	sent                    uint32 // entries before this one were accepted by the kernel

	cqHead, cqTail *atomic.Uint32
	cqes           []CQE

	ops    [256]bool
	allocs bool

	// What io_uring_enter reads through pointers lives here, on the heap: a
	// stack may move during the call.
	arg geteventsArg
	ts  Timespec

	enters uint64
}

// New makes a ring. The error wraps ENOSYS where the kernel has no io_uring,
// EPERM where it is forbidden (kernel.io_uring_disabled, seccomp), [ErrTooOld]
// where it is too old, EINVAL for a bad Config, ENOMEM or EMFILE where a limit
// is reached.
func New(c Config) (*Ring, error) {
	const most = 1 << 15 // IORING_MAX_ENTRIES; of completions twice that
	if c.Submissions < 1 || c.Submissions > most || c.Completions < c.Submissions || c.Completions > 2*most {
		return nil, fmt.Errorf("a ring of %d submissions and %d completions: %w", c.Submissions, c.Completions, unix.EINVAL)
	}
	r := &Ring{fd: -1}
	if err := r.setup(c); err != nil {
		r.Close()
		return nil, err
	}
	return r, nil
}

func (r *Ring) setup(c Config) error {
	base := uint32(setupCQSize | setupSubmitAll)
	ladder := []uint32{base | setupCoopTaskrun, base} // SUBMIT_ALL: 5.18, COOP_TASKRUN: 5.19
	if c.OneThread {
		ladder = append([]uint32{base | setupSingleIssuer | setupDeferTaskrun}, ladder...)
	}
	var p params
	var errno unix.Errno
	for _, flags := range ladder {
		p = params{flags: flags, cqEntries: c.Completions}
		var fd uintptr
		fd, _, errno = unix.Syscall(unix.SYS_IO_URING_SETUP, uintptr(c.Submissions), uintptr(unsafe.Pointer(&p)), 0)
		if errno == 0 {
			r.fd = int(fd) // close-on-exec by birth: io_uring/io_uring.c, io_uring_install_fd
			break
		}
		if errno != unix.EINVAL { // EINVAL: a flag that this kernel does not know
			break
		}
	}
	switch errno {
	case 0:
	case unix.EINVAL: // not for the numbers of entries, which are in range: even the base flags are unknown
		return ErrTooOld
	default:
		return fmt.Errorf("io_uring_setup(%d entries): %w", c.Submissions, errno)
	}
	r.features, r.flags = p.features, p.flags
	const need = featSingleMmap | featNoDrop | featExtArg | featLinkedFile
	if p.features&need != need {
		return ErrTooOld
	}
	if err := r.mmap(&p); err != nil {
		return err
	}
	if err := r.probe(); err != nil {
		return err
	}
	return r.registerFiles(c.Files, c.Alloc)
}

// registerFiles makes an empty table of direct descriptors.
func (r *Ring) registerFiles(n, alloc uint32) error {
	if n+alloc == 0 {
		return nil
	}
	files := filesRegister{nr: n + alloc, flags: filesSparse}
	err := r.register(registerFiles2, unsafe.Pointer(&files), unsafe.Sizeof(files))
	if errors.Is(err, unix.EMFILE) && n > 0 && alloc > 0 {
		return r.registerFiles(n, 0)
	}
	if errors.Is(err, unix.EINVAL) {
		return ErrTooOld
	}
	if err != nil {
		return fmt.Errorf("register %d direct descriptors: %w", files.nr, err)
	}
	if alloc > 0 {
		rest := fileRange{off: n, len: alloc}
		r.allocs = r.register(registerFileRange, unsafe.Pointer(&rest), 0) == nil
	}
	return nil
}

func (r *Ring) mmap(p *params) error {
	size := max(p.sq.array+p.sqEntries*4, p.cq.cqes+p.cqEntries*uint32(unsafe.Sizeof(CQE{})))
	var err error
	const prot, flags = unix.PROT_READ | unix.PROT_WRITE, unix.MAP_SHARED | unix.MAP_POPULATE
	if r.mem, err = unix.Mmap(r.fd, offSQRing, int(size), prot, flags); err != nil {
		return fmt.Errorf("map the rings: %w", err)
	}
	if r.sqeMem, err = unix.Mmap(r.fd, offSQEs, int(p.sqEntries)*int(unsafe.Sizeof(SQE{})), prot, flags); err != nil {
		return fmt.Errorf("map the submission entries: %w", err)
	}
	word := func(off uint32) *atomic.Uint32 { return (*atomic.Uint32)(unsafe.Pointer(&r.mem[off])) }
	r.sqHead, r.sqTail, r.sqFlags = word(p.sq.head), word(p.sq.tail), word(p.sq.flags)
	r.cqHead, r.cqTail = word(p.cq.head), word(p.cq.tail)
	r.sqes = unsafe.Slice((*SQE)(unsafe.Pointer(&r.sqeMem[0])), p.sqEntries)
	r.cqes = unsafe.Slice((*CQE)(unsafe.Pointer(&r.mem[p.cq.cqes])), p.cqEntries)
	// The kernel reads entries through this array; ours are always in order.
	array := unsafe.Slice((*uint32)(unsafe.Pointer(&r.mem[p.sq.array])), p.sqEntries)
	for i := range array {
		array[i] = uint32(i)
	}
	return nil
}

func (r *Ring) probe() error {
	var p probe
	if err := r.register(registerProbe, unsafe.Pointer(&p), uintptr(len(p.ops))); err != nil {
		return fmt.Errorf("ask io_uring for its operations: %w", err)
	}
	for _, op := range p.ops[:p.opsLen] {
		r.ops[op.op] = op.flags&opSupported != 0
	}
	return nil
}

func (r *Ring) register(what uintptr, arg unsafe.Pointer, n uintptr) error {
	_, _, errno := unix.Syscall6(unix.SYS_IO_URING_REGISTER, uintptr(r.fd), what, uintptr(arg), n, 0, 0)
	if errno != 0 {
		return errno
	}
	return nil
}

// Close ends the ring. What is in flight is cancelled by the kernel, but not
// yet when Close returns: see all completions first, or never reuse the memory.
func (r *Ring) Close() error {
	var err error
	if r.fd >= 0 {
		err = unix.Close(r.fd)
		r.fd = -1
	}
	for _, mem := range []*[]byte{&r.sqeMem, &r.mem} {
		if *mem != nil {
			err = errors.Join(err, unix.Munmap(*mem))
			*mem = nil
		}
	}
	r.sqes, r.cqes = nil, nil
	return err
}

// Supports reports whether the kernel knows an operation.
func (r *Ring) Supports(op Op) bool { return r.ops[op] }

// Allocs reports whether the kernel can choose direct descriptors (Config.Alloc).
func (r *Ring) Allocs() bool { return r.allocs }

// Deferred reports whether the kernel took the promise of Config.OneThread.
func (r *Ring) Deferred() bool { return r.flags&setupDeferTaskrun != 0 }

// Enters returns how often the ring called io_uring_enter.
func (r *Ring) Enters() uint64 { return r.enters }

// Completions returns the size of the completion queue. Whoever has no more
// requests than this in flight never overflows it.
func (r *Ring) Completions() int { return len(r.cqes) }

// Submissions returns the size of the submission queue.
func (r *Ring) Submissions() int { return len(r.sqes) }

// Room returns how many entries [Ring.Next] can hand out before [Ring.Enter].
// Linked requests must be submitted together: the kernel ends a chain with the
// batch.
func (r *Ring) Room() int { return len(r.sqes) - int(r.next-r.sqHead.Load()) }

// Next hands out a zeroed entry to fill in, or nil where there is no room. It
// is submitted by the next [Ring.Enter].
func (r *Ring) Next() *SQE {
	if r.Room() <= 0 {
		return nil
	}
	e := &r.sqes[r.next&uint32(len(r.sqes)-1)]
	*e = SQE{}
	r.next++
	return e
}

// Enter submits what [Ring.Next] handed out and waits until wait completions
// are there or timeout has passed (0 is no limit). It returns nil on a timeout
// and on an interruption, too: look at [Ring.Reap]. EBUSY and EAGAIN say that
// completions must be reaped first.
func (r *Ring) Enter(wait int, timeout time.Duration) error {
	r.sqTail.Store(r.next)
	pending := r.next - r.sent
	flags, arg, size := uintptr(0), uintptr(0), uintptr(0)
	if wait > 0 || r.sqFlags.Load()&(sqCQOverflow|sqTaskrun) != 0 || r.Deferred() {
		flags = enterGetEvents
	}
	if wait > 0 && timeout > 0 {
		r.ts = Span(timeout)
		r.arg = geteventsArg{ts: uint64(uintptr(unsafe.Pointer(&r.ts)))}
		flags |= enterExtArg
		arg, size = uintptr(unsafe.Pointer(&r.arg)), unsafe.Sizeof(r.arg)
	}
	r.enters++
	_, _, errno := unix.Syscall6(unix.SYS_IO_URING_ENTER, uintptr(r.fd), uintptr(pending), uintptr(wait), flags, arg, size)
	// The return value is an error, and hides what was submitted, where the wait
	// failed. The head tells in every case.
	r.sent = r.sqHead.Load()
	switch errno {
	case 0, unix.EINTR, unix.ETIME:
		return nil
	case unix.EEXIST:
		return fmt.Errorf("io_uring_enter from a thread other than the one that made the ring: %w", errno)
	}
	return fmt.Errorf("io_uring_enter(submit %d, wait %d): %w", pending, wait, errno)
}

// Ready returns how many completions wait to be reaped.
func (r *Ring) Ready() int { return int(r.cqTail.Load() - r.cqHead.Load()) }

// Reap takes the oldest completion, if there is one.
func (r *Ring) Reap() (CQE, bool) {
	head := r.cqHead.Load()
	if head == r.cqTail.Load() {
		return CQE{}, false
	}
	c := r.cqes[head&uint32(len(r.cqes)-1)]
	r.cqHead.Store(head + 1) // after the copy: the kernel may now reuse the entry
	return c, true
}

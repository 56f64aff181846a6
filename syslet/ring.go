package syslet

import (
	"errors"
	"fmt"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/seed-055cd0c8/indirect/internal/uring"
	"golang.org/x/sys/unix"
)

// ringState is what the ring notes about a flight.
type ringState struct {
	end     int    // the step behind the segment that is submitted
	pending int    // completions that the segment, or the clean-up, still owes
	plain   uint32 // bit by opening step: gets a number, since a call needs one
	refused int    // a step that no segment may take in behind another, or 0
	closing bool   // the chain has ended, its descriptors are being closed
	expired uint32 // bit by step of the segment: its timeout came first
	// When the timeout of step pc comes, where it is being tried again.
	until time.Time
	slots [MaxSteps]uint32 // by opening step: the direct descriptor
}

// User data of a request: flight<<8 | kind<<5 | step; of kindShared:
// index in shared<<8 | kind.
const (
	kindStep = iota << 5
	kindPoll
	kindClose
	kindTimeout
	kindShared // a multishot accept
	kindDrop   // the close of a connection that no chain took
	kindMask   = 7 << 5
	stepMask   = 1<<5 - 1

	wakeData   = ^uint64(0)
	cancelData = wakeData - 1
)

// ringBackend runs chains on io_uring. As many steps as possible become one
// segment of linked requests; a step that needs a value of the segment before
// (a length, a number) starts a new one.
type ringBackend struct {
	e         *Engine
	ring      *uring.Ring
	install   bool // the kernel can reveal a direct descriptor (Linux 6.8)
	out       int  // requests without a completion
	queue     []*flight
	shared    []*sharedAccept
	multishot bool     // shared accepts can be made, as far as this run has seen
	drop      []uint32 // direct descriptors to close
	wake      int      // eventfd that interrupts a wait
	wakeArmed bool
	stop      atomic.Bool
}

func newRing(e *Engine) (*ringBackend, error) {
	submissions := max(64, e.config.Depth*4)
	completions := submissions * 2
	r, err := uring.New(uring.Config{
		Submissions: uint32(submissions),
		Completions: uint32(completions),
		Files:       uint32(e.config.Depth * MaxOpen),
		Alloc:       uint32(ahead(e.config.Depth, completions)),
		OneThread:   e.config.OneThread,
	})
	if err != nil {
		return nil, err
	}
	if err := try(r); err != nil {
		return nil, errors.Join(err, r.Close())
	}
	for _, op := range [...]uring.Op{uring.OpOpenat, uring.OpRead, uring.OpWrite, uring.OpFsync, uring.OpStatx,
		uring.OpRenameat, uring.OpUnlinkat, uring.OpMkdirat, uring.OpAccept, uring.OpRecv, uring.OpSend,
		uring.OpSocket, uring.OpConnect, uring.OpShutdown, uring.OpLinkTimeout,
		uring.OpClose, uring.OpPollAdd, uring.OpAsyncCancel, uring.OpNop} {
		if !r.Supports(op) {
			return nil, errors.Join(fmt.Errorf("operation %d: %w", op, uring.ErrTooOld), r.Close())
		}
	}
	wake, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("eventfd: %w", err), r.Close())
	}
	return &ringBackend{e: e, ring: r, install: r.Supports(uring.OpFixedFdInstall), wake: wake,
		queue: make([]*flight, 0, e.config.Depth)}, nil
}

// try makes a round trip: a seccomp filter may let rings be made and not used.
func try(r *uring.Ring) error {
	r.Next().Op = uring.OpNop
	const tries = 100 // a signal may end a wait
	for range tries {
		if err := r.Enter(1, time.Second); err != nil {
			return err
		}
		if c, ok := r.Reap(); ok && c.Res == 0 {
			return nil
		} else if ok {
			return fmt.Errorf("a request without effect: %w", unix.Errno(-c.Res))
		}
	}
	return fmt.Errorf("a request without effect: %w", unix.ETIMEDOUT)
}

func (b *ringBackend) calls() uint64 { return b.ring.Enters() }

func (b *ringBackend) close() error { return errors.Join(b.ring.Close(), unix.Close(b.wake)) }

func (b *ringBackend) begin() error {
	b.stop.Store(false)
	b.multishot = b.install && b.ring.Allocs()
	b.armWake()
	return nil
}

// armWake has the wait end when the eventfd is written. The request stays
// there between runs.
func (b *ringBackend) armWake() {
	if b.wakeArmed {
		return
	}
	if s := b.ring.Next(); s != nil {
		s.Op, s.Fd, s.OpFlags, s.UserData = uring.OpPollAdd, int32(b.wake), unix.POLLIN, wakeData
		b.wakeArmed = true
		b.out++
	}
}

func (b *ringBackend) interrupt() {
	b.stop.Store(true)
	unix.Write(b.wake, []byte{1, 0, 0, 0, 0, 0, 0, 0}) // can only fail where it is readable already
}

func (b *ringBackend) end() error {
	if b.stop.Load() {
		var count [8]byte
		unix.Read(b.wake, count[:])
	} else if len(b.shared)+len(b.drop) == 0 {
		return nil
	}
	b.stop.Store(true)
	for {
		listening := b.abandonShared()
		b.dropSome()
		if quiet := b.out == 0 || b.wakeArmed && b.out == 1; quiet && len(b.drop) == 0 {
			break
		}
		if listening {
			b.cancel()
		}
		if err := b.turn(1, interruptRetry); err != nil {
			return err
		}
	}
	return nil
}

// interruptRetry is how often what is in flight is cancelled again: a request
// may have been between two states, or the next of a link have started.
const interruptRetry = 10 * time.Millisecond

// batchPatience limits the wait for a whole batch.
const batchPatience = time.Millisecond

func (b *ringBackend) start(f *flight) {
	f.ring = ringState{}
	slot := uint32(f.index * MaxOpen)
	for i := range f.chain[:f.steps] {
		s := &f.chain[i]
		if s.Call.opens() {
			f.ring.slots[i] = slot
			slot++
		}
		asNumber := s.Call.hasPath() || s.Call == Reveal && !b.install
		if asNumber && s.Fd.kind == fdOpened {
			f.ring.plain |= 1 << s.Fd.n
		}
		if s.Call == Rename && s.Fd2.kind == fdOpened {
			f.ring.plain |= 1 << s.Fd2.n
		}
	}
	b.proceed(f)
}

func (b *ringBackend) advance(block bool) error {
	e := b.e
	for first := true; ; first = false {
		if b.stop.Load() {
			b.abandonShared()
		}
		b.resume()
		b.dropSome()
		if b.stop.Load() {
			b.cancel()
		}
		wait, patience := 0, time.Duration(0)
		if block && len(e.done) == 0 {
			wait = 1
			switch {
			case b.stop.Load():
				patience = interruptRetry
			case first && e.config.Batch > 1 && e.live > 0:
				due := b.out + b.awaiting() // completions until all chains have gone on
				wait = max(1, due*e.config.Batch/max(e.live, e.config.Batch)-1)
				patience = batchPatience
			}
		}
		if err := b.turn(wait, patience); err != nil {
			return err
		}
		if !block || len(e.done) > 0 {
			return nil
		}
	}
}

// turn enters the kernel once and handles what has completed.
func (b *ringBackend) turn(wait int, patience time.Duration) error {
	if b.ring.Ready() >= wait && wait > 0 {
		wait = 0
	}
	err := b.ring.Enter(wait, patience)
	for range scarceTries {
		if !scarce(err) || b.ring.Ready() > 0 {
			break
		}
		time.Sleep(scarcePause)
		err = b.ring.Enter(0, 0)
	}
	if err != nil && !(scarce(err) && b.ring.Ready() > 0) {
		return fmt.Errorf("syslet: %w", err)
	}
	for {
		c, ok := b.ring.Reap()
		if !ok {
			break
		}
		b.complete(c)
	}
	if !b.stop.Load() {
		b.armWake()
	}
	return nil
}

// scarce tells whether an error says that the kernel has no memory for a request
// now, or that completions have to be reaped first (io_uring_enter(2)).
func scarce(err error) bool { return errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EBUSY) }

// How long the kernel may have no memory for a request and nothing complete.
const (
	scarcePause = time.Millisecond
	scarceTries = 1000
)

// cancel asks for everything in flight to be cancelled.
func (b *ringBackend) cancel() {
	if s := b.ring.Next(); s != nil {
		s.Op, s.OpFlags, s.UserData = uring.OpAsyncCancel, uring.CancelAll|uring.CancelAny, cancelData
		b.out++
	}
}

// complete notes a completion. One that belongs to nothing is ignored: what the
// kernel sends is input.
func (b *ringBackend) complete(c uring.CQE) {
	index, kind, step := c.UserData>>8, c.UserData&kindMask, int(c.UserData&stepMask)
	switch {
	case c.UserData == wakeData:
		if b.wakeArmed {
			b.wakeArmed = false
			b.out--
		}
		return
	case c.UserData == cancelData || c.UserData == kindDrop:
		b.out--
		return
	case kind == kindShared && index < uint64(len(b.shared)):
		b.connection(b.shared[index], c)
		return
	case kind > kindTimeout || index >= uint64(len(b.e.flights)):
		return
	}
	f := &b.e.flights[index]
	if f.ring.pending == 0 || step >= f.steps || f.ring.closing != (kind == kindClose) {
		return
	}
	b.out--
	switch kind {
	case kindTimeout:
		if c.Res != -int32(unix.ECANCELED) { // which is the request that came in time
			f.ring.expired |= 1 << step
		}
	case kindPoll:
		if c.Res < 0 {
			f.results[step] = c.Res // the reason for the cancellation of the step itself
		}
	case kindStep:
		if c.Res != -int32(unix.ECANCELED) || f.results[step] == waiting {
			f.results[step] = c.Res
		}
	}
	if f.ring.pending--; f.ring.pending > 0 {
		return
	}
	if f.ring.closing {
		b.e.done = append(b.e.done, f)
		return
	}
	if b.settle(f) {
		b.proceed(f)
	} else {
		b.finish(f)
	}
}

// settle looks at a segment's results in order and sets where to go on. It
// reports false where the chain has ended.
func (b *ringBackend) settle(f *flight) bool {
	canceled := -int32(unix.ECANCELED)
	i := f.pc
	for j := i; j < f.ring.end; j++ {
		// A thread of the kernel's that runs a request is cancelled by a signal.
		if ended := f.results[j] == canceled || f.results[j] == -int32(unix.EINTR); ended && f.ring.expired>>j&1 != 0 {
			f.results[j] = -int32(unix.ETIMEDOUT)
		}
	}
	again := f.ring.until
	f.ring.until = time.Time{}
	if f.results[i] == canceled && !b.stop.Load() {
		// The kernel refused a later request before it began with the first
		// (io_uring/io_uring.c, io_submit_fail_init). The steps before it have to
		// run all the same.
		for j := i + 1; j < f.ring.end; j++ {
			if res := f.results[j]; res < 0 && res != canceled {
				b.forget(f, i, f.ring.end)
				f.ring.refused = j
				return true
			}
		}
	}
	for i < f.ring.end {
		if f.polls(i) && f.results[i] == -int32(unix.EAGAIN) {
			b.forget(f, i, f.ring.end)
			if i == f.pc {
				f.ring.until = again
			}
			f.pc = i
			return true
		}
		if i > f.pc && f.results[i] == canceled && !b.stop.Load() {
			// The first request was refused, which no hard link outlives. We came
			// here, so this step has to run.
			b.forget(f, i, f.ring.end)
			f.pc = i
			return true
		}
		next := f.settle(i, b.outcome(f, i))
		if next != i+1 {
			b.forget(f, i+1, f.ring.end)
		}
		if next < 0 {
			return false
		}
		if i++; next != i {
			i = next
			break
		}
	}
	f.pc = i
	return true
}

func (b *ringBackend) forget(f *flight, from, to int) {
	for i := from; i < to; i++ {
		f.results[i] = notRun
	}
}

// outcome does what a step's result calls for in the process, and returns the
// result as all back ends report it.
func (b *ringBackend) outcome(f *flight, i int) int32 {
	s, res := &f.chain[i], f.results[i]
	if res < 0 {
		return res
	}
	switch s.Call {
	case Open, Accept, Socket:
		f.fds[i] = res // 0 for a direct descriptor
		return 0
	case Close:
		f.fds[s.Fd.n] = noFd
	case Reveal:
		if s.Flags&NonSequential != 0 {
			fd, err := scatter(int(res), s.Flags&Inheritable != 0)
			if err != nil {
				return -int32(errnoOf(err))
			}
			return int32(fd)
		}
	}
	return res
}

// proceed submits the next segment, or ends the chain.
func (b *ringBackend) proceed(f *flight) {
	for {
		if f.pc >= f.steps {
			b.finish(f)
			return
		}
		if b.stop.Load() {
			f.results[f.pc] = -int32(unix.ECANCELED)
			f.failed = f.pc
			b.finish(f)
			return
		}
		s := &f.chain[f.pc]
		switch {
		case s.Call == Jump:
			f.results[f.pc] = 0
			f.pc = s.Flags
			continue
		case s.Call == Reveal && b.isPlain(f, s.Fd):
			if f.pc = f.settle(f.pc, f.reveal(s)); f.pc < 0 {
				b.finish(f)
				return
			}
			continue
		}
		if !b.submit(f) {
			b.queue = append(b.queue, f)
		}
		return
	}
}

// resume submits what had to wait for room.
func (b *ringBackend) resume() {
	waiting := b.queue
	b.queue = b.queue[:0]
	for _, f := range waiting {
		// What does not fit is put back behind what was already looked at, never
		// before: the slice is not overtaken.
		if f.ring.closing {
			b.finish(f)
		} else {
			b.proceed(f)
		}
	}
}

func (b *ringBackend) room(n int) bool {
	const spare = 2 // for the wake-up and a cancellation
	return b.ring.Room() >= n+spare && b.out+n+spare <= b.ring.Completions()
}

// finish closes what the chain left open.
func (b *ringBackend) finish(f *flight) {
	n := 0
	for i := range f.chain[:f.steps] {
		if f.fds[i] == noFd {
			continue
		}
		if f.ring.plain>>i&1 != 0 {
			unix.Close(int(f.fds[i]))
			f.fds[i] = noFd
			continue
		}
		n++
	}
	f.ring.closing = true
	if n == 0 {
		b.e.done = append(b.e.done, f)
		return
	}
	if !b.room(n) {
		b.queue = append(b.queue, f)
		return
	}
	for i := range f.chain[:f.steps] {
		if f.fds[i] == noFd {
			continue
		}
		s := b.ring.Next()
		s.Op, s.FileIndex, s.UserData = uring.OpClose, f.ring.slots[i]+1, uint64(f.index)<<8|kindClose|uint64(i)
		f.fds[i] = noFd
	}
	f.ring.pending = n
	b.out += n
}

func (b *ringBackend) isPlain(f *flight, fd FD) bool {
	return fd.kind == fdOpened && f.ring.plain>>fd.n&1 != 0
}

// polls tells whether a step first waits until its descriptor is ready: on a
// descriptor that may be non-blocking, as all of Go's are.
func (f *flight) polls(i int) bool {
	s := &f.chain[i]
	waits := s.Call == Accept || (s.Call == Recv || s.Call == Send) && s.Flags&unix.MSG_DONTWAIT == 0
	nonblocking := s.Fd.kind == fdNumber || s.Fd.kind == fdOpened && f.chain[s.Fd.n].Flags&unix.SOCK_NONBLOCK != 0
	return waits && nonblocking
}

// cost is the number of requests that a step takes.
func (f *flight) cost(i int) int {
	n := 1
	if f.polls(i) {
		n++
	}
	if f.chain[i].Timeout > 0 {
		n *= 2
	}
	return n
}

// link returns how step s leads to the next in the kernel. It reports false
// where only we can tell whether it does.
func (s *Step) link() (uint8, bool) {
	switch s.Call {
	case Fsync, Stat, Rename, Unlink, Mkdir, Shutdown:
		// io_uring/sync.c, statx.c, fs.c and net.c (shutdown) do not mark a failed request as failed:
		// a link behind it would go on.
		return uring.HardLink, s.OnError == Ignore
	}
	ignores, stops := 0, 0
	note := func(a Action) {
		if a == Ignore {
			ignores++
		} else {
			stops++
		}
	}
	note(s.OnError)
	if s.fullOnly() {
		note(s.OnShort)
		note(s.OnEnd)
	} else if s.Call.transfers() && s.OnEnd != Ignore {
		return 0, false // the kernel takes no byte for a success
	}
	switch {
	case stops == 0:
		return uring.HardLink, true
	case ignores == 0:
		return uring.Link, true
	}
	return 0, false
}

// plan finds the longest segment at the chain's next step: where it ends and how
// many requests it takes.
func (b *ringBackend) plan(f *flight) (end, requests int) {
	for i := f.pc; i < f.steps; i++ {
		s := &f.chain[i]
		if i > f.pc && (s.Call == Jump || i == f.ring.refused || b.needsValue(f, i) || b.shares(f, i)) {
			return i, requests
		}
		requests += f.cost(i)
		// A step that polls may have to be tried again before the next one runs,
		// which a hard link would not wait for.
		// And behind the close of a number that number is nobody's.
		closes := s.Call == Close && b.isPlain(f, s.Fd)
		if link, ok := s.link(); !ok || closes || f.polls(i) && link == uring.HardLink {
			return i + 1, requests
		}
	}
	return f.steps, requests
}

// needsValue tells whether step i needs something that a step of the same
// segment finds out.
func (b *ringBackend) needsValue(f *flight, i int) bool {
	s := &f.chain[i]
	if s.Call.transfers() && int(s.Data.length) > f.pc {
		return true
	}
	inSegment := func(fd FD) bool { return b.isPlain(f, fd) && int(fd.n) >= f.pc }
	switch {
	case s.Call == Reveal:
		return b.isPlain(f, s.Fd)
	case s.Call == Rename:
		return inSegment(s.Fd) || inSegment(s.Fd2)
	case s.Call.hasPath(), s.Call.hasFd():
		return inSegment(s.Fd)
	}
	return false
}

// submit queues the next segment. It reports false where there is no room.
func (b *ringBackend) submit(f *flight) bool {
	if b.shares(f, f.pc) {
		return b.take(f)
	}
	end, n := b.plan(f)
	if !b.room(n) {
		return false
	}
	f.ring.end, f.ring.pending, f.ring.expired = end, n, 0
	b.out += n
	for i := f.pc; i < end; i++ {
		s := &f.chain[i]
		f.results[i] = waiting
		if s.Timeout > 0 {
			*f.span(i) = uring.Span(f.remaining(i))
		}
		if f.polls(i) {
			p := b.ring.Next()
			p.Op, p.OpFlags = uring.OpPollAdd, unix.POLLIN
			if s.Call == Send {
				p.OpFlags = unix.POLLOUT
			}
			b.file(p, f, s.Fd)
			b.link(f, i, p, kindPoll, uring.Link)
		}
		q := b.ring.Next()
		b.fill(q, f, i)
		link := uint8(0)
		if i < end-1 {
			link, _ = s.link()
		}
		b.link(f, i, q, kindStep, link)
	}
	return true
}

// link says whose request q is and how the next one follows it. A step's timeout
// is a request between the two (io_uring_enter(2), IORING_OP_LINK_TIMEOUT).
func (b *ringBackend) link(f *flight, i int, q *uring.SQE, kind uint64, link uint8) {
	q.UserData = uint64(f.index)<<8 | kind | uint64(i)
	q.Flags |= link
	if f.chain[i].Timeout == 0 {
		return
	}
	if link == 0 {
		q.Flags |= uring.Link
	}
	t := b.ring.Next()
	t.Op, t.Fd, t.Addr, t.Len, t.Flags = uring.OpLinkTimeout, -1, uint64(uintptr(unsafe.Pointer(f.span(i)))), 1, link
	t.UserData = uint64(f.index)<<8 | kindTimeout | uint64(i)
}

// remaining is the time that step i has left: all of it, unless it is step pc
// that is tried again.
func (f *flight) remaining(i int) time.Duration {
	d := f.chain[i].Timeout
	if i > f.pc {
		return d
	}
	now := time.Now()
	if f.ring.until.IsZero() {
		f.ring.until = now.Add(d)
	}
	return max(1, f.ring.until.Sub(now))
}

// number is a descriptor argument where the call needs one of the process.
func (f *flight) number(fd FD) int32 {
	switch fd.kind {
	case fdCWD:
		return unix.AT_FDCWD
	case fdOpened:
		return f.fds[fd.n] // -1 where it is closed: EBADF
	}
	return fd.n
}

// file sets the descriptor that a request acts on.
func (b *ringBackend) file(q *uring.SQE, f *flight, fd FD) {
	if fd.kind == fdOpened && !b.isPlain(f, fd) {
		q.Fd = int32(f.ring.slots[fd.n])
		q.Flags |= uring.FixedFile
		return
	}
	q.Fd = f.number(fd)
}

// fill writes step i as a request: io_uring_enter(2).
func (b *ringBackend) fill(q *uring.SQE, f *flight, i int) {
	s := &f.chain[i]
	address := func(p *byte) uint64 { return uint64(uintptr(unsafe.Pointer(p))) }
	data := func() {
		d := f.data(i)
		q.Addr, q.Len = address(unsafe.SliceData(d)), uint32(len(d))
	}
	if s.Call.opens() {
		if b.plainAt(f, i) {
			if f.fds[i] != noFd { // a loop came here again
				unix.Close(int(f.fds[i]))
				f.fds[i] = noFd
			}
		} else {
			q.FileIndex = f.ring.slots[i] + 1
		}
	}
	switch s.Call {
	case Nop:
		q.Op = uring.OpNop
	case Open:
		q.Op, q.Fd, q.Addr, q.Len = uring.OpOpenat, f.number(s.Fd), address(f.path(i, 0)), s.Mode
		q.OpFlags = uint32(s.Flags) | unix.O_CLOEXEC
		if !b.plainAt(f, i) {
			q.OpFlags &^= unix.O_CLOEXEC // io_uring/openclose.c: EINVAL, a direct descriptor is never inherited
		}
	case Read:
		q.Op, q.Off = uring.OpRead, uint64(s.Off)
		b.file(q, f, s.Fd)
		data()
	case Write:
		q.Op, q.Off = uring.OpWrite, uint64(s.Off)
		b.file(q, f, s.Fd)
		data()
	case Fsync:
		q.Op, q.OpFlags = uring.OpFsync, uint32(s.Flags)
		b.file(q, f, s.Fd)
	case Stat:
		q.Op, q.Fd, q.Addr = uring.OpStatx, f.number(s.Fd), address(f.path(i, 0))
		q.Off, q.Len, q.OpFlags = uint64(uintptr(unsafe.Pointer(f.stat(i)))), s.Mode, uint32(s.Flags)
	case Rename:
		q.Op, q.Fd, q.Addr = uring.OpRenameat, f.number(s.Fd), address(f.path(i, 0))
		q.Len, q.Off, q.OpFlags = uint32(f.number(s.Fd2)), address(f.path(i, 1)), uint32(s.Flags)
	case Unlink:
		q.Op, q.Fd, q.Addr, q.OpFlags = uring.OpUnlinkat, f.number(s.Fd), address(f.path(i, 0)), uint32(s.Flags)
	case Mkdir:
		q.Op, q.Fd, q.Addr, q.Len = uring.OpMkdirat, f.number(s.Fd), address(f.path(i, 0)), s.Mode
	case Accept:
		q.Op, q.OpFlags = uring.OpAccept, uint32(s.Flags)|unix.SOCK_CLOEXEC
		if !b.plainAt(f, i) {
			q.OpFlags &^= unix.SOCK_CLOEXEC
		}
		b.file(q, f, s.Fd)
	case Recv:
		q.Op, q.OpFlags = uring.OpRecv, uint32(s.Flags)
		b.file(q, f, s.Fd)
		data()
	case Send:
		q.Op, q.OpFlags = uring.OpSend, uint32(s.Flags)|unix.MSG_NOSIGNAL
		b.file(q, f, s.Fd)
		data()
	case Socket:
		q.Op, q.Fd, q.Off, q.Len = uring.OpSocket, int32(s.Domain), uint64(uint32(s.Flags)|unix.SOCK_CLOEXEC), uint32(s.Protocol)
		if !b.plainAt(f, i) {
			q.Off &^= unix.SOCK_CLOEXEC
		}
	case Connect:
		q.Op, q.Addr, q.Off = uring.OpConnect, address(f.path(i, 0)), uint64(f.paths[i][1])
		b.file(q, f, s.Fd)
	case Shutdown:
		q.Op, q.Len = uring.OpShutdown, uint32(s.Flags)
		b.file(q, f, s.Fd)
	case Reveal:
		q.Op = uring.OpFixedFdInstall
		if s.Flags&(Inheritable|NonSequential) == Inheritable {
			q.OpFlags = uring.InstallInheritable
		}
		b.file(q, f, s.Fd)
	case Close:
		q.Op = uring.OpClose
		if b.isPlain(f, s.Fd) {
			q.Fd = f.number(s.Fd)
		} else {
			q.FileIndex = f.ring.slots[s.Fd.n] + 1
		}
	}
}

func (b *ringBackend) plainAt(f *flight, step int) bool { return f.ring.plain>>step&1 != 0 }

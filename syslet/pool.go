package syslet

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// pool runs chains in threads that make one call after the other.
type pool struct {
	e        *Engine
	work     chan *flight
	finished chan *flight
	workers  sync.WaitGroup
	made     atomic.Uint64
	wake     int // eventfd: readable from an interruption to the end of the run
	stop     atomic.Bool

	// Between the poll that says that something is there and the blocking call
	// that takes it, no other worker may take it: nothing could interrupt the call.
	taking sync.Mutex
}

func newPool(e *Engine) (*pool, error) {
	wake, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("eventfd: %w", err)
	}
	p := &pool{e: e, wake: wake,
		work:     make(chan *flight, e.config.Depth),
		finished: make(chan *flight, e.config.Depth)}
	for range e.config.Workers {
		p.workers.Go(func() {
			for f := range p.work {
				p.run(f)
				p.finished <- f
			}
		})
	}
	return p, nil
}

func (p *pool) calls() uint64 { return p.made.Load() }

func (p *pool) close() error {
	close(p.work)
	p.workers.Wait()
	return unix.Close(p.wake)
}

func (p *pool) begin() error {
	p.stop.Store(false)
	return nil
}

func (p *pool) interrupt() {
	p.stop.Store(true)
	unix.Write(p.wake, []byte{1, 0, 0, 0, 0, 0, 0, 0}) // can only fail where it is readable already
}

func (p *pool) end() error {
	var count [8]byte
	if _, err := unix.Read(p.wake, count[:]); err != nil && !errors.Is(err, unix.EAGAIN) {
		return fmt.Errorf("syslet: read an eventfd: %w", err)
	}
	return nil
}

func (p *pool) start(f *flight) { p.work <- f } // never blocks: there is room for all

func (p *pool) advance(block bool) error {
	if block && len(p.e.done) == 0 && p.e.live > 0 {
		p.e.done = append(p.e.done, <-p.finished)
	}
	for {
		select {
		case f := <-p.finished:
			p.e.done = append(p.e.done, f)
		default:
			return nil
		}
	}
}

// run runs one chain to its end.
func (p *pool) run(f *flight) {
	for f.pc >= 0 && f.pc < f.steps {
		if p.stop.Load() {
			f.results[f.pc] = -int32(unix.ECANCELED)
			f.failed = f.pc
			break
		}
		if s := &f.chain[f.pc]; s.Call == Jump {
			f.results[f.pc] = 0
			f.pc = s.Flags
			continue
		}
		f.pc = f.settle(f.pc, p.call(f, f.pc))
	}
	for i := range f.chain[:f.steps] {
		if f.fds[i] != noFd {
			unix.Close(int(f.fds[i]))
			f.fds[i] = noFd
			p.made.Add(1)
		}
	}
}

// call makes step i's call.
func (p *pool) call(f *flight, i int) int32 {
	s := &f.chain[i]
	var until time.Time
	if s.Timeout > 0 {
		until = time.Now().Add(s.Timeout)
	}
	for {
		res := p.attempt(f, i, until)
		switch {
		case res == -int32(unix.EINTR):
		case res == -int32(unix.EAGAIN) && f.polls(i):
		default:
			if res >= 0 && s.Call.opens() {
				if f.fds[i] != noFd { // a loop came here again
					unix.Close(int(f.fds[i]))
				}
				f.fds[i], res = res, 0
			}
			return res
		}
		if p.stop.Load() {
			return -int32(unix.ECANCELED)
		}
	}
}

// attempt makes step i's call once. It waits no longer than until, unless that
// is zero.
func (p *pool) attempt(f *flight, i int, until time.Time) int32 {
	s := &f.chain[i]
	fd := uintptr(f.number(s.Fd))
	path := func(which int) uintptr { return uintptr(unsafe.Pointer(f.path(i, which))) } // memory that does not move
	switch s.Call {
	case Open:
		return p.raw(unix.SYS_OPENAT, fd, path(0), uintptr(s.Flags|unix.O_CLOEXEC|unix.O_LARGEFILE), uintptr(s.Mode), 0)
	case Stat:
		return p.raw(unix.SYS_STATX, fd, path(0), uintptr(s.Flags), uintptr(s.Mode), uintptr(unsafe.Pointer(f.stat(i))))
	case Rename:
		return p.raw(unix.SYS_RENAMEAT2, fd, path(0), uintptr(f.number(s.Fd2)), path(1), uintptr(s.Flags))
	case Unlink:
		return p.raw(unix.SYS_UNLINKAT, fd, path(0), uintptr(s.Flags), 0, 0)
	case Mkdir:
		return p.raw(unix.SYS_MKDIRAT, fd, path(0), uintptr(s.Mode), 0, 0)
	case Fsync:
		if s.Flags&1 != 0 {
			return p.raw(unix.SYS_FDATASYNC, fd, 0, 0, 0, 0)
		}
		return p.raw(unix.SYS_FSYNC, fd, 0, 0, 0, 0)
	case Close:
		f.fds[s.Fd.n] = noFd
		return p.raw(unix.SYS_CLOSE, fd, 0, 0, 0, 0)
	case Reveal:
		p.made.Add(1)
		return f.reveal(s)
	case Accept:
		if res := p.claim(int(fd), until); res < 0 {
			return res
		}
		defer p.taking.Unlock()
		return p.raw(unix.SYS_ACCEPT4, fd, 0, 0, uintptr(s.Flags|unix.SOCK_CLOEXEC), 0)
	case Read, Write, Recv, Send:
		return p.transfer(f, i, int(fd), until)
	case Socket:
		return p.raw(unix.SYS_SOCKET, uintptr(s.Domain), uintptr(s.Flags|unix.SOCK_CLOEXEC), uintptr(s.Protocol), 0, 0)
	case Connect:
		return p.connect(int(fd), path(0), uintptr(f.paths[i][1]), until)
	case Shutdown:
		return p.raw(unix.SYS_SHUTDOWN, fd, uintptr(s.Flags), 0, 0, 0)
	}
	return 0 // Nop
}

func (p *pool) transfer(f *flight, i, fd int, until time.Time) int32 {
	s, b := &f.chain[i], f.data(i)
	if s.Call == Recv || s.Call == Send {
		return p.message(s, fd, b, until)
	}
	if s.Off >= 0 {
		nr := uintptr(unix.SYS_PREAD64)
		if s.Call == Write {
			nr = unix.SYS_PWRITE64
		}
		res := p.raw(nr, uintptr(fd), address(b), uintptr(len(b)), uintptr(s.Off), 0)
		if res != -int32(unix.ESPIPE) || s.Off > 0 {
			return res
		}
		// io_uring takes offset 0 for none there (net/socket.c, sock_read_iter).
	}
	if s.Call == Write {
		if res := p.ready(fd, unix.POLLOUT, until); res < 0 {
			return res
		}
		return p.raw(unix.SYS_WRITE, uintptr(fd), address(b), uintptr(len(b)), 0, 0)
	}
	if s.Fd.kind == fdNumber {
		if res := p.claim(fd, until); res < 0 {
			return res
		}
		defer p.taking.Unlock()
	} else if res := p.ready(fd, unix.POLLIN, until); res < 0 { // nobody else has it
		return res
	}
	return p.raw(unix.SYS_READ, uintptr(fd), address(b), uintptr(len(b)), 0, 0)
}

// address is that of memory that stays where it is: the arena's, or pinned.
func address(b []byte) uintptr { return uintptr(unsafe.Pointer(unsafe.SliceData(b))) }

// message receives or sends without blocking in anything but poll. With
// MSG_WAITALL it goes on until all of b is transferred.
func (p *pool) message(s *Step, fd int, b []byte, until time.Time) int32 {
	nr, events := uintptr(unix.SYS_RECVFROM), int16(unix.POLLIN)
	if s.Call == Send {
		nr, events = unix.SYS_SENDTO, unix.POLLOUT
	}
	flags := s.Flags | unix.MSG_DONTWAIT | unix.MSG_NOSIGNAL
	if s.Call == Recv {
		flags &^= unix.MSG_NOSIGNAL
	}
	done := 0
	for {
		res := p.raw6(nr, uintptr(fd), address(b[done:]), uintptr(len(b)-done), uintptr(flags), 0, 0)
		switch {
		case res > 0 && s.Flags&unix.MSG_WAITALL != 0 && done+int(res) < len(b):
			done += int(res)
			continue
		case res >= 0:
			return int32(done) + res
		case res == -int32(unix.EAGAIN) && s.Flags&unix.MSG_DONTWAIT == 0:
			if res = p.ready(fd, events, until); res == 0 {
				continue
			}
		case res == -int32(unix.EINTR):
			continue
		}
		if done > 0 {
			return int32(done)
		}
		return res
	}
}

// claim waits until fd is readable and keeps the other workers from taking what
// is there. Where it returns 0 the caller has to unlock p.taking.
func (p *pool) claim(fd int, until time.Time) int32 {
	for {
		if res := p.ready(fd, unix.POLLIN, until); res < 0 {
			return res
		}
		p.taking.Lock()
		now := [...]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		p.made.Add(1)
		if n, _ := unix.Poll(now[:], 0); n > 0 {
			return 0
		}
		p.taking.Unlock()
	}
}

// connect connects a socket without blocking in anything but poll.
func (p *pool) connect(fd int, addr, size uintptr, until time.Time) int32 {
	flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
	if err != nil {
		return -int32(errnoOf(err))
	}
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_SETFL, flags|unix.O_NONBLOCK); err != nil {
		return -int32(errnoOf(err))
	}
	p.made.Add(3)
	defer unix.FcntlInt(uintptr(fd), unix.F_SETFL, flags)
	for {
		res := p.raw(unix.SYS_CONNECT, uintptr(fd), addr, size, 0, 0)
		switch res {
		case -int32(unix.EINPROGRESS):
			if res = p.ready(fd, unix.POLLOUT, until); res < 0 {
				return res
			}
			n, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ERROR)
			p.made.Add(1)
			if err != nil {
				return -int32(errnoOf(err))
			}
			return -int32(n)
		case -int32(unix.EAGAIN): // a Unix socket's backlog is full, which no poll can wait for
			soon := time.Now().Add(time.Millisecond)
			if !until.IsZero() && until.Before(soon) {
				soon = until
			}
			if res := p.ready(p.wake, 0, soon); res != -int32(unix.ETIMEDOUT) {
				return res
			}
			if !until.IsZero() && !time.Now().Before(until) {
				return -int32(unix.ETIMEDOUT)
			}
		default:
			return res
		}
	}
}

// ready waits until fd is, the run is interrupted or, unless that is zero, until
// has come.
func (p *pool) ready(fd int, events int16, until time.Time) int32 {
	if fd < 0 {
		return -int32(unix.EBADF) // poll would ignore it
	}
	fds := [...]unix.PollFd{{Fd: int32(fd), Events: events}, {Fd: int32(p.wake), Events: unix.POLLIN}}
	for {
		wait := -1
		if !until.IsZero() { // a day at a time: poll counts milliseconds in 32 bits
			wait = int(min(max(0, time.Until(until)+time.Millisecond-1), 24*time.Hour) / time.Millisecond)
		}
		p.made.Add(1)
		n, err := unix.Poll(fds[:], wait)
		switch {
		case p.stop.Load():
			return -int32(unix.ECANCELED)
		case n == 0 && err == nil && !time.Now().Before(until):
			return -int32(unix.ETIMEDOUT)
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return -int32(errnoOf(err))
		case fds[0].Revents != 0:
			return 0
		}
	}
}

func (p *pool) raw(nr, a, b, c, d, e uintptr) int32 { return p.raw6(nr, a, b, c, d, e, 0) }

func (p *pool) raw6(nr, a, b, c, d, e, g uintptr) int32 {
	p.made.Add(1)
	n, _, errno := unix.Syscall6(nr, a, b, c, d, e, g)
	if errno != 0 {
		return -int32(errno)
	}
	return int32(n)
}

// reveal gives the chain's descriptor, which has a number that nobody knows,
// another one that the caller learns.
func (f *flight) reveal(s *Step) int32 {
	cmd := unix.F_DUPFD_CLOEXEC
	inherit := s.Flags&Inheritable != 0
	if inherit && s.Flags&NonSequential == 0 {
		cmd = unix.F_DUPFD
	}
	fd, err := unix.FcntlInt(uintptr(f.number(s.Fd)), cmd, 3)
	if err == nil && s.Flags&NonSequential != 0 {
		fd, err = scatter(fd, inherit)
	}
	if err != nil {
		return -int32(errnoOf(err))
	}
	return int32(fd)
}

func errnoOf(err error) unix.Errno {
	var errno unix.Errno
	if errors.As(err, &errno) {
		return errno
	}
	return unix.EIO
}

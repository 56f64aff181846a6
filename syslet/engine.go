package syslet

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// Backend is a way to run chains.
type Backend uint8

// The back ends.
const (
	Auto Backend = iota // io_uring where it can be had, else the pool
	Ring                // io_uring, or an error
	Pool                // threads that make one call after the other
)

// String returns the back end's name.
func (b Backend) String() string {
	switch b {
	case Auto:
		return "auto"
	case Ring:
		return "io_uring"
	case Pool:
		return "pool"
	}
	return fmt.Sprintf("Backend(%d)", uint8(b))
}

// Config is the shape of an engine. The zero value is a good start.
type Config struct {
	Backend Backend

	// Depth is how many chains are in flight at most, 1 to 4096; 0 is 64. A
	// pool has this many only with as many Workers.
	Depth int

	// Buffer is the size of the buffer that each chain in flight has, in bytes,
	// up to 1 GiB; 0 is 16 KiB.
	Buffer int

	// Spare is how many buffers can be taken and not yet released before the
	// engine waits; 0 is Depth.
	Spare int

	// Batch is for how many completed chains the ring waits before it hands
	// them out, so that one system call serves many; 0 is 1. It waits for a
	// millisecond at most before it takes what there is.
	Batch int

	// Workers is the number of threads of a pool; 0 is Depth, but at most 32.
	Workers int

	// OneThread promises that New, every iteration of Run and Close happen on
	// one thread that runtime.LockOSThread holds. It makes a ring faster.
	OneThread bool
}

// Engine runs chains, for one [Run] at a time. For more than one CPU make more
// than one engine.
type Engine struct {
	config  Config
	backend backend
	name    Backend
	reason  error
	dead    error // the kernel may still write to our memory, and nothing will tell

	state   atomic.Int32
	flights []flight
	idle    []*flight
	done    []*flight // completed, not yet handed out
	live    int       // started, not completed
	buffers chan *Buffer
	arena   []byte
	meta    []byte
}

// States of an engine.
const (
	free int32 = iota
	running
	closed
)

// backend makes the calls of flights.
type backend interface {
	start(*flight)
	// advance moves flights on and adds those that completed to e.done: at least
	// one where block is set, unless an error says that none ever will.
	advance(block bool) error
	// begin prepares for a run, whose flights a call of interrupt (from any
	// goroutine) cancels until end.
	begin() error
	interrupt()
	end() error
	calls() uint64
	close() error
}

// Errors of an engine.
var (
	ErrBusy   = errors.New("syslet: the engine is in use by another Run")
	ErrClosed = errors.New("syslet: the engine is closed")
)

// New makes an engine. Close it after use. With [Auto] it fails only for a bad
// Config or where memory or descriptors are at an end.
func New(c Config) (*Engine, error) {
	if err := c.complete(); err != nil {
		return nil, err
	}
	e := &Engine{config: c}
	if err := e.allocate(); err != nil {
		return nil, errors.Join(err, e.free())
	}
	if c.Backend != Pool {
		r, err := newRing(e)
		if err == nil {
			e.backend, e.name = r, Ring
			return e, nil
		}
		if c.Backend == Ring {
			return nil, errors.Join(fmt.Errorf("syslet: io_uring: %w", err), e.free())
		}
		e.reason = err
	}
	p, err := newPool(e)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("syslet: %w", err), e.free())
	}
	e.backend, e.name = p, Pool
	return e, nil
}

func (c *Config) complete() error {
	or := func(field *int, value int) {
		if *field == 0 {
			*field = value
		}
	}
	or(&c.Depth, 64)
	or(&c.Buffer, 16<<10)
	or(&c.Spare, c.Depth)
	or(&c.Batch, 1)
	or(&c.Workers, min(c.Depth, 32))
	switch {
	case c.Backend > Pool:
		return fmt.Errorf("syslet: %s is not a back end", c.Backend)
	case c.Depth < 1 || c.Depth > 4096:
		return fmt.Errorf("syslet: a depth of %d is not between 1 and 4096", c.Depth)
	case c.Buffer < 1 || c.Buffer > 1<<30:
		return fmt.Errorf("syslet: a buffer of %d bytes is not between 1 byte and 1 GiB", c.Buffer)
	case c.Spare < 0 || c.Spare > 1<<20 || c.Batch < 1 || c.Workers < 1 || c.Workers > 4096:
		return fmt.Errorf("syslet: %d spare buffers, a batch of %d or %d workers is out of range", c.Spare, c.Batch, c.Workers)
	}
	c.Batch = min(c.Batch, c.Depth)
	return nil
}

// allocate maps the memory that the kernel reads and writes outside of Go's
// heap, where nothing moves it and no collector looks into it.
func (e *Engine) allocate() error {
	c := &e.config
	count := c.Depth + c.Spare
	stride := (c.Buffer + 63) &^ 63
	var err error
	const prot, flags = unix.PROT_READ | unix.PROT_WRITE, unix.MAP_PRIVATE | unix.MAP_ANONYMOUS | unix.MAP_NORESERVE
	if e.arena, err = unix.Mmap(-1, 0, count*stride, prot, flags); err != nil {
		return fmt.Errorf("syslet: map %d buffers of %d bytes: %w", count, c.Buffer, err)
	}
	if e.meta, err = unix.Mmap(-1, 0, c.Depth*metaSize, prot, flags); err != nil {
		return fmt.Errorf("syslet: map memory for the paths of %d chains: %w", c.Depth, err)
	}
	e.buffers = make(chan *Buffer, count)
	all := make([]Buffer, count)
	for i := range all {
		at := i * stride
		all[i] = Buffer{mem: e.arena[at : at+c.Buffer : at+c.Buffer], home: e.buffers}
		e.buffers <- &all[i]
	}
	e.flights = make([]flight, c.Depth)
	e.idle = make([]*flight, 0, c.Depth)
	e.done = make([]*flight, 0, c.Depth)
	for i := range e.flights {
		f := &e.flights[i]
		f.index = i
		f.meta = e.meta[i*metaSize : (i+1)*metaSize]
		e.idle = append(e.idle, f)
	}
	return nil
}

func (e *Engine) free() error {
	var err error
	for _, mem := range []*[]byte{&e.arena, &e.meta} {
		if *mem != nil {
			err = errors.Join(err, unix.Munmap(*mem))
			*mem = nil
		}
	}
	return err
}

// Backend tells which back end was taken, [Ring] or [Pool], and, where [Auto]
// fell back to the pool, why.
func (e *Engine) Backend() (Backend, error) { return e.name, e.reason }

// SystemCalls returns how many system calls the engine has made so far to run
// chains: on a ring those that submit and wait, in a pool every single one.
func (e *Engine) SystemCalls() uint64 { return e.backend.calls() }

// Close ends the engine and unmaps its buffers: taken ones must have been
// released. It fails with [ErrBusy] during a Run.
func (e *Engine) Close() error {
	if !e.state.CompareAndSwap(free, closed) {
		if e.state.Load() == closed {
			return nil
		}
		return ErrBusy
	}
	if n := cap(e.buffers) - len(e.buffers); n > e.held() && e.dead == nil {
		e.state.Store(free)
		return fmt.Errorf("syslet: %d taken buffers were not released", n-e.held())
	}
	err := e.backend.close()
	if e.dead != nil {
		e.arena, e.meta = nil, nil // never given to anybody else
		return err
	}
	return errors.Join(err, e.free())
}

// lost keeps the engines that were abandoned: what their chains have pinned has
// to stay pinned for as long as the process lives, and a [runtime.Pinner] that
// the collector finds ends the program.
var lost struct {
	sync.Mutex
	engines []*Engine
}

// abandon ends an engine whose requests nobody can wait for any more.
func (e *Engine) abandon(why error) {
	e.dead = why
	lost.Lock()
	lost.engines = append(lost.engines, e)
	lost.Unlock()
}

// held is the number of buffers that idle flights keep.
func (e *Engine) held() int {
	n := 0
	for i := range e.flights {
		if e.flights[i].buffer != nil {
			n++
		}
	}
	return n
}

// Buffer is memory of an engine, taken out of a completion.
type Buffer struct {
	mem   []byte
	home  chan *Buffer
	taken atomic.Bool
}

// Bytes returns the memory.
func (b *Buffer) Bytes() []byte { return b.mem }

// Release gives the buffer back. It must not be used any more. It may be called
// from any goroutine, once for each Take. A nil buffer is released already.
func (b *Buffer) Release() {
	if b != nil && b.taken.CompareAndSwap(true, false) {
		b.home <- b // there is room for all
	}
}

// acquire gives f a buffer, where it has none. It reports false where none is
// there.
func (e *Engine) acquire(f *flight) bool {
	if f.buffer != nil {
		return true
	}
	select {
	case f.buffer = <-e.buffers:
		return true
	default:
		return false
	}
}

// await waits for somebody to release a buffer.
func (e *Engine) await(ctx context.Context, f *flight) error {
	select {
	case f.buffer = <-e.buffers:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// scatter moves a descriptor to an unpredictable free number. It is close-on-
// exec before and, unless inherit is set, afterwards.
func scatter(fd int, inherit bool) (int, error) {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return fd, err
	}
	cmd := unix.F_DUPFD_CLOEXEC
	if inherit {
		cmd = unix.F_DUPFD
	}
	const tries = 8
	top := int64(min(limit.Cur, 1<<20))
	err := error(unix.EMFILE)
	for range tries {
		// Below 3 are the standard streams: 3 is the lowest that nobody mistakes.
		var n int
		if n, err = unix.FcntlInt(uintptr(fd), cmd, 3+int(rand.Int64N(max(top-3, 1)))); err == nil {
			unix.Close(fd)
			return n, nil
		}
	}
	unix.Close(fd)
	return -1, err
}

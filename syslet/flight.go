package syslet

import (
	"fmt"
	"runtime"
	"unsafe"

	"github.com/seed-055cd0c8/indirect/internal/uring"
	"golang.org/x/sys/unix"
)

// Results of a step besides the call's own.
const (
	notRun  = -1 << 31   // the chain did not come to the step
	waiting = notRun + 1 // submitted, no result yet
)

// flight is a chain in flight: everything that is needed to run it, allocated
// once and used again for the next chain. It knows the rules of a chain and
// nothing of how a call is made.
type flight struct {
	index int
	chain [MaxSteps]Step
	steps int

	pc      int // the step to go on with
	failed  int // the step that ended the chain, or -1
	results [MaxSteps]int32
	fds     [MaxSteps]int32     // by opening step: what is open, if anything
	paths   [MaxSteps][2]uint32 // of a Connect: where its address is, and its length

	buffer *Buffer
	taken  bool   // the buffer is no longer ours after the iteration
	meta   []byte // paths, then a statx structure and a timespec per step
	pin    runtime.Pinner
	pinned bool

	ring ringState
}

// noFd says in flight.fds that nothing is open.
const noFd = -1

const (
	statSize = int(unsafe.Sizeof(unix.Statx_t{}))
	spanSize = int(unsafe.Sizeof(uring.Timespec{}))
	metaSize = MaxPaths + MaxSteps*(statSize+spanSize)
)

// load takes a chain over. It keeps nothing of c but the strings and Bytes.
func (f *flight) load(c Chain) {
	f.steps = copy(f.chain[:], c)
	f.pc, f.failed = 0, -1
	at := 0
	for i := range f.chain[:f.steps] {
		s := &f.chain[i]
		f.results[i] = notRun
		f.fds[i] = noFd
		for _, a := range [...]*Action{&s.OnError, &s.OnShort, &s.OnEnd} {
			if *a == Goto(i+1) {
				*a = Ignore // the same, in the form that makes a hard link
			}
		}
		if s.Call.hasPath() {
			f.paths[i][0] = uint32(at)
			at += f.putPath(at, s.Path)
			if s.Call == Rename {
				f.paths[i][1] = uint32(at)
				at += f.putPath(at, s.Path2)
			}
		}
		if s.Call == Connect {
			f.paths[i] = [2]uint32{uint32(at), uint32(s.putAddress(f.meta[at:]))}
			at += sockaddrSize
		}
		if len(s.Data.bytes) > 0 && s.Call.transfers() {
			f.pin.Pin(unsafe.SliceData(s.Data.bytes))
			f.pinned = true
		}
	}
}

func (f *flight) putPath(at int, path string) int {
	n := copy(f.meta[at:], path)
	f.meta[at+n] = 0
	return n + 1
}

// unload lets go of the caller's memory.
func (f *flight) unload() {
	if f.pinned {
		f.pin.Unpin()
		f.pinned = false
	}
	for i := range f.chain[:f.steps] {
		s := &f.chain[i]
		s.Path, s.Path2, s.Data.bytes = "", "", nil
	}
}

// path returns the address of a step's path in memory that never moves.
func (f *flight) path(step, which int) *byte { return &f.meta[f.paths[step][which]] }

// stat returns a step's statx structure.
func (f *flight) stat(step int) *unix.Statx_t {
	return (*unix.Statx_t)(unsafe.Pointer(&f.meta[MaxPaths+step*statSize]))
}

// span returns a step's timespec.
func (f *flight) span(step int) *uring.Timespec {
	return (*uring.Timespec)(unsafe.Pointer(&f.meta[MaxPaths+MaxSteps*statSize+step*spanSize]))
}

// data returns a step's memory, and what a short result is compared with.
func (f *flight) data(step int) []byte {
	d := &f.chain[step].Data
	b := d.bytes
	if b == nil {
		b = f.buffer.mem[d.lo:d.hi]
	}
	if d.length > 0 {
		b = b[:max(0, min(len(b), int(f.results[d.length-1])))]
	}
	return b
}

// settle notes a step's result and returns the step to go on with, or -1 where
// the chain ends there.
func (f *flight) settle(step int, res int32) int {
	s := &f.chain[step]
	f.results[step] = res
	act := Ignore
	switch {
	case res < 0:
		act = s.OnError
	case !s.Call.transfers():
	case res == 0 && len(f.data(step)) > 0:
		act = s.OnEnd
	case int(res) < len(f.data(step)) && s.fullOnly():
		act = s.OnShort
	}
	switch act {
	case Stop:
		f.failed = step
		return -1
	case Ignore:
		return step + 1
	}
	return int(act) - 2
}

// fullOnly tells whether fewer bytes than asked for are an outcome of its own.
func (s *Step) fullOnly() bool {
	switch s.Call {
	case Read, Write:
		return true
	case Recv, Send:
		return s.Flags&unix.MSG_WAITALL != 0
	}
	return false
}

// StepError says which step ended a chain.
type StepError struct {
	Step  int
	Call  Call
	Path  string     // of the calls that have one, and the address of a Connect
	Short int        // bytes that were transferred, where Errno is 0
	Errno unix.Errno // 0 where the transfer was short
}

func (e *StepError) Error() string {
	what := fmt.Sprintf("step %d: %s", e.Step, e.Call)
	if e.Path != "" {
		what += " " + e.Path
	}
	if e.Errno == 0 {
		return fmt.Sprintf("%s: short: %d bytes", what, e.Short)
	}
	return what + ": " + e.Errno.Error()
}

// Unwrap returns the errno, so that errors.Is works with unix.ENOENT and with
// fs.ErrNotExist.
func (e *StepError) Unwrap() error {
	if e.Errno == 0 {
		return nil
	}
	return e.Errno
}

// Completion is a chain that has ended. It is valid until the next iteration. The
// zero value, which comes with an error of [Run], is one of a chain without steps.
type Completion[T any] struct {
	Value T // the caller's own, as it was given with the chain
	f     *flight
}

// Err returns nil where the chain ran to its end, and a [*StepError] where a
// step stopped it.
func (c Completion[T]) Err() error {
	f := c.f
	if f == nil || f.failed < 0 {
		return nil
	}
	s, res := &f.chain[f.failed], f.results[f.failed]
	e := &StepError{Step: f.failed, Call: s.Call, Path: s.Path}
	if s.Call == Connect && s.Addr.IsValid() {
		e.Path = s.Addr.String()
	}
	if res < 0 {
		e.Errno = unix.Errno(-res)
	} else {
		e.Short = int(res)
	}
	return e
}

// N returns a step's last result: the bytes of a transfer, the number that
// [Reveal] gave, else 0. It is ECANCELED for a step that did not run.
func (c Completion[T]) N(step int) (int, error) {
	if c.f == nil || step < 0 || step >= c.f.steps {
		return 0, unix.EINVAL
	}
	res := c.f.results[step]
	if res <= waiting {
		return 0, unix.ECANCELED
	}
	if res < 0 {
		return 0, unix.Errno(-res)
	}
	return int(res), nil
}

// Ran reports whether a step was run.
func (c Completion[T]) Ran(step int) bool {
	return c.f != nil && step >= 0 && step < c.f.steps && c.f.results[step] > waiting
}

// Stat returns what a [Stat] step found, valid until the next iteration, or nil
// where it did not run or failed.
func (c Completion[T]) Stat(step int) *unix.Statx_t {
	if n, err := c.N(step); err != nil || n != 0 || c.f.chain[step].Call != Stat {
		return nil
	}
	return c.f.stat(step)
}

// Own returns the chain's buffer, valid until the next iteration.
func (c Completion[T]) Own() []byte {
	if c.f == nil {
		return nil
	}
	return c.f.buffer.mem
}

// Take keeps the chain's buffer beyond the iteration. It is the caller's until
// [Buffer.Release]; the engine goes on with another one. It is nil where there is none.
func (c Completion[T]) Take() *Buffer {
	if c.f == nil {
		return nil
	}
	c.f.taken = true
	c.f.buffer.taken.Store(true)
	return c.f.buffer
}

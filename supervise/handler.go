package supervise

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/seed-055cd0c8/indirect/fdcall"
	"github.com/seed-055cd0c8/indirect/internal/listener"
	"github.com/seed-055cd0c8/indirect/internal/tracee"
)

// Trap names system calls that a [Handler] decides about.
type Trap struct {
	Nr   fdcall.Numbers // by ABI; fdcall.None where there is none
	When []fdcall.Cond  // all of which must be met
}

// x32Bit marks the numbers of x32 (__X32_SYSCALL_BIT).
const x32Bit = 1 << 30

// Everywhere is the trap for a number that all ABIs share, as calls have since
// Linux 5.1 and added ones should have. On x32 a program passes it with bit 30 set.
func Everywhere(nr int32, when ...fdcall.Cond) Trap {
	return Trap{Nr: fdcall.Numbers{fdcall.AMD64: nr, fdcall.I386: nr, fdcall.ARM64: nr, fdcall.X32: nr | x32Bit}, When: when}
}

// Extension is code of the supervisor's program that decides about calls. It
// runs in the supervisor process, which knows it by its name (see [Main]).
type Extension struct {
	Name   string          // a key of Main's map
	Config json.RawMessage // passed to it
	File   *os.File        `json:"-"` // passed to it; may be nil
	Traps  []Trap
}

// Open makes an extension's handler in a supervisor process: in each one, if
// one dies and is replaced. The file is nil if the [Extension] has none.
type Open func(config json.RawMessage, file *os.File) (Handler, error)

// Handler decides about trapped calls. Handle is called from several
// goroutines, and may be asked twice about a call if a supervisor dies
// meanwhile. The thread waits in the kernel until it has returned.
type Handler interface {
	Handle(*Event) Decision
}

// Event is a system call that waits for a decision. Its methods must not be
// used after the decision.
type Event struct {
	TID  int // of the thread, in our PID namespace
	ABI  fdcall.ABI
	Nr   int32 // as the program passed it
	Args [6]uint64
	IP   uint64 // of the instruction behind the one that makes the call

	engine *engine
	id     uint64
}

// Valid reports whether the thread still waits: it may have been killed. Facts
// about the thread that were read before Valid has returned true are true.
func (ev *Event) Valid() bool { return ev.engine.listener.Valid(ev.id) }

// ErrGone says that the thread no longer waits for a decision.
var ErrGone = listener.ErrGone

// Read reads the program's memory at address: all of p, or it fails with [unix.EFAULT].
func (ev *Event) Read(address uint64, p []byte) error {
	got := tracee.Peek(ev.TID, address, p)
	switch {
	case !ev.Valid():
		return ErrGone
	case got < len(p):
		return fmt.Errorf("read %d bytes at %#x of thread %d: %w", len(p), address, ev.TID, unix.EFAULT)
	}
	return nil
}

// String reads the string at address, of at most most bytes before its zero
// byte. It fails with EFAULT, or with ENAMETOOLONG.
func (ev *Event) String(address uint64, most int) (string, error) {
	b := make([]byte, most+1)
	b = b[:tracee.Peek(ev.TID, address, b)]
	end := bytes.IndexByte(b, 0)
	switch {
	case !ev.Valid():
		return "", ErrGone
	case end >= 0:
		return string(b[:end]), nil
	case len(b) > most:
		return "", fmt.Errorf("read a string at %#x of thread %d: %w", address, ev.TID, unix.ENAMETOOLONG)
	}
	return "", fmt.Errorf("read a string at %#x of thread %d: %w", address, ev.TID, unix.EFAULT)
}

// Write writes to the program's memory at address, as the kernel would for the
// program: EFAULT where the program itself could not write.
func (ev *Event) Write(address uint64, p []byte) error {
	m, err := tracee.OpenMemory(ev.TID)
	if err != nil {
		return err
	}
	defer m.Close()
	writable := tracee.Writable(ev.TID, address, uint64(len(p)))
	switch {
	case !ev.Valid(): // from here on, m can be no other process's memory
		return ErrGone
	case !writable:
		return fmt.Errorf("write %d bytes at %#x of thread %d: %w", len(p), address, ev.TID, unix.EFAULT)
	}
	return m.Write(address, p)
}

// Executable is the path of the program, as [os.Readlink] of /proc/TID/exe tells.
func (ev *Event) Executable() (string, error) { return tracee.Executable(ev.TID) }

// Process is the ID of the thread's process (its thread group).
func (ev *Event) Process() int { return ev.engine.group(ev.TID) }

// Decision says what becomes of a call.
type Decision struct {
	verdict verdict
	value   int64
	errno   unix.Errno
	nr      int32
	args    [6]uint64
	file    *os.File
	cloexec bool
	before  func(*Attached)
	after   func(*Attached, int64) int64
}

type verdict uint8

const (
	proceed verdict = iota
	answered
	refusedWith
	replaced
	installed
)

// Continue lets the call go on as if there were no handler: to the next one
// that wants it, to the flags that the policy wants, to the kernel.
func Continue() Decision { return Decision{} }

// Return makes the call return value, which should not be negative.
func Return(value int64) Decision { return Decision{verdict: answered, value: value} }

// Fail makes the call fail with errno.
func Fail(errno unix.Errno) Decision { return Decision{verdict: refusedWith, errno: errno} }

// Run makes the program run another call instead, with the same thread,
// number nr of the event's ABI. The program sees its result.
func Run(nr int32, args [6]uint64) Decision {
	return Decision{verdict: replaced, nr: nr, args: args}
}

// Install makes the call return a new descriptor of the program for our file,
// which is closed then.
func Install(file *os.File, cloexec bool) Decision {
	return Decision{verdict: installed, file: file, cloexec: cloexec}
}

// Watch makes the program run the call of the event, or that of [Run], with
// us attached: before is called when the thread stands in front of the call,
// after with its result, and returns the result that the program is to see.
// Either may be nil.
func (d Decision) Watch(ev *Event, before func(*Attached), after func(*Attached, int64) int64) Decision {
	if d.verdict == proceed {
		d.verdict, d.nr, d.args = replaced, ev.Nr, ev.Args
	}
	d.before, d.after = before, after
	return d
}

// loaded is an extension in a supervisor process.
type loaded struct {
	Extension
	handler Handler
}

// matches reports whether the extension decides about a call.
func (l *loaded) matches(abi fdcall.ABI, nr int32, args *[6]uint64) bool {
	for _, t := range l.Traps {
		c := fdcall.Call{Nr: t.Nr, When: t.When}
		if t.Nr[abi] == nr && c.Matches(args) {
			return true
		}
	}
	return false
}

// trapped reports whether an extension may decide about the native call c: its
// call sites are then not patched, or the extension would miss it.
func (e *engine) trapped(c *fdcall.Call) bool {
	for i := range e.extensions {
		for _, t := range e.extensions[i].Traps {
			if n := t.Nr[native]; n != fdcall.None && n == c.Nr[native] {
				return true
			}
		}
	}
	return false
}

// extend asks the extensions about a call, and reports whether it has been
// dealt with.
func (e *engine) extend(n listener.Notification, abi fdcall.ABI, nr int32) bool {
	for i := range e.extensions {
		x := &e.extensions[i]
		if !x.matches(abi, nr, &n.Args) || n.TID == 0 {
			continue
		}
		ev := &Event{TID: int(n.TID), ABI: abi, Nr: nr, Args: n.Args, IP: n.IP, engine: e, id: n.ID}
		if d := x.handler.Handle(ev); d.verdict != proceed {
			e.decide(n, abi, d)
			return true
		}
	}
	return false
}

// decide does what a handler wants.
func (e *engine) decide(n listener.Notification, abi fdcall.ABI, d Decision) {
	switch d.verdict {
	case answered:
		e.answer(e.listener.Return(n.ID, d.value))
	case refusedWith:
		e.answer(e.listener.Fail(n.ID, d.errno))
	case installed:
		err := e.listener.Install(n.ID, int(d.file.Fd()), d.cloexec)
		d.file.Close()
		var errno unix.Errno
		switch {
		case errors.As(err, &errno): // the program has no room for another descriptor
			e.answer(e.listener.Fail(n.ID, errno))
		default:
			e.answer(err)
		}
	case replaced:
		err := e.retryTraced(n, func() error { return e.runWatched(n, abi, d) })
		if err != nil && !errors.Is(err, tracee.ErrGone) && e.listener.Valid(n.ID) {
			e.pass(n, e.table.Lookup(abi, n.Nr, &n.Args), e.whyNot(n, err))
		}
	}
}

package indirect

import (
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/seed-055cd0c8/indirect/fdcall"
	"github.com/seed-055cd0c8/indirect/internal/remote"
	"github.com/seed-055cd0c8/indirect/supervise"
	"github.com/seed-055cd0c8/indirect/syscalls"
)

// Handler decides about a system call of a program, whose thread waits for the
// decision. It is called from several goroutines.
type Handler func(*Event) Decision

type handler struct {
	traps  []supervise.Trap
	handle Handler
}

// Handle lets h decide about the system call with the given name ("connect"),
// in every ABI that has it, if the arguments meet all conditions. It must be
// called before [Cmd.Start], which reports a name that no call has. On i386,
// what socketcall(2) does is not seen as the calls that it stands for.
//
// A call costs its program some 100 microseconds for the decision. Call sites
// of calls that are handled are not patched.
func (c *Cmd) Handle(call string, h Handler, when ...fdcall.Cond) {
	for _, s := range syscalls.Linux() {
		if s.Name == call {
			c.handlers = append(c.handlers, handler{[]supervise.Trap{{Nr: fdcall.Numbers(s.Nr), When: when}}, h})
			return
		}
	}
	if c.err == nil {
		c.err = fmt.Errorf("no system call %q", call)
		if near := fdcall.Nearest(call, syscalls.Names()); len(near) > 0 {
			c.err = fmt.Errorf("%w; did you mean %s?", c.err, strings.Join(near, ", "))
		}
	}
}

// HandleNumber lets h decide about the system call with number nr on every
// ABI, if the arguments meet all conditions: a call that no kernel has, as a
// rule. Numbers from 3000 to 9999 are unlikely to get another meaning.
func (c *Cmd) HandleNumber(nr int32, h Handler, when ...fdcall.Cond) {
	c.handlers = append(c.handlers, handler{[]supervise.Trap{supervise.Everywhere(nr, when...)}, h})
}

// Event is a system call that waits for a decision. What it tells of the
// program is input from a stranger.
type Event struct {
	TID  int // of the thread, in our PID namespace
	ABI  fdcall.ABI
	Nr   int32     // as the program passed it
	Args [6]uint64 // the same
	conn *remote.Conn
}

// Read reads the program's memory at address: all of p, or it fails with [unix.EFAULT].
func (ev *Event) Read(address uint64, p []byte) error {
	for len(p) > 0 {
		n := min(len(p), remote.MaxData)
		a, err := ev.conn.Ask(remote.Question{Op: remote.Read, Address: address, Size: n})
		if err != nil {
			return err
		}
		copy(p, a.Data)
		p, address = p[n:], address+uint64(n)
	}
	return nil
}

// Write writes to the program's memory at address. It fails with [unix.EFAULT]
// where the program itself could not write; of more than 32 KiB, a part may
// then have been written.
func (ev *Event) Write(address uint64, p []byte) error {
	for len(p) > 0 {
		n := min(len(p), remote.MaxData)
		if _, err := ev.conn.Ask(remote.Question{Op: remote.Write, Address: address, Data: p[:n]}); err != nil {
			return err
		}
		p, address = p[n:], address+uint64(n)
	}
	return nil
}

// String reads the string at address, of at most most bytes (and 32 KiB)
// before its zero byte. It fails with [unix.EFAULT] or [unix.ENAMETOOLONG].
func (ev *Event) String(address uint64, most int) (string, error) {
	a, err := ev.conn.Ask(remote.Question{Op: remote.String, Address: address, Size: most})
	return string(a.Data), err
}

// Valid reports whether the thread still waits: it may have been killed.
func (ev *Event) Valid() bool {
	_, err := ev.conn.Ask(remote.Question{Op: remote.Valid})
	return err == nil
}

// Executable is the path of the program.
func (ev *Event) Executable() (string, error) {
	a, err := ev.conn.Ask(remote.Question{Op: remote.Executable})
	return a.Text, err
}

// Process is the ID of the thread's process (its thread group).
func (ev *Event) Process() (int, error) {
	a, err := ev.conn.Ask(remote.Question{Op: remote.Process})
	return int(a.Value), err
}

// Decision says what becomes of a call.
type Decision struct {
	question remote.Question
	file     *os.File
	after    func(*Event, int64) int64
}

// Continue lets the call go on as if there were no handler.
func Continue() Decision { return Decision{question: remote.Question{Op: remote.Continue}} }

// Return makes the call return value, which should not be negative.
func Return(value int64) Decision {
	return Decision{question: remote.Question{Op: remote.Return, Value: value}}
}

// Fail makes the call fail with errno.
func Fail(errno unix.Errno) Decision {
	return Decision{question: remote.Question{Op: remote.Fail, Errno: errno}}
}

// RunInstead makes the program run another call, with number nr of the event's ABI.
func RunInstead(nr int32, args [6]uint64) Decision {
	return Decision{question: remote.Question{Op: remote.Run, Nr: nr, Args: args}}
}

// Install makes the call return a new descriptor of the program for the same
// open file as f. The file is closed here.
func Install(f *os.File, cloexec bool) Decision {
	return Decision{question: remote.Question{Op: remote.Install, Cloexec: cloexec}, file: f}
}

// Then has after see the result of the call that the program runs, its own or
// that of [RunInstead], and say what the program is to get for it. Errors are
// negative numbers. The event can be asked to read and write memory meanwhile.
func (d Decision) Then(after func(ev *Event, result int64) int64) Decision {
	d.question.After, d.after = true, after
	return d
}

// decide asks a handler and sends its decision. Errors mean that the program
// or the supervisor is gone.
func decide(conn *remote.Conn, handle Handler) {
	ev := &Event{conn.TID, conn.ABI, conn.Nr, conn.Args, conn}
	d := handle(ev)
	err := conn.Decide(d.question, d.file)
	if d.file != nil {
		d.file.Close()
	}
	if err != nil || d.after == nil {
		return
	}
	result, err := conn.Result()
	if err != nil {
		return
	}
	_ = conn.Decide(remote.Question{Op: remote.Return, Value: d.after(ev, result)}, nil)
}

// Package indirect runs programs whose system calls are extended: their
// descriptors are born close-on-exec, non-blocking or with a non-sequential
// number, and calls that Linux does not have are there.
//
// [Command] is used like [os/exec.Command]. The program that it describes, and
// all its descendants, run unmodified and at native speed; a supervisor process
// of ours serves them. [Cmd.Handle] lets a Go function decide about system
// calls of theirs, also about calls of its own invention.
//
// A program that itself runs under "indirect run", or was started with
// [Command], can use [Call]: indirect(2), which makes another call with
// properties for the descriptors that it creates.
//
// The supervisor and two other helpers are the program that imports this
// package, started again: the package's initialisation runs them, so that
// main, flags and tests see nothing of it. It needs Linux 5.9 or later on
// amd64, and ptrace of its own children.
package indirect

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/seed-055cd0c8/indirect/fdcall"
	"github.com/seed-055cd0c8/indirect/internal/remote"
	"github.com/seed-055cd0c8/indirect/policy"
	"github.com/seed-055cd0c8/indirect/supervise"
)

// Properties of a new descriptor, to be combined with |.
const (
	Cloexec       = fdcall.Cloexec  // closed by execve(2)
	Nonblock      = fdcall.Nonblock // O_NONBLOCK
	NonSequential = fdcall.Nonseq   // an unpredictable number instead of the lowest free one
)

// Cmd is a program to be run. The embedded [exec.Cmd] is that of our front,
// which stands between us and the program and hands on signals: its streams,
// environment, directory and extra files are the program's, and its Process is
// the front. Path and Args must be left alone.
type Cmd struct {
	*exec.Cmd
	// Add are the properties to give to descriptors that programs create
	// without asking for them. Shells are exempt. Policy, if not nil, says more.
	Add    fdcall.Want
	Policy *policy.Policy

	name     string
	args     []string
	handlers []handler
	control  *os.File
	result   chan result
	done     result
	err      error // of the description
}

// Command describes the program name, looked up in PATH if it has no slash,
// with arguments.
func Command(name string, args ...string) *Cmd {
	return describe(exec.Command(self), name, args)
}

// CommandContext is [Command] with a context: when it is done, SIGTERM is sent
// to the program, unless Cancel is set to something else.
func CommandContext(ctx context.Context, name string, args ...string) *Cmd {
	c := describe(exec.CommandContext(ctx, self), name, args)
	c.Cancel = func() error { return c.Process.Signal(unix.SIGTERM) }
	return c
}

const self = "/proc/self/exe"

func describe(front *exec.Cmd, name string, args []string) *Cmd {
	return &Cmd{Cmd: front, name: name, args: args}
}

// order is what a front is told.
type order struct {
	Policy *policy.Policy
	Traps  [][]supervise.Trap // of each handler
}

// result is what a front tells.
type result struct {
	Summary supervise.Summary
	Error   string // why the program was not run
}

// frontName is argv[0] of a front. The number of its control socket, that of
// the handlers' socket or -1, and the program's argument vector follow.
const frontName = "indirect-front"

// Start starts the program, and returns without waiting for its end.
func (c *Cmd) Start() (err error) {
	if c.err != nil {
		return c.err
	}
	o := order{Policy: c.Policy}
	if o.Policy == nil {
		o.Policy = policy.New(c.Add)
		if err := o.Policy.FollowLinks(); err != nil {
			return err
		}
	}
	ours, theirs, err := socketpair(unix.SOCK_STREAM)
	if err != nil {
		return err
	}
	defer theirs.Close()
	extra := len(c.ExtraFiles)
	defer func() { c.ExtraFiles = c.ExtraFiles[:extra] }()
	const first = 3
	c.ExtraFiles = append(c.ExtraFiles, theirs)
	calls := -1
	var decider *os.File
	if len(c.handlers) > 0 {
		for _, h := range c.handlers {
			o.Traps = append(o.Traps, h.traps)
		}
		var asker *os.File
		if decider, asker, err = socketpair(unix.SOCK_SEQPACKET); err != nil {
			ours.Close()
			return err
		}
		defer asker.Close()
		calls = first + extra + 1
		c.ExtraFiles = append(c.ExtraFiles, asker)
	}
	c.Args = append([]string{frontName, strconv.Itoa(first + extra), strconv.Itoa(calls), c.name}, c.args...)
	if err := c.Cmd.Start(); err != nil {
		ours.Close()
		if decider != nil {
			decider.Close()
		}
		return fmt.Errorf("start %s: %w", c.name, err)
	}
	if decider != nil {
		go c.serve(decider)
	}
	c.control, c.result = ours, make(chan result, 1)
	sent := json.NewEncoder(ours).Encode(o)
	go func() {
		var r result
		if sent != nil || json.NewDecoder(ours).Decode(&r) != nil {
			r.Error = "the front ended without a word"
		}
		c.result <- r
	}()
	return nil
}

func socketpair(kind int) (*os.File, *os.File, error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, kind|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("create a socket pair: %w", err)
	}
	return os.NewFile(uintptr(pair[0]), "ours"), os.NewFile(uintptr(pair[1]), "theirs"), nil
}

// NotRunError says why the program was not run.
type NotRunError struct {
	Name   string
	Reason string
}

func (e *NotRunError) Error() string { return fmt.Sprintf("%s was not run: %s", e.Name, e.Reason) }

// Wait waits for the end of the program. An exit status other than 0 is an
// [*exec.ExitError]: 128 and the number of the signal for a program that was
// killed by one, as in a shell. A program that could not be run is a
// [*NotRunError]. Descendants that outlive the program stay supervised.
func (c *Cmd) Wait() error {
	err := c.Cmd.Wait()
	if c.result == nil {
		return err
	}
	c.done = <-c.result
	c.control.Close()
	c.result = nil
	var exit *exec.ExitError
	killed := errors.As(err, &exit) && exit.Sys().(syscall.WaitStatus).Signaled() // our front, by somebody
	if c.done.Error != "" && !killed {
		return &NotRunError{c.name, c.done.Error}
	}
	return err
}

// Run runs the program and waits for its end, as [Cmd.Start] and [Cmd.Wait].
func (c *Cmd) Run() error {
	if err := c.Start(); err != nil {
		return err
	}
	return c.Wait()
}

// Output runs the program and returns what it wrote to its standard output.
func (c *Cmd) Output() ([]byte, error) {
	if c.Stdout != nil {
		return nil, errors.New("indirect: Stdout is set")
	}
	var out buffer
	c.Stdout = &out
	err := c.Run()
	return out, err
}

type buffer []byte

func (b *buffer) Write(p []byte) (int, error) {
	*b = append(*b, p...)
	return len(p), nil
}

var _ io.Writer = (*buffer)(nil)

// Summary tells, after [Cmd.Wait], what was done for the program.
func (c *Cmd) Summary() supervise.Summary { return c.done.Summary }

// serve decides about calls until no program is left.
func (c *Cmd) serve(socket *os.File) {
	defer socket.Close()
	// An error means that no supervisor is left.
	_ = remote.Serve(socket, func(conn *remote.Conn) {
		if conn.Handler >= 0 && conn.Handler < len(c.handlers) {
			decide(conn, c.handlers[conn.Handler].handle)
		}
	})
}

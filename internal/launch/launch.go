// Package launch starts a command under a seccomp filter and hands back the
// filter's listener before the command runs.
//
// The filter must be installed by the process that becomes the command, but Go
// cannot run code between fork and execve. [Start] therefore starts our own
// executable again as a launcher (see [Main]): it installs the filter, sends
// the listener over a socket, waits to be released and then becomes the
// command. Nothing of ours reaches the command: it gets the descriptors,
// environment, working directory, limits and signal state that it would have
// had without us.
//
// The Go runtime changes some of what it is started with before any of our
// code runs: standard streams that were closed are /dev/null
// (runtime/fds_unix.go), a limit on address space (RLIMIT_AS) must leave room
// for the runtime itself, and for signals see [signals.Inherited].
package launch

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/seed-055cd0c8/indirect/internal/launch/signals"
)

// Spec describes a command.
type Spec struct {
	// Path is looked up as execvp(3) does it if it has no slash, in the PATH
	// of Env.
	Path string
	Args []string // the argument vector, Args[0] included
	Env  []string // see [Environ]
	Dir  string   // the working directory; empty: ours

	Filter []unix.SockFilter // for seccomp(2)
	// Refusals is a second filter, which is installed just before the command
	// runs; it may have none. It must let execve(2) pass.
	Refusals []unix.SockFilter
	// NoWaitKillable does without SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV, as
	// on kernels before 5.19.
	NoWaitKillable bool

	// Signals is the state to start with: see [signals.Inherited].
	Signals signals.State
}

// Process is a command from [Start] on.
type Process struct {
	path     string
	pid      int
	pidfd    *os.File // stays open: a signal to a command that has ended must not reach another process
	control  *os.File
	listener *os.File
	report   report
}

// Start starts a launcher for the command and returns when it has installed
// the filter. The command does not run before [Process.Release]. Descriptors
// that we inherited are inherited by the command; the errors are
// [*FilterError] if the kernel refuses the filter.
func Start(s Spec) (*Process, error) {
	if len(s.Args) == 0 {
		return nil, errors.New("start a command: it has no argument vector")
	}
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("create the launcher's socket: %w", err)
	}
	control := os.NewFile(uintptr(pair[0]), "launcher")
	pid, err := forkLauncher(s, pair[1])
	unix.Close(pair[1])
	if err != nil {
		control.Close()
		return nil, err
	}
	p := &Process{path: s.Path, pid: pid, control: control}
	if err := p.prepare(s); err != nil {
		p.abandon()
		return nil, err
	}
	return p, nil
}

// forkLauncher starts the launcher. It inherits what we inherited and the
// socket, under the same numbers, and starts with all signals blocked: most of
// those that are sent meanwhile wait for the command.
func forkLauncher(s Spec, socket int) (int, error) {
	attr := &syscall.ProcAttr{Dir: s.Dir, Env: s.Env, Files: make([]uintptr, socket+1)}
	const closed = ^uintptr(0)
	for fd := range attr.Files {
		attr.Files[fd] = closed
		if fd == socket || inherited(fd) {
			attr.Files[fd] = uintptr(fd)
		}
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	mask, err := signals.SetMask(signals.All)
	if err != nil {
		return 0, err
	}
	defer signals.SetMask(mask)
	argv := append([]string{launcherName, fmt.Sprint(socket), s.Path}, s.Args...)
	pid, err := syscall.ForkExec("/proc/self/exe", argv, attr)
	if errors.Is(err, syscall.E2BIG) {
		return 0, &ExecError{Path: s.Path, Errno: unix.E2BIG}
	}
	if err != nil {
		return 0, fmt.Errorf("start the launcher (/proc/self/exe in %q): %w", s.Dir, err)
	}
	return pid, nil
}

// inherited reports whether fd is open and not close-on-exec: Go's own
// descriptors, and ours, are.
func inherited(fd int) bool {
	flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
	return err == nil && flags&unix.FD_CLOEXEC == 0
}

// prepare tells the launcher what to install and takes the listener.
func (p *Process) prepare(s Spec) error {
	pidfd, err := unix.PidfdOpen(p.pid, 0)
	if err != nil {
		return fmt.Errorf("open a pidfd of the launcher (Linux 5.3): %w", err)
	}
	p.pidfd = os.NewFile(uintptr(pidfd), "pidfd")
	if err := writeOrder(p.control, s); err != nil {
		return fmt.Errorf("write to the launcher: %w", err)
	}
	if p.report, p.listener, err = readReport(p.control); err != nil {
		return fmt.Errorf("read the launcher's answer: %w", err)
	}
	if p.report.Errno != 0 {
		return &FilterError{Step: p.report.Step, Errno: unix.Errno(p.report.Errno)}
	}
	return probeListener(p.listener)
}

// abandon ends a launcher that has not become the command.
func (p *Process) abandon() {
	p.control.Close()
	if p.listener != nil {
		p.listener.Close()
	}
	unix.Kill(p.pid, unix.SIGKILL)
	for {
		if _, err := unix.Wait4(p.pid, nil, 0, nil); err != unix.EINTR {
			break
		}
	}
	if p.pidfd != nil {
		p.pidfd.Close()
	}
}

// Listener is the file on which the filter's notifications arrive. The caller
// may close it.
func (p *Process) Listener() *os.File { return p.listener }

// Pid is the process ID, of the launcher and then of the command.
func (p *Process) Pid() int { return p.pid }

// WaitKillable reports whether the kernel took
// SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV (Linux 5.19).
func (p *Process) WaitKillable() bool { return p.report.WaitKillable != 0 }

// NoNewPrivs reports whether PR_SET_NO_NEW_PRIVS had to be set, for want of
// CAP_SYS_ADMIN: set-user-ID programs do not elevate under the filter.
func (p *Process) NoNewPrivs() bool { return p.report.NoNewPrivs != 0 }

// Release lets the launcher become the command. It returns when the command
// runs, or was killed before it could. If it cannot be executed the error is
// an [*ExecError], and nothing is left of it. The listener should be served
// meanwhile.
func (p *Process) Release() error {
	if _, err := p.control.Write([]byte{1}); err != nil && !errors.Is(err, unix.EPIPE) {
		p.abandon()
		return fmt.Errorf("release the launcher: %w", err)
	}
	var errno [4]byte
	_, err := io.ReadFull(p.control, errno[:])
	switch {
	case err == nil:
		p.abandon()
		return p.failure(binary.NativeEndian.Uint32(errno[:]))
	case errors.Is(err, io.EOF), errors.Is(err, unix.ECONNRESET):
		// execve closed the socket, or a signal ended the launcher in its
		// stead, which Wait will tell.
		p.control.Close()
		return nil
	}
	p.abandon()
	return fmt.Errorf("read the result of execve from the launcher: %w", err)
}

// failure is what a launcher said that could not become the command.
func (p *Process) failure(said uint32) error {
	if said&notRefusing != 0 {
		return &FilterError{Step: StepRefuse, Errno: unix.Errno(said &^ notRefusing)}
	}
	return &ExecError{Path: p.path, Errno: unix.Errno(said)}
}

// Abort ends a command that has not been released.
func (p *Process) Abort() { p.abandon() }

// Next waits until the command stops, or ends, and returns its status
// (wait(2), WUNTRACED). After the end it must not be called again.
func (p *Process) Next() (unix.WaitStatus, error) {
	for {
		var status unix.WaitStatus
		_, err := unix.Wait4(p.pid, &status, unix.WUNTRACED, nil)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return 0, fmt.Errorf("wait for process %d: %w", p.pid, err)
		}
		return status, nil
	}
}

// Wait waits until the command ends and returns its status, or until ctx is
// done: then the command goes on, and the error is the context's.
func (p *Process) Wait(ctx context.Context) (unix.WaitStatus, error) {
	var wake [2]int
	if err := unix.Pipe2(wake[:], unix.O_CLOEXEC); err != nil {
		return 0, fmt.Errorf("wait for process %d: create a pipe: %w", p.pid, err)
	}
	defer unix.Close(wake[0])
	woken := make(chan struct{})
	stop := context.AfterFunc(ctx, func() { unix.Close(wake[1]); close(woken) })
	defer func() {
		if stop() {
			unix.Close(wake[1])
		} else {
			<-woken
		}
	}()
	for {
		poll := []unix.PollFd{
			{Fd: int32(p.pidfd.Fd()), Events: unix.POLLIN},
			{Fd: int32(wake[0]), Events: unix.POLLIN},
		}
		switch _, err := unix.Poll(poll, -1); {
		case err == unix.EINTR:
		case err != nil:
			return 0, fmt.Errorf("wait for process %d: %w", p.pid, err)
		case poll[0].Revents != 0:
			for {
				status, err := p.Next()
				if err != nil || !status.Stopped() {
					return status, err
				}
			}
		default:
			return 0, fmt.Errorf("wait for process %d: %w", p.pid, ctx.Err())
		}
	}
}

// Signal sends sig, with the sender's value if info is not nil
// (pidfd_send_signal(2)). It cannot reach another process than the command.
func (p *Process) Signal(sig unix.Signal, info *unix.Siginfo) error {
	if err := unix.PidfdSendSignal(int(p.pidfd.Fd()), sig, info, 0); err != nil {
		return fmt.Errorf("send %v to process %d: %w", sig, p.pid, err)
	}
	return nil
}

// Environ returns our environment as it was given to us, in order and with
// everything in it: [os.Environ] drops repeated names and empty strings.
func Environ() []string {
	b, err := os.ReadFile("/proc/self/environ")
	if err != nil {
		return os.Environ()
	}
	if len(b) == 0 {
		return []string{}
	}
	return strings.Split(strings.TrimSuffix(string(b), "\x00"), "\x00")
}

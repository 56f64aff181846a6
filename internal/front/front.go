// Package front stands between a command and whoever started it: it hands on
// the signals that are sent to us, stops and continues with the command, and
// tells how the command ended.
//
// The command stays in our process group, as with env or nohup: the
// terminal's signals reach it without us, and a shell's job control sees one
// job. Only what is sent to our process alone has to be handed on, and the
// kernel tells the one from the other in the signal's siginfo, which os/signal
// does not show. Hence a handler of our own (sigaction(2), SA_SIGINFO).
package front

import (
	"encoding/binary"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/seed-055cd0c8/indirect/internal/launch"
	"github.com/seed-055cd0c8/indirect/internal/launch/signals"
)

// Front receives our process's signals.
type Front struct {
	caught *os.File // what the handler writes
}

// Catch starts to catch signals. They wait for [Front.Serve]: it should be
// called before the command is started. A process can have one Front, which
// stays.
func Catch() (*Front, error) {
	var pipe [2]int
	if err := unix.Pipe2(pipe[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		return nil, fmt.Errorf("create a pipe for signals: %w", err)
	}
	handlerPipe = int32(pipe[1])
	// What we print about the command must not end us: neither a pipe that
	// nobody reads nor a terminal that is not ours.
	signal.Ignore(unix.SIGPIPE)
	if _, err := signals.SetAction(unix.SIGTTOU, signals.Action{Handler: signals.Ignore}); err != nil {
		return nil, err
	}
	for sig := unix.Signal(1); sig <= signals.Last; sig++ {
		if spared.Has(sig) {
			continue
		}
		if _, err := signals.SetAction(sig, handlerAction()); err != nil {
			return nil, err
		}
	}
	return &Front{caught: os.NewFile(uintptr(pipe[0]), "signals")}, nil
}

// spared are the signals that are not caught: those that cannot be; those by
// which the kernel reports our own faults; SIGCHLD, SIGURG and SIGPROF, which
// the Go runtime needs; SIGPIPE and SIGTTOU, see [Catch]; and those that the C
// libraries keep to themselves.
var spared = signals.Of(
	unix.SIGKILL, unix.SIGSTOP,
	unix.SIGILL, unix.SIGTRAP, unix.SIGBUS, unix.SIGFPE, unix.SIGSEGV, unix.SIGSYS,
	unix.SIGCHLD, unix.SIGURG, unix.SIGPROF,
	unix.SIGPIPE, unix.SIGTTOU,
	32, 33, 34,
)

// Serve hands signals on to the command and stops with it, until it ends, and
// returns its status.
func (f *Front) Serve(p *launch.Process) (unix.WaitStatus, error) {
	done := make(chan struct{})
	relayed := make(chan struct{})
	go func() {
		defer close(relayed)
		f.relay(p, done)
	}()
	defer func() {
		close(done)
		f.caught.Close()
		<-relayed
	}()
	for {
		status, err := p.Next()
		if err != nil || !status.Stopped() {
			return status, err
		}
		if err := stop(p, status.StopSignal()); err != nil {
			return 0, err
		}
	}
}

// relay hands on caught signals until done is closed.
func (f *Front) relay(p *launch.Process, done <-chan struct{}) {
	var b [infoSize]byte
	for {
		if _, err := f.caught.Read(b[:]); err != nil {
			return // closed
		}
		i := parseInfo(b[:])
		if !i.forCommand(p.Pid()) {
			continue
		}
		select {
		case <-done:
			return
		default:
		}
		// An error means that the command has just ended.
		_ = p.Signal(i.signal, i.value(b[:]))
	}
}

// stop stops us as the command was stopped, so that the shell that started us
// sees a stopped job.
func stop(p *launch.Process, sig syscall.Signal) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if sig != unix.SIGSTOP {
		old, err := signals.SetAction(sig, signals.Action{Handler: signals.Default})
		if err != nil {
			return err
		}
		defer signals.SetAction(sig, old)
	}
	mask, err := signals.SetMask(0)
	if err != nil {
		return err
	}
	defer signals.SetMask(mask)
	if !stopped(p.Pid()) {
		return nil // continued meanwhile
	}
	// To this thread: it stops before the call returns, and we with it. A
	// SIGTSTP that the kernel discards, for want of a shell that could
	// continue us (an orphaned process group), leaves us running.
	if err := unix.Tgkill(os.Getpid(), unix.Gettid(), sig); err != nil {
		return fmt.Errorf("stop with the command: %w", err)
	}
	return nil
}

// stopped reports whether the process is stopped by a signal.
func stopped(pid int) bool {
	s, err := readStat(pid)
	// A thread group whose leader has ended shows as a zombie, and a tracer
	// hides the stop behind 't'.
	return err == nil && (s.state == 'T' || s.state == 't' || s.state == 'Z')
}

// LetGo gives up what we share with the command, which may want to be the
// only one to hold it (the reader of a pipe waits for its last writer): all
// inherited descriptors but standard error, and the working directory.
func LetGo() error {
	null, err := unix.Open("/dev/null", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open /dev/null: %w", err)
	}
	defer unix.Close(null)
	for fd := range 2 {
		if err := unix.Dup3(null, fd, 0); err != nil {
			return fmt.Errorf("replace standard stream %d by /dev/null: %w", fd, err)
		}
	}
	names, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return fmt.Errorf("list our descriptors: %w", err)
	}
	for _, name := range names {
		var fd int
		if _, err := fmt.Sscan(name.Name(), &fd); err != nil || fd < 3 {
			continue
		}
		// Our own are close-on-exec.
		if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err == nil && flags&unix.FD_CLOEXEC == 0 {
			unix.Close(fd)
		}
	}
	if err := unix.Chdir("/"); err != nil {
		return fmt.Errorf("leave the working directory: %w", err)
	}
	return nil
}

// info is the part of siginfo_t that we need
// (include/uapi/asm-generic/siginfo.h).
type info struct {
	signal unix.Signal
	code   int32
	sender int // 0 if it is outside our PID namespace
}

const infoSize = 128 // SI_MAX_SIZE

// Values of si_code for signals that processes send.
const (
	siUser  = 0
	siQueue = -1
	siTkill = -6
)

func parseInfo(b []byte) info {
	word := func(offset int) int32 { return int32(binary.NativeEndian.Uint32(b[offset:])) }
	return info{signal: unix.Signal(word(0)), code: word(8), sender: int(word(16))}
}

// value returns the siginfo to send along: that of sigqueue(3), which carries
// a value. Others the kernel makes anew.
func (i info) value(b []byte) *unix.Siginfo {
	if i.code != siQueue {
		return nil
	}
	s := &unix.Siginfo{}
	copy(siginfoBytes(s), b)
	return s
}

// forCommand reports whether the signal has to be handed on to the command.
func (i info) forCommand(command int) bool {
	switch i.code {
	case siUser, siQueue, siTkill:
	default:
		return false // from the kernel: the terminal's reach the whole group
	}
	switch {
	case i.sender == os.Getpid():
		return false
	case i.signal == unix.SIGCONT:
		// Shells continue the whole group. Alone, it reaches a command that
		// has been left behind.
		return stopped(command)
	}
	// A process of the command that signals us signals its group.
	return !descends(i.sender, command)
}

// descends reports whether the process is the ancestor or one of its descendants.
func descends(pid, ancestor int) bool {
	for pid > 1 && pid != os.Getpid() {
		if pid == ancestor {
			return true
		}
		s, err := readStat(pid)
		if err != nil {
			return false
		}
		pid = s.parent
	}
	return false
}

// Package signals sets signal masks and dispositions past the Go runtime, for
// the moments in which the runtime must not have its way: between fork and
// execve, and where a handler needs to see a signal's sender.
package signals

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Set is a set of signals: bit N-1 stands for signal N, as in the kernel's
// sigset_t on 64-bit architectures.
type Set uint64

// Of returns the set of the given signals.
func Of(sigs ...unix.Signal) Set {
	var s Set
	for _, sig := range sigs {
		s |= 1 << (sig - 1)
	}
	return s
}

// Has reports whether sig is in the set.
func (s Set) Has(sig unix.Signal) bool { return s>>(sig-1)&1 != 0 }

const (
	Last = unix.Signal(64) // the highest signal
	All  = ^Set(0)
)

// State is what execve(2) hands on of a process's signals.
type State struct{ Ignored, Blocked Set }

// Inherited returns the state with which we were started. It must be called
// before the dispositions of signals are changed.
//
// The Go runtime replaces SIG_IGN, except for SIGHUP, SIGINT, SIGCONT, SIGTSTP,
// SIGTTIN and SIGTTOU, and unblocks SIGHUP, SIGINT, SIGQUIT, SIGABRT, SIGTERM,
// SIGCHLD, SIGPROF and the synchronous signals
// (runtime/sigtab_linux_generic.go, flags Kill, Throw and Unblock). What it
// replaced is found by our executable's symbol table, and is missing here if
// that was stripped.
func Inherited() (State, error) {
	s, err := current()
	if err != nil {
		return State{}, err
	}
	if kept, err := started(); err == nil {
		s.Ignored |= kept.Ignored
		s.Blocked = kept.Blocked
	}
	return s, nil
}

// current returns the calling thread's state.
func current() (State, error) {
	b, err := os.ReadFile("/proc/thread-self/status")
	if err != nil {
		return State{}, fmt.Errorf("read our signal state: %w", err)
	}
	var s State
	for line := range strings.Lines(string(b)) {
		name, value, _ := strings.Cut(line, ":")
		var set *Set
		switch name {
		case "SigIgn":
			set = &s.Ignored
		case "SigBlk":
			set = &s.Blocked
		default:
			continue
		}
		n, err := strconv.ParseUint(strings.TrimSpace(value), 16, 64)
		if err != nil {
			return State{}, fmt.Errorf("read our signal state: %w", err)
		}
		*set = Set(n)
	}
	return s, nil
}

const setSize = 8 // bytes of a Set, for the kernel

// SetMask sets the calling thread's mask and returns the old one. The thread
// should be locked.
func SetMask(mask Set) (old Set, err error) {
	_, _, errno := unix.RawSyscall6(unix.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK,
		uintptr(unsafe.Pointer(&mask)), uintptr(unsafe.Pointer(&old)), setSize, 0, 0)
	if errno != 0 {
		return 0, fmt.Errorf("change the signal mask: %w", errno)
	}
	return old, nil
}

// Action is the kernel's struct sigaction (include/linux/signal_types.h).
type Action struct {
	Handler  uintptr // Default, Ignore or the address of code
	Flags    uint64
	Restorer uintptr
	Mask     Set
}

// Values of [Action]'s Handler.
const (
	Default = 0 // SIG_DFL
	Ignore  = 1 // SIG_IGN
)

// SetAction sets the disposition of sig and returns the old one.
func SetAction(sig unix.Signal, a Action) (old Action, err error) {
	_, _, errno := unix.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(sig),
		uintptr(unsafe.Pointer(&a)), uintptr(unsafe.Pointer(&old)), setSize, 0, 0)
	if errno != 0 {
		return old, fmt.Errorf("set the disposition of %v: %w", sig, errno)
	}
	return old, nil
}

// Reset sets the disposition of every signal to SIG_IGN if it is in ignored,
// to SIG_DFL otherwise. All handlers are gone then, those of the Go runtime
// included: execve must follow.
func Reset(ignored Set) {
	for sig := unix.Signal(1); sig <= Last; sig++ {
		a := Action{Handler: Default}
		if ignored.Has(sig) {
			a.Handler = Ignore
		}
		_, _ = SetAction(sig, a) // fails for SIGKILL and SIGSTOP, which cannot have been changed
	}
}

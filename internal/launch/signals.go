package launch

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Signals is a set of signals: bit N-1 stands for signal N.
type Signals uint64

// Has reports whether sig is in the set.
func (s Signals) Has(sig unix.Signal) bool { return s>>(sig-1)&1 != 0 }

const (
	lastSignal = 64
	allSignals = ^Signals(0)
)

// SignalState is what execve(2) hands on of a process's signals.
type SignalState struct{ Ignored, Blocked Signals }

// InheritedSignals returns the state with which we were started, so far as the
// Go runtime has not hidden it. It must be called before the dispositions of
// signals are changed.
//
// The runtime replaces inherited SIG_IGN, except for SIGHUP, SIGINT, SIGCONT,
// SIGTSTP, SIGTTIN and SIGTTOU, and unblocks SIGHUP, SIGINT, SIGQUIT, SIGABRT,
// SIGTERM, SIGCHLD, SIGPROF and the synchronous signals
// (runtime/sigtab_linux_generic.go, flags Kill, Throw and Unblock).
func InheritedSignals() (SignalState, error) {
	b, err := os.ReadFile("/proc/thread-self/status")
	if err != nil {
		return SignalState{}, fmt.Errorf("read our signal state: %w", err)
	}
	var s SignalState
	for line := range strings.Lines(string(b)) {
		name, value, _ := strings.Cut(line, ":")
		var set *Signals
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
			return SignalState{}, fmt.Errorf("read our signal state: %w", err)
		}
		*set = Signals(n)
	}
	return s, nil
}

// blockAllSignals blocks every signal for the calling thread, which must be
// locked, and returns a function that undoes it.
func blockAllSignals() (restore func(), err error) {
	var old Signals
	if err := setMask(allSignals, &old); err != nil {
		return nil, err
	}
	return func() { _ = setMask(old, nil) }, nil // it cannot fail: the first call did not
}

const sigsetSize = 8 // bytes of the kernel's sigset_t on 64-bit architectures

func setMask(set Signals, old *Signals) error {
	_, _, errno := unix.RawSyscall6(unix.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK,
		uintptr(unsafe.Pointer(&set)), uintptr(unsafe.Pointer(old)), sigsetSize, 0, 0)
	if errno != 0 {
		return fmt.Errorf("change the signal mask: %w", errno)
	}
	return nil
}

// sigaction is the kernel's struct sigaction (include/linux/signal_types.h).
type sigaction struct {
	handler  uintptr
	flags    uint64
	restorer uintptr
	mask     Signals
}

const (
	sigDefault = 0 // SIG_DFL
	sigIgnore  = 1 // SIG_IGN
)

// setDispositions sets the disposition of every signal to SIG_IGN if it is in
// ignored, to SIG_DFL otherwise. Our own handlers are gone then, those of the
// Go runtime included: execve must follow.
func setDispositions(ignored Signals) {
	for sig := unix.Signal(1); sig <= lastSignal; sig++ {
		act := sigaction{handler: sigDefault}
		if ignored.Has(sig) {
			act.handler = sigIgnore
		}
		// SIGKILL and SIGSTOP fail, and cannot have been changed.
		unix.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(sig), uintptr(unsafe.Pointer(&act)), 0, sigsetSize, 0, 0)
	}
}

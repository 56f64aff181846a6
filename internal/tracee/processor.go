package tracee

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Processor returns the number of the processor on which the calling OS thread runs.
func Processor() (int, error) {
	var cpu uint32
	if _, _, errno := unix.RawSyscall(unix.SYS_GETCPU, uintptr(unsafe.Pointer(&cpu)), 0, 0); errno != 0 {
		return 0, fmt.Errorf("find our processor: %w", errno)
	}
	return int(cpu), nil
}

// Processors returns those on which the thread tid may run; 0 is the caller.
func Processors(tid int) (set unix.CPUSet, err error) {
	if err := unix.SchedGetaffinity(tid, &set); err != nil {
		return set, fmt.Errorf("ask on which processors thread %d may run: %w", tid, gone(err))
	}
	return set, nil
}

// SetProcessors lets the thread tid run on no others; 0 is the caller.
func SetProcessors(tid int, set unix.CPUSet) error {
	if err := unix.SchedSetaffinity(tid, &set); err != nil {
		return fmt.Errorf("say on which processors thread %d may run: %w", tid, gone(err))
	}
	return nil
}

// RestoreProcessors is SetProcessors for what [Processors] has returned. A
// thread that might run on all processors that its cpuset has, and so on those
// that this may have in the future, may do so again (cpuset(7)).
func RestoreProcessors(tid int, set unix.CPUSet) error {
	var all unix.CPUSet
	for i := range all {
		all[i] = ^all[i]
	}
	if err := SetProcessors(tid, all); err != nil {
		return err
	}
	if now, err := Processors(tid); err != nil || now == set {
		return err
	}
	return SetProcessors(tid, set)
}

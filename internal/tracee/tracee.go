// Package tracee attaches to threads of other processes, reads and changes
// their registers and memory, and lets them go. It is the only place that uses
// ptrace(2). All methods of a [Thread] must be called from the OS thread that
// attached it: lock it with runtime.LockOSThread.
package tracee

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ErrGone says that the thread died, or was replaced by an execve of another thread.
var ErrGone = errors.New("the thread is gone")

// Thread is an attached thread.
type Thread struct{ tid int }

// Constants of ptrace(2), from include/uapi/linux/ptrace.h.
const (
	seize       = 0x4206
	interrupt   = 0x4207
	getSigMask  = 0x420a
	setSigMask  = 0x420b
	eventStop   = 128
	optSysGood  = 1
	sigSetBytes = 8

	// Only what this OS thread traces: another worker may trace the new owner
	// of a thread ID that an execve has handed on.
	waitOptions = unix.WALL | unix.WNOTHREAD
)

// Seize attaches to a thread, without stopping it, and asks it to stop before
// it next returns to its program. It may be waiting in the kernel: call
// [Thread.Stopped] after whatever it waits for.
func Seize(tid int) (*Thread, error) {
	if err := request(seize, tid, 0, optSysGood); err != nil {
		return nil, fmt.Errorf("attach to thread %d: %w", tid, gone(err))
	}
	t := &Thread{tid}
	if err := request(interrupt, tid, 0, 0); err != nil {
		return nil, fmt.Errorf("interrupt thread %d: %w", tid, t.lost(err))
	}
	return t, nil
}

// QuietStops keeps the kernel from sending this process a signal for each stop
// of an attached thread, which [Thread.Stopped] waits for anyway: the handler
// of the Go runtime would run first, on whatever thread the kernel picks.
func QuietStops() error {
	const noChildStop = 1                                      // SA_NOCLDSTOP
	var action struct{ handler, flags, restorer, mask uint64 } // struct sigaction, include/linux/signal_types.h
	if err := sigaction(unix.SIGCHLD, nil, unsafe.Pointer(&action)); err != nil {
		return err
	}
	action.flags |= noChildStop
	return sigaction(unix.SIGCHLD, unsafe.Pointer(&action), nil)
}

func sigaction(sig unix.Signal, new, old unsafe.Pointer) error {
	if _, _, errno := unix.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(sig), uintptr(new), uintptr(old), sigSetBytes, 0, 0); errno != 0 {
		return fmt.Errorf("change the action of %v: %w", sig, errno)
	}
	return nil
}

// ID is the thread's ID.
func (t *Thread) ID() int { return t.tid }

// A Stop says why a thread stopped.
type Stop int

// Why threads stop.
const (
	Interrupted Stop = iota // by Seize, or together with its process group
	Syscall                 // at the entry or exit of a system call
	Signalled               // with a signal that is to be delivered
)

// lost adds ErrGone to the error of a request on a thread that was killed
// while it was stopped. It also takes note of the death, without which the
// thread would stay a zombie, and an execve or a wait for its process would
// not return.
func (t *Thread) lost(err error) error {
	if err != unix.ESRCH {
		return err
	}
	for {
		var status unix.WaitStatus
		_, wait := unix.Wait4(t.tid, &status, waitOptions, nil)
		if wait == unix.EINTR || wait == nil && status.Stopped() {
			continue
		}
		return errors.Join(ErrGone, err)
	}
}

// Stopped waits until the thread stops. The signal is that of a Signalled stop.
func (t *Thread) Stopped() (Stop, unix.Signal, error) {
	var status unix.WaitStatus
	for {
		_, err := unix.Wait4(t.tid, &status, waitOptions, nil)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return 0, 0, fmt.Errorf("wait for thread %d: %w", t.tid, errors.Join(ErrGone, err))
		}
		break
	}
	switch {
	case !status.Stopped():
		return 0, 0, fmt.Errorf("thread %d ended: %w", t.tid, ErrGone)
	case uint32(status)>>16 == eventStop:
		return Interrupted, 0, nil
	case status.StopSignal() == unix.SIGTRAP|0x80:
		return Syscall, 0, nil
	}
	return Signalled, status.StopSignal(), nil
}

// SigMask is a set of blocked signals: bit n-1 stands for signal n.
type SigMask uint64

// AllSignals blocks every signal that can be blocked.
const AllSignals = ^SigMask(0)

// SigMask reads the stopped thread's signal mask.
func (t *Thread) SigMask() (SigMask, error) {
	var m SigMask
	if err := requestMask(getSigMask, t.tid, &m); err != nil {
		return 0, fmt.Errorf("read signal mask of thread %d: %w", t.tid, t.lost(err))
	}
	return m, nil
}

// SetSigMask changes the stopped thread's signal mask.
func (t *Thread) SetSigMask(m SigMask) error {
	if err := requestMask(setSigMask, t.tid, &m); err != nil {
		return fmt.Errorf("set signal mask of thread %d: %w", t.tid, t.lost(err))
	}
	return nil
}

// ToSyscall lets the thread go on until the next entry to or exit from a
// system call, delivering sig if it is not 0.
func (t *Thread) ToSyscall(sig unix.Signal) error {
	if err := request(unix.PTRACE_SYSCALL, t.tid, 0, uintptr(sig)); err != nil {
		return fmt.Errorf("continue thread %d: %w", t.tid, t.lost(err))
	}
	return nil
}

// Step lets the stopped thread make one instruction, and waits until it has.
// SIGTRAP must not be blocked.
func (t *Thread) Step() error {
	if err := request(unix.PTRACE_SINGLESTEP, t.tid, 0, 0); err != nil {
		return fmt.Errorf("step thread %d: %w", t.tid, t.lost(err))
	}
	_, _, err := t.Stopped()
	return err
}

// Detach lets the stopped thread go, delivering sig if it is not 0.
func (t *Thread) Detach(sig unix.Signal) error {
	if err := request(unix.PTRACE_DETACH, t.tid, 0, uintptr(sig)); err != nil {
		return fmt.Errorf("detach from thread %d: %w", t.tid, t.lost(err))
	}
	return nil
}

func request(req, tid int, addr, data uintptr) error {
	if _, _, errno := unix.Syscall6(unix.SYS_PTRACE, uintptr(req), uintptr(tid), addr, data, 0, 0); errno != 0 {
		return errno
	}
	return nil
}

func requestMask(req, tid int, m *SigMask) error {
	if _, _, errno := unix.Syscall6(unix.SYS_PTRACE, uintptr(req), uintptr(tid), sigSetBytes, uintptr(unsafe.Pointer(m)), 0, 0); errno != 0 {
		return errno
	}
	return nil
}

// gone adds ErrGone to the errno of a thread that no longer exists.
func gone(err error) error {
	if err == unix.ESRCH {
		return errors.Join(ErrGone, err)
	}
	return err
}

// Memory is the memory of a process, open for reading and for writing, also
// where the process itself may not write (mem_rw in the kernel's fs/proc/base.c).
type Memory struct{ fd int }

// OpenMemory opens the memory of the process that tid belongs to. The memory
// stays that of the program that runs now: after an execve it reads as empty.
func OpenMemory(tid int) (*Memory, error) {
	fd, err := unix.Open("/proc/"+strconv.Itoa(tid)+"/mem", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open memory of process %d: %w", tid, err)
	}
	return &Memory{fd}, nil
}

// Close closes the memory.
func (m *Memory) Close() error { return unix.Close(m.fd) }

// Read fills p from address. A short read is an error.
func (m *Memory) Read(address uint64, p []byte) error {
	n, err := unix.Pread(m.fd, p, int64(address))
	if err == nil && n < len(p) {
		err = unix.EFAULT
	}
	if err != nil {
		return fmt.Errorf("read %d bytes at %#x: %w", len(p), address, err)
	}
	return nil
}

// Write stores p at address.
func (m *Memory) Write(address uint64, p []byte) error {
	n, err := unix.Pwrite(m.fd, p, int64(address))
	if err == nil && n < len(p) {
		err = unix.EFAULT
	}
	if err != nil {
		return fmt.Errorf("write %d bytes at %#x: %w", len(p), address, err)
	}
	return nil
}

// AtOnce reports whether n bytes at address can be changed by one store of 8
// bytes, as which the kernel copies them, that other threads see as a whole.
func AtOnce(address uint64, n int) bool {
	return n <= word && address/span() == (address+uint64(n)-1)/span()
}

const word = 8

// span is the aligned length within which the processor's stores are atomic: a
// cache line on Intel's (SDM volume 3, 9.1.1); half of what one store writes
// on AMD's since they have AVX, and for certain a word (AMD64 manual volume 2,
// 7.3.2, which promises no more: 14 million stores across a word's end were
// seen whole on a Zen).
var span = sync.OnceValue(func() uint64 {
	b, _ := os.ReadFile("/proc/cpuinfo")
	switch {
	case bytes.Contains(b, []byte("GenuineIntel")):
		return 64
	case bytes.Contains(b, []byte("AuthenticAMD")) && bytes.Contains(b, []byte(" avx ")):
		return 16
	}
	return word
})

// WriteAtOnce replaces the bytes at address by p in one store, so that a
// thread running there sees all of them or none. It is an error if [AtOnce]
// says that this cannot be done.
func (m *Memory) WriteAtOnce(address uint64, p []byte) error {
	if !AtOnce(address, len(p)) {
		return fmt.Errorf("write %d bytes at %#x at once: they are not in one cache line", len(p), address)
	}
	end := address/span()*span() + span()
	start := min(address, end-word)
	var b [word]byte
	if err := m.Read(start, b[:]); err != nil {
		return err
	}
	copy(b[address-start:], p)
	return m.Write(start, b[:])
}

// Peek reads from the memory of thread tid without opening it, and returns how
// many bytes could be read (process_vm_readv(2)).
func Peek(tid int, address uint64, p []byte) int {
	if len(p) == 0 {
		return 0
	}
	local := []unix.Iovec{{Base: &p[0], Len: uint64(len(p))}}
	remote := []unix.RemoteIovec{{Base: uintptr(address), Len: len(p)}}
	n, err := unix.ProcessVMReadv(tid, local, remote, 0)
	if err != nil {
		return 0
	}
	return n
}

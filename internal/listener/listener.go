// Package listener speaks the seccomp user notification protocol
// (seccomp_unotify(2)): it receives the calls that a filter trapped and
// answers them. It knows nothing of what the calls mean.
package listener

import (
	"errors"
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Notification is a trapped call, waiting for its answer
// (struct seccomp_notif, include/uapi/linux/seccomp.h).
type Notification struct {
	ID    uint64
	TID   uint32 // in our PID namespace; 0 if the thread is not visible in it
	Flags uint32
	Nr    int32
	Arch  uint32 // AUDIT_ARCH_*
	IP    uint64 // of the instruction after the call
	Args  [6]uint64
}

// response is struct seccomp_notif_resp.
type response struct {
	id    uint64
	val   int64
	err   int32
	flags uint32
}

// addFD is struct seccomp_notif_addfd.
type addFD struct {
	id       uint64
	flags    uint32
	srcFD    uint32
	newFD    uint32
	newFlags uint32
}

// Requests of seccomp_unotify(2), from include/uapi/linux/seccomp.h.
const (
	notifRecv     = 0xc0502100
	notifSend     = 0xc0182101
	notifIDValid  = 0x40082102
	notifAddFD    = 0x40182103
	notifSetFlags = 0x40082104

	flagContinue  = 1   // SECCOMP_USER_NOTIF_FLAG_CONTINUE, Linux 5.5
	fdSyncWakeUp  = 1   // SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP, Linux 6.6
	restartNoIntr = 513 // ERESTARTNOINTR, include/linux/errno.h
)

var (
	// ErrGone says that the notification's thread died or was interrupted:
	// there is nobody left to answer.
	ErrGone = errors.New("the trapped thread no longer waits")
	// ErrNothing says that nothing was received.
	ErrNothing = errors.New("no call is trapped")
	// ErrDone says that no process is left under the filter.
	ErrDone = errors.New("no process is left under the filter")
)

// Listener is the receiving end of a filter. Its methods may be called from
// several threads.
type Listener struct{ file *os.File }

// New takes over the file that seccomp(2) returned for
// SECCOMP_FILTER_FLAG_NEW_LISTENER.
func New(f *os.File) *Listener { return &Listener{f} }

// SyncWakeUp asks the kernel to switch between a trapped thread and us
// without another CPU, which makes a round trip several times faster. Kernels
// before 6.6 answer EINVAL.
func (l *Listener) SyncWakeUp() error {
	err := l.retry(func() unix.Errno {
		_, _, errno := unix.Syscall(unix.SYS_IOCTL, l.file.Fd(), notifSetFlags, fdSyncWakeUp)
		return errno
	})
	if err != nil {
		return fmt.Errorf("set SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP (Linux 6.6): %w", err)
	}
	return nil
}

// Receive waits for a notification, which the kernel writes to n. It returns
// ErrNothing when there is none after all: the calling thread got a signal, or
// the trapped thread was killed; and ErrDone when no process is left (kernels
// before 6.11 wait on then: see Watch). It may be called from several threads;
// each notification is received by one.
func (l *Listener) Receive(n *Notification) error {
	*n = Notification{} // or the kernel refuses
	errno := receive(l.file.Fd(), n)
	switch errno {
	case 0:
		return nil
	case unix.ENOENT:
		if l.Done() {
			return ErrDone
		}
		return ErrNothing
	case unix.EINTR:
		return ErrNothing
	}
	return fmt.Errorf("receive a trapped call: %w", errno)
}

// Done reports whether no process is left under the filter.
func (l *Listener) Done() bool {
	poll := []unix.PollFd{{Fd: int32(l.file.Fd())}}
	_, err := unix.Poll(poll, 0)
	return err == nil && poll[0].Revents&unix.POLLHUP != 0
}

// Watch returns ErrDone when the last process under the filter is gone.
func (l *Listener) Watch() error {
	poll := []unix.PollFd{{Fd: int32(l.file.Fd())}}
	for {
		switch _, err := unix.Poll(poll, -1); {
		case err == unix.EINTR:
		case err != nil:
			return fmt.Errorf("watch for the end of the processes under the filter: %w", err)
		default:
			return ErrDone
		}
	}
}

// Valid reports whether a received notification still waits for its answer.
// After it has returned true, what was read from the thread's memory before
// the call was the thread's.
func (l *Listener) Valid(id uint64) bool {
	return l.ioctl(notifIDValid, unsafe.Pointer(&id)) == nil
}

// Continue lets the trapped call run as it is.
func (l *Listener) Continue(id uint64) error {
	return l.send(response{id: id, flags: flagContinue})
}

// Return makes the trapped call return val.
func (l *Listener) Return(id uint64, val int64) error {
	return l.send(response{id: id, val: val})
}

// Fail makes the trapped call fail with errno.
func (l *Listener) Fail(id uint64, errno unix.Errno) error {
	return l.send(response{id: id, err: -int32(errno)})
}

// Restart makes the trapped call return -ERESTARTNOINTR, which the kernel
// never shows to the program: the thread must have been interrupted (see
// package tracee), then it makes the call again when it goes on.
func (l *Listener) Restart(id uint64) error {
	return l.send(response{id: id, err: -restartNoIntr})
}

// Install gives the program a descriptor for our descriptor fd, and makes the
// trapped call return its number (Linux 5.14). It fails with EMFILE if the
// program has none left; the call then still waits.
func (l *Listener) Install(id uint64, fd int, cloexec bool) error {
	const addFDSend = 2 // SECCOMP_ADDFD_FLAG_SEND
	a := addFD{id: id, flags: addFDSend, srcFD: uint32(fd)}
	if cloexec {
		a.newFlags = unix.O_CLOEXEC
	}
	switch err := l.ioctl(notifAddFD, unsafe.Pointer(&a)); err {
	case nil:
		return nil
	case unix.ENOENT, unix.EINPROGRESS:
		return ErrGone
	default:
		return fmt.Errorf("install a descriptor: %w", err)
	}
}

func (l *Listener) send(r response) error {
	switch err := l.ioctl(notifSend, unsafe.Pointer(&r)); err {
	case nil:
		return nil
	case unix.ENOENT, unix.EINPROGRESS:
		return ErrGone
	default:
		return fmt.Errorf("answer a trapped call: %w", err)
	}
}

// Close closes our end. Trapped calls then fail with ENOSYS unless another
// process holds the listener too.
func (l *Listener) Close() error { return l.file.Close() }

// ioctl makes a request whose argument is in memory. A signal (the Go runtime
// sends its threads some) may interrupt the wait for the kernel's lock.
func (l *Listener) ioctl(request uintptr, arg unsafe.Pointer) error {
	return l.retry(func() unix.Errno {
		_, _, errno := unix.Syscall(unix.SYS_IOCTL, l.file.Fd(), request, uintptr(arg))
		return errno
	})
}

func (l *Listener) retry(try func() unix.Errno) error {
	for {
		switch errno := try(); errno {
		case 0:
			return nil
		case unix.EINTR:
		default:
			return errno
		}
	}
}

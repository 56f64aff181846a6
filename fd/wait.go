//go:build linux && (amd64 || arm64 || 386)

package fd

import (
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Paccept accepts a connection with the signal mask in place for the wait, as
// paccept(2) did in Linux 2.6.27-rc1: a signal that the mask lets through and
// this thread's own mask does not is either handled during the wait, which then
// fails with EINTR, or stays pending. It is never handled first and then waited
// after. A nil mask changes nothing.
//
// In a Go program that is a matter of signals sent to one thread, locked with
// [runtime.LockOSThread], whose mask the program has changed itself; the Go
// runtime handles signals that are sent to the process on any thread. If several
// threads accept from one blocking socket, one that comes too late waits for
// the next connection with its own mask.
func Paccept(fd int, mask *unix.Sigset_t, props Props) (int, error) {
	if mask == nil {
		return Accept(fd, props)
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := waitReadable(fd, mask); err != nil {
		return -1, err
	}
	return accept4.create(props, nil, [6]uintptr{uintptr(fd)})
}

// waitReadable waits for a listening socket that blocks to have a connection.
// For anything else it returns at once: accept will tell.
func waitReadable(fd int, mask *unix.Sigset_t) error {
	listening, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ACCEPTCONN)
	if err != nil || listening == 0 {
		return nil
	}
	flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
	if err != nil || flags&unix.O_NONBLOCK != 0 {
		return nil
	}
	wait := &unix.PollFd{Fd: int32(fd), Events: unix.POLLIN}
	// unix.Ppoll gives no size for the mask, and Linux refuses that.
	_, _, errno := unix.Syscall6(unix.SYS_PPOLL, uintptr(unsafe.Pointer(wait)), 1, 0, uintptr(unsafe.Pointer(mask)), sigsetSize, 0)
	return asError(errno)
}

// Message is what [Recvmsg] received.
type Message struct {
	N     int           // bytes of data
	Flags int           // MSG_TRUNC and others, of recvmsg(2)
	From  unix.Sockaddr // nil for a connected socket
	FDs   []int         // the descriptors that came with it
	Other []unix.SocketControlMessage
}

// TruncatedError says that a message came with more descriptors than there was
// room for. Those that arrived have been closed.
type TruncatedError struct{ Closed int }

func (e *TruncatedError) Error() string {
	return "a message came with more descriptors than were expected: all have been closed"
}

// Recvmsg receives a message with at most most descriptors: see [unix.Recvmsg].
// They are close-on-exec from the start unless props has Inheritable; Nonblock
// is refused with EINVAL, as for [Dup]. Whatever goes wrong, no descriptor
// stays behind. With MSG_PEEK the descriptors are the receiver's copies.
func Recvmsg(fd int, p []byte, most, flags int, props Props) (Message, error) {
	const descriptor = 4
	switch {
	case props&Nonblock != 0:
		return Message{}, unix.EINVAL
	case props&Inheritable == 0 || props&NonSequential != 0:
		flags |= unix.MSG_CMSG_CLOEXEC
	}
	oob := make([]byte, unix.CmsgSpace(most*descriptor))
	n, oobn, got, from, err := unix.Recvmsg(fd, p, oob, flags)
	if err != nil {
		return Message{}, err
	}
	m := Message{N: n, Flags: got &^ unix.MSG_CMSG_CLOEXEC, From: from}
	messages, err := unix.ParseSocketControlMessage(oob[:oobn])
	for i := range messages {
		if fds, err := unix.ParseUnixRights(&messages[i]); err == nil {
			m.FDs = append(m.FDs, fds...)
		} else {
			m.Other = append(m.Other, messages[i])
		}
	}
	if err != nil || got&unix.MSG_CTRUNC != 0 {
		closeAll(m.FDs)
		return Message{}, &TruncatedError{len(m.FDs)}
	}
	if props&NonSequential != 0 {
		for i, fd := range m.FDs {
			moved, errno := settle(fd, NonSequential, props, false)
			if errno != 0 {
				closeAll(append(m.FDs[:i:i], m.FDs[i+1:]...))
				return Message{}, errno
			}
			m.FDs[i] = moved
		}
	}
	return m, nil
}

func closeAll(fds []int) {
	for _, fd := range fds {
		unix.Close(fd)
	}
}

// Sendmsg sends data with descriptors over a Unix socket: see [unix.SendmsgN].
// It returns how many bytes were sent; the descriptors go with the first. The
// caller keeps its own.
func Sendmsg(fd int, p []byte, fds []int, to unix.Sockaddr, flags int) (int, error) {
	var oob []byte
	if len(fds) > 0 {
		oob = unix.UnixRights(fds...)
	}
	return unix.SendmsgN(fd, p, oob, to, flags)
}

package listener

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// The Go runtime's own way into and out of a system call that is known to
// block, which it keeps for gVisor and others (go.dev/issue/67401). Behind
// [unix.Syscall] the runtime counts a thread as running for ten more
// milliseconds, and its monitor thread keeps waking up to see whether it does:
// beside programs that run one short program after the other, all the time.
//
//go:linkname entersyscallblock runtime.entersyscallblock
func entersyscallblock()

//go:linkname exitsyscall runtime.exitsyscall
func exitsyscall()

// receive waits for a notification. Between the two ends no stack may grow.
//
//go:nosplit
func receive(fd uintptr, n *Notification) unix.Errno {
	entersyscallblock()
	_, _, errno := unix.RawSyscall(unix.SYS_IOCTL, fd, notifRecv, uintptr(unsafe.Pointer(n)))
	exitsyscall()
	return errno
}

package listener

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// The Go runtime's own way into and out of a system call that is known to
// block, which it keeps for gVisor and others (go.dev/issue/67401). It takes
// longer than that of [unix.Syscall], but behind that one the runtime's monitor
// thread wakes up every 70 µs, for some 4 ms after each call, to see whether it
// still blocks: work that a machine does which runs one short program after
// the other.
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

package indirect

import (
	"runtime"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/seed-055cd0c8/indirect/fdcall"
)

// ONonseqfd in [Params] asks for a non-sequential number. It is no flag of
// open(2).
const ONonseqfd = fdcall.ONonseqfd

// Registers are a system call and its arguments (struct indirect_registers).
type Registers struct {
	Nr   uintptr
	Args [6]uintptr
}

// Params are the properties that a call's descriptors are to have: those of
// the bits [unix.O_CLOEXEC], [unix.O_NONBLOCK] and [ONonseqfd] that are set.
// Other bits mean nothing.
type Params struct {
	Flags int32
}

// Call is indirect(2): it makes a system call of the table (package fdcall)
// that creates descriptors, with properties for them. It fails with ENOSYS if
// the program does not run under "indirect run", with EINVAL for any other
// call, or as the call itself fails. Pointers among the arguments must be
// converted in the call expression that makes the Registers, of memory that
// does not move (not of variables on the stack), and kept alive until Call has
// returned.
func Call(regs *Registers, params *Params) (uintptr, error) {
	r, _, errno := unix.Syscall6(fdcall.NrIndirect,
		uintptr(unsafe.Pointer(regs)), uintptr(unsafe.Pointer(params)), unsafe.Sizeof(*params), 0, 0, 0)
	runtime.KeepAlive(regs)
	if errno != 0 {
		return r, errno
	}
	return r, nil
}

// Available reports whether this program can use [Call].
var Available = sync.OnceValue(func() bool {
	_, _, errno := unix.RawSyscall6(fdcall.NrIndirect, 0, 0, 0, 0, 0, 0)
	return errno != unix.ENOSYS
})

package front

import (
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/seed-055cd0c8/indirect/internal/launch/signals"
)

// handlerPipe is where the handler writes to. There is one set of signal
// handlers in a process, and a handler has no other way to know.
//
//lint:ignore U1000 the assembly reads it
var handlerPipe int32

// handlerAddress returns the address of the handler, which writes its
// siginfo_t to handlerPipe and does nothing else: it runs on the signal stack
// of whatever thread the kernel chose, outside Go's rules. If the pipe is full
// the signal is lost, after a thousand that we did not come to read.
func handlerAddress() uintptr

// Flags of sigaction(2), include/uapi/asm-generic/signal-defs.h.
const (
	saSiginfo = 0x00000004
	saOnstack = 0x08000000
	saRestart = 0x10000000
)

func handlerAction() signals.Action {
	return signals.Action{
		Handler:  handlerAddress(),
		Flags:    saSiginfo | saOnstack | saRestart | restorerFlag,
		Restorer: restorerAddress(),
		Mask:     signals.All,
	}
}

func siginfoBytes(s *unix.Siginfo) []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(s)), unsafe.Sizeof(*s))
}

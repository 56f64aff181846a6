#include "textflag.h"

// func handlerAddress() uintptr
TEXT ·handlerAddress(SB), NOSPLIT, $0-8
	MOVQ $·handler(SB), AX
	MOVQ AX, ret+0(FP)
	RET

// func restorerAddress() uintptr
TEXT ·restorerAddress(SB), NOSPLIT, $0-8
	MOVQ $·restorer(SB), AX
	MOVQ AX, ret+0(FP)
	RET

// handler is called by the kernel with the C calling convention:
// DI is the signal, SI the siginfo_t, DX the context. The return address is
// the restorer's, and rt_sigreturn brings back every register.
TEXT ·handler(SB), NOSPLIT|NOFRAME, $0
	MOVL ·handlerPipe(SB), DI
	MOVL $128, DX // infoSize
	MOVL $1, AX   // write
	SYSCALL
	RET

TEXT ·restorer(SB), NOSPLIT|NOFRAME, $0
	MOVL $15, AX // rt_sigreturn
	SYSCALL
	INT  $3

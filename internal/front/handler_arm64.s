#include "textflag.h"

// func handlerAddress() uintptr
TEXT ·handlerAddress(SB), NOSPLIT, $0-8
	MOVD $·handler(SB), R0
	MOVD R0, ret+0(FP)
	RET

// handler is called by the kernel with the C calling convention: R0 is the
// signal, R1 the siginfo_t, R2 the context, and LR leads to rt_sigreturn.
TEXT ·handler(SB), NOSPLIT|NOFRAME, $0
	MOVW ·handlerPipe(SB), R0
	MOVD $128, R2 // infoSize
	MOVD $64, R8  // write
	SVC
	RET

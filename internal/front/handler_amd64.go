package front

const restorerFlag = 0x04000000 // SA_RESTORER: without it the kernel refuses to return

// restorerAddress returns the address of the code that makes rt_sigreturn.
func restorerAddress() uintptr

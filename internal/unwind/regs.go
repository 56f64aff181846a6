package unwind

import "github.com/seed-055cd0c8/indirect/internal/tracee"

// FromTracee converts the registers of a held thread, of whatever mode.
func FromTracee(t *tracee.Regs) Regs {
	const user32CS = 0x23 // __USER32_CS, arch/x86/include/asm/segment.h
	if t.Cs == user32CS {
		r := Regs{Arch: I386}
		for i, v := range [...]uint64{t.Rax, t.Rcx, t.Rdx, t.Rbx, t.Rsp, t.Rbp, t.Rsi, t.Rdi, t.Rip} {
			r.set(i, uint64(uint32(v)))
		}
		return r
	}
	r := Regs{Arch: AMD64}
	for i, v := range [...]uint64{
		t.Rax, t.Rdx, t.Rcx, t.Rbx, t.Rsi, t.Rdi, t.Rbp, t.Rsp,
		t.R8, t.R9, t.R10, t.R11, t.R12, t.R13, t.R14, t.R15, t.Rip,
	} {
		r.set(i, v)
	}
	return r
}

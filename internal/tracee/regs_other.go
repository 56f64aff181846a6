//go:build !amd64

package tracee

import (
	"errors"
	"fmt"
)

// Regs are the registers of an amd64 thread (struct user_regs_struct), which
// no other architecture has: the type lets the code that reads them be built.
type Regs struct {
	R15, R14, R13, R12, Rbp, Rbx, R11, R10, R9, R8, Rax, Rcx, Rdx, Rsi, Rdi, Orig_rax uint64
	Rip, Cs, Eflags, Rsp, Ss, Fs_base, Gs_base, Ds, Es, Fs, Gs                        uint64
}

// Regs fails: see [Regs].
func (t *Thread) Regs() (Regs, error) {
	return Regs{}, fmt.Errorf("read registers of thread %d: %w", t.tid, errors.ErrUnsupported)
}

// SetRegs fails: see [Regs].
func (t *Thread) SetRegs(Regs) error {
	return fmt.Errorf("write registers of thread %d: %w", t.tid, errors.ErrUnsupported)
}

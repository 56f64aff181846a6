package tracee

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// Regs are the user registers of an x86-64 kernel's task, whatever its mode.
type Regs = unix.PtraceRegsAmd64

// Regs reads the stopped thread's registers.
func (t *Thread) Regs() (Regs, error) {
	var r Regs
	if err := unix.PtraceGetRegsAmd64(t.tid, &r); err != nil {
		return Regs{}, fmt.Errorf("read registers of thread %d: %w", t.tid, t.lost(err))
	}
	return r, nil
}

// SetRegs changes the stopped thread's registers.
func (t *Thread) SetRegs(r Regs) error {
	if err := unix.PtraceSetRegsAmd64(t.tid, &r); err != nil {
		return fmt.Errorf("set registers of thread %d: %w", t.tid, t.lost(err))
	}
	return nil
}

//go:build !amd64

package unwind

import "github.com/seed-055cd0c8/indirect/internal/tracee"

// FromTracee knows no registers: on this architecture no thread can be held.
func FromTracee(*tracee.Regs) Regs { return Regs{} }

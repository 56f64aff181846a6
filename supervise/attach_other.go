//go:build !amd64

package supervise

import (
	"github.com/seed-055cd0c8/indirect/fdcall"
	"github.com/seed-055cd0c8/indirect/internal/listener"
	"github.com/seed-055cd0c8/indirect/internal/tracee"
)

const (
	native     = fdcall.ARM64
	syscallLen = 4
)

// Attached is a thread that we hold, in front of its call or behind it.
type Attached struct {
	TID       int
	Registers tracee.Regs
}

// ReadAt reads the program's memory, as [io.ReaderAt].
func (*Attached) ReadAt([]byte, int64) (int, error) { return 0, errImpossible }

// Write writes to the program's memory.
func (*Attached) Write(uint64, []byte) error { return errImpossible }

var ownFilters []Trap

// What an architecture must provide. [New] fails here, for want of a stub, so
// that none of it is reached.

func abiOf(listener.Notification) (fdcall.ABI, int32, bool) { return 0, 0, false }
func isCancel(fdcall.ABI, int32) bool                       { return false }
func installsFilter(fdcall.ABI, int32, *[6]uint64) bool     { return false }
func (e *engine) runAdded(listener.Notification, fdcall.ABI, *fdcall.Added, bool) error {
	return errImpossible
}
func (e *engine) singlePlans() map[*fdcall.Call]fdcall.Plan                     { return nil }
func (e *engine) cancels(listener.Notification)                                 {}
func (e *engine) tells(listener.Notification) bool                              { return false }
func (e *engine) landed(listener.Notification)                                  {}
func (e *engine) restore(int)                                                   {}
func (e *engine) setArena(int, uint64) int64                                    { return 0 }
func (e *engine) beforeFilter(listener.Notification)                            {}
func (e *engine) noteFilter(int) error                                          { return nil }
func (e *engine) enforce(listener.Notification, fdcall.ABI, *fdcall.Call) error { return errImpossible }
func (e *engine) runWatched(listener.Notification, fdcall.ABI, Decision) error  { return errImpossible }

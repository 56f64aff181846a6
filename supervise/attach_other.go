//go:build !amd64

package supervise

import (
	"github.com/seed-055cd0c8/indirect/fdcall"
	"github.com/seed-055cd0c8/indirect/internal/listener"
)

const syscallLen = 4

// What an architecture must provide. [New] fails here, for want of a stub, so
// that none of it is reached.

func abiOf(listener.Notification) (fdcall.ABI, int32, bool)                     { return 0, 0, false }
func isCancel(fdcall.ABI, int32) bool                                           { return false }
func (e *engine) landed(listener.Notification)                                  {}
func (e *engine) cancels(listener.Notification)                                 {}
func (e *engine) enforce(listener.Notification, fdcall.ABI, *fdcall.Call) error { return errImpossible }

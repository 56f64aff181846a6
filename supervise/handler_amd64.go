package supervise

import (
	"errors"
	"fmt"

	"github.com/seed-055cd0c8/indirect/fdcall"
	"github.com/seed-055cd0c8/indirect/internal/listener"
	"github.com/seed-055cd0c8/indirect/internal/tracee"
)

// Attached is a thread that we hold, in front of its call or behind it.
type Attached struct {
	TID       int
	Registers tracee.Regs // in front of the call, as the program set them
	mem       *tracee.Memory
}

// ReadAt reads the program's memory, as [io.ReaderAt].
func (a *Attached) ReadAt(p []byte, address int64) (int, error) {
	if err := a.mem.Read(uint64(address), p); err != nil {
		return 0, err
	}
	return len(p), nil
}

// Write writes to the program's memory. Unlike [Event.Write] it also changes
// what the program itself cannot.
func (a *Attached) Write(address uint64, p []byte) error { return a.mem.Write(address, p) }

// runWatched runs a handler's call in place.
func (e *engine) runWatched(n listener.Notification, abi fdcall.ABI, d Decision) error {
	defer e.blocked.Add(-1)
	if e.blocked.Add(1) > maxBlocked {
		return errCrowded
	}
	m, err := tracee.OpenMemory(int(n.TID))
	if err != nil {
		return err
	}
	defer m.Close()
	t, r, err := e.hold(n)
	if err != nil {
		return err
	}
	a := &Attached{TID: int(n.TID), Registers: r, mem: m}
	if d.before != nil {
		d.before(a)
	}
	err = e.runHeld(n, abi, t, r, d.nr, d.args, func(result uint64) (uint64, error) {
		if d.after != nil {
			result = uint64(d.after(a, int64(result)))
		}
		return result, nil
	})
	if err != nil && !errors.Is(err, tracee.ErrGone) {
		e.complain(fmt.Errorf("run call %d for thread %d: %w", d.nr, n.TID, err))
	}
	return nil // the notification has been answered
}

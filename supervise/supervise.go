// Package supervise serves a tree of processes that run under our seccomp
// filter: it gives their flagless descriptor-creating calls the flags that a
// policy wants.
//
// [New] compiles the filter, [Supervision.Start] starts a supervisor process
// for the filter's listener. The supervisor attaches to a thread only when a
// call traps, once for each program image and call site; from then on the call
// site leads to code inside the process (package image) and costs next to
// nothing. A supervisor that dies is replaced.
package supervise

import (
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"runtime"

	"golang.org/x/sys/unix"

	"github.com/seed-055cd0c8/indirect/fdcall"
	"github.com/seed-055cd0c8/indirect/internal/filter"
	"github.com/seed-055cd0c8/indirect/internal/image"
	"github.com/seed-055cd0c8/indirect/internal/tracee"
	"github.com/seed-055cd0c8/indirect/policy"
)

// Options say what is to be enforced, and how.
type Options struct {
	Policy *policy.Policy
	// NoPatch leaves the programs' code as it is: every flagless call is
	// trapped. It is much slower, and for finding out whether patching is to
	// blame for something.
	NoPatch bool
	// NoSyncWakeUp does without what Linux 6.6 brought.
	NoSyncWakeUp bool
	// Extensions decide about calls before the policy does, in this order.
	Extensions []Extension
	// Log receives what the supervisor has to report, a line each. Nil stands
	// for standard error.
	Log io.Writer
}

// config is what a supervisor process is told.
type config struct {
	Base         uint32
	Magic        uint64
	Policy       *policy.Policy
	NoPatch      bool
	NoSyncWakeUp bool
	Extensions   []Extension
	Files        []int // for each extension, where the supervisor finds its file, or -1
}

// Supervision is one run: a filter, and the supervisor behind it.
type Supervision struct {
	filter []unix.SockFilter
	guard  guard
	ledger *ledger
}

// New compiles the filter for a command that is to run under the options.
func New(o Options) (*Supervision, error) {
	if _, err := image.Landing(); err != nil {
		return nil, fmt.Errorf("indirect cannot inject code on this architecture: %w", err)
	}
	if err := tracee.Permitted(); err != nil {
		return nil, err
	}
	base, err := image.ChooseBase()
	if err != nil {
		return nil, err
	}
	var magic [8]byte
	if _, err := rand.Read(magic[:]); err != nil {
		return nil, fmt.Errorf("choose the run's mark: %w", err)
	}
	s := new(Supervision)
	var traps []filter.Trap
	numbers := []uint32{image.Mapped}
	for _, a := range fdcall.AddedCalls() {
		numbers = append(numbers, uint32(a.Nr))
		traps = append(traps, filter.Trap{Nr: a.Former, When: a.Formerly})
	}
	for _, t := range ownFilters {
		traps = append(traps, filter.Trap(t))
	}
	for _, x := range o.Extensions {
		for _, t := range x.Traps {
			traps = append(traps, filter.Trap(t))
		}
	}
	s.filter, err = filter.Compile(runtime.GOARCH, filter.Rules{
		Table:   fdcall.Linux(),
		Want:    o.Policy.Union,
		Stub:    filter.Range{Lo: uint64(base), Hi: uint64(base) + image.Size},
		Issuer:  filter.Range{Lo: uint64(base), Hi: uint64(base) + image.StubSize},
		Numbers: numbers,
		Traps:   traps,
		Cancel:  true,
	})
	if err != nil {
		return nil, fmt.Errorf("compile the filter: %w", err)
	}
	s.guard.config = config{
		Base: base, Magic: binary.LittleEndian.Uint64(magic[:]),
		Policy: o.Policy, NoPatch: o.NoPatch, NoSyncWakeUp: o.NoSyncWakeUp,
		Extensions: o.Extensions,
	}
	for _, x := range o.Extensions {
		at := -1
		if x.File != nil {
			at = controlFD + 1 + len(s.guard.files)
			s.guard.files = append(s.guard.files, x.File)
		}
		s.guard.config.Files = append(s.guard.config.Files, at)
	}
	if s.guard.log = o.Log; o.Log == nil {
		s.guard.log = os.Stderr
	}
	return s, nil
}

// Filter is the program for seccomp(2) that the command must be started under.
func (s *Supervision) Filter() []unix.SockFilter { return s.filter }

// Issuer returns the addresses, below 4 GiB, from which our code inside the
// programs makes calls for itself: another filter should let them pass.
func (s *Supervision) Issuer() (lo, hi uint64) {
	base := uint64(s.guard.config.Base)
	return base, base + image.StubSize
}

// Start starts the supervisor for the listener that seccomp(2) returned, which
// it takes over. When it returns, trapped calls are served.
func (s *Supervision) Start(listener *os.File) error {
	var err error
	if s.ledger, s.guard.ledger, err = newLedger(); err != nil {
		return err
	}
	s.guard.listener = listener
	return s.guard.start()
}

// Supervisor returns the process ID of the supervisor, or 0 while a dead one
// is being replaced.
func (s *Supervision) Supervisor() int {
	s.guard.mu.Lock()
	defer s.guard.mu.Unlock()
	return s.guard.pid
}

// Close ends our part. Processes that still run stay supervised, until the
// last one ends.
func (s *Supervision) Close() { s.guard.leave() }

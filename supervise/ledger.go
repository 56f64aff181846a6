package supervise

import (
	"fmt"
	"os"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/seed-055cd0c8/indirect/internal/listener"
)

// ledger is the memory that the processes of a run share: the counts of the
// summary, and the notifications that a supervisor has received and not yet
// answered, so that its successor can take them over. It holds only numbers,
// and is written only by us.
type ledger struct {
	lastID   atomic.Uint64 // of the newest notification received
	started  atomic.Uint64 // supervisors
	images   atomic.Uint64 // program images that were given a stub
	programs atomic.Uint64 // processes that made a trapped call

	served  [maxCalls][ways]atomic.Uint64
	refused [maxCalls][reasons]atomic.Uint64
	flight  [maxFlight]flight
}

// flight is a notification under way.
type flight struct {
	state  atomic.Uint32
	tries  atomic.Uint32 // supervisors that have had it in hand
	notice listener.Notification
}

const (
	flightFree    = iota
	flightTaken   // being written
	flightPending // received, not yet answered
)

const (
	maxCalls  = 192 // rows of the table, and the one for calls outside it
	maxFlight = 64  // notifications that workers hold at the same time
)

// way is how a call was served.
type way int

const (
	patched way = iota // a call site was diverted: all its calls are served in process from now on
	once               // one call was sent through the stub
	inPlace            // one call was run where it stands, with changed arguments
	spared             // one call of an exempt program was let through
	ways
)

// reason is why a call was not enforced.
type reason int

const (
	traced     reason = iota // another tracer holds the thread
	forbidden                // the kernel does not let us attach
	unseen                   // the thread is outside our PID namespace
	impossible               // no way to give the call its flags
	gap                      // the supervisor had died with the call in hand
	crowded                  // too many blocked calls at once
	failed                   // an unexpected error of ours
	reasons
)

var reasonText = [reasons]string{
	traced:     "another tracer (strace, gdb) holds the thread",
	forbidden:  "the kernel does not let us attach to the thread",
	unseen:     "the thread is outside our PID namespace",
	impossible: "the call offers no way to ask for the flags",
	gap:        "the supervisor died with the call in hand",
	crowded:    "too many calls were blocked at the same time",
	failed:     "an unexpected error",
}

const ledgerSize = int(unsafe.Sizeof(ledger{}))

// newLedger makes a ledger in a file that other processes can map.
func newLedger() (*ledger, *os.File, error) {
	fd, err := unix.MemfdCreate("indirect-ledger", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, nil, fmt.Errorf("create the supervisor's shared memory: %w", err)
	}
	f := os.NewFile(uintptr(fd), "ledger")
	if err := f.Truncate(int64(ledgerSize)); err != nil {
		f.Close()
		return nil, nil, fmt.Errorf("size the supervisor's shared memory: %w", err)
	}
	l, err := openLedger(f)
	if err != nil {
		f.Close()
		return nil, nil, err
	}
	return l, f, nil
}

func openLedger(f *os.File) (*ledger, error) {
	b, err := unix.Mmap(int(f.Fd()), 0, ledgerSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("map the supervisor's shared memory: %w", err)
	}
	return (*ledger)(unsafe.Pointer(&b[0])), nil
}

// take records that n was received. Without room it is not recorded: then a
// successor can only let the call through.
func (l *ledger) take(n listener.Notification) {
	l.lastID.Store(n.ID)
	for i := range l.flight {
		f := &l.flight[i]
		if f.state.CompareAndSwap(flightFree, flightTaken) {
			f.notice = n
			f.tries.Store(1)
			f.state.Store(flightPending)
			return
		}
	}
}

// drop records that the notification id is answered.
func (l *ledger) drop(id uint64) {
	for i := range l.flight {
		f := &l.flight[i]
		if f.state.Load() == flightPending && f.notice.ID == id {
			f.state.Store(flightFree)
			return
		}
	}
}

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
	started  atomic.Uint64 // supervisors
	images   atomic.Uint64 // program images that were given a stub
	programs atomic.Uint64 // processes that made a trapped call

	served  [maxCalls][ways]atomic.Uint64
	refused [maxCalls][reasons]atomic.Uint64
	flight  [maxFlight]flight
}

// flight is a notification under way. The kernel itself writes it here, so
// that nothing is lost when the supervisor dies as soon as it has received it.
type flight struct {
	owner  atomic.Int32  // the supervisor whose worker has it, or 0
	tries  atomic.Uint32 // supervisors that have had this notification in hand
	notice listener.Notification
	share  share
	held   held
}

const (
	maxCalls  = 192            // rows of the table, and the one for calls outside it
	maxFlight = 2 * maxWorkers // one for each worker, and one for each of a supervisor that died
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

// counting counts what act is about to do, and takes it back if that fails. An
// answer lets the program go on, which may end, and have the summary of its run
// printed, before the answering thread gets to run again.
func counting(counter *atomic.Uint64, act func() error) error {
	counter.Add(1)
	err := act()
	if err != nil {
		counter.Add(^uint64(0))
	}
	return err
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

// take finds room for a worker's notifications.
func (l *ledger) take() *flight {
	us := int32(os.Getpid())
	for i := range l.flight {
		if f := &l.flight[i]; f.owner.CompareAndSwap(0, us) {
			f.notice = listener.Notification{}
			return f
		}
	}
	return nil
}

// of returns where the notification with an ID is.
func (l *ledger) of(id uint64) *flight {
	us := int32(os.Getpid())
	for i := range l.flight {
		if f := &l.flight[i]; f.owner.Load() == us && f.notice.ID == id {
			return f
		}
	}
	return nil
}

// adopt takes it over from a supervisor before us, which may live on for as
// long as calls that it runs in place block.
func (f *flight) adopt() { f.owner.Store(int32(os.Getpid())) }

// drop gives it back, unless a successor has it.
func (f *flight) drop() {
	if f.owner.Load() == int32(os.Getpid()) {
		f.notice = listener.Notification{}
		f.owner.Store(0)
	}
}

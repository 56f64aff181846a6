package supervise

import (
	"os"
	"testing"

	"github.com/seed-055cd0c8/indirect/fdcall"
)

func TestLedgerIsShared(t *testing.T) {
	ours, file, err := newLedger()
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	theirs, err := openLedger(file)
	if err != nil {
		t.Fatal(err)
	}
	ours.served[3][once].Add(2)
	f := ours.take()
	f.notice.ID = 4711
	if theirs.served[3][once].Load() != 2 || theirs.flight[0].notice.ID != 4711 || theirs.flight[0].owner.Load() != int32(os.Getpid()) {
		t.Error("a second mapping shows something else")
	}
}

func TestLedgerHasRoomForEveryWorker(t *testing.T) {
	l := new(ledger)
	for i := range maxFlight {
		if l.take() == nil {
			t.Fatalf("no room for worker %d", i)
		}
	}
	if l.take() != nil {
		t.Error("room for more workers than there are")
	}
	f := &l.flight[17]
	f.notice.ID = 1
	f.drop()
	if got := l.take(); got != f || got.notice.ID != 0 {
		t.Error("a place that was given back is not found, or not clean")
	}
}

func TestLedgerHasARowForEveryCall(t *testing.T) {
	if n := len(fdcall.Linux().All()); n >= maxCalls {
		t.Errorf("%d calls, the ledger has %d rows", n, maxCalls)
	}
	for r := range reasons {
		if reasonText[r] == "" {
			t.Errorf("reason %d has no text", r)
		}
	}
}

// A successor that has taken a notification over keeps it, whatever a worker
// of its predecessor does in the end.
func TestLedgerAdopted(t *testing.T) {
	l := new(ledger)
	f := l.take()
	f.notice.ID = 3
	f.owner.Store(1) // another process, which is alive
	f.drop()
	if f.owner.Load() != 1 || f.notice.ID != 3 {
		t.Error("dropped although another supervisor has it")
	}
	f.adopt()
	f.drop()
	if f.owner.Load() != 0 || f.notice.ID != 0 {
		t.Error("not dropped")
	}
}

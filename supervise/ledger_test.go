package supervise

import (
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
	if theirs.served[3][once].Load() != 2 || theirs.flight[0].notice.ID != 4711 || !theirs.flight[0].taken.Load() {
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

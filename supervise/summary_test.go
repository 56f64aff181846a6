package supervise

import (
	"bytes"
	"encoding/json"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/seed-055cd0c8/indirect/fdcall"
)

// supervised returns a run whose ledger holds some counts.
func supervised(t *testing.T) *Supervision {
	t.Helper()
	l := new(ledger)
	calls := fdcall.Linux().All()
	for i := range calls {
		switch calls[i].ID() {
		case "openat":
			l.served[i][patched].Add(3)
			l.served[i][spared].Add(5)
			l.refused[i][traced].Add(2)
		case "fcntl F_DUPFD":
			l.served[i][once].Add(7)
		}
	}
	l.refused[maxCalls-1][gap].Add(1)
	l.served[maxCalls-1][patched].Add(40)
	l.started.Add(2)
	l.images.Add(4)
	l.programs.Add(6)
	return &Supervision{ledger: l}
}

func TestSummary(t *testing.T) {
	got := supervised(t).Summary()
	want := Summary{
		Version: 1, Processes: 6, Images: 4, Supervisors: 2, Known: 40,
		Calls: []CallSummary{{Call: "openat", Patched: 3, Spared: 5}, {Call: "fcntl F_DUPFD", Once: 7}},
		NotEnforced: []Unenforced{
			{Call: "openat", Count: 2, Why: reasonText[traced]},
			{Call: "unknown", Count: 1, Why: reasonText[gap]},
		},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("summary (-want +got):\n%s", diff)
	}
	if got.Missed() != 3 {
		t.Errorf("missed %d calls, want 3", got.Missed())
	}
}

func TestSummaryText(t *testing.T) {
	s := supervised(t).Summary()
	var b bytes.Buffer
	if err := s.WriteText(&b); err != nil {
		t.Fatal(err)
	}
	want := `processes seen: 6, program images extended: 4, supervisors replaced: 1, call sites patched in advance: 40
call           patched sites  run once  in place  spared
openat         3              0         0         5
fcntl F_DUPFD  0              7         0         0
not enforced: 2 of openat: another tracer (strace, gdb) holds the thread
not enforced: 1 of unknown: the supervisor died with the call in hand
`
	if diff := cmp.Diff(want, b.String()); diff != "" {
		t.Errorf("text (-want +got):\n%s", diff)
	}
}

func TestSummaryJSON(t *testing.T) {
	s := supervised(t).Summary()
	var b bytes.Buffer
	if err := s.WriteJSON(&b); err != nil {
		t.Fatal(err)
	}
	var back Summary
	if err := json.Unmarshal(b.Bytes(), &back); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(s, back); diff != "" {
		t.Errorf("after JSON (-before +after):\n%s", diff)
	}
}

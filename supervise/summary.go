package supervise

import (
	"encoding/json"
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/seed-055cd0c8/indirect/fdcall"
)

// Summary tells what a run did. Calls that are served inside a process after
// its call site was patched are not counted one by one: nothing outside the
// process sees them.
type Summary struct {
	Version     int           `json:"version"`     // 1
	Processes   uint64        `json:"processes"`   // that made a trapped call
	Images      uint64        `json:"images"`      // program images that were given a stub
	Supervisors uint64        `json:"supervisors"` // 1, and one more for each that died
	Known       uint64        `json:"known_sites"` // call sites patched in advance, because they had trapped in another process
	Calls       []CallSummary `json:"calls"`
	NotEnforced []Unenforced  `json:"not_enforced"`
}

// CallSummary tells how a call was extended.
type CallSummary struct {
	Call    string `json:"call"`
	Patched uint64 `json:"patched_sites"` // call sites served in process from then on
	Once    uint64 `json:"once"`          // calls sent through the stub one by one
	InPlace uint64 `json:"in_place"`      // calls run with changed arguments
	Spared  uint64 `json:"spared"`        // calls of exempt programs
}

// Unenforced counts calls that ran without their flags.
type Unenforced struct {
	Call  string `json:"call"`
	Count uint64 `json:"count"`
	Why   string `json:"why"`
}

// Summary reads the counts so far.
func (s *Supervision) Summary() Summary {
	l := s.ledger
	sum := Summary{
		Version: 1, Calls: []CallSummary{}, NotEnforced: []Unenforced{},
		Processes: l.programs.Load(), Images: l.images.Load(), Supervisors: l.started.Load(),
		Known: l.served[maxCalls-1][patched].Load(),
	}
	names := make([]string, maxCalls)
	rows := fdcall.Linux().All()
	for i := range rows {
		names[i] = rows[i].ID()
	}
	for i, a := range fdcall.AddedCalls() {
		names[len(rows)+i] = a.Name
	}
	names[maxCalls-1] = "unknown"
	for i, name := range names {
		c := CallSummary{Call: name}
		if i != maxCalls-1 {
			c.Patched = l.served[i][patched].Load()
		}
		c.Once, c.InPlace, c.Spared = l.served[i][once].Load(), l.served[i][inPlace].Load(), l.served[i][spared].Load()
		if c.Patched+c.Once+c.InPlace+c.Spared > 0 {
			sum.Calls = append(sum.Calls, c)
		}
		for why := range reasons {
			if n := l.refused[i][why].Load(); n > 0 {
				sum.NotEnforced = append(sum.NotEnforced, Unenforced{Call: name, Count: n, Why: reasonText[why]})
			}
		}
	}
	return sum
}

// Missed is how many calls ran without their flags.
func (s *Summary) Missed() (n uint64) {
	for _, u := range s.NotEnforced {
		n += u.Count
	}
	return n
}

// WriteText prints the summary for people.
func (s *Summary) WriteText(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(t, "processes seen: %d, program images extended: %d", s.Processes, s.Images)
	if s.Supervisors > 1 {
		fmt.Fprintf(t, ", supervisors replaced: %d", s.Supervisors-1)
	}
	if s.Known > 0 {
		fmt.Fprintf(t, ", call sites patched in advance: %d", s.Known)
	}
	fmt.Fprintln(t)
	if len(s.Calls) > 0 {
		fmt.Fprintln(t, "call\tpatched sites\trun once\tin place\tspared")
	}
	for _, c := range s.Calls {
		fmt.Fprintf(t, "%s\t%d\t%d\t%d\t%d\n", c.Call, c.Patched, c.Once, c.InPlace, c.Spared)
	}
	for _, u := range s.NotEnforced {
		fmt.Fprintf(t, "not enforced: %d of %s: %s\n", u.Count, u.Call, u.Why)
	}
	if err := t.Flush(); err != nil {
		return fmt.Errorf("write the summary: %w", err)
	}
	return nil
}

// WriteJSON prints the summary for programs.
func (s *Summary) WriteJSON(w io.Writer) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	if err := e.Encode(s); err != nil {
		return fmt.Errorf("write the summary: %w", err)
	}
	return nil
}

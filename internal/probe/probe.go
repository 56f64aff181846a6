// Package probe finds out what the running kernel has, in this container and
// under its seccomp profile, by doing it: version numbers say neither what was
// configured out, nor what was ported back, nor what a filter forbids.
//
// The calls are made by a process of their own (see [Main]), which takes
// whatever it makes, opens and confines itself to along when it ends. A call
// that kills it costs that one answer.
package probe

import (
	"fmt"
	"slices"
	"strings"

	"github.com/seed-055cd0c8/indirect/fdcall"
	"github.com/seed-055cd0c8/indirect/syscalls"
)

// State says whether a call is there.
type State string

// The states.
const (
	Present State = "present"
	Absent  State = "absent"  // ENOSYS, or an operation that the kernel does not know
	Blocked State = "blocked" // a seccomp filter answers in the kernel's place
	Denied  State = "denied"  // it is there, but we lack the right to use it
	Unknown State = "unknown" // it could not be tried
)

// Flag says what becomes of a flag.
type Flag string

// The answers to flags.
const (
	None     Flag = "-"      // the call has no such flag
	Always   Flag = "always" // the descriptor is like that without asking
	Works    Flag = "works"
	Refused  Flag = "refused" // the call fails for its sake
	Ignored  Flag = "ignored" // the call succeeds without an effect of it
	NotTried Flag = "?"       // the call could not be made
)

// Finding is what was found out about one call.
type Finding struct {
	Name     string `json:"name"` // "pipe2", "fcntl F_DUPFD_CLOEXEC"
	State    State  `json:"state"`
	Cloexec  Flag   `json:"cloexec"`
	Nonblock Flag   `json:"nonblock"`
	Detail   string `json:"detail,omitempty"` // why, in words
}

// Mechanism is a means by which "indirect run" works, or others may.
type Mechanism struct {
	Name   string `json:"name"`
	Works  bool   `json:"works"`
	Detail string `json:"detail,omitempty"`
}

// Report is everything that was found out.
type Report struct {
	Kernel     string      `json:"kernel"`   // as uname tells
	Filtered   bool        `json:"filtered"` // we run under a seccomp filter
	Calls      []Finding   `json:"calls"`
	Mechanisms []Mechanism `json:"mechanisms,omitempty"`
	// Run says what "indirect run" does here, a sentence each.
	Run []string `json:"run,omitempty"`
}

// Missing returns the names of the calls that are not there or cannot be used.
func (r *Report) Missing(names []string) []string {
	var missing []string
	for _, f := range r.Calls {
		if f.State != Present && slices.Contains(names, f.Name) {
			missing = append(missing, f.Name)
		}
	}
	return missing
}

// subject is a call to be tried: a row of the table, or a bare number.
type subject struct {
	name string
	nr   int32
	row  *fdcall.Call // nil for a call that creates no descriptors
}

// subjects returns the calls with the given names, or all those of the table.
// An unknown name is an error that says which known ones are like it.
func subjects(abi fdcall.ABI, names []string) ([]subject, error) {
	var rows, others []subject
	var known []string
	table := fdcall.Linux()
	for i := range table.All() {
		row := &table.All()[i]
		if n := row.Nr[abi]; n != fdcall.None {
			rows = append(rows, subject{row.ID(), n, row})
			known = append(known, row.ID())
		}
	}
	for _, c := range syscalls.Linux() {
		if n := c.Nr[abi]; n != fdcall.None && table.ByID(c.Name) == nil {
			others = append(others, subject{name: c.Name, nr: n})
			known = append(known, c.Name)
		}
	}
	if len(names) == 0 {
		return rows, nil
	}
	var chosen []subject
	for _, name := range names {
		found := false
		for _, s := range slices.Concat(rows, others) {
			if s.name == name && !slices.Contains(chosen, s) {
				chosen = append(chosen, s)
			}
			found = found || s.name == name
		}
		if found {
			continue
		}
		if near := fdcall.Nearest(name, known); len(near) > 0 {
			return nil, fmt.Errorf("no system call %q on %s; did you mean %s?", name, abi, strings.Join(near, ", "))
		}
		return nil, fmt.Errorf("no system call %q on %s, and none with a name like it", name, abi)
	}
	return chosen, nil
}

package audit

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// Kind says what is the matter with a descriptor.
type Kind string

// The kinds, in the order of reports.
const (
	// KindLeak is a descriptor that was created without close-on-exec, and that
	// another program received.
	KindLeak Kind = "leak"
	// KindRace is one that was made close-on-exec only after its creation: a
	// program that was executed in between would have received it.
	KindRace Kind = "race"
	// KindLatent is one that was created without close-on-exec and never closed,
	// in a process that executed no program.
	KindLatent Kind = "latent"
	// KindDeliberate is one that a program received, and that was meant for it.
	KindDeliberate Kind = "deliberate"
	// KindInherited is one that a program received, and that was there before the
	// audit, or whose creation is not known for certain.
	KindInherited Kind = "inherited"
)

var kinds = []Kind{KindLeak, KindRace, KindLatent, KindDeliberate, KindInherited}

// Kinds returns all kinds, in the order of reports.
func Kinds() []Kind { return slices.Clone(kinds) }

// Usual are the kinds that are shown if the user does not say otherwise.
func Usual() []Kind { return []Kind{KindLeak, KindRace} }

// Plural is the kind's name for several findings: "leaks", "races", and the
// other kinds' names as they are.
func (k Kind) Plural() string {
	if k == KindLeak || k == KindRace {
		return string(k) + "s"
	}
	return string(k)
}

// ParseKinds reads kinds with commas between them, in the singular or the
// plural. The error names the known ones.
func ParseKinds(s string) ([]Kind, error) {
	var chosen []Kind
	for word := range strings.SplitSeq(s, ",") {
		i := slices.IndexFunc(kinds, func(k Kind) bool { return word == string(k) || word == k.Plural() })
		if i < 0 {
			var known []string
			for _, k := range kinds {
				known = append(known, k.Plural())
			}
			return nil, fmt.Errorf("unknown kind of finding %q; the known ones are %s", word, strings.Join(known, ", "))
		}
		if !slices.Contains(chosen, kinds[i]) {
			chosen = append(chosen, kinds[i])
		}
	}
	return chosen, nil
}

// Finding is one or more descriptors that were created in the same place and
// reached the same program. All but Count is about the first of them.
type Finding struct {
	Kind  Kind
	Count int
	// Reason says why a descriptor counts as KindDeliberate or KindInherited; it is
	// empty for the other kinds.
	Reason string

	Creation Creation // zero but for FD and Object if nothing is known of it
	Creator  Program  // that made the call; zero if unknown
	Stack    []Frame  // of the creation

	Receipt *Receipt // the exec that received it; nil for KindRace and KindLatent
	Window  *Window  // nil for all but KindRace
}

// Receipt is the execution of a program that received a descriptor.
type Receipt struct {
	Program Program // the new one
	Before  Program // the one that executed it
	Time    int64   // nanoseconds of CLOCK_MONOTONIC
	Stack   []Frame // of the execve
}

// Window is the time for which a descriptor was inheritable by accident.
type Window struct {
	Length  time.Duration
	Threads bool    // the process had more than one thread
	Forked  bool    // another thread forked in between: its child had the descriptor
	Stack   []Frame // of the call that set the flag
}

// Report is what an audit found.
type Report struct {
	Command  []string
	Findings []Finding // by kind, in the order of the kinds, and then by time; harmless races last
	// Programs are those that ran, in the order of their beginning.
	Programs []Run
	// Counts are descriptors, by kind, those in Findings and those left out.
	Counts map[Kind]int
	// Suppressed counts descriptors by the name of the suppression; they are
	// in neither Findings nor Counts.
	Suppressed map[string]int
	// Dropped counts descriptors that are in Counts but not in Findings,
	// because there were too many different ones.
	Dropped int
	// Lost counts events that the recorder could not keep, or that referred to
	// others that it had not kept. The report is incomplete if it is not 0.
	Lost uint64
}

// Run is a program with the time for which it ran.
type Run struct {
	Program
	Ended int64 // 0: not known
}

// Of returns the findings of the given kinds.
func (r *Report) Of(chosen ...Kind) []Finding {
	var some []Finding
	for i := range r.Findings {
		if slices.Contains(chosen, r.Findings[i].Kind) {
			some = append(some, r.Findings[i])
		}
	}
	return some
}

// Leaks returns the findings of kind [KindLeak].
func (r *Report) Leaks() []Finding { return r.Of(KindLeak) }

// Races returns the findings of kind [KindRace].
func (r *Report) Races() []Finding { return r.Of(KindRace) }

// Harmless reports whether f is a race that nothing could take part in: the
// process had one thread, which did not fork in between.
func (f *Finding) Harmless() bool {
	return f.Kind == KindRace && !f.Window.Threads && !f.Window.Forked
}

// Site is where the descriptor was created, as one line: the innermost
// function of the program itself, and not of a library, if that is known.
func (f *Finding) Site() string {
	if frame := f.SiteFrame(); frame != nil {
		return frame.String()
	}
	return "an unknown place"
}

// SiteFrame is the frame that [Finding.Site] describes, nil if there is none.
func (f *Finding) SiteFrame() *Frame {
	// A frame of an interpreted program has a source, and is in no module.
	if i := slices.IndexFunc(f.Stack, func(frame Frame) bool { return frame.File != "" && frame.Module == "" }); i >= 0 {
		return &f.Stack[i]
	}
	own := func(frame Frame) bool { return frame.Module != "" && frame.Module == f.Creator.Executable }
	if i := slices.IndexFunc(f.Stack, own); i >= 0 {
		return &f.Stack[i]
	}
	if i := slices.IndexFunc(f.Stack, func(frame Frame) bool { return frame.File != "" }); i >= 0 {
		return &f.Stack[i]
	}
	if len(f.Stack) > 0 {
		return &f.Stack[0]
	}
	return nil
}

// String is the function and its source's line, or the module and the offset,
// as far as they are known. It is not fit for a terminal: see audit/report.
func (f *Frame) String() string {
	name := f.Function
	if name == "" {
		name = "an unknown function"
	}
	switch {
	case f.File != "" && f.Line > 0:
		return fmt.Sprintf("%s (%s:%d)", name, f.File, f.Line)
	case f.File != "":
		return fmt.Sprintf("%s (%s)", name, f.File)
	case f.Module == "":
		return fmt.Sprintf("%s (address %#x)", name, f.Offset)
	case f.BuildID != "" && f.Function == "":
		return fmt.Sprintf("%s (in %s+%#x, build ID %s)", name, f.Module, f.Offset, f.BuildID)
	}
	return fmt.Sprintf("%s (in %s+%#x)", name, f.Module, f.Offset)
}

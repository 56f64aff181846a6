package report

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/seed-055cd0c8/indirect/audit"
)

// Text prints a report for people: a block for each finding, and a summary.
func Text(w io.Writer, r *audit.Report, o Options) error {
	t := &text{color: o.Color}
	findings := o.findings(r)
	for i := range findings {
		t.finding(&findings[i])
	}
	t.summary(r, &o)
	_, err := io.WriteString(w, t.String())
	return written("text", err)
}

// text collects the report's lines.
type text struct {
	strings.Builder
	color bool
	mark  string // in front of each line
}

func (t *text) line(format string, args ...any) {
	t.WriteString(strings.TrimRight(t.mark+fmt.Sprintf(format, args...), " ") + "\n")
}

// Colours of a terminal (ECMA-48, SGR).
const (
	bold   = "\x1b[1m"
	red    = "\x1b[1;31m"
	yellow = "\x1b[1;33m"
	plain  = "\x1b[0m"
)

func (t *text) colored(color, s string) string {
	if !t.color {
		return s
	}
	return color + s + plain
}

func (t *text) finding(f *audit.Finding) {
	t.mark = fmt.Sprintf("==%d== ", f.Creator.PID)
	color := bold
	switch {
	case f.Kind == audit.KindLeak:
		color = red
	case f.Kind == audit.KindRace && !f.Harmless():
		color = yellow
	}
	for i, l := range describe(f) {
		if i == 0 {
			l.Text = t.colored(color, l.Text)
		}
		t.line("%s%s", strings.Repeat("   ", l.Depth), l.Text)
	}
	t.line("")
}

// described is a line about a finding.
type described struct {
	Depth int
	Text  string
}

// describe tells everything about a finding.
func describe(f *audit.Finding) []described {
	lines := []described{{0, strings.ToUpper(string(f.Kind)) + ": " + headline(f) + times(f.Count)}}
	add := func(depth int, format string, args ...any) {
		lines = append(lines, described{depth, fmt.Sprintf(format, args...)})
	}
	frames := func(depth int, stack []audit.Frame) {
		for i := range stack {
			word := "by"
			if i == 0 {
				word = "at"
			}
			add(depth, "%s %s", word, frame(&stack[i]))
		}
	}
	frames(1, f.Stack)
	add(0, "it is %s", object(&f.Creation.Object))
	switch {
	case f.Creation.Origin == audit.Inherited || f.Creation.ID == 0:
	default:
		add(0, "created by %s", call(&f.Creation))
		add(0, "in %s", process(&f.Creator))
	}
	if f.Window != nil && len(f.Window.Stack) > 0 {
		add(0, "made close-on-exec")
		frames(1, f.Window.Stack)
	}
	if f.Receipt != nil {
		add(0, "received by %s", process(&f.Receipt.Program))
		if by := &f.Receipt.Before; by.ID != 0 && by.Executable != f.Creator.Executable {
			add(0, "executed by %s: %s", program(by), commandLine(by.Argv))
		} else if len(f.Receipt.Stack) > 0 {
			add(0, "executed")
		}
		frames(1, f.Receipt.Stack)
	}
	return lines
}

func (t *text) summary(r *audit.Report, o *Options) {
	t.mark = "==== "
	t.line("Descriptors: %s", counts(r))
	for _, name := range slices.Sorted(maps.Keys(r.Suppressed)) {
		t.line("Suppressed: %d by %q", r.Suppressed[name], printable(name))
	}
	var hidden []string
	for _, k := range audit.Kinds() {
		if r.Counts[k] > 0 && !slices.Contains(o.shown(), k) {
			hidden = append(hidden, k.Plural())
		}
	}
	if len(hidden) > 0 {
		t.line("Not shown: %s (see --show)", strings.Join(hidden, ", "))
	}
	for _, remark := range incomplete(r) {
		t.line("%s", remark)
	}
}

// counts tells the number of descriptors of each kind.
func counts(r *audit.Report) string {
	var parts []string
	for _, k := range audit.Kinds() {
		parts = append(parts, count(r.Counts[k], k))
	}
	return strings.Join(parts, ", ")
}

// incomplete says what the report lacks.
func incomplete(r *audit.Report) (remarks []string) {
	if r.Dropped > 0 {
		remarks = append(remarks, fmt.Sprintf("Too many different findings; descriptors counted, but not shown: %d", r.Dropped))
	}
	if r.Lost > 0 {
		remarks = append(remarks, fmt.Sprintf("The report is incomplete; events lost: %d", r.Lost))
	}
	return remarks
}

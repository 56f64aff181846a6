package report

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/seed-055cd0c8/indirect/audit"
)

// Version is the version of the JSON report. It changes when a field changes
// its meaning or goes.
const Version = 1

// Document is the JSON report. docs/audit-report.schema.json is its schema.
type Document struct {
	Version    int                `json:"version"`
	Command    []string           `json:"command"`
	Counts     map[audit.Kind]int `json:"counts"`     // descriptors, of every kind
	Suppressed map[string]int     `json:"suppressed"` // descriptors, by the suppression's name
	Dropped    int                `json:"dropped"`    // descriptors that are counted, but are not among the findings
	Lost       uint64             `json:"lost"`       // events; the report is incomplete if it is not 0
	Findings   []Finding          `json:"findings"`
}

// Finding is an [audit.Finding] as JSON. Fields that do not apply are left out.
type Finding struct {
	Kind     audit.Kind `json:"kind"`
	Count    int        `json:"count"`
	Message  string     `json:"message"`
	Reason   string     `json:"reason,omitempty"`
	Created  Creation   `json:"created"`
	Received *Receipt   `json:"received,omitempty"`
	Window   *Window    `json:"window,omitempty"`
}

// Creation is where a descriptor was made inheritable.
type Creation struct {
	FD        int          `json:"descriptor"`
	Object    Object       `json:"object"`
	Origin    audit.Origin `json:"origin,omitempty"`
	Call      string       `json:"call,omitempty"`
	Arguments []Argument   `json:"arguments,omitempty"`
	Process   *Process     `json:"process,omitempty"`
	Thread    int          `json:"thread,omitempty"`
	Time      int64        `json:"time,omitempty"` // nanoseconds of CLOCK_MONOTONIC
	Stack     []Frame      `json:"stack"`
}

// Object is what a descriptor refers to.
type Object struct {
	Link   string `json:"link"`
	Inode  uint64 `json:"inode,omitempty"`
	Detail string `json:"detail,omitempty"`
}

// Argument is an argument of a call.
type Argument struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// Process is a process and the program that it ran.
type Process struct {
	PID        int      `json:"pid"`
	Executable string   `json:"executable"`
	Argv       []string `json:"argv"`
}

// Receipt is the execution of a program that received a descriptor.
type Receipt struct {
	Process    *Process `json:"process"`
	ExecutedBy *Process `json:"executed_by,omitempty"`
	Time       int64    `json:"time"` // nanoseconds of CLOCK_MONOTONIC
	Stack      []Frame  `json:"stack"`
}

// Window is the time for which a descriptor was inheritable by accident.
type Window struct {
	Microseconds float64 `json:"microseconds"`
	Threads      bool    `json:"threads"`
	Forked       bool    `json:"forked"`
	Stack        []Frame `json:"stack"`
}

// Frame is a function of a stack, the innermost first.
type Frame struct {
	Function string `json:"function,omitempty"`
	File     string `json:"file,omitempty"`
	Line     int    `json:"line,omitempty"`
	Module   string `json:"module,omitempty"`
	Offset   uint64 `json:"offset"`
	BuildID  string `json:"build_id,omitempty"`
	Inlined  bool   `json:"inlined,omitempty"`
	Guessed  bool   `json:"guessed,omitempty"`
}

// JSON prints a report as a [Document].
func JSON(w io.Writer, r *audit.Report, o Options) error {
	d := Document{
		Version: Version, Command: list(r.Command), Counts: make(map[audit.Kind]int), Suppressed: make(map[string]int),
		Dropped: r.Dropped, Lost: r.Lost, Findings: []Finding{},
	}
	for _, k := range audit.Kinds() {
		d.Counts[k] = r.Counts[k]
	}
	for name, n := range r.Suppressed {
		d.Suppressed[name] = n
	}
	findings := o.findings(r)
	for i := range findings {
		d.Findings = append(d.Findings, finding(&findings[i]))
	}
	return encode(w, "JSON", d)
}

func finding(f *audit.Finding) Finding {
	c := &f.Creation
	j := Finding{
		Kind: f.Kind, Count: f.Count, Message: headline(f), Reason: f.Reason,
		Created: Creation{
			FD: c.FD, Object: Object{c.Object.Link, c.Object.Ino, c.Object.Detail}, Origin: c.Origin, Call: c.Call,
			Process: jsonProcess(&f.Creator), Thread: c.TID, Time: c.Time, Stack: frames(f.Stack),
		},
	}
	for _, a := range c.Args {
		j.Created.Arguments = append(j.Created.Arguments, Argument(a))
	}
	if r := f.Receipt; r != nil {
		p := jsonProcess(&r.Program)
		if p == nil {
			p = &Process{Argv: []string{}}
		}
		j.Received = &Receipt{Process: p, ExecutedBy: jsonProcess(&r.Before), Time: r.Time, Stack: frames(r.Stack)}
	}
	if v := f.Window; v != nil {
		j.Window = &Window{float64(v.Length.Nanoseconds()) / 1000, v.Threads, v.Forked, frames(v.Stack)}
	}
	return j
}

// jsonProcess is nil if nothing is known of p.
func jsonProcess(p *audit.Program) *Process {
	if p.ID == 0 {
		return nil
	}
	return &Process{p.PID, p.Executable, list(p.Argv)}
}

func frames(stack []audit.Frame) []Frame {
	all := make([]Frame, len(stack))
	for i, f := range stack {
		all[i] = Frame(f)
	}
	return all
}

// list is never null in JSON.
func list(s []string) []string {
	if s == nil {
		return []string{}
	}
	return s
}

func encode(w io.Writer, format string, v any) error {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetIndent("", "  ")
	if err := e.Encode(v); err != nil {
		return written(format, err)
	}
	_, err := w.Write(onlyPrintable(b.Bytes()))
	return written(format, err)
}

// onlyPrintable escapes in JSON what could control a terminal, beyond what JSON
// itself demands: such characters occur within strings only.
func onlyPrintable(b []byte) []byte {
	var out []byte
	for len(b) > 0 {
		r, size := utf8.DecodeRune(b)
		switch {
		case r == '\n' || unicode.IsPrint(r):
			out = append(out, b[:size]...)
		case r > 0xffff:
			hi, lo := utf16.EncodeRune(r)
			out = fmt.Appendf(out, `\u%04x\u%04x`, hi, lo)
		default:
			out = fmt.Appendf(out, `\u%04x`, r)
		}
		b = b[size:]
	}
	return out
}

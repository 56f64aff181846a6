// Package report prints what an audit found: as text for people, as JSON and
// SARIF for programs, and as a page for a browser.
//
// Names, arguments and paths come from the programs that were watched. Nothing
// in them can control a terminal, end a string or become markup.
package report

import (
	"fmt"
	"io"

	"github.com/seed-055cd0c8/indirect/audit"
)

// Options say how to print a report.
type Options struct {
	// Show are the kinds of findings to print, [audit.Usual] if it is empty.
	// Counts are of all kinds.
	Show []audit.Kind
	// Color lets Text use the colours of a terminal.
	Color bool
	// Root is the directory, an absolute path, below which SARIF names source
	// files by relative paths, as viewers want it. It may be empty.
	Root string
}

func (o *Options) findings(r *audit.Report) []audit.Finding { return r.Of(o.shown()...) }

func (o *Options) shown() []audit.Kind {
	if len(o.Show) == 0 {
		return audit.Usual()
	}
	return o.Show
}

// Writer prints a report. Its error is that of w.
type Writer func(w io.Writer, r *audit.Report, o Options) error

// Formats are the formats by name, in the order for a help text.
func Formats() []string { return []string{"text", "json", "sarif", "html"} }

// Format returns what prints the named format. The error names the known ones.
func Format(name string) (Writer, error) {
	switch name {
	case "text":
		return Text, nil
	case "json":
		return JSON, nil
	case "sarif":
		return SARIF, nil
	case "html":
		return HTML, nil
	}
	return nil, fmt.Errorf("unknown format %q; the known ones are text, json, sarif and html", name)
}

func written(format string, err error) error {
	if err != nil {
		return fmt.Errorf("write the %s report: %w", format, err)
	}
	return nil
}

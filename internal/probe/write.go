package probe

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
)

// formats are the ways to write a report.
var formats = []struct {
	name  string
	write func(io.Writer, *Report) error
}{
	{"table", writeTable},
	{"json", writeJSON},
	{"markdown", writeMarkdown},
}

// Formats returns the names of the formats that [Report.Write] knows, the
// usual one first.
func Formats() []string {
	var names []string
	for _, f := range formats {
		names = append(names, f.name)
	}
	return names
}

// CheckFormat returns an error that names the known formats if format is none of them.
func CheckFormat(format string) error {
	for _, f := range formats {
		if f.name == format {
			return nil
		}
	}
	return fmt.Errorf("no format %q; the formats are %s", format, strings.Join(Formats(), ", "))
}

// Write writes the report in the named format. An unknown format is an error
// that names the known ones.
func (r *Report) Write(w io.Writer, format string) error {
	for _, f := range formats {
		if f.name == format {
			return f.write(w, r)
		}
	}
	return CheckFormat(format)
}

func writeJSON(w io.Writer, r *Report) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(r)
}

// headline says where the report is from.
func (r *Report) headline() string {
	if r.Filtered {
		return "Linux " + r.Kernel + ", under a seccomp filter"
	}
	return "Linux " + r.Kernel
}

// rows returns the tables of the report: headings, then lines.
func (r *Report) tables() [][][]string {
	calls := [][]string{{"call", "here", "cloexec", "nonblock", "detail"}}
	for _, f := range r.Calls {
		calls = append(calls, []string{f.Name, string(f.State), string(f.Cloexec), string(f.Nonblock), f.Detail})
	}
	tables := [][][]string{calls}
	if r.Mechanisms == nil {
		return tables
	}
	mechanisms := [][]string{{"mechanism", "here", "detail"}}
	for _, m := range r.Mechanisms {
		here := "no"
		if m.Works {
			here = "yes"
		}
		mechanisms = append(mechanisms, []string{m.Name, here, m.Detail})
	}
	return append(tables, mechanisms)
}

func writeTable(w io.Writer, r *Report) error {
	var b strings.Builder
	fmt.Fprintln(&b, r.headline())
	for _, table := range r.tables() {
		fmt.Fprintln(&b)
		var text strings.Builder
		t := tabwriter.NewWriter(&text, 0, 0, 2, ' ', 0)
		for i, row := range table {
			line := strings.Join(row, "\t")
			if i == 0 {
				line = strings.ToUpper(line)
			}
			fmt.Fprintln(t, line)
		}
		if err := t.Flush(); err != nil {
			return err
		}
		for line := range strings.Lines(text.String()) {
			fmt.Fprintln(&b, strings.TrimRight(line, " \n"))
		}
	}
	if r.Run != nil {
		fmt.Fprintln(&b, "\nindirect run")
		for _, sentence := range r.Run {
			fmt.Fprintln(&b, "  "+sentence)
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func writeMarkdown(w io.Writer, r *Report) error {
	var b strings.Builder
	fmt.Fprintf(&b, "# %s\n", r.headline())
	cell := strings.NewReplacer("|", `\|`, "\n", " ")
	for _, table := range r.tables() {
		fmt.Fprintln(&b)
		for i, row := range table {
			for _, text := range row {
				fmt.Fprintf(&b, "| %s ", cell.Replace(text))
			}
			fmt.Fprintln(&b, "|")
			if i == 0 {
				fmt.Fprintln(&b, strings.Repeat("| --- ", len(row))+"|")
			}
		}
	}
	if r.Run != nil {
		fmt.Fprint(&b, "\n`indirect run`:\n\n")
		for _, sentence := range r.Run {
			fmt.Fprintf(&b, "- %s\n", sentence)
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

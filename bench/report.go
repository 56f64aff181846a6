package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
)

// table is a report's rows of cells, the first row being the head.
type table [][]string

// speed is the table of workloads.
func speed(r *results) table {
	t := table{{"workload", "bare", "indirect run", "ratio", "range", "bar", "", "empty filter", "strace", "no-patch", "valgrind"}}
	for _, w := range r.Workloads {
		if w.NotRun != "" {
			t = append(t, []string{w.What, "not run: " + w.NotRun, "", "", "", w.Bar.String(), "", "", "", "", ""})
			continue
		}
		s := w.mode(indirect)
		t = append(t, []string{
			w.What, amount(w.mode(bare), w.Unit), amount(s, w.Unit), change(s, w.Bar), changes(s, w.Bar),
			w.Bar.String(), verdict(w), floor(w.mode(filter), w.Bar), times(w.mode(strace)), times(w.mode(noPatch)), times(w.mode(valgrind)),
		})
	}
	return t
}

// footprint is the table of memory.
func footprint(m *memory) table {
	t := table{{"memory", "measured", "bar", ""}}
	if m.NotRun != "" {
		return append(t, []string{"supervisor and image", "not run: " + m.NotRun, "", ""})
	}
	for _, u := range m.Served {
		t = append(t, []string{
			fmt.Sprintf("supervisor resident, processes served: %d", u.Processes),
			fmt.Sprintf("%.1f MiB (peak %.1f)", float64(u.Supervisor)/1024, float64(u.Peak)/1024),
			fmt.Sprintf("%d MiB", residentBar/1024), within(u.Supervisor, residentBar),
		}, []string{
			fmt.Sprintf("front resident, processes served: %d", u.Processes),
			fmt.Sprintf("%.1f MiB", float64(u.Front)/1024), "", "",
		})
	}
	first, last := m.Served[0], m.Served[len(m.Served)-1]
	return append(t,
		[]string{fmt.Sprintf("supervisor's growth from %d to %d processes", first.Processes, last.Processes),
			fmt.Sprintf("%+d KiB", last.Supervisor-first.Supervisor), "", ""},
		[]string{"mapped in an image", fmt.Sprintf("%d KiB", m.Image.Mapped), fmt.Sprintf("%d KiB", mappedBar), within(m.Image.Mapped, mappedBar)},
		[]string{"pages touched in an image", fmt.Sprint(m.Image.Touched), fmt.Sprint(touchedBar), within(m.Image.Touched, touchedBar)},
		[]string{"pages of program text copied by patching", fmt.Sprint(m.Image.Patched), "", ""},
	)
}

func within(n, bar int64) string {
	if n <= bar {
		return "met"
	}
	return "MISSED"
}

func verdict(w *result) string {
	met, ok := w.met()
	switch {
	case !ok:
		return ""
	case met:
		return "met"
	}
	return "MISSED"
}

// absence says in a cell why a series has no figures; the notes have the rest.
func absence(s *series) string {
	switch {
	case s.Failed:
		return "failed"
	case s.NotRun == meaningless:
		return "–"
	}
	return "not run: " + s.NotRun
}

// amount is a series' median cost, or why it has none.
func amount(s *series, u unit) string {
	switch {
	case s.NotRun != "":
		return absence(s)
	case u == perSecond:
		return fmt.Sprintf("%.0f %s", 1/s.Cost.Median, u)
	}
	return seconds(s.Cost.Median)
}

// seconds shows a time with three digits.
func seconds(s float64) string {
	for _, u := range []struct {
		size float64
		name string
	}{{1, "s"}, {1e-3, "ms"}, {1e-6, "µs"}} {
		if s >= u.size {
			return digits(s/u.size) + " " + u.name
		}
	}
	return digits(s*1e9) + " ns"
}

// digits shows a number of at least 1 with three digits, or with all before the point.
func digits(v float64) string {
	switch {
	case v < 10:
		return fmt.Sprintf("%.2f", v)
	case v < 100:
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.0f", v)
}

// change is what the bar is about: the median ratio or the median difference.
func change(s *series, b bar) string {
	switch {
	case s.NotRun != "":
		return ""
	case b.Extra > 0:
		return fmt.Sprintf("%+.0f ns", s.Extra.Median*1e9)
	}
	return fmt.Sprintf("%.3f", s.Ratio.Median)
}

func changes(s *series, b bar) string {
	switch {
	case s.NotRun != "":
		return ""
	case b.Extra > 0:
		return fmt.Sprintf("%+.0f to %+.0f ns", s.Extra.Min*1e9, s.Extra.Max*1e9)
	}
	return fmt.Sprintf("%.2f to %.2f", s.Ratio.Min, s.Ratio.Max)
}

// floor is the change by a filter that does nothing, below which no tool that
// has one can get.
func floor(s *series, b bar) string {
	if s.NotRun != "" {
		return absence(s)
	}
	return change(s, b)
}

// times is how many times as long as bare a mode for the record takes.
func times(s *series) string {
	if s.NotRun != "" {
		return absence(s)
	}
	return fmt.Sprintf("%.2f", s.Ratio.Median)
}

// preface says in one sentence how the figures came about.
func preface(r *results) string {
	s := fmt.Sprintf("Medians of %d interleaved rounds; Linux %s, %d CPUs (%s), %s.",
		r.Rounds, r.Kernel, r.CPUs, r.CPU, r.Time.Format("2006-01-02"))
	if r.Quick {
		s += " A quick run: the figures mean little."
	}
	return s
}

// notes lists what came on standard error under `indirect run`, and the failures.
func notes(r *results) []string {
	var list []string
	for _, w := range r.Workloads {
		for _, n := range w.Notes {
			list = append(list, w.Name+": standard error under indirect run: "+n)
		}
		for _, s := range w.Modes {
			if s.Failed {
				list = append(list, w.Name+": "+s.Mode+": "+s.NotRun)
			}
		}
	}
	return list
}

func tables(r *results) []table {
	var list []table
	if len(r.Workloads) > 0 {
		list = append(list, speed(r))
	}
	if r.Memory != nil {
		list = append(list, footprint(r.Memory))
	}
	return list
}

func writeText(to io.Writer, r *results) error {
	fmt.Fprintln(to, preface(r))
	for _, t := range tables(r) {
		fmt.Fprintln(to)
		w := tabwriter.NewWriter(to, 0, 0, 2, ' ', 0)
		for _, row := range t {
			fmt.Fprintln(w, strings.Join(row, "\t"))
		}
		if err := w.Flush(); err != nil {
			return err
		}
	}
	for i, n := range notes(r) {
		if i == 0 {
			fmt.Fprintln(to)
		}
		if _, err := fmt.Fprintln(to, n); err != nil {
			return err
		}
	}
	return nil
}

func writeMarkdown(to io.Writer, r *results) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n", preface(r))
	for _, t := range tables(r) {
		b.WriteByte('\n')
		for i, row := range t {
			cells := make([]string, len(row))
			for j, c := range row {
				cells[j] = strings.ReplaceAll(c, "|", `\|`)
			}
			fmt.Fprintf(&b, "| %s |\n", strings.Join(cells, " | "))
			if i == 0 {
				fmt.Fprintf(&b, "|%s\n", strings.Repeat(" --- |", len(row)))
			}
		}
	}
	for i, n := range notes(r) {
		if i == 0 {
			b.WriteByte('\n')
		}
		fmt.Fprintf(&b, "- %s\n", n)
	}
	_, err := io.WriteString(to, b.String())
	return err
}

func writeJSON(to io.Writer, r *results) error {
	e := json.NewEncoder(to)
	e.SetIndent("", "  ")
	return e.Encode(r)
}

// writeFile writes r to the named file, or does nothing if there is no name.
func writeFile(name string, r *results, write func(io.Writer, *results) error) error {
	if name == "" {
		return nil
	}
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	if err := write(f, r); err != nil {
		f.Close()
		return fmt.Errorf("write %s: %w", name, err)
	}
	return f.Close()
}

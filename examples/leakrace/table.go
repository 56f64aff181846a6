package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"text/tabwriter"

	"golang.org/x/sys/unix"
)

// progress is one line that is written over and over on a terminal; elsewhere
// it is nothing.
type progress struct {
	to       io.Writer
	terminal bool
}

func newProgress(to *os.File) progress {
	_, err := unix.IoctlGetTermios(int(to.Fd()), unix.TCGETS)
	return progress{to, err == nil}
}

func (p progress) show(name string) func(report) {
	return func(r report) {
		if p.terminal {
			fmt.Fprintf(p.to, "\r\033[K%-12s %4.1f s  %d programs started, %d descriptors leaked",
				name, r.elapsed.Seconds(), r.programs, r.leaked)
		}
	}
}

func (p progress) clear() {
	if p.terminal {
		fmt.Fprint(p.to, "\r\033[K")
	}
}

// table writes both results side by side.
func table(to io.Writer, bare, under *result) error {
	w := tabwriter.NewWriter(to, 0, 0, 2, ' ', tabwriter.AlignRight)
	line := func(name string, b, u count) {
		cells := func(c count) string {
			if c.absent != "" {
				return "-\t-\t"
			}
			return fmt.Sprintf("%d\t%d\t", c.created, c.leaked)
		}
		fmt.Fprintf(w, "%s\t%s%s\n", name, cells(b), cells(u))
	}
	fmt.Fprintf(w, "\tbare\t\tindirect run\t\t\n")
	fmt.Fprintf(w, "descriptors\tcreated\tleaked\tcreated\tleaked\t\n")
	for _, b := range bare.counts {
		if u := under.kind(b.kind); b.kind != "other" || b.leaked+u.leaked > 0 {
			line(b.kind, b, u)
		}
	}
	line("all", bare.total(), under.total())
	fmt.Fprintf(w, "\t\t\t\t\t\nprograms started\tper second\twith leaks\tper second\twith leaks\t\n")
	rates := func(how string, b, u spawn) {
		fmt.Fprintf(w, "%s\t%.0f\t%d\t%.0f\t%d\t\n", how,
			float64(b.programs)/bare.seconds, b.leaky, float64(u.programs)/under.seconds, u.leaky)
	}
	for i, b := range bare.spawns {
		if i < len(under.spawns) {
			rates(b.how, b, under.spawns[i])
		}
	}
	rates("all", bare.started(), under.started())
	return w.Flush()
}

// verdict says in words what the numbers mean. The error is not nil if the
// race did not show bare, or was not closed under `indirect run`.
func verdict(to io.Writer, bare, under *result) error {
	fmt.Fprintln(to)
	for _, c := range bare.counts {
		if c.absent != "" {
			fmt.Fprintf(to, "%s: not tried, the kernel says: %s\n", c.kind, c.absent)
		}
	}
	if under.said != "" {
		fmt.Fprintf(to, "indirect run says: %s\n", under.said)
	}
	b, u := bare.total(), under.total()
	bs, us := bare.started(), under.started()
	fmt.Fprintf(to, "bare:         %d descriptors leaked into %d of %d programs\n", b.leaked, bs.leaky, bs.programs)
	fmt.Fprintf(to, "indirect run: %d descriptors leaked into %d of %d programs\n", u.leaked, us.leaky, us.programs)
	switch {
	case u.leaked > 0 || us.leaky > 0:
		return errors.New("descriptors leaked under indirect run: please report this")
	case u.failed > b.failed || us.failed > bs.failed:
		return fmt.Errorf("under indirect run %d calls and %d programs failed, bare %d and %d: please report this",
			u.failed, us.failed, b.failed, bs.failed)
	case us.programs == 0:
		return errors.New("no program was started under indirect run")
	case b.leaked == 0:
		return errors.New("the race did not show in the bare run: try more -seconds")
	}
	return nil
}

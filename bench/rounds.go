package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"slices"

	"golang.org/x/sys/unix"
)

// meaningless is why a mode is not run with a workload that it has no answer to.
const meaningless = "means nothing here"

// measureWorkload runs w in every mode, round by round. The error is not nil
// only if ctx ended: a run that fails is a note in the result.
func measureWorkload(ctx context.Context, l *lab, w workload, rounds int, show progress) (*result, error) {
	res := &result{Name: w.name, What: w.what, Unit: w.unit, Bar: w.bar}
	if res.NotRun = lacks(w.needs); res.NotRun != "" {
		return res, nil
	}
	for _, m := range l.modes {
		s := &series{Mode: m.name, NotRun: l.missing[m.name]}
		if slices.Contains(w.without, m.name) || m.name == valgrind && !w.tracks {
			s.NotRun = meaningless
		}
		res.Modes = append(res.Modes, s)
	}
	for round := range rounds {
		for _, i := range order(round, len(l.modes)) {
			m, s := l.modes[i], res.Modes[i]
			if s.NotRun != "" {
				continue
			}
			show.say(fmt.Sprintf("%s: round %d of %d, %s", w.name, round+1, rounds, m.name))
			out, err := w.run(ctx, l, m, l.size(w, m))
			if ctx.Err() != nil {
				return nil, ctx.Err()
			}
			if err != nil {
				// One failure is enough: the mode's samples would no longer pair with the bare ones.
				s.NotRun, s.Failed = lastLine(err.Error()), true
				continue
			}
			s.Samples = append(s.Samples, out.cost)
			if note := lastLine(out.said); note != "" && m.name == indirect && !slices.Contains(res.Notes, note) {
				res.Notes = append(res.Notes, note)
			}
		}
	}
	res.summarise()
	return res, nil
}

// order is the order of n modes in a round. The first two, which are compared
// most closely, change places from round to round, so that running first is
// nobody's advantage.
func order(round, n int) []int {
	list := make([]int, n)
	for i := range list {
		list[i] = i
	}
	if round%2 == 1 && n > 1 {
		list[0], list[1] = 1, 0
	}
	return list
}

// size is how much work w does in m.
func (l *lab) size(w workload, m mode) int {
	n := w.size
	if m.slow {
		n = w.slowSize
	}
	if l.quick {
		n = max(n/20, 1)
	}
	return n
}

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

func (p progress) say(what string) {
	if p.terminal {
		fmt.Fprintf(p.to, "\r\033[K%s", what)
	}
}

func (p progress) clear() { p.say("") }

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
		costs := make([][]float64, len(l.modes)) // by mode and turn
		for _, i := range order(round, w.turns, len(l.modes)) {
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
				costs[i] = nil
				continue
			}
			costs[i] = append(costs[i], out.cost)
			if note := lastLine(out.said); note != "" && m.name == indirect && !slices.Contains(res.Notes, note) {
				res.Notes = append(res.Notes, note)
			}
		}
		for i, c := range costs {
			if len(c) > 0 {
				res.Modes[i].Samples = append(res.Modes[i].Samples, spreadOf(c).Median)
			}
		}
	}
	res.summarise()
	return res, nil
}

// compared is how many modes, the first ones, are compared closely.
const compared = 3

// order is the order of n modes in a round. Those that are compared closely take
// turns: so that what the machine does besides falls on all of them. They change
// places from turn to turn, so that running first is nobody's advantage.
func order(round, turns, n int) []int {
	var list []int
	for turn := range turns {
		for i := range compared {
			list = append(list, (round*turns+turn+i)%compared)
		}
	}
	for i := compared; i < n; i++ {
		list = append(list, i)
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

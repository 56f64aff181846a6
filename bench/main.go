// Bench measures what `indirect run` costs.
//
//	go run ./bench [-workload REGEXP] [-rounds N] [-quick] [-json FILE] [-markdown FILE] [-indirect PATH]
//
// Each workload runs bare, under `indirect run`, under a seccomp filter that
// allows everything, under `strace -f --seccomp-bpf` with the same calls, and
// under `indirect run --no-patch`, and those of the audit under `valgrind
// --track-fds=yes`, one after the other in every round, so that what else the
// machine does falls on all of them alike. In a round, the first three take
// turns, ten times if they are short; each one's figure for the round is the
// median of its turns. The figure that counts is the median over the rounds of
// the ratio to the bare run of the same round. The empty filter's is what the
// kernel itself takes for having one, which no tool that needs one can save.
//
// Small loops time themselves, so that neither the start of a program nor its
// first calls are in the figure; whole programs are timed from outside, start
// included; servers are measured, after a short load that does not count, by
// their load generator, which always runs bare.
//
// A workload that lacks a tool says which package brings it. A missed bar is
// shown and is no error: a machine that does something else misses bars. The
// exit status is 1 if a run failed.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"regexp"
	"syscall"
)

type options struct {
	workload *regexp.Regexp
	rounds   int
	quick    bool
	indirect string
}

func main() {
	o := options{workload: regexp.MustCompile("")}
	flag.Func("workload", "run only the workloads whose name matches `REGEXP` (memory is one of them)", func(s string) (err error) {
		o.workload, err = regexp.Compile(s)
		return err
	})
	flag.IntVar(&o.rounds, "rounds", 5, "how often each workload runs in each mode, 1 to 100")
	flag.BoolVar(&o.quick, "quick", false, "do a twentieth of the work: to try the benchmark out, not to measure")
	jsonFile := flag.String("json", "", "write the results as JSON to `FILE`")
	markdownFile := flag.String("markdown", "", "write the tables as Markdown to `FILE`")
	flag.StringVar(&o.indirect, "indirect", "", "the `PATH` of the indirect command (default: build it from this module)")
	flag.Parse()
	if flag.NArg() > 0 || o.rounds < 1 || o.rounds > 100 {
		flag.Usage()
		os.Exit(2)
	}
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer cancel()
	r, err := measure(ctx, o, newProgress(os.Stderr))
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
	err = errors.Join(
		writeText(os.Stdout, r),
		writeFile(*jsonFile, r, writeJSON),
		writeFile(*markdownFile, r, writeMarkdown),
	)
	if n := r.failures(); n > 0 {
		err = errors.Join(err, fmt.Errorf("%d runs failed: see the notes", n))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// measure runs everything that o asks for.
func measure(ctx context.Context, o options, show progress) (*results, error) {
	defer show.clear()
	show.say("building the workloads")
	l, err := newLab(ctx, o)
	if err != nil {
		return nil, err
	}
	defer l.close()

	r := newResults(o)
	for _, w := range workloads() {
		if !o.workload.MatchString(w.name) {
			continue
		}
		res, err := measureWorkload(ctx, l, w, o.rounds, show)
		if err != nil {
			return nil, err
		}
		r.Workloads = append(r.Workloads, res)
	}
	if o.workload.MatchString("memory") {
		show.say("memory")
		if r.Memory, err = measureMemory(ctx, l); err != nil {
			return nil, fmt.Errorf("memory: %w", err)
		}
	}
	return r, nil
}

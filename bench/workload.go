package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"
)

// bar is what a workload may cost. One of its members is not zero.
type bar struct {
	Ratio float64 `json:"ratio,omitempty"`    // to the bare run
	Extra float64 `json:"extra_ns,omitempty"` // nanoseconds a call more than bare
}

func (b bar) String() string {
	if b.Extra > 0 {
		return fmt.Sprintf("+%g ns", b.Extra)
	}
	return fmt.Sprintf("%.2f", b.Ratio)
}

// met reports whether a median ratio and a median difference in seconds meet b.
func (b bar) met(ratio, extra float64) bool {
	if b.Extra > 0 {
		return extra*1e9 <= b.Extra
	}
	return ratio <= b.Ratio
}

// unit is how a workload's cost is shown.
type unit string

const (
	perCall   unit = "a call"
	perRun    unit = "a run"
	perPart   unit = "a part" // of a run: a check, a file
	perSecond unit = "requests/s"
)

// tool is a program that a workload needs, and the Debian package that brings it.
type tool struct{ program, pkg string }

var (
	gcc       = tool{"gcc", "gcc libc6-dev"}
	muslGCC   = tool{"musl-gcc", "musl-tools"}
	makeTool  = tool{"make", "make"}
	nginx     = tool{"nginx", "nginx-light"}
	wrk       = tool{"wrk", "wrk"}
	redis     = tool{"redis-server", "redis-server"}
	redisLoad = tool{"redis-benchmark", "redis-tools"}
	straceBin = tool{"strace", "strace"}

	valgrindBin = tool{"valgrind", "valgrind"}
)

// workload is one thing to measure.
type workload struct {
	name  string
	what  string // for the reader of the table
	unit  unit
	bar   bar
	needs []tool
	// size is how much work one run does (iterations, seconds of load), and
	// slowSize the same for the slow modes.
	size, slowSize int
	// turns is how often the bare and the indirect run take turns in a round.
	turns int
	// without are modes that mean nothing for the workload.
	without []string
	// tracks says that the workload is about finding descriptors, as valgrind
	// does with --track-fds.
	tracks bool
	// run does the work once in mode m and returns the seconds that one unit took.
	run func(ctx context.Context, l *lab, m mode, size int) (outcome, error)
}

// outcome is one run's figure.
type outcome struct {
	cost float64 // seconds a call, a run or a request
	said string  // what came on standard error
}

// workloads lists them in the order of the table.
func workloads() []workload {
	var list []workload
	for _, libc := range []struct {
		name  string
		needs []tool
	}{{"glibc", []tool{gcc}}, {"musl", []tool{gcc, muslGCC}}} {
		for _, l := range []struct {
			name, what, loop    string
			threads, size, slow int
			bar                 bar
		}{
			{"open", "flagless open and close of /dev/null", "open", 1, 1e5, 1e4, bar{Ratio: 1.10}},
			{"open-4-threads", "flagless open and close on 4 threads", "open", 4, 1e5, 1e4, bar{Ratio: 1.10}},
			{"socket", "flagless socket and close", "socket", 1, 1e5, 1e4, bar{Ratio: 1.10}},
			{"pipe", "flagless pipe and two closes", "pipe", 1, 1e5, 1e4, bar{Ratio: 1.10}},
			{"accept", "flagless accept on loopback and close", "accept", 1, 5e4, 5e3, bar{Ratio: 1.10}},
			{"open-cloexec", "open with O_CLOEXEC and close", "open-cloexec", 1, 1e5, 1e5, bar{Ratio: 1.10}},
			{"asking-socket", "indirect(socket, O_CLOEXEC) and close; bare: socket with SOCK_CLOEXEC", "asking-socket", 1, 1e5, 1e5, bar{Ratio: 1.25}},
			{"paccept", "paccept with a signal mask and close; bare: accept4", "paccept", 1, 5e4, 5e3, bar{Ratio: 1.5}},
			{"getppid", "getppid", "getppid", 1, 1e5, 1e5, bar{Extra: 60}},
		} {
			list = append(list, workload{
				name: l.name + "/" + libc.name, what: l.what + ", " + libc.name, unit: perCall, bar: l.bar,
				needs: libc.needs, size: l.size, slowSize: l.slow, turns: 10, run: micro(libc.name, l.loop, l.threads),
			})
		}
	}
	for _, how := range []string{"fork", "vfork", "posix_spawn"} {
		list = append(list, workload{
			name: "exec-" + how, what: how + ", exec of /bin/true and wait", unit: perCall, bar: bar{Ratio: 1.10},
			needs: []tool{gcc}, size: 400, slowSize: 200, turns: 5, run: micro("glibc", how, 1),
		})
	}
	return append(list,
		workload{
			name: "syslet-round", what: "a syslet handed over and waited for; bare: a thread woken by futex", unit: perCall, bar: bar{Ratio: 2},
			needs: []tool{gcc}, size: 10000, slowSize: 5000, turns: 5, run: sysletRound,
		},
		workload{
			name: "syslet-read", what: "random 4 KiB reads, 32 outstanding, with syslets; bare: 32 threads", unit: perCall, bar: bar{Ratio: 1.25},
			needs: []tool{gcc}, size: 50000, slowSize: 5000, turns: 1, run: sysletRead,
		},
		workload{
			name: "configure", what: "configure-like script: small gcc compiles, sed, grep, sort", unit: perRun, bar: bar{Ratio: 1.10},
			needs: []tool{gcc}, size: 40, slowSize: 40, turns: 3, run: configure,
		},
		workload{
			name: "make", what: "make -j of a C project of 60 files", unit: perRun, bar: bar{Ratio: 1.03},
			needs: []tool{gcc, makeTool}, size: 60, slowSize: 60, turns: 3, run: makeProject,
		},
		workload{
			name: "audit-configure", what: "the same script's checks under indirect audit; strace with stacks (-k)", unit: perPart, bar: bar{Ratio: 2},
			needs: []tool{gcc}, size: 40, slowSize: 2, turns: 1, without: []string{noPatch}, tracks: true, run: audited(configure),
		},
		workload{
			name: "audit-make", what: "the same project's files under indirect audit; strace with stacks (-k)", unit: perPart, bar: bar{Ratio: 2},
			needs: []tool{gcc, makeTool}, size: 60, slowSize: 2, turns: 1, without: []string{noPatch}, tracks: true, run: audited(makeProject),
		},
		workload{
			name: "kernel", what: "open with O_CLOEXEC and close under run --kernel 3.10", unit: perCall, bar: bar{Ratio: 1.10},
			needs: []tool{gcc}, size: 1e5, slowSize: 1e5, turns: 10, without: []string{strace, noPatch}, run: olderKernel(micro("glibc", "open-cloexec", 1)),
		},
		workload{
			name: "nginx", what: "nginx under wrk", unit: perSecond, bar: bar{Ratio: 1.02},
			needs: []tool{nginx, wrk}, size: 2, slowSize: 2, turns: 5, run: nginxUnderWrk,
		},
		workload{
			name: "redis", what: "redis-server under redis-benchmark", unit: perSecond, bar: bar{Ratio: 1.02},
			needs: []tool{redis, redisLoad}, size: 50000, slowSize: 50000, turns: 5, run: redisUnderBenchmark,
		},
	)
}

// micro runs one loop of c/micro.c, which times itself.
func micro(libc, loop string, threads int) func(context.Context, *lab, mode, int) (outcome, error) {
	return func(ctx context.Context, l *lab, m mode, size int) (outcome, error) {
		return l.timed(ctx, m, l.program("micro", libc), loop, strconv.Itoa(threads), strconv.Itoa(max(size, threads)))
	}
}

// audited is a workload under "indirect audit" instead of "indirect run", and
// under strace with stacks, for each part of its size.
func audited(run func(context.Context, *lab, mode, int) (outcome, error)) func(context.Context, *lab, mode, int) (outcome, error) {
	return func(ctx context.Context, l *lab, m mode, size int) (outcome, error) {
		switch m.name {
		case indirect:
			m.prefix = []string{m.prefix[0], "audit", "-o", l.file("report"), "--"}
		case strace:
			m.prefix = []string{"strace", "-f", "-k", "-qq", "-o", "/dev/null", "-e", "trace=%desc,%process", "--"}
		}
		out, err := run(ctx, l, m, size)
		out.cost /= float64(size)
		return out, err
	}
}

// olderKernel is a workload under "indirect run --kernel".
func olderKernel(run func(context.Context, *lab, mode, int) (outcome, error)) func(context.Context, *lab, mode, int) (outcome, error) {
	return func(ctx context.Context, l *lab, m mode, size int) (outcome, error) {
		if m.name == indirect {
			m.prefix = []string{m.prefix[0], "run", "--kernel", "3.10", "--"}
		}
		return run(ctx, l, m, size)
	}
}

// timed runs a program that prints the nanoseconds of one call.
func (l *lab) timed(ctx context.Context, m mode, words ...string) (outcome, error) {
	ran, err := l.run(ctx, l.dir, m.wrap(words...))
	if err != nil {
		return outcome{}, err
	}
	ns, err := strconv.ParseFloat(strings.TrimSpace(ran.stdout), 64)
	if err != nil || ns <= 0 {
		return outcome{}, fmt.Errorf("%s printed %q instead of nanoseconds", strings.Join(words, " "), ran.stdout)
	}
	return outcome{ns / 1e9, ran.stderr}, nil
}

// sysletRound hands over one call at a time.
func sysletRound(ctx context.Context, l *lab, m mode, size int) (outcome, error) {
	return l.timed(ctx, m, l.program("syslet", "glibc"), "round", strconv.Itoa(size))
}

// sysletRead reads a file that is not cached.
func sysletRead(ctx context.Context, l *lab, m mode, size int) (outcome, error) {
	dir, remove, err := l.scratch()
	if err != nil {
		return outcome{}, err
	}
	defer remove()
	const blocks, block = 256, 1 << 20
	file, err := os.Create(filepath.Join(dir, "file"))
	if err != nil {
		return outcome{}, err
	}
	defer file.Close()
	for range blocks {
		if _, err := file.Write(make([]byte, block)); err != nil {
			return outcome{}, fmt.Errorf("write a file to read: %w", err)
		}
	}
	return l.timed(ctx, m, l.program("syslet", "glibc"), "read", strconv.Itoa(size), file.Name())
}

// configure runs the configure-like script in a fresh directory.
func configure(ctx context.Context, l *lab, m mode, size int) (outcome, error) {
	dir, remove, err := l.scratch()
	if err != nil {
		return outcome{}, err
	}
	defer remove()
	ran, err := l.run(ctx, dir, m.wrap("/bin/sh", l.file("configure.sh"), strconv.Itoa(size)))
	return outcome{ran.took.Seconds(), ran.stderr}, err
}

// makeProject builds size generated files in a fresh directory.
func makeProject(ctx context.Context, l *lab, m mode, size int) (outcome, error) {
	dir, remove, err := l.scratch()
	if err != nil {
		return outcome{}, err
	}
	defer remove()
	if err := writeProject(dir, size); err != nil {
		return outcome{}, err
	}
	ran, err := l.run(ctx, dir, m.wrap("make", "-s", "-j"+strconv.Itoa(runtime.NumCPU())))
	return outcome{ran.took.Seconds(), ran.stderr}, err
}

// timeout ends a run that hangs.
const timeout = 5 * time.Minute

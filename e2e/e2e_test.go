// Package e2e runs real programs under the indirect command. Most of them are
// the C programs in testdata, which check themselves; each is also run bare,
// to see that what it demands is what the kernel gives.
package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/seed-055cd0c8/indirect/internal/guest"
	"github.com/seed-055cd0c8/indirect/internal/launch"
	"github.com/seed-055cd0c8/indirect/supervise"
)

// indirect is the command under test, and programs is where compiled test
// programs go, or are if carried is true. TestMain sets them.
var (
	indirect, programs string
	carried            bool
)

// programsVar names the environment variable that says where programs are that
// have been compiled elsewhere.
const programsVar = "INDIRECT_TEST_PROGRAMS"

func TestMain(m *testing.M) {
	guest.Main()
	launch.Main() // TestOlderKernels uses the engine without the command
	supervise.Main(nil)
	os.Exit(testMain(m))
}

func testMain(m *testing.M) int {
	dir, err := os.MkdirTemp("", "indirect-e2e-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	// An ordinary user runs some of the programs.
	if err := os.Chmod(dir, 0o755); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	programs = dir
	// The programs are to inherit nothing that our starter left open.
	if err := unix.CloseRange(3, math.MaxUint32, unix.CLOSE_RANGE_CLOEXEC); err != nil {
		fmt.Fprintln(os.Stderr, "close_range (Linux 5.11):", err)
		return 1
	}
	if at := os.Getenv(programsVar); at != "" { // they have been compiled elsewhere
		programs, carried = at, true
		limit *= 5
	}
	if indirect = os.Getenv("INDIRECT"); indirect != "" { // test an installed command
		return m.Run()
	}
	indirect = filepath.Join(dir, "indirect")
	build := exec.Command("go", "build", "-o", indirect, "../cmd/indirect")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "build the command: %v\n%s", err, out)
		return 1
	}
	return m.Run()
}

// mode is a way to run a program.
type mode struct {
	name   string
	flags  []string // for indirect run; nil: the program runs bare
	expect string   // what is added to new descriptors
}

var (
	bare    = mode{name: "bare"}
	cloexec = mode{"cloexec", []string{}, "cloexec"}
	all     = mode{"all", []string{"--add", "cloexec,nonblock,nonseq"}, "cloexec nonblock nonseq"}
	moved   = mode{"moved", []string{"--add", "cloexec,nonseq"}, "cloexec nonseq"}
	noPatch = mode{"no-patch", []string{"--no-patch"}, "cloexec"}
	nothing = mode{"none", []string{"--add", "none"}, ""}
)

func (m mode) isBare() bool { return m.flags == nil }

// result is what became of a command.
type result struct {
	status         int
	stdout, stderr string
	summary        supervise.Summary // zero after a bare run
}

// limit is how long one command may take: far more than any needs, because the
// race detector and a busy machine are slow, and an emulated one is slower.
var limit = 40 * time.Second

// command prepares a program to be run in a mode. The environment variable
// EXPECT tells it what to expect. The summary goes to the file that is returned.
func (m mode) command(ctx context.Context, t *testing.T, argv ...string) (cmd *exec.Cmd, summary string) {
	t.Helper()
	if !m.isBare() {
		summary = filepath.Join(t.TempDir(), "summary.json")
		args := append([]string{indirect, "run", "--summary=" + summary}, m.flags...)
		argv = append(append(args, "--"), argv...)
	}
	cmd = exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Env = append(os.Environ(), "EXPECT="+m.expect)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = 5 * time.Second
	return cmd, summary
}

// run runs a program and waits for its end. A program that hangs is a failure.
func (m mode) run(t *testing.T, argv ...string) result {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	cmd, summary := m.command(ctx, t, argv...)
	return finish(t, ctx, cmd, summary)
}

func finish(t *testing.T, ctx context.Context, cmd *exec.Cmd, summary string) result {
	t.Helper()
	var out, errs bytes.Buffer
	if cmd.Stdout == nil {
		cmd.Stdout = &out
	}
	if cmd.Stderr == nil {
		cmd.Stderr = &errs
	}
	err := cmd.Run()
	r := result{stdout: out.String(), stderr: errs.String()}
	if ctx.Err() != nil {
		t.Fatalf("%s hangs\n%s%s", strings.Join(cmd.Args, " "), tail(r.stdout), tail(r.stderr))
	}
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		if r.status = exit.ExitCode(); r.status == -1 {
			r.status = 128 + int(exit.Sys().(syscall.WaitStatus).Signal())
		}
	case err != nil:
		t.Fatalf("%s: %v\n%s", strings.Join(cmd.Args, " "), err, tail(r.stderr))
	}
	switch {
	case summary == "":
	case r.status == 125: // nothing was run
		t.Fatalf("status 125\n%s", tail(r.stderr))
	default:
		if r.summary, err = readSummary(summary); err != nil {
			t.Fatalf("status %d, %v\n%s", r.status, err, tail(r.stderr))
		}
	}
	return r
}

func readSummary(file string) (s supervise.Summary, err error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return s, err
	}
	if err := json.Unmarshal(b, &s); err != nil {
		return s, fmt.Errorf("summary %q: %w", b, err)
	}
	return s, nil
}

// tail is the end of a long output.
func tail(s string) string {
	const most = 4000
	return s[max(0, len(s)-most):]
}

// passed fails the test unless the program ended with status 0.
func (r result) passed(t *testing.T) {
	t.Helper()
	if r.status != 0 {
		t.Errorf("status %d\n%s", r.status, tail(r.stderr))
	}
}

// enforced fails the test if a call went without its flags.
func (r result) enforced(t *testing.T) {
	t.Helper()
	for _, u := range r.summary.NotEnforced {
		t.Errorf("not enforced: %d of %s: %s", u.Count, u.Call, u.Why)
	}
}

// missed is how many calls are counted as not enforced.
func (r result) missed() uint64 { return r.summary.Missed() }

// build is a way to make a program of a C source.
type build struct {
	name string
	cc   []string
}

var (
	glibc       = build{"glibc", []string{"gcc"}}
	glibcStatic = build{"glibc-static", []string{"gcc", "-static"}}
	musl        = build{"musl", []string{"musl-gcc", "-static"}}
	i386        = build{"i386", []string{"gcc", "-m32"}}
	x32         = build{"x32", []string{"gcc", "-mx32"}}
	cxx         = build{"c++", []string{"g++"}}

	amd64Builds = []build{glibc, glibcStatic, musl}
	abiBuilds   = append(amd64Builds, i386, x32)
)

// works reports whether the compiler is there, and can make programs.
func (b build) works() bool { return b.probe().made }

// runnable are those of the builds whose programs this kernel runs: some lack
// i386, most x32. TestOtherKernel runs them where they can be run.
func runnable(builds ...build) []build {
	return slices.DeleteFunc(slices.Clone(builds), func(b build) bool { return !b.probe().runs && b.probe().made })
}

// probed is what is known of a build.
type probed struct{ made, runs bool }

var probes sync.Map // name of a build: func() probed

// probeSource is the source of a program that does nothing.
const probeSource = "nothing.c"

// probe makes a program and runs it.
func (b build) probe() probed {
	f, _ := probes.LoadOrStore(b.name, sync.OnceValue(func() probed {
		path, err := b.make(probeSource)
		return probed{made: err == nil, runs: err == nil && exec.Command(path).Run() == nil}
	}))
	return f.(func() probed)()
}

// path is where the program of a source in testdata is.
func (b build) path(source string, flags ...string) string {
	return filepath.Join(programs, strings.TrimSuffix(source, filepath.Ext(source))+"-"+b.name+strings.Join(flags, ""))
}

var compiled sync.Map // path of a program: func() error

// make makes the program of a source in testdata and returns its path.
func (b build) make(source string, flags ...string) (string, error) {
	path := b.path(source, flags...)
	f, _ := compiled.LoadOrStore(path, sync.OnceValue(func() error {
		if carried {
			_, err := os.Stat(path)
			return err
		}
		args := append(b.cc[1:], "-O1", "-g", "-Wall", "-Wno-unused-function", "-Werror", "-pthread", "-o", path, filepath.Join("testdata", source))
		if out, err := exec.Command(b.cc[0], append(args, flags...)...).CombinedOutput(); err != nil {
			return fmt.Errorf("compile %s: %w\n%s", source, err, out)
		}
		return nil
	}))
	return path, f.(func() error)()
}

// compile is make for a test, which is skipped if there is no compiler.
func (b build) compile(t *testing.T, source string, flags ...string) string {
	t.Helper()
	if !b.works() {
		t.Skipf("%s cannot make programs here (Debian: gcc, g++, gcc-multilib, musl-tools)", strings.Join(b.cc, " "))
	}
	path, err := b.make(source, flags...)
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// each runs a program of a source in every mode, in parallel, in every build
// that is [runnable].
func each(t *testing.T, source string, builds []build, modes []mode, check func(t *testing.T, m mode, program string)) {
	t.Helper()
	t.Parallel()
	for _, b := range runnable(builds...) {
		for _, m := range modes {
			t.Run(b.name+"/"+m.name, func(t *testing.T) {
				t.Parallel()
				check(t, m, b.compile(t, source))
			})
		}
	}
}

// selfChecking runs a program that needs no arguments, and demands that it
// passes with every call enforced.
func selfChecking(t *testing.T, m mode, program string) {
	t.Helper()
	r := m.run(t, program)
	r.passed(t)
	r.enforced(t)
}

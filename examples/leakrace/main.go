// Leakrace shows the race that close-on-exec at creation closes, and that
// `indirect run` closes it for a program that does not know about it.
//
//	go run ./examples/leakrace [-seconds 3] [-indirect PATH]
//
// It compiles a C program in which some threads create descriptors of 24
// kinds, set FD_CLOEXEC on each afterwards and close it, while other threads
// fork and exec a checker that counts what it inherited. It runs the program
// bare and under `indirect run` and prints both results side by side.
package main

import (
	"bufio"
	"bytes"
	"context"
	_ "embed"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

//go:embed c/leakrace.c
var source []byte

// engine is the command that is built when -indirect does not name one.
const engine = "github.com/seed-055cd0c8/indirect/cmd/indirect"

func main() {
	seconds := flag.Float64("seconds", 3, "how long each of the two races lasts, at most 300")
	indirect := flag.String("indirect", "", "the `PATH` of the indirect command (default: build it from this module)")
	flag.Parse()
	if flag.NArg() > 0 || *seconds <= 0 || *seconds > 300 {
		flag.Usage()
		os.Exit(2)
	}
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer cancel()
	if err := run(ctx, *seconds, *indirect); err != nil {
		fmt.Fprintln(os.Stderr, "leakrace:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, seconds float64, indirect string) error {
	dir, err := os.MkdirTemp("", "leakrace-")
	if err != nil {
		return fmt.Errorf("make a working directory: %w", err)
	}
	defer os.RemoveAll(dir)

	p, err := compile(ctx, dir)
	if err != nil {
		return err
	}
	if indirect == "" {
		indirect = filepath.Join(dir, "indirect")
		if err := command(ctx, "go", "build", "-o", indirect, engine); err != nil {
			return fmt.Errorf("build %s (or name a built one with -indirect): %w", engine, err)
		}
	}
	line := newProgress(os.Stderr)
	defer line.clear()
	bare, err := p.race(ctx, seconds, nil, line.show("bare"))
	if err != nil {
		return fmt.Errorf("run bare: %w", err)
	}
	under, err := p.race(ctx, seconds, []string{indirect, "run", "--"}, line.show("indirect run"))
	if err != nil {
		return fmt.Errorf("run under %s: %w", indirect, err)
	}
	line.clear()
	if err := table(os.Stdout, bare, under); err != nil {
		return err
	}
	return verdict(os.Stdout, bare, under)
}

// program is the compiled race.
type program struct {
	dir            string
	racer, checker string
}

// compile builds the racing program and the checker from the one source. The
// checker is static because that starts faster; where libc.a is missing it is
// dynamic.
func compile(ctx context.Context, dir string) (*program, error) {
	cc, err := exec.LookPath("gcc")
	if err != nil {
		return nil, fmt.Errorf("%w (install it, on Debian: apt-get install gcc libc6-dev)", err)
	}
	p := &program{dir: dir, racer: filepath.Join(dir, "race"), checker: filepath.Join(dir, "check")}
	c := filepath.Join(dir, "leakrace.c")
	if err := os.WriteFile(c, source, 0o600); err != nil {
		return nil, err
	}
	if err := command(ctx, cc, "-O2", "-pthread", "-o", p.racer, c); err != nil {
		return nil, err
	}
	if command(ctx, cc, "-O2", "-pthread", "-static", "-o", p.checker, c) != nil {
		if err := command(ctx, cc, "-O2", "-pthread", "-o", p.checker, c); err != nil {
			return nil, err
		}
	}
	return p, nil
}

// command runs a short helper and returns what it said if it fails.
func command(ctx context.Context, name string, arg ...string) error {
	out, err := exec.CommandContext(ctx, name, arg...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %w\n%s", name, err, bytes.TrimSpace(out))
	}
	return nil
}

// race runs the program behind the given words ("indirect run --", or none)
// and calls show with each progress report.
func (p *program) race(ctx context.Context, seconds float64, behind []string, show func(report)) (*result, error) {
	files, err := os.MkdirTemp(p.dir, "files-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(files)
	limit := time.Duration(seconds*float64(time.Second)) + time.Minute
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()

	words := append(behind[:len(behind):len(behind)], p.racer, "race", files, fmt.Sprint(seconds), p.checker)
	cmd := exec.CommandContext(ctx, words[0], words[1:]...)
	var said bytes.Buffer
	cmd.Stderr = &said
	// Its own session: away from our terminal, and one group to stop if need be.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = 5 * time.Second
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	res, readErr := read(out, show)
	if err := cmd.Wait(); err != nil {
		if ctx.Err() != nil {
			err = fmt.Errorf("stopped after %v: %w", limit, ctx.Err())
		}
		return nil, fmt.Errorf("%s: %w\n%s", strings.Join(words, " "), err, bytes.TrimSpace(said.Bytes()))
	}
	if readErr != nil {
		return nil, readErr
	}
	res.said = said.String()
	return res, nil
}

// report is one progress line of the running race.
type report struct {
	elapsed          time.Duration
	programs, leaked uint64
}

// count is what happened with one kind of descriptor.
type count struct {
	kind                    string
	created, failed, leaked uint64
	absent                  string // why the kernel does not give us one; else empty
}

// spawn is what happened with one way of starting programs.
type spawn struct {
	how                     string
	programs, leaky, failed uint64
}

// result is the outcome of one race.
type result struct {
	counts  []count
	spawns  []spawn
	seconds float64
	said    string // what came on standard error
}

func (r *result) total() (t count) {
	for _, c := range r.counts {
		t.created += c.created
		t.failed += c.failed
		t.leaked += c.leaked
	}
	return t
}

func (r *result) started() (t spawn) {
	for _, s := range r.spawns {
		t.programs += s.programs
		t.leaky += s.leaky
		t.failed += s.failed
	}
	return t
}

func (r *result) kind(name string) count {
	for _, c := range r.counts {
		if c.kind == name {
			return c
		}
	}
	return count{kind: name, absent: "not tried"}
}

// read decodes the race's standard output: see the head of c/leakrace.c.
func read(from io.Reader, show func(report)) (*result, error) {
	r := &result{}
	lines := bufio.NewScanner(from)
	for lines.Scan() {
		var (
			line = lines.Text()
			c    count
			s    spawn
			ms   int64
			p    report
			err  error
		)
		word, rest, _ := strings.Cut(line, " ")
		switch word {
		case "progress":
			if _, err = fmt.Sscan(rest, &ms, &p.programs, &p.leaked); err == nil {
				p.elapsed = time.Duration(ms) * time.Millisecond
				show(p)
			}
		case "absent":
			c.kind, c.absent, _ = strings.Cut(rest, " ")
			r.counts = append(r.counts, c)
		case "kind":
			_, err = fmt.Sscan(rest, &c.kind, &c.created, &c.failed, &c.leaked)
			r.counts = append(r.counts, c)
		case "spawn":
			_, err = fmt.Sscan(rest, &s.how, &s.programs, &s.leaky, &s.failed)
			r.spawns = append(r.spawns, s)
		case "seconds":
			_, err = fmt.Sscan(rest, &r.seconds)
		default:
			err = errors.New("unknown record")
		}
		if err != nil {
			return nil, fmt.Errorf("the race said %q: %w", line, err)
		}
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("read what the race says: %w", err)
	}
	if r.seconds <= 0 || len(r.spawns) == 0 {
		return nil, errors.New("the race ended without a result")
	}
	return r, nil
}

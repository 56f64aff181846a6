package main

import (
	"bytes"
	"context"
	"embed"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/seed-055cd0c8/indirect/fdcall"
)

//go:embed c
var sources embed.FS

// engine is the command that is built when -indirect does not name one.
const engine = "github.com/seed-055cd0c8/indirect/cmd/indirect"

// mode is one way of running a workload.
type mode struct {
	name   string
	prefix []string
	slow   bool // tens of times slower than bare: gets less to do
}

// The names of the modes, in the order in which they run.
const (
	bare     = "bare"
	indirect = "indirect run"
	filter   = "empty filter" // what any tool with a seccomp filter pays to the kernel
	strace   = "strace"
	noPatch  = "--no-patch"
	valgrind = "valgrind"
)

// wrap returns the command line that runs words in the mode.
func (m mode) wrap(words ...string) []string {
	return append(m.prefix[:len(m.prefix):len(m.prefix)], words...)
}

// lab is the place where workloads run: the built programs, and the modes
// that this machine has.
type lab struct {
	dir     string
	modes   []mode
	missing map[string]string // why a mode or a program is not there
	quick   bool
}

func newLab(ctx context.Context, o options) (_ *lab, err error) {
	dir, err := os.MkdirTemp("", "indirect-bench-")
	if err != nil {
		return nil, fmt.Errorf("make a working directory: %w", err)
	}
	l := &lab{dir: dir, missing: map[string]string{}, quick: o.quick}
	defer func() {
		if err != nil {
			l.close()
		}
	}()
	if err := l.unpack(); err != nil {
		return nil, err
	}
	if err := l.build(ctx); err != nil {
		return nil, err
	}
	command, err := l.engine(ctx, o.indirect)
	if err != nil {
		return nil, err
	}
	l.modes = modes(command, l.program("filter", "glibc"), callNames(fdcall.Linux()))
	for mode, t := range map[string]tool{filter: gcc, strace: straceBin, valgrind: valgrindBin} {
		if _, err := exec.LookPath(t.program); err != nil {
			l.missing[mode] = "needs " + t.pkg
		}
	}
	return l, nil
}

// engine finds the indirect command, or builds it if none is named.
func (l *lab) engine(ctx context.Context, named string) (string, error) {
	if named != "" {
		path, err := exec.LookPath(named)
		if err != nil {
			return "", err
		}
		return filepath.Abs(path) // workloads run in directories of their own
	}
	path := l.file("indirect")
	if _, err := l.run(ctx, "", []string{"go", "build", "-o", path, engine}); err != nil {
		return "", fmt.Errorf("build %s (or name a built one with -indirect): %w", engine, err)
	}
	return path, nil
}

func (l *lab) close() { os.RemoveAll(l.dir) }

// modes lists the ways to run a workload: first those that are compared closely.
func modes(command, allow string, calls []string) []mode {
	return []mode{
		{name: bare},
		{name: indirect, prefix: []string{command, "run", "--"}},
		{name: filter, prefix: []string{allow}},
		{name: strace, prefix: []string{"strace", "-f", "--seccomp-bpf", "-qq", "-e", "signal=none", "-o", "/dev/null", "-e", traceOption(calls), "--"}, slow: true},
		{name: noPatch, prefix: []string{command, "run", "--no-patch", "--"}, slow: true},
		{name: valgrind, prefix: []string{"valgrind", "-q", "--track-fds=yes", "--trace-children=yes", "--log-file=/dev/null"}, slow: true},
	}
}

// callNames lists the names of the table's calls, each once.
func callNames(t *fdcall.Table) []string {
	var names []string
	seen := map[string]bool{}
	for _, c := range t.All() {
		if !seen[c.Name] {
			seen[c.Name] = true
			names = append(names, c.Name)
		}
	}
	return names
}

// traceOption is strace's option for the calls; the question mark lets strace
// pass over a name that it does not know.
func traceOption(calls []string) string {
	return "trace=?" + strings.Join(calls, ",?")
}

func (l *lab) file(name string) string { return filepath.Join(l.dir, name) }

// program is a built workload.
func (l *lab) program(name, libc string) string { return l.file(name + "-" + libc) }

// scratch makes a directory for one run.
func (l *lab) scratch() (dir string, remove func(), err error) {
	dir, err = os.MkdirTemp(l.dir, "run-")
	return dir, func() { os.RemoveAll(dir) }, err
}

func (l *lab) unpack() error {
	files, err := sources.ReadDir("c")
	if err != nil {
		return err
	}
	for _, f := range files {
		text, err := sources.ReadFile("c/" + f.Name())
		if err != nil {
			return err
		}
		if err := os.WriteFile(l.file(f.Name()), text, 0o600); err != nil {
			return err
		}
	}
	return nil
}

// build compiles the C programs with the compilers that are there; workloads
// name those that they need.
func (l *lab) build(ctx context.Context) error {
	for _, b := range []struct {
		compiler tool
		libc     string
		options  []string
		programs []string
	}{
		{gcc, "glibc", nil, []string{"micro", "crowd", "syslet", "filter"}},
		{muslGCC, "musl", []string{"-static"}, []string{"micro", "crowd", "syslet"}},
	} {
		if _, err := exec.LookPath(b.compiler.program); err != nil {
			continue
		}
		for _, name := range b.programs {
			words := append([]string{b.compiler.program, "-O2", "-pthread", "-o", l.program(name, b.libc), l.file(name + ".c")}, b.options...)
			if _, err := l.run(ctx, l.dir, words); err != nil {
				return err
			}
		}
	}
	return nil
}

// lacks says which package a workload needs, or nothing if it can run.
func lacks(needs []tool) string {
	for _, t := range needs {
		if _, err := exec.LookPath(t.program); err != nil {
			return "needs " + t.pkg
		}
	}
	return ""
}

// ran is what a finished command leaves.
type ran struct {
	stdout, stderr string
	took           time.Duration
}

// start prepares a command in a session of its own: it has no terminal, and
// all of it can be ended at once.
func start(ctx context.Context, dir string, words []string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, words[0], words[1:]...)
	cmd.Dir = dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = 5 * time.Second
	return cmd
}

// run runs a command to its end, at most [timeout].
func (l *lab) run(ctx context.Context, dir string, words []string) (ran, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	cmd := start(ctx, dir, words)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	begin := time.Now()
	err := cmd.Run()
	r := ran{stdout.String(), stderr.String(), time.Since(begin)}
	if ctx.Err() != nil {
		err = errors.Join(ctx.Err(), err)
	}
	if err != nil {
		return r, fmt.Errorf("%s: %w: %s", strings.Join(words, " "), err, lastLine(r.stderr))
	}
	return r, nil
}

func lastLine(s string) string {
	s = strings.TrimSpace(s)
	return s[strings.LastIndexByte(s, '\n')+1:]
}

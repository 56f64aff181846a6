package audit

import (
	"context"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/seed-055cd0c8/indirect/internal/launch"
	"github.com/seed-055cd0c8/indirect/internal/launch/signals"
	"github.com/seed-055cd0c8/indirect/internal/recorder"
	"github.com/seed-055cd0c8/indirect/internal/symbol"
	"github.com/seed-055cd0c8/indirect/policy"
	"github.com/seed-055cd0c8/indirect/supervise"
)

// Main must be called first thing in main, or in TestMain, by programs that
// use [Command] or [Cmd.Run]: they start their own executable again to launch
// the command and to supervise it. In such a process it does not return.
func Main() {
	launch.Main()
	supervise.Main(map[string]supervise.Open{recorder.Name: recorder.Open})
}

// Cmd is a command to be audited.
type Cmd struct {
	Path string   // looked up as execvp(3) does it if it has no slash
	Args []string // the argument vector, Args[0] included
	Dir  string   // the working directory; empty: ours
	Env  []string // nil: ours
	// StackDepth is how many frames of a stack are kept, 1 to 256; 0 stands for 32.
	StackDepth int
	// NoFollow watches the command alone, not the programs that it executes.
	NoFollow bool
	// Latent also finds descriptors that no program received (KindLatent). It
	// traps the end of each process, which a signal of the same moment can
	// disturb on a busy machine: leave it out where that matters.
	Latent bool
	// Policy is what to add to the descriptors meanwhile, as "indirect run"
	// does: the audit then shows what it does not mend, except that in
	// processes with threads, where such a descriptor was created is not known.
	// Nil adds nothing.
	Policy *policy.Policy
	// Suppressions are findings to leave out; may be nil.
	Suppressions *Suppressions

	t      TB
	report *Report
	status unix.WaitStatus
}

// TB is the part of [testing.TB] that Command uses.
type TB interface {
	Helper()
	Fatalf(format string, args ...any)
	Context() context.Context
}

// Command returns a command to be audited by a test, which fails if the audit
// does. The test binary's TestMain must call [Main].
//
//	if leaks := audit.Command(t, "myprog").Leaks(); len(leaks) > 0 {
//		t.Errorf("%d leaks, the first at %s", len(leaks), leaks[0].Site())
//	}
func Command(t TB, name string, args ...string) *Cmd {
	return &Cmd{Path: name, Args: append([]string{name}, args...), t: t}
}

// Report is what the audit finds. At its first call it runs the command to its end.
func (c *Cmd) Report() *Report {
	if c.report != nil {
		return c.report
	}
	c.t.Helper()
	r, err := c.Run(c.t.Context())
	if err != nil {
		c.t.Fatalf("audit %s: %v", c.Path, err)
	}
	return r
}

// Leaks are the leaks in the command's [Cmd.Report].
func (c *Cmd) Leaks() []Finding {
	c.t.Helper()
	return c.Report().Leaks()
}

// Races are the races in the command's [Cmd.Report].
func (c *Cmd) Races() []Finding {
	c.t.Helper()
	return c.Report().Races()
}

// Status is how the command ended, once it has run.
func (c *Cmd) Status() unix.WaitStatus { return c.status }

// Run runs the command to its end, with our standard streams, and returns what
// the audit found. Programs that outlive the command are no longer watched for
// the report. If ctx is done before, the command goes on, and the error is the
// context's. Unlike [Command], it needs no test: fill in a Cmd of your own.
func (c *Cmd) Run(ctx context.Context) (*Report, error) {
	if len(c.Args) == 0 {
		return nil, fmt.Errorf("audit %s: it has no argument vector", c.Path)
	}
	depth := c.StackDepth
	if depth == 0 {
		depth = UsualDepth
	}
	rec, err := recorder.New(recorder.Config{StackDepth: depth, NoFollow: c.NoFollow, Enforced: c.Policy != nil, Latent: c.Latent})
	if err != nil {
		return nil, err
	}
	defer rec.Close()
	if err := c.record(ctx, rec); err != nil {
		return nil, err
	}
	o := Options{Command: c.Args, Suppressions: c.Suppressions}
	c.report, err = ReportOf(ctx, rec, o)
	return c.report, err
}

// UsualDepth is how many frames of a stack are kept if nobody says otherwise.
const UsualDepth = 32

// record runs the command with a recorder in its supervisor.
func (c *Cmd) record(ctx context.Context, rec *recorder.Recording) error {
	p := c.Policy
	if p == nil {
		p = policy.New(0)
	}
	s, err := supervise.New(supervise.Options{Policy: p, Extensions: []supervise.Extension{rec.Extension()}})
	if err != nil {
		return err
	}
	inherited, err := signals.Inherited()
	if err != nil {
		return err
	}
	env := c.Env
	if env == nil {
		env = launch.Environ()
	}
	command, err := launch.Start(launch.Spec{Path: c.Path, Args: c.Args, Env: env, Dir: c.Dir, Filter: s.Filter(), Signals: inherited})
	if err != nil {
		return err
	}
	if err := s.Start(command.Listener()); err != nil {
		command.Abort()
		return err
	}
	defer s.Close()
	if err := command.Release(); err != nil {
		return err
	}
	c.status, err = command.Wait(ctx)
	return err
}

// ReportOf makes a report of what a recording holds so far.
func ReportOf(ctx context.Context, rec *recorder.Recording, o Options) (*Report, error) {
	var err error
	symbols := symbol.New(symbol.Options{Debuginfod: symbol.DebuginfodServers()})
	r := Classify(events(ctx, rec, symbols, &err), o)
	return r, err
}

package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/seed-055cd0c8/indirect/audit"
	"github.com/seed-055cd0c8/indirect/audit/report"
	"github.com/seed-055cd0c8/indirect/internal/recorder"
	"github.com/seed-055cd0c8/indirect/internal/session"
	"github.com/seed-055cd0c8/indirect/policy"
	"github.com/seed-055cd0c8/indirect/supervise"
)

// auditFlags are the flags of "indirect audit".
type auditFlags struct {
	format          string
	output          string
	errorExitCode   int
	show            string
	suppressions    string
	genSuppressions bool
	writePolicy     string
	stackDepth      int
	follow          bool
	noFollow        bool
}

func newAudit() *cobra.Command {
	var f auditFlags
	c := &cobra.Command{
		Use:   "audit [flags] -- COMMAND [ARG...]",
		Short: "Find the descriptors that reach programs they were not meant for",
		Long: `Run COMMAND, and report the file descriptors that reached a program that they
were not meant for, each with the line of code that created it. The kinds of
findings:

  leaks       created without close-on-exec, and open when another program was
              executed
  races       made close-on-exec only after their creation: a program that
              another thread starts in between inherits them
  latent      created without close-on-exec and never closed, but no program was
              executed
  deliberate  placed at a number of the program's choice (dup2), opened by a
              shell's redirection, or mentioned in the arguments or environment
              of the program that received them
  inherited   open before the audit, or of unknown origin

COMMAND runs as under "indirect run", but its calls are left as they are. The
report goes to standard error when COMMAND ends. Programs that outlive it are
no longer in the report.

The exit status is that of COMMAND, as with "indirect run", unless
--error-exitcode says otherwise; 125 if indirect itself failed.`,
		Example: `  indirect audit -- ./server
  indirect audit --error-exitcode 1 --suppressions known.supp -- make test
  indirect audit --format html -o leaks.html -- ./start-all
  indirect audit --write-policy policy.yaml -- ./server
  indirect run --policy policy.yaml -- ./server`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return errors.New(`no command; write "indirect audit [flags] -- COMMAND [ARG...]"`)
			}
			return nil
		},
		DisableAutoGenTag: true,
		RunE: func(c *cobra.Command, argv []string) error {
			a, err := f.prepare(argv, c.Flags().Changed("error-exitcode"), c.ErrOrStderr())
			if err != nil {
				return err
			}
			return a.run()
		},
	}
	flags := c.Flags()
	flags.SetInterspersed(false) // what follows the command is the command's
	flags.StringVar(&f.format, "format", report.Formats()[0], "report as `FORMAT`: "+strings.Join(report.Formats(), ", "))
	flags.StringVarP(&f.output, "output", "o", "", "write the report to `FILE` instead of standard error")
	flags.IntVar(&f.errorExitCode, "error-exitcode", 0, "exit with `STATUS` (1 to 255) if leaks, races or latent descriptors are shown")
	flags.StringVar(&f.show, "show", kindNames(audit.Usual()), "show these `KINDS` of findings: "+kindNames(audit.Kinds()))
	flags.StringVar(&f.suppressions, "suppressions", "", "leave out the findings that `FILE` describes")
	flags.BoolVar(&f.genSuppressions, "gen-suppressions", false, "print a suppression for each finding that is shown")
	flags.StringVar(&f.writePolicy, "write-policy", "", "write to `FILE` the policy under which \"indirect run\" mends the leaks and races")
	flags.IntVar(&f.stackDepth, "stack-depth", audit.UsualDepth, "keep `N` frames of each stack, 1 to 256")
	flags.BoolVar(&f.follow, "follow", true, "watch the programs that COMMAND executes as well")
	flags.BoolVar(&f.noFollow, "no-follow", false, "watch COMMAND alone")
	c.MarkFlagsMutuallyExclusive("follow", "no-follow")
	complete(c, "format", report.Formats())
	complete(c, "show", strings.Split(kindNames(audit.Kinds()), ","))
	return c
}

func kindNames(kinds []audit.Kind) string {
	var names []string
	for _, k := range kinds {
		names = append(names, k.Plural())
	}
	return strings.Join(names, ",")
}

// auditing is an audit whose flags have been understood, and whose files are open.
type auditing struct {
	*auditFlags
	argv         []string
	show         []audit.Kind
	suppressions *audit.Suppressions
	write        report.Writer
	output       *os.File // nil: stderr
	policy       *os.File // nil: none is wanted
	root         string   // where we were started
	stderr       io.Writer
}

// prepare does all that can be wrong before the command starts.
func (f *auditFlags) prepare(argv []string, exitCodeGiven bool, stderr io.Writer) (*auditing, error) {
	a := &auditing{auditFlags: f, argv: argv, stderr: stderr}
	var err error
	if a.write, err = report.Format(f.format); err != nil {
		return nil, fmt.Errorf("--format: %w", err)
	}
	if a.show, err = audit.ParseKinds(f.show); err != nil {
		return nil, fmt.Errorf("--show: %w", err)
	}
	const deepest = 256
	switch {
	case f.stackDepth < 1 || f.stackDepth > deepest:
		return nil, fmt.Errorf("--stack-depth %d: it must be from 1 to %d", f.stackDepth, deepest)
	case exitCodeGiven && (f.errorExitCode < 1 || f.errorExitCode > 255):
		return nil, fmt.Errorf("--error-exitcode %d: it must be from 1 to 255", f.errorExitCode)
	}
	if f.suppressions != "" {
		text, err := readPolicy(f.suppressions)
		if err != nil {
			return nil, fmt.Errorf("--suppressions: %w", err)
		}
		if a.suppressions, err = audit.ParseSuppressions(f.suppressions, text); err != nil {
			return nil, err
		}
	}
	if f.output != "" {
		if a.output, err = os.Create(f.output); err != nil {
			return nil, fmt.Errorf("--output: %w", err)
		}
	}
	if f.writePolicy != "" {
		if a.policy, err = os.Create(f.writePolicy); err != nil {
			return nil, fmt.Errorf("--write-policy: %w", err)
		}
	}
	a.root, _ = os.Getwd() // without it, SARIF has absolute paths
	return a, nil
}

// run runs the command and returns an [exitStatus], or why it was not started
// or its report not written.
func (a *auditing) run() error {
	rec, err := recorder.New(recorder.Config{StackDepth: a.stackDepth, NoFollow: a.noFollow || !a.follow, Latent: slices.Contains(a.show, audit.KindLatent)})
	if err != nil {
		return err
	}
	defer rec.Close()
	stop := a.progress(rec)
	status, _, err := session.Run(supervise.Options{
		Policy: policy.New(0), Extensions: []supervise.Extension{rec.Extension()}, Log: a.stderr,
	}, a.argv, nil)
	stop()
	if err != nil {
		return err
	}
	r, err := audit.ReportOf(context.Background(), rec, audit.Options{Command: a.argv, Suppressions: a.suppressions})
	if err != nil {
		return err
	}
	if err := a.deliver(r); err != nil {
		return err
	}
	for _, f := range r.Of(a.show...) {
		if a.errorExitCode != 0 && !f.Harmless() && (f.Kind == audit.KindLeak || f.Kind == audit.KindRace || f.Kind == audit.KindLatent) {
			return exitStatus(a.errorExitCode)
		}
	}
	return exitStatus(session.ExitStatus(status))
}

// deliver writes the report and what goes with it. If the report cannot be
// written to its file, its text goes to standard error.
func (a *auditing) deliver(r *audit.Report) error {
	o := report.Options{Show: a.show, Root: a.root}
	var errs []error
	if a.output != nil {
		if err := errors.Join(a.write(a.output, r, o), a.output.Close()); err != nil {
			errs = append(errs, err)
			a.write = report.Text
		}
	}
	if a.output == nil || len(errs) > 0 {
		o.Color = isTerminal(unix.Stderr) && os.Getenv("NO_COLOR") == ""
		if err := a.write(a.stderr, r, o); err != nil {
			errs = append(errs, err)
		}
	}
	if a.genSuppressions {
		if err := audit.WriteSuppressions(a.stderr, r.Of(a.show...)); err != nil {
			errs = append(errs, err)
		}
	}
	if a.policy != nil {
		unmended, err := audit.WritePolicy(a.policy, r)
		if err := errors.Join(err, a.policy.Close()); err != nil {
			errs = append(errs, fmt.Errorf("write the policy: %w", err))
		}
		if len(unmended) > 0 {
			fmt.Fprintf(a.stderr, "indirect: the policy does not mend %d findings; it has a comment on each\n", len(unmended))
		}
	}
	return errors.Join(errs...)
}

// progress shows on a terminal how far the audit is, until stop is called. It
// stays silent where the command itself writes to the terminal.
func (a *auditing) progress(rec *recorder.Recording) (stop func()) {
	if !isTerminal(unix.Stderr) || isTerminal(unix.Stdout) {
		return func() {}
	}
	done, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		const interval = time.Second
		tick := time.NewTicker(interval)
		defer tick.Stop()
		const erase = "\r\x1b[K"
		for start := time.Now(); ; {
			select {
			case <-done:
				fmt.Fprint(a.stderr, erase)
				return
			case <-tick.C:
				fmt.Fprintf(a.stderr, "%sindirect: auditing for %v, %d KiB of events", erase, time.Since(start).Round(time.Second), rec.Size()>>10)
			}
		}
	}()
	return func() { close(done); <-stopped }
}

func isTerminal(fd int) bool {
	_, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	return err == nil
}

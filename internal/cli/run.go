package cli

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	"github.com/spf13/cobra"

	"github.com/seed-055cd0c8/indirect/fdcall"
	"github.com/seed-055cd0c8/indirect/internal/session"
	"github.com/seed-055cd0c8/indirect/policy"
	"github.com/seed-055cd0c8/indirect/supervise"
)

// runFlags are the flags of "indirect run".
type runFlags struct {
	add            string
	policy         string
	exempt         []string
	noExemptShells bool
	noPatch        bool
	summary        string
	kernel         kernelFlags
}

// toStderr is the value of --summary without a file. No file has this name.
const toStderr = "/"

func newRun() *cobra.Command {
	var f runFlags
	c := &cobra.Command{
		Use:   "run [flags] -- COMMAND [ARG...]",
		Short: "Run a command whose descriptors get flags from birth",
		Long: `Run COMMAND, and every program that it starts, so that new file descriptors have
the properties that --add names. Descriptors that a program places at a number
of its own choice (dup2), and standard input, output and error, are left alone.
Shells are exempt, because they place redirections by number.

COMMAND runs as it would alone: with the same standard streams, terminal, job
control, environment, working directory and limits. Signals that are sent to
indirect reach it. Programs that outlive COMMAND stay served in the background,
and so does COMMAND itself if indirect is killed.

A line on standard error tells if a call could not be given its flags.

With --kernel COMMAND runs as on an older Linux: system calls, operations and
flags that are younger give the answers of that time, and uname tells its
version. With --without it runs without what is named. Then nothing is added to
descriptors unless --add or --policy is given. --bisect-kernel runs COMMAND
several times, with nothing to read and nowhere to write, and prints the oldest
kernel on which it exits 0, and what it lacks on the one before.

The exit status is that of COMMAND, 128+N if signal N ended it, 127 if it was
not found, 126 if it cannot be executed, and 125 if indirect itself failed:
then COMMAND was not started.

Differences that remain: COMMAND's parent is indirect, which keeps standard
error open until COMMAND ends. A signal that a process outside of COMMAND sends
to the whole process group comes twice, directly and through indirect. A signal
that is ignored when indirect starts is not ignored in COMMAND, unless it is
HUP, INT, CONT, TSTP, TTIN or TTOU; a blocked HUP, INT, QUIT, ABRT, TERM, CHLD
or PROF is not blocked; a closed standard stream is /dev/null: so far the
runtime of the language that indirect is written in hides how it was started.
Without CAP_SYS_ADMIN, set-user-ID programs run without their owner's rights.`,
		Example: `  indirect run -- make -j8
  indirect run --summary -- python3 server.py
  indirect run --add cloexec,nonseq -- redis-server
  indirect run --exempt sshd --exempt /usr/bin/sudo -- ./start-all
  indirect run --policy policy.yaml --summary=summary.json -- ./service
  indirect run --kernel 3.10 -- ./tests
  indirect run --without openat2,clone3,statx --without-error EPERM -- ./tests
  indirect run --bisect-kernel -- timeout 60 ./tests`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return errors.New(`no command; write "indirect run [flags] -- COMMAND [ARG...]"`)
			}
			return nil
		},
		DisableAutoGenTag: true,
		RunE: func(c *cobra.Command, argv []string) error {
			if err := f.kernel.checkBisect(c.Flags()); err != nil {
				return err
			}
			p, err := f.makePolicy(c.Flags().Changed("add"))
			if err != nil {
				return err
			}
			if f.kernel.bisect {
				return bisectKernel(c.Context(), argv, c.OutOrStdout())
			}
			return f.run(p, argv, c.ErrOrStderr())
		},
	}
	flags := c.Flags()
	flags.SetInterspersed(false) // what follows the command is the command's
	flags.StringVar(&f.add, "add", "cloexec", "give new descriptors these `PROPERTIES`: cloexec, nonblock and nonseq with commas between them, or none")
	flags.StringVar(&f.policy, "policy", "", "read from `FILE` what to add for which program, instead of --add")
	flags.StringArrayVar(&f.exempt, "exempt", nil, "leave the program `NAME` alone, a base name or an absolute path (can be repeated)")
	flags.BoolVar(&f.noExemptShells, "no-exempt-shells", false, "treat shells like other programs")
	flags.BoolVar(&f.noPatch, "no-patch", false, "leave the code of the programs as it is; slower")
	flags.StringVar(&f.summary, "summary", "", "tell at the end what was done, on standard error or as JSON in `FILE` (--summary=FILE)")
	flags.Lookup("summary").NoOptDefVal = toStderr
	f.kernel.register(c)
	complete(c, "add", []string{"cloexec", "nonblock", "nonseq", "cloexec,nonblock", "cloexec,nonseq", "none"})
	return c
}

// maxPolicy is how many bytes of a policy file are read.
const maxPolicy = 1 << 20

// makePolicy returns the policy that the flags ask for.
func (f *runFlags) makePolicy(addGiven bool) (*policy.Policy, error) {
	var p *policy.Policy
	switch {
	case f.policy == "" && !addGiven && (f.kernel.asked() || f.kernel.bisect):
		p = policy.New(0) // an older kernel added nothing
	case f.policy == "":
		w, err := policy.ParseWant(f.add)
		if err != nil {
			return nil, fmt.Errorf("--add: %w", err)
		}
		p = policy.New(w)
	case addGiven:
		return nil, errors.New("--add and --policy exclude each other; write the properties into the policy file, as its add")
	default:
		text, err := readPolicy(f.policy)
		if err != nil {
			return nil, fmt.Errorf("--policy: %w", err)
		}
		if p, err = policy.Parse(f.policy, text, fdcall.Linux()); err != nil {
			return nil, err
		}
	}
	if f.noExemptShells {
		p.ExemptShells(false)
	}
	if err := p.Exempt(f.exempt...); err != nil {
		return nil, fmt.Errorf("--exempt: %w", err)
	}
	if err := p.FollowLinks(); err != nil {
		return nil, err
	}
	return p, nil
}

func readPolicy(name string) ([]byte, error) {
	file, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	text, err := io.ReadAll(io.LimitReader(file, maxPolicy+1))
	switch {
	case err != nil:
		return nil, err
	case len(text) > maxPolicy:
		return nil, fmt.Errorf("%s is larger than %d bytes: it is not a policy", name, maxPolicy)
	}
	return text, nil
}

// run runs the command and returns an [exitStatus], or why it was not started.
func (f *runFlags) run(p *policy.Policy, argv []string, stderr io.Writer) error {
	options := supervise.Options{Policy: p, NoPatch: f.noPatch, Log: stderr}
	refuse, err := f.kernel.apply(&options)
	if err != nil {
		return err
	}
	summary, err := openSummary(f.summary, stderr)
	if err != nil {
		return err
	}
	status, done, err := session.Run(options, argv, refuse)
	if err != nil {
		return err
	}
	if err := summary.write(done); err != nil {
		// The command has run: its status matters more than ours.
		fmt.Fprintln(stderr, "indirect:", oneLine(err))
	}
	return exitStatus(session.ExitStatus(status))
}

// summaryWriter writes what a run did to where the user wants it.
type summaryWriter struct {
	stderr io.Writer
	text   bool     // all of it, to stderr
	json   *os.File // nil: nowhere
}

// openSummary opens the summary's file before the command starts: if it cannot
// be written, that is the time to say so.
func openSummary(name string, stderr io.Writer) (summaryWriter, error) {
	w := summaryWriter{stderr: stderr, text: name == toStderr}
	if name == "" || w.text {
		return w, nil
	}
	file, err := os.Create(name)
	if err != nil {
		return w, fmt.Errorf("--summary: %w", err)
	}
	w.json = file
	return w, nil
}

func (w summaryWriter) write(s supervise.Summary) error {
	if w.json != nil {
		if err := errors.Join(s.WriteJSON(w.json), w.json.Close()); err != nil {
			return err
		}
	}
	if w.text {
		return s.WriteText(w.stderr)
	}
	if missed := s.Missed(); missed > 0 {
		most := slices.MaxFunc(s.NotEnforced, func(a, b supervise.Unenforced) int { return cmp.Compare(a.Count, b.Count) })
		_, err := fmt.Fprintf(w.stderr, "indirect: %d calls ran without their flags, %d of them %s: %s; --summary tells all\n",
			missed, most.Count, most.Call, most.Why)
		return err
	}
	return nil
}

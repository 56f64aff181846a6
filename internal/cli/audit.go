package cli

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/seed-055cd0c8/indirect/internal/recorder"
	"github.com/seed-055cd0c8/indirect/internal/session"
	"github.com/seed-055cd0c8/indirect/policy"
	"github.com/seed-055cd0c8/indirect/supervise"
)

// auditFlags are the flags of "indirect audit".
type auditFlags struct {
	stackDepth int
	follow     bool
	noFollow   bool
}

func newAudit() *cobra.Command {
	var f auditFlags
	c := &cobra.Command{
		Use:   "audit [flags] -- COMMAND [ARG...]",
		Short: "Find the descriptors that reach programs they were not meant for",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return errors.New(`no command; write "indirect audit [flags] -- COMMAND [ARG...]"`)
			}
			return nil
		},
		DisableAutoGenTag: true,
		RunE: func(c *cobra.Command, argv []string) error {
			return f.run(argv, c.ErrOrStderr())
		},
	}
	flags := c.Flags()
	flags.SetInterspersed(false) // what follows the command is the command's
	flags.IntVar(&f.stackDepth, "stack-depth", 32, "keep `N` frames of each stack, 1 to 256")
	flags.BoolVar(&f.follow, "follow", true, "watch the programs that COMMAND executes as well")
	flags.BoolVar(&f.noFollow, "no-follow", false, "watch COMMAND alone")
	c.MarkFlagsMutuallyExclusive("follow", "no-follow")
	return c
}

// run runs the command and returns an [exitStatus], or why it was not started.
func (f *auditFlags) run(argv []string, stderr io.Writer) error {
	rec, err := recorder.New(recorder.Config{StackDepth: f.stackDepth, NoFollow: f.noFollow || !f.follow})
	if err != nil {
		return err
	}
	defer rec.Close()
	status, _, err := session.Run(supervise.Options{
		Policy: policy.New(0), Extensions: []supervise.Extension{rec.Extension()}, Log: stderr,
	}, argv, nil)
	if err != nil {
		return err
	}
	programs := make(map[uint64]*recorder.Program)
	creations := make(map[uint64]*recorder.Creation)
	err = rec.Read(func(e recorder.Entry) error {
		switch {
		case e.Program != nil:
			programs[e.Program.ID] = e.Program
		case e.Creation != nil:
			creations[e.Creation.ID] = e.Creation
		case e.Exec != nil:
			for _, h := range e.Exec.Handed {
				x := "?"
				if c := creations[h.Creation]; c != nil {
					x = fmt.Sprint(c.Origin, " ", c.Call, " ", c.Path, " in ", programs[c.Program].PID, " ", programs[c.Program].Executable)
				}
				fmt.Fprintf(stderr, "== %d %s -> %s (%s): fd %d %s: %s\n", programs[e.Exec.To].PID, programs[e.Exec.From].Executable, programs[e.Exec.To].Executable, strings.Join(programs[e.Exec.To].Argv, " "), h.FD, h.Object.Link, x)
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	return exitStatus(session.ExitStatus(status))
}

// Package cli defines the indirect command: its subcommands, flags and texts.
// The command, its help, its completion and its manual pages are all made from
// these definitions.
package cli

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/seed-055cd0c8/indirect/internal/launch"
	"github.com/seed-055cd0c8/indirect/internal/oldkernel"
	"github.com/seed-055cd0c8/indirect/internal/recorder"
	"github.com/seed-055cd0c8/indirect/supervise"
)

//go:generate go run ./man ../../docs/man

// failure is the exit status for failures of our own, as with env(1) and nohup(1).
const failure = 125

// exitStatus is the status of a command that ended; there is nothing to say about it.
type exitStatus int

func (e exitStatus) Error() string { return fmt.Sprintf("exit status %d", int(e)) }

// Extensions are the handlers that supervisor processes of the command may be
// told to use.
func Extensions() map[string]supervise.Open {
	return map[string]supervise.Open{oldkernel.ExtensionName: oldkernel.Open, recorder.Name: recorder.Open}
}

// Execute runs the command with the given arguments and returns the exit
// status. An error becomes one line on stderr.
func Execute(args []string, stdout, stderr io.Writer) int {
	c := New()
	c.SetArgs(args)
	c.SetOut(stdout)
	c.SetErr(stderr)
	err := c.Execute()
	var ended exitStatus
	var notRun *launch.ExecError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &ended):
		return int(ended)
	}
	fmt.Fprintln(stderr, "indirect:", oneLine(err))
	if errors.As(err, &notRun) {
		return notRun.Status()
	}
	return failure
}

// oneLine returns the first line of an error's text, and how many follow.
func oneLine(err error) string {
	first, rest, more := strings.Cut(strings.TrimSpace(err.Error()), "\n")
	if !more {
		return first
	}
	return fmt.Sprintf("%s (and %d more like it)", first, 1+strings.Count(rest, "\n"))
}

// New returns the definition of the indirect command.
func New() *cobra.Command {
	c := &cobra.Command{
		Use:   "indirect",
		Short: "Give the descriptors of unmodified programs close-on-exec from birth",
		Long: `indirect runs programs so that the file descriptors that they create are
close-on-exec, non-blocking or non-sequential from birth: the flag is set by the
system call that creates the descriptor, and no fork and exec of another thread
can come in between. The programs need not be changed or know of it.`,
		Example: `  indirect run -- make -j8
  indirect run --add cloexec,nonseq --summary -- nginx -g 'daemon off;'
  indirect calls socket accept`,
		Args:              cobra.NoArgs,
		SilenceErrors:     true,
		SilenceUsage:      true,
		DisableAutoGenTag: true,
		RunE: func(c *cobra.Command, _ []string) error {
			return errors.New(`no command; "indirect run -- COMMAND" runs a program, "indirect --help" says what else there is`)
		},
	}
	c.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		return fmt.Errorf("%w; see \"%s --help\"", err, c.CommandPath())
	})
	c.DisableSuggestions = true // they take several lines
	c.AddCommand(newRun(), newAudit(), newProbe(), newCalls(), newInstallHeaders(), newVersion())
	return c
}

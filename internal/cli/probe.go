package cli

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/seed-055cd0c8/indirect/fdcall"
	"github.com/seed-055cd0c8/indirect/internal/probe"
	"github.com/seed-055cd0c8/indirect/syscalls"
)

func newProbe() *cobra.Command {
	var format string
	var required []string
	c := &cobra.Command{
		Use:   "probe [flags] [NAME...]",
		Short: "Find out what this kernel has, by doing it",
		Long: `Try the system calls that create descriptors, and their flags, and say what this
kernel gives, in this container and under this seccomp profile. A call is

  present: it can be made
  absent:  ENOSYS, or an operation that the kernel does not know
  blocked: a seccomp filter answers in the kernel's place, or kills the caller
  denied:  it is there, but the right to use it is lacking
  unknown: it could not be tried

and a flag works, is refused (the call fails) or is ignored (the call succeeds
without it). A filter that answers ENOSYS cannot be told from an old kernel.

Then the mechanisms that "indirect run" uses are tried, and it is said what it
will do here. A NAME is a call ("pipe2"), an operation ("fcntl F_DUPFD_CLOEXEC"),
or any other system call ("close_range"); with NAMEs only those are tried.

The calls are made in a process of their own. Nothing that they do outlives it.

The exit status is 0 if all required calls are present, 1 if one is not, and 125
if indirect itself failed.`,
		Example: `  indirect probe
  indirect probe --format markdown >kernel.md
  indirect probe --require pipe2,close_range || echo "an old kernel"
  indirect probe memfd_secret userfaultfd io_uring_setup`,
		DisableAutoGenTag: true,
		RunE: func(c *cobra.Command, names []string) error {
			if err := probe.CheckFormat(format); err != nil {
				return err
			}
			ctx := c.Context()
			if ctx == nil {
				ctx = context.Background()
			}
			r, err := probe.Find(ctx, slices.Concat(names, required))
			if err != nil {
				return err
			}
			if err := r.Write(c.OutOrStdout(), format); err != nil {
				return err
			}
			if missing := r.Missing(required); missing != nil {
				fmt.Fprintf(c.ErrOrStderr(), "indirect: required, and not there: %s\n", strings.Join(missing, ", "))
				return exitStatus(1)
			}
			return nil
		},
		ValidArgsFunction: func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
			return probeNames(), cobra.ShellCompDirectiveNoFileComp
		},
	}
	f := c.Flags()
	f.StringVar(&format, "format", probe.Formats()[0], "print as `FORMAT`: "+strings.Join(probe.Formats(), ", "))
	f.StringSliceVar(&required, "require", nil, "exit 1 unless the calls `NAMES`, with commas between them, are present")
	complete(c, "format", probe.Formats())
	completeLater(c, "require", probeNames)
	return c
}

// probeNames returns the names that can be probed for.
func probeNames() []string {
	names := syscalls.Names()
	for _, row := range fdcall.Linux().All() {
		if row.Op != "" {
			names = append(names, row.ID())
		}
	}
	return names
}

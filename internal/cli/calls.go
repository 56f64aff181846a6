package cli

import (
	"strings"

	"github.com/spf13/cobra"

	"github.com/seed-055cd0c8/indirect/fdcall"
)

func newCalls() *cobra.Command {
	var format, category string
	c := &cobra.Command{
		Use:   "calls [flags] [NAME...]",
		Short: "Print the system calls that create descriptors",
		Long: `Print the table of Linux system calls that can hand their caller a new file
descriptor: numbers, where the descriptor appears, which argument carries flags,
which call is run instead of one that has none, and the kernel that brought it.

A NAME is a call ("fcntl") or one of its operations ("fcntl F_DUPFD"). Without
one, all calls are printed.

The categories say what a call needed to learn close-on-exec:
` + categories(),
		Example: `  indirect calls
  indirect calls socket pipe "fcntl F_DUPFD"
  indirect calls --category new-call
  indirect calls --format json | jq .`,
		DisableAutoGenTag: true,
		RunE: func(c *cobra.Command, names []string) error {
			calls, err := fdcall.Linux().Select(category, names...)
			if err != nil {
				return err
			}
			return fdcall.Write(c.OutOrStdout(), format, calls)
		},
		ValidArgsFunction: func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
			var names []string
			for _, call := range fdcall.Linux().All() {
				names = append(names, call.Name)
			}
			for _, added := range fdcall.AddedCalls() {
				names = append(names, added.Name)
			}
			return names, cobra.ShellCompDirectiveNoFileComp
		},
	}
	f := c.Flags()
	f.StringVar(&format, "format", fdcall.Formats()[0], "print as `FORMAT`: "+strings.Join(fdcall.Formats(), ", "))
	f.StringVar(&category, "category", "", "print only calls of category `C`")
	complete(c, "format", fdcall.Formats())
	complete(c, "category", fdcall.Categories())
	return c
}

// complete gives a flag's values to shell completion.
func complete(c *cobra.Command, flag string, values []string) {
	if err := c.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(values, cobra.ShellCompDirectiveNoFileComp)); err != nil {
		panic(err) // there is no such flag: a mistake in this package, which every test meets
	}
}

// categories lists the categories and what they mean.
func categories() string {
	var b strings.Builder
	for _, class := range fdcall.Classes() {
		b.WriteString("\n  " + class.String() + ": " + class.Meaning())
	}
	b.WriteString("\n  " + fdcall.AddedCategory + ": " + fdcall.AddedMeaning)
	return b.String()
}

package cli

import (
	"errors"
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

func newVersion() *cobra.Command {
	return &cobra.Command{
		Use:               "version",
		Short:             "Print the version of indirect",
		Long:              "Print the version of indirect, the revision that it was built from if that is known, and the Go release that built it.",
		Example:           "  indirect version",
		Args:              cobra.NoArgs,
		DisableAutoGenTag: true,
		RunE: func(c *cobra.Command, _ []string) error {
			info, ok := debug.ReadBuildInfo()
			if !ok {
				return errors.New("the version is unknown: the executable has no build information; build it with the go command")
			}
			_, err := fmt.Fprintln(c.OutOrStdout(), version(info))
			return err
		},
	}
}

func version(info *debug.BuildInfo) string {
	v := "indirect " + info.Main.Version
	set := make(map[string]string)
	for _, s := range info.Settings {
		set[s.Key] = s.Value
	}
	if revision := set["vcs.revision"]; revision != "" {
		v += " " + revision
	}
	if set["vcs.modified"] == "true" {
		v += " (modified)"
	}
	return fmt.Sprintf("%s %s %s/%s", v, info.GoVersion, runtime.GOOS, runtime.GOARCH)
}

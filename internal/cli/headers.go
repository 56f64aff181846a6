package cli

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"

	"github.com/spf13/cobra"

	"github.com/seed-055cd0c8/indirect/include"
)

func newInstallHeaders() *cobra.Command {
	return &cobra.Command{
		Use:   "install-headers DIR",
		Short: "Install the header for C programs that use indirect(2)",
		Long: `Write indirect.h and a description for pkg-config(1) to DIR/indirect.h and
DIR/pkgconfig/indirect.pc. DIR is created if it does not exist; files of an
earlier version are replaced. The names of the files are printed.

indirect.h has all its code in it: there is no library to link with. It is for
C89 and newer, C++98 and newer. Programs built with it run on any kernel, and
use indirect(2) where they find it.`,
		Example: `  indirect install-headers /usr/local/include
  indirect install-headers ./include && PKG_CONFIG_PATH=include/pkgconfig pkg-config --cflags indirect`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return fmt.Errorf(`install-headers takes one directory, not %d; write "indirect install-headers DIR"`, len(args))
			}
			if args[0] == "" {
				return errors.New(`install-headers: the directory's name is empty; "." is the working directory`)
			}
			return nil
		},
		DisableAutoGenTag: true,
		RunE: func(c *cobra.Command, args []string) error {
			version := "0" // an executable without build information
			if info, ok := debug.ReadBuildInfo(); ok && strings.HasPrefix(info.Main.Version, "v") {
				version = info.Main.Version[1:]
			}
			for _, f := range []struct{ name, text string }{
				{filepath.Join(args[0], "indirect.h"), include.Header()},
				{filepath.Join(args[0], "pkgconfig", "indirect.pc"), include.PkgConfig(version)},
			} {
				if err := replace(f.name, f.text); err != nil {
					return fmt.Errorf("install-headers: %w", err)
				}
				if _, err := fmt.Fprintln(c.OutOrStdout(), f.name); err != nil {
					return err
				}
			}
			return nil
		},
		ValidArgsFunction: func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
			return nil, cobra.ShellCompDirectiveFilterDirs
		},
	}
}

// replace writes a file that all may read. Whoever reads it meanwhile sees
// the old text or the new one. Its directory is made if necessary.
func replace(name, text string) error {
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(name), filepath.Base(name)+".*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // gone already unless something below fails
	_, err = f.WriteString(text)
	if err == nil {
		err = f.Chmod(0o644)
	}
	if closed := f.Close(); err == nil {
		err = closed
	}
	if err != nil {
		return err
	}
	return os.Rename(f.Name(), name)
}

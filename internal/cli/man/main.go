// Man writes the manual pages of the indirect command to the directory that is
// its argument.
package main

import (
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra/doc"

	"github.com/seed-055cd0c8/indirect/internal/cli"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: man DIRECTORY")
		os.Exit(2)
	}
	if err := write(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, "man:", err)
		os.Exit(1)
	}
}

// write writes the pages into an existing directory.
func write(dir string) error {
	edited := time.Date(2026, time.November, 1, 0, 0, 0, 0, time.UTC) // not today: the pages must be reproducible
	header := &doc.GenManHeader{Section: "1", Date: &edited, Source: "indirect", Manual: "User Commands"}
	if err := doc.GenManTree(cli.New(), header, dir); err != nil {
		return fmt.Errorf("write the manual pages to %s: %w", dir, err)
	}
	return nil
}

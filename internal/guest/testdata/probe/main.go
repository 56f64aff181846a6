// Command probe tells where it runs.
package main

import (
	"fmt"
	"os"

	"github.com/seed-055cd0c8/indirect/internal/guest"
)

func main() {
	guest.Main()
	runs, err := guest.RunsI386()
	version, _ := os.ReadFile("/proc/sys/kernel/osrelease")
	fmt.Printf("%s, i386: %v, %v, %q %s", os.Args[1:], runs, err, os.Getenv("WORD"), version)
	os.Exit(3)
}

// Indirect runs programs whose file descriptors get close-on-exec and other
// flags from birth. See "indirect --help".
package main

import (
	"os"

	"github.com/seed-055cd0c8/indirect/internal/cli"
	"github.com/seed-055cd0c8/indirect/internal/launch"
	"github.com/seed-055cd0c8/indirect/internal/probe"
	"github.com/seed-055cd0c8/indirect/supervise"
)

func main() {
	launch.Main()                    // does not return in a launcher process
	supervise.Main(cli.Extensions()) // nor in a supervisor
	probe.Main()
	os.Exit(cli.Execute(os.Args[1:], os.Stdout, os.Stderr))
}

// Command inherited prints the signal state with which it was started.
package main

import (
	"fmt"
	"os"

	"github.com/seed-055cd0c8/indirect/internal/launch/signals"
)

func main() {
	s, err := signals.Inherited()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Printf("%x %x\n", s.Ignored, s.Blocked)
}

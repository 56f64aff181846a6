// Faultconnect runs a command whose third connect(2) fails with ETIMEDOUT, to
// see what it makes of that:
//
//	go run ./examples/faultconnect curl http://127.0.0.1:1/ http://127.0.0.1:2/ http://127.0.0.1:3/
//
// Flags choose another call, error and count.
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/seed-055cd0c8/indirect"
)

func main() {
	call := flag.String("call", "connect", "the system call that fails")
	nth := flag.Int64("nth", 3, "which of its calls fails, counting from 1 over all processes")
	errno := flag.Uint("errno", uint(unix.ETIMEDOUT), "the number of the error")
	flag.Parse()
	if flag.NArg() == 0 {
		fmt.Fprintln(os.Stderr, "usage: faultconnect [-call NAME] [-nth N] [-errno NUMBER] COMMAND [ARG...]")
		os.Exit(2)
	}
	c := indirect.Command(flag.Arg(0), flag.Args()[1:]...)
	c.Stdin, c.Stdout, c.Stderr = os.Stdin, os.Stdout, os.Stderr
	var calls atomic.Int64
	c.Handle(*call, func(ev *indirect.Event) indirect.Decision {
		if calls.Add(1) != *nth {
			return indirect.Continue()
		}
		exe, _ := ev.Executable()
		fmt.Fprintf(os.Stderr, "faultconnect: %s %d of thread %d (%s) fails with %v\n", *call, *nth, ev.TID, exe, unix.Errno(*errno))
		return indirect.Fail(unix.Errno(*errno))
	})
	err := c.Run()
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		os.Exit(exit.ExitCode())
	case err != nil:
		fmt.Fprintln(os.Stderr, "faultconnect:", err)
		os.Exit(1)
	}
}

// Creates a pipe with package fd and prints by which rung it was, and what it got.
package main

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/seed-055cd0c8/indirect/fd"
)

func main() {
	var p [2]int
	if err := fd.Pipe(&p, fd.Nonblock|fd.NonSequential); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	for _, n := range p {
		closing, err := unix.FcntlInt(uintptr(n), unix.F_GETFD, 0)
		status, err1 := unix.FcntlInt(uintptr(n), unix.F_GETFL, 0)
		fmt.Println(fd.Support("pipe2"), closing == unix.FD_CLOEXEC, status&unix.O_NONBLOCK != 0, n > 100, err, err1)
	}
}

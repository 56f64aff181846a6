//go:build linux && (amd64 || arm64 || 386)

package fd_test

import (
	"fmt"
	"io"
	"os/signal"

	"golang.org/x/sys/unix"

	"github.com/seed-055cd0c8/indirect/fd"
)

var notify = signal.Notify

func ExamplePipe() {
	var p [2]int
	if err := fd.Pipe(&p, fd.Nonblock); err != nil {
		fmt.Println(err)
		return
	}
	r, w := fd.File(p[0], "read end"), fd.File(p[1], "write end")
	fmt.Fprint(w, "through the pipe")
	w.Close()
	text, err := io.ReadAll(r)
	fmt.Printf("%s %v\n", text, err)
	r.Close()
	// Output: through the pipe <nil>
}

func ExampleSocketpair() {
	pair, err := fd.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0, 0)
	if err != nil {
		fmt.Println(err)
		return
	}
	a, err := fd.Conn(pair[0]) // the net package's from now on
	if err != nil {
		fmt.Println(err)
		return
	}
	b, err := fd.Conn(pair[1])
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Fprint(a, "hello")
	a.Close()
	text, _ := io.ReadAll(b)
	b.Close()
	fmt.Printf("%s\n", text)
	// Output: hello
}

func ExampleOpen() {
	n, err := fd.Open("/dev/null", unix.O_RDWR, 0, fd.NonSequential)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer unix.Close(n)
	flags, _ := unix.FcntlInt(uintptr(n), unix.F_GETFD, 0)
	fmt.Println(flags == unix.FD_CLOEXEC, n > 100)
	// Output: true true
}

func ExampleSupport() {
	fmt.Println(fd.Support("pipe2"))
	// Output: native flag
}

//go:build linux && (amd64 || arm64 || 386)

package fd_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
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

func ExampleAccept() {
	l, _ := fd.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0, 0)
	defer unix.Close(l)
	if err := errors.Join(unix.Bind(l, &unix.SockaddrUnix{Name: "@fd-example-accept"}), unix.Listen(l, 1)); err != nil {
		fmt.Println(err)
		return
	}
	c, _ := fd.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0, 0)
	defer unix.Close(c)
	fmt.Println(unix.Connect(c, &unix.SockaddrUnix{Name: "@fd-example-accept"}))
	n, err := fd.Accept(l, fd.Nonblock)
	fmt.Println(err)
	unix.Close(n)
	// Output:
	// <nil>
	// <nil>
}

func ExamplePaccept() {
	l, _ := fd.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0, fd.Nonblock)
	defer unix.Close(l)
	if err := errors.Join(unix.Bind(l, &unix.SockaddrUnix{Name: "@fd-example-paccept"}), unix.Listen(l, 1)); err != nil {
		fmt.Println(err)
		return
	}
	var mask unix.Sigset_t // nothing is blocked while it waits
	_, err := fd.Paccept(l, &mask, 0)
	fmt.Println(err)
	// Output: resource temporarily unavailable
}

func ExampleRecvmsg() {
	pair, err := fd.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0, 0)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer unix.Close(pair[0])
	defer unix.Close(pair[1])
	null, _ := fd.Open("/dev/null", unix.O_RDONLY, 0, 0)
	_, err = fd.Sendmsg(pair[0], []byte("x"), []int{null, null}, nil, 0)
	unix.Close(null)
	fmt.Println(err)
	m, err := fd.Recvmsg(pair[1], make([]byte, 1), 2, 0, 0)
	fmt.Println(len(m.FDs), err)
	for _, n := range m.FDs {
		unix.Close(n)
	}
	// Output:
	// <nil>
	// 2 <nil>
}

func ExampleDup() {
	n, err := fd.Dup(0, 0)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer unix.Close(n)
	flags, _ := unix.FcntlInt(uintptr(n), unix.F_GETFD, 0)
	fmt.Println(flags == unix.FD_CLOEXEC)
	// Output: true
}

func ExampleDupTo() {
	const number = 200
	fmt.Println(fd.DupTo(0, number, fd.Inheritable)) // for a program that expects it there
	unix.Close(number)
	// Output: <nil>
}

func ExampleEventfd() {
	n, err := fd.Eventfd(3, 0, 0)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer unix.Close(n)
	b := make([]byte, 8)
	unix.Read(n, b)
	fmt.Println(binary.NativeEndian.Uint64(b))
	// Output: 3
}

func ExampleTimerfdCreate() {
	n, err := fd.TimerfdCreate(unix.CLOCK_MONOTONIC, 0)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer unix.Close(n)
	soon := unix.ItimerSpec{Value: unix.NsecToTimespec(1)}
	fmt.Println(unix.TimerfdSettime(n, 0, &soon, nil))
	b := make([]byte, 8)
	unix.Read(n, b)
	fmt.Println(binary.NativeEndian.Uint64(b))
	// Output:
	// <nil>
	// 1
}

func ExampleMemfdCreate() {
	n, err := fd.MemfdCreate("example", 0, 0)
	if err != nil {
		fmt.Println(err)
		return
	}
	f := fd.File(n, "example")
	defer f.Close()
	fmt.Fprint(f, "in memory")
	b := make([]byte, 20)
	k, _ := f.ReadAt(b, 0)
	fmt.Println(string(b[:k]))
	// Output: in memory
}

func ExampleEpollCreate() {
	e, err := fd.EpollCreate(0)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer unix.Close(e)
	n, _ := fd.Eventfd(1, 0, 0)
	defer unix.Close(n)
	fmt.Println(unix.EpollCtl(e, unix.EPOLL_CTL_ADD, n, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(n)}))
	ready := make([]unix.EpollEvent, 1)
	k, err := unix.EpollWait(e, ready, -1)
	fmt.Println(k, err)
	// Output:
	// <nil>
	// 1 <nil>
}

func ExampleInotifyInit() {
	n, err := fd.InotifyInit(fd.Nonblock)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer unix.Close(n)
	_, err = unix.Read(n, make([]byte, 1024))
	fmt.Println(err)
	// Output: resource temporarily unavailable
}

func ExampleSignalfd() {
	var mask unix.Sigset_t
	n, err := fd.Signalfd(&mask, fd.Nonblock)
	fmt.Println(err)
	unix.Close(n)
	// Output: <nil>
}

func ExamplePidfdOpen() {
	n, err := fd.PidfdOpen(os.Getpid(), 0, 0)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer unix.Close(n)
	fmt.Println(unix.PidfdSendSignal(n, 0, nil, 0))
	// Output: <nil>
}

func ExampleLeaks() {
	known, _ := fd.Leaks()
	n, _ := fd.Open("/dev/null", unix.O_RDONLY, 0, fd.Inheritable)
	defer unix.Close(n)
	leaks, err := fd.Leaks()
	fmt.Println(len(leaks)-len(known), err)
	// Output: 1 <nil>
}

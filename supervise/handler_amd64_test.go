package supervise_test

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/seed-055cd0c8/indirect/fdcall"
	"github.com/seed-055cd0c8/indirect/internal/launch"
	"github.com/seed-055cd0c8/indirect/internal/launch/signals"
	"github.com/seed-055cd0c8/indirect/policy"
	"github.com/seed-055cd0c8/indirect/supervise"
)

// childName is argv[0] of the program that the tests run under a supervisor.
const childName = "handled"

func TestMain(m *testing.M) {
	launch.Main()
	supervise.Main(map[string]supervise.Open{"test": openTestHandler})
	if os.Args[0] == childName {
		os.Exit(handled(os.Args[1]))
	}
	os.Exit(m.Run())
}

// Numbers that no kernel has.
const (
	nrAnswer = 3000 + iota
	nrRefuse
	nrWrite
	nrOpen
	nrUnknown
)

type testHandler struct{ file *os.File }

func openTestHandler(config json.RawMessage, file *os.File) (supervise.Handler, error) {
	var greeting string
	if err := json.Unmarshal(config, &greeting); err != nil || greeting != "hello" {
		return nil, fmt.Errorf("the configuration arrived as %s: %v", config, err)
	}
	return testHandler{file}, nil
}

func (h testHandler) Handle(ev *supervise.Event) supervise.Decision {
	switch ev.Nr {
	case nrAnswer:
		return supervise.Return(int64(ev.Args[0]) * 2)
	case nrRefuse:
		return supervise.Fail(unix.EXDEV)
	case nrWrite:
		s, err := ev.String(ev.Args[0], 16)
		if err == nil {
			err = ev.Write(ev.Args[1], []byte(strings.ToUpper(s)))
		}
		var errno unix.Errno
		if errors.As(err, &errno) {
			return supervise.Fail(errno)
		}
		return supervise.Return(int64(len(s)))
	case nrOpen:
		fd, err := unix.Dup(int(h.file.Fd()))
		if err != nil {
			return supervise.Fail(unix.EMFILE)
		}
		return supervise.Install(os.NewFile(uintptr(fd), "content"), ev.Args[0] != 0)
	case unix.SYS_GETPPID:
		return supervise.Run(unix.SYS_FCNTL, [6]uint64{0, unix.F_GETFD})
	case unix.SYS_READV:
		return h.readOrDie(ev)
	case unix.SYS_UNAME:
		return supervise.Continue().Watch(ev, nil, func(a *supervise.Attached, result int64) int64 {
			if result == 0 {
				if a.Write(ev.Args[0]+2*65, []byte("1.2.3\x00")) != nil {
					return -int64(unix.EIO)
				}
			}
			return result
		})
	}
	return supervise.Continue()
}

// watched is added to the result of a call that a handler has watched to its end.
const watched = 1000

// readOrDie has a readv of one piece made as a read. The first supervisor dies
// with the call in hand, the second one while it blocks.
func (h testHandler) readOrDie(ev *supervise.Event) supervise.Decision {
	die := func() { unix.Kill(os.Getpid(), unix.SIGKILL) }
	iovec := make([]byte, 16)
	info, err := h.file.Stat()
	if err = errors.Join(err, ev.Read(ev.Args[1], iovec)); err != nil {
		return supervise.Fail(unix.EIO)
	}
	const second = 1
	switch size := info.Size(); {
	case size > second:
		if h.file.Truncate(second) == nil {
			die()
		}
	case size == second:
		if h.file.Truncate(0) == nil {
			time.AfterFunc(50*time.Millisecond, die)
		}
	}
	args := [6]uint64{ev.Args[0], binary.LittleEndian.Uint64(iovec), binary.LittleEndian.Uint64(iovec[8:])}
	return supervise.Run(unix.SYS_READ, args).Watch(ev, nil, func(_ *supervise.Attached, result int64) int64 {
		return result + watched
	})
}

// handled makes the calls that the handler decides about, and returns 0 if
// each gave what it should.
func handled(what string) int {
	complain := func(format string, args ...any) int {
		fmt.Fprintf(os.Stderr, format+"\n", args...)
		return 1
	}
	call := func(nr, a, b uintptr) (int, unix.Errno) {
		r, _, errno := unix.Syscall(nr, a, b, 0)
		return int(r), errno
	}
	for range 3 { // the same call site again
		switch what {
		case "answer":
			if r, errno := call(nrAnswer, 21, 0); r != 42 || errno != 0 {
				return complain("%d, %v", r, errno)
			}
		case "refuse":
			if _, errno := call(nrRefuse, 0, 0); errno != unix.EXDEV {
				return complain("%v", errno)
			}
		case "write":
			from, to := []byte("abc\x00"), make([]byte, 3)
			if r, _, errno := unix.Syscall(nrWrite, uintptr(unsafe.Pointer(&from[0])), uintptr(unsafe.Pointer(&to[0])), 0); r != 3 || errno != 0 || string(to) != "ABC" {
				return complain("%d, %v, %q", r, errno, to)
			}
			if _, _, errno := unix.Syscall(nrWrite, uintptr(unsafe.Pointer(&from[0])), uintptr(unsafe.Pointer(unsafe.StringData(childName))), 0); errno != unix.EFAULT {
				return complain("a write to read-only memory: %v", errno)
			}
			if _, errno := call(nrWrite, 16, 16); errno != unix.EFAULT {
				return complain("a read of nothing: %v", errno)
			}
		case "install":
			for _, cloexec := range []uintptr{0, 1} {
				fd, errno := call(nrOpen, cloexec, 0)
				if errno != 0 {
					return complain("%v", errno)
				}
				flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
				b := make([]byte, 8)
				n, errRead := unix.Pread(fd, b, 0)
				if err != nil || flags != int(cloexec) || errRead != nil || string(b[:n]) != "content" {
					return complain("%d, %v, %q, %v", flags, err, b, errRead)
				}
			}
		case "full":
			unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{})
			if _, errno := call(nrOpen, 0, 0); errno != unix.EMFILE {
				return complain("%v", errno)
			}
		case "run":
			if r, errno := call(unix.SYS_GETPPID, 0, 0); r != 0 || errno != 0 {
				return complain("%d, %v", r, errno)
			}
		case "watch":
			var u unix.Utsname
			if err := unix.Uname(&u); err != nil || unix.ByteSliceToString(u.Release[:]) != "1.2.3" {
				return complain("%v, %s", err, u.Release)
			}
			if _, errno := call(unix.SYS_UNAME, 16, 0); errno != unix.EFAULT {
				return complain("%v", errno)
			}
		case "successor":
			if err := readWhileOthersCall(); err != nil {
				return complain("%v", err)
			}
		case "continue":
			if _, errno := call(nrUnknown, 0, 0); errno != unix.ENOSYS {
				return complain("%v", errno)
			}
			// A call of the table that the handler lets go on gets its flags.
			fd, errno := call(unix.SYS_DUP, 2, 0)
			if errno != 0 {
				return complain("%v", errno)
			}
			if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err != nil || flags != unix.FD_CLOEXEC {
				return complain("%d, %v", flags, err)
			}
		}
	}
	return 0
}

// readWhileOthersCall blocks in a call that two supervisors die of (see
// readOrDie), while another thread makes calls that have to be answered before
// the first can return.
func readWhileOthersCall() error {
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
		return err
	}
	defer unix.Close(p[0])
	defer unix.Close(p[1])
	read := make(chan error, 1)
	go func() {
		b := make([]byte, 2)
		n, err := unix.Readv(p[0], [][]byte{b})
		if err == nil && n != 1+watched {
			err = fmt.Errorf("readv read %d bytes", n)
		}
		read <- err
	}()
	for range 300 {
		fd, err := unix.Dup(2)
		if err != nil {
			return err
		}
		unix.Close(fd)
		time.Sleep(time.Millisecond)
	}
	if _, err := unix.Write(p[1], []byte{1}); err != nil {
		return err
	}
	return <-read
}

func TestHandler(t *testing.T) {
	for _, what := range []string{"answer", "refuse", "write", "install", "full", "run", "watch", "successor", "continue"} {
		t.Run(what, func(t *testing.T) { supervised(t, what) })
	}
}

// supervised runs the test program under a supervisor with the test's handler.
func supervised(t *testing.T, what string) {
	t.Helper()
	content, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer content.Close()
	if _, err := content.WriteString("content"); err != nil {
		t.Fatal(err)
	}
	only := func(nr int32) supervise.Trap {
		return supervise.Trap{Nr: fdcall.Numbers{nr, fdcall.None, fdcall.None, fdcall.None}}
	}
	s, err := supervise.New(supervise.Options{Policy: policy.New(fdcall.Cloexec), Extensions: []supervise.Extension{{
		Name: "test", Config: json.RawMessage(`"hello"`), File: content,
		Traps: []supervise.Trap{
			supervise.Everywhere(nrAnswer), supervise.Everywhere(nrRefuse), supervise.Everywhere(nrWrite),
			supervise.Everywhere(nrOpen), supervise.Everywhere(nrUnknown),
			only(unix.SYS_GETPPID), only(unix.SYS_UNAME), only(unix.SYS_DUP), only(unix.SYS_READV),
		},
	}}})
	if err != nil {
		t.Fatal(err)
	}
	inherited, err := signals.Inherited()
	if err != nil {
		t.Fatal(err)
	}
	command, err := launch.Start(launch.Spec{
		Path: "/proc/self/exe", Args: []string{childName, what}, Env: launch.Environ(), Filter: s.Filter(), Signals: inherited,
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Start(command.Listener()); err != nil {
		command.Abort()
		t.Fatal(err)
	}
	defer s.Close()
	if err := command.Release(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	status, err := command.Wait(ctx)
	if err != nil {
		command.Signal(unix.SIGKILL, nil)
	}
	if err != nil || status.ExitStatus() != 0 {
		t.Errorf("the program ended with %#x, %v", status, err)
	}
}

package indirect_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/seed-055cd0c8/indirect"
	"github.com/seed-055cd0c8/indirect/fdcall"
)

// programName is argv[1] of the program that the tests run, which is this one.
const programName = "test-program"

func TestMain(m *testing.M) {
	if len(os.Args) > 2 && os.Args[1] == programName {
		if err := programs[os.Args[2]](); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

const (
	nrGreet = 3000 + iota
	nrOpen
)

var programs = map[string]func() error{
	"cloexec": func() error {
		fd, err := unix.Open("/dev/null", unix.O_RDONLY, 0)
		if err != nil {
			return err
		}
		flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
		fmt.Print(flags)
		return err
	},
	"call": func() error {
		if !indirect.Available() {
			return errors.New("indirect(2) is not available")
		}
		regs := &indirect.Registers{Nr: unix.SYS_EVENTFD, Args: [6]uintptr{7}}
		fd, err := indirect.Call(regs, &indirect.Params{Flags: unix.O_CLOEXEC | unix.O_NONBLOCK | indirect.ONonseqfd})
		if err != nil {
			return err
		}
		closing, err := unix.FcntlInt(fd, unix.F_GETFD, 0)
		status, err1 := unix.FcntlInt(fd, unix.F_GETFL, 0)
		fmt.Print(closing, status&unix.O_NONBLOCK != 0, fd > 100)
		_, err2 := indirect.Call(&indirect.Registers{Nr: unix.SYS_GETPID}, &indirect.Params{})
		if err2 != unix.EINVAL {
			return fmt.Errorf("getpid: %v", err2)
		}
		return errors.Join(err, err1)
	},
	"connect": func() error {
		for range 4 {
			fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				return err
			}
			fmt.Print(unix.Connect(fd, &unix.SockaddrUnix{Name: "/nowhere"}), ";")
			unix.Close(fd)
		}
		return nil
	},
	"greet": func() error {
		name, out := []byte("world\x00"), make([]byte, 100_000)
		n, _, errno := unix.Syscall(nrGreet, uintptr(unsafe.Pointer(&name[0])), uintptr(unsafe.Pointer(&out[0])), uintptr(len(out)))
		fmt.Printf("%s %d", out[:12], strings.Count(string(out[:n]), "o"))
		if errno != 0 {
			return errno
		}
		if _, _, errno = unix.Syscall(nrGreet, 8, 8, 8); errno != unix.EFAULT {
			return fmt.Errorf("a bad address: %v", errno)
		}
		return nil
	},
	"open": func() error {
		fd, _, errno := unix.Syscall(nrOpen, 0, 0, 0)
		if errno != 0 {
			return errno
		}
		b := make([]byte, 20)
		n, err := unix.Read(int(fd), b)
		fmt.Printf("%s", b[:n])
		return err
	},
	"uname": func() error {
		var u unix.Utsname
		err := unix.Uname(&u)
		fmt.Print(unix.ByteSliceToString(u.Release[:]), " ", unix.Getppid())
		return err
	},
	"inherits": func() error {
		b := make([]byte, 10)
		n, err := os.NewFile(3, "extra").Read(b)
		fmt.Printf("%s %s %s", b[:n], os.Getenv("NAME"), filepath.Base(wd()))
		return err
	},
}

func wd() string {
	d, _ := os.Getwd()
	return d
}

// program describes the named program.
func program(t *testing.T, name string) *indirect.Cmd {
	t.Helper()
	c := indirect.CommandContext(t.Context(), "/proc/self/exe", programName, name)
	c.Stderr = os.Stderr
	return c
}

func output(t *testing.T, c *indirect.Cmd, want string) {
	t.Helper()
	out, err := c.Output()
	if err != nil || string(out) != want {
		t.Errorf("%q, %v; want %q", out, err, want)
	}
}

func TestCommandAdds(t *testing.T) {
	t.Parallel()
	c := program(t, "cloexec")
	output(t, c, "0")
	c = program(t, "cloexec")
	c.Add = indirect.Cloexec
	output(t, c, "1")
	if s := c.Summary(); s.Processes == 0 || len(s.Calls) == 0 {
		t.Errorf("summary: %+v", s)
	}
}

func TestCommandIsLikeExec(t *testing.T) {
	t.Parallel()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprint(w, "extra")
	w.Close()
	dir := filepath.Join(t.TempDir(), "here")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	c := program(t, "inherits")
	c.ExtraFiles, c.Env, c.Dir = []*os.File{r}, []string{"NAME=value"}, dir
	output(t, c, "extra value here")
	r.Close()

	var exit *exec.ExitError
	if err := indirect.Command("sh", "-c", "exit 7").Run(); !errors.As(err, &exit) || exit.ExitCode() != 7 {
		t.Errorf("exit 7: %v", err)
	}
	if err := indirect.Command("sh", "-c", "kill -TERM $$").Run(); !errors.As(err, &exit) || exit.ExitCode() != 143 {
		t.Errorf("a signal: %v", err)
	}
	var not *indirect.NotRunError
	if err := indirect.Command("/nowhere/at/all").Run(); !errors.As(err, &not) || !strings.Contains(err.Error(), "/nowhere/at/all") {
		t.Errorf("no such program: %v", err)
	}
}

func TestCall(t *testing.T) {
	t.Parallel()
	output(t, program(t, "call"), "1 true true")
}

func TestCallBare(t *testing.T) {
	if _, err := indirect.Call(&indirect.Registers{Nr: unix.SYS_EVENTFD}, &indirect.Params{}); err != unix.ENOSYS || indirect.Available() {
		t.Errorf("on a bare kernel: %v", err)
	}
}

func TestHandle(t *testing.T) {
	t.Parallel()
	t.Run("fail the third", func(t *testing.T) {
		t.Parallel()
		var calls atomic.Int32
		c := program(t, "connect")
		c.Handle("connect", func(ev *indirect.Event) indirect.Decision {
			if calls.Add(1) == 3 {
				return indirect.Fail(unix.ETIMEDOUT)
			}
			return indirect.Continue()
		})
		no, slow := unix.ENOENT, unix.ETIMEDOUT
		output(t, c, fmt.Sprint(no, ";", no, ";", slow, ";", no, ";"))
	})
	t.Run("memory", func(t *testing.T) {
		t.Parallel()
		c := program(t, "greet")
		c.HandleNumber(nrGreet, func(ev *indirect.Event) indirect.Decision {
			name, err := ev.String(ev.Args[0], 20)
			text := []byte("hello " + name + strings.Repeat("o", 80_000))
			if err == nil {
				err = ev.Write(ev.Args[1], text)
			}
			back := make([]byte, len(text))
			if err == nil {
				err = ev.Read(ev.Args[1], back)
			}
			var errno unix.Errno
			switch {
			case errors.As(err, &errno):
				return indirect.Fail(errno)
			case err != nil || string(back) != string(text) || !ev.Valid():
				return indirect.Fail(unix.EIO)
			}
			if exe, err := ev.Executable(); err != nil || exe == "" {
				return indirect.Fail(unix.ESRCH)
			}
			if p, err := ev.Process(); err != nil || p == 0 {
				return indirect.Fail(unix.ESRCH)
			}
			return indirect.Return(int64(len(text)))
		})
		output(t, c, "hello worldo 80002")
	})
	t.Run("install", func(t *testing.T) {
		t.Parallel()
		c := program(t, "open")
		c.HandleNumber(nrOpen, func(ev *indirect.Event) indirect.Decision {
			r, w, err := os.Pipe()
			if err != nil {
				return indirect.Fail(unix.EMFILE)
			}
			fmt.Fprint(w, "piped")
			w.Close()
			return indirect.Install(r, true)
		})
		output(t, c, "piped")
	})
	t.Run("then", func(t *testing.T) {
		t.Parallel()
		c := program(t, "uname")
		c.Handle("uname", func(ev *indirect.Event) indirect.Decision {
			return indirect.Continue().Then(func(ev *indirect.Event, result int64) int64 {
				const release = 2 * 65
				if err := ev.Write(ev.Args[0]+release, []byte("0.99\x00")); err != nil {
					return -int64(unix.EFAULT)
				}
				return result
			})
		})
		c.Handle("getppid", func(*indirect.Event) indirect.Decision {
			return indirect.RunInstead(unix.SYS_FCNTL, [6]uint64{0, unix.F_GETFD})
		})
		output(t, c, "0.99 0")
	})
	t.Run("condition", func(t *testing.T) {
		t.Parallel()
		c := program(t, "connect")
		c.Handle("connect", func(*indirect.Event) indirect.Decision { return indirect.Fail(unix.ETIMEDOUT) },
			fdcall.Cond{Arg: 2, Mask: ^uint64(0), Value: 12345})
		no := unix.ENOENT
		output(t, c, fmt.Sprint(no, ";", no, ";", no, ";", no, ";"))
	})
	t.Run("no such call", func(t *testing.T) {
		t.Parallel()
		c := program(t, "connect")
		c.Handle("conect", nil)
		if err := c.Run(); err == nil || !strings.Contains(err.Error(), "did you mean connect") {
			t.Errorf("%v", err)
		}
	})
}

//go:build linux && (amd64 || arm64 || 386)

package fd_test

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/seed-055cd0c8/indirect/fd"
	"github.com/seed-055cd0c8/indirect/fd/fdtest"
	"github.com/seed-055cd0c8/indirect/fdcall"
	"github.com/seed-055cd0c8/indirect/internal/filter"
)

// TestMain also is the programs that tests start.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 {
		switch os.Args[1] {
		case "count-inherited":
			leaks, err := fd.Leaks()
			if err != nil {
				os.Exit(2)
			}
			if known, err := strconv.Atoi(os.Args[2]); err != nil || len(leaks) > known {
				fmt.Println(leaks)
				os.Exit(1)
			}
			os.Exit(0)
		case "without":
			if err := without(os.Args[2]); err != nil {
				fmt.Fprintln(os.Stderr, err)
				os.Exit(1)
			}
			os.Exit(0)
		}
	}
	os.Exit(m.Run())
}

// kind creates a descriptor.
type kind struct {
	name     string // of the call, for Support
	create   func(fd.Props) (int, error)
	blocking bool // O_NONBLOCK is refused, or has no meaning
	rare     bool // this kernel, container or user may not have it
}

func kinds(t testing.TB) []kind {
	dir := t.TempDir()
	pipe := func(p fd.Props) (int, error) {
		var pair [2]int
		if err := fd.Pipe(&pair, p); err != nil {
			return -1, err
		}
		unix.Close(pair[1])
		return pair[0], nil
	}
	return []kind{
		{name: "openat", create: func(p fd.Props) (int, error) { return fd.Open("/dev/null", unix.O_RDWR, 0, p) }},
		{name: "openat", create: func(p fd.Props) (int, error) { return fd.Creat(filepath.Join(dir, "file"), 0o600, p) }},
		{name: "openat2", rare: true, create: func(p fd.Props) (int, error) {
			return fd.Openat2(unix.AT_FDCWD, "/dev/null", &unix.OpenHow{Flags: unix.O_RDONLY}, p)
		}},
		{name: "pipe2", create: pipe},
		{name: "fcntl F_DUPFD_CLOEXEC", blocking: true, create: func(p fd.Props) (int, error) { return fd.Dup(0, p) }},
		{name: "socket", create: func(p fd.Props) (int, error) { return fd.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0, p) }},
		{name: "socketpair", create: func(p fd.Props) (int, error) {
			pair, err := fd.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0, p)
			unix.Close(pair[1])
			return pair[0], err
		}},
		{name: "accept4", create: func(p fd.Props) (int, error) { return accepted(t, func(l int) (int, error) { return fd.Accept(l, p) }) }},
		{name: "accept4", create: func(p fd.Props) (int, error) {
			return accepted(t, func(l int) (int, error) { return fd.Paccept(l, new(unix.Sigset_t), p) })
		}},
		{name: "epoll_create1", create: fd.EpollCreate},
		{name: "eventfd2", create: func(p fd.Props) (int, error) { return fd.Eventfd(3, 0, p) }},
		{name: "signalfd4", create: func(p fd.Props) (int, error) { return fd.Signalfd(new(unix.Sigset_t), p) }},
		{name: "timerfd_create", create: func(p fd.Props) (int, error) { return fd.TimerfdCreate(unix.CLOCK_MONOTONIC, p) }},
		{name: "inotify_init1", create: fd.InotifyInit},
		{name: "fanotify_init", rare: true, create: func(p fd.Props) (int, error) { return fd.FanotifyInit(unix.FAN_CLASS_NOTIF, 0, p) }},
		{name: "memfd_create", create: func(p fd.Props) (int, error) { return fd.MemfdCreate("test", 0, p) }},
		{name: "memfd_secret", rare: true, create: func(p fd.Props) (int, error) { return fd.MemfdSecret(0, p) }},
		{name: "userfaultfd", rare: true, create: func(p fd.Props) (int, error) { return fd.Userfaultfd(1, p) }},
		{name: "perf_event_open", rare: true, create: func(p fd.Props) (int, error) {
			return fd.PerfEventOpen(&unix.PerfEventAttr{Type: unix.PERF_TYPE_SOFTWARE, Config: unix.PERF_COUNT_SW_DUMMY, Size: uint32(unsafe.Sizeof(unix.PerfEventAttr{}))}, 0, -1, -1, 0, p)
		}},
		{name: "pidfd_open", rare: true, create: func(p fd.Props) (int, error) { return fd.PidfdOpen(os.Getpid(), 0, p) }},
		{name: "io_uring_setup", rare: true, create: func(p fd.Props) (int, error) {
			return fd.IoUringSetup(1, unsafe.Pointer(new([120]byte)), p)
		}},
		{name: "landlock_create_ruleset", rare: true, create: func(p fd.Props) (int, error) {
			handled := new(uint64)
			*handled = 1
			return fd.LandlockCreateRuleset(unsafe.Pointer(handled), 8, p)
		}},
		{name: "mq_open", rare: true, create: func(p fd.Props) (int, error) {
			name := "indirect-fd-" + strconv.Itoa(os.Getpid())
			n, err := fd.MqOpen(name, unix.O_CREAT|unix.O_RDWR, 0o600, nil, p)
			c, _ := unix.BytePtrFromString(name)
			unix.Syscall(unix.SYS_MQ_UNLINK, uintptr(unsafe.Pointer(c)), 0, 0)
			return n, err
		}},
		{name: "open_tree", rare: true, blocking: true, create: func(p fd.Props) (int, error) { return fd.OpenTree(unix.AT_FDCWD, "/", 0, p) }},
		{name: "fsopen", rare: true, create: func(p fd.Props) (int, error) { return fd.Fsopen("tmpfs", 0, p) }},
		{name: "ioctl NS_GET_USERNS", rare: true, blocking: true, create: func(p fd.Props) (int, error) {
			ns, err := fd.Open("/proc/self/ns/net", unix.O_RDONLY, 0, 0)
			if err != nil {
				return -1, err
			}
			defer unix.Close(ns)
			return fd.Create("ioctl NS_GET_USERNS", p, [6]uintptr{uintptr(ns), 0xb701})
		}},
		{name: "ioctl TIOCGPTPEER", create: func(p fd.Props) (int, error) {
			ptmx, err := fd.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY, 0, 0)
			if err != nil {
				return -1, err
			}
			defer unix.Close(ptmx)
			unlock := new(int32)
			if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(ptmx), unix.TIOCSPTLCK, uintptr(unsafe.Pointer(unlock))); errno != 0 {
				return -1, errno
			}
			return fd.PtyPeer(ptmx, unix.O_RDWR|unix.O_NOCTTY, p)
		}},
	}
}

// accepted calls accept with a listening socket that has a connection.
func accepted(t testing.TB, accept func(int) (int, error)) (int, error) {
	t.Helper()
	l, err := fd.Socket(unix.AF_INET, unix.SOCK_STREAM, 0, 0)
	if err != nil {
		return -1, err
	}
	defer unix.Close(l)
	if err := errors.Join(unix.Bind(l, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}), unix.Listen(l, 1)); err != nil {
		t.Fatal(err)
	}
	to, err := unix.Getsockname(l)
	if err != nil {
		t.Fatal(err)
	}
	c, err := fd.Socket(unix.AF_INET, unix.SOCK_STREAM, 0, 0)
	if err != nil {
		return -1, err
	}
	defer unix.Close(c)
	if err := unix.Connect(c, to); err != nil {
		t.Fatal(err)
	}
	return accept(l)
}

// check closes a descriptor that was created with props, and tells what it lacks.
func check(n int, p fd.Props, k kind) error {
	defer unix.Close(n)
	flags, err := unix.FcntlInt(uintptr(n), unix.F_GETFD, 0)
	if err != nil || (flags&unix.FD_CLOEXEC != 0) != (p&fd.Inheritable == 0) {
		return fmt.Errorf("%s with %03b: descriptor flags %d, %v", k.name, p, flags, err)
	}
	status, err := unix.FcntlInt(uintptr(n), unix.F_GETFL, 0)
	if err != nil || !k.blocking && (status&unix.O_NONBLOCK != 0) != (p&fd.Nonblock != 0) {
		return fmt.Errorf("%s with %03b: status flags %o, %v", k.name, p, status, err)
	}
	if p&fd.NonSequential != 0 && n < 64 {
		return fmt.Errorf("%s with %03b: number %d", k.name, p, n)
	}
	return nil
}

func TestEveryKind(t *testing.T) {
	fdtest.NoLeaks(t)
	for _, k := range kinds(t) {
		for p := range fd.Inheritable | fd.Nonblock | fd.NonSequential + 1 {
			if k.blocking {
				p &^= fd.Nonblock
			}
			n, err := k.create(p)
			if err != nil {
				if !k.rare {
					t.Errorf("%s with %03b: %v", k.name, p, err)
				}
				continue
			}
			if err := check(n, p, k); err != nil {
				t.Error(err)
			}
		}
		if got := fd.Support(k.name); got == fd.Absent && !k.rare || got == fd.Fcntl {
			t.Errorf("%s is on the rung %q", k.name, got)
		}
	}
	if got := fd.Support("no such call"); got != fd.Absent {
		t.Errorf("a call that is none: %s", got)
	}
}

func TestErrorsAreTheKernels(t *testing.T) {
	fdtest.NoLeaks(t)
	fail := func(n int, err error) error {
		if n >= 0 && err == nil {
			unix.Close(n)
		}
		return err
	}
	for _, tt := range []struct {
		what string
		err  error
		want unix.Errno
	}{
		{"open", fail(fd.Open("/nowhere/at/all", 0, 0, 0)), unix.ENOENT},
		{"a string with a zero byte", fail(fd.Open("a\x00b", 0, 0, 0)), unix.EINVAL},
		{"socket", fail(fd.Socket(9999, unix.SOCK_STREAM, 0, 0)), unix.EAFNOSUPPORT},
		{"socket type", fail(fd.Socket(unix.AF_UNIX, 77, 0, 0)), unix.EINVAL},
		{"dup", fail(fd.Dup(-1, 0)), unix.EBADF},
		{"dup nonblock", fail(fd.Dup(0, fd.Nonblock)), unix.EINVAL},
		{"dup to", fd.DupTo(0, 0, 0), unix.EINVAL},
		{"dup to nonseq", fd.DupTo(0, 100, fd.NonSequential), unix.EINVAL},
		{"accept", fail(fd.Accept(-1, 0)), unix.EBADF},
		{"paccept", fail(fd.Paccept(0, new(unix.Sigset_t), 0)), unix.ENOTSOCK},
		{"timerfd", fail(fd.TimerfdCreate(999, 0)), unix.EINVAL},
		{"no such call", fail(fd.Create("frobnicate", 0, [6]uintptr{})), unix.ENOSYS},
		{"a pair", fail(fd.Create("pipe", 0, [6]uintptr{})), unix.ENOSYS},
		{"create", fail(fd.Create("pidfd_getfd", 0, [6]uintptr{^uintptr(0)})), unix.EBADF},
		{"memfd", fail(fd.MemfdCreate(strings.Repeat("x", 300), 0, 0)), unix.EINVAL},
	} {
		if tt.err != tt.want {
			t.Errorf("%s: %v, want %v", tt.what, tt.err, tt.want)
		}
	}
}

func TestDupTo(t *testing.T) {
	fdtest.NoLeaks(t)
	for _, p := range []fd.Props{0, fd.Inheritable} {
		const target = 345
		if err := fd.DupTo(0, target, p); err != nil {
			t.Fatal(err)
		}
		if err := check(target, p, kind{name: "dup3", blocking: true}); err != nil {
			t.Error(err)
		}
	}
}

// refusedCalls are what older kernels and containers refuse, by what the next
// rung needs.
var refusedCalls = []string{
	"pipe2", "accept4", "eventfd2", "epoll_create1", "inotify_init1", "signalfd4", "dup3", "fcntl F_DUPFD_CLOEXEC",
	"socket", "socketpair", "timerfd_create", "memfd_create",
}

// without runs in a process of its own whose seccomp filter lets calls fail as
// an old kernel does: with ENOSYS where the call came with its flags, with
// EINVAL where the flag came later.
//
// With "race", only sockets are refused their flags, because starting a
// program takes pipe2: descriptors are created while programs are started.
func without(how string) error {
	errno := map[string]unix.Errno{"container": unix.EPERM}[how]
	table := fdcall.Linux()
	var r filter.Refusals
	refused := refusedCalls
	if how == "race" {
		refused = []string{"socket", "socketpair"}
	}
	for _, id := range refused {
		row := table.ByID(id)
		refusal := filter.Refusal{Nr: row.Nr, Errno: unix.ENOSYS, When: row.When}
		switch {
		case id == "socket" || id == "socketpair" || id == "timerfd_create" || id == "memfd_create":
			bits := uint64(row.CloexecBits | row.NonblockBits)
			refusal.When = []fdcall.Cond{{Arg: uint8(row.FlagsArg), Mask: bits, Value: 0, Not: true}}
			refusal.Errno = unix.EINVAL
		case len(row.When) > 0:
			refusal.Errno = unix.EINVAL
		}
		if errno != 0 {
			refusal.Errno = errno
		}
		r.Calls = append(r.Calls, refusal)
	}
	program, err := filter.CompileRefusals(r)
	if err != nil {
		return err
	}
	time.Sleep(time.Millisecond) // the runtime's own descriptors, which need these calls
	if err := install(program); err != nil {
		return err
	}
	if how == "race" {
		if got := fd.Support("socket"); got != fd.Fcntl {
			return fmt.Errorf("socket is on the rung %q", got)
		}
		return race(500 * time.Millisecond)
	}
	tt := new(fake)
	plain := map[string]bool{"dup3": true} // dup2 is by choice: not a rung
	for _, k := range kinds(tt) {
		if !strings.Contains(strings.Join(refusedCalls, ";"), k.name) || plain[k.name] {
			continue
		}
		want := fd.Fcntl
		if runtime.GOARCH == "arm64" && k.name != "socket" && k.name != "socketpair" && k.name != "timerfd_create" && k.name != "memfd_create" {
			want = fd.Absent
		}
		for p := range fd.Inheritable | fd.Nonblock | fd.NonSequential + 1 {
			if k.blocking {
				p &^= fd.Nonblock
			}
			n, err := k.create(p)
			if want == fd.Absent {
				if err == nil {
					return fmt.Errorf("%s: created", k.name)
				}
				continue
			}
			if err != nil {
				return fmt.Errorf("%s with %03b: %w", k.name, p, err)
			}
			if err := check(n, p, k); err != nil {
				return err
			}
		}
		if got := fd.Support(k.name); got != want {
			return fmt.Errorf("%s is on the rung %q, want %q", k.name, got, want)
		}
	}
	return tt.clean()
}

// fake is a testing.TB for a process that is no test.
type fake struct {
	testing.TB
	dir string
}

func (f *fake) Helper()           {}
func (f *fake) Fatal(args ...any) { panic(fmt.Sprint(args...)) }
func (f *fake) TempDir() string {
	f.dir, _ = os.MkdirTemp("", "fd-")
	return f.dir
}
func (f *fake) clean() error { return os.RemoveAll(f.dir) }

// install puts all threads under a filter.
func install(program []unix.SockFilter) error {
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	const threadSync = 1
	p := unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]}
	_, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, threadSync, uintptr(unsafe.Pointer(&p)))
	runtime.KeepAlive(program)
	if errno != 0 {
		return fmt.Errorf("install the filter: %w", errno)
	}
	return nil
}

func TestOldKernels(t *testing.T) {
	for _, how := range []string{"old", "container", "race"} {
		t.Run(how, func(t *testing.T) {
			if out, err := exec.Command("/proc/self/exe", "without", how).CombinedOutput(); err != nil {
				t.Errorf("%v\n%s", err, out)
			}
		})
	}
}

// race creates descriptors on several threads while others start programs,
// which must inherit none.
func race(d time.Duration) error {
	known, err := fd.Leaks() // what we were started with
	if err != nil {
		return err
	}
	var wg sync.WaitGroup
	var stop atomic.Bool
	errs := make(chan error, 16)
	for range 4 {
		wg.Go(func() {
			for !stop.Load() {
				var pair [2]int
				if err := fd.Pipe(&pair, 0); err != nil {
					errs <- err
					return
				}
				s, err := fd.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0, 0)
				if err != nil {
					errs <- err
					return
				}
				closeAll(pair[0], pair[1], s)
			}
		})
	}
	started := 0
	for begin := time.Now(); time.Since(begin) < d; started++ {
		if out, err := exec.Command("/proc/self/exe", "count-inherited", strconv.Itoa(len(known))).Output(); err != nil {
			errs <- fmt.Errorf("a program inherited a descriptor: %w: %s", err, out)
			break
		}
	}
	stop.Store(true)
	wg.Wait()
	close(errs)
	if started == 0 {
		return errors.New("no program was started")
	}
	return <-errs
}

func TestRace(t *testing.T) {
	if err := race(500 * time.Millisecond); err != nil {
		t.Error(err)
	}
}

func closeAll(fds ...int) {
	for _, n := range fds {
		unix.Close(n)
	}
}

func TestLeaks(t *testing.T) {
	n, err := fd.Open("/dev/null", unix.O_RDONLY, 0, fd.Inheritable)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(n)
	leaks, err := fd.Leaks()
	if err != nil {
		t.Fatal(err)
	}
	found := false
	for _, l := range leaks {
		found = found || l == fd.Leak{FD: n, What: "/dev/null"}
	}
	if !found {
		t.Errorf("%d is not among %v", n, leaks)
	}
}

// recorder is a testing.TB that takes note of what is reported.
type recorder struct {
	testing.TB
	cleanup []func()
	said    []string
}

func (r *recorder) Helper()          {}
func (r *recorder) Cleanup(f func()) { r.cleanup = append(r.cleanup, f) }
func (r *recorder) Errorf(format string, args ...any) {
	r.said = append(r.said, fmt.Sprintf(format, args...))
}

func TestNoLeaksReports(t *testing.T) {
	r := &recorder{TB: t}
	fdtest.NoLeaks(r)
	n, err := fd.Open("/dev/zero", unix.O_RDONLY, 0, fd.Inheritable)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(n)
	for _, f := range r.cleanup {
		f()
	}
	if len(r.said) != 1 || !strings.Contains(r.said[0], "/dev/zero") {
		t.Errorf("reported: %q", r.said)
	}
}

func TestRecvmsg(t *testing.T) {
	fdtest.NoLeaks(t)
	pair, err := fd.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer closeAll(pair[0], pair[1])
	send := func(n int) {
		t.Helper()
		fds := make([]int, n) // descriptor 0, n times
		if _, err := fd.Sendmsg(pair[0], []byte("x"), fds, nil, 0); err != nil {
			t.Fatal(err)
		}
	}
	open := func() int {
		names, _ := os.ReadDir("/proc/self/fd")
		return len(names)
	}
	b := make([]byte, 1)
	for _, p := range []fd.Props{0, fd.Inheritable, fd.NonSequential, fd.NonSequential | fd.Inheritable} {
		send(3)
		m, err := fd.Recvmsg(pair[1], b, 3, 0, p)
		if err != nil || m.N != 1 || len(m.FDs) != 3 || m.Flags != 0 {
			t.Fatalf("%03b: %+v, %v", p, m, err)
		}
		for _, n := range m.FDs {
			if err := check(n, p, kind{name: "recvmsg", blocking: true}); err != nil {
				t.Error(err)
			}
		}
	}
	before := open()
	send(3)
	_, err = fd.Recvmsg(pair[1], b, 1, 0, 0)
	var truncated *fd.TruncatedError
	if !errors.As(err, &truncated) || truncated.Closed == 0 {
		t.Errorf("room for one of three: %v", err)
	}
	if after := open(); after != before {
		t.Errorf("%d descriptors before, %d after", before, after)
	}
	if _, err := fd.Recvmsg(pair[1], b, 1, 0, fd.Nonblock); err != unix.EINVAL {
		t.Errorf("Nonblock: %v", err)
	}
	send(0)
	if m, err := fd.Recvmsg(pair[1], b, 0, 0, 0); err != nil || len(m.FDs) != 0 || m.N != 1 {
		t.Errorf("no descriptors: %+v, %v", m, err)
	}
}

func TestHandOver(t *testing.T) {
	fdtest.NoLeaks(t)
	l, err := fd.Socket(unix.AF_INET, unix.SOCK_STREAM, 0, fd.Nonblock)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(unix.Bind(l, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}), unix.Listen(l, 1)); err != nil {
		t.Fatal(err)
	}
	listener, err := fd.Listener(l)
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	if _, err := unix.FcntlInt(uintptr(l), unix.F_GETFD, 0); err != unix.EBADF {
		t.Errorf("the listener's descriptor is still ours: %v", err)
	}
	c, err := net.Dial("tcp", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
	n, err := fd.Open("/dev/null", unix.O_RDONLY, 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := fd.Conn(n); err == nil {
		t.Error("/dev/null is a connection")
	}
	if _, err := unix.FcntlInt(uintptr(n), unix.F_GETFD, 0); err != nil {
		t.Errorf("a descriptor that could not be handed over is gone: %v", err)
	}
	if err := fd.File(n, "null").Close(); err != nil {
		t.Error(err)
	}
	pair, err := fd.Socketpair(unix.AF_UNIX, unix.SOCK_DGRAM, 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	p, err := fd.PacketConn(pair[0])
	conn, err1 := fd.Conn(pair[1])
	if err := errors.Join(err, err1); err != nil {
		t.Fatal(err)
	}
	p.Close()
	conn.Close()
}

// A signal that only the mask lets through ends the wait.
func TestPacceptSignal(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var block, before, inside unix.Sigset_t
	const sig = unix.SIGUSR2
	block.Val[0] = 1 << (sig - 1)
	if err := unix.PthreadSigmask(unix.SIG_BLOCK, &block, &before); err != nil {
		t.Fatal(err)
	}
	defer unix.PthreadSigmask(unix.SIG_SETMASK, &before, nil)
	inside = before
	inside.Val[0] &^= 1 << (sig - 1)
	got := make(chan os.Signal, 1)
	notify(got, syscall.Signal(sig))
	l, err := fd.Socket(unix.AF_INET, unix.SOCK_STREAM, 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(l)
	if err := errors.Join(unix.Bind(l, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}), unix.Listen(l, 1)); err != nil {
		t.Fatal(err)
	}
	for range 100 {
		if err := unix.Tgkill(os.Getpid(), unix.Gettid(), sig); err != nil {
			t.Fatal(err)
		}
		if n, err := fd.Paccept(l, &inside, 0); err != unix.EINTR {
			t.Fatalf("%d, %v", n, err)
		}
		<-got
	}
}

func TestNoAllocation(t *testing.T) {
	for name, f := range map[string]func() error{
		"socket": func() error {
			n, err := fd.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0, 0)
			closeAll(n)
			return err
		},
		"pipe": func() error {
			var pair [2]int
			err := fd.Pipe(&pair, 0)
			closeAll(pair[0], pair[1])
			return err
		},
		"eventfd": func() error {
			n, err := fd.Eventfd(0, 0, 0)
			closeAll(n)
			return err
		},
		"dup": func() error {
			n, err := fd.Dup(0, 0)
			closeAll(n)
			return err
		},
	} {
		var failed error
		if n := testing.AllocsPerRun(100, func() { failed = errors.Join(failed, f()) }); n > 0 || failed != nil {
			t.Errorf("%s: %g allocations, %v", name, n, failed)
		}
	}
}

// The same work with golang.org/x/sys/unix alone, for comparison.
func BenchmarkSocket(b *testing.B) {
	b.Run("unix", func(b *testing.B) {
		for b.Loop() {
			n, _ := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
			unix.Close(n)
		}
	})
	b.Run("fd", func(b *testing.B) {
		for b.Loop() {
			n, _ := fd.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0, 0)
			unix.Close(n)
		}
	})
}

func BenchmarkEventfd(b *testing.B) {
	b.Run("unix", func(b *testing.B) {
		for b.Loop() {
			n, _ := unix.Eventfd(0, unix.EFD_CLOEXEC)
			unix.Close(n)
		}
	})
	b.Run("fd", func(b *testing.B) {
		for b.Loop() {
			n, _ := fd.Eventfd(0, 0, 0)
			unix.Close(n)
		}
	})
}

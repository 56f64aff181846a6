package filter

import (
	"errors"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/seed-055cd0c8/indirect/fdcall"
)

// TestNamedCalls says by name, without the oracle, what the kernel makes of
// the calls that programs make most, under a filter for close-on-exec alone.
func TestNamedCalls(t *testing.T) {
	const child = "INDIRECT_TEST_NAMED_CALLS"
	if os.Getenv(child) == "" {
		try := exec.Command(os.Args[0], "-test.run=^TestNamedCalls$", "-test.v")
		try.Env = append(os.Environ(), child+"=1")
		if out, err := try.CombinedOutput(); err != nil || !strings.Contains(string(out), "named calls made") {
			t.Errorf("%v\n%s", err, out)
		}
		return
	}
	runtime.LockOSThread() // and never unlock: the thread is under the filter
	root, pair := [2]byte{'/'}, [2]int32{}
	path, memory := uintptr(unsafe.Pointer(&root)), uintptr(unsafe.Pointer(&pair))
	here := ^uintptr(99) // AT_FDCWD
	named := []struct {
		name    string
		trapped bool
		nr      uintptr
		args    [4]uintptr
	}{
		{"open", true, unix.SYS_OPEN, [4]uintptr{path}},
		{"open O_CLOEXEC", false, unix.SYS_OPEN, [4]uintptr{path, unix.O_CLOEXEC}},
		{"openat", true, unix.SYS_OPENAT, [4]uintptr{here, path}},
		{"openat O_CLOEXEC", false, unix.SYS_OPENAT, [4]uintptr{here, path, unix.O_CLOEXEC}},
		{"openat O_NONBLOCK", true, unix.SYS_OPENAT, [4]uintptr{here, path, unix.O_NONBLOCK}},
		{"creat", true, unix.SYS_CREAT, [4]uintptr{path}},
		{"pipe", true, unix.SYS_PIPE, [4]uintptr{memory}},
		{"pipe2", true, unix.SYS_PIPE2, [4]uintptr{memory}},
		{"pipe2 O_CLOEXEC", false, unix.SYS_PIPE2, [4]uintptr{memory, unix.O_CLOEXEC}},
		{"dup", true, unix.SYS_DUP, [4]uintptr{1}},
		{"dup2", false, unix.SYS_DUP2, [4]uintptr{1, 100}},
		{"dup3", false, unix.SYS_DUP3, [4]uintptr{1, 100}},
		{"fcntl F_DUPFD", true, unix.SYS_FCNTL, [4]uintptr{1, unix.F_DUPFD}},
		{"fcntl F_DUPFD_CLOEXEC", false, unix.SYS_FCNTL, [4]uintptr{1, unix.F_DUPFD_CLOEXEC}},
		{"fcntl F_GETFD", false, unix.SYS_FCNTL, [4]uintptr{1, unix.F_GETFD}},
		{"fcntl F_SETFD", false, unix.SYS_FCNTL, [4]uintptr{1, unix.F_SETFD, 0}},
		{"socket", true, unix.SYS_SOCKET, [4]uintptr{unix.AF_UNIX, unix.SOCK_STREAM}},
		{"socket SOCK_CLOEXEC", false, unix.SYS_SOCKET, [4]uintptr{unix.AF_UNIX, unix.SOCK_STREAM | unix.SOCK_CLOEXEC}},
		{"socketpair", true, unix.SYS_SOCKETPAIR, [4]uintptr{unix.AF_UNIX, unix.SOCK_STREAM, 0, memory}},
		{"socketpair SOCK_CLOEXEC", false, unix.SYS_SOCKETPAIR, [4]uintptr{unix.AF_UNIX, unix.SOCK_STREAM | unix.SOCK_CLOEXEC, 0, memory}},
		{"accept", true, unix.SYS_ACCEPT, [4]uintptr{1}},
		{"accept4 SOCK_CLOEXEC", false, unix.SYS_ACCEPT4, [4]uintptr{1, 0, 0, unix.SOCK_CLOEXEC}},
		{"recvmsg", true, unix.SYS_RECVMSG, [4]uintptr{1}},
		{"recvmsg MSG_CMSG_CLOEXEC", false, unix.SYS_RECVMSG, [4]uintptr{1, 0, unix.MSG_CMSG_CLOEXEC}},
		{"epoll_create", true, unix.SYS_EPOLL_CREATE, [4]uintptr{1}},
		{"epoll_create1", true, unix.SYS_EPOLL_CREATE1, [4]uintptr{}},
		{"epoll_create1 EPOLL_CLOEXEC", false, unix.SYS_EPOLL_CREATE1, [4]uintptr{unix.EPOLL_CLOEXEC}},
		{"eventfd", true, unix.SYS_EVENTFD, [4]uintptr{}},
		{"eventfd2 EFD_CLOEXEC", false, unix.SYS_EVENTFD2, [4]uintptr{0, unix.EFD_CLOEXEC}},
		{"inotify_init", true, unix.SYS_INOTIFY_INIT, [4]uintptr{}},
		{"inotify_init1 IN_CLOEXEC", false, unix.SYS_INOTIFY_INIT1, [4]uintptr{unix.IN_CLOEXEC}},
		{"memfd_create", true, unix.SYS_MEMFD_CREATE, [4]uintptr{path}},
		{"memfd_create MFD_CLOEXEC", false, unix.SYS_MEMFD_CREATE, [4]uintptr{path, unix.MFD_CLOEXEC}},
		{"timerfd_create", true, unix.SYS_TIMERFD_CREATE, [4]uintptr{unix.CLOCK_MONOTONIC}},
		{"timerfd_create TFD_CLOEXEC", false, unix.SYS_TIMERFD_CREATE, [4]uintptr{unix.CLOCK_MONOTONIC, unix.TFD_CLOEXEC}},
		{"getppid", false, unix.SYS_GETPPID, [4]uintptr{}},
		{"read", false, unix.SYS_READ, [4]uintptr{here}},
		{"close", false, unix.SYS_CLOSE, [4]uintptr{here}},
	}
	if err := install(answering(compiled(t, "amd64", rules(fdcall.Cloexec)).program, unix.EXDEV)); err != nil {
		t.Fatal(err)
	}
	for _, c := range named {
		_, _, errno := unix.RawSyscall6(c.nr, c.args[0], c.args[1], c.args[2], c.args[3], 0, 0)
		if got := errors.Is(errno, unix.EXDEV); got != c.trapped {
			t.Errorf("%s: error %v, to be trapped: %v", c.name, errno, c.trapped)
		}
	}
	runtime.KeepAlive(&root)
	runtime.KeepAlive(&pair)
	t.Logf("%d named calls made", len(named))
}

package syslet

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"unsafe"

	"github.com/seed-055cd0c8/indirect/internal/uring"
	"golang.org/x/sys/unix"
)

// forbidEnv names the call, and the errno with which a seccomp filter refuses it,
// in a child that runs these tests: "425 1".
const forbidEnv = "SYSLET_TEST_FORBID"

func TestMain(m *testing.M) {
	// Has the runtime open its poller, before tests count descriptors.
	if _, err := os.ReadFile("/proc/self/status"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	if s := os.Getenv(forbidEnv); s != "" {
		nr, errno, err := forbidden(s)
		if err == nil {
			err = forbid(nr, errno)
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	os.Exit(m.Run())
}

func forbidden(s string) (nr uint32, errno unix.Errno, err error) {
	_, err = fmt.Sscanf(s, "%d %d", &nr, &errno)
	return nr, errno, err
}

// forbid has a system call fail in this process from now on.
func forbid(nr uint32, errno unix.Errno) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	filter := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: 0}, // io_uring's numbers are the same on every architecture
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: nr, Jf: 1},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ERRNO | uint32(errno)},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW},
	}
	prog := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("no_new_privs: %w", err)
	}
	if _, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC, uintptr(unsafe.Pointer(&prog))); errno != 0 {
		return fmt.Errorf("seccomp: %w", errno)
	}
	return nil
}

// haveRing tells whether this kernel has io_uring for us.
func haveRing() bool {
	e, err := New(Config{Backend: Ring, Depth: 1})
	if err != nil {
		return false
	}
	return e.Close() == nil
}

// eachBackend runs a test on the pool and, where io_uring can be had, on the
// ring in both its ways: the results have to be the same.
func eachBackend(t *testing.T, c Config, test func(t *testing.T, e *Engine)) {
	t.Helper()
	configs := map[string]Config{"pool": c, "ring": c, "one thread": c}
	for name, backend := range map[string]Backend{"pool": Pool, "ring": Ring, "one thread": Ring} {
		if backend == Ring && !haveRing() {
			continue
		}
		c := configs[name]
		c.Backend, c.OneThread = backend, name == "one thread"
		t.Run(name, func(t *testing.T) {
			if c.OneThread {
				runtime.LockOSThread()
				defer runtime.UnlockOSThread()
			}
			e, err := New(c)
			if err != nil {
				t.Fatal(err)
			}
			test(t, e)
			if err := e.Close(); err != nil {
				t.Errorf("Close: %v", err)
			}
		})
	}
}

// TestForbidden runs tests in processes whose seccomp filter refuses a part of
// io_uring, as containers do: Auto must take the pool, and, for the refusal that
// is the most common, all results hold.
func TestForbidden(t *testing.T) {
	if os.Getenv(forbidEnv) != "" {
		return // this is such a process
	}
	for _, refused := range []struct {
		nr    int
		errno unix.Errno
		tests string
	}{
		{unix.SYS_IO_URING_SETUP, unix.EPERM, "."}, // also what kernel.io_uring_disabled does
		{unix.SYS_IO_URING_SETUP, unix.ENOSYS, "^TestAuto$"},
		{unix.SYS_IO_URING_SETUP, unix.EINVAL, "^TestAuto$"}, // as Linux 5.1 to 5.17 say of our flags
		{unix.SYS_IO_URING_SETUP, unix.ENOMEM, "^TestAuto$"}, // RLIMIT_MEMLOCK, before Linux 5.12
		{unix.SYS_IO_URING_REGISTER, unix.EACCES, "^TestAuto$"},
		{unix.SYS_IO_URING_ENTER, unix.EPERM, "^TestAuto$"},
	} {
		t.Run(fmt.Sprint(refused.nr, unix.ErrnoName(refused.errno)), func(t *testing.T) {
			t.Parallel()
			cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.v", "-test.timeout=60s", "-test.run", refused.tests)
			cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%d %d", forbidEnv, refused.nr, refused.errno))
			out, err := cmd.CombinedOutput()
			if err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			if !strings.Contains(string(out), "--- PASS: TestAuto") {
				t.Errorf("the child did not run the tests:\n%s", out)
			}
		})
	}
}

func TestAuto(t *testing.T) {
	e, err := New(Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	backend, reason := e.Backend()
	how := os.Getenv(forbidEnv)
	switch {
	case how != "":
		_, errno, err := forbidden(how)
		if err != nil {
			t.Fatal(err)
		}
		want := error(errno)
		if errno == unix.EINVAL {
			want = uring.ErrTooOld
		}
		if backend != Pool || !errors.Is(reason, want) {
			t.Errorf("%s, %v; want the pool because of %v", backend, reason, want)
		}
		if _, err := New(Config{Backend: Ring}); !errors.Is(err, want) {
			t.Errorf("New with a ring: %v", err)
		}
	case haveRing():
		if backend != Ring || reason != nil {
			t.Errorf("%s, %v; want the ring", backend, reason)
		}
	case backend != Pool || reason == nil:
		t.Errorf("%s, %v; want the pool and why", backend, reason)
	}
}

func TestConfig(t *testing.T) {
	for _, c := range []Config{{Backend: 9}, {Depth: -1}, {Depth: 5000}, {Buffer: -1}, {Buffer: 2 << 30}, {Spare: -1}, {Batch: -1}, {Workers: -1}} {
		if e, err := New(c); err == nil {
			t.Errorf("New(%+v) succeeded", c)
			e.Close()
		}
	}
}

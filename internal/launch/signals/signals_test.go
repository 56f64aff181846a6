package signals

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

func TestSet(t *testing.T) {
	s := Of(unix.SIGHUP, unix.SIGTERM, Last)
	if s != 1|1<<14|1<<63 {
		t.Errorf("Of = %#x", uint64(s))
	}
	for sig := unix.Signal(1); sig <= Last; sig++ {
		if want := sig == unix.SIGHUP || sig == unix.SIGTERM || sig == Last; s.Has(sig) != want {
			t.Errorf("Has(%v) = %v", sig, !want)
		}
		if !All.Has(sig) {
			t.Errorf("All lacks %v", sig)
		}
	}
}

func TestMaskIsOfTheThread(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	old, err := SetMask(Of(unix.SIGUSR1))
	if err != nil {
		t.Fatal(err)
	}
	now, err := current()
	if err != nil {
		t.Fatal(err)
	}
	if now.Blocked != Of(unix.SIGUSR1) {
		t.Errorf("blocked: %#x, want SIGUSR1", uint64(now.Blocked))
	}
	if was, err := SetMask(old); err != nil || was != Of(unix.SIGUSR1) {
		t.Errorf("SetMask: %#x, %v; want SIGUSR1", uint64(was), err)
	}
}

func TestActionOfAChild(t *testing.T) {
	old, err := SetAction(unix.SIGTTOU, Action{Handler: Ignore})
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("grep", "SigIgn", "/proc/self/status").Output()
	if err != nil {
		t.Fatal(err)
	}
	if was, err := SetAction(unix.SIGTTOU, old); err != nil || was.Handler != Ignore {
		t.Errorf("SetAction: %+v, %v; want the ignoring one", was, err)
	}
	if fields := strings.Fields(string(out)); len(fields) != 2 || !strings.HasSuffix(fields[1], "200000") {
		t.Errorf("the child has %q, want SIGTTOU ignored", out)
	}
}

func TestSIGKILLCannotBeChanged(t *testing.T) {
	if _, err := SetAction(unix.SIGKILL, Action{Handler: Ignore}); err == nil {
		t.Error("no error")
	}
}

// go test strips its executables; the runtime's variables can be read in others.
func TestInherited(t *testing.T) {
	program := filepath.Join(t.TempDir(), "inherited")
	builds := map[string][]string{
		"plain":                {"build"},
		"position independent": {"build", "-buildmode=pie"},
	}
	for name, build := range builds {
		t.Run(name, func(t *testing.T) {
			out, err := exec.Command("go", append(build, "-o", program, "./testdata/inherited")...).CombinedOutput()
			if err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			for _, want := range []State{
				{},
				{Ignored: Of(unix.SIGPIPE)},
				{Ignored: Of(unix.SIGHUP, unix.SIGUSR1, unix.SIGTERM, unix.SIGTSTP, 40, Last)},
				{Blocked: Of(unix.SIGHUP, unix.SIGTERM, unix.SIGCHLD, unix.SIGUSR2, 40)},
				{Ignored: Of(unix.SIGPIPE, unix.SIGTERM), Blocked: Of(unix.SIGTERM, unix.SIGPROF)},
			} {
				if got := startIn(t, want, program); got != want {
					t.Errorf("started in %+v: got %+v", want, got)
				}
			}
		})
	}
}

// startIn runs the program in testdata/inherited in a state and returns what it prints.
func startIn(t *testing.T, s State, program string) State {
	t.Helper()
	cmd := exec.Command("/proc/self/exe", program)
	cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%x %x", startState, s.Ignored, s.Blocked))
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	var got State
	if _, err := fmt.Sscanf(string(out), "%x %x", &got.Ignored, &got.Blocked); err != nil {
		t.Fatalf("%q: %v", out, err)
	}
	return got
}

// startState is the environment variable that makes this test's executable
// take on a state and become the program that is its argument.
const startState = "TEST_SIGNALS_START_STATE"

func TestMain(m *testing.M) {
	if state := os.Getenv(startState); state != "" {
		fmt.Fprintln(os.Stderr, become(state, os.Args[1]))
		os.Exit(1)
	}
	os.Exit(m.Run())
}

func become(state, program string) error {
	var s State
	if _, err := fmt.Sscanf(state, "%x %x", &s.Ignored, &s.Blocked); err != nil {
		return err
	}
	runtime.LockOSThread()
	if _, err := SetMask(s.Blocked); err != nil {
		return err
	}
	Reset(s.Ignored)
	return syscall.Exec(program, []string{program}, os.Environ())
}

package signals

import (
	"os/exec"
	"runtime"
	"strings"
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
	now, err := Inherited()
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

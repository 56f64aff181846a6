package supervise

import (
	"os/exec"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/seed-055cd0c8/indirect/internal/tracee"
)

func processors(t *testing.T, tid int) unix.CPUSet {
	t.Helper()
	set, err := tracee.Processors(tid)
	if err != nil {
		t.Fatal(err)
	}
	return set
}

// A thread and its worker share a processor for as long as it is held, and
// have all of theirs afterwards.
func TestShare(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	ours := processors(t, 0)
	if ours.Count() < 2 {
		t.Log("with one processor there is nothing to see")
		return
	}
	defer func() {
		if err := tracee.SetProcessors(0, ours); err != nil {
			t.Error(err)
		}
	}()
	cmd := exec.Command("sleep", "100")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	defer cmd.Process.Kill()
	tid := cmd.Process.Pid
	var lastOnly, firstOnly unix.CPUSet
	for cpu := range len(ours) * 64 {
		if ours.IsSet(cpu) {
			lastOnly.Zero()
			lastOnly.Set(cpu)
			if firstOnly.Count() == 0 {
				firstOnly.Set(cpu)
			}
		}
	}

	var s share
	s.begin(tid)
	theirs, here := processors(t, tid), processors(t, 0)
	if theirs.Count() != 1 || theirs != here {
		t.Errorf("held: thread on %d processors, worker on %d", theirs.Count(), here.Count())
	}
	s.begin(tid) // as when a call is tried again
	s.end(ours)
	if processors(t, tid) != ours || processors(t, 0) != ours {
		t.Error("afterwards, not all processors are there")
	}

	// Somebody else's change in between holds.
	s.begin(tid)
	other := firstOnly
	if processors(t, tid) == firstOnly {
		other = lastOnly
	}
	if err := tracee.SetProcessors(tid, other); err != nil {
		t.Fatal(err)
	}
	s.end(ours)
	if processors(t, tid) != other {
		t.Error("a change that another program made was undone")
	}

	// A thread that may not run where its worker does stays where it is.
	if err := tracee.SetProcessors(0, firstOnly); err != nil {
		t.Fatal(err)
	}
	if err := tracee.SetProcessors(tid, lastOnly); err != nil {
		t.Fatal(err)
	}
	s.begin(tid)
	if processors(t, tid) != lastOnly {
		t.Error("the thread was moved to a processor that it may not use")
	}
	s.end(ours)

	// A thread that is gone costs nothing.
	s.begin(1 << 30)
	s.end(ours)
	if s.tid.Load() != 0 {
		t.Error("a thread that is gone is still shared with")
	}
}

// A successor gives back what a supervisor that died has taken.
func TestShareOutlivesItsSupervisor(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	ours := processors(t, 0)
	led, file, err := newLedger()
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	cmd := exec.Command("sleep", "100")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	defer cmd.Process.Kill()
	led.take().share.begin(cmd.Process.Pid)

	successor, err := openLedger(file)
	if err != nil {
		t.Fatal(err)
	}
	e := &engine{ledger: successor, cpus: ours}
	e.recover()
	if processors(t, cmd.Process.Pid) != ours || processors(t, 0) != ours {
		t.Error("not all processors are there again")
	}
}

package e2e

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/seed-055cd0c8/indirect/supervise"
)

// A program that lies gets from every call what the kernel alone would give.
func TestLiar(t *testing.T) {
	each(t, "liar.c", amd64Builds, []mode{cloexec, moved, noPatch, nothing}, func(t *testing.T, m mode, program string) {
		same(t, m, program)
	})
}

// Memory that goes away while calls read and write it.
func TestVanishingMemory(t *testing.T) {
	each(t, "liar.c", amd64Builds, []mode{bare, cloexec, moved, noPatch}, func(t *testing.T, m mode, program string) {
		m.run(t, program, "vanishing").passed(t)
	})
}

// lines splits an output, for differences that can be read.
func lines(s string) []string { return strings.Split(s, "\n") }

// same demands that a program prints the same bare and in a mode.
func same(t *testing.T, m mode, argv ...string) {
	t.Helper()
	want := bare.run(t, argv...)
	want.passed(t)
	got := m.run(t, argv...)
	got.passed(t)
	if diff := cmp.Diff(lines(want.stdout), lines(got.stdout)); diff != "" {
		t.Errorf("%q bare (-), under indirect run (+):\n%s", argv[1:], tail(diff))
	}
}

// Programs without room for what is injected: in their address space, on their
// stack, in their table of descriptors.
func TestLittleRoom(t *testing.T) {
	each(t, "room.c", amd64Builds, []mode{cloexec, moved, noPatch}, func(t *testing.T, m mode, program string) {
		for _, what := range []string{"full", "as", "stack", "0", "3", "4", "10"} {
			same(t, m, program, what)
			same(t, m, program, what, "warm")
		}
	})
}

// A call site that is diverted while a call blocks there that runs in place.
// Static programs, because the dynamic linker's calls would take the room first.
func TestLateRoom(t *testing.T) {
	each(t, "lateroom.c", []build{glibcStatic, musl}, []mode{bare, cloexec, moved}, func(t *testing.T, m mode, program string) {
		r := m.run(t, program)
		r.passed(t)
		i := slices.IndexFunc(r.summary.Calls, func(c supervise.CallSummary) bool { return c.Call == "accept" })
		if !m.isBare() && (i < 0 || r.summary.Calls[i].InPlace == 0 || r.summary.Calls[i].Patched == 0) {
			t.Errorf("accept was not both run in place and patched: %+v", r.summary.Calls)
		}
	})
}

// Numbers that cannot be foreseen.
func TestNonSequential(t *testing.T) {
	each(t, "nonseq.c", amd64Builds, []mode{moved, {"no-patch", []string{"--no-patch", "--add", "cloexec,nonseq"}, "cloexec nonseq"}}, selfChecking)
}

// i386's calls from a 64-bit program.
func TestGate(t *testing.T) {
	var builds []build
	if len(runnable(i386)) > 0 {
		builds = amd64Builds
	}
	each(t, "gate.c", builds, []mode{bare, cloexec, moved, noPatch}, selfChecking)
}

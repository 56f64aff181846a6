package e2e

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// indirect(2) and its family, for programs that ask.
func TestIndirect(t *testing.T) {
	each(t, "indirect.c", abiBuilds, []mode{nothing, cloexec, all, noPatch}, selfChecking)
}

// A bare kernel has none of them.
func TestIndirectBare(t *testing.T) {
	t.Setenv("EXPECT_ENOSYS", "1")
	for _, b := range runnable(abiBuilds...) {
		t.Run(b.name, func(t *testing.T) { bare.run(t, b.compile(t, "indirect.c")).passed(t) })
	}
}

// The numbers that indirect(2) and syslet_ring_wait(2) had in their time are
// others' today, and work as ever.
func TestTimerfd(t *testing.T) {
	each(t, "timerfd.c", abiBuilds, []mode{nothing, all, noPatch}, func(t *testing.T, m mode, program string) {
		r := m.run(t, program)
		r.passed(t)
		r.enforced(t)
		if diff := cmp.Diff(lines(bare.run(t, program).stdout), lines(r.stdout)); diff != "" {
			t.Errorf("bare (-), under indirect run (+):\n%s", tail(diff))
		}
	})
}

// A signal that paccept(2) lets through ends its wait, or stays pending.
func TestPacceptSignals(t *testing.T) {
	many := "100000"
	if carried { // to an emulated machine
		many = "1000"
	}
	for _, c := range []struct {
		build
		mode
		signals string
	}{{glibc, nothing, many}, {musl, cloexec, many}, {i386, cloexec, "1000"}, {x32, cloexec, "1000"}} {
		if len(runnable(c.build)) == 0 {
			continue
		}
		t.Run(c.build.name, func(t *testing.T) {
			r := c.run(t, c.compile(t, "paccept.c"), c.signals)
			r.passed(t)
			r.enforced(t)
		})
	}
}

// Syslets. The last one makes more of them, and reads more.
func TestSyslet(t *testing.T) {
	t.Parallel()
	few := []string{"300", "1"} // a supervisor has to do with each of them
	for _, c := range []struct {
		build
		mode
		args []string
	}{
		{glibc, nothing, nil}, {glibc, all, nil}, {glibcStatic, cloexec, nil}, {musl, cloexec, nil}, {musl, nothing, nil}, {glibc, noPatch, nil},
		{glibc, cloexec, []string{"100000", "256"}},
		{i386, nothing, few}, {i386, cloexec, few}, {x32, nothing, few}, {x32, cloexec, few},
	} {
		if len(runnable(c.build)) == 0 {
			continue
		}
		t.Run(c.build.name+"/"+c.mode.name+strings.Join(c.args, ","), func(t *testing.T) {
			t.Parallel()
			if carried && c.args == nil { // an emulated machine is slow
				c.args = few
			}
			r := c.run(t, append([]string{c.compile(t, "syslet.c")}, c.args...)...)
			r.passed(t)
			r.enforced(t)
		})
	}
}

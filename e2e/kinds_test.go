package e2e

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

// Every call that creates a descriptor, in every way to make it.
func TestKinds(t *testing.T) {
	each(t, "kinds.c", abiBuilds, []mode{bare, nothing, cloexec, all, noPatch}, func(t *testing.T, m mode, program string) {
		r := m.run(t, program)
		r.passed(t)
		r.enforced(t)
		if m.isBare() {
			return
		}
		if diff := cmp.Diff(lines(bare.run(t, program).stdout), lines(r.stdout)); diff != "" {
			t.Errorf("bare (-), under indirect run (+):\n%s", tail(diff))
		}
	})
}

// The programs can fail: what they demand is not so without us.
func TestKindsSeesTheDifference(t *testing.T) {
	t.Parallel()
	m := bare
	for _, m.expect = range []string{"cloexec", "nonblock", "nonseq"} {
		if r := m.run(t, glibc.compile(t, "kinds.c")); r.status != 1 {
			t.Errorf("bare, expecting %s: status %d, want 1", m.expect, r.status)
		}
	}
}

package e2e

import "testing"

// No call fails because of a signal.
func TestSignals(t *testing.T) {
	each(t, "signals.c", amd64Builds, []mode{bare, cloexec, moved, noPatch}, selfChecking)
}

// Threads that are blocked in calls can be cancelled.
func TestCancel(t *testing.T) {
	each(t, "cancel.c", amd64Builds, []mode{bare, cloexec, moved, noPatch}, func(t *testing.T, m mode, program string) {
		for _, argv := range [][]string{{program, "50"}, {program, "50", "warm"}} {
			r := m.run(t, argv...)
			r.passed(t)
			r.enforced(t)
		}
	})
}

// Cancellation of a blocked thread runs its destructors.
func TestCancelUnwinds(t *testing.T) {
	each(t, "unwind.cc", []build{cxx}, []mode{bare, cloexec, moved, noPatch}, selfChecking)
}

//go:build linux && (amd64 || arm64 || 386)

// Package fdtest helps tests to see that a program leaks no descriptors into
// those that it executes.
package fdtest

import (
	"testing"

	"github.com/seed-055cd0c8/indirect/fd"
)

// NoLeaks fails the test if at its end there is an inheritable descriptor above
// 2 that was not there when NoLeaks was called. Tests that run in parallel see
// each other's descriptors.
func NoLeaks(t testing.TB) {
	t.Helper()
	before, err := fd.Leaks()
	if err != nil {
		t.Fatal(err)
	}
	known := make(map[fd.Leak]bool)
	for _, l := range before {
		known[l] = true
	}
	t.Cleanup(func() {
		after, err := fd.Leaks()
		if err != nil {
			t.Error(err)
		}
		for _, l := range after {
			if !known[l] {
				t.Errorf("descriptor %d (%s) would be inherited by an executed program", l.FD, l.What)
			}
		}
	})
}

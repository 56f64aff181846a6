package e2e

import "testing"

// indirect(2) and its family, for programs that ask.
func TestIndirect(t *testing.T) {
	each(t, "indirect.c", append(amd64Builds, i386), []mode{nothing, cloexec, all, noPatch}, selfChecking)
}

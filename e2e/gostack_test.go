package e2e

import (
	"os/exec"
	"path/filepath"
	"testing"
)

// A static Go program: small stacks, and calls that no C library makes.
func TestGoroutines(t *testing.T) {
	t.Parallel()
	program := filepath.Join(t.TempDir(), "gostack")
	if out, err := exec.Command("go", "build", "-o", program, "./testdata/gostack").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, m := range []mode{bare, cloexec, moved, noPatch} {
		t.Run(m.name, func(t *testing.T) {
			selfChecking(t, m, program)
		})
	}
}

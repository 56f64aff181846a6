package e2e

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// Package fd uses indirect(2) where pipe2(2) is not there.
func TestFDRungs(t *testing.T) {
	t.Parallel()
	program := filepath.Join(t.TempDir(), "fdrungs")
	if out, err := exec.Command("go", "build", "-o", program, "./testdata/fdrungs").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, tt := range []struct {
		mode
		rung string
	}{
		{bare, "native flag"},
		{nothing, "native flag"},
		{mode{name: "without", flags: []string{"--without", "pipe2"}}, "indirect(2)"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := tt.run(t, program)
			r.passed(t)
			if want := strings.Repeat(tt.rung+" true true true <nil> <nil>\n", 2); r.stdout != want {
				t.Errorf("printed\n%s\nwant\n%s", r.stdout, want)
			}
		})
	}
}

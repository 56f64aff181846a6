package e2e

import (
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// A program that makes one flagless call gets its flags, and no image.
func TestSingleCall(t *testing.T) {
	each(t, "single.c", amd64Builds, []mode{bare, nothing, cloexec, noPatch}, func(t *testing.T, m mode, program string) {
		dir := t.TempDir()
		fifo := filepath.Join(dir, "fifo")
		if err := unix.Mkfifo(fifo, 0o600); err != nil {
			t.Fatal(err)
		}
		for _, argv := range [][]string{
			{"open"}, {"creat", filepath.Join(dir, "new")}, {"stream"}, {"error"}, {"restart", fifo}, {"interrupt", fifo},
		} {
			r := m.run(t, append([]string{program}, argv...)...)
			if r.status != 0 {
				t.Errorf("%s: status %d\n%s", strings.Join(argv, " "), r.status, tail(r.stderr))
			}
			r.enforced(t)
			if m.expect == "" {
				continue
			}
			var once, other uint64
			for _, c := range r.summary.Calls {
				once += c.Once
				other += c.Patched + c.InPlace + c.Spared
			}
			if once != 1 || other != 0 || r.summary.Images != 0 || r.summary.Processes != 1 {
				t.Errorf("%s: the summary is %+v", argv[0], r.summary)
			}
		}
	})
}

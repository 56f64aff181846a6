package e2e

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/seed-055cd0c8/indirect/fdcall"
	"github.com/seed-055cd0c8/indirect/internal/launch"
	"github.com/seed-055cd0c8/indirect/policy"
	"github.com/seed-055cd0c8/indirect/supervise"
)

// Kernels without what newer ones brought: Linux 5.19's killable wait, 6.6's
// synchronous wake-up.
func TestOlderKernels(t *testing.T) {
	t.Parallel()
	for _, k := range []struct {
		name                         string
		noWaitKillable, noSyncWakeUp bool
	}{
		{"Linux 5.19", false, true},
		{"Linux 5.9", true, true},
		{"without killable wait", true, false},
	} {
		for _, source := range []string{"kinds.c", "processes.c", "cancel.c", "closeall.c"} {
			t.Run(k.name+"/"+source, func(t *testing.T) {
				t.Parallel()
				program := glibc.compile(t, source)
				s, err := supervise.New(supervise.Options{
					Policy: policy.New(fdcall.Cloexec), NoSyncWakeUp: k.noSyncWakeUp, Log: t.Output(),
				})
				if err != nil {
					t.Fatal(err)
				}
				output := filepath.Join(t.TempDir(), "output")
				p, err := launch.Start(launch.Spec{
					Path:   "/bin/sh",
					Args:   []string{"sh", "-c", `exec "$0" >"$1" 2>&1`, program, output},
					Env:    append(os.Environ(), "EXPECT=cloexec"),
					Filter: s.Filter(), NoWaitKillable: k.noWaitKillable,
				})
				if err != nil {
					t.Fatal(err)
				}
				if p.WaitKillable() == k.noWaitKillable {
					t.Errorf("killable wait: %v, want %v", p.WaitKillable(), !k.noWaitKillable)
				}
				if err := s.Start(p.Listener()); err != nil {
					p.Abort()
					t.Fatal(err)
				}
				defer s.Close()
				if err := p.Release(); err != nil {
					t.Fatal(err)
				}
				ctx, cancel := context.WithTimeout(t.Context(), limit)
				defer cancel()
				status, err := p.Wait(ctx)
				if err != nil {
					unix.Kill(p.Pid(), unix.SIGKILL)
					t.Fatal(err)
				}
				if status != 0 {
					text, _ := os.ReadFile(output)
					t.Errorf("wait status %#x\n%s", status, tail(string(text)))
				}
				r := result{summary: s.Summary()}
				r.enforced(t)
			})
		}
	}
}

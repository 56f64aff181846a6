package e2e

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
)

// nobody is the ordinary user that the tests become when root runs them.
const nobody = 65534

// Namespaces made inside the tree, as root and as an ordinary user.
func TestNamespaces(t *testing.T) {
	for _, user := range []struct {
		name string
		cred *syscall.Credential
		sets [][]string
	}{
		{"root", nil, [][]string{{"mount"}, {"pid"}, {"net"}, {"ipc"}, {"user"}, {"user", "pid", "mount", "net", "ipc", "uts"}}},
		{"user", &syscall.Credential{Uid: nobody, Gid: nobody}, [][]string{{"user"}, {"user", "pid", "mount", "net", "ipc", "uts"}}},
	} {
		t.Run(user.name, func(t *testing.T) {
			if os.Getuid() != 0 {
				t.Skip("becoming another user, and namespaces without a user namespace, take root")
			}
			each(t, "namespaces.c", amd64Builds, []mode{bare, cloexec, moved, noPatch}, func(t *testing.T, m mode, program string) {
				for _, set := range user.sets {
					ctx, cancel := context.WithTimeout(t.Context(), limit)
					cmd, summary := m.command(ctx, t, append([]string{program}, set...)...)
					cmd.SysProcAttr.Credential = user.cred
					if user.cred != nil && summary != "" {
						writable(t, summary)
					}
					r := finish(t, ctx, cmd, summary)
					cancel()
					if r.status != 0 {
						t.Errorf("%q: status %d\n%s", set, r.status, tail(r.stderr))
					}
					r.enforced(t)
				}
			})
		})
	}
}

// writable makes a file that any user may write.
func writable(t *testing.T, file string) {
	t.Helper()
	for dir := filepath.Dir(file); dir != os.TempDir() && dir != "/"; dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(file, nil, 0o666); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(file, 0o666); err != nil { // whatever the umask
		t.Fatal(err)
	}
}

// A static program in a root directory without /proc.
func TestChroot(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("chroot takes root")
	}
	each(t, "namespaces.c", []build{glibcStatic, musl}, []mode{bare, cloexec, moved, noPatch}, func(t *testing.T, m mode, program string) {
		root := t.TempDir()
		// Not by ourselves: a child that another test is just starting would
		// have the file open for writing, and it could not be executed.
		if out, err := exec.Command("cp", program, filepath.Join(root, "program")).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		r := m.run(t, program, "chroot="+root)
		r.passed(t)
		r.enforced(t)
	})
}

package e2e

import (
	"context"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"
)

// fork, vfork, posix_spawn, clone and exec from everywhere.
func TestProcesses(t *testing.T) {
	each(t, "processes.c", amd64Builds, []mode{bare, cloexec, moved, noPatch}, selfChecking)
}

// A thread is kept on one processor while it is held, and not longer.
func TestProcessors(t *testing.T) {
	each(t, "processors.c", []build{glibc, musl}, []mode{bare, cloexec, moved}, selfChecking)
}

// Signals do not make an exempt shell's calls fail, once the C library's call
// sites are planned and it has made one there: dash takes EINTR from pipe for an
// error.
func TestExemptShellUnderSignals(t *testing.T) {
	const script = `trap : USR1
x=$(:)
sleep 1
x=$(:)
(while kill -USR1 $$ 2>/dev/null; do :; done) &
i=0
while [ $i -lt 1000 ]; do x=$(:); i=$((i+1)); done
kill $!
echo $i`
	for _, m := range []mode{bare, cloexec} {
		t.Run(m.name, func(t *testing.T) {
			r := m.run(t, "/bin/sh", "-c", script)
			if r.status != 0 || r.stdout != "1000\n" {
				t.Errorf("status %d\n%s%s", r.status, r.stdout, tail(r.stderr))
			}
			r.enforced(t)
		})
	}
}

// Killed, stopped and exiting processes and threads.
func TestDeath(t *testing.T) {
	each(t, "death.c", amd64Builds, []mode{bare, cloexec, noPatch}, selfChecking)
}

// A program that closes every descriptor that it did not open.
func TestCloseAll(t *testing.T) {
	each(t, "closeall.c", amd64Builds, []mode{bare, cloexec, moved, noPatch}, selfChecking)
}

// Programs that start without some of the standard streams.
func TestStandardStreamsClosed(t *testing.T) {
	each(t, "standard.c", amd64Builds, []mode{bare, cloexec, all}, func(t *testing.T, m mode, program string) {
		for closed, redirections := range map[string]string{
			"": "", "0": "<&-", "1": ">&-", "2": "2>&-", "01": "<&- >&-", "12": ">&- 2>&-", "012": "<&- >&- 2>&-",
		} {
			ctx, cancel := context.WithTimeout(t.Context(), limit)
			cmd, summary := m.command(ctx, t, program, closed)
			cmd.Args = append([]string{"sh", "-c", `exec "$@" ` + redirections, "sh"}, cmd.Args...)
			cmd.Path = "/bin/sh"
			r := finish(t, ctx, cmd, summary)
			cancel()
			if r.status != 0 {
				t.Errorf("%q closed: status %d\n%s", closed, r.status, r.stderr)
			}
		}
	})
}

// A daemon outlives the command that started it, which does not wait for it,
// and is served as before.
func TestDaemon(t *testing.T) {
	each(t, "daemon.c", amd64Builds, []mode{bare, cloexec, noPatch}, func(t *testing.T, m mode, program string) {
		dir := t.TempDir()
		start := time.Now()
		m.run(t, program, dir).passed(t)
		if waited := time.Since(start); waited > 20*time.Second {
			t.Errorf("the command returned after %v", waited)
		}
		pid, err := strconv.Atoi(await(t, filepath.Join(dir, "pid")))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { syscall.Kill(pid, syscall.SIGKILL) })
		if err := os.WriteFile(filepath.Join(dir, "go"), nil, 0o666); err != nil {
			t.Fatal(err)
		}
		if got, want := await(t, filepath.Join(dir, "result")), "0 failures"; got != want {
			t.Errorf("the daemon says %q, want %q", got, want)
		}
	})
}

// await waits until a file appears, and returns its contents.
func await(t *testing.T, file string) string {
	t.Helper()
	for end := time.Now().Add(limit / 2); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if b, err := os.ReadFile(file); err == nil {
			return string(b)
		}
	}
	t.Fatalf("%s does not appear", filepath.Base(file))
	return ""
}

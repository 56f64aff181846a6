package e2e

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A supervisor that is killed is replaced, a hundred times under load: no call
// fails, and no other result is wrong.
func TestSupervisorKilled(t *testing.T) {
	for _, m := range []mode{cloexec, noPatch} {
		t.Run(m.name, func(t *testing.T) {
			t.Parallel()
			const kills, serving = 100, 4
			program := glibc.compile(t, "load.c")
			ctx, cancel := context.WithTimeout(t.Context(), limit)
			defer cancel()
			cmd, summary := m.command(ctx, t, program)
			// One of four is killed while it serves, the others when they are
			// somewhere in their first milliseconds.
			end := startAndKill(t, cmd, kills, func(i, pid int) bool { return i%serving != 0 || serves(pid) })
			if end.err != nil || end.killed < kills {
				t.Fatalf("%d of %d supervisors killed: %v\n%s", end.killed, kills, end.err, tail(end.stderr))
			}
			s, err := readSummary(summary)
			if err != nil {
				t.Fatal(err)
			}
			if s.Supervisors < kills/serving {
				t.Errorf("%d supervisors have served, %d were killed", s.Supervisors, kills)
			}
			var made, without, programs, withoutFlags uint64
			if _, err := fmt.Sscan(end.stdout, &made, &without, &programs, &withoutFlags); err != nil {
				t.Fatalf("%q: %v", end.stdout, err)
			}
			t.Logf("%d descriptors, %d without the flag; %d programs, %d with such descriptors; counted as not enforced: %d",
				made, without, programs, withoutFlags, s.Missed())
			// A socket pair is one call.
			if without+withoutFlags > 2*s.Missed() {
				t.Errorf("%d descriptors and %d programs without the flag, but %d calls counted as not enforced",
					without, withoutFlags, s.Missed())
			}
		})
	}
}

// Calls that run in place while their supervisor is killed go on waiting, with
// their thread's signals and registers, and are cancelled as ever.
func TestSupervisorKilledWhileCallsBlock(t *testing.T) {
	for _, m := range []mode{cloexec, moved, noPatch} {
		t.Run(m.name, func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithTimeout(t.Context(), limit)
			defer cancel()
			cmd, _ := m.command(ctx, t, cxx.compile(t, "unwind.cc"), "until standard input ends")
			// Less would be too little for a successor that has to plan all of libc
			// before it can let the first thread be cancelled.
			const kills, life = 30, 100 * time.Millisecond
			end := startAndKill(t, cmd, kills, func(_, pid int) bool {
				time.Sleep(life)
				return serves(pid)
			})
			if end.err != nil || end.killed < kills {
				t.Errorf("%d of %d supervisors killed: %v\n%s", end.killed, kills, end.err, tail(end.stderr))
			}
		})
	}
}

// ending is how a command ended whose supervisors were killed.
type ending struct {
	killed         int
	err            error
	stdout, stderr string
}

// startAndKill starts a command and kills its supervisors one after the other,
// each when it is time. After the last one the program's standard input ends,
// and with it the program.
func startAndKill(t *testing.T, cmd *exec.Cmd, kills int, isTime func(i, pid int) bool) (e ending) {
	t.Helper()
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	input, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	end := make(chan struct{})
	go func() { e.err = cmd.Wait(); close(end) }()
	over := func() bool {
		select {
		case <-end:
			return true
		default:
			return false
		}
	}
	for last := 0; e.killed < kills && !over(); {
		pid := supervisorOf(cmd.Process.Pid)
		if pid == 0 || pid == last || !isTime(e.killed, pid) {
			time.Sleep(time.Millisecond)
			continue
		}
		time.Sleep(time.Duration(e.killed%20) * time.Millisecond)
		if syscall.Kill(pid, syscall.SIGKILL) == nil {
			e.killed, last = e.killed+1, pid
		}
	}
	input.Close()
	<-end
	e.stdout, e.stderr = out.String(), errs.String()
	return e
}

// supervisorOf finds the supervisor among the children of a front, or 0.
func supervisorOf(front int) int {
	tasks, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", front))
	if err != nil {
		return 0
	}
	for _, task := range tasks {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%s/children", front, task.Name()))
		if err != nil {
			continue
		}
		for _, child := range strings.Fields(string(b)) {
			pid, err := strconv.Atoi(child)
			if err != nil {
				continue
			}
			args, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
			if err == nil && strings.HasPrefix(string(args), "indirect-supervisor\x00") {
				return pid
			}
		}
	}
	return 0
}

// serves reports whether a supervisor waits for a notification.
func serves(pid int) bool {
	calls, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/syscall", pid))
	for _, name := range calls {
		var nr, fd, request int64
		b, _ := os.ReadFile(name)
		n, _ := fmt.Sscanf(string(b), "%d 0x%x 0x%x", &nr, &fd, &request)
		if n == 3 && nr == unix.SYS_IOCTL && request == unix.SECCOMP_IOCTL_NOTIF_RECV {
			return true
		}
	}
	return false
}

// The command's processes go on, and stay served, when the front is killed.
func TestFrontKilled(t *testing.T) {
	t.Parallel()
	program := glibc.compile(t, "daemon.c")
	dir := t.TempDir()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	cmd, _ := cloexec.command(ctx, t, "/bin/sh", "-c", `"$0" "$1"; sleep 50`, program, dir)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(await(t, filepath.Join(dir, "pid")))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { syscall.Kill(pid, syscall.SIGKILL) })
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	cmd.Wait()
	t.Cleanup(func() { syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }) // the shell
	time.Sleep(50 * time.Millisecond)
	if err := os.WriteFile(filepath.Join(dir, "go"), nil, 0o666); err != nil {
		t.Fatal(err)
	}
	if got, want := await(t, filepath.Join(dir, "result")), "0 failures"; got != want {
		t.Errorf("the program says %q, want %q", got, want)
	}
}

// When its front is killed, a supervisor starts another one and guards it.
func TestFrontKilledIsNoticed(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	begun := filepath.Join(t.TempDir(), "begun")
	// Calls that trap, for a worker that waits leaves with the next one.
	cmd, _ := cloexec.command(ctx, t, "/bin/sh", "-c", `echo yes >"$0.new"; mv "$0.new" "$0"; while [ -e "$0" ]; do cat /dev/null; done`, begun)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	await(t, begun)
	t.Cleanup(func() { os.Remove(begun) })
	guard := supervisorOf(cmd.Process.Pid)
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	for next := 0; next == 0 || !serves(next); next = supervisorOf(guard) {
		if ctx.Err() != nil {
			t.Fatal("the supervisor does not guard another one")
		}
		time.Sleep(time.Millisecond)
	}
}

// The front is killed while many threads make calls that trap: the supervisor
// hands over to a successor, and no call is lost.
func TestFrontKilledUnderLoad(t *testing.T) {
	t.Parallel()
	program := glibc.compile(t, "syslet.c")
	for i := range 4 {
		t.Run(strconv.Itoa(i), func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithTimeout(t.Context(), limit)
			defer cancel()
			status := filepath.Join(t.TempDir(), "status")
			script := `echo begun >"$1.begun"; "$0" 20000 8 >/dev/null; echo $? >"$1.new"; mv "$1.new" "$1"`
			cmd, _ := noPatch.command(ctx, t, "/bin/sh", "-c", script, program, status)
			cmd.SysProcAttr.Setpgid = false
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			await(t, status+".begun")
			time.Sleep(400 * time.Millisecond) // calls are under way
			if err := cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
			_ = cmd.Wait()
			for {
				got, err := os.ReadFile(status)
				if err == nil {
					if string(got) != "0\n" {
						t.Errorf("the program's status: %q", got)
					}
					return
				}
				if ctx.Err() != nil {
					t.Fatal("the program hangs")
				}
				time.Sleep(10 * time.Millisecond)
			}
		})
	}
}

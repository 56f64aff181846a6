package e2e

import (
	"os/exec"
	"strings"
	"testing"
)

// Programs with a seccomp filter of their own.
func TestOwnFilter(t *testing.T) {
	each(t, "ownfilter.c", amd64Builds, []mode{bare, cloexec, moved, noPatch}, func(t *testing.T, m mode, program string) {
		for _, what := range []string{"errno", "list", "kill", "strict"} {
			if what == "kill" && m.name == moved.name {
				continue // moving a descriptor takes calls that the list does not have
			}
			t.Run(what, func(t *testing.T) {
				r := m.run(t, program, what)
				r.passed(t)
				r.enforced(t)
			})
		}
	})
}

// A program that traces its child: our tracing and its own do not meet.
func TestTracer(t *testing.T) {
	each(t, "tracer.c", amd64Builds, []mode{bare, cloexec, noPatch}, func(t *testing.T, m mode, program string) {
		for _, argv := range [][]string{{program}, {program, "calls"}} {
			m.run(t, argv...).passed(t)
		}
	})
}

// A shell that is exempt misses nothing when another tracer has it.
func TestExemptShellUnderStrace(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("strace"); err != nil {
		t.Skipf("%v (Debian: strace)", err)
	}
	r := cloexec.run(t, "strace", "-f", "-o", "/dev/null", "/bin/sh", "-c", "x=$(echo a); echo $x")
	if r.status != 0 || r.stdout != "a\n" {
		t.Errorf("status %d\n%s%s", r.status, r.stdout, tail(r.stderr))
	}
	r.enforced(t)
}

// strace and gdb work inside, as they do alone. The calls of a program that
// they trace may go without their flags, and are counted.
func TestDebuggersInside(t *testing.T) {
	t.Parallel()
	plain := glibc.compile(t, "plain.c")
	for _, c := range []struct {
		tool string
		argv []string
		want []string
	}{
		{"strace", []string{"strace", "-f", "-e", "trace=openat,pipe2", plain}, []string{`openat(AT_FDCWD, "/dev/null", O_RDONLY`, "pipe2([", "exited with 7"}},
		{"gdb", []string{"gdb", "-nx", "-batch", "-ex", "break answer", "-ex", "run", "-ex", "bt", "-ex", "cont", plain}, []string{"Breakpoint 1, answer", "#1 ", "exited with code 07"}},
	} {
		for _, m := range []mode{bare, cloexec, noPatch} {
			t.Run(c.tool+"/"+m.name, func(t *testing.T) {
				t.Parallel()
				if _, err := exec.LookPath(c.tool); err != nil {
					t.Skipf("%v (Debian: %s)", err, c.tool)
				}
				r := m.run(t, c.argv...)
				for _, want := range c.want {
					if !strings.Contains(r.stdout+r.stderr, want) {
						t.Errorf("no %q in the output:\n%s%s", want, tail(r.stdout), tail(r.stderr))
					}
				}
				switch {
				case m.isBare():
				case strings.Contains(r.stdout, "flags: 0 0") && r.missed() == 0:
					t.Errorf("calls without their flags are not counted: %+v\n%s", r.summary, r.stdout)
				}
			})
		}
	}
}

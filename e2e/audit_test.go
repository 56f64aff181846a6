package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/seed-055cd0c8/indirect/audit"
	"github.com/seed-055cd0c8/indirect/audit/report"
)

// audited runs "indirect audit" and returns its report, without what was
// inherited, and its exit status. Flags come before "--".
func audited(t *testing.T, argv ...string) (report.Document, int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	name := filepath.Join(t.TempDir(), "report.json")
	all := "leaks,races,latent,deliberate"
	cmd := exec.CommandContext(ctx, indirect, append([]string{"audit", "--format", "json", "--show", all, "-o", name}, argv...)...)
	out, err := cmd.CombinedOutput()
	if ctx.Err() != nil || cmd.ProcessState == nil {
		t.Fatalf("%v: %v\n%s", argv, err, out)
	}
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	var d report.Document
	if err := json.Unmarshal(text, &d); err != nil {
		t.Fatalf("%v\n%s\n%s", err, text, out)
	}
	return d, cmd.ProcessState.ExitCode()
}

// findings tells each finding in a line: kind, call, descriptor, the functions in
// source files of this name, and the program that received it.
func findings(d report.Document, source string) []string {
	var all []string
	for _, f := range d.Findings {
		var at []string
		for _, frame := range f.Created.Stack {
			if filepath.Base(frame.File) == source {
				at = append(at, fmt.Sprintf("%s:%d", frame.Function, frame.Line))
			}
		}
		line := fmt.Sprintf("%s %s %d at %s", f.Kind, f.Created.Call, f.Created.FD, strings.Join(at, "<"))
		if f.Received != nil {
			line += " to " + strings.Join(f.Received.Process.Argv, " ")
		}
		all = append(all, line)
	}
	slices.Sort(all)
	return all
}

// withDebug builds a C program with debug information.
func withDebug(t *testing.T, source string) string {
	t.Helper()
	gcc, err := exec.LookPath("gcc")
	if err != nil {
		t.Skip("there is no gcc to build the program with")
	}
	out := filepath.Join(programs, strings.TrimSuffix(filepath.Base(source), ".c"))
	if text, err := exec.Command(gcc, "-g", "-O1", "-fno-inline", "-pthread", "-o", out, source).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	return out
}

func TestAuditExamples(t *testing.T) {
	tests := map[string][]string{
		"leak": {"leak openat 3 at open_secret:11<main:15 to true"},
		"race": {
			"leak openat 3 at open_private:28<main:41 to true",
			"race openat 3 at open_private:28<main:41",
		},
		"latent": {"latent openat 3 at main:7"},
		"deliberate": {
			"deliberate dup2 9 at main:11 to true --status-fd=5",
			"deliberate pipe2 5 at main:11 to true --status-fd=5",
			"race pipe2 4 at main:11",
		},
	}
	for name, want := range tests {
		t.Run(name, func(t *testing.T) {
			program := withDebug(t, filepath.Join("..", "examples", name, name+".c"))
			d, status := audited(t, "--", program)
			if status != 0 {
				t.Errorf("exit status %d", status)
			}
			if diff := cmp.Diff(want, findings(d, name+".c")); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// TestAuditRace knows that a thread forked while the descriptor was inheritable.
func TestAuditRace(t *testing.T) {
	d, _ := audited(t, "--", withDebug(t, "../examples/race/race.c"))
	i := slices.IndexFunc(d.Findings, func(f report.Finding) bool { return f.Kind == audit.KindRace })
	if i < 0 {
		t.Fatal("no race")
	}
	if w := d.Findings[i].Window; !w.Threads || !w.Forked || w.Microseconds <= 0 || len(w.Stack) == 0 {
		t.Errorf("the window is %+v", w)
	}
}

// TestAuditPython audits an interpreter.
func TestAuditPython(t *testing.T) {
	python, err := exec.LookPath("python3")
	if err != nil {
		t.Skip("there is no python3")
	}
	const script = `
import os, subprocess
leaked = os.open("/etc/passwd", os.O_RDONLY) # close-on-exec, as all of Python's
os.set_inheritable(leaked, True)             # no longer
subprocess.run(["true", "kept"], close_fds=False)
subprocess.run(["true", "closed"])
`
	d, status := audited(t, "--", python, "-c", script)
	if status != 0 {
		t.Errorf("exit status %d", status)
	}
	var got []string
	for _, f := range d.Findings {
		if f.Received != nil && f.Created.Object.Link == "/etc/passwd" {
			got = append(got, fmt.Sprint(f.Kind, f.Received.Process.Argv))
		}
	}
	if want := []string{"deliberate[true kept]"}; !slices.Equal(got, want) {
		t.Errorf("found %q, want %q", got, want)
	}
}

// TestAuditPolicy runs a program under the policy that its audit has written,
// and audits it again there.
func TestAuditPolicy(t *testing.T) {
	leak := withDebug(t, "../examples/leak/leak.c")
	file := filepath.Join(t.TempDir(), "policy.yaml")
	d, _ := audited(t, "--write-policy", file, "--", leak)
	if d.Counts[audit.KindLeak] != 1 {
		t.Fatalf("%d leaks before", d.Counts[audit.KindLeak])
	}
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	// What reaches the program under the policy, as the program itself sees it.
	dir := t.TempDir()
	script := "#!/bin/sh\nls -l /proc/$$/fd >" + filepath.Join(dir, "seen") + "\n"
	if err := os.WriteFile(filepath.Join(dir, "true"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name  string
		argv  []string
		leaks bool
	}{
		{"bare", []string{leak}, true},
		{"with the policy", []string{indirect, "run", "--policy", file, "--", leak}, false},
	} {
		cmd := exec.CommandContext(ctx, test.argv[0], test.argv[1:]...)
		cmd.Env = append(os.Environ(), "PATH="+dir+":"+os.Getenv("PATH"))
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", test.name, err, out)
		}
		seen, err := os.ReadFile(filepath.Join(dir, "seen"))
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(seen), "/etc/hostname") != test.leaks {
			t.Errorf("%s, the child saw\n%s", test.name, seen)
		}
	}
}

func TestAuditExitStatus(t *testing.T) {
	leak := withDebug(t, "../examples/leak/leak.c")
	supp := filepath.Join(t.TempDir(), "supp")
	if err := os.WriteFile(supp, []byte("{\n  known\n  call:openat\n}\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		argv []string
		want int
	}{
		{[]string{"--", leak}, 0},
		{[]string{"--error-exitcode", "42", "--", leak}, 42},
		{[]string{"--error-exitcode", "42", "--suppressions", supp, "--", leak}, 0},
		{[]string{"--error-exitcode", "42", "--", "/bin/sh", "-c", "exit 7"}, 7},
	} {
		if _, status := audited(t, test.argv...); status != test.want {
			t.Errorf("%v: exit status %d, want %d", test.argv, status, test.want)
		}
	}
}

// TestAuditMistakes: nothing is started, and the exit status is 125.
func TestAuditMistakes(t *testing.T) {
	dir := t.TempDir()
	bad := filepath.Join(dir, "bad.supp")
	if err := os.WriteFile(bad, []byte("{\n  x\n  nonsense:1\n}\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	witness := filepath.Join(dir, "started")
	for _, test := range []struct {
		flags []string
		want  string
	}{
		{[]string{"--suppressions", bad}, "bad.supp:3"},
		{[]string{"--suppressions", filepath.Join(dir, "none")}, "no such file"},
		{[]string{"-o", filepath.Join(dir, "no", "dir")}, "no such file"},
		{[]string{"--write-policy", filepath.Join(dir, "no", "dir")}, "no such file"},
		{[]string{"--format", "yaml"}, "yaml"},
		{[]string{"--show", "spills"}, "spills"},
		{[]string{"--stack-depth", "0"}, "stack-depth"},
		{[]string{"--error-exitcode", "256"}, "error-exitcode"},
		{[]string{"--follow", "--no-follow"}, "follow"},
	} {
		cmd := exec.CommandContext(t.Context(), indirect, append(append([]string{"audit"}, test.flags...), "--", "touch", witness)...)
		out, _ := cmd.CombinedOutput()
		if cmd.ProcessState.ExitCode() != 125 || !strings.Contains(string(out), test.want) || strings.Count(string(out), "\n") != 1 {
			t.Errorf("%v: exit status %d, %s", test.flags, cmd.ProcessState.ExitCode(), out)
		}
		if _, err := os.Stat(witness); err == nil {
			t.Fatalf("%v: the command was started", test.flags)
		}
	}
}

// TestAuditDiskFull writes a report where there is no room: the text goes to
// standard error.
func TestAuditDiskFull(t *testing.T) {
	leak := withDebug(t, "../examples/leak/leak.c")
	cmd := exec.CommandContext(t.Context(), indirect, "audit", "--format", "html", "-o", "/dev/full", "--", leak)
	out, _ := cmd.CombinedOutput()
	if cmd.ProcessState.ExitCode() != 125 || !strings.Contains(string(out), "no space left") || !strings.Contains(string(out), "LEAK") {
		t.Errorf("exit status %d\n%s", cmd.ProcessState.ExitCode(), out)
	}
}

// TestAuditOfCrashes reports what a program did before it crashed.
func TestAuditOfCrashes(t *testing.T) {
	leak := withDebug(t, "../examples/leak/leak.c")
	d, status := audited(t, "--", "/bin/sh", "-c", leak+"; kill -SEGV $$")
	if status != 128+11 || d.Counts[audit.KindLeak] != 1 {
		t.Errorf("exit status %d, %d leaks", status, d.Counts[audit.KindLeak])
	}
}

package e2e

import (
	"fmt"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/seed-055cd0c8/indirect/audit"
)

// Of a socket, the addresses are told that it has when it is received.
func TestAuditSocket(t *testing.T) {
	t.Parallel()
	d, _ := audited(t, "--", glibc.compile(t, "leaksocket.c"))
	if len(d.Findings) != 1 || d.Findings[0].Kind != audit.KindLeak {
		t.Fatalf("findings %+v", d.Findings)
	}
	if o := d.Findings[0].Created.Object; !regexp.MustCompile(`^TCP 127\.0\.0\.1:\d+ listening$`).MatchString(o.Detail) {
		t.Errorf("the socket is %+v", o)
	}
}

// Findings in i386 programs have stacks, too.
func TestAuditI386(t *testing.T) {
	t.Parallel()
	for _, b := range runnable(i386) {
		d, _ := audited(t, "--", b.compile(t, "leaksocket.c"))
		if len(d.Findings) != 1 || d.Findings[0].Kind != audit.KindLeak {
			t.Errorf("findings %+v", d.Findings)
			continue
		}
		var stack []string
		for _, frame := range d.Findings[0].Created.Stack {
			stack = append(stack, fmt.Sprintf("%s:%d", frame.Function, frame.Line))
		}
		if !slices.Contains(stack, "main:8") {
			t.Errorf("the stack is %q", stack)
		}
	}
}

// Of a Python program, the lines of the script are told.
func TestAuditPythonLines(t *testing.T) {
	t.Parallel()
	const python = "/usr/bin/python3"
	version, err := exec.Command(python, "-c", "import ctypes, sys; print('%d.%d' % sys.version_info[:2])").Output()
	if err != nil || !strings.Contains("3.11 3.12 3.13", strings.TrimSpace(string(version))) {
		t.Skipf("no %s 3.11 to 3.13 with ctypes: %s %v", python, version, err)
	}
	d, status := audited(t, "--", python, "testdata/leak.py")
	if status != 0 {
		t.Errorf("status %d", status)
	}
	var leaks []string
	for _, line := range findings(d, "leak.py") {
		if strings.HasPrefix(line, "leak ") {
			leaks = append(leaks, line)
		}
	}
	// Two descriptors from one place: one finding.
	const at = " at Keeper.__init__:11<keep:17<<module>:21 to true"
	if len(leaks) != 1 || !strings.HasSuffix(leaks[0], at) {
		t.Errorf("leaks %q", leaks)
	}
}

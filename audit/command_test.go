package audit_test

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/seed-055cd0c8/indirect/audit"
	"github.com/seed-055cd0c8/indirect/fdcall"
	"github.com/seed-055cd0c8/indirect/policy"
)

func TestMain(m *testing.M) {
	audit.Main()
	os.Exit(m.Run())
}

func TestCommand(t *testing.T) {
	if leaks := audit.Command(t, "true").Leaks(); len(leaks) > 0 {
		t.Errorf("true leaks %d descriptors, the first at %s", len(leaks), leaks[0].Site())
	}
	gcc, err := exec.LookPath("gcc")
	if err != nil {
		t.Skip("there is no gcc to build the program with")
	}
	leak := filepath.Join(t.TempDir(), "leak")
	if out, err := exec.Command(gcc, "-g", "-O0", "-o", leak, "../examples/leak/leak.c").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	c := audit.Command(t, leak)
	leaks := c.Leaks()
	if len(leaks) != 1 || leaks[0].Creation.Call != "openat" || leaks[0].Creation.Object.Link != "/etc/hostname" {
		t.Fatalf("%+v", leaks)
	}
	if f := leaks[0].SiteFrame(); f == nil || f.Function != "open_secret" || f.Line != 11 {
		t.Errorf("created at %+v", f)
	}
	if len(c.Races()) != 0 || c.Status() != 0 {
		t.Errorf("%d races, status %#x", len(c.Races()), c.Status())
	}
}

// TestPolicyMends audits a program again under the policy that its first audit gave.
func TestPolicyMends(t *testing.T) {
	gcc, err := exec.LookPath("gcc")
	if err != nil {
		t.Skip("there is no gcc to build the programs with")
	}
	for _, name := range []string{"leak", "race", "deliberate"} {
		program := filepath.Join(t.TempDir(), name)
		if out, err := exec.Command(gcc, "-g", "-O1", "-pthread", "-o", program, "../examples/"+name+"/"+name+".c").CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		first := audit.Command(t, program)
		var text bytes.Buffer
		unmended, err := audit.WritePolicy(&text, first.Report())
		if err != nil {
			t.Fatal(err)
		}
		again := audit.Command(t, program)
		if again.Policy, err = policy.Parse("policy", text.Bytes(), fdcall.Linux()); err != nil {
			t.Fatal(err)
		}
		r := again.Report()
		if len(r.Leaks()) > 0 || len(r.Races()) > len(unmended) || again.Status() != 0 {
			t.Errorf("%s: %d leaks and %d races under\n%s", name, len(r.Leaks()), len(r.Races()), &text)
		}
		for _, f := range r.Of(audit.KindInherited) {
			if f.Creation.Object.Link == "/etc/hostname" {
				t.Errorf("%s: a program received the file, it is not known why", name)
			}
		}
		if before, after := first.Report().Counts[audit.KindDeliberate], r.Counts[audit.KindDeliberate]; before != after {
			t.Errorf("%s: %d deliberate descriptors before, %d under the policy", name, before, after)
		}
	}
}

func TestRunErrors(t *testing.T) {
	for _, c := range []audit.Cmd{
		{Path: "true"},
		{Path: "/no/such/program", Args: []string{"program"}},
	} {
		if r, err := c.Run(context.Background()); err == nil {
			t.Errorf("%s: %+v", c.Path, r)
		}
	}
}

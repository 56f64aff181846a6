package audit_test

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/seed-055cd0c8/indirect/audit"
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

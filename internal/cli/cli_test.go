package cli

import (
	"errors"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/cobra"

	"github.com/seed-055cd0c8/indirect/fdcall"
	"github.com/seed-055cd0c8/indirect/supervise"
)

// Every command and flag explains itself.
func TestDefinitionsAreComplete(t *testing.T) {
	var walk func(*cobra.Command)
	walk = func(c *cobra.Command) {
		if c.Short == "" || c.Long == "" || c.Example == "" {
			t.Errorf("%s: lacks a short text, a long text or an example", c.CommandPath())
		}
		for line := range strings.Lines(c.Long) {
			const width = 100 // the lists are not wrapped
			if len(line) > width && !strings.HasPrefix(line, "  ") && c.Name() != "version" {
				t.Errorf("%s: a line of %d characters: %s", c.CommandPath(), len(line), line)
			}
		}
		for _, sub := range c.Commands() {
			walk(sub)
		}
	}
	walk(New())
}

func TestOneLine(t *testing.T) {
	tests := []struct {
		err  error
		want string
	}{
		{errors.New("one"), "one"},
		{errors.New("one\n"), "one"},
		{errors.Join(errors.New("one"), errors.New("two")), "one (and 1 more like it)"},
		{errors.New("one\ntwo\nthree"), "one (and 2 more like it)"},
	}
	for _, test := range tests {
		if got := oneLine(test.err); got != test.want {
			t.Errorf("oneLine(%q) = %q, want %q", test.err, got, test.want)
		}
	}
}

func TestVersion(t *testing.T) {
	info := &debug.BuildInfo{GoVersion: "go1.26.1", Main: debug.Module{Version: "v1.2.3"}}
	if got := version(info); !strings.HasPrefix(got, "indirect v1.2.3 go1.26.1 linux/") {
		t.Errorf("version = %q", got)
	}
	info.Settings = []debug.BuildSetting{{Key: "vcs.revision", Value: "abc"}, {Key: "vcs.modified", Value: "true"}}
	if got := version(info); !strings.HasPrefix(got, "indirect v1.2.3 abc (modified) go1.26.1") {
		t.Errorf("version = %q", got)
	}
}

func TestMakePolicy(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "policy.yaml")
	if err := os.WriteFile(file, []byte("version: 1\nadd: [nonblock]\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name                string
		flags               runFlags
		other, shell, nginx fdcall.Want
	}{
		{"default", runFlags{add: "cloexec"}, fdcall.Cloexec, 0, fdcall.Cloexec},
		{"none", runFlags{add: "none"}, 0, 0, 0},
		{"shells", runFlags{add: "cloexec", noExemptShells: true}, fdcall.Cloexec, fdcall.Cloexec, fdcall.Cloexec},
		{"exempt", runFlags{add: "cloexec,nonblock", exempt: []string{"nginx"}}, fdcall.Cloexec | fdcall.Nonblock, 0, 0},
		{"file", runFlags{add: "cloexec", policy: file}, fdcall.Nonblock, 0, fdcall.Nonblock},
		{"file and flags", runFlags{add: "cloexec", policy: file, noExemptShells: true, exempt: []string{"nginx"}}, fdcall.Nonblock, fdcall.Nonblock, 0},
	}
	socket := fdcall.Linux().ByID("socket")
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			p, err := test.flags.makePolicy(false)
			if err != nil {
				t.Fatal(err)
			}
			got := []fdcall.Want{p.Program("/opt/other").Want(socket), p.Program("/opt/bash").Want(socket), p.Program("/opt/nginx").Want(socket)}
			if diff := cmp.Diff([]fdcall.Want{test.other, test.shell, test.nginx}, got); diff != "" {
				t.Errorf("other, bash, nginx: %s", diff)
			}
		})
	}
}

func TestSummaryWriter(t *testing.T) {
	missed := supervise.Summary{NotEnforced: []supervise.Unenforced{
		{Call: "pipe", Count: 2, Why: "of this"}, {Call: "openat", Count: 5, Why: "of that"},
	}}
	tests := []struct {
		name    string
		text    bool
		summary supervise.Summary
		want    string
	}{
		{"silent", false, supervise.Summary{}, ""},
		{"missed", false, missed, "indirect: 7 calls ran without their flags, 5 of them openat: of that; --summary tells all\n"},
		{"text", true, missed, "not enforced: 5 of openat: of that\n"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			var b strings.Builder
			if err := (summaryWriter{stderr: &b, text: test.text}).write(test.summary); err != nil {
				t.Fatal(err)
			}
			if got := b.String(); !strings.HasSuffix(got, test.want) || test.want == "" && got != "" {
				t.Errorf("wrote %q, want %q", got, test.want)
			}
		})
	}
}

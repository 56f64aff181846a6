package policy

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/seed-055cd0c8/indirect/fdcall"
)

var table = fdcall.Linux()

func mustParse(t *testing.T, text string) *Policy {
	t.Helper()
	p, err := Parse("test.yaml", []byte(text), table)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// equal lets cmp see inside a Policy.
var equal = cmp.AllowUnexported(Policy{})

func TestNewAddsToEveryProgramButShells(t *testing.T) {
	p := New(fdcall.Cloexec | fdcall.Nonblock)
	for _, tt := range []struct {
		exe, call string
		want      fdcall.Want
	}{
		{"/usr/sbin/nginx", "open", fdcall.Cloexec | fdcall.Nonblock},
		{"/usr/sbin/nginx", "dup", fdcall.Cloexec}, // the open file description is shared
		{"/usr/sbin/nginx", "fcntl F_DUPFD_CLOEXEC", 0},
		{"/usr/sbin/nginx (deleted)", "pipe", fdcall.Cloexec | fdcall.Nonblock},
		{"/usr/bin/bash", "open", 0},
		{"/usr/bin/bash (deleted)", "open", 0},
		{"", "open", fdcall.Cloexec | fdcall.Nonblock},
	} {
		if got := p.Program(tt.exe).Want(table.ByID(tt.call)); got != tt.want {
			t.Errorf("%s in %q: %s, want %s", tt.call, tt.exe, FormatWant(got), FormatWant(tt.want))
		}
	}
	p.ExemptShells(false)
	if p.Program("/bin/sh").Exempt() {
		t.Error("/bin/sh is exempt although shells are not")
	}
	if !New(0).Program("/usr/sbin/nginx").Exempt() || !new(Policy).Program("/usr/sbin/nginx").Exempt() {
		t.Error("a program is not exempt although the policy adds nothing")
	}
}

func TestShells(t *testing.T) {
	for name, want := range map[string]bool{
		"sh": true, "bash": true, "dash": true, "zsh": true, "ksh": true, "ksh93": true, "mksh": true,
		"ash": true, "fish": true, "tcsh": true, "csh": true, "yash": true, "busybox": true, "rc": true, "es": true, "posh": true,
		"bash5": true, "bash-5.2.37": true, "zsh-5.9": true, "zsh5": true, "bash-static": true, "zsh5-static": true,
		"busybox.static": true, "ksh93u": true, "sh-5.2": true,
		"": false, "bashful": false, "sshd": false, "bash-completion": false, "es6": false, "rc2": false, "esbuild": false,
		"fish_indent": false, "shfmt": false, "static": false, "-static": false, "bash-": false, "Bash": false, "python3": false,
	} {
		if got := isShell(name); got != want {
			t.Errorf("isShell(%q) = %t", name, got)
		}
	}
}

func TestPrecedence(t *testing.T) {
	p := mustParse(t, `
version: 1
add: [cloexec]
exempt: [sshd, /opt/odd]
calls:
  pipe: [cloexec, nonblock]
  fcntl: []
  fcntl F_DUPFD: [nonseq]
programs:
  - match: nginx
    add: [nonblock]
    calls: {open: [nonseq]}
  - match: /usr/sbin/nginx
    calls: {pipe: []}
  - match: /opt/sshd
    add: [cloexec]
  - match: zsh
    add: [cloexec]
  - match: dash
    calls: {pipe: [cloexec]}
`)
	for _, tt := range []struct{ exe, call, want, why string }{
		{"/bin/cat", "open", "cloexec", "default"},
		{"/bin/cat", "pipe", "cloexec,nonblock", "call before default"},
		{"/bin/cat", "fcntl F_DUPFD", "nonseq", "operation before call"},
		{"/bin/cat", "fcntl F_DUPFD_CLOEXEC", "none", "all operations of a call"},
		{"/opt/nginx", "pipe", "nonblock", "program before call"},
		{"/opt/nginx", "open", "nonseq", "call in program before program"},
		{"/usr/sbin/nginx", "pipe", "none", "path before name"},
		{"/usr/sbin/nginx", "open", "nonseq", "path's rule leaves it to the name's"},
		{"/usr/sbin/nginx", "dup", "none", "path's rule leaves it to the name's, and dup shares its status flags"},
		{"/usr/sbin/sshd", "open", "none", "exempt by name"},
		{"/opt/sshd", "open", "cloexec", "path's rule before exemption by name"},
		{"/opt/odd", "pipe", "none", "exempt by path"},
		{"/usr/bin/odd", "dup", "cloexec", "another path"},
		{"/usr/bin/bash", "pipe", "none", "shell"},
		{"/usr/bin/zsh", "pipe", "cloexec", "a rule includes a shell"},
		{"/usr/bin/dash", "pipe", "cloexec", "a rule includes a call of a shell"},
		{"/usr/bin/dash", "open", "none", "and no other call"},
	} {
		if got := FormatWant(p.Program(tt.exe).Want(table.ByID(tt.call))); got != tt.want {
			t.Errorf("%s in %s: %s, want %s (%s)", tt.call, tt.exe, got, tt.want, tt.why)
		}
	}
	for exe, want := range map[string]bool{
		"/usr/sbin/sshd": true, "/opt/odd": true, "/usr/bin/bash": true, "/opt/odd (deleted)": true,
		"/opt/sshd": false, "/usr/bin/zsh": false, "/usr/bin/dash": false, "/bin/cat": false, "/usr/sbin/nginx": false,
	} {
		if got := p.Program(exe).Exempt(); got != want {
			t.Errorf("%s: exempt is %t", exe, got)
		}
	}
}

func TestUnionKnowsEveryProgram(t *testing.T) {
	p := mustParse(t, `
version: 1
add: []
programs:
  - match: a
    calls: {open: [cloexec]}
  - match: /b/bash
    calls: {open: [nonblock]}
  - match: c
    add: [nonseq]
`)
	if got := FormatWant(p.Union(table.ByID("open"))); got != "cloexec,nonblock,nonseq" {
		t.Errorf("open: %s", got)
	}
	if got := FormatWant(p.Union(table.ByID("pipe"))); got != "nonseq" {
		t.Errorf("pipe: %s", got)
	}
	if got := New(0).Union(table.ByID("open")); got != 0 {
		t.Errorf("a policy that adds nothing traps for %s", FormatWant(got))
	}
}

func TestExempt(t *testing.T) {
	p := New(fdcall.Cloexec)
	before := New(fdcall.Cloexec)
	if err := p.Exempt("sshd", "sbin/nginx"); err == nil || !strings.Contains(err.Error(), `"nginx"`) {
		t.Errorf("a relative path: %v", err)
	}
	if d := cmp.Diff(before, p, equal); d != "" {
		t.Errorf("changed on error: %s", d)
	}
	if err := p.Exempt("sshd", "/usr/sbin/nginx"); err != nil {
		t.Fatal(err)
	}
	for exe, want := range map[string]bool{
		"/usr/sbin/sshd": true, "/usr/sbin/nginx": true, "/opt/nginx": false,
	} {
		if got := p.Program(exe).Exempt(); got != want {
			t.Errorf("%s: exempt is %t", exe, got)
		}
	}
}

func TestFollowLinks(t *testing.T) {
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"mawk", "busybox"} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for link, to := range map[string]string{"awk": "mawk", "ls": "busybox", "sh": "busybox", "loop": "loop"} {
		if err := os.Symlink(to, filepath.Join(dir, link)); err != nil {
			t.Fatal(err)
		}
	}
	at := func(name string) string { return filepath.Join(dir, name) }

	p := New(fdcall.Cloexec)
	if err := p.Exempt(at("awk"), at("absent"), "name"); err != nil {
		t.Fatal(err)
	}
	if err := p.FollowLinks(); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"awk", "mawk", "absent"} {
		if !p.Program(at(name)).Exempt() {
			t.Errorf("%s is not exempt", name)
		}
	}
	if err := p.FollowLinks(); err != nil {
		t.Errorf("followed twice: %v", err)
	}

	for _, tt := range []struct{ name, policy, want string }{
		{"two rules for one file", "exempt: [DIR/awk]\nprograms: [{match: DIR/mawk, add: [cloexec]}]", "differ, but both are for the file " + at("mawk")},
		{"one rule for one file", "exempt: [DIR/awk, DIR/mawk]", ""},
		{"a rule that reaches the shell", "programs: [{match: DIR/ls, add: [cloexec]}]", "would also be for the shell"},
		{"a loop", "exempt: [DIR/loop]", "find the file behind"},
		{"a shell meant", "programs: [{match: DIR/sh, add: [cloexec]}]", ""},
		{"an exemption that reaches the shell", "exempt: [DIR/ls]", ""},
	} {
		p := mustParse(t, "version: 1\n"+strings.ReplaceAll(tt.policy, "DIR", dir))
		switch err := p.FollowLinks(); {
		case tt.want == "" && err != nil:
			t.Errorf("%s: %v", tt.name, err)
		case tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)):
			t.Errorf("%s: %v, want %q", tt.name, err, tt.want)
		}
	}
}

func TestWantRoundTrip(t *testing.T) {
	for w := fdcall.Want(0); w <= fdcall.Cloexec|fdcall.Nonblock|fdcall.Nonseq; w++ {
		if got, err := ParseWant(FormatWant(w)); err != nil || got != w {
			t.Errorf("%s: %d, %v", FormatWant(w), got, err)
		}
	}
	for _, s := range []string{"", "cloexec,", "Cloexec", "cloexec,cloexec", "none,cloexec", "cloexec nonblock", "exec"} {
		if _, err := ParseWant(s); err == nil {
			t.Errorf("%q is accepted", s)
		} else if strings.Contains(err.Error(), "unknown") && !strings.Contains(err.Error(), `cloexec, nonblock, nonseq; or "none"`) {
			t.Errorf("%q: the error does not name the known words: %v", s, err)
		}
	}
}

func TestJSONRoundTrip(t *testing.T) {
	wants := rapid.Map(rapid.IntRange(0, 7), func(n int) want { return want(n) })
	rules := rapid.Custom(func(t *rapid.T) rule {
		r := rule{Add: rapid.Ptr(wants, true).Draw(t, "add")}
		if rapid.Bool().Draw(t, "has calls") {
			r.Calls = rapid.MapOfN(rapid.String(), wants, 1, 3).Draw(t, "calls")
		}
		return r
	})
	rapid.Check(t, func(t *rapid.T) {
		p := &Policy{exemptShells: rapid.Bool().Draw(t, "shells"), general: rules.Draw(t, "general")}
		for match, r := range rapid.MapOf(rapid.StringMatching(`(/opt/)?[a-z0-9ä"\\]+`), rules).Draw(t, "programs") {
			p.set(match+"\xff", r)
		}
		data, err := json.Marshal(p)
		if err != nil {
			t.Fatal(err)
		}
		var got Policy
		if err := json.Unmarshal(data, &got); err != nil {
			t.Fatalf("%s: %v", data, err)
		}
		if d := cmp.Diff(p, &got, equal); d != "" {
			t.Errorf("%s: %s", data, d)
		}
	})
}

func TestUnmarshalJSONRejects(t *testing.T) {
	for _, data := range []string{
		``, `[]`, `{"exempt_shell":true}`, `{"general":{"add":"cloexecs"}}`, `{"programs":{"\"a/b\"":{}}}`, `{"programs":{"a":{}}}`,
		`{"general":{"calls":{"open":3}}}`,
	} {
		p := New(fdcall.Cloexec)
		if err := p.UnmarshalJSON([]byte(data)); err == nil {
			t.Errorf("%s is accepted", data)
		}
		if d := cmp.Diff(New(fdcall.Cloexec), p, equal); d != "" {
			t.Errorf("%s: changed on error: %s", data, d)
		}
	}
}

// OpenJDK passes pipes to its helper by number; a rule for it decides again.
func TestHandOver(t *testing.T) {
	table := fdcall.Linux()
	pipe, open := table.ByID("pipe2"), table.ByID("open")
	p := New(fdcall.Cloexec)
	if got := p.Program("/usr/lib/jvm/java-17-openjdk-amd64/bin/java").Want(pipe); got != 0 {
		t.Errorf("java's pipes: %v", got)
	}
	if got := p.Program("/usr/bin/java").Want(open); got != fdcall.Cloexec {
		t.Errorf("java's files: %v", got)
	}
	ruled, err := Parse("p", []byte("version: 1\nadd: [cloexec]\nprograms:\n  - match: java\n    add: [cloexec]\n"), table)
	if err != nil {
		t.Fatal(err)
	}
	if got := ruled.Program("/usr/bin/java").Want(pipe); got != fdcall.Cloexec {
		t.Errorf("java's pipes under a rule of their own: %v", got)
	}
}

package audit

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/seed-055cd0c8/indirect/fdcall"
	"github.com/seed-055cd0c8/indirect/policy"
)

func TestWritePolicy(t *testing.T) {
	finding := func(k Kind, program, call string) Finding {
		f := suspect()
		f.Kind, f.Creator.Executable, f.Creation.Call = k, program, call
		if k == KindRace {
			f.Receipt, f.Window = nil, &Window{}
		}
		return f
	}
	r := &Report{Command: []string{"a", "b\nversion: 2"}, Findings: []Finding{
		finding(KindLeak, "/usr/bin/a", "openat"),
		finding(KindLeak, "/usr/bin/a", "openat"),
		finding(KindLeak, "/usr/bin/a", "pipe2"),
		finding(KindLeak, "/opt/my program: x (deleted)", "fcntl F_DUPFD"),
		finding(KindLeak, "relative", "openat"),
		finding(KindLeak, "/bin/\x1bx", "openat"),
		finding(KindLeak, "/bin/none", "no such call"),
		finding(KindRace, "/usr/bin/raced", "accept"),
		finding(KindDeliberate, "/usr/bin/a", "pipe2"),
		finding(KindDeliberate, "/usr/bin/a", "dup2"),
		finding(KindInherited, "/usr/bin/a", "socket"),
		finding(KindLatent, "/usr/bin/latent", "openat"),
	}}
	var b strings.Builder
	unmended, err := WritePolicy(&b, r)
	if err != nil {
		t.Fatal(err)
	}
	want := `# Mends what "indirect audit" found in
#   a b?version: 2
# and leaves everything else alone. To use it:
#   indirect run --policy FILE -- COMMAND
# Not mended: pipe2 in /usr/bin/a: other descriptors of this call are handed on deliberately.
#   created at main (in /usr/bin/a+0x0)
# Not mended: openat in relative: a policy cannot name this program.
#   created at __open64 (in /usr/lib/libc.so.6+0x0)
# Not mended: openat in /bin/?x: a policy cannot name this program.
#   created at __open64 (in /usr/lib/libc.so.6+0x0)
# Not mended: no such call in /bin/none: a policy cannot add close-on-exec to this call.
#   created at __open64 (in /usr/lib/libc.so.6+0x0)
version: 1
add: []
programs:
  - match: "/opt/my program: x"
    calls:
      fcntl F_DUPFD: [cloexec]
        # leak at __open64 (in /usr/lib/libc.so.6+0x0)
  - match: /usr/bin/a
    calls:
      openat: [cloexec]
        # leak at main (in /usr/bin/a+0x0)
        # leak at main (in /usr/bin/a+0x0)
  - match: /usr/bin/raced
    calls:
      accept: [cloexec]
        # race at __open64 (in /usr/lib/libc.so.6+0x0)
`
	if diff := cmp.Diff(want, b.String()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if len(unmended) != 4 {
		t.Errorf("%d findings are not mended, want 4", len(unmended))
	}
	table := fdcall.Linux()
	p, err := policy.Parse("written", []byte(b.String()), table)
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		program, call string
		want          fdcall.Want
	}{
		{"/usr/bin/a", "openat", fdcall.Cloexec},
		{"/usr/bin/a", "pipe2", 0},
		{"/usr/bin/a", "socket", 0},
		{"/opt/my program: x", "fcntl F_DUPFD", fdcall.Cloexec},
		{"/usr/bin/raced", "accept", fdcall.Cloexec},
		{"/usr/bin/other", "openat", 0},
	} {
		if got := p.Program(test.program).Want(table.ByID(test.call)); got != test.want {
			t.Errorf("%s in %s: %s, want %s", test.call, test.program, policy.FormatWant(got), policy.FormatWant(test.want))
		}
	}
}

func TestWriteEmptyPolicy(t *testing.T) {
	var b strings.Builder
	if _, err := WritePolicy(&b, &Report{}); err != nil {
		t.Fatal(err)
	}
	if _, err := policy.Parse("written", []byte(b.String()), fdcall.Linux()); err != nil {
		t.Error(err)
	}
	if _, err := WritePolicy(broken{}, &Report{}); err == nil {
		t.Error("the writer's error is lost")
	}
}

// broken is a writer that cannot write.
type broken struct{}

func (broken) Write([]byte) (int, error) { return 0, errors.New("broken") }

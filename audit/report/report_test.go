package report

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unicode"

	"github.com/google/go-cmp/cmp"

	"github.com/seed-055cd0c8/indirect/audit"
)

var update = flag.Bool("update", false, "write the files in testdata")

const ms = int64(1e6)

// usual is a run with findings of every kind: a service that starts a helper
// and a shell that starts two programs.
func usual() []audit.Event {
	const start = 5_000 * ms
	libc := func(name string, offset uint64) audit.Frame {
		return audit.Frame{Function: name, Module: "/usr/lib/x86_64-linux-gnu/libc.so.6", Offset: offset, BuildID: "93ac7d1e"}
	}
	own := func(name string, line int) audit.Frame {
		return audit.Frame{Function: name, File: "/home/user/service/service.c", Line: line, Module: "/usr/sbin/service", Offset: uint64(0x1000 + 16*line)}
	}
	spawn := audit.Stack{ID: 20, Frames: []audit.Frame{libc("__spawni_child", 0xe1234), libc("posix_spawn", 0xe2000), own("run_helper", 88), own("main", 120)}}
	program := func(id, parent uint64, pid int, at int64, exe string, argv ...string) audit.Event {
		return audit.Event{Program: &audit.Program{ID: id, Parent: parent, PID: pid, Executable: exe, Argv: argv, Started: start + at*ms}}
	}
	open := func(path string) []audit.Argument {
		return []audit.Argument{{Name: "dirfd", Value: "AT_FDCWD"}, {Name: "pathname", Value: fmt.Sprintf("%q", path)}, {Name: "flags", Value: "O_RDONLY"}}
	}
	events := []audit.Event{
		program(1, 0, 100, 0, "/usr/sbin/service", "service", "--config", "/etc/service.conf"),
		{Stack: &audit.Stack{ID: 10, Frames: []audit.Frame{
			libc("__open64", 0xf0a10), {Function: "open_config", File: "/home/user/service/config.h", Line: 17, Module: "/usr/sbin/service", Offset: 0x1110, Inlined: true}, own("start", 52), own("main", 101),
		}}},
		{Stack: &audit.Stack{ID: 11, Frames: []audit.Frame{libc("socket", 0x101ab), own("listen_on", 61), own("main", 105)}}},
		{Stack: &audit.Stack{ID: 12, Frames: []audit.Frame{libc("accept", 0x101cd), own("serve", 74), {Module: "/usr/lib/libplugin.so", Offset: 0x2f3c, BuildID: "00ff", Guessed: true}}}},
		{Stack: &audit.Stack{ID: 13, Frames: []audit.Frame{libc("fcntl", 0xf0bbb), own("serve", 76)}}},
		{Stack: &audit.Stack{ID: 14, Frames: []audit.Frame{libc("pipe", 0xf0ccc), own("run_helper", 80), own("main", 120)}}},
		{Stack: &spawn},
		{Creation: &audit.Creation{ID: 30, Origin: audit.Inherited, Program: 1, FD: 3, Time: start, Object: audit.Object{Link: "/run/lock/service", Ino: 9}}},
		{Creation: &audit.Creation{ID: 31, Origin: audit.Created, Program: 1, TID: 100, Time: start + 12*ms, Call: "openat", Args: open("/etc/service.conf"), FD: 4, Object: audit.Object{Link: "/etc/service.conf", Ino: 4711}, Stack: 10}},
		{Creation: &audit.Creation{
			ID: 32, Origin: audit.Created, Program: 1, TID: 100, Time: start + 20*ms, Call: "socket", FD: 5, Stack: 11,
			Args:   []audit.Argument{{Name: "domain", Value: "AF_INET"}, {Name: "type", Value: "SOCK_STREAM"}, {Name: "protocol", Value: "0"}},
			Object: audit.Object{Link: "socket:[8812]", Ino: 8812, Detail: "TCP 127.0.0.1:8080 listening"},
		}},
		{Creation: &audit.Creation{ID: 33, Origin: audit.Created, Program: 1, TID: 104, Time: start + 31*ms, Call: "accept", FD: 6, Stack: 12, Threads: true, Object: audit.Object{Link: "socket:[8820]", Ino: 8820}}},
		{Race: &audit.Race{Creation: 33, TID: 104, Time: start + 31*ms + 42_500, Stack: 13, Threads: true}},
		{Creation: &audit.Creation{ID: 34, Origin: audit.Created, Program: 1, TID: 100, Time: start + 44*ms, Call: "pipe", FD: 8, Stack: 14, Object: audit.Object{Link: "pipe:[77]", Ino: 77}}},
		program(2, 1, 101, 45, "/usr/sbin/service", "service", "--config", "/etc/service.conf"),
		program(3, 2, 101, 46, "/usr/lib/service/helper", "helper", "--status-fd=8"),
		{Exec: &audit.Exec{From: 2, To: 3, TID: 101, Time: start + 46*ms, Stack: 20, Handed: []audit.Handed{
			{FD: 3, Creation: 30, Object: audit.Object{Link: "/run/lock/service", Ino: 9}},
			{FD: 4, Creation: 31, Object: audit.Object{Link: "/etc/service.conf", Ino: 4711}},
			{FD: 5, Creation: 32, Object: audit.Object{Link: "socket:[8812]", Ino: 8812}},
			{FD: 8, Creation: 34, Object: audit.Object{Link: "pipe:[77]", Ino: 77}},
		}}},
		{Exit: &audit.Exit{Program: 3, Time: start + 90*ms}},
		program(4, 1, 102, 60, "/usr/sbin/service", "service", "--config", "/etc/service.conf"),
		program(5, 4, 102, 61, "/usr/lib/service/helper", "helper"),
		{Exec: &audit.Exec{From: 4, To: 5, TID: 102, Time: start + 61*ms, Stack: 20, Handed: []audit.Handed{
			{FD: 4, Creation: 31, Object: audit.Object{Link: "/etc/service.conf", Ino: 4711}},
		}}},
		{Exit: &audit.Exit{Program: 5, Time: start + 99*ms}},
		{Creation: &audit.Creation{ID: 35, Origin: audit.Created, Program: 1, TID: 100, Time: start + 70*ms, Call: "epoll_create", FD: 9, Object: audit.Object{Link: "anon_inode:[eventpoll]"}}},
		{Latent: &audit.Latent{Creation: 35, Time: start + 119*ms}},
		{Exit: &audit.Exit{Program: 1, Time: start + 120*ms}},
	}
	return events
}

// hostile is a run in which every string is an attack.
func hostile() []audit.Event {
	const evil = "\x1b[31m</script><script>alert(1)</script>\"'\n==1== \u202eRLO \u009b2J \xff\x00 {{.}} --> ]]> &amp;"
	frame := audit.Frame{Function: evil, File: "/" + evil, Line: 1, Module: "/" + evil, BuildID: evil}
	return []audit.Event{
		{Program: &audit.Program{ID: 1, PID: 7, Executable: "/" + evil, Argv: []string{evil, evil}, Started: 1}},
		{Program: &audit.Program{ID: 2, Parent: 2, PID: -7, Executable: evil, Argv: []string{strings.Repeat(evil, 1000)}, Started: 1 << 62}},
		{Stack: &audit.Stack{ID: 3, Frames: []audit.Frame{frame, {}, {File: evil, Line: -1}}}},
		{Creation: &audit.Creation{ID: 4, Origin: audit.Created, Program: 1, Call: evil, Args: []audit.Argument{{Name: evil, Value: evil}}, FD: 5, Object: audit.Object{Link: evil, Detail: evil}, Stack: 3}},
		{Exec: &audit.Exec{From: 1, To: 2, Time: 2, Stack: 3, Env: []string{evil}, Handed: []audit.Handed{{FD: 5, Creation: 4}, {FD: 6, Object: audit.Object{Link: evil}}}}},
		{Race: &audit.Race{Creation: 4, Time: -1 << 63, Stack: 3}},
		{Latent: &audit.Latent{Creation: 4}},
	}
}

func classified(events []audit.Event, command ...string) *audit.Report {
	return audit.Classify(slices.Values(events), audit.Options{Command: command})
}

func printed(t *testing.T, format string, r *audit.Report, o Options) string {
	t.Helper()
	print, err := Format(format)
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := print(&b, r, o); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// TestGolden compares whole reports with those in testdata.
func TestGolden(t *testing.T) {
	r := classified(usual(), "service", "--config", "/etc/service.conf")
	r.Suppressed["known to upstream"] = 3
	r.Dropped, r.Lost = 2, 1
	all := Options{Show: audit.Kinds(), Root: "/home/user/service"}
	tests := map[string]struct {
		format string
		o      Options
	}{
		"usual.txt":   {"text", Options{}},
		"all.txt":     {"text", all},
		"color.txt":   {"text", Options{Color: true}},
		"all.json":    {"json", all},
		"all.sarif":   {"sarif", all},
		"all.html":    {"html", all},
		"empty.txt":   {"text", Options{Show: []audit.Kind{}}},
		"leaks.sarif": {"sarif", Options{Show: []audit.Kind{audit.KindLeak}}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			r := r
			if name == "empty.txt" {
				r = classified(nil, "true")
			}
			got := printed(t, test.format, r, test.o)
			file := filepath.Join("testdata", name)
			if *update {
				if err := os.WriteFile(file, []byte(got), 0o666); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// TestHostileStrings looks for anything that a string could have done.
func TestHostileStrings(t *testing.T) {
	r := classified(hostile(), "\x1b]0;title\a", "</title><script>alert(1)</script>")
	r.Suppressed["\x1b[2J"] = 1
	for _, format := range Formats() {
		t.Run(format, func(t *testing.T) {
			got := printed(t, format, r, Options{Show: audit.Kinds(), Root: "/"})
			for i, c := range got {
				if c != '\n' && !unicode.IsPrint(c) {
					t.Fatalf("%q at %d: %q", c, i, got[max(i-40, 0):min(i+40, len(got))])
				}
			}
			switch format {
			case "text":
				for line := range strings.Lines(got) {
					if !strings.HasPrefix(line, "==") {
						t.Errorf("a line that is not ours: %q", line)
					}
				}
				if strings.Contains(got, "\n==1==") {
					t.Error("a string made a line of its own")
				}
			case "json", "sarif":
				if !json.Valid([]byte(got)) {
					t.Error("not JSON")
				}
			case "html":
				if n := strings.Count(got, "<script"); n != 1 || strings.Count(got, "</script") != 1 {
					t.Errorf("the page has %d scripts", n)
				}
			}
		})
	}
}

// TestManyFindings prints what is far too much for a person.
func TestManyFindings(t *testing.T) {
	var events []audit.Event
	for i := range 5000 {
		id := uint64(10 * (i + 1))
		events = append(events,
			audit.Event{Program: &audit.Program{ID: id, PID: i, Executable: "/bin/a", Started: int64(i)}},
			audit.Event{Program: &audit.Program{ID: id + 1, Parent: id, PID: i, Executable: fmt.Sprintf("/bin/b%d", i), Started: int64(i + 1)}},
			audit.Event{Creation: &audit.Creation{ID: id + 2, Origin: audit.Created, Program: id, FD: 3, Call: "openat"}},
			audit.Event{Exec: &audit.Exec{From: id, To: id + 1, Time: int64(i + 1), Handed: []audit.Handed{{FD: 3, Creation: id + 2}}}},
		)
	}
	r := classified(events, "many")
	if n := len(r.Leaks()); n != 5000 {
		t.Fatalf("%d leaks", n)
	}
	if got := printed(t, "html", r, Options{}); !strings.Contains(got, "Only the first 2000 of 5000 findings") {
		t.Error("the page does not say what it lacks")
	}
	if got := strings.Count(printed(t, "text", r, Options{}), "LEAK: "); got != 5000 {
		t.Errorf("the text has %d leaks", got)
	}
}

// failing is a writer that is full.
type failing struct{}

func (failing) Write([]byte) (int, error) { return 0, os.ErrClosed }

func TestWriteErrors(t *testing.T) {
	for _, format := range Formats() {
		print, err := Format(format)
		if err != nil {
			t.Fatal(err)
		}
		if err := print(failing{}, classified(usual()), Options{}); err == nil || !strings.Contains(err.Error(), "write the") {
			t.Errorf("%s: %v", format, err)
		}
	}
	if _, err := Format("xml"); err == nil || !strings.Contains(err.Error(), "sarif") {
		t.Errorf("xml: %v", err)
	}
}

package audit

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// run is a program that forks a child, which executes another program: the
// least that every story has. IDs up to 99 are for the story.
func run(creation Creation, argv []string, env []string, handed ...Handed) []Event {
	creation.Program = 100
	return []Event{
		{Program: &Program{ID: 100, PID: 1, Executable: "/bin/a", Argv: []string{"a"}, Started: 1}},
		{Stack: &Stack{ID: 110, Frames: []Frame{{Function: "open"}, {Function: "main", File: "a.c", Line: 3, Module: "/bin/a"}}}},
		{Creation: &creation},
		{Program: &Program{ID: 101, Parent: 100, PID: 2, Executable: "/bin/a", Argv: []string{"a"}, Started: 8}},
		{Program: &Program{ID: 102, Parent: 101, PID: 2, Executable: "/bin/b", Argv: argv, Started: 9}},
		{Exec: &Exec{From: 101, To: 102, TID: 2, Time: 9, Env: env, Handed: handed}},
		{Exit: &Exit{Program: 102, Time: 12}},
	}
}

// told tells of findings in a line each.
func told(r *Report) []string {
	var lines []string
	for _, f := range r.Findings {
		s := fmt.Sprintf("%s %d x%d", f.Kind, f.Creation.FD, f.Count)
		if f.Reason != "" {
			s += ": " + f.Reason
		}
		lines = append(lines, s)
	}
	return lines
}

func TestJudgement(t *testing.T) {
	file := Object{Link: "/etc/x", Ino: 7}
	made := Creation{ID: 1, Origin: Created, Call: "openat", FD: 5, Time: 2, Object: file, Stack: 110}
	changed := func(change func(*Creation)) Creation {
		c := made
		change(&c)
		return c
	}
	tests := map[string]struct {
		creation Creation
		argv     []string
		env      []string
		handed   Handed
		want     string
	}{
		"leak":                   {made, []string{"b"}, nil, Handed{5, 1, file}, "leak 5 x1"},
		"leak of what was moved": {made, nil, nil, Handed{5, 1, Object{Link: "/etc/y", Ino: 7}}, "leak 5 x1"},
		"leak of what is gone":   {changed(func(c *Creation) { c.Object.Ino = 0 }), nil, nil, Handed{5, 1, Object{Link: "/etc/x (deleted)"}}, "leak 5 x1"},
		"unknown object":         {changed(func(c *Creation) { c.Object = Object{} }), nil, nil, Handed{5, 1, file}, "leak 5 x1"},
		"another object":         {made, nil, nil, Handed{5, 1, Object{Link: "/etc/x", Ino: 8}}, "inherited 5 x1: it is not certain that this call created it"},
		"another kind of object": {made, nil, nil, Handed{5, 1, Object{Link: "pipe:[7]", Ino: 7}}, "inherited 5 x1: it is not certain that this call created it"},
		"another anonymous inode": {
			changed(func(c *Creation) { c.Object = Object{Link: "anon_inode:[eventpoll]", Ino: 7} }), nil, nil,
			Handed{5, 1, Object{Link: "anon_inode:[eventfd]", Ino: 7}}, "inherited 5 x1: it is not certain that this call created it",
		},
		"another number":    {made, nil, nil, Handed{6, 1, file}, "inherited 5 x1: it is not certain that this call created it"},
		"created later":     {changed(func(c *Creation) { c.Time = 10 }), nil, nil, Handed{5, 1, file}, "inherited 5 x1: it is not certain that this call created it"},
		"creation unknown":  {made, nil, nil, Handed{5, 0, file}, "inherited 5 x1: it is not known where it was created"},
		"from outside":      {changed(func(c *Creation) { c.Origin = Inherited }), nil, nil, Handed{5, 1, file}, "inherited 5 x1: it was open before the audit began"},
		"unknown origin":    {changed(func(c *Creation) { c.Origin = "new" }), nil, nil, Handed{5, 1, file}, "inherited 5 x1: it is not known where it was created"},
		"placed":            {changed(func(c *Creation) { c.Origin, c.Call = Placed, "dup2" }), nil, nil, Handed{5, 1, file}, "deliberate 5 x1: the program chose its number, by dup2"},
		"placed by a shell": {changed(func(c *Creation) { c.Origin = Placed }), nil, nil, Handed{5, 1, file}, "deliberate 5 x1: a shell was told to open it"},
		"cleared":           {changed(func(c *Creation) { c.Origin, c.Call = Cleared, "fcntl" }), nil, nil, Handed{5, 1, file}, "deliberate 5 x1: the program took close-on-exec away from it, by fcntl"},
		"in an argument":    {made, []string{"b", "--status-fd", "5"}, nil, Handed{5, 1, file}, "deliberate 5 x1: the arguments mention its number: --status-fd 5"},
		"in a variable":     {made, []string{"b"}, []string{"SHLVL=5", "LISTEN_FDS=3"}, Handed{5, 1, file}, "deliberate 5 x1: the environment mentions its number: LISTEN_FDS=3"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			r := Classify(slices.Values(run(test.creation, test.argv, test.env, test.handed)), Options{})
			if diff := cmp.Diff([]string{test.want}, told(r)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if r.Lost != 0 || r.Dropped != 0 {
				t.Errorf("lost %d, dropped %d", r.Lost, r.Dropped)
			}
		})
	}
}

// A shell hands on what it was given on purpose, and what had leaked to it.
func TestHandedOnByShell(t *testing.T) {
	file := Object{Link: "/etc/x", Ino: 7}
	handed := []Handed{{5, 1, file}}
	for name, test := range map[string]struct {
		argv  []string // of the first receiver
		first string   // its executable
		want  []string
	}{
		"given to a shell":  {[]string{"sh", "-c", "cat <&5"}, "/bin/sh", []string{"deliberate 5 x1: the arguments mention its number: <&5", "deliberate 5 x1: a shell had been given it, and hands on all that it has"}},
		"leaked to a shell": {[]string{"sh", "script"}, "/bin/sh", []string{"leak 5 x1", "leak 5 x1"}},
		"given to a daemon": {[]string{"daemon", "--fd", "5"}, "/bin/daemon", []string{"leak 5 x1", "deliberate 5 x1: the arguments mention its number: --fd 5"}},
	} {
		t.Run(name, func(t *testing.T) {
			events := []Event{
				{Program: &Program{ID: 100, PID: 1, Executable: "/bin/a", Argv: []string{"a"}}},
				{Creation: &Creation{ID: 1, Origin: Created, Call: "openat", FD: 5, Time: 2, Object: file, Program: 100}},
				{Program: &Program{ID: 101, PID: 1, Parent: 100, Executable: test.first, Argv: test.argv}},
				{Exec: &Exec{From: 100, To: 101, Time: 3, Handed: handed}},
				{Program: &Program{ID: 102, PID: 2, Parent: 101, Executable: test.first, Argv: test.argv}}, // forked
				{Program: &Program{ID: 103, PID: 2, Parent: 102, Executable: "/bin/cat", Argv: []string{"cat"}}},
				{Exec: &Exec{From: 102, To: 103, Time: 4, Handed: handed}},
			}
			r := Classify(slices.Values(events), Options{})
			if diff := cmp.Diff(test.want, told(r)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestFinding(t *testing.T) {
	events := run(Creation{ID: 1, Origin: Created, Call: "openat", FD: 5, Time: 2, Stack: 110}, []string{"b", "x"}, nil,
		Handed{5, 1, Object{Link: "/etc/x", Ino: 7}})
	r := Classify(slices.Values(events), Options{Command: []string{"a"}})
	want := []Finding{{
		Kind: KindLeak, Count: 1,
		Creation: Creation{ID: 1, Origin: Created, Program: 100, Call: "openat", FD: 5, Time: 2, Stack: 110, Object: Object{Link: "/etc/x", Ino: 7}},
		Creator:  Program{ID: 100, PID: 1, Executable: "/bin/a", Argv: []string{"a"}, Started: 1},
		Stack:    []Frame{{Function: "open"}, {Function: "main", File: "a.c", Line: 3, Module: "/bin/a"}},
		Receipt: &Receipt{
			Program: Program{ID: 102, Parent: 101, PID: 2, Executable: "/bin/b", Argv: []string{"b", "x"}, Started: 9},
			Before:  Program{ID: 101, Parent: 100, PID: 2, Executable: "/bin/a", Argv: []string{"a"}, Started: 8}, Time: 9,
		},
	}}
	if diff := cmp.Diff(want, r.Leaks()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if got := r.Findings[0].Site(); got != "main (a.c:3)" {
		t.Errorf("the site is %s", got)
	}
	var ended []int64
	for _, p := range r.Programs {
		ended = append(ended, p.Ended)
	}
	if diff := cmp.Diff([]int64{0, 9, 12}, ended); diff != "" {
		t.Errorf("ends (-want +got):\n%s", diff)
	}
}

func TestRaces(t *testing.T) {
	races := func(all ...Race) []Event {
		events := []Event{{Stack: &Stack{ID: 110, Frames: []Frame{{Function: "open"}}}}}
		for i, r := range all {
			r.Creation = uint64(i + 1)
			r.Time += int64(1000 * i)
			events = append(events,
				Event{Creation: &Creation{ID: r.Creation, Origin: Created, Call: "openat", FD: 5, Time: int64(1000 * i), Stack: 110}},
				Event{Race: &r})
		}
		return events
	}
	r := Classify(slices.Values(races(Race{Time: 500}, Race{Time: 900, Threads: true}, Race{Time: 100, Forked: true})), Options{})
	if len(r.Findings) != 1 || r.Counts[KindRace] != 3 {
		t.Fatalf("%v, %v", told(r), r.Counts)
	}
	f := &r.Findings[0]
	if diff := cmp.Diff(&Window{Length: 900 * time.Nanosecond, Threads: true, Forked: true}, f.Window); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if f.Harmless() {
		t.Error("a fork within the window is said to be harmless")
	}
	mixed := races(Race{Time: 500})
	mixed = append(mixed,
		Event{Creation: &Creation{ID: 9, Origin: Created, Call: "socket", FD: 6, Time: 9000, Stack: 110}},
		Event{Race: &Race{Creation: 9, Time: 9500, Threads: true}})
	if diff := cmp.Diff([]string{"race 6 x1", "race 5 x1"}, told(Classify(slices.Values(mixed), Options{}))); diff != "" {
		t.Errorf("the harmless one does not come last (-want +got):\n%s", diff)
	}
	alone := Classify(slices.Values(races(Race{Time: 500})), Options{})
	if !alone.Races()[0].Harmless() {
		t.Error("a window without threads is not said to be harmless")
	}
}

// TestGrouping tells what is one finding and what is not.
func TestGrouping(t *testing.T) {
	var events []Event
	id := uint64(1000)
	next := func() uint64 { id++; return id }
	stack := func(function string) uint64 {
		s := next()
		events = append(events, Event{Stack: &Stack{ID: s, Frames: []Frame{{Function: function}}}})
		return s
	}
	leak := func(stack uint64, to string, link string) {
		a, b, c := next(), next(), next()
		events = append(events,
			Event{Program: &Program{ID: a, Executable: "/bin/a"}},
			Event{Program: &Program{ID: b, Executable: to}},
			Event{Creation: &Creation{ID: c, Origin: Created, Program: a, Call: "openat", FD: 5, Stack: stack}},
			Event{Exec: &Exec{From: a, To: b, Time: int64(id), Handed: []Handed{{5, c, Object{Link: link}}}}})
	}
	one, again, other := stack("one"), stack("one"), stack("other")
	leak(one, "/bin/b", "/x")
	leak(again, "/bin/b", "/y") // the recorder may forget that it has told of a stack
	leak(one, "/bin/c", "/x")
	leak(other, "/bin/b", "/x")
	leak(0, "/bin/b", "/x")
	leak(0, "/bin/b", "/y")
	leak(0, "/bin/b", "/y")
	r := Classify(slices.Values(events), Options{})
	var counts []int
	for _, f := range r.Findings {
		counts = append(counts, f.Count)
	}
	if diff := cmp.Diff([]int{2, 1, 1, 1, 2}, counts); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// TestBounded feeds more of everything than is kept.
func TestBounded(t *testing.T) {
	const many = 10_000
	long := strings.Repeat("x", 1<<14)
	events := func(yield func(Event) bool) {
		for i := range uint64(many) {
			id := 10*i + 1
			exe := fmt.Sprintf("/bin/%d", i)
			for _, e := range []Event{
				{Program: &Program{ID: id, Parent: id - 10, Executable: "/bin/a", Argv: []string{"a"}}},
				{Program: &Program{ID: id + 1, Parent: id, Executable: exe, Argv: []string{exe, long, long}}},
				{Creation: &Creation{ID: id + 2, Origin: Created, Program: id, FD: 3, Object: Object{Link: long}}},
				{Exec: &Exec{From: id, To: id + 1, Handed: []Handed{{FD: 3, Creation: id + 2}}}},
			} {
				if !yield(e) {
					return
				}
			}
		}
		for i := range uint64(2*rememberedIDs + 1) {
			if !yield(Event{Creation: &Creation{ID: 10*many + i}}) {
				return
			}
		}
		yield(Event{Lost: &Lost{5}})
		yield(Event{Lost: &Lost{9}})
		yield(Event{Latent: &Latent{Creation: 3}}) // forgotten long ago
	}
	r := Classify(events, Options{MaxFindings: 100})
	if len(r.Findings) != 100 || r.Dropped != many-100 || r.Counts[KindLeak] != many || r.Lost != 10 {
		t.Errorf("%d findings, %d dropped, %d counted, %d lost", len(r.Findings), r.Dropped, r.Counts[KindLeak], r.Lost)
	}
	if n := len(r.Programs); n > rememberedRuns+300 {
		t.Errorf("%d programs", n)
	}
	for _, f := range r.Findings {
		if n := len(strings.Join(f.Receipt.Program.Argv, "")) + len(f.Creation.Object.Link); n > maxLine+3*maxText {
			t.Fatalf("a finding holds %d bytes", n)
		}
	}
}

func TestMention(t *testing.T) {
	tests := []struct {
		argv []string
		env  []string
		fd   int
		want bool
	}{
		{[]string{"gpg", "--status-fd", "5"}, nil, 5, true},
		{[]string{"gpg", "--status-fd=5"}, nil, 5, true},
		{[]string{"gpg", "--status-fd=55"}, nil, 5, false},
		{[]string{"diff", "/dev/fd/63", "/dev/fd/62"}, nil, 62, true},
		{[]string{"cat", "/proc/self/fd/7"}, nil, 7, true},
		{[]string{"jspawnhelper", "10:11"}, nil, 11, true},
		{[]string{"x", "-d5"}, nil, 5, true},
		{[]string{"x", "fd://5"}, nil, 5, false}, // a path's
		{[]string{"x", "fd:5"}, nil, 5, true},
		{[]string{"tcpserver", "FD5"}, nil, 5, true},
		{[]string{"ls", "/usr/lib/5/x"}, nil, 5, false},
		{[]string{"ls", "file-5"}, nil, 5, false},
		{[]string{"python3.5", "5.4"}, nil, 5, false},
		{[]string{"5"}, nil, 5, false},
		{[]string{"helper", "5"}, nil, 5, true},
		{[]string{"sh", "-c", "sleep 5"}, nil, 5, false},
		{[]string{"sh", "-c", "cat <&5"}, nil, 5, true},
		{[]string{"sh", "-c", "echo a >&5 b"}, nil, 5, true},
		{[]string{"sh", "-c", "gpg --status-fd 5"}, nil, 5, true},
		{[]string{"mail", "5€"}, nil, 5, false},
		{nil, []string{"LISTEN_FDS=2"}, 3, true},
		{nil, []string{"LISTEN_FDS=2"}, 4, true},
		{nil, []string{"LISTEN_FDS=2"}, 5, false},
		{nil, []string{"LISTEN_FDS=x"}, 3, false},
		{nil, []string{"LISTEN_PID=4"}, 4, true},
		{nil, []string{"MAKEFLAGS= -j4 --jobserver-auth=3,4"}, 4, true},
		{nil, []string{"MAKEFLAGS= -j4 --jobserver-fds=3,5"}, 5, true},
		{nil, []string{"MAKEFLAGS= -j4 --jobserver-auth=fifo:/tmp/GMfifo4"}, 4, false},
		{nil, []string{"NODE_CHANNEL_FD=3"}, 3, true},
		{nil, []string{"NGINX=6;7;"}, 7, true},
		{nil, []string{"SERVER_STARTER_PORT=80=5"}, 5, true},
		{nil, []string{"X=/dev/fd/9"}, 9, true},
		{nil, []string{"SHLVL=3", "COLUMNS=3", "LS_COLORS=ex=01;3", "FD"}, 3, false},
	}
	for _, test := range tests {
		_, inArgv := inArguments(test.argv, test.fd)
		_, inEnv := inEnvironment(test.env, test.fd)
		if got := inArgv || inEnv; got != test.want {
			t.Errorf("%q %q mention %d: %v", test.argv, test.env, test.fd, got)
		}
	}
}

func TestKinds(t *testing.T) {
	got, err := ParseKinds("leaks,race,latent,leak")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]Kind{KindLeak, KindRace, KindLatent}, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	for _, bad := range []string{"", "leak,", "Leaks", "latents"} {
		if _, err := ParseKinds(bad); err == nil || !strings.Contains(err.Error(), "leaks, races, latent, deliberate, inherited") {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

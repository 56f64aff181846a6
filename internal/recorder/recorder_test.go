package recorder

import (
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/seed-055cd0c8/indirect/internal/launch"
	"github.com/seed-055cd0c8/indirect/internal/launch/signals"
	"github.com/seed-055cd0c8/indirect/policy"
	"github.com/seed-055cd0c8/indirect/supervise"
)

func TestMain(m *testing.M) {
	launch.Main()
	supervise.Main(map[string]supervise.Open{Name: Open})
	os.Exit(m.Run())
}

// recording runs a command to its end and returns what was recorded.
func recording(t *testing.T, c Config, argv ...string) []Entry {
	t.Helper()
	// The command is to inherit nothing that our starter left open.
	if err := unix.CloseRange(3, math.MaxUint32, unix.CLOSE_RANGE_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	rec, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	defer rec.Close()
	s, err := supervise.New(supervise.Options{Policy: policy.New(0), Extensions: []supervise.Extension{rec.Extension()}})
	if err != nil {
		t.Fatal(err)
	}
	inherited, err := signals.Inherited()
	if err != nil {
		t.Fatal(err)
	}
	command, err := launch.Start(launch.Spec{Path: argv[0], Args: argv, Env: launch.Environ(), Filter: s.Filter(), Signals: inherited})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Start(command.Listener()); err != nil {
		command.Abort()
		t.Fatal(err)
	}
	defer s.Close()
	if err := command.Release(); err != nil {
		t.Fatal(err)
	}
	if status, err := command.Wait(t.Context()); err != nil || status != 0 {
		t.Errorf("%s ended with %#x, %v", strings.Join(argv, " "), status, err)
	}
	var all []Entry
	if err := rec.Read(func(e Entry) error { all = append(all, e); return nil }); err != nil {
		t.Fatal(err)
	}
	return all
}

// story tells what was recorded, a line for each thing that matters, sorted.
func story(all []Entry) []string {
	programs := make(map[uint64]*Program)
	creations := make(map[uint64]*Creation)
	failed := make(map[uint64]bool)
	for _, e := range all {
		switch {
		case e.Failed != nil:
			failed[e.Failed.Program] = true
		case e.Program != nil:
			programs[e.Program.ID] = e.Program
		case e.Creation != nil:
			creations[e.Creation.ID] = e.Creation
		}
	}
	what := func(id uint64) string {
		c := creations[id]
		if c == nil {
			return "unknown"
		}
		s := fmt.Sprintf("%s by %s", c.Origin, c.Call)
		if c.Path != "" {
			s += " " + c.Path
		}
		if c.Threads {
			s += " beside threads"
		}
		return s
	}
	var lines []string
	for _, e := range all {
		switch {
		case e.Exec != nil && !failed[e.Exec.To]:
			name := strings.Join(programs[e.Exec.To].Argv, " ")
			for _, h := range e.Exec.Handed {
				lines = append(lines, fmt.Sprintf("%q got %d: %s", name, h.FD, what(h.Creation)))
			}
		case e.Race != nil:
			lines = append(lines, fmt.Sprintf("%d raced: %s", creations[e.Race.Creation].FD, what(e.Race.Creation)))
		case e.Latent != nil:
			lines = append(lines, fmt.Sprintf("%d stayed: %s", creations[e.Latent.Creation].FD, what(e.Latent.Creation)))
		case e.Lost != nil:
			lines = append(lines, fmt.Sprintf("%d entries lost", e.Lost.Count))
		}
	}
	slices.Sort(lines)
	return slices.Compact(lines)
}

func TestDeeds(t *testing.T) {
	gcc, err := exec.LookPath("gcc")
	if err != nil {
		t.Skip("there is no gcc to build the program with")
	}
	deeds := filepath.Join(t.TempDir(), "deeds")
	if out, err := exec.Command(gcc, "-pthread", "-o", deeds, "testdata/deeds.c").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	tests := map[string][]string{
		"kinds": {
			`"true all" got 20: created by openat /etc/hostname`,
			`"true all" got 21: created by pipe2`,
			`"true all" got 22: created by pipe2`,
			`"true all" got 23: created by socket`,
			`"true all" got 24: created by socketpair`,
			`"true all" got 25: created by socketpair`,
			`"true all" got 26: created by epoll_create1`,
			`"true all" got 27: created by eventfd2`,
			`"true all" got 28: created by dup`,
			`"true all" got 30: created by memfd_create secret`,
			`"true all" got 50: created by fcntl F_DUPFD`,
		},
		"failing": {
			`"true after" got 21: created by openat /etc/passwd`,
		},
		"choice": {
			`"true chosen" got 21: cleared by fcntl`,
			`"true chosen" got 22: cleared by ioctl`,
			`"true chosen" got 30: placed by dup2`,
			`"true chosen" got 32: placed by dup3`,
		},
		"flags": {
			`20 raced: created by openat /etc/hostname`,
			`21 raced: created by openat /etc/passwd`,
			`22 raced: created by openat /etc/group`,
		},
		"starts": {
			`"sh -c exec true system" got 20: created by openat /etc/hostname`,
			`"true exec" got 20: created by openat /etc/hostname`,
			`"true fork" got 20: created by openat /etc/hostname`,
			`"true posix_spawn" got 20: created by openat /etc/hostname`,
			`"true system" got 20: created by openat /etc/hostname`,
			`"true vfork" got 20: created by openat /etc/hostname`,
		},
		"forks": {
			`"true child" got 21: created by openat /etc/group`,
			`"true child" got 22: created by openat /etc/hostname`,
			`"true parent" got 22: created by openat /etc/passwd`,
		},
		"daemon": {
			`"true daemon" got 22: created by openat /etc/hostname`,
		},
		"receive": {
			`"true received" got 24: created by recvmsg`,
			`"true received" got 25: created by recvmsg`,
		},
		"standard": nil,
		"threads": {
			`"true exec from a thread" got 20: created by openat /etc/hostname beside threads`,
			`"true threads" got 20: created by openat /etc/hostname beside threads`,
		},
		"again": {
			`"deeds pass" got 20: created by openat /etc/hostname`,
			`"true passed on" got 20: created by openat /etc/hostname`,
		},
	}
	for deed, want := range tests {
		t.Run(deed, func(t *testing.T) {
			got := story(recording(t, Config{StackDepth: 32}, deeds, deed))
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// TestNoFollow leaves out what the programs do that the command executes.
func TestNoFollow(t *testing.T) {
	const script = `python3 -c 'import os; os.dup2(1, 20); os.execlp("true", "true", "second")'`
	if _, err := exec.LookPath("python3"); err != nil {
		t.Skip("there is no python3")
	}
	for _, noFollow := range []bool{false, true} {
		got := story(recording(t, Config{StackDepth: 32, NoFollow: noFollow}, "/bin/sh", "-c", script+"; true"))
		if watched := len(got) > 0; watched == noFollow {
			t.Errorf("NoFollow %v: %q", noFollow, got)
		}
	}
}

// TestSupervisorDies kills the supervisor in the middle: what it has seen stays.
func TestSupervisorDies(t *testing.T) {
	rec, err := New(Config{StackDepth: 8})
	if err != nil {
		t.Fatal(err)
	}
	defer rec.Close()
	first, err := openLog(rec.log)
	if err != nil {
		t.Fatal(err)
	}
	a := first.id()
	first.write(Entry{Program: &Program{ID: a, PID: 1}})
	first.bytes([]byte(`{"Program":{"ID":7,"PI`)) // died here
	second, err := openLog(rec.log)
	if err != nil {
		t.Fatal(err)
	}
	if b := second.id(); b <= a || !second.resumed {
		t.Errorf("the second supervisor's first ID is %d, after %d", b, a)
	}
	second.write(Entry{Program: &Program{ID: 1000, PID: 2}})
	var pids []int
	if err := rec.Read(func(e Entry) error { pids = append(pids, e.Program.PID); return nil }); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(pids, []int{1, 2}) {
		t.Errorf("the log has the processes %v, want 1 and 2", pids)
	}
}

func TestLogIsBounded(t *testing.T) {
	rec, err := New(Config{StackDepth: 8})
	if err != nil {
		t.Fatal(err)
	}
	defer rec.Close()
	l, err := openLog(rec.log)
	if err != nil {
		t.Fatal(err)
	}
	l.size = maxLog - 100
	for range 1000 {
		l.write(Entry{Program: &Program{ID: 1, Executable: "/usr/bin/true"}})
	}
	var kept, lost uint64
	if err := rec.Read(func(e Entry) error {
		if e.Lost != nil {
			lost = e.Lost.Count
		} else {
			kept++
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if kept > 2 || lost < 512 {
		t.Errorf("%d entries kept, %d lost", kept, lost)
	}
}

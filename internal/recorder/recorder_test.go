package recorder

import (
	"encoding/json"
	"os"
	"testing"

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

// record runs a command to its end and returns what was recorded.
func recordRun(t *testing.T, argv ...string) []Entry {
	t.Helper()
	rec, err := New(Config{StackDepth: 32})
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
		t.Errorf("the program ended with %#x, %v", status, err)
	}
	var all []Entry
	if err := rec.Read(func(e Entry) error { all = append(all, e); return nil }); err != nil {
		t.Fatal(err)
	}
	return all
}

func TestDump(t *testing.T) {
	for _, e := range recordRun(t, os.Getenv("PROG")) {
		b, _ := json.Marshal(e)
		t.Log(string(b))
	}
}

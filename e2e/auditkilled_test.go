package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/seed-055cd0c8/indirect/audit"
	"github.com/seed-055cd0c8/indirect/audit/report"
)

// Supervisors that are killed during an audit change nothing for the program,
// and what has been found before is reported.
func TestAuditSupervisorKilled(t *testing.T) {
	t.Parallel()
	const kills, rounds = 10, 25
	leak := glibc.compile(t, "leaksocket.c")
	name := filepath.Join(t.TempDir(), "report.json")
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	script := `i=0; while [ $i -lt 25 ]; do "$0" || exit 3; sleep 0.05; i=$((i+1)); done; echo done`
	cmd := exec.CommandContext(ctx, indirect, "audit", "--format", "json", "--show", "leaks", "-o", name, "--", "sh", "-c", script, leak)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	end := make(chan error, 1)
	go func() { end <- cmd.Wait() }()
	killed, last := 0, 0
	var err error
	for running := true; running; {
		select {
		case err = <-end:
			running = false
		case <-time.After(50 * time.Millisecond):
			if pid := supervisorOf(cmd.Process.Pid); killed < kills && pid != 0 && pid != last && (killed > 0 || serves(pid)) && syscall.Kill(pid, syscall.SIGKILL) == nil {
				killed, last = killed+1, pid
			}
		}
	}
	if err != nil || strings.TrimSpace(out.String()) != "done" {
		t.Errorf("%v\n%s%s", err, out.String(), tail(errs.String()))
	}
	if killed < kills {
		t.Errorf("killed %d supervisors, want %d", killed, kills)
	}
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	var d report.Document
	if err := json.Unmarshal(text, &d); err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	// One supervisor sees a creation and its exec, or two that do not know of
	// each other's: then it is not certain.
	found := 0
	for _, f := range d.Findings {
		if f.Kind != audit.KindLeak || f.Received == nil || f.Received.Process.Argv[0] != "true" || f.Created.Call != "socket" {
			t.Errorf("finding %+v", f)
		}
		found += f.Count
	}
	t.Logf("%d of %d leaks are told of", found, rounds)
	if found < rounds-2*kills || found > rounds {
		t.Errorf("%d leaks", found)
	}
}

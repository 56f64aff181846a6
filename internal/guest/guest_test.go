package guest

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestMachine(t *testing.T) {
	t.Parallel()
	kernel, err := Kernel("6.1")
	if errors.Is(err, ErrMissing) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(t.TempDir(), "program")
	build := exec.Command("go", "build", "-o", program, "./testdata/probe")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build a program: %v\n%s", err, out)
	}
	m := Machine{Kernel: kernel, Files: map[string]string{"/in/side": program}, Argv: []string{"/in/side", "a", "b c"}, Env: []string{"WORD=x y"}}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	console, status, err := m.Run(ctx)
	const want = `[a b c], i386: true, <nil>, "x y" 6.1.`
	if err != nil || status != 3 || !strings.Contains(console, want) {
		t.Errorf("status %d, %v; want 3 and %q in\n%s", status, err, want, console)
	}

	ctx, cancel = context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	if _, _, err := m.Run(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("without time: %v", err)
	}
	m.Argv = []string{"/nothing"}
	ctx, cancel = context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	if console, _, err := m.Run(ctx); err == nil {
		t.Errorf("without a program: no error\n%s", console)
	}
}

// This kernel runs the program, or says that it cannot.
func TestI386Program(t *testing.T) {
	runs, err := RunsI386()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "program")
	if err := os.WriteFile(path, i386Program(), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := exec.Command(path).Run(); runs != (err == nil) || err != nil && !strings.Contains(err.Error(), "exec format error") {
		t.Errorf("i386: %v, but: %v", runs, err)
	}
}

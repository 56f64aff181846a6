package unwindtest

import (
	"bufio"
	"context"
	"embed"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/seed-055cd0c8/indirect/internal/guest"
	"github.com/seed-055cd0c8/indirect/internal/tracee"
)

//go:embed testdata
var sources embed.FS

// Build compiles a program of this package's testdata, which prints a line
// with a thread ID and then waits. It skips the test if the compiler cannot.
func Build(t testing.TB, source string, command ...string) string {
	t.Helper()
	dir := t.TempDir()
	b, err := sources.ReadFile("testdata/" + source)
	if err != nil {
		t.Fatal(err)
	}
	source = strings.TrimSuffix(source, ".txt")
	if err := os.WriteFile(filepath.Join(dir, source), b, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := exec.LookPath(command[0]); err != nil {
		t.Skipf("%s is needed: %v", command[0], err)
	}
	program := filepath.Join(dir, "program")
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	c := exec.CommandContext(ctx, command[0], append(command[1:], "-o", program, filepath.Join(dir, source))...)
	c.Dir = dir
	if out, err := c.CombinedOutput(); err != nil {
		if strings.Contains(string(out), "cannot find") || strings.Contains(string(out), "No such file") {
			t.Skipf("%s: a library or header is needed: %s", c, out)
		}
		t.Fatalf("%s: %v\n%s", c, err, out)
	}
	return program
}

// Runs reports whether this kernel runs what a compiler's command makes: not
// every one runs programs of 32 bits.
func Runs(t testing.TB, command []string) bool {
	t.Helper()
	if !slices.Contains(command, "-m32") {
		return true
	}
	runs, err := guest.RunsI386()
	if err != nil {
		t.Fatal(err)
	}
	return runs
}

// Start starts a program that prints a thread ID and then waits, and returns that
// ID when the thread waits. The program is killed at the end of the test.
func Start(t testing.TB, argv ...string) (tid int) {
	t.Helper()
	c := exec.Command(argv[0], argv[1:]...)
	c.Stderr = os.Stderr
	c.Env = append(os.Environ(), "DEBUGINFOD_URLS=")
	// Kept open and silent: programs that wait for input wait for ever.
	stdin, err := c.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		c.Process.Kill()
		c.Wait()
		stdin.Close()
	})
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil && err != io.EOF {
		t.Fatal(err)
	}
	if tid, err = strconv.Atoi(strings.TrimSpace(line)); err != nil {
		t.Fatalf("%s printed %q", argv[0], line)
	}
	for range 500 {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", tid))
		if err != nil {
			t.Fatal(err)
		}
		_, state, _ := strings.Cut(string(b), ") ")
		if strings.HasPrefix(state, "S") {
			return tid
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatalf("thread %d does not wait", tid)
	return 0
}

// Hold holds a thread while f looks at its registers.
func Hold(t testing.TB, tid int, f func(tracee.Regs)) {
	t.Helper()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	thread, err := tracee.Seize(tid)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := thread.Stopped(); err != nil {
		t.Fatal(err)
	}
	defer thread.Detach(0)
	regs, err := thread.Regs()
	if err != nil {
		t.Fatal(err)
	}
	f(regs)
}

// Frame is a frame as gdb knows it.
type Frame struct {
	PC       uint64
	Inlined  bool
	Function string
	File     string
	Line     int
}

const script = `
import gdb
frame = gdb.newest_frame()
for _ in range(200):
    if frame is None: break
    sal = frame.find_sal()
    # Frames of tail calls are gone from the stack: gdb infers them.
    if frame.type() != gdb.TAILCALL_FRAME and frame.pc() != 0: print("frame\t%#x\t%d\t%s\t%s\t%d" % (frame.pc(), frame.type() == gdb.INLINE_FRAME, frame.name(), sal.symtab.filename if sal.symtab else None, sal.line))
    try:
        frame = frame.older()
    except gdb.error:
        break
`

// GDB asks gdb for the stack of a thread.
func GDB(t testing.TB, tid int) []Frame {
	t.Helper()
	if _, err := exec.LookPath("gdb"); err != nil {
		t.Skipf("gdb is needed: %v", err)
	}
	file := filepath.Join(t.TempDir(), "stack.py")
	if err := os.WriteFile(file, []byte(script), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	c := exec.CommandContext(ctx, "gdb", "-nx", "-batch", "-iex", "set debuginfod enabled off", "-iex", "set auto-load off",
		"-p", strconv.Itoa(tid), "-x", file)
	out, err := c.CombinedOutput()
	if err != nil {
		t.Fatalf("gdb: %v\n%s", err, out)
	}
	none := func(s string) string {
		if s == "None" {
			return ""
		}
		return s
	}
	var frames []Frame
	for line := range strings.Lines(string(out)) {
		p := strings.Split(strings.TrimSpace(line), "\t")
		if len(p) != 6 || p[0] != "frame" {
			continue
		}
		f := Frame{Inlined: p[2] == "1", Function: none(p[3]), File: none(p[4])}
		f.PC, _ = strconv.ParseUint(p[1], 0, 64)
		f.Line, _ = strconv.Atoi(p[5])
		frames = append(frames, f)
	}
	if len(frames) == 0 {
		t.Fatalf("gdb shows no stack:\n%s", out)
	}
	return frames
}

package cpython

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/seed-055cd0c8/indirect/internal/symbol"
	"github.com/seed-055cd0c8/indirect/internal/tracee"
	"github.com/seed-055cd0c8/indirect/internal/unwind"
	"github.com/seed-055cd0c8/indirect/internal/unwind/unwindtest"
)

// The program prints the stack that it expects, as Python itself sees it, to
// its first argument, and its thread ID.
const program = `
import sys, threading, traceback

def wait(expected):
    with open(expected, "w") as f:
        for s in traceback.extract_stack()[::-1]:
            f.write("%s %s\n" % (s.name, s.filename))
    print(threading.get_native_id(), flush=True)
    sys.stdin.readline()

class Größe:
    def method(self):
        list(map(lambda s: wait(s), [sys.argv[1]]))

def generator():
    yield Größe().method()

def recurse(n):
    if n == 0:
        return sum(x or 0 for x in generator())
    return recurse(n - 1)

def main():
    recurse(3)

if len(sys.argv) > 2:
    t = threading.Thread(target=main)
    t.start()
    t.join()
else:
    main()
`

func interpreters(t *testing.T) []string {
	var all []string
	for _, pattern := range []string{"/usr/bin/python3.1[123]", "/usr/local/bin/python3.1[123]", os.ExpandEnv("$HOME/.pyenv/versions/3.1[123].*/bin/python3")} {
		found, _ := filepath.Glob(pattern)
		all = append(all, found...)
	}
	if len(all) == 0 {
		t.Skip("CPython 3.11, 3.12 or 3.13 is needed")
	}
	return all
}

func TestStacksAreThoseThatPythonSees(t *testing.T) {
	script := filepath.Join(t.TempDir(), "waits.py")
	if err := os.WriteFile(script, []byte(program), 0o600); err != nil {
		t.Fatal(err)
	}
	symbols := symbol.New(symbol.Options{})
	for _, python := range interpreters(t) {
		for _, thread := range []bool{false, true} {
			name := python
			if thread {
				name += " in a thread"
			}
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				expected := filepath.Join(t.TempDir(), "expected")
				argv := []string{python, script, expected}
				if thread {
					argv = append(argv, "thread")
				}
				tid := unwindtest.Start(t, argv...)
				b, err := os.ReadFile(expected)
				if err != nil {
					t.Fatal(err)
				}
				want := strings.Split(strings.TrimSpace(string(b)), "\n")
				python, merged := look(t, tid, symbols)
				var got []string
				for _, f := range python {
					name := f.Function[strings.LastIndex(f.Function, ".")+1:] // Python's traceback shows no classes here
					got = append(got, name+" "+f.File)
				}
				if diff := cmp.Diff(want, got); diff != "" {
					t.Errorf("the stack (-Python's, +ours):\n%s", diff)
				}
				if python[0].Line != lineAt("sys.stdin.readline()") {
					t.Errorf("the innermost line is %d", python[0].Line)
				}
				var lines []int
				for _, f := range python {
					if f.Function == "recurse" {
						lines = append(lines, f.Line)
					}
				}
				inner, outer := lineAt("return sum"), lineAt("return recurse")
				if diff := cmp.Diff([]int{inner, outer, outer, outer}, lines); diff != "" {
					t.Errorf("lines of recurse (-want, +got):\n%s", diff)
				}
				if python[0].Function != "wait" || python[2].Function != "Größe.method" {
					t.Errorf("the functions are %q and %q", python[0].Function, python[2].Function)
				}
				checkMerged(t, merged, python)
			})
		}
	}
}

func lineAt(text string) int {
	before, _, _ := strings.Cut(program, text)
	return strings.Count(before, "\n") + 1
}

// look returns the Python functions, and the whole stack.
func look(t *testing.T, tid int, s *symbol.Symbolizer) (python, merged []symbol.Frame) {
	space, err := unwind.Map(tid)
	if err != nil {
		t.Fatal(err)
	}
	memory := unwind.Memory(tid)
	var finder Finder
	in, ok := finder.Find(tid, memory, space.Mappings())
	if !ok {
		t.Fatal("no interpreter was found")
	}
	var native []symbol.Frame
	unwindtest.Hold(t, tid, func(regs tracee.Regs) {
		frames, err := unwind.New(unwind.Options{}).Stack(space, memory, unwind.FromTracee(&regs), 200)
		if err != nil {
			t.Errorf("incomplete stack: %v", err)
		}
		for _, f := range frames {
			m := symbol.Module{}
			if f.Mapping != nil {
				m.Path, m.Inode = f.Mapping.Path, f.Mapping.Inode
			}
			native = append(native, s.Frames(context.Background(), m, f.Offset(), f.Exact)...)
		}
		activations := in.Stack(memory, tid, 100)
		for _, a := range activations {
			f, ok := in.Frame(memory, a)
			if !ok {
				t.Errorf("activation %+v has no name", a)
			}
			python = append(python, f)
		}
		merged = Merge(native, activations, python)
	})
	return python, merged
}

// checkMerged checks that all Python functions are in the whole stack, in
// order, and none of the frames that run them.
func checkMerged(t *testing.T, merged, python []symbol.Frame) {
	next := 0
	for _, f := range merged {
		if strings.HasPrefix(f.Function, evaluator) && !f.Inlined {
			t.Errorf("%s is left", f.Function)
		}
		if next < len(python) && f == python[next] {
			next++
		}
	}
	if next != len(python) {
		t.Errorf("%d of %d Python functions are in the whole stack", next, len(python))
	}
	if len(merged) > 0 && merged[0] == python[0] {
		t.Error("the call of read is not on top")
	}
}

func TestOtherProgramsHaveNoInterpreter(t *testing.T) {
	c := exec.Command("sleep", "60")
	if err := c.Start(); err != nil {
		t.Skip(err)
	}
	defer c.Wait()
	defer c.Process.Kill()
	mappings, err := tracee.Maps(c.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	var f Finder
	if _, ok := f.Find(c.Process.Pid, unwind.Memory(c.Process.Pid), mappings); ok {
		t.Error("an interpreter was found")
	}
}

func FuzzLineOf(f *testing.F) {
	f.Add([]byte{0x80, 0x01, 0xf0, 0x41, 0x02}, 1, uint64(4))
	f.Fuzz(func(t *testing.T, table []byte, first int, instruction uint64) {
		lineOf(table, first, instruction)
	})
}

// repeated is a memory in which the same bytes are everywhere.
type repeated []byte

func (r repeated) ReadAt(p []byte, at int64) (int, error) {
	for i := range p {
		p[i] = r[(uint64(at)+uint64(i))%uint64(len(r))]
	}
	return len(p), nil
}

func FuzzWalk(f *testing.F) {
	f.Add([]byte("\x08\x00\x00\x00\x00\x00\x00\x00"), 1)
	f.Fuzz(func(t *testing.T, b []byte, tid int) {
		if len(b) == 0 {
			return
		}
		for _, l := range []layout{layout311, layout312} {
			in := Interpreter{l, 0}
			for _, a := range in.Stack(repeated(b), tid, 10) {
				in.Frame(repeated(b), a)
			}
		}
		open(repeated(b), 0, 0)
	})
}

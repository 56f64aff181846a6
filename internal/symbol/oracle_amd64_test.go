package symbol_test

import (
	"context"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/seed-055cd0c8/indirect/internal/symbol"
	"github.com/seed-055cd0c8/indirect/internal/tracee"
	"github.com/seed-055cd0c8/indirect/internal/unwind"
	"github.com/seed-055cd0c8/indirect/internal/unwind/unwindtest"
)

func run(t *testing.T, argv ...string) {
	t.Helper()
	if _, err := exec.LookPath(argv[0]); err != nil {
		t.Skipf("%s is needed: %v", argv[0], err)
	}
	if out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput(); err != nil {
		t.Fatalf("%q: %v\n%s", argv, err, out)
	}
}

// split moves the debug information of a program into a file beside it.
func split(t *testing.T, program string) {
	debug := filepath.Join(filepath.Dir(program), "program.debug")
	run(t, "objcopy", "--only-keep-debug", program, debug)
	run(t, "objcopy", "--strip-all", "--add-gnu-debuglink="+debug, program)
}

// stack is the stack of a waiting thread, with names.
func stack(t *testing.T, tid int, s *symbol.Symbolizer) (all []symbol.Frame, pcs []uint64) {
	t.Helper()
	space, err := unwind.Map(tid)
	if err != nil {
		t.Fatal(err)
	}
	unwindtest.Hold(t, tid, func(regs tracee.Regs) {
		frames, err := unwind.New(unwind.Options{}).Stack(space, unwind.Memory(tid), unwind.FromTracee(&regs), 100)
		if err != nil {
			t.Errorf("incomplete stack: %v", err)
		}
		for _, f := range frames {
			m := symbol.Module{}
			if f.Mapping != nil {
				m = symbol.Module{Path: f.Mapping.Path, Inode: f.Mapping.Inode}
			}
			for _, named := range s.Frames(context.Background(), m, f.Offset(), f.Exact) {
				all = append(all, named)
				pcs = append(pcs, f.PC)
			}
		}
	})
	return all, pcs
}

// sameFunction compares names as different demanglers write them.
func sameFunction(a, b string) bool {
	bare := func(s string) string {
		s = strings.NewReplacer(" ", "", "__GI_", "", ".part.0", "", ".part", "").Replace(s)
		for _, cut := range []string{"(", "[abi", "<", "@"} {
			if i := strings.Index(s, cut); i > 0 {
				s = s[:i]
			}
		}
		return strings.TrimPrefix(strings.TrimLeft(s, "_"), "libc_")
	}
	a, b = bare(a), bare(b)
	return a == b || strings.HasSuffix(a, "::"+b) || strings.HasSuffix(b, "::"+a)
}

func TestNamesAreThoseOfGDB(t *testing.T) {
	symbols := symbol.New(symbol.Options{})
	for _, test := range []struct {
		name    string
		source  string
		command []string
		change  func(*testing.T, string)
		inlined int
		unnamed bool // gdb names them otherwise, or not from a file
	}{
		{name: "unoptimised", source: "nested.c", command: []string{"gcc", "-g", "-O0", "-pthread"}, inlined: 2},
		{name: "optimised", source: "nested.c", command: []string{"gcc", "-g", "-O2", "-pthread"}, inlined: 3},
		{name: "static", source: "nested.c", command: []string{"gcc", "-g", "-O2", "-static"}, inlined: 3},
		{name: "DWARF 4", source: "nested.c", command: []string{"gcc", "-gdwarf-4", "-O2"}, inlined: 3},
		{name: "compressed", source: "nested.c", command: []string{"gcc", "-g", "-gz=zlib", "-O2"}, inlined: 3},
		{name: "debug link", source: "nested.c", command: []string{"gcc", "-g", "-O2"}, change: split, inlined: 3},
		{name: "link-time optimised", source: "nested.c", command: []string{"gcc", "-g", "-O2", "-flto"}, inlined: 3},
		{name: "signal", source: "nested.c", command: []string{"gcc", "-g", "-O2", "-DSIGNAL"}, inlined: 3},
		{name: "32 bits", source: "nested.c", command: []string{"gcc", "-g", "-O2", "-m32"}, inlined: 3, unnamed: true},
		{name: "C++", source: "nested.cc", command: []string{"g++", "-g", "-O1"}, inlined: 1},
		{name: "Go", source: "nested.go.txt", command: []string{"go", "build"}, inlined: 0},
		{name: "Rust", source: "nested.rs", command: []string{"rustc", "-g", "-O"}, inlined: 1, unnamed: true},
	} {
		if !unwindtest.Runs(t, test.command) {
			continue // TestAuditI386 looks at such a stack where it runs
		}
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			program := unwindtest.Build(t, test.source, test.command...)
			if test.change != nil {
				test.change(t, program)
			}
			tid := unwindtest.Start(t, program)
			got, pcs := stack(t, tid, symbols)
			want := unwindtest.GDB(t, tid)
			inlined := 0
			for i, w := range want {
				if i >= len(got) {
					t.Errorf("frame %d is missing: %+v", i, w)
					continue
				}
				g := got[i]
				if g.Inlined {
					inlined++
				}
				if pcs[i] != w.PC || g.Inlined != w.Inlined {
					t.Errorf("frame %d: %#x %+v, gdb has %#x %+v", i, pcs[i], g, w.PC, w)
				}
				if w.Function != "" && !test.unnamed && !sameFunction(g.Function, w.Function) {
					t.Errorf("frame %d: %s, gdb has %s", i, g.Function, w.Function)
				}
				if filepath.Base(g.File) != filepath.Base(w.File) && w.File != "" || g.Line != w.Line {
					t.Errorf("frame %d: %s at %s:%d, gdb has %s:%d", i, g.Function, g.File, g.Line, w.File, w.Line)
				}
			}
			if inlined < test.inlined {
				t.Errorf("%d inlined frames, want %d", inlined, test.inlined)
			}
		})
	}
}

package unwind_test

import (
	"os/exec"
	"slices"
	"testing"

	"github.com/seed-055cd0c8/indirect/internal/tracee"
	"github.com/seed-055cd0c8/indirect/internal/unwind"
	"github.com/seed-055cd0c8/indirect/internal/unwind/unwindtest"
)

func strip(t *testing.T, program string) {
	if out, err := exec.Command("strip", program).CombinedOutput(); err != nil {
		t.Skipf("strip is needed: %v %s", err, out)
	}
}

func TestStacksAreThoseOfGDB(t *testing.T) {
	c := func(flags ...string) []string { return append([]string{"gcc", "-g", "-pthread"}, flags...) }
	for _, test := range []struct {
		name    string
		source  string
		command []string
		change  func(*testing.T, string)
		part    bool // gdb sees fewer frames
	}{
		{name: "unoptimised", source: "nested.c", command: c("-O0")},
		{name: "no frame pointers", source: "nested.c", command: c("-O2", "-fomit-frame-pointer")},
		{name: "frame pointers", source: "nested.c", command: c("-O2", "-fno-omit-frame-pointer")},
		{name: "alloca", source: "nested.c", command: c("-O2", "-DALLOCA")},
		{name: "realigned", source: "nested.c", command: c("-O2", "-DALLOCA", "-mstackrealign")},
		{name: "static", source: "nested.c", command: c("-O2", "-static")},
		{name: "static and stripped", source: "nested.c", command: c("-O2", "-static"), change: strip},
		{name: "not position-independent", source: "nested.c", command: c("-O2", "-no-pie")},
		{name: "stripped", source: "nested.c", command: c("-O2"), change: strip},
		{name: "signal", source: "nested.c", command: c("-O2", "-DSIGNAL")},
		{name: "static signal", source: "nested.c", command: c("-O2", "-DSIGNAL", "-static")},
		{name: "signal on its own stack", source: "nested.c", command: c("-O2", "-DSIGNAL", "-DALTSTACK")},
		{name: "thread", source: "nested.c", command: c("-O2", "-DTHREAD")},
		{name: ".debug_frame", source: "nested.c", command: c("-O2", "-fno-asynchronous-unwind-tables", "-fno-exceptions", "-fno-unwind-tables")},
		{name: "lld or gold's header", source: "nested.c", command: c("-O2", "-Wl,-z,now", "-Wl,--no-eh-frame-hdr")},
		{name: "32 bits", source: "nested.c", command: c("-O2", "-m32")},
		{name: "32 bits signal", source: "nested.c", command: c("-O2", "-m32", "-DSIGNAL")},
		{name: "32 bits siginfo", source: "nested.c", command: c("-O2", "-m32", "-DSIGNAL", "-DSIGINFO")},
		{name: "32 bits static", source: "nested.c", command: c("-O2", "-m32", "-static")},
		{name: "C++", source: "nested.cc", command: []string{"g++", "-g", "-O2"}},
		{name: "Go", source: "nested.go.txt", command: []string{"go", "build"}},
		{name: "Go stripped", source: "nested.go.txt", command: []string{"go", "build", "-ldflags=-s -w"}, part: true},
		{name: "Go position-independent", source: "nested.go.txt", command: []string{"go", "build", "-buildmode=pie"}},
		{name: "Rust", source: "nested.rs", command: []string{"rustc", "-g", "-O"}},
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
			space, err := unwind.Map(tid)
			if err != nil {
				t.Fatal(err)
			}
			var frames []unwind.Frame
			unwindtest.Hold(t, tid, func(regs tracee.Regs) {
				frames, err = unwind.New(unwind.Options{}).Stack(space, unwind.Memory(tid), unwind.FromTracee(&regs), 100)
			})
			if err != nil {
				t.Errorf("incomplete stack: %v", err)
			}
			var want, got []uint64
			for _, f := range unwindtest.GDB(t, tid) {
				if !f.Inlined {
					want = append(want, f.PC)
				}
			}
			// gdb hides the frames outside of main.
			for _, f := range frames {
				if f.Guessed {
					t.Errorf("%#x is a guess", f.PC)
				}
				got = append(got, f.PC)
			}
			t.Logf("%d frames, gdb has %d", len(got), len(want))
			if test.part {
				want = want[:min(2, len(want))]
			}
			if len(got) < len(want) || !slices.Equal(got[:len(want)], want) {
				t.Errorf("frames %#x, gdb has %#x", got, want)
			}
		})
	}
}

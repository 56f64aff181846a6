package unwind_test

import (
	"encoding/binary"
	"errors"
	"io"
	"os/exec"
	"testing"

	"github.com/seed-055cd0c8/indirect/internal/tracee"
	"github.com/seed-055cd0c8/indirect/internal/unwind"
	"github.com/seed-055cd0c8/indirect/internal/unwind/unwindtest"
)

// held is a program that waits, and its registers.
type held struct {
	tid   int
	regs  unwind.Regs
	space *unwind.Space
}

func start(t testing.TB, source string, command ...string) held {
	t.Helper()
	tid := unwindtest.Start(t, unwindtest.Build(t, source, command...))
	h := held{tid: tid}
	unwindtest.Hold(t, tid, func(r tracee.Regs) { h.regs = unwind.FromTracee(&r) })
	var err error
	if h.space, err = unwind.Map(tid); err != nil {
		t.Fatal(err)
	}
	return h
}

func TestEachReturnAddressIsWhereTheFrameSays(t *testing.T) {
	h := start(t, "nested.c", "gcc", "-g", "-O2", "-DSIGNAL", "-DALTSTACK")
	frames, err := unwind.New(unwind.Options{}).Stack(h.space, unwind.Memory(h.tid), h.regs, 100)
	if err != nil || len(frames) < 8 {
		t.Fatalf("%d frames, %v", len(frames), err)
	}
	exact := 0
	for i, f := range frames {
		if f.Exact {
			exact++
		}
		if i == 0 {
			continue
		}
		var b [8]byte
		if _, err := unwind.Memory(h.tid).ReadAt(b[:], int64(f.At)); err != nil {
			t.Fatal(err)
		}
		if got := binary.LittleEndian.Uint64(b[:]); got != f.PC {
			t.Errorf("frame %d: %#x is at %#x, not %#x", i, got, f.At, f.PC)
		}
		if f.Mapping == nil {
			t.Errorf("frame %d is nowhere", i)
		}
	}
	if exact != 3 {
		t.Errorf("%d exact frames; want the innermost, the interrupted one, and what the handler returns to", exact)
	}
}

func TestStackWithoutRegisters(t *testing.T) {
	for _, test := range []struct {
		flags string
		want  error
	}{
		{"-fomit-frame-pointer", nil},
		{"-fno-omit-frame-pointer", unwind.ErrRegisters},
	} {
		t.Run(test.flags, func(t *testing.T) {
			h := start(t, "nested.c", "gcc", "-O2", test.flags)
			u := unwind.New(unwind.Options{})
			want, err := u.Stack(h.space, unwind.Memory(h.tid), h.regs, 100)
			if err != nil {
				t.Fatal(err)
			}
			got, err := u.Stack(h.space, unwind.Memory(h.tid), unwind.At(unwind.AMD64, h.regs.PC(), h.regs.SP()), 100)
			if !errors.Is(err, test.want) {
				t.Fatalf("error %v, want %v", err, test.want)
			}
			if test.want == nil && len(got) != len(want) {
				t.Errorf("%d frames, want %d", len(got), len(want))
			}
			for i := range got {
				if got[i] != want[i] {
					t.Errorf("frame %d: %+v, want %+v", i, got[i], want[i])
				}
			}
		})
	}
}

func TestDepthIsRespected(t *testing.T) {
	h := start(t, "nested.c", "gcc", "-O2")
	for _, depth := range []int{0, 1, 3} {
		frames, err := unwind.New(unwind.Options{}).Stack(h.space, unwind.Memory(h.tid), h.regs, depth)
		if err != nil || len(frames) != depth {
			t.Errorf("%d frames of %d, %v", len(frames), depth, err)
		}
	}
}

// Code without call frame information: the callers are guessed.
func TestGuesses(t *testing.T) {
	for _, flags := range [][]string{
		{"-O2", "-fno-omit-frame-pointer"},
		{"-O0"},
	} {
		h := start(t, "nested.c", append([]string{"gcc", "-fno-asynchronous-unwind-tables", "-fno-unwind-tables", "-no-pie"}, flags...)...)
		frames, err := unwind.New(unwind.Options{}).Stack(h.space, unwind.Memory(h.tid), h.regs, 100)
		guesses := 0
		for _, f := range frames {
			if f.Guessed {
				guesses++
			}
		}
		t.Logf("%v: %d frames, %d guesses, %v", flags, len(frames), guesses, err)
		if len(frames) < 10 || guesses < 6 {
			t.Errorf("%v: %d frames, %d guesses, %v", flags, len(frames), guesses, err)
		}
	}
}

func TestMusl(t *testing.T) {
	if _, err := exec.LookPath("musl-gcc"); err != nil {
		t.Skipf("musl-gcc is needed: %v", err)
	}
	h := start(t, "nested.c", "musl-gcc", "-O2", "-DSIGNAL", "-static")
	frames, err := unwind.New(unwind.Options{}).Stack(h.space, unwind.Memory(h.tid), h.regs, 100)
	t.Logf("%d frames, %v", len(frames), err)
	if len(frames) < 6 {
		t.Errorf("%d frames, %v", len(frames), err)
	}
}

func TestSpecialFrames(t *testing.T) {
	h := start(t, "nested.c", "gcc", "-O2")
	u := unwind.New(unwind.Options{})
	want, err := u.Stack(h.space, unwind.Memory(h.tid), h.regs, 100)
	if err != nil {
		t.Fatal(err)
	}
	// The thread seems to be in code that is injected, which has saved the
	// program counter and moved the stack pointer beyond the red zone.
	const injected, redZone = 0x1000, 128
	regs := h.regs
	regs.SetPC(injected)
	regs.SetSP(h.regs.SP() - redZone - 8)
	u = unwind.New(unwind.Options{Special: func(r *unwind.Regs, _ io.ReaderAt) (uint64, bool) {
		if r.PC() != injected {
			return 0, false
		}
		at := r.SP()
		r.SetPC(h.regs.PC())
		r.SetSP(at + redZone + 8)
		return at, true
	}})
	got, err := u.Stack(h.space, unwind.Memory(h.tid), regs, 100)
	if err != nil || len(got) != len(want)+1 {
		t.Fatalf("%d frames, want one more than %d: %v", len(got), len(want), err)
	}
	if !got[1].Exact || got[1].At != regs.SP() {
		t.Errorf("the frame under the injected one is %+v", got[1])
	}
	for i := range want {
		if got[i+1].PC != want[i].PC {
			t.Errorf("frame %d: %#x, want %#x", i+1, got[i+1].PC, want[i].PC)
		}
	}
}

func BenchmarkStack(b *testing.B) {
	for _, kind := range []struct {
		name  string
		flags []string
	}{{"dynamic", nil}, {"static", []string{"-static"}}} {
		h := start(b, "nested.c", append([]string{"gcc", "-O2"}, kind.flags...)...)
		const depth = 10
		b.Run("cold/"+kind.name, func(b *testing.B) {
			for b.Loop() {
				space, err := unwind.Map(h.tid)
				if err != nil {
					b.Fatal(err)
				}
				if _, err := unwind.New(unwind.Options{}).Stack(space, unwind.Memory(h.tid), h.regs, depth); err != nil {
					b.Fatal(err)
				}
			}
		})
		u := unwind.New(unwind.Options{})
		b.Run("another process/"+kind.name, func(b *testing.B) {
			for b.Loop() {
				space, err := unwind.Map(h.tid)
				if err != nil {
					b.Fatal(err)
				}
				if _, err := u.Stack(space, unwind.Memory(h.tid), h.regs, depth); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run("warm/"+kind.name, func(b *testing.B) {
			for b.Loop() {
				if f, err := u.Stack(h.space, unwind.Memory(h.tid), h.regs, depth); err != nil || len(f) != depth {
					b.Fatal(err)
				}
			}
		})
	}
}

package audit

import (
	"context"
	"iter"

	"github.com/seed-055cd0c8/indirect/internal/recorder"
	"github.com/seed-055cd0c8/indirect/internal/symbol"
	"github.com/seed-055cd0c8/indirect/internal/symbol/cpython"
)

// events are what a recording holds so far, with the functions and lines of
// its stacks looked up. The error of reading it, if there is one, is stored in err.
func events(ctx context.Context, r *recorder.Recording, s *symbol.Symbolizer, err *error) iter.Seq[Event] {
	return func(yield func(Event) bool) {
		t := teller{
			ctx: ctx, symbols: s, modules: make(map[uint64]symbol.Module), frames: make(map[recorder.Frame][]Frame),
			failed: make(map[uint64]bool), executables: make(map[uint64]string), wanted: make(map[uint64]bool),
		}
		if *err = r.Read(func(e recorder.Entry) error { t.foresee(&e); return nil }); *err != nil {
			return
		}
		e := r.Read(func(e recorder.Entry) error {
			if event, ok := t.event(&e); ok && !yield(event) {
				return errEnough
			}
			return nil
		})
		if e != errEnough {
			*err = e
		}
	}
}

type enough struct{}

func (enough) Error() string { return "no more events are wanted" }

var errEnough error = enough{}

// teller makes events of the recorder's entries.
type teller struct {
	ctx     context.Context
	symbols *symbol.Symbolizer
	modules map[uint64]symbol.Module
	frames  map[recorder.Frame][]Frame // what has been looked up

	// What entries say of those before them.
	failed      map[uint64]bool   // programs that were never executed
	executables map[uint64]string // of programs
	wanted      map[uint64]bool   // stacks
}

// maxForeseen bounds how much is known ahead.
const maxForeseen = 1 << 18

// foresee notes what an entry says of those before it.
func (t *teller) foresee(e *recorder.Entry) {
	want := func(stack uint64) {
		if len(t.wanted) < maxForeseen {
			t.wanted[stack] = true
		}
	}
	switch {
	case e.Creation != nil:
		want(e.Creation.Stack)
	case e.Race != nil:
		want(e.Race.Stack)
	case e.Exec != nil:
		want(e.Exec.Stack)
	case e.Failed != nil && len(t.failed) < maxForeseen:
		t.failed[e.Failed.Program] = true
	case e.Program != nil && len(t.executables) < maxForeseen:
		t.executables[e.Program.ID] = e.Program.Executable
	}
}

// maxLookedUp bounds the frames that are remembered.
const maxLookedUp = 1 << 15

func (t *teller) event(e *recorder.Entry) (Event, bool) {
	switch {
	case e.Module != nil:
		t.modules[e.Module.ID] = symbol.Module{Path: e.Module.Path, Inode: e.Module.Ino, BuildID: e.Module.BuildID}
		return Event{}, false
	case e.Program != nil:
		p := Program(*e.Program)
		exe, ahead := t.executables[p.ID]
		if ahead {
			p.Executable = exe
		}
		return Event{Program: &p}, !t.failed[p.ID]
	case e.Stack != nil:
		// To look up functions is what takes longest.
		if !t.wanted[e.Stack.ID] && len(t.wanted) < maxForeseen {
			return Event{}, false
		}
		return Event{Stack: t.stack(e.Stack)}, true
	case e.Creation != nil:
		return Event{Creation: creation(e.Creation)}, true
	case e.Race != nil:
		r := Race(*e.Race)
		return Event{Race: &r}, true
	case e.Exec != nil:
		if t.failed[e.Exec.To] {
			return Event{}, false
		}
		x := &Exec{From: e.Exec.From, To: e.Exec.To, TID: e.Exec.TID, Time: e.Exec.Time, Stack: e.Exec.Stack, Env: e.Exec.Env}
		for _, h := range e.Exec.Handed {
			x.Handed = append(x.Handed, Handed{FD: h.FD, Creation: h.Creation, Object: object(h.Object)})
		}
		return Event{Exec: x}, true
	case e.Latent != nil:
		l := Latent(*e.Latent)
		return Event{Latent: &l}, true
	case e.Exit != nil:
		x := Exit(*e.Exit)
		return Event{Exit: &x}, true
	case e.Lost != nil:
		l := Lost(*e.Lost)
		return Event{Lost: &l}, true
	}
	return Event{}, false
}

func object(o recorder.Object) Object { return Object(o) }

func creation(c *recorder.Creation) *Creation {
	return &Creation{
		ID: c.ID, Origin: Origin(c.Origin), Program: c.Program, TID: c.TID, Time: c.Time,
		Call: c.Call, Args: arguments(c), FD: c.FD, Object: object(c.Object), Stack: c.Stack, Threads: c.Threads,
	}
}

// stack looks up the functions of a stack.
func (t *teller) stack(s *recorder.Stack) *Stack {
	found := &Stack{ID: s.ID}
	if len(s.Python) > 0 {
		found.Frames = t.pythonStack(s)
		return found
	}
	for _, f := range s.Frames {
		frames, ok := t.frames[f]
		if !ok {
			frames = t.lookUp(f)
			if len(t.frames) >= maxLookedUp {
				clear(t.frames)
			}
			t.frames[f] = frames
		}
		found.Frames = append(found.Frames, frames...)
	}
	return found
}

func (t *teller) lookUp(f recorder.Frame) (frames []Frame) {
	for _, s := range t.symbols.Frames(t.ctx, t.modules[f.Module], f.Offset, f.Exact) {
		s.Guessed = f.Guessed
		frames = append(frames, frame(s))
	}
	return frames
}

func frame(s symbol.Frame) Frame {
	return Frame{
		Function: s.Function, File: s.File, Line: s.Line, Module: s.Module, Offset: s.Offset, BuildID: s.BuildID,
		Inlined: s.Inlined, Guessed: s.Guessed,
	}
}

// pythonStack looks up the functions of a stack that leads through Python.
func (t *teller) pythonStack(s *recorder.Stack) (frames []Frame) {
	var native, python []symbol.Frame
	for _, f := range s.Frames {
		for _, found := range t.symbols.Frames(t.ctx, t.modules[f.Module], f.Offset, f.Exact) {
			found.Guessed = f.Guessed
			native = append(native, found)
		}
	}
	activations := make([]cpython.Activation, len(s.Python))
	for i, f := range s.Python {
		activations[i].Entry = f.Entry
		python = append(python, symbol.Frame{Function: f.Function, File: f.File, Line: f.Line})
	}
	for _, f := range cpython.Merge(native, activations, python) {
		frames = append(frames, frame(f))
	}
	return frames
}

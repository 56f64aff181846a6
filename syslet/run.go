package syslet

import (
	"context"
	"iter"

	"golang.org/x/sys/unix"
)

// Run takes chains from jobs, each with a value of the caller's, keeps as many
// in flight as the engine has room for, and yields them as they complete, in
// any order. It takes a chain only when there is room: a slow consumer slows
// the source down. Completions are yielded when there is no room or the source
// has ended: a source that waits for something holds them back. The chain may be
// the same memory in each iteration: Run copies its steps.
//
// The error is nil with every completion; how the chain went is in
// [Completion.Err]. A last pair with an error and no completion says that the
// engine could not go on: the context's cause, [ErrBusy], [ErrClosed], an
// invalid chain ([ErrChain]) or a failure of the back end.
//
// When ctx is done, what is in flight is cancelled; what completed nevertheless
// and what was cancelled (its step failed with ECANCELED) is still yielded, so
// that no result is lost. A consumer that breaks out of the loop cancels, too;
// descriptors revealed by chains that it did not see are closed. Run returns
// when the kernel has let go of all memory.
//
// All decisions are made in the goroutine that iterates. On a ring there is no
// other; a pool's are as many as Config.Workers.
func Run[T any](ctx context.Context, e *Engine, jobs iter.Seq2[T, Chain]) iter.Seq2[Completion[T], error] {
	values := make([]T, len(e.flights))
	return func(yield func(Completion[T], error) bool) {
		r := runner[T]{e: e, ctx: ctx, values: values, yield: yield}
		if err := r.run(jobs); err != nil && !r.broken {
			yield(Completion[T]{}, err)
		}
	}
}

// runner is one Run.
type runner[T any] struct {
	e      *Engine
	ctx    context.Context
	values []T
	yield  func(Completion[T], error) bool
	broken bool // the consumer left the loop
}

func (r *runner[T]) run(jobs iter.Seq2[T, Chain]) (err error) {
	e := r.e
	if !e.state.CompareAndSwap(free, running) {
		if e.state.Load() == closed {
			return ErrClosed
		}
		return ErrBusy
	}
	defer e.state.Store(free)
	if e.dead != nil {
		return e.dead
	}
	if err := e.backend.begin(); err != nil {
		return err
	}
	interrupted := make(chan struct{})
	stop := context.AfterFunc(r.ctx, func() {
		e.backend.interrupt()
		close(interrupted)
	})
	// A deferred function, so that a panic of the source or of the consumer
	// leaves no call behind that writes to memory.
	finished := false
	defer func() {
		if !finished {
			r.broken = true
		}
		if !finished || err != nil || r.broken {
			e.backend.interrupt()
		}
		for e.live > 0 || len(e.done) > 0 {
			if waitErr := e.backend.advance(len(e.done) == 0); waitErr != nil {
				e.abandon(waitErr)
				err = waitErr
				break
			}
			r.handOut()
		}
		if !stop() {
			<-interrupted // an interruption that came late would hit the next Run
		}
		if endErr := e.backend.end(); err == nil {
			err = endErr
		}
		if err == nil && r.ctx.Err() != nil {
			err = context.Cause(r.ctx)
		}
	}()
	for value, chain := range jobs {
		if err = r.submit(value, chain); err != nil || r.broken {
			break
		}
	}
	for err == nil && !r.broken && e.live > 0 {
		if err = e.backend.advance(true); err == nil {
			r.handOut()
		}
	}
	finished = true
	return err
}

// submit starts a chain as soon as there is room.
func (r *runner[T]) submit(value T, chain Chain) error {
	e := r.e
	if err := chain.Validate(e.config.Buffer); err != nil {
		return err
	}
	for len(e.idle) == 0 || !e.acquire(e.idle[len(e.idle)-1]) {
		if e.live == 0 {
			if err := e.await(r.ctx, e.idle[len(e.idle)-1]); err != nil {
				return err
			}
			break
		}
		if err := e.backend.advance(true); err != nil {
			return err
		}
		if r.handOut(); r.broken {
			return nil
		}
	}
	if r.ctx.Err() != nil {
		return context.Cause(r.ctx)
	}
	f := e.idle[len(e.idle)-1]
	e.idle = e.idle[:len(e.idle)-1]
	r.values[f.index] = value
	f.load(chain)
	e.live++
	e.backend.start(f)
	return nil
}

// handOut yields what has completed. Where the consumer has left, it cleans up
// after it instead.
func (r *runner[T]) handOut() {
	e := r.e
	for len(e.done) > 0 {
		f := e.done[len(e.done)-1]
		e.done = e.done[:len(e.done)-1]
		e.live--
		r.deliver(f)
	}
}

// deliver yields one completion and gets its flight ready for the next chain,
// also where the consumer panics.
func (r *runner[T]) deliver(f *flight) {
	defer func() {
		f.unload()
		if f.taken {
			f.buffer, f.taken = nil, false
		}
		r.e.idle = append(r.e.idle, f)
	}()
	c := Completion[T]{Value: r.values[f.index], f: f}
	clear(r.values[f.index : f.index+1])
	if r.broken {
		f.conceal()
		return
	}
	r.broken = true // what a panic in yield leaves behind
	r.broken = !r.yield(c, nil)
}

// conceal closes the descriptors that nobody will hear of.
func (f *flight) conceal() {
	for i := range f.chain[:f.steps] {
		if f.chain[i].Call == Reveal && f.results[i] >= 0 {
			unix.Close(int(f.results[i]))
		}
	}
}

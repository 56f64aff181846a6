package supervise

import (
	"errors"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/seed-055cd0c8/indirect/internal/listener"
)

// workers are the threads that receive and handle notifications. Each handles
// what it has received itself, because the kernel has just switched to it on
// the CPU of the thread that waits.
//
// There is always one that waits in the kernel: until its notification is
// received, a signal can make a program's call fail with EINTR
// (should_sleep_killable in kernel/seccomp.c).
type workers struct {
	*engine
	waiting atomic.Int32 // receiving
	all     atomic.Int32
	stopped atomic.Bool
	threads sync.Map // of the workers: *thread
	failed  chan error
}

// thread is that of a worker.
type thread struct {
	tid       int
	receiving atomic.Bool
}

// receivers is how many workers wait when there is nothing to do.
const receivers = 2

func (w *workers) start() {
	w.waiting.Add(1)
	w.all.Add(1)
	go w.work()
}

// resume goes on with what a supervisor before us had in hand. It may take for
// ever, as any notification may, so each has a thread of its own.
func (w *workers) resume(f *flight) {
	w.all.Add(1)
	go func() {
		defer w.all.Add(-1)
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		defer f.drop()
		if tid := int(f.held.tid.Load()); tid != 0 {
			w.restore(tid)
			f.held.end(tid)
		}
		if n := f.notice; n.ID != 0 && w.listener.Valid(n.ID) {
			w.handle(n)
		}
		f.share.end(w.cpus)
	}()
}

func (w *workers) work() {
	defer w.all.Add(-1)
	runtime.LockOSThread() // ptrace requests must come from the thread that attached
	defer runtime.UnlockOSThread()
	t := &thread{tid: unix.Gettid()}
	w.threads.Store(t, nil)
	defer w.threads.Delete(t)
	f := w.ledger.take()
	if f == nil {
		w.failed <- errors.New("no room for another notification")
		return
	}
	defer f.drop()
	for {
		t.receiving.Store(true)
		if w.stopped.Load() {
			return
		}
		err := w.listener.Receive(&f.notice)
		t.receiving.Store(false)
		switch {
		case w.stopped.Load() && err != nil:
			return
		case errors.Is(err, listener.ErrNothing):
			continue
		case err != nil:
			w.failed <- err
			return
		}
		f.tries.Store(1)
		if w.waiting.Add(-1) == 0 && w.all.Load() < maxWorkers {
			w.start()
		}
		w.handle(f.notice)
		f.share.end(w.cpus)
		if w.stopped.Load() || w.waiting.Load() >= receivers {
			return
		}
		w.waiting.Add(1)
	}
}

// stop ends the workers, except those whose thread blocks in its call: they
// end when it does. The others have answered what they had in hand.
func (w *workers) stop() {
	w.stopped.Store(true)
	const pause, longest = time.Millisecond, 250 * time.Millisecond
	// Some kernels go back to waiting for a call after a signal: then a worker
	// ends when it has served one more.
	wait := pause
	for waiting := true; waiting; wait = min(2*wait, longest) {
		time.Sleep(wait)
		waiting = false
		w.threads.Range(func(key, _ any) bool {
			if t := key.(*thread); t.receiving.Load() {
				waiting = true
				// The Go runtime handles this signal and ignores what it does not
				// expect (sigPreempt in runtime/signal_unix.go).
				_ = unix.Tgkill(os.Getpid(), t.tid, unix.SIGURG)
			}
			return true
		})
	}
	w.rest()
}

// rest waits until no worker is left but those whose thread blocks in its call,
// a second at most.
func (w *workers) rest() {
	const pause, patience = time.Millisecond, time.Second
	for start := time.Now(); w.all.Load() > w.blocked.Load() && time.Since(start) < patience; {
		time.Sleep(pause)
	}
}

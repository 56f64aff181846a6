package syslet

import (
	"bytes"
	"context"
	"errors"
	"iter"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/seed-055cd0c8/indirect/internal/uring"
	"golang.org/x/sys/unix"
)

func pipe(t *testing.T) (r, w int) {
	t.Helper()
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(p[0]); unix.Close(p[1]) })
	return p[0], p[1]
}

// forever yields the same chain for as long as anybody asks.
func forever(c Chain) iter.Seq2[int, Chain] {
	return func(yield func(int, Chain) bool) {
		for i := 0; yield(i, c); i++ {
		}
	}
}

func times(n int, c Chain) iter.Seq2[int, Chain] {
	return func(yield func(int, Chain) bool) {
		for i := 0; i < n && yield(i, c); i++ {
		}
	}
}

func TestCancel(t *testing.T) {
	r, _ := pipe(t)
	socks, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(socks[0])
	defer unix.Close(socks[1])
	reason := errors.New("enough")
	for name, chain := range map[string]Chain{
		"read of a pipe":   {{Call: Read, Fd: Number(r), Data: Own(0, 1), Off: -1}, {}},
		"recv of a socket": {{Call: Recv, Fd: Number(socks[0]), Data: Own(0, 1)}, {}},
		"all ignored":      {{Call: Recv, Fd: Number(socks[0]), Data: Own(0, 1), OnError: Ignore, OnEnd: Ignore}, {Call: Recv, Fd: Number(socks[0]), Data: Own(0, 1)}},
		"round and round":  {{}, {Call: Jump, Flags: 0}},
	} {
		t.Run(name, func(t *testing.T) {
			eachBackend(t, Config{Depth: 8}, func(t *testing.T, e *Engine) {
				for range 3 { // the engine can be used again
					ctx, cancel := context.WithCancelCause(context.Background())
					time.AfterFunc(20*time.Millisecond, func() { cancel(reason) })
					n, start := 0, time.Now()
					var last error
					for c, err := range Run(ctx, e, times(8, chain)) {
						if last = err; err != nil {
							break
						}
						n++
						if !errors.Is(c.Err(), unix.ECANCELED) {
							t.Errorf("a chain ended with %v", c.Err())
						}
					}
					if n != 8 || !errors.Is(last, reason) {
						t.Errorf("%d completions, then %v", n, last)
					}
					if took := time.Since(start); took > 5*time.Second {
						t.Errorf("took %v", took)
					}
				}
				for c, err := range Run(t.Context(), e, times(3, Chain{{}})) {
					if err != nil || c.Err() != nil {
						t.Errorf("afterwards: %v", err)
					}
				}
			})
		})
	}
}

func TestAlreadyCancelled(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	eachBackend(t, Config{Depth: 2}, func(t *testing.T, e *Engine) {
		for c, err := range Run(ctx, e, forever(Chain{{}})) {
			if err == nil && c.Err() == nil {
				continue // what was started before the interruption arrived
			}
			if err != nil && !errors.Is(err, context.Canceled) {
				t.Error(err)
			}
		}
	})
}

func TestBreak(t *testing.T) {
	r, w := pipe(t)
	chain := Chain{{Call: Read, Fd: Number(r), Data: Own(0, 1), Off: -1}}
	eachBackend(t, Config{Depth: 8, Workers: 8}, func(t *testing.T, e *Engine) {
		for range 5 {
			if _, err := unix.Write(w, []byte("x")); err != nil {
				t.Fatal(err)
			}
			n := 0
			for range Run(t.Context(), e, forever(chain)) {
				n++
				break
			}
			if n != 1 || e.live != 0 || len(e.idle) != 8 {
				t.Fatalf("%d iterations, %d in flight, %d idle", n, e.live, len(e.idle))
			}
		}
	})
}

func TestPanic(t *testing.T) {
	eachBackend(t, Config{Depth: 1}, func(t *testing.T, e *Engine) {
		func() {
			defer func() {
				if recover() != "mine" {
					t.Error("the panic did not come through")
				}
			}()
			for range Run(t.Context(), e, forever(Chain{{}})) {
				panic("mine")
			}
		}()
		for _, err := range Run(t.Context(), e, times(9, Chain{{}})) {
			if err != nil {
				t.Error(err)
			}
		}
	})
}

// TestBackPressure holds that the source is asked for no more than there is
// room for, and that nothing is lost with many more chains than room.
func TestBackPressure(t *testing.T) {
	const depth, jobs = 8, 5000
	eachBackend(t, Config{Depth: depth, Batch: 4}, func(t *testing.T, e *Engine) {
		given, seen := 0, make([]bool, jobs)
		source := func(yield func(int, Chain) bool) {
			for given < jobs {
				given++
				if !yield(given-1, Chain{{}, {}, {}, {}}) {
					return
				}
			}
		}
		n := 0
		for c, err := range Run(t.Context(), e, source) {
			if err != nil || c.Err() != nil || seen[c.Value] {
				t.Fatalf("chain %d: %v, %v, seen before: %v", c.Value, err, c.Err(), seen[c.Value])
			}
			seen[c.Value] = true
			if n++; given-n > depth {
				t.Fatalf("%d chains were taken and not yielded with room for %d", given-n, depth)
			}
		}
		if n != jobs {
			t.Errorf("%d of %d completed", n, jobs)
		}
	})
}

func TestTake(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, []byte("data"), 0o600); err != nil {
		t.Fatal(err)
	}
	chain := Chain{{Call: Open, Path: path}, {Call: Read, Fd: Opened(0), Data: Own(0, 4)}}
	eachBackend(t, Config{Depth: 4, Spare: 2, Buffer: 4}, func(t *testing.T, e *Engine) {
		taken := make(chan *Buffer, 100)
		var wg sync.WaitGroup
		wg.Go(func() { // slower than the engine, which has to wait
			for b := range taken {
				time.Sleep(100 * time.Microsecond)
				if !bytes.Equal(b.Bytes(), []byte("data")) {
					t.Errorf("a taken buffer holds %q", b.Bytes())
				}
				clear(b.Bytes())
				b.Release()
			}
		})
		n := 0
		for c, err := range Run(t.Context(), e, times(200, chain)) {
			if err != nil || c.Err() != nil {
				t.Fatal(err, c.Err())
			}
			taken <- c.Take()
			n++
		}
		if n != 200 {
			t.Errorf("%d completions", n)
		}
		close(taken)
		wg.Wait()

		var kept *Buffer
		for c := range Run(t.Context(), e, times(1, chain)) {
			kept = c.Take()
		}
		if err := e.Close(); err == nil {
			t.Fatal("Close unmapped a buffer in use")
		}
		kept.Release()
		kept.Release() // once more is once too often, and must not hurt
		if got := len(e.buffers) + e.held(); got != cap(e.buffers) {
			t.Errorf("%d buffers of %d", got, cap(e.buffers))
		}
	})
}

func TestBusyAndClosed(t *testing.T) {
	e, err := New(Config{Depth: 1})
	if err != nil {
		t.Fatal(err)
	}
	for range Run(t.Context(), e, times(1, Chain{{}})) {
		for _, err := range Run(t.Context(), e, times(1, Chain{{}})) {
			if !errors.Is(err, ErrBusy) {
				t.Errorf("a second Run: %v", err)
			}
		}
		if err := e.Close(); !errors.Is(err, ErrBusy) {
			t.Errorf("Close during a Run: %v", err)
		}
	}
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	for _, err := range Run(t.Context(), e, times(1, Chain{{}})) {
		if !errors.Is(err, ErrClosed) {
			t.Errorf("a Run after Close: %v", err)
		}
	}
}

// TestWrongThread holds that a broken promise of Config.OneThread is an error
// and loses no memory to the kernel.
func TestWrongThread(t *testing.T) {
	if !haveRing() {
		return
	}
	done := make(chan *Engine)
	stay := make(chan struct{})
	defer close(stay)
	go func() {
		runtime.LockOSThread()
		e, err := New(Config{Backend: Ring, OneThread: true, Depth: 1})
		if err != nil {
			t.Error(err)
		}
		done <- e
		<-stay // the thread lives on, and is ours
	}()
	e := <-done
	if e == nil {
		return
	}
	if !e.backend.(*ringBackend).ring.Deferred() {
		return // Linux before 6.1 does not mind
	}
	var last error
	pinned := Chain{{Call: Write, Fd: Number(-1), Data: Bytes(make([]byte, 100))}}
	for _, err := range Run(t.Context(), e, times(1, pinned)) {
		last = err
	}
	if !errors.Is(last, unix.EEXIST) {
		t.Errorf("Run on another thread: %v", last)
	}
	e.Close()
	e = nil
	runtime.GC() // would end the program if it found what is still pinned
	runtime.GC()
}

// TestNoAllocation holds that neither a chain in flight nor its completion
// costs an allocation or a goroutine once everything is warm.
func TestNoAllocation(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, []byte("data"), 0o600); err != nil {
		t.Fatal(err)
	}
	content := []byte("hello")
	socks, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(socks[0])
	defer unix.Close(socks[1])
	chains := []Chain{{
		{Call: Open, Path: path, Flags: unix.O_RDWR},
		{Call: Read, Fd: Opened(0), Data: Own(0, 100), OnShort: Ignore},
		{Call: Write, Fd: Opened(0), Data: Bytes(content)},
		{Call: Close, Fd: Opened(0)},
	}, {
		{Call: Send, Fd: Number(socks[0]), Data: Bytes(content), Timeout: time.Minute},
		{Call: Recv, Fd: Number(socks[1]), Data: Own(0, 5), Timeout: time.Minute},
		{Call: Socket, Domain: unix.AF_INET, Flags: unix.SOCK_STREAM},
		{Call: Connect, Fd: Opened(2), Addr: netip.MustParseAddrPort("127.0.0.1:1"), Timeout: time.Minute, OnError: Ignore},
	}}
	eachBackend(t, Config{Depth: 16}, func(t *testing.T, e *Engine) {
		for _, chain := range chains {
			costsNothing(t, e, chain)
		}
	})
}

func costsNothing(t *testing.T, e *Engine, chain Chain) {
	t.Helper()
	before := runtime.NumGoroutine()
	goroutines := 0
	run := func(n int) {
		for c, err := range Run(t.Context(), e, times(n, chain)) {
			if err != nil || c.Err() != nil {
				t.Fatal(err, c.Err())
			}
			goroutines = max(goroutines, runtime.NumGoroutine()-before)
		}
	}
	run(2000)
	few := testing.AllocsPerRun(5, func() { run(1) })
	many := testing.AllocsPerRun(5, func() { run(2000) })
	if perChain := (many - few) / 1999; perChain > 0.01 {
		t.Errorf("%.3f allocations a chain (%v for one, %v for 2000)", perChain, few, many)
	}
	if goroutines > 0 {
		t.Errorf("%d goroutines more", goroutines)
	}
}

func TestReveal(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, []byte("data"), 0o600); err != nil {
		t.Fatal(err)
	}
	eachBackend(t, Config{Depth: 2}, func(t *testing.T, e *Engine) {
		for _, flags := range []int{0, Inheritable, NonSequential, Inheritable | NonSequential} {
			before := openFiles(t)
			var numbers []int
			chain := Chain{{Call: Open, Path: path}, {Call: Reveal, Fd: Opened(0), Flags: flags}, {Call: Close, Fd: Opened(0)}}
			for c, err := range Run(t.Context(), e, times(20, chain)) {
				if err != nil || c.Err() != nil {
					t.Fatal(err, c.Err())
				}
				fd, err := c.N(1)
				if err != nil {
					t.Fatal(err)
				}
				numbers = append(numbers, fd)
				got, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
				if err != nil {
					t.Fatal(err)
				}
				if cloexec := got&unix.FD_CLOEXEC != 0; cloexec == (flags&Inheritable != 0) {
					t.Errorf("flags %d: close-on-exec is %v", flags, cloexec)
				}
				var b [4]byte
				if n, err := unix.Pread(fd, b[:], 0); n != 4 || err != nil || string(b[:]) != "data" {
					t.Errorf("read of it: %d, %v", n, err)
				}
			}
			if got := openFiles(t) - before; got != 20 {
				t.Errorf("%d descriptors more, want 20", got)
			}
			spread := slices.Max(numbers) - slices.Min(numbers)
			if far := spread > 200; far != (flags&NonSequential != 0) {
				t.Errorf("flags %d: numbers %v", flags, numbers)
			}
			for _, fd := range numbers {
				unix.Close(fd)
			}
		}
	})
}

// TestRevealUnseen holds that a consumer that leaves does not leak what it was
// not told of.
func TestRevealUnseen(t *testing.T) {
	chain := Chain{{Call: Open, Path: "/dev/null"}, {Call: Reveal, Fd: Opened(0)}}
	eachBackend(t, Config{Depth: 16}, func(t *testing.T, e *Engine) {
		before := openFiles(t)
		for c := range Run(t.Context(), e, times(50, chain)) {
			fd, _ := c.N(1)
			unix.Close(fd)
			break
		}
		if after := openFiles(t); after != before {
			t.Errorf("%d descriptors open, %d before", after, before)
		}
	})
}

// TestOldReveal takes the way of kernels without IORING_OP_FIXED_FD_INSTALL.
func TestOldReveal(t *testing.T) {
	if !haveRing() {
		return
	}
	e, err := New(Config{Backend: Ring, Depth: 4})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	e.backend.(*ringBackend).install = false
	before := openFiles(t)
	chain := Chain{{Call: Open, Path: "/dev/zero"}, {Call: Read, Fd: Opened(0), Data: Own(0, 10)}, {Call: Reveal, Fd: Opened(0)}, {}}
	for c, err := range Run(t.Context(), e, times(20, chain)) {
		if err != nil || c.Err() != nil {
			t.Fatal(err, c.Err())
		}
		fd, _ := c.N(2)
		if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err != nil || flags&unix.FD_CLOEXEC == 0 {
			t.Errorf("flags %#x, %v", flags, err)
		}
		unix.Close(fd)
	}
	if after := openFiles(t); after != before {
		t.Errorf("%d descriptors open, %d before", after, before)
	}
}

// FuzzStrangers holds that completions that belong to nothing do no harm: each
// run still has its own results, all of them, once.
func FuzzStrangers(f *testing.F) {
	f.Add(uint64(0), int32(0), uint32(0))
	f.Add(uint64(kindPoll|3), int32(-1), uint32(0))
	f.Add(uint64(kindStep|31), int32(5), uint32(0))
	f.Add(uint64(kindClose), int32(0), uint32(1))
	f.Add(uint64(kindTimeout), int32(-62), uint32(0))
	f.Add(uint64(kindShared), int32(7), uint32(2))
	f.Add(uint64(7<<8|kindShared), int32(7), uint32(2))
	f.Add(uint64(6<<5), int32(0), uint32(0))
	f.Add(uint64(1<<40), int32(0), uint32(0))
	f.Add(^uint64(2), int32(1), ^uint32(0))
	var e *Engine
	if haveRing() {
		var err error
		if e, err = New(Config{Backend: Ring, Depth: 4, Buffer: 64}); err != nil {
			f.Fatal(err)
		}
		f.Cleanup(func() { e.Close() })
	}
	f.Fuzz(func(t *testing.T, data uint64, res int32, flags uint32) {
		if e == nil || data == wakeData || data == cancelData || data == kindDrop {
			return // anybody's: their completions are only counted
		}
		b, stranger := e.backend.(*ringBackend), uring.CQE{UserData: data, Res: res, Flags: flags}
		b.complete(stranger) // before anything runs
		n := 0
		for c, err := range Run(t.Context(), e, times(8, Chain{{Call: Open, Path: os.DevNull}, {Call: Close, Fd: Opened(0)}})) {
			if got := outcome(c); err != nil || got != "0 0" {
				t.Fatalf("%s, %v", got, err)
			}
			n++
		}
		b.complete(stranger)
		if n != 8 || b.out > 1 || len(e.done) > 0 {
			t.Errorf("%d completions, %d requests, %d done", n, b.out, len(e.done))
		}
	})
}

// TestManyEngines runs engines side by side, each in a goroutine that is not
// bound to a thread.
func TestManyEngines(t *testing.T) {
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			e, err := New(Config{Depth: 8})
			if err != nil {
				t.Error(err)
				return
			}
			defer e.Close()
			n := 0
			chain := Chain{{Call: Open, Path: "/dev/zero"}, {Call: Read, Fd: Opened(0), Data: Own(0, 100)}, {Call: Close, Fd: Opened(0)}}
			for c, err := range Run(t.Context(), e, times(500, chain)) {
				if err != nil || c.Err() != nil {
					t.Error(err, c.Err())
					return
				}
				if n++; n%50 == 0 {
					runtime.Gosched()
				}
			}
			if n != 500 {
				t.Errorf("%d completions", n)
			}
		})
	}
	wg.Wait()
}

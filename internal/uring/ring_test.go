package uring

import (
	"errors"
	"os"
	"runtime"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// open makes a ring, or returns nil where this kernel has none for us.
func open(tb testing.TB, c Config) *Ring {
	tb.Helper()
	r, err := New(c)
	if errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EPERM) || errors.Is(err, ErrTooOld) {
		tb.Logf("no io_uring here: %v", err)
		return nil
	}
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := r.Close(); err != nil {
			tb.Error(err)
		}
	})
	return r
}

// address is that of memory that the caller pinned.
func address(b []byte) uint64 { return uint64(uintptr(unsafe.Pointer(&b[0]))) }

// TestAround sends many requests through small rings, so that all indices wrap
// around the queues many times and nothing is lost or comes twice.
func TestAround(t *testing.T) {
	for _, oneThread := range []bool{false, true} {
		func() {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			r := open(t, Config{Submissions: 4, Completions: 8, OneThread: oneThread})
			if r == nil {
				return
			}
			const n = 10_000
			sent, seen := uint64(0), make([]int, n)
			for got := 0; got < n; {
				for sent < n && int(sent)-got < r.Completions() {
					s := r.Next()
					if s == nil {
						break
					}
					s.UserData = sent
					sent++
				}
				if r.Room() > 0 && sent < n && int(sent)-got < r.Completions() {
					t.Fatalf("no entry with room for %d", r.Room())
				}
				if err := r.Enter(1, 0); err != nil {
					t.Fatal(err)
				}
				for c, ok := r.Reap(); ok; c, ok = r.Reap() {
					if c.Res != 0 {
						t.Fatalf("nop %d: %d", c.UserData, c.Res)
					}
					seen[c.UserData]++
					got++
				}
			}
			for i, times := range seen {
				if times != 1 {
					t.Fatalf("request %d completed %d times", i, times)
				}
			}
		}()
	}
}

func TestFull(t *testing.T) {
	r := open(t, Config{Submissions: 4, Completions: 8})
	if r == nil {
		return
	}
	for i := range r.Submissions() {
		if r.Next() == nil {
			t.Fatalf("no entry %d", i)
		}
	}
	if r.Next() != nil || r.Room() != 0 {
		t.Errorf("an entry more than the queue has; room %d", r.Room())
	}
	for r.Ready() < 4 { // a signal may end the wait
		if err := r.Enter(4, 0); err != nil {
			t.Fatal(err)
		}
	}
	if r.Ready() != 4 || r.Room() != 4 {
		t.Errorf("%d ready, room for %d", r.Ready(), r.Room())
	}
}

func TestTimeout(t *testing.T) {
	r := open(t, Config{Submissions: 4, Completions: 8})
	if r == nil {
		return
	}
	waited := false
	for range 10 { // a signal may end the wait
		start := time.Now()
		if err := r.Enter(1, 20*time.Millisecond); err != nil {
			t.Fatal(err)
		}
		waited = waited || time.Since(start) >= 20*time.Millisecond
	}
	if !waited {
		t.Error("no wait lasted as long as it was told to")
	}
	if _, ok := r.Reap(); ok {
		t.Error("a completion of nothing")
	}
}

func TestDirectDescriptors(t *testing.T) {
	r := open(t, Config{Submissions: 8, Completions: 16, Files: 2})
	if r == nil {
		return
	}
	path, data := append([]byte(os.DevNull), 0), make([]byte, 8)
	var pin runtime.Pinner
	defer pin.Unpin()
	pin.Pin(&path[0])
	pin.Pin(&data[0])
	for i, s := range []SQE{
		{Op: OpOpenat, Fd: unix.AT_FDCWD, Addr: address(path), OpFlags: unix.O_RDWR, FileIndex: 2, Flags: Link},
		{Op: OpWrite, Fd: 1, Flags: FixedFile | HardLink, Addr: address(data), Len: 8},
		{Op: OpRead, Fd: 1, Flags: FixedFile | HardLink, Addr: address(data), Len: 8},
		{Op: OpRead, Fd: 0, Flags: FixedFile | HardLink, Addr: address(data), Len: 8},
		{Op: OpClose, FileIndex: 2},
	} {
		e := r.Next()
		*e = s
		e.UserData = uint64(i)
	}
	for r.Ready() < 5 { // a signal may end the wait
		if err := r.Enter(5, time.Second); err != nil {
			t.Fatal(err)
		}
	}
	want := []int32{0, 8, 0, -int32(unix.EBADF), 0}
	for range want {
		c, ok := r.Reap()
		if !ok {
			t.Fatal("a completion is missing")
		}
		if c.Res != want[c.UserData] {
			t.Errorf("request %d: %d, want %d", c.UserData, c.Res, want[c.UserData])
		}
	}
}

// TestAlloc has the kernel choose direct descriptors: only behind the others.
func TestAlloc(t *testing.T) {
	r := open(t, Config{Submissions: 8, Completions: 16, Files: 3, Alloc: 2})
	if r == nil || !r.Allocs() {
		return
	}
	path := append([]byte(os.DevNull), 0)
	var pin runtime.Pinner
	defer pin.Unpin()
	pin.Pin(&path[0])
	const n = 3 // one more than there is
	for range n {
		s := r.Next()
		s.Op, s.Fd, s.Addr, s.FileIndex = OpOpenat, unix.AT_FDCWD, address(path), FileAlloc
	}
	for r.Ready() < n { // a signal may end the wait
		if err := r.Enter(n, time.Second); err != nil {
			t.Fatal(err)
		}
	}
	got := map[int32]bool{}
	for range n {
		c, _ := r.Reap()
		got[c.Res] = true
	}
	if !got[3] || !got[4] || !got[-int32(unix.ENFILE)] {
		t.Errorf("the kernel chose %v", got)
	}
}

// TestAllocLimit holds that RLIMIT_NOFILE costs the descriptors for the kernel to
// choose from first.
func TestAllocLimit(t *testing.T) {
	var old unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &old); err != nil {
		t.Fatal(err)
	}
	few := unix.Rlimit{Cur: 64, Max: old.Max}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &few); err != nil {
		t.Fatal(err)
	}
	defer unix.Setrlimit(unix.RLIMIT_NOFILE, &old)
	if r := open(t, Config{Submissions: 8, Completions: 16, Files: 60, Alloc: 60}); r != nil && r.Allocs() {
		t.Error("more direct descriptors than RLIMIT_NOFILE allows")
	}
	if r, err := New(Config{Submissions: 8, Completions: 16, Files: 65}); err == nil {
		t.Error("more direct descriptors than RLIMIT_NOFILE allows")
		r.Close()
	}
}

// TestLinkTimeout ends a wait that nothing else would end.
func TestLinkTimeout(t *testing.T) {
	r := open(t, Config{Submissions: 8, Completions: 16})
	if r == nil {
		return
	}
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	defer unix.Close(p[0])
	defer unix.Close(p[1])
	span := Span(1500 * time.Microsecond)
	var pin runtime.Pinner
	defer pin.Unpin()
	pin.Pin(&span)
	s := r.Next()
	s.Op, s.Fd, s.OpFlags, s.Flags = OpPollAdd, int32(p[0]), unix.POLLIN, Link
	s = r.Next()
	s.Op, s.Fd, s.Addr, s.Len, s.UserData = OpLinkTimeout, -1, uint64(uintptr(unsafe.Pointer(&span))), 1, 1
	for r.Ready() < 2 { // a signal may end the wait
		if err := r.Enter(2, time.Second); err != nil {
			t.Fatal(err)
		}
	}
	want := []int32{-int32(unix.ECANCELED), -int32(unix.ETIME)}
	for range want {
		if c, _ := r.Reap(); c.Res != want[c.UserData] {
			t.Errorf("request %d: %d, want %d", c.UserData, c.Res, want[c.UserData])
		}
	}
}

func TestRefused(t *testing.T) {
	for _, c := range []Config{{}, {Submissions: 1 << 15, Completions: 1<<16 + 1}, {Submissions: 1 << 20, Completions: 1 << 20}, {Submissions: 8, Completions: 4}, {Submissions: 4, Completions: 8, Files: 1 << 30}} {
		if r, err := New(c); err == nil {
			t.Errorf("New(%+v) succeeded", c)
			r.Close()
		}
	}
}

// FuzzRequests submits what nobody should: each request has exactly one
// completion, and the ring goes on working.
func FuzzRequests(f *testing.F) {
	f.Add([]byte{0, 0, 0, 0, 0, 0, 0, 0})
	f.Add([]byte{3, 4, 0, 0, 1, 2, 3, 4, 22, 8, 255, 255, 0, 0, 0, 1, 0, 1, 1, 1, 1, 1, 1, 1})
	// Operations that can harm nobody: their descriptor is bad and their address
	// is null, whatever the rest is.
	ops := []Op{OpNop, OpFsync, OpAccept, OpRead, OpWrite, OpSend, OpRecv, 200, 255}
	f.Fuzz(func(t *testing.T, in []byte) {
		r := open(t, Config{Submissions: 16, Completions: 64, Files: 1})
		if r == nil {
			return
		}
		n := 0
		for ; len(in) >= 8 && n < 16; in = in[8:] {
			const oneCompletion = 1<<6 - 1 // all flags but IOSQE_CQE_SKIP_SUCCESS
			s := r.Next()
			s.Op, s.Flags, s.Fd = ops[int(in[0])%len(ops)], in[1]&oneCompletion, -1
			s.Ioprio, s.Len, s.OpFlags = uint16(in[2])&^(1<<1), uint32(in[3]), uint32(in[4])<<24|uint32(in[5])
			s.BufIndex, s.Personality, s.FileIndex = uint16(in[6]), uint16(in[7]), uint32(in[7]>>4)
			if s.Op == OpAccept {
				s.Ioprio = 0 // no multishot
			}
			s.UserData = uint64(n)
			n++
		}
		seen := make([]bool, n)
		deadline := time.Now().Add(5 * time.Second)
		for got := 0; got < n; {
			if err := r.Enter(n-got, 100*time.Millisecond); err != nil {
				t.Fatal(err)
			}
			for c, ok := r.Reap(); ok; c, ok = r.Reap() {
				if c.UserData >= uint64(n) || seen[c.UserData] {
					t.Fatalf("completion of request %d", c.UserData)
				}
				seen[c.UserData] = true
				got++
			}
			if time.Now().After(deadline) {
				t.Fatalf("%d of %d completed", got, n)
			}
		}
		r.Next().UserData = 99
		for r.Ready() == 0 && time.Now().Before(deadline) { // a signal may end the wait
			if err := r.Enter(1, time.Second); err != nil {
				t.Fatal(err)
			}
		}
		if c, ok := r.Reap(); !ok || c.UserData != 99 || c.Res != 0 {
			t.Errorf("afterwards: %+v, %v", c, ok)
		}
	})
}

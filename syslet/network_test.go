package syslet

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// listen returns a listening socket on loopback and its descriptor.
func listen(t testing.TB) (*net.TCPListener, int) {
	t.Helper()
	l, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	raw, err := l.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	fd := -1
	if err := raw.Control(func(n uintptr) { fd = int(n) }); err != nil {
		t.Fatal(err)
	}
	return l, fd
}

// shout answers each connection, once it has been shut down for writing, with
// what it sent, in capitals.
func shout(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer c.Close()
			if b, err := io.ReadAll(c); err == nil {
				c.Write(bytes.ToUpper(b))
			}
		}()
	}
}

// sameFiles holds that no more descriptors are open than before, once the other
// ends of connections have been closed, too.
func sameFiles(t *testing.T, before int) {
	t.Helper()
	after := openFiles(t)
	for start := time.Now(); after > before && time.Since(start) < 5*time.Second; after = openFiles(t) {
		time.Sleep(time.Millisecond)
	}
	if after > before {
		t.Errorf("%d descriptors open, %d before", after, before)
	}
}

// TestClient runs a client's whole conversation as one chain.
func TestClient(t *testing.T) {
	tcp, _ := listen(t)
	go shout(tcp)
	path := filepath.Join(t.TempDir(), "s")
	named, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer named.Close()
	go shout(named)
	hidden := fmt.Sprintf("@syslet-test-%d", os.Getpid())
	abstract, err := net.Listen("unix", hidden)
	if err != nil {
		t.Fatal(err)
	}
	defer abstract.Close()
	go shout(abstract)
	six, err := net.Listen("tcp6", "[::1]:0")
	if err == nil { // not every machine has IPv6
		defer six.Close()
		go shout(six)
	}
	ask := func(domain int, path string, addr netip.AddrPort) Chain {
		return Chain{
			{Call: Socket, Domain: domain, Flags: unix.SOCK_STREAM},
			{Call: Connect, Fd: Opened(0), Path: path, Addr: addr, Timeout: 5 * time.Second},
			{Call: Send, Fd: Opened(0), Data: Bytes([]byte("hello")), Flags: unix.MSG_WAITALL},
			{Call: Shutdown, Fd: Opened(0), Flags: unix.SHUT_WR},
			{Call: Recv, Fd: Opened(0), Data: Own(0, 5), Flags: unix.MSG_WAITALL, Timeout: 5 * time.Second},
			{Call: Close, Fd: Opened(0)},
		}
	}
	chains := map[string]Chain{
		"IPv4":     ask(unix.AF_INET, "", tcp.Addr().(*net.TCPAddr).AddrPort()),
		"path":     ask(unix.AF_UNIX, path, netip.AddrPort{}),
		"abstract": ask(unix.AF_UNIX, hidden, netip.AddrPort{}),
	}
	if six != nil {
		chains["IPv6"] = ask(unix.AF_INET6, "", six.Addr().(*net.TCPAddr).AddrPort())
	}
	eachBackend(t, Config{Depth: 8}, func(t *testing.T, e *Engine) {
		before := openFiles(t)
		for name, chain := range chains {
			for c, err := range Run(t.Context(), e, times(20, chain)) {
				if err != nil {
					t.Fatal(err)
				}
				if got := outcome(c); got != "0 0 5 0 5 0" || string(c.Own()[:5]) != "HELLO" {
					t.Errorf("%s: %s %q (%v)", name, got, c.Own()[:5], c.Err())
				}
			}
		}
		sameFiles(t, before)
	})
}

func TestConnectRefused(t *testing.T) {
	l, _ := listen(t)
	addr := l.Addr().(*net.TCPAddr).AddrPort()
	l.Close()
	chain := Chain{{Call: Socket, Domain: unix.AF_INET, Flags: unix.SOCK_STREAM}, {Call: Connect, Fd: Opened(0), Addr: addr}, {}}
	eachBackend(t, Config{Depth: 1}, func(t *testing.T, e *Engine) {
		for c, err := range Run(t.Context(), e, one(chain)) {
			if err != nil || !errors.Is(c.Err(), unix.ECONNREFUSED) || !strings.Contains(c.Err().Error(), addr.String()) || c.Ran(2) {
				t.Errorf("%s: %v, %v", outcome(c), c.Err(), err)
			}
		}
	})
}

// TestTimeout holds that a timeout ends each call that waits, neither early nor
// late, leaves alone what comes in time, and ends nothing else.
func TestTimeout(t *testing.T) {
	const limit = 10 * time.Millisecond
	_, listener := listen(t)
	r, w := pipe(t)
	full, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	quick, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, fd := range []int{full[0], full[1], quick[0], quick[1]} {
		defer unix.Close(fd)
	}
	junk := make([]byte, 1<<20)
	for err = nil; err == nil; {
		_, err = unix.SendmsgN(full[0], junk, nil, nil, unix.MSG_DONTWAIT)
	}
	for _, b := range []int{unix.SOCK_STREAM, unix.SOCK_STREAM | unix.SOCK_NONBLOCK} {
		if _, err := unix.FcntlInt(uintptr(quick[0]), unix.F_SETFL, b&unix.SOCK_NONBLOCK); err != nil {
			t.Fatal(err)
		}
		waits := map[string]Step{
			"accept":     {Call: Accept, Fd: Number(listener)},
			"recv":       {Call: Recv, Fd: Number(full[0]), Data: Own(0, 1)},
			"quick recv": {Call: Recv, Fd: Number(quick[0]), Data: Own(0, 1)},
			"recv all":   {Call: Recv, Fd: Number(full[0]), Data: Own(0, 10), Flags: unix.MSG_WAITALL},
			"send":       {Call: Send, Fd: Number(full[0]), Data: Bytes([]byte("x"))},
			"read":       {Call: Read, Fd: Number(r), Data: Own(0, 1), Off: -1},
		}
		eachBackend(t, Config{Depth: 4}, func(t *testing.T, e *Engine) {
			for name, s := range waits {
				s.Timeout = limit
				for after, want := range map[Action]string{Stop: "0 ETIMEDOUT - failed at 1", Ignore: "0 ETIMEDOUT 0", Goto(3): "0 ETIMEDOUT -"} {
					s.OnError = after
					start := time.Now()
					for c, err := range Run(t.Context(), e, times(2, Chain{{}, s, {}})) {
						if got := outcome(c); err != nil || got != want {
							t.Errorf("%s: %s, want %s, %v", name, got, want, err)
						}
					}
					if took := time.Since(start); took < limit || took > limit+2*time.Second {
						t.Errorf("%s: took %v", name, took)
					}
				}
			}
			unix.Write(w, []byte("xy"))
			unix.Write(quick[1], []byte("xyz"))
			inTime := Chain{
				{Call: Read, Fd: Number(r), Data: Own(0, 2), Off: -1, Timeout: time.Minute},
				{Call: Recv, Fd: Number(quick[0]), Data: Own(0, 3), Timeout: time.Minute},
				{Call: Send, Fd: Number(quick[0]), Data: Own(0, 3), Timeout: time.Minute, OnError: Ignore, OnShort: Ignore, OnEnd: Ignore},
				{},
			}
			for c, err := range Run(t.Context(), e, one(inTime)) {
				if got := outcome(c); err != nil || got != "2 3 3 0" {
					t.Errorf("in time: %s, %v", got, err)
				}
			}
			part := Chain{{Call: Recv, Fd: Number(quick[0]), Data: Own(0, 5), Flags: unix.MSG_WAITALL, Timeout: limit}, {}}
			unix.Write(quick[1], []byte("123"))
			for c, err := range Run(t.Context(), e, one(part)) {
				if got := outcome(c); err != nil || got != "3 - failed at 0" {
					t.Errorf("part of it in time: %s, %v", got, err)
				}
			}
		})
	}
}

// clients connects n times and returns what became of each connection: whether
// it was answered.
func clients(addr string, n int) <-chan bool {
	served := make(chan bool, n)
	for range n {
		go func() {
			served <- strings.HasPrefix(ask(addr, "hello"), "HELLO")
		}()
	}
	return served
}

// TestServeOneRequest holds that a ring accepts many connections with few calls,
// and in the order in which chains ask.
func TestServeOneRequest(t *testing.T) {
	if !haveRing() {
		return
	}
	l, fd := listen(t)
	e, err := New(Config{Backend: Ring, Depth: 4, Batch: 4, Buffer: 64})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	b := e.backend.(*ringBackend)
	if !b.ring.Allocs() || !b.install {
		t.Log("this kernel cannot choose direct descriptors: each accept is one of its own")
	}
	before := openFiles(t)
	for range 2 {
		const n = 50
		served, count := clients(l.Addr().String(), n), 0
		for conn, err := range Serve(t.Context(), e, fd, NonSequential) {
			if err != nil || conn.Err != nil {
				t.Fatal(err, conn.Err)
			}
			unix.Write(conn.FD, bytes.ToUpper(conn.First))
			unix.Close(conn.FD)
			if count++; count == n {
				break
			}
		}
		for range n {
			if !<-served {
				t.Error("a connection was not answered")
			}
		}
	}
	if len(b.shared) > 1 || b.out > 1 || len(b.drop) > 0 {
		t.Errorf("%d shared accepts, %d requests, %d descriptors left", len(b.shared), b.out, len(b.drop))
	}
	sameFiles(t, before)
}

// TestServePressure has more connections arrive than there is room for: they
// wait, none is lost, and what was accepted ahead has an end.
func TestServePressure(t *testing.T) {
	const n = 300
	eachBackend(t, Config{Depth: 2, Batch: 2, Buffer: 64}, func(t *testing.T, e *Engine) {
		l, fd := listen(t)
		var idle []net.Conn
		for range n { // in the listener's backlog before anybody serves
			c, err := net.Dial("tcp", l.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			idle = append(idle, c)
		}
		go func() {
			for _, c := range idle {
				c.Write([]byte("hello"))
			}
		}()
		count, most := 0, 0
		for conn, err := range Serve(t.Context(), e, fd, 0) {
			if err != nil || conn.Err != nil {
				t.Fatal(err, conn.Err)
			}
			unix.Close(conn.FD)
			if b, ok := e.backend.(*ringBackend); ok && len(b.shared) > 0 {
				most = max(most, len(b.shared[0].arrived))
			}
			if count++; count == n {
				break
			}
		}
		if b, ok := e.backend.(*ringBackend); ok && most > 2*b.ring.Completions() {
			t.Errorf("%d connections were accepted ahead", most)
		}
	})
}

// TestServeSilent holds that Serve can be ended while chains wait for a
// connection, while they wait for first bytes, and while connections wait.
func TestServeSilent(t *testing.T) {
	for i, silent := range []int{0, 1, 2, 40, 0, 1, 2, 40} {
		eachBackend(t, Config{Depth: 2, Batch: 1 + i/4}, func(t *testing.T, e *Engine) {
			l, fd := listen(t)
			before := openFiles(t)
			var conns []net.Conn
			for range silent {
				c, err := net.Dial("tcp", l.Addr().String())
				if err != nil {
					t.Fatal(err)
				}
				conns = append(conns, c)
			}
			for range 2 {
				ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
				start, last := time.Now(), error(nil)
				for conn, err := range Serve(ctx, e, fd, 0) {
					if last = err; err == nil {
						t.Errorf("yielded %+v", conn)
					}
				}
				cancel()
				if took := time.Since(start); !errors.Is(last, context.DeadlineExceeded) || took > 5*time.Second {
					t.Errorf("ended with %v after %v", last, took)
				}
			}
			for _, c := range conns {
				c.Close()
			}
			sameFiles(t, before)
		})
	}
}

// TestServeFails holds that the error of an accept reaches a chain.
func TestServeFails(t *testing.T) {
	plain, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0) // not listening
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(plain)
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	eachBackend(t, Config{Depth: 3}, func(t *testing.T, e *Engine) {
		for fd, want := range map[int]error{plain: unix.EINVAL, int(null.Fd()): unix.ENOTSOCK, 1 << 20: unix.EBADF} {
			chain := Chain{{Call: Accept, Fd: Number(fd), Multishot: true}}
			n := 0
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			for c, err := range Run(ctx, e, times(5, chain)) {
				if n++; err != nil || !errors.Is(c.Err(), want) {
					t.Errorf("descriptor %d: %v, %v; want %v", fd, c.Err(), err, want)
				}
			}
			cancel()
			if n != 5 {
				t.Errorf("descriptor %d: %d completions", fd, n)
			}
		}
	})
}

// TestAcceptLoop has a chain come to its shared accept again and again: what it
// accepted before is closed.
func TestAcceptLoop(t *testing.T) {
	chain := Chain{
		{Call: Accept, Multishot: true},
		{Call: Recv, Fd: Opened(0), Data: Own(0, 1), OnEnd: Goto(0)},
	}
	eachBackend(t, Config{Depth: 1}, func(t *testing.T, e *Engine) {
		l, fd := listen(t)
		chain[0].Fd = Number(fd)
		before := openFiles(t)
		go func() {
			for i := range 20 {
				if c, err := net.Dial("tcp", l.Addr().String()); err == nil {
					if i == 19 {
						c.Write([]byte("x"))
					}
					c.Close()
				}
			}
		}()
		for c, err := range Run(t.Context(), e, one(chain)) {
			if got := outcome(c); err != nil || got != "0 1" {
				t.Errorf("%s, %v", got, err)
			}
		}
		sameFiles(t, before)
	})
}

// TestNoMultishot takes the way of kernels that cannot choose direct descriptors.
func TestNoMultishot(t *testing.T) {
	if !haveRing() {
		return
	}
	e, err := New(Config{Backend: Ring, Depth: 4, Batch: 4, Buffer: 64})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	e.backend.(*ringBackend).install = false
	l, fd := listen(t)
	served, count := clients(l.Addr().String(), 20), 0
	for conn, err := range Serve(t.Context(), e, fd, 0) {
		if err != nil || conn.Err != nil {
			t.Fatal(err, conn.Err)
		}
		unix.Write(conn.FD, bytes.ToUpper(conn.First))
		unix.Close(conn.FD)
		if count++; count == 20 {
			break
		}
	}
	for range 20 {
		if !<-served {
			t.Error("a connection was not answered")
		}
	}
}

// TestReadOfSocket holds that a read of what the chain itself opened can be
// cancelled like any other.
func TestReadOfSocket(t *testing.T) {
	l, fd := listen(t)
	chain := Chain{{Call: Accept, Fd: Number(fd)}, {Call: Read, Fd: Opened(0), Data: Own(0, 1), Off: -1}}
	eachBackend(t, Config{Depth: 1}, func(t *testing.T, e *Engine) {
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		defer cancel()
		for c, err := range Run(ctx, e, one(chain)) {
			if err == nil && outcome(c) != "0 ECANCELED failed at 1" {
				t.Error(outcome(c))
			}
		}
	})
}

// TestServeThread covers the deferred task work of a ring of one thread, where
// connections are accepted in our own waits.
func TestServeThread(t *testing.T) {
	if !haveRing() {
		return
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	e, err := New(Config{Backend: Ring, Depth: 16, Buffer: 64, Batch: 8, OneThread: true})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	l, fd := listen(t)
	const n = 200
	served, count := clients(l.Addr().String(), n), 0
	for conn, err := range Serve(t.Context(), e, fd, 0) {
		if err != nil || conn.Err != nil {
			t.Fatal(err, conn.Err)
		}
		unix.Write(conn.FD, bytes.ToUpper(conn.First))
		unix.Close(conn.FD)
		if count++; count == n {
			break
		}
	}
	for range n {
		if !<-served {
			t.Error("a connection was not answered")
		}
	}
}

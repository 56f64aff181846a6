package syslet

import (
	"flag"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"
)

// randomChain draws a chain that goes forward only and works below a directory
// whose name it does not know.
func randomChain(t *rapid.T) Chain {
	n := rapid.IntRange(1, MaxSteps).Draw(t, "steps")
	// No empty path: of two errors, io_uring may tell of the other.
	names := rapid.SampledFrom([]string{"a", "b", "empty", "dir", "dir/c", "missing", "dir/missing/x"})
	var opened, sockets []int
	c := make(Chain, n)
	for i := range c {
		s := &c[i]
		s.Call = rapid.SampledFrom([]Call{Nop, Open, Open, Read, Read, Write, Fsync, Stat, Rename, Unlink, Mkdir, Accept, Recv, Send, Socket, Socket, Connect, Connect, Shutdown, Reveal, Close, Jump}).Draw(t, "call")
		if s.Call.opens() && len(opened) == MaxOpen || s.Call.hasFd() && len(opened) == 0 {
			s.Call = Nop
		}
		if s.Call == Connect && len(sockets) == 0 {
			s.Call = Nop
		}
		action := func() Action {
			switch k := rapid.IntRange(-2, n-i-1).Draw(t, "action"); k {
			case -2:
				return Stop
			case -1:
				return Ignore
			default:
				return Goto(i + 1 + k)
			}
		}
		s.OnError, s.OnShort, s.OnEnd = action(), action(), action()
		s.Path, s.Path2 = names.Draw(t, "path"), names.Draw(t, "path2")
		if len(opened) > 0 && (s.Call.hasFd() || rapid.IntRange(0, 3).Draw(t, "at") == 0) {
			s.Fd = Opened(rapid.SampledFrom(opened).Draw(t, "fd"))
		}
		lo := rapid.IntRange(0, 8).Draw(t, "lo")
		// At least one byte: io_uring takes a read of none for a success where
		// read(2) looks at the file first.
		s.Data = Own(lo, lo+rapid.IntRange(1, 8).Draw(t, "len"))
		if s.Call == Write && i > 0 && c[i-1].Call.transfers() && rapid.Bool().Draw(t, "up to") {
			s.Data = s.Data.UpTo(i - 1)
		}
		s.Mode = 0o700
		if s.Call.awaits() && rapid.Bool().Draw(t, "timeout") {
			s.Timeout = time.Millisecond
		}
		switch s.Call {
		case Socket:
			s.Domain = rapid.SampledFrom([]int{unix.AF_UNIX, unix.AF_UNIX, unix.AF_INET, 9999}).Draw(t, "domain")
			s.Flags = rapid.SampledFrom([]int{unix.SOCK_STREAM, unix.SOCK_STREAM | unix.SOCK_NONBLOCK, unix.SOCK_SEQPACKET, 99, 1 << 30}).Draw(t, "type")
			s.Protocol = rapid.SampledFrom([]int{0, 0, 0, 250}).Draw(t, "protocol")
			if s.Flags&unix.SOCK_NONBLOCK == 0 {
				sockets = append(sockets, i)
			}
		case Connect:
			s.Fd = Opened(rapid.SampledFrom(sockets).Draw(t, "socket"))
			if rapid.IntRange(0, 3).Draw(t, "inet") == 0 {
				s.Addr = netip.MustParseAddrPort("127.0.0.1:1") // where nobody listens
			} else {
				s.Path = rapid.SampledFrom([]string{"socket", "socket", "socket", "a", "missing"}).Draw(t, "peer")
			}
		case Recv, Send:
			if s.Timeout == 0 { // nobody ever sends anything
				s.Flags |= unix.MSG_DONTWAIT
			}
			s.Flags |= rapid.SampledFrom([]int{0, unix.MSG_WAITALL}).Draw(t, "flags")
		case Shutdown:
			s.Flags = rapid.IntRange(0, 3).Draw(t, "how")
		case Open:
			s.Flags = rapid.SampledFrom([]int{0, unix.O_RDWR, unix.O_RDWR | unix.O_CREAT, unix.O_DIRECTORY, unix.O_WRONLY | unix.O_TRUNC, 3 | 1<<30}).Draw(t, "flags")
		case Read, Write:
			if s.Fd.kind == fdOpened && c[s.Fd.n].Call == Socket {
				s.Timeout = time.Millisecond
			}
			s.Off = rapid.Int64Range(-1, 10).Draw(t, "off")
		case Unlink:
			s.Flags = rapid.SampledFrom([]int{0, unix.AT_REMOVEDIR, 1 << 20}).Draw(t, "flags")
		case Jump:
			s.Flags = rapid.IntRange(i+1, n).Draw(t, "to")
		case Reveal:
			s.Flags = rapid.IntRange(0, 3).Draw(t, "flags")
		case Stat:
			s.Mode = unix.STATX_SIZE
		}
		if s.Call.opens() {
			opened = append(opened, i)
		}
	}
	return c
}

// trial runs a chain below a fresh tree and returns its results, its buffer and
// what became of the tree.
func trial(t *testing.T, e *Engine, c Chain) (results, tree string) {
	dir := t.TempDir()
	for name, data := range map[string]string{"a": "0123456789", "b": "xyz", "empty": "", "dir/c": "in it"} {
		path := filepath.Join(dir, name)
		os.Mkdir(filepath.Dir(path), 0o700)
		if err := os.WriteFile(path, []byte(data), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	root, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(root)
	peer, err := net.Listen("unix", filepath.Join(dir, "socket"))
	if err != nil {
		t.Fatal(err)
	}
	defer peer.Close()
	here := make(Chain, len(c))
	copy(here, c)
	for i := range here {
		if here[i].Call.hasPath() && here[i].Fd == CWD {
			here[i].Fd = Number(root)
		}
		if here[i].Call == Connect {
			here[i].Path = filepath.Join(dir, here[i].Path)
		}
		if here[i].Call == Rename {
			here[i].Fd2 = Number(root)
		}
	}
	for done, err := range Run(t.Context(), e, one(here)) {
		if err != nil {
			t.Fatal(err)
		}
		for i := range here {
			if here[i].Call == Reveal && done.f.results[i] >= 0 {
				unix.Close(int(done.f.results[i]))
				done.f.results[i] = 1 // the number is anyone's guess
			}
		}
		results = outcome(done) + "\n" + string(done.Own())
		clear(done.Own())
	}
	return results, listing(t, dir)
}

// TestSame holds that random chains have the same results and effects on all
// back ends, and leave no descriptor behind.
func TestSame(t *testing.T) {
	if !haveRing() {
		return
	}
	pool, err := New(Config{Backend: Pool, Depth: 1, Buffer: 16})
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	ring, err := New(Config{Backend: Ring, Depth: 1, Buffer: 16})
	if err != nil {
		t.Fatal(err)
	}
	defer ring.Close()
	old, err := New(Config{Backend: Ring, Depth: 1, Buffer: 16})
	if err != nil {
		t.Fatal(err)
	}
	defer old.Close()
	old.backend.(*ringBackend).install = false
	// The same chains in every run, unless the caller wants others.
	if f := flag.Lookup("rapid.seed"); f.Value.String() == "0" {
		if err := f.Value.Set("2007"); err != nil {
			t.Fatal(err)
		}
	}
	before := openFiles(t)
	rapid.Check(t, func(rt *rapid.T) {
		c := randomChain(rt)
		if err := c.Validate(16); err != nil {
			rt.Fatal(err)
		}
		wantResults, wantTree := trial(t, pool, c)
		for name, e := range map[string]*Engine{"ring": ring, "ring without install": old} {
			if results, tree := trial(t, e, c); results != wantResults || tree != wantTree {
				rt.Fatalf("%s:\n%q, the pool has\n%q\n%s, the pool has\n%s", name, results, wantResults, tree, wantTree)
			}
		}
		if after := openFiles(t); after != before {
			rt.Fatalf("%d descriptors open, %d before", after, before)
		}
	})
}

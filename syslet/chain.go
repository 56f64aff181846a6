package syslet

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Call is what a step of a chain does.
type Call uint8

// The calls. Each follows the manual page of the system call of its name. Where
// a call could fail for two reasons, the back ends may tell of different ones,
// and io_uring takes a Read of no byte for a success.
const (
	Nop      Call = iota // nothing; its result is 0
	Open                 // openat(Fd, Path, Flags, Mode)
	Read                 // pread(Fd, Data, Off); Off -1 is the file position; -1 or 0 on a pipe or socket
	Write                // pwrite(Fd, Data, Off); likewise
	Fsync                // fsync(Fd); Flags 1 is fdatasync
	Stat                 // statx(Fd, Path, Flags, Mode as mask)
	Rename               // renameat2(Fd, Path, Fd2, Path2, Flags)
	Unlink               // unlinkat(Fd, Path, Flags)
	Mkdir                // mkdirat(Fd, Path, Mode)
	Accept               // accept4(Fd, Flags)
	Recv                 // recv(Fd, Data, Flags)
	Send                 // send(Fd, Data, Flags)
	Socket               // socket(Domain, Flags as type, Protocol)
	Connect              // connect(Fd, Addr), or the Unix socket at Path where Addr is not set
	Shutdown             // shutdown(Fd, Flags)
	Reveal               // give Fd, opened by a step, a number in the process
	Close                // close(Fd), opened by a step
	Jump                 // go on with step Flags
	numCalls
)

// String returns the call's name.
func (c Call) String() string {
	if c >= numCalls {
		return fmt.Sprintf("Call(%d)", uint8(c))
	}
	return [numCalls]string{"nop", "open", "read", "write", "fsync", "stat", "rename", "unlink",
		"mkdir", "accept", "recv", "send", "socket", "connect", "shutdown", "reveal", "close", "jump"}[c]
}

// opens tells whether a call creates a descriptor.
func (c Call) opens() bool { return c == Open || c == Accept || c == Socket }

// transfers tells whether a call's result is a number of bytes of Data.
func (c Call) transfers() bool { return c == Read || c == Write || c == Recv || c == Send }

// hasPath tells whether a call resolves Path against the directory Fd.
func (c Call) hasPath() bool {
	return c == Open || c == Stat || c == Rename || c == Unlink || c == Mkdir
}

// hasFd tells whether a call acts on the open file Fd itself.
func (c Call) hasFd() bool {
	return c.transfers() || c == Fsync || c == Accept || c == Connect || c == Shutdown || c == Reveal || c == Close
}

// awaits tells whether a call waits for somebody else and can have a Timeout.
func (c Call) awaits() bool { return c.transfers() || c == Accept || c == Connect }

// FD is a descriptor argument: [Number], [CWD] or [Opened]. The zero value is
// [CWD].
type FD struct {
	n    int32
	kind fdKind
}

type fdKind uint8

const (
	fdCWD fdKind = iota
	fdNumber
	fdOpened
)

// CWD stands for the working directory (AT_FDCWD).
var CWD = FD{}

// Number is a descriptor of the process. It has to stay open until the chain
// has completed.
func Number(fd int) FD { return FD{n: int32(fd), kind: fdNumber} }

// Opened is the descriptor that step opened. It is the chain's own: on io_uring
// it usually has no number in the process at all (a direct descriptor), and
// what the chain leaves open is closed at its end.
func Opened(step int) FD { return FD{n: int32(step), kind: fdOpened} }

// Data is the memory argument of a step: [Own] or [Bytes].
type Data struct {
	bytes  []byte
	lo, hi int32
	length int32 // step whose result is the length, plus one
}

// Own is the part [lo, hi) of the buffer that each chain in flight has.
func Own(lo, hi int) Data { return Data{lo: int32(lo), hi: int32(hi)} }

// Bytes is memory of the caller, for calls that only read it. It must not be
// changed until the chain has completed; it is pinned until then.
func Bytes(b []byte) Data { return Data{bytes: b} }

// UpTo cuts d to the result of an earlier step, such as what a [Read] read.
func (d Data) UpTo(step int) Data {
	d.length = int32(step) + 1
	return d
}

// Action is what happens after a step that did not succeed in full.
type Action int16

// The actions. [Goto] makes more.
const (
	Stop   Action = 0 // end the chain
	Ignore Action = 1 // go on with the next step
)

// Goto goes on with a step, later or earlier.
func Goto(step int) Action { return Action(step) + 2 }

// Flags of [Reveal].
const (
	Inheritable   = 1 << 0 // not close-on-exec
	NonSequential = 1 << 1 // an unpredictable number instead of the lowest free one
)

// Step is one system call of a chain. Fields that the call does not use are
// ignored.
type Step struct {
	Call Call

	// What happens after an error, after fewer bytes than asked for (Read and
	// Write; Recv and Send with MSG_WAITALL), and after no byte at all (end of
	// file, peer closed). Zero is Stop.
	OnError, OnShort, OnEnd Action

	Fd    FD
	Fd2   FD
	Path  string
	Path2 string
	Data  Data
	Off   int64
	Flags int
	Mode  uint32

	// Of Socket: AF_INET, AF_INET6, AF_UNIX …, and the protocol, mostly 0.
	Domain, Protocol int

	// Addr is where Connect leads to. Its zone, if any, has to be a number. Where
	// Addr is not valid, Path names a Unix socket; a leading @ stands for the
	// zero byte of an abstract name, as in package net.
	Addr netip.AddrPort

	// Timeout ends an Accept, Connect, Recv, Send, Read or Write that waits longer,
	// with ETIMEDOUT; 0 is no limit. Bytes that were transferred until then count:
	// such a result is a short one. What waits for a disk is not ended.
	Timeout time.Duration

	// Multishot lets an Accept on a Number be served by a request that all chains
	// share and that the kernel repeats for each connection. It accepts ahead of
	// the chains, though not without limit: what no chain has taken when Run ends
	// is closed. It is for a server that takes all connections there are. Where
	// the kernel cannot do it (before Linux 6.8; on a pool), each Accept is one of
	// its own.
	Multishot bool
}

// Chain is a list of at most [MaxSteps] steps.
type Chain []Step

// Limits of a chain.
const (
	MaxSteps = 16
	MaxOpen  = 4        // steps that open a descriptor
	MaxPaths = 16 << 10 // bytes of all paths, with a zero byte behind each; a Connect counts 112
)

// ErrChain is wrapped by the error of a chain that cannot be run.
var ErrChain = errors.New("invalid chain")

// Validate reports what is wrong with a chain for buffers of the given size. The
// error wraps [ErrChain].
func (c Chain) Validate(buffer int) error {
	if len(c) > MaxSteps {
		return fmt.Errorf("%w: %d steps, at most %d are possible", ErrChain, len(c), MaxSteps)
	}
	opens, paths := 0, 0
	for i := range c {
		s := &c[i]
		if why := s.wrong(c, i, buffer); why != "" {
			return fmt.Errorf("%w: step %d (%s): %s", ErrChain, i, s.Call, why)
		}
		if s.Call.opens() {
			opens++
		}
		paths += len(s.Path) + len(s.Path2) + 2
		if s.Call == Connect {
			paths += sockaddrSize
		}
	}
	if opens > MaxOpen {
		return fmt.Errorf("%w: %d steps open a descriptor, at most %d may", ErrChain, opens, MaxOpen)
	}
	if paths > MaxPaths {
		return fmt.Errorf("%w: %d bytes of paths, at most %d are possible", ErrChain, paths, MaxPaths)
	}
	return nil
}

// wrong says what is wrong with step i of c.
func (s *Step) wrong(c Chain, i, buffer int) string {
	if s.Call >= numCalls {
		return "no such call"
	}
	for _, a := range [...]Action{s.OnError, s.OnShort, s.OnEnd} {
		if a < 0 || int(a)-2 > len(c) {
			return "an action leads out of the chain"
		}
	}
	if s.Call == Jump && (s.Flags < 0 || s.Flags > len(c)) {
		return "the jump leads out of the chain"
	}
	if s.Call == Jump && s.Flags <= i && c[s.Flags].Call == Jump {
		return "a jump back to a jump" // might go round for ever without a call
	}
	if s.Call.hasPath() || s.Call.hasFd() {
		for _, fd := range [...]FD{s.Fd, s.Fd2} {
			if fd.kind == fdOpened && (int(fd.n) < 0 || int(fd.n) >= i || !c[fd.n].Call.opens()) {
				return fmt.Sprintf("step %d is not an earlier one that opens a descriptor", fd.n)
			}
		}
	}
	if s.Call.hasFd() && s.Fd.kind == fdCWD {
		return "the working directory is no open file"
	}
	if (s.Call == Close || s.Call == Reveal) && s.Fd.kind != fdOpened {
		return "only a descriptor that the chain opened can be meant"
	}
	if s.Call == Connect {
		if s.Fd.kind != fdOpened || c[s.Fd.n].Call != Socket {
			return "only a socket that the chain made can be connected"
		}
		if c[s.Fd.n].Flags&unix.SOCK_NONBLOCK != 0 {
			return "a chain waits for a connection: the socket must not be non-blocking"
		}
		if !s.hasAddress() {
			return "no address that can be connected to"
		}
	}
	if s.Timeout < 0 || s.Timeout > 0 && !s.Call.awaits() {
		return "only a call that waits for somebody can have a timeout"
	}
	if s.Multishot && (s.Call != Accept || s.Fd.kind != fdNumber || s.Timeout > 0) {
		return "only an accept on a number, without a timeout, can be multishot"
	}
	if strings.IndexByte(s.Path, 0) >= 0 || strings.IndexByte(s.Path2, 0) >= 0 {
		return "a path has a zero byte"
	}
	if !s.Call.transfers() {
		return ""
	}
	d := &s.Data
	switch {
	case d.bytes != nil && (s.Call == Read || s.Call == Recv):
		return "the kernel writes only to the chain's own buffer"
	case d.bytes == nil && (d.lo < 0 || d.hi < d.lo || int(d.hi) > buffer):
		return fmt.Sprintf("bytes %d to %d are not in a buffer of %d", d.lo, d.hi, buffer)
	case int(d.length) > i || d.length > 0 && !c[d.length-1].Call.transfers():
		return "the length is not the result of an earlier transfer"
	}
	return ""
}

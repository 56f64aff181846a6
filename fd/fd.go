//go:build linux && (amd64 || arm64 || 386)

// Package fd creates file descriptors with their properties in one step, on
// any kernel that Go runs on: close-on-exec unless [Inheritable] is asked for,
// and non-blocking or with a non-sequential number if asked. It is for
// programs of their own: no supervisor is needed.
//
// The functions are in the manner of golang.org/x/sys/unix: they take and
// return int descriptors, and fail with a [unix.Errno]. [File], [Conn],
// [Listener] and [PacketConn] hand a descriptor over to os and net.
//
// Where the kernel (or a container's seccomp profile) lacks the call or flag
// that creates a descriptor close-on-exec, the next rung of a ladder does:
// indirect(2), if the program runs under "indirect run"; or the flagless call
// followed by fcntl(2), under syscall.ForkLock, so that no fork and exec of
// this Go program comes between. [Support] tells which rung a call is on.
package fd

import (
	"crypto/rand"
	"encoding/binary"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/seed-055cd0c8/indirect/fdcall"
)

// Props are properties of a new descriptor, to be combined with |. Zero stands
// for close-on-exec, blocking, the lowest free number.
type Props uint8

// The properties.
const (
	Inheritable   Props = 1 << iota // not close-on-exec
	Nonblock                        // O_NONBLOCK
	NonSequential                   // an unpredictable number below the soft RLIMIT_NOFILE
)

// Rung is how a call's descriptors get close-on-exec.
type Rung int32

// The rungs, from the best.
const (
	Unknown  Rung = iota // it could not be found out: each call tries Native
	Native               // by a flag of the call
	Indirect             // by indirect(2)
	Fcntl                // by fcntl(2) afterwards, under syscall.ForkLock
	Absent               // there is no such call
)

// String names the rung.
func (r Rung) String() string {
	names := [...]string{"unknown", "native flag", "indirect(2)", "fcntl under ForkLock", "absent"}
	if r < 0 || int(r) >= len(names) {
		return "no rung"
	}
	return names[r]
}

// call is a call that creates descriptors.
type call struct {
	nr                uintptr
	flagsArg          int // -1: none
	cloexec, nonblock uintptr
	always            bool // close-on-exec whatever one asks

	// plain does the same without flags: another call, or this one without them.
	plain     uintptr
	plainFrom [6]int8 // its arguments: those of the call, or -1
	pair      bool
	flagless  bool // there is a call that does it without flags

	probe func(*call) unix.Errno // makes the call with flags, harmlessly; nil: a use will tell
	rung  atomic.Int32
}

// abi is the interface that this program uses.
var abi = map[string]fdcall.ABI{"amd64": fdcall.AMD64, "arm64": fdcall.ARM64, "386": fdcall.I386}[runtime.GOARCH]

// newCall takes what there is to know of a call from its row.
func newCall(id string, probe func(*call) unix.Errno) *call {
	table := fdcall.Linux()
	row := table.ByID(id)
	c := &call{
		nr: number(row), flagsArg: int(row.FlagsArg), cloexec: uintptr(row.CloexecBits), nonblock: uintptr(row.NonblockBits),
		always: row.Class == fdcall.Always, pair: row.Gives == fdcall.Pair, probe: probe,
	}
	c.plain, c.plainFrom = c.nr, [6]int8{0, 1, 2, 3, 4, 5}
	c.flagless = c.cloexec != 0 // the call itself
	for i := range table.All() {
		other := &table.All()[i]
		if other.Upgrade == nil || other.Upgrade.To != id || other.Block || other.Nr[abi] == fdcall.None || other.FlagsArg != fdcall.NoFlags || other.Name == "creat" {
			continue
		}
		c.plain, c.flagless = number(other), true
		for i := range c.plainFrom {
			c.plainFrom[i] = -1
		}
		for i, o := range other.Upgrade.Args {
			if o.From >= 0 {
				c.plainFrom[o.From] = int8(i)
			}
		}
	}
	return c
}

// none is a number that no kernel has, for calls that this architecture lacks.
const none = 1 << 20

func number(row *fdcall.Call) uintptr {
	if n := row.Nr[abi]; n != fdcall.None {
		return uintptr(n)
	}
	return none
}

// pointing is create for a call with pointers among its arguments: what they
// point to is kept where it is.
//
//go:uintptrescapes
func (c *call) pointing(props Props, pair *[2]int32, a0, a1, a2, a3, a4 uintptr) (int, error) {
	return c.create(props, pair, [6]uintptr{a0, a1, a2, a3, a4})
}

// create makes the call on the rung that it is on. Pairs are at pair.
func (c *call) create(props Props, pair *[2]int32, args [6]uintptr) (int, error) {
	rung := Rung(c.rung.Load())
	if rung <= Native {
		fd, errno := c.native(props, pair, args)
		if errno == 0 {
			return fd, nil
		}
		if rung == Native || errno != unix.ENOSYS && errno != unix.EINVAL && errno != unix.EPERM {
			return -1, errno
		}
		if rung = c.decide(); rung <= Native {
			return -1, errno
		}
	}
	switch rung {
	case Indirect:
		return c.indirect(props, pair, args)
	case Fcntl:
		return c.fcntl(props, pair, args)
	}
	return -1, unix.ENOSYS
}

// native lets the call's own flags do what they can.
func (c *call) native(props Props, pair *[2]int32, args [6]uintptr) (int, unix.Errno) {
	missing := props & NonSequential
	if c.flagsArg >= 0 {
		if props&Inheritable == 0 || props&NonSequential != 0 {
			args[c.flagsArg] |= c.cloexec
		}
		if props&Nonblock != 0 {
			args[c.flagsArg] |= c.nonblock
		}
	}
	if props&Nonblock != 0 && c.nonblock == 0 {
		missing |= Nonblock
	}
	if props&Inheritable != 0 && c.always {
		missing |= Inheritable
	}
	r, _, errno := unix.Syscall6(c.nr, args[0], args[1], args[2], args[3], args[4], args[5])
	if errno != 0 {
		return -1, errno
	}
	if missing == 0 {
		return int(r), 0
	}
	return c.finish(int(r), pair, missing, props, false)
}

// pairs are places for the kernel to write two descriptors to.
var pairs = sync.Pool{New: func() any { return new([2]int32) }}

// finish gives new descriptors what their call could not. If that fails, they
// are closed again. locked says that the caller holds syscall.ForkLock.
func (c *call) finish(fd int, pair *[2]int32, missing, props Props, locked bool) (int, unix.Errno) {
	if !c.pair {
		return settle(fd, missing, props, locked)
	}
	for i := range pair {
		moved, errno := settle(int(pair[i]), missing, props, locked)
		if errno != 0 {
			unix.Close(int(pair[1-i]))
			return -1, errno
		}
		pair[i] = int32(moved)
	}
	return fd, 0
}

func settle(fd int, missing, props Props, locked bool) (int, unix.Errno) {
	fail := func(errno unix.Errno) (int, unix.Errno) {
		unix.Close(fd)
		return -1, errno
	}
	if missing&Nonblock != 0 {
		flags, _, errno := unix.Syscall(unix.SYS_FCNTL, uintptr(fd), unix.F_GETFL, 0)
		if errno == 0 {
			_, _, errno = unix.Syscall(unix.SYS_FCNTL, uintptr(fd), unix.F_SETFL, flags|unix.O_NONBLOCK)
		}
		if errno != 0 {
			return fail(errno)
		}
	}
	if missing&NonSequential != 0 {
		moved, errno := move(fd, props, locked)
		if errno != 0 {
			return fail(errno)
		}
		fd = moved
	}
	if missing&Inheritable != 0 && missing&NonSequential == 0 {
		if _, _, errno := unix.Syscall(unix.SYS_FCNTL, uintptr(fd), unix.F_SETFD, 0); errno != 0 {
			return fail(errno)
		}
	}
	return fd, 0
}

// highest bounds non-sequential numbers: a descriptor table grows with its
// largest number.
const highest = 65536

// move gives a close-on-exec descriptor an unpredictable number in the upper
// half of the soft limit, or above 2, or the one that it has if there is no
// other. F_DUPFD never takes a number that is in use.
func move(fd int, props Props, locked bool) (int, unix.Errno) {
	op := uintptr(unix.F_DUPFD_CLOEXEC)
	late := props&Inheritable == 0 && dup.decide() == Fcntl
	if props&Inheritable != 0 || late {
		op = unix.F_DUPFD
	}
	if late && !locked {
		syscall.ForkLock.RLock()
		defer syscall.ForkLock.RUnlock()
	}
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return -1, unix.EINVAL
	}
	soft := min(limit.Cur, highest)
	const fewest = 8
	if soft >= fewest {
		var b [8]byte
		rand.Read(b[:]) // never fails (crypto/rand)
		half := soft / 2
		for _, from := range [...]uint64{half + binary.LittleEndian.Uint64(b[:])%(soft-half), half, 3} {
			r, _, errno := unix.Syscall(unix.SYS_FCNTL, uintptr(fd), op, uintptr(from))
			if errno == 0 {
				if late {
					unix.CloseOnExec(int(r))
				}
				unix.Close(fd)
				return int(r), 0
			}
		}
	}
	if props&Inheritable != 0 {
		if _, _, errno := unix.Syscall(unix.SYS_FCNTL, uintptr(fd), unix.F_SETFD, 0); errno != 0 {
			return -1, errno
		}
	}
	return fd, 0
}

// plainArgs are the arguments of the flagless call.
func (c *call) plainArgs(args [6]uintptr) (plain [6]uintptr) {
	for i, from := range c.plainFrom {
		if from >= 0 {
			plain[i] = args[from]
		}
	}
	if c.plain != c.nr && c.flagsArg == 0 {
		plain[0] = 1 // epoll_create's size, which means nothing but must not be 0
	}
	return plain
}

// indirect runs the flagless call through indirect(2).
func (c *call) indirect(props Props, pair *[2]int32, args [6]uintptr) (int, error) {
	type registers struct {
		nr   uintptr
		args [6]uintptr
	}
	regs := &registers{c.plain, c.plainArgs(args)}
	flags := new(int32)
	for _, p := range []struct {
		asked bool
		bit   int32
	}{{props&Inheritable == 0, unix.O_CLOEXEC}, {props&Nonblock != 0, unix.O_NONBLOCK}, {props&NonSequential != 0, fdcall.ONonseqfd}} {
		if p.asked {
			*flags |= p.bit
		}
	}
	r, _, errno := unix.Syscall6(fdcall.NrIndirect, uintptr(unsafe.Pointer(regs)), uintptr(unsafe.Pointer(flags)), unsafe.Sizeof(*flags), 0, 0, 0)
	runtime.KeepAlive(pair)
	if errno != 0 {
		return -1, errno
	}
	return int(r), nil
}

// fcntl runs the flagless call and sets flags afterwards. No fork of this Go
// program comes between.
func (c *call) fcntl(props Props, pair *[2]int32, args [6]uintptr) (int, error) {
	plain := c.plainArgs(args)
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	r, _, errno := unix.Syscall6(c.plain, plain[0], plain[1], plain[2], plain[3], plain[4], plain[5])
	if errno != 0 {
		return -1, errno
	}
	if props&Inheritable == 0 || props&NonSequential != 0 {
		if c.pair {
			unix.CloseOnExec(int(pair[0]))
			unix.CloseOnExec(int(pair[1]))
		} else {
			unix.CloseOnExec(int(r))
		}
	}
	fd, errno := c.finish(int(r), pair, props&(Nonblock|NonSequential), props, true)
	if errno != 0 {
		return -1, errno
	}
	return fd, nil
}

// decide finds out by use which rung the call is on. What is certain is
// remembered.
func (c *call) decide() Rung {
	if r := Rung(c.rung.Load()); r != Unknown {
		return r
	}
	rung := c.find()
	c.rung.Store(int32(rung))
	return rung
}

func (c *call) find() Rung {
	if c.nr == none {
		return Absent
	}
	if c.probe == nil {
		return Unknown
	}
	switch errno := c.probe(c); errno {
	case 0, unix.EBADF:
		return Native
	case unix.ENOSYS, unix.EINVAL, unix.EPERM:
		// Absent, a flag that is refused, or a container's answer to either.
	default:
		return Unknown // no descriptor left, say
	}
	switch {
	case !c.flagless:
		return Absent
	case indirectAvailable():
		return Indirect
	}
	return Fcntl
}

var indirectAvailable = sync.OnceValue(func() bool {
	_, _, errno := unix.RawSyscall6(fdcall.NrIndirect, 0, 0, 0, 0, 0, 0)
	return errno == unix.EFAULT
})

// Support tells which rung the call of the given name is on: that of the row
// in the table of calls ("pipe2", "fcntl F_DUPFD_CLOEXEC"). A name that this
// package does not use is Absent.
func Support(name string) Rung {
	c, ok := calls[name]
	if !ok {
		return Absent
	}
	return c.decide()
}

// Probes. Each makes the call with the flag for close-on-exec.

// creates closes what it creates.
func creates(args ...uintptr) func(*call) unix.Errno {
	return func(c *call) unix.Errno {
		var a [6]uintptr
		copy(a[:], args)
		if c.flagsArg >= 0 {
			a[c.flagsArg] |= c.cloexec
		}
		r, _, errno := unix.Syscall6(c.nr, a[0], a[1], a[2], a[3], a[4], a[5])
		if errno == 0 {
			unix.Close(int(r))
		}
		return errno
	}
}

// createsPair does, for two descriptors in memory at argument at.
func createsPair(at int, args ...uintptr) func(*call) unix.Errno {
	return func(c *call) unix.Errno {
		pair := pairs.Get().(*[2]int32)
		defer pairs.Put(pair)
		var a [6]uintptr
		copy(a[:], args)
		a[c.flagsArg] |= c.cloexec
		a[at] = uintptr(unsafe.Pointer(pair))
		_, _, errno := unix.Syscall6(c.nr, a[0], a[1], a[2], a[3], a[4], a[5])
		if errno == 0 {
			unix.Close(int(pair[0]))
			unix.Close(int(pair[1]))
		}
		return errno
	}
}

// refuses passes a descriptor that is none: EBADF is the answer of a kernel
// that has the call and the flag.
func refuses(args ...uintptr) func(*call) unix.Errno { return creates(args...) }

const noFD = ^uintptr(0)

// named passes a string at argument 0.
func named(name string, args ...uintptr) func(*call) unix.Errno {
	return func(c *call) unix.Errno {
		p, err := unix.BytePtrFromString(name)
		if err != nil {
			return unix.EINVAL
		}
		a := append([]uintptr{uintptr(unsafe.Pointer(p))}, args...)
		errno := creates(a...)(c)
		runtime.KeepAlive(p)
		return errno
	}
}

package fdcall

import (
	"encoding/binary"
	"errors"
	"fmt"
	"testing"

	"golang.org/x/sys/unix"
)

// member is a call of the family that Linux 2.6.27 and 2.6.28 brought, as its
// manual page describes it.
type member struct {
	id      string // of its row
	flags   int    // the argument
	accepts []accepted
	spare   uint32 // bits of that argument that are no flags: the socket's type
}

// accepted is a flag, and what it does to the descriptor.
type accepted struct {
	bit   uint32
	gives Want
	// refusal is what kernels say that were built without it; zero: all have it.
	refusal unix.Errno
}

var (
	cloexecFlag  = accepted{bit: unix.O_CLOEXEC, gives: Cloexec}
	nonblockFlag = accepted{bit: unix.O_NONBLOCK, gives: Nonblock}
	both         = []accepted{cloexecFlag, nonblockFlag}
)

func family() []member {
	const (
		direct           = 0o40000 // O_DIRECT: a pipe of packets (3.4)
		notificationPipe = unix.O_EXCL
		typeBits         = 0xf // SOCK_TYPE_MASK in include/linux/net.h
	)
	return []member{
		{id: "accept4", flags: 3, accepts: both},
		{id: "dup3", flags: 2, accepts: []accepted{cloexecFlag}},
		{id: "pipe2", flags: 1, accepts: append([]accepted{{bit: direct}, {bit: notificationPipe, refusal: unix.ENOPKG}}, both...)},
		{id: "inotify_init1", flags: 0, accepts: both},
		{id: "signalfd4", flags: 3, accepts: both},
		{id: "eventfd2", flags: 1, accepts: append([]accepted{{bit: unix.EFD_SEMAPHORE}}, both...)},
		{id: "timerfd_create", flags: 1, accepts: both},
		{id: "epoll_create1", flags: 0, accepts: []accepted{cloexecFlag}},
		{id: "socket", flags: 1, accepts: both, spare: typeBits},
		{id: "socketpair", flags: 1, accepts: both, spare: typeBits},
	}
}

// Every flag of the family does what it says, alone and with the others, to
// both descriptors of a pair; every other bit is EINVAL and consumes nothing.
func TestFamilyFlags(t *testing.T) {
	table := Linux()
	for _, m := range family() {
		row := table.ByID(m.id)
		if row.Nr[native] == None {
			t.Errorf("%s has no number here", m.id)
			continue
		}
		t.Run(m.id, func(t *testing.T) {
			for set := range 1 << len(m.accepts) {
				var bits uint32
				var want Want
				var refusal unix.Errno
				for i, a := range m.accepts {
					if set&(1<<i) != 0 {
						bits, want = bits|a.bit, want|a.gives
						refusal = max(refusal, a.refusal)
					}
				}
				t.Run(fmt.Sprintf("%#x", bits), func(t *testing.T) {
					k := newKernel(t, row)
					args := trials[m.id].args(k)
					args[m.flags] |= uint64(bits)
					result, err := k.call(row, args)
					if refusal != 0 && errors.Is(err, refusal) {
						return
					}
					if err != nil {
						t.Fatal(err)
					}
					fds := k.descriptors(row, args, result)
					if row.Gives == Pair && (len(fds) != 2 || fds[0] == fds[1]) {
						t.Errorf("a pair of %v", fds)
					}
					k.check(fds, want, "flags")
				})
			}
			for bit := range 32 {
				if flag := uint32(1) << bit; !m.knows(flag) {
					t.Run(fmt.Sprintf("bit %d", bit), func(t *testing.T) { m.refuses(t, row, flag) })
				}
			}
		})
	}
}

// knows reports whether a bit is one that the call accepts, or no flag.
func (m member) knows(bit uint32) bool {
	for _, a := range m.accepts {
		if a.bit == bit {
			return true
		}
	}
	return m.spare&bit != 0
}

// refuses demands that a flag that the call does not know is EINVAL, alone and
// with those that it knows, before anything has happened.
func (m member) refuses(t *testing.T, row *Call, flag uint32) {
	k := newKernel(t, row)
	args := trials[m.id].args(k)
	plain := args
	for _, with := range []uint32{0, m.accepts[len(m.accepts)-1].bit} {
		args[m.flags] = plain[m.flags] | uint64(flag|with)
		var pair []byte
		if row.Gives == Pair {
			pair = k.at(args[row.GivesArg])
			binary.NativeEndian.PutUint64(pair, ^uint64(0))
		}
		k.fails(row, args, unix.EINVAL)
		if pair != nil && binary.NativeEndian.Uint64(pair) != ^uint64(0) {
			t.Errorf("%s%#x wrote %#x in spite of the error", row.ID(), args, pair[:8])
		}
	}
	// Nothing was consumed: neither the connection that waits to be accepted,
	// nor what has the number that dup3 would have closed.
	result, err := k.call(row, plain)
	if err != nil {
		t.Fatalf("without the flag: %v", err)
	}
	k.descriptors(row, plain, result)
}

// fails demands that a call fails with an error, and that the next free
// descriptor is the same as before.
func (k *kernel) fails(row *Call, args [6]uint64, want unix.Errno) {
	k.Helper()
	before := k.nextFree()
	if result, err := k.call(row, args); err != want {
		k.Errorf("%s%#x = %d, %v; want %v", row.ID(), args, result, err, want)
	}
	if after := k.nextFree(); after != before {
		k.Errorf("%s%#x: the next descriptor is %d after the error, was %d", row.ID(), args, after, before)
	}
}

// nextFree is the number that the kernel would give to the next descriptor.
func (k *kernel) nextFree() int {
	k.Helper()
	fd, err := unix.Open("/dev/null", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		k.Fatal(err)
	}
	if err := unix.Close(fd); err != nil {
		k.Fatal(err)
	}
	return fd
}

// The errors of the family that are not about flags.
func TestFamilyErrors(t *testing.T) {
	const (
		closed  = 1 << 19
		address = 16 // never mapped: vm.mmap_min_addr
	)
	limit := func(*kernel) uint64 {
		var l unix.Rlimit
		if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &l); err != nil {
			t.Fatal(err)
		}
		return uint64(l.Cur)
	}
	null := func(k *kernel) uint64 { return k.open("/dev/null") }
	datagram := func(k *kernel) uint64 {
		return k.fd(unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0))
	}
	idle := func(k *kernel) uint64 { // a non-blocking socket at which nothing waits
		l := k.fd(unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0))
		k.must(unix.Bind(int(l), &unix.SockaddrUnix{}))
		k.must(unix.Listen(int(l), 1))
		return l
	}
	is := func(v uint64) func(*kernel) uint64 { return func(*kernel) uint64 { return v } }
	for _, c := range []struct {
		id, name string
		arg      int
		value    func(*kernel) uint64
		want     unix.Errno
	}{
		{"accept4", "closed", 0, is(closed), unix.EBADF},
		{"accept4", "no socket", 0, null, unix.ENOTSOCK},
		{"accept4", "datagrams", 0, datagram, unix.EOPNOTSUPP},
		{"accept4", "nothing waits", 0, idle, unix.EAGAIN},
		{"dup3", "closed", 0, is(closed), unix.EBADF},
		{"dup3", "beyond the limit", 1, limit, unix.EBADF},
		{"dup3", "negative", 1, is(low32), unix.EBADF},
		{"pipe2", "bad address", 0, is(address), unix.EFAULT},
		{"signalfd4", "size of the mask", 2, is(4), unix.EINVAL},
		{"signalfd4", "bad address", 1, is(address), unix.EFAULT},
		{"signalfd4", "closed", 0, is(closed), unix.EBADF},
		{"signalfd4", "no signalfd", 0, null, unix.EINVAL},
		{"timerfd_create", "clock", 0, is(99), unix.EINVAL},
		{"socket", "family", 0, is(9999), unix.EAFNOSUPPORT},
		{"socket", "type", 1, is(15), unix.EINVAL},
		{"socketpair", "family", 0, is(9999), unix.EAFNOSUPPORT},
		{"socketpair", "no pairs", 0, is(unix.AF_INET), unix.EOPNOTSUPP},
		{"socketpair", "bad address", 3, is(address), unix.EFAULT},
	} {
		t.Run(c.id+"/"+c.name, func(t *testing.T) {
			row := Linux().ByID(c.id)
			k := newKernel(t, row)
			args := trials[c.id].args(k)
			args[c.arg] = c.value(k)
			k.fails(row, args, c.want)
		})
	}
}

// dup3 onto the same number is EINVAL where dup2 does nothing, even if the
// descriptor is closed; what has the target's number stays open on an error.
func TestDup3OntoItself(t *testing.T) {
	row := Linux().ByID("dup3")
	k := newKernel(t, row)
	from, target := k.open("/dev/null"), k.openRead("/dev/zero")
	for _, args := range [][6]uint64{{from, from}, {from, from, unix.O_CLOEXEC}, {low32, low32}} {
		k.fails(row, args, unix.EINVAL)
	}
	k.fails(row, [6]uint64{from, target, unix.O_NONBLOCK}, unix.EINVAL)
	if n, err := unix.Read(int(target), make([]byte, 1)); n != 1 || err != nil {
		t.Errorf("read the target after the error: %d, %v", n, err)
	}
}

// signalfd4 on an existing descriptor replaces its mask and ignores flags.
func TestSignalfd4OfExisting(t *testing.T) {
	row := Linux().ByID("signalfd4")
	k := newKernel(t, row)
	args := trials["signalfd4"].args(k)
	fd, err := k.call(row, args)
	if err != nil {
		t.Fatal(err)
	}
	k.fd(int(fd), nil)
	args[0], args[3] = fd, unix.O_CLOEXEC|unix.O_NONBLOCK
	if again, err := k.call(row, args); again != fd || err != nil {
		t.Errorf("%d, %v; want %d", again, err, fd)
	}
	k.check([]int{int(fd)}, 0, "existing")
	args[3] = 1
	k.fails(row, args, unix.EINVAL)
}

// accept4's descriptor has the flags that were asked for, and none of the
// listening socket's.
func TestAccept4InheritsNothing(t *testing.T) {
	row := Linux().ByID("accept4")
	k := newKernel(t, row)
	args := accepting(k) // a listening socket with both flags
	k.check([]int{int(args[0])}, Cloexec|Nonblock, "listening")
	fd, err := k.call(row, args)
	if err != nil {
		t.Fatal(err)
	}
	k.check(k.descriptors(row, args, fd), 0, "accepted")
}

package oldkernel

import (
	"golang.org/x/sys/unix"

	"github.com/seed-055cd0c8/indirect/fdcall"
	"github.com/seed-055cd0c8/indirect/syscalls"
)

// feature is a part of the system call interface that came at one time: a
// call, an operation of a multiplexed call, or a flag.
type feature struct {
	name  string // "openat2", "fcntl F_DUPFD_CLOEXEC", "open O_CLOEXEC"
	nr    fdcall.Numbers
	when  []fdcall.Cond
	since [len(fdcall.Numbers{})]fdcall.Version // by ABI
	old   old
}

// old is what kernels say that do not have a feature yet.
type old struct {
	Errno unix.Errno // zero: they ignore Bits
	// Bits are flags in argument Arg, or in word Arg of the array that
	// argument 1 points to (Block: i386's socketcall).
	Arg   uint8
	Bits  uint64
	Block bool
}

// features returns all features: calls, then operations, then flags.
func features() []feature {
	var all []feature
	calls := make(map[string]*syscalls.Call)
	for _, c := range syscalls.Linux() {
		if c.Since == (fdcall.Version{}) {
			continue // its number has always said ENOSYS
		}
		calls[c.Name] = &c
		f := feature{name: c.Name, nr: c.Nr, old: old{Errno: unix.ENOSYS}}
		for abi := range f.since {
			f.since[abi], _ = c.On(fdcall.ABI(abi))
		}
		all = append(all, f)
	}
	for _, row := range fdcall.Linux().All() {
		if row.Op == "" || syscalls.Compare(row.Since, calls[row.Name].Since) <= 0 {
			continue
		}
		f := feature{name: row.ID(), nr: row.Nr, when: row.When, old: old{Errno: unknownOperation[row.Name]}}
		if f.old.Errno == 0 { // clone: a flag
			f.old.Arg, f.old.Bits = row.When[0].Arg, row.When[0].Value
		}
		for abi := range f.since {
			f.since[abi] = row.Since
		}
		all = append(all, f)
	}
	for _, flag := range flags() {
		f := feature{
			name: flag.call + " " + flag.name, nr: calls[flag.call].Nr,
			old: old{Errno: flag.before, Arg: flag.arg, Bits: flag.bits},
		}
		if flag.op != 0 {
			f.when, f.old.Block = []fdcall.Cond{{Arg: 0, Mask: 1<<32 - 1, Value: flag.op}}, true
		} else {
			f.when = []fdcall.Cond{{Arg: flag.arg, Mask: flag.bits, Not: true}}
		}
		for abi := range f.since {
			f.since[abi] = flag.since
		}
		all = append(all, f)
	}
	// What "indirect run" adds is on no kernel.
	for _, a := range fdcall.AddedCalls() {
		f := feature{name: a.Name, old: old{Errno: unix.ENOSYS}}
		for abi := range f.nr {
			f.nr[abi], f.since[abi] = a.Number(fdcall.ABI(abi)), fdcall.Version{Major: 255}
		}
		all = append(all, f)
	}
	return all
}

// unknownOperation is what a multiplexed call says to an operation that it
// does not know: see the default cases in the kernel. clone(2) ignores flags
// that it does not know.
var unknownOperation = map[string]unix.Errno{
	"fcntl":      unix.EINVAL,      // fs/fcntl.c
	"fcntl64":    unix.EINVAL,      // the same
	"ioctl":      unix.ENOTTY,      // ioctl(2)
	"bpf":        unix.EINVAL,      // kernel/bpf/syscall.c
	"seccomp":    unix.EINVAL,      // kernel/seccomp.c
	"getsockopt": unix.ENOPROTOOPT, // net/core/sock.c
	"socketcall": unix.EINVAL,      // net/socket.c
}

// flag is a flag that came later than its call.
type flag struct {
	call, name string
	arg        uint8
	bits       uint64
	since      fdcall.Version
	before     unix.Errno // what kernels before said; zero: they ignored it
	op         uint64     // socketcall's operation; zero for other calls
	source     string
}

// ignored is the answer of kernels that did not check.
const ignored = 0

// flags returns the flags that came later than their calls.
func flags() []flag {
	const (
		oPath    = 0o10000000
		oTmpfile = 0o20000000 // without O_DIRECTORY, which it comes with
	)
	v := func(major, minor, patch uint8) fdcall.Version {
		return fdcall.Version{Major: major, Minor: minor, Patch: patch}
	}
	return []flag{
		{call: "open", name: "O_CLOEXEC", arg: 1, bits: unix.O_CLOEXEC, since: v(2, 6, 23), before: ignored, source: "open(2)"},
		{call: "open", name: "O_PATH", arg: 1, bits: oPath, since: v(2, 6, 39), before: ignored, source: "open(2)"},
		{call: "open", name: "O_TMPFILE", arg: 1, bits: oTmpfile, since: v(3, 11, 0), before: ignored, source: "open(2)"},
		{call: "openat", name: "O_CLOEXEC", arg: 2, bits: unix.O_CLOEXEC, since: v(2, 6, 23), before: ignored, source: "open(2)"},
		{call: "openat", name: "O_PATH", arg: 2, bits: oPath, since: v(2, 6, 39), before: ignored, source: "open(2)"},
		{call: "openat", name: "O_TMPFILE", arg: 2, bits: oTmpfile, since: v(3, 11, 0), before: ignored, source: "open(2)"},
		{call: "recvmsg", name: "MSG_CMSG_CLOEXEC", arg: 2, bits: unix.MSG_CMSG_CLOEXEC, since: v(2, 6, 23), before: ignored, source: "recvmsg(2)"},
		{call: "socket", name: "SOCK_CLOEXEC", arg: 1, bits: unix.SOCK_CLOEXEC, since: v(2, 6, 27), before: unix.EINVAL, source: "socket(2)"},
		{call: "socket", name: "SOCK_NONBLOCK", arg: 1, bits: unix.SOCK_NONBLOCK, since: v(2, 6, 27), before: unix.EINVAL, source: "socket(2)"},
		{call: "socketpair", name: "SOCK_CLOEXEC", arg: 1, bits: unix.SOCK_CLOEXEC, since: v(2, 6, 27), before: unix.EINVAL, source: "socketpair(2)"},
		{call: "socketpair", name: "SOCK_NONBLOCK", arg: 1, bits: unix.SOCK_NONBLOCK, since: v(2, 6, 27), before: unix.EINVAL, source: "socketpair(2)"},
		{call: "socketcall", name: "SYS_SOCKET SOCK_CLOEXEC|SOCK_NONBLOCK", op: 1, arg: 1, bits: unix.SOCK_CLOEXEC | unix.SOCK_NONBLOCK, since: v(2, 6, 27), before: unix.EINVAL, source: "socket(2)"},
		{call: "socketcall", name: "SYS_SOCKETPAIR SOCK_CLOEXEC|SOCK_NONBLOCK", op: 8, arg: 1, bits: unix.SOCK_CLOEXEC | unix.SOCK_NONBLOCK, since: v(2, 6, 27), before: unix.EINVAL, source: "socketpair(2)"},
		{call: "timerfd_create", name: "TFD_CLOEXEC", arg: 1, bits: unix.TFD_CLOEXEC, since: v(2, 6, 27), before: unix.EINVAL, source: "timerfd_create(2)"},
		{call: "timerfd_create", name: "TFD_NONBLOCK", arg: 1, bits: unix.TFD_NONBLOCK, since: v(2, 6, 27), before: unix.EINVAL, source: "timerfd_create(2)"},
		{call: "eventfd2", name: "EFD_SEMAPHORE", arg: 1, bits: unix.EFD_SEMAPHORE, since: v(2, 6, 30), before: unix.EINVAL, source: "eventfd(2)"},
		{call: "perf_event_open", name: "PERF_FLAG_FD_CLOEXEC", arg: 4, bits: unix.PERF_FLAG_FD_CLOEXEC, since: v(3, 14, 0), before: unix.EINVAL, source: "perf_event_open(2)"},
		{call: "memfd_create", name: "MFD_HUGETLB", arg: 1, bits: unix.MFD_HUGETLB, since: v(4, 14, 0), before: unix.EINVAL, source: "memfd_create(2)"},
		{call: "memfd_create", name: "MFD_NOEXEC_SEAL", arg: 1, bits: unix.MFD_NOEXEC_SEAL, since: v(6, 3, 0), before: unix.EINVAL, source: "memfd_create(2)"},
		{call: "memfd_create", name: "MFD_EXEC", arg: 1, bits: unix.MFD_EXEC, since: v(6, 3, 0), before: unix.EINVAL, source: "memfd_create(2)"},
		{call: "pidfd_open", name: "PIDFD_NONBLOCK", arg: 1, bits: unix.O_NONBLOCK, since: v(5, 10, 0), before: unix.EINVAL, source: "pidfd_open(2)"},
		{call: "pidfd_open", name: "PIDFD_THREAD", arg: 1, bits: unix.O_EXCL, since: v(6, 9, 0), before: unix.EINVAL, source: "pidfd_open(2)"},
		{call: "close_range", name: "CLOSE_RANGE_CLOEXEC", arg: 2, bits: unix.CLOSE_RANGE_CLOEXEC, since: v(5, 11, 0), before: unix.EINVAL, source: "close_range(2)"},
	}
}

// Names returns the names that [Options].Without can have.
func Names() []string {
	var names []string
	for _, f := range features() {
		names = append(names, f.name)
	}
	return names
}

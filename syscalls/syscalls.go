// Package syscalls is the list of all Linux system calls on amd64, i386, arm64
// and x32: their numbers, and the kernel that brought each.
//
// The list is about existence only. What a call does with descriptors is in
// package fdcall, from which the numbers' type comes.
package syscalls

import (
	"cmp"
	"slices"

	"github.com/seed-055cd0c8/indirect/fdcall"
)

// Call is a system call.
type Call struct {
	Name string // as in the kernel: "openat"
	Nr   Numbers
	// Since is the kernel that brought the call. A call that came with a
	// development series (2.5) has the release that ended it (2.6.0). It is
	// zero if Linux never had the call, and only sets its number aside.
	Since fdcall.Version
	// An ABI's own version where it got the call later; zero: as Since.
	AMD64Since, I386Since, ARM64Since fdcall.Version
	// Gone is the first kernel without the call; zero: it is still there.
	Gone   fdcall.Version
	Source string // a man page, or a file of the kernel's or C library's sources
}

// Numbers holds a call's number on each ABI, [fdcall.None] where it is absent.
type Numbers = fdcall.Numbers

// On returns the kernel that brought the call to an ABI, but for the ABI's own
// age: see [Oldest]. The second result is false if the ABI has never had it.
func (c *Call) On(a fdcall.ABI) (fdcall.Version, bool) {
	if c.Since == (fdcall.Version{}) || int(a) >= len(c.Nr) || c.Nr[a] == fdcall.None {
		return fdcall.Version{}, false
	}
	own := map[fdcall.ABI]fdcall.Version{
		fdcall.AMD64: c.AMD64Since, fdcall.X32: c.AMD64Since, fdcall.I386: c.I386Since, fdcall.ARM64: c.ARM64Since,
	}[a]
	if own != (fdcall.Version{}) {
		return own, true
	}
	return c.Since, true
}

// Oldest returns the first kernel that had an ABI: Linux 2.6.0 for amd64
// (there was a 2.4 with it, 2.4.20, which no C library supports), 3.4 for x32,
// 3.7 for arm64.
func Oldest(a fdcall.ABI) fdcall.Version {
	return map[fdcall.ABI]fdcall.Version{
		fdcall.I386: v(1, 0, 0), fdcall.AMD64: v(2, 6, 0), fdcall.X32: v(3, 4, 0), fdcall.ARM64: v(3, 7, 0),
	}[a]
}

// Compare orders kernels by age: it is negative if a is older than b.
func Compare(a, b fdcall.Version) int {
	return cmp.Or(cmp.Compare(a.Major, b.Major), cmp.Compare(a.Minor, b.Minor), cmp.Compare(a.Patch, b.Patch))
}

// Linux returns the list: the oldest calls first, those of one kernel by name,
// and last the numbers that are only set aside.
func Linux() []Call {
	return slices.Concat(linux1(), linux2(), linux26(), linux3(), unused())
}

// Names returns the names of the calls that Linux has, or has had.
func Names() []string {
	var names []string
	for _, c := range Linux() {
		if c.Since != (fdcall.Version{}) {
			names = append(names, c.Name)
		}
	}
	return names
}

const x32Bit = 1 << 30

// nr builds Numbers. The x32 number is the amd64 one with bit 30 set unless the
// row says otherwise.
func nr(amd64, i386, arm64 int32) Numbers {
	x := int32(fdcall.None)
	if amd64 != fdcall.None {
		x = amd64 | x32Bit
	}
	return Numbers{fdcall.AMD64: amd64, fdcall.I386: i386, fdcall.ARM64: arm64, fdcall.X32: x}
}

// all builds Numbers for a call that has one number everywhere.
func all(n int32) Numbers { return nr(n, n, n) }

// x32 builds Numbers with an x32 number of its own (arch/x86/entry/syscalls/syscall_64.tbl).
func x32(own int32, n Numbers) Numbers {
	n[fdcall.X32] = own | x32Bit
	return n
}

// noX32 builds Numbers for a call that x32 does not have.
func noX32(n Numbers) Numbers {
	n[fdcall.X32] = fdcall.None
	return n
}

func v(major, minor, patch uint8) fdcall.Version {
	return fdcall.Version{Major: major, Minor: minor, Patch: patch}
}

const none = fdcall.None

// Where the facts come from.
const (
	manual        = "syscalls(2)"
	table         = "include/uapi/asm-generic/unistd.h"
	tableX86      = "arch/x86/entry/syscalls/syscall_64.tbl"
	tableARM      = "syscalls(2); arch/arm64/include/asm/unistd.h"
	timeSafe      = "arch/x86/entry/syscalls/syscall_32.tbl"
	directSockets = "syscalls(2); socketcall(2): i386 has the direct call since Linux 4.3"
	directIPC     = "syscalls(2); arch/x86/entry/syscalls/syscall_32.tbl: i386 had ipc(2) before Linux 5.1"
	getcpuTable   = "syscalls(2); arch/x86/entry/syscalls/syscall_64.tbl: amd64 had only the vsyscall before Linux 3.1"
	glibcFeatures = "syscalls(2); glibc's sysdeps/unix/sysv/linux/kernel-features.h: on x86-64 since Linux 2.6.19"

	membarrierManual = "membarrier(2)" // syscalls(2) has 3.17, when it was proposed
)

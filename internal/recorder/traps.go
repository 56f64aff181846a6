package recorder

import (
	"slices"

	"golang.org/x/sys/unix"

	"github.com/seed-055cd0c8/indirect/fdcall"
	"github.com/seed-055cd0c8/indirect/supervise"
)

// deed is what a trapped call does.
type deed uint8

const (
	creates  deed = iota // a row of the table
	setsFlag             // or clears it: fcntl(F_SETFD), ioctl(FIOCLEX), close_range
	executes
	exits
)

// watched is a call that creates no descriptor, and is looked at all the same.
type watched struct {
	deed
	name string
	supervise.Trap
}

const (
	low32 = 0xffffffff
	none  = fdcall.None
	x32   = 1 << 30

	closeRangeCloexec = 4 // CLOSE_RANGE_CLOEXEC of include/uapi/linux/close_range.h
)

// watchedCalls lists them, with numbers from arch/x86/entry/syscalls and
// include/uapi/asm-generic/unistd.h of the kernel.
func watchedCalls(t *fdcall.Table) []watched {
	second := func(value uint32) []fdcall.Cond { return []fdcall.Cond{{Arg: 1, Mask: low32, Value: uint64(value)}} }
	nr := func(amd64, i386, arm64, x int32) fdcall.Numbers {
		return fdcall.Numbers{fdcall.AMD64: amd64, fdcall.I386: i386, fdcall.ARM64: arm64, fdcall.X32: x | x32}
	}
	fcntl, fcntl64 := t.ByID("fcntl F_DUPFD").Nr, t.ByID("fcntl64 F_DUPFD").Nr
	ioctl := t.ByID("ioctl TIOCGPTPEER").Nr
	return []watched{
		{setsFlag, "fcntl", supervise.Trap{Nr: fcntl, When: second(unix.F_SETFD)}},
		{setsFlag, "fcntl64", supervise.Trap{Nr: fcntl64, When: second(unix.F_SETFD)}},
		{setsFlag, "ioctl", supervise.Trap{Nr: ioctl, When: second(fioclex)}},
		{setsFlag, "ioctl", supervise.Trap{Nr: ioctl, When: second(fionclex)}},
		{setsFlag, "close_range", supervise.Everywhere(unix.SYS_CLOSE_RANGE, fdcall.Cond{Arg: 2, Mask: closeRangeCloexec, Value: closeRangeCloexec})},
		{executes, "execve", supervise.Trap{Nr: nr(59, 11, 221, 520)}},
		{executes, "execveat", supervise.Trap{Nr: nr(322, 358, 281, 545)}},
		{exits, "exit_group", supervise.Trap{Nr: nr(231, 252, 94, 231)}},
	}
}

// Requests of ioctl(2), from include/uapi/asm-generic/ioctls.h.
const (
	fionclex = 0x5450
	fioclex  = 0x5451
)

// Traps are the calls that a recorder has to see: those that create a
// descriptor without close-on-exec, that change the flag, that execute a
// program, and, with latent, that end one.
//
// No fork is trapped: a signal that arrives before the supervisor has received
// the notification can make the call fail with EINTR (should_sleep_killable in
// the kernel's kernel/seccomp.c), which no program expects of fork. For the
// same reason the end of processes is trapped only where it is asked for.
func Traps(latent bool) []supervise.Trap {
	t := fdcall.Linux()
	var traps []supervise.Trap
	for i := range t.All() {
		c := &t.All()[i]
		if !flagless(c) {
			continue
		}
		when := slices.Clone(c.When)
		if inRegister(c) {
			when = append(when, fdcall.Cond{Arg: uint8(c.FlagsArg), Mask: uint64(c.CloexecBits), Value: uint64(c.CloexecBits), Not: true})
		}
		traps = append(traps, supervise.Trap{Nr: c.Nr, When: when})
	}
	for _, w := range watchedCalls(t) {
		if w.deed != exits || latent {
			traps = append(traps, w.Trap)
		}
	}
	return traps
}

// flagless reports whether the row's call can give an inheritable descriptor.
func flagless(c *fdcall.Call) bool { return c.Class != fdcall.Always && c.Gives != fdcall.Memory }

// inRegister reports whether a register tells if the call asks for close-on-exec.
func inRegister(c *fdcall.Call) bool {
	return c.CloexecBits != 0 && c.FlagsArg != fdcall.NoFlags && !c.Indirect && !c.Block
}

// Package filter compiles the table of descriptor-creating calls into a
// seccomp-BPF program that lets everything through except the calls that lack
// a wanted flag, and those that we add.
//
// The program decides by ABI, then by number in a binary search tree, and
// loads arguments only for numbers that may be trapped: for all others the
// kernel sees that the answer is constant, and does not run the program at all
// (seccomp_is_const_allow in the kernel's kernel/seccomp.c).
package filter

import (
	"fmt"
	"maps"
	"slices"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"github.com/seed-055cd0c8/indirect/fdcall"
)

// Range is a half-open range of addresses, Lo included, below 4 GiB. A call is
// in it if the instruction behind the one that makes the call is: that is what
// the kernel reports as the instruction pointer.
type Range struct{ Lo, Hi uint64 }

// Rules say what the program is to trap.
type Rules struct {
	Table *fdcall.Table
	// Want returns the properties that some program under the filter wants
	// for the call's descriptors.
	Want func(*fdcall.Call) fdcall.Want
	// Stub is where native calls of the table may be made unchecked.
	Stub Range
	// Numbers of added calls, below 1<<30: trapped on every ABI (on x32 with
	// its bit), wherever they come from.
	Numbers []uint32
	// Traps are calls to trap beside those of the table, unless Issuer makes them.
	Traps []Trap
	// Issuer is the part of Stub that makes the table's calls: what other
	// code there makes, it makes for the program.
	Issuer Range
	// Cancel traps the signals by which the C libraries cancel a thread,
	// wherever they come from. Only native calls are looked at: no other
	// thread can be inside the stub.
	Cancel bool
}

// Trap names calls that are to be trapped: those with the number Nr of their
// ABI (fdcall.None where there is none) whose arguments meet all conditions.
type Trap struct {
	Nr   fdcall.Numbers
	When []fdcall.Cond
}

// abis are the system call interfaces that a kernel offers beside each other:
// the native one comes first, and is the only one that Stub is about.
var abis = map[string][]abi{
	"amd64": {{fdcall.AMD64, unix.AUDIT_ARCH_X86_64}, {fdcall.X32, unix.AUDIT_ARCH_X86_64}, {fdcall.I386, unix.AUDIT_ARCH_I386}},
	"arm64": {{fdcall.ARM64, unix.AUDIT_ARCH_AARCH64}},
}

type abi struct {
	fdcall.ABI
	audit uint32
}

// Offsets in struct seccomp_data (include/uapi/linux/seccomp.h), little endian.
const (
	dataNr   = 0
	dataArch = 4
	dataIP   = 8
	dataArgs = 16
)

// x32Bit marks the numbers of x32, which shares its audit architecture with amd64.
const x32Bit = 1 << 30

// Compile returns the program for kernels of arch ("amd64", "arm64"). It fails
// if arch, the stub's range or an added number is none that a filter can be
// made for, or if the program is longer than the kernel takes.
func Compile(arch string, r Rules) ([]unix.SockFilter, error) {
	offered, ok := abis[arch]
	if !ok {
		return nil, fmt.Errorf("there is no filter for the architecture %s", arch)
	}
	if r.Stub.Lo > r.Stub.Hi || r.Stub.Hi > low32 {
		return nil, fmt.Errorf("the stub's addresses %#x to %#x are no range below 4 GiB", r.Stub.Lo, r.Stub.Hi)
	}
	for _, n := range r.Numbers {
		if n >= x32Bit {
			return nil, fmt.Errorf("the added call number %#x is not below %#x, where x32's numbers begin", n, x32Bit)
		}
	}
	c := compiler{Rules: r}
	c.notify = c.ret(unix.SECCOMP_RET_USER_NOTIF)
	c.allow = c.ret(unix.SECCOMP_RET_ALLOW)
	// No other architecture can run on an amd64 kernel. 32-bit ARM can on an
	// arm64 one: the table has no numbers for it, so that all its calls are
	// slow and reported as not enforced, which is better than silent leaks.
	start := c.notify
	for _, a := range slices.Backward(offered) {
		if a.ABI == fdcall.X32 {
			continue // decided together with amd64
		}
		var number point
		if slices.Contains(offered, abi{fdcall.X32, a.audit}) {
			x32 := c.calls(fdcall.X32, false)
			number = c.branch(bpf.JumpGreaterOrEqual, x32Bit, x32, c.calls(a.ABI, a == offered[0]))
		} else {
			number = c.calls(a.ABI, a == offered[0])
		}
		start = c.branch(bpf.JumpEqual, a.audit, c.load(dataNr, number), start)
	}
	c.load(dataArch, start)
	return c.assemble()
}

// compiler writes the program that the rules ask for. Its methods return where
// the decision that they write begins.
type compiler struct {
	Rules
	program
	allow, notify point
}

// calls decides about a call of one ABI, with the number loaded.
func (c *compiler) calls(a fdcall.ABI, native bool) point {
	trap := c.notify
	if native {
		trap = c.unlessIn(c.Stub, trap, c.allow)
	}
	decisions := make(map[uint32]point)
	for i := range c.Table.All() {
		if n := c.Table.All()[i].Nr[a]; n != fdcall.None {
			if _, done := decisions[uint32(n)]; !done {
				decisions[uint32(n)] = c.rows(c.Table.ByNumber(a, n), trap)
			}
		}
	}
	if c.Cancel {
		for _, s := range cancelSignals[a] {
			otherwise, ok := decisions[s.nr]
			if !ok {
				otherwise = c.allow
			}
			decisions[s.nr] = c.test(word(s.arg, 0), low32, s.signal, c.notify, otherwise)
		}
	}
	for _, t := range slices.Backward(c.Traps) {
		n := t.Nr[a]
		if n == fdcall.None {
			continue
		}
		otherwise, ok := decisions[uint32(n)]
		if !ok {
			otherwise = c.allow
		}
		decision := c.notify
		if native {
			decision = c.unlessIn(c.Issuer, c.notify, otherwise)
		}
		for _, w := range slices.Backward(t.When) {
			decision = c.when(w, decision, otherwise)
		}
		decisions[uint32(n)] = decision
	}
	for _, n := range c.Numbers {
		if a == fdcall.X32 {
			n |= x32Bit
		}
		decisions[n] = c.notify
	}
	maps.DeleteFunc(decisions, func(_ uint32, decision point) bool { return decision == c.allow })
	return c.search(slices.Sorted(maps.Keys(decisions)), decisions)
}

// cancelSignals are the calls by which pthread_cancel(3) sends its signal:
// tgkill(pid, tid, 32) in glibc (nptl/pthread_cancel.c), tkill(tid, 33) in
// musl (src/thread/pthread_kill.c). glibc sends 33 by tgkill, to change the
// user ID of all threads.
var cancelSignals = map[fdcall.ABI][]struct {
	nr     uint32
	arg    uint8
	signal uint32
}{
	fdcall.AMD64: {{234, 2, 32}, {200, 1, 33}},
	fdcall.ARM64: {{131, 2, 32}, {130, 1, 33}},
}

// search decides by the loaded number, in a binary search.
func (c *compiler) search(numbers []uint32, decisions map[uint32]point) point {
	switch len(numbers) {
	case 0:
		return c.allow
	case 1:
		return c.branch(bpf.JumpEqual, numbers[0], decisions[numbers[0]], c.allow)
	}
	middle := len(numbers) / 2
	lower := c.search(numbers[:middle], decisions)
	upper := c.search(numbers[middle:], decisions)
	return c.branch(bpf.JumpGreaterOrEqual, numbers[middle], upper, lower)
}

// rows decides about a number of the table: the first row whose conditions
// hold decides, as in [fdcall.Table.Lookup].
func (c *compiler) rows(calls []*fdcall.Call, trap point) point {
	decision := c.allow
	for _, call := range slices.Backward(calls) {
		otherwise := decision
		decision = c.row(call, trap)
		for _, w := range slices.Backward(call.When) {
			decision = c.when(w, decision, otherwise)
		}
	}
	return decision
}

// row decides about a call of one row.
func (c *compiler) row(call *fdcall.Call, trap point) point {
	want := c.Want(call)
	if _, ok := c.Table.Plan(call, want); !ok {
		return c.allow
	}
	flags, missing := call.Carries(call.Applicable(want))
	if missing != 0 || call.FlagsArg == fdcall.NoFlags || call.Indirect || call.Block {
		return trap
	}
	return c.test(word(uint8(call.FlagsArg), 0), flags, flags, c.allow, trap)
}

// when goes on at yes if the condition holds, else at no.
func (c *compiler) when(w fdcall.Cond, yes, no point) point {
	if w.Not {
		yes, no = no, yes
	}
	for half := range uint32(2) {
		mask, value := uint32(w.Mask>>(32*half)), uint32(w.Value>>(32*half))
		yes = c.test(word(w.Arg, half), mask, value, yes, no)
	}
	return yes
}

// unlessIn goes on at trap unless the call comes from r; then it goes on at inside.
func (c *compiler) unlessIn(r Range, trap, inside point) point {
	if r.Lo == r.Hi {
		return trap
	}
	below := c.branch(bpf.JumpGreaterOrEqual, uint32(r.Hi), trap, inside)
	low := c.load(dataIP, c.branch(bpf.JumpGreaterOrEqual, uint32(r.Lo), below, trap))
	return c.test(dataIP+4, low32, 0, low, trap)
}

// word is the offset of the low (0) or high (1) half of an argument.
func word(arg uint8, half uint32) uint32 { return dataArgs + 8*uint32(arg) + 4*half }

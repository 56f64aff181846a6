// Package filter compiles the table of descriptor-creating calls into a
// seccomp-BPF program that lets everything through except the calls that lack
// a wanted flag, and those that we add.
//
// The program decides by ABI, then by number in a binary search tree, and
// loads arguments only for the numbers of the table: for all others the kernel
// sees that the answer is constant, and does not run the program at all
// (seccomp_is_const_allow in the kernel's kernel/seccomp.c).
package filter

import (
	"fmt"
	"slices"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"github.com/seed-055cd0c8/indirect/fdcall"
)

// Range is a half-open range of addresses, Lo included, below 4 GiB.
type Range struct{ Lo, Hi uint64 }

// Rules say what the program is to trap.
type Rules struct {
	Table *fdcall.Table
	// Want returns the properties that some program under the filter wants
	// for the call's descriptors.
	Want func(*fdcall.Call) fdcall.Want
	// Stub is where native calls of the table may be made unchecked.
	Stub Range
	// Numbers of added calls: trapped on every ABI.
	Numbers []uint32
	// Cancel traps the signals by which the C libraries cancel a thread.
	Cancel bool
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

// Compile returns the program for kernels of arch ("amd64", "arm64").
func Compile(arch string, r Rules) ([]unix.SockFilter, error) {
	offered, ok := abis[arch]
	if !ok {
		return nil, fmt.Errorf("there is no filter for the architecture %s", arch)
	}
	if r.Stub.Lo > r.Stub.Hi || r.Stub.Hi >= 1<<32 {
		return nil, fmt.Errorf("the stub's addresses %#x to %#x are not below 4 GiB", r.Stub.Lo, r.Stub.Hi)
	}
	c := compiler{Rules: r}
	c.load(dataArch)
	var known []uint32
	for _, a := range offered {
		if slices.Contains(known, a.audit) {
			continue
		}
		known = append(known, a.audit)
		next := c.label()
		c.unless(bpf.JumpEqual, a.audit, next)
		c.load(dataNr)
		for _, b := range offered {
			if b.audit != a.audit || b.ABI == fdcall.X32 {
				continue
			}
			if slices.ContainsFunc(offered, func(x abi) bool { return x.ABI == fdcall.X32 && x.audit == a.audit }) {
				native := c.label()
				c.unless(bpf.JumpGreaterOrEqual, x32Bit, native)
				c.numbers(fdcall.X32, false)
				c.place(native)
			}
			c.numbers(b.ABI, b == offered[0])
		}
		c.place(next)
	}
	// No other architecture can run on this kernel. Should one appear, its
	// calls are reported as not enforced.
	c.ret(notify)
	return c.assemble()
}

const (
	allow  = unix.SECCOMP_RET_ALLOW
	notify = unix.SECCOMP_RET_USER_NOTIF
)

// numbers emits the decision for the calls of one ABI, with the number loaded.
func (c *compiler) numbers(a fdcall.ABI, native bool) {
	decide := make(map[uint32]func())
	for i := range c.Table.All() {
		if n := c.Table.All()[i].Nr[a]; n != fdcall.None && c.traps(a, n) {
			decide[uint32(n)] = func() { c.rows(a, n, native) }
		}
	}
	for _, n := range c.Numbers {
		if a == fdcall.X32 {
			n |= x32Bit
		}
		decide[n] = func() { c.ret(notify) }
	}
	for _, s := range cancelSignals {
		if n, ok := s.nr[a]; ok && c.Cancel {
			decide[n] = func() { c.cancelSignal(s.arg, s.signal) }
		}
	}
	sorted := make([]uint32, 0, len(decide))
	for n := range decide {
		sorted = append(sorted, n)
	}
	slices.Sort(sorted)
	c.search(sorted, decide)
}

// cancelSignals are the calls by which pthread_cancel(3) sends its signal:
// tgkill(pid, tid, 32) in glibc (nptl/pthread_cancel.c), tkill(tid, 33) in
// musl (src/thread/pthread_kill.c). glibc sends 33 by tgkill, to change the
// user ID of all threads.
var cancelSignals = []struct {
	nr          map[fdcall.ABI]uint32
	arg, signal uint32
}{
	{map[fdcall.ABI]uint32{fdcall.AMD64: 234, fdcall.ARM64: 131}, 2, 32},
	{map[fdcall.ABI]uint32{fdcall.AMD64: 200, fdcall.ARM64: 130}, 1, 33},
}

// search emits a binary search for the loaded number.
func (c *compiler) search(numbers []uint32, decide map[uint32]func()) {
	switch len(numbers) {
	case 0:
		c.ret(allow)
	case 1:
		other := c.label()
		c.unless(bpf.JumpEqual, numbers[0], other)
		decide[numbers[0]]()
		c.place(other)
		c.ret(allow)
	default:
		middle := len(numbers) / 2
		lower := c.label()
		c.unless(bpf.JumpGreaterOrEqual, numbers[middle], lower)
		c.search(numbers[middle:], decide)
		c.place(lower)
		c.search(numbers[:middle], decide)
	}
}

// traps reports whether any call with the number may need something.
func (c *compiler) traps(a fdcall.ABI, n int32) bool {
	return slices.ContainsFunc(c.Table.ByNumber(a, n), func(call *fdcall.Call) bool { return c.wants(call) != 0 })
}

// wants is what the call's descriptors lack unless it asks for it itself.
func (c *compiler) wants(call *fdcall.Call) fdcall.Want {
	w := call.Applicable(c.Want(call))
	if call.Block {
		w = c.Want(call) // what applies depends on the operation's own row
	}
	return w
}

// rows emits the decision for a number of the table: the first row whose
// conditions hold decides, as in Table.Lookup.
func (c *compiler) rows(a fdcall.ABI, n int32, native bool) {
	for _, call := range c.Table.ByNumber(a, n) {
		next := c.label()
		for _, w := range call.When {
			c.require(w, next)
		}
		c.row(call, native)
		c.place(next)
		if len(call.When) == 0 {
			return // it always holds
		}
	}
	c.ret(allow)
}

// row emits the decision for one row.
func (c *compiler) row(call *fdcall.Call, native bool) {
	want := c.wants(call)
	if want == 0 {
		c.ret(allow)
		return
	}
	flags, missing := call.Carries(want)
	if missing == 0 && flags != 0 && call.FlagsArg != fdcall.NoFlags && !call.Indirect && !call.Block {
		lacking := c.label()
		c.load(dataArgs + 8*uint32(call.FlagsArg))
		c.and(flags)
		c.unless(bpf.JumpEqual, flags, lacking)
		c.ret(allow)
		c.place(lacking)
	}
	if native {
		outside := c.label()
		c.load(dataIP + 4)
		c.unless(bpf.JumpEqual, 0, outside)
		c.load(dataIP)
		c.unless(bpf.JumpGreaterOrEqual, uint32(c.Stub.Lo), outside)
		c.unless(bpf.JumpLessThan, uint32(c.Stub.Hi), outside)
		c.ret(allow)
		c.place(outside)
	}
	c.ret(notify)
}

// require emits a jump to otherwise unless the condition holds.
func (c *compiler) require(w fdcall.Cond, otherwise label) {
	holds := c.label()
	differs := otherwise
	if w.Not {
		differs = holds
	}
	for half := range uint32(2) {
		mask, value := uint32(w.Mask>>(32*half)), uint32(w.Value>>(32*half))
		if mask == 0 && value == 0 {
			continue
		}
		c.load(dataArgs + 8*uint32(w.Arg) + 4*half)
		if mask != 1<<32-1 {
			c.and(mask)
		}
		c.unless(bpf.JumpEqual, value, differs)
	}
	if w.Not {
		c.jump(otherwise)
	}
	c.place(holds)
}

// cancelSignal emits the decision for a call that sends a signal.
func (c *compiler) cancelSignal(arg, signal uint32) {
	other := c.label()
	c.load(dataArgs + 8*arg)
	c.unless(bpf.JumpEqual, signal, other)
	c.ret(notify)
	c.place(other)
	c.ret(allow)
}

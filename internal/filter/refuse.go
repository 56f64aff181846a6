package filter

import (
	"fmt"
	"maps"
	"runtime"
	"slices"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"github.com/seed-055cd0c8/indirect/fdcall"
)

// Refusals are calls that the kernel is to refuse by itself, at native speed.
// Their program goes on top of that of [Compile]: where two filters disagree,
// refusing beats notifying and allowing (seccomp(2)).
type Refusals struct {
	// Calls are tried in order: the first one that a call meets decides.
	Calls []Refusal
	// Unknown is the first of the numbers that have no meaning yet: calls from
	// it to 511, the kernel's next room for all ABIs, fail with ENOSYS. Zero:
	// none of them.
	Unknown uint32
	// Spared is where native calls may be made nevertheless: our own code.
	Spared Range
}

// Refusal names calls that fail with Errno: those with the number Nr of their
// ABI (fdcall.None where there is none) whose arguments meet all conditions.
type Refusal struct {
	Nr    fdcall.Numbers
	When  []fdcall.Cond
	Errno unix.Errno
}

// endUnknown is where x32 begins to have numbers of its own.
const endUnknown = 512

// CompileRefusals returns the program for kernels of the architecture that we
// run on. It fails if there is none for it, or if an error number is none that
// a filter can give.
func CompileRefusals(r Refusals) ([]unix.SockFilter, error) {
	return compileRefusals(runtime.GOARCH, r)
}

func compileRefusals(arch string, r Refusals) ([]unix.SockFilter, error) {
	offered, ok := abis[arch]
	if !ok {
		return nil, fmt.Errorf("there is no filter for the architecture %s", arch)
	}
	if r.Spared.Lo > r.Spared.Hi || r.Spared.Hi > low32 {
		return nil, fmt.Errorf("the addresses %#x to %#x are no range below 4 GiB", r.Spared.Lo, r.Spared.Hi)
	}
	c := refuser{Refusals: r, refuse: make(map[unix.Errno]point)}
	c.allow = c.ret(unix.SECCOMP_RET_ALLOW)
	const maxErrno = 4095 // the kernel caps it (MAX_ERRNO)
	c.refuse[unix.ENOSYS] = c.ret(unix.SECCOMP_RET_ERRNO | uint32(unix.ENOSYS))
	for _, call := range r.Calls {
		if call.Errno == 0 || call.Errno > maxErrno {
			return nil, fmt.Errorf("a filter cannot refuse calls with the error number %d", call.Errno)
		}
		if _, ok := c.refuse[call.Errno]; !ok {
			c.refuse[call.Errno] = c.ret(unix.SECCOMP_RET_ERRNO | uint32(call.Errno))
		}
	}
	start := c.allow
	for _, a := range slices.Backward(offered) {
		if a.ABI == fdcall.X32 {
			continue // decided together with amd64
		}
		number := c.calls(a.ABI, a == offered[0])
		if slices.Contains(offered, abi{fdcall.X32, a.audit}) {
			number = c.branch(bpf.JumpGreaterOrEqual, x32Bit, c.calls(fdcall.X32, false), number)
		}
		start = c.branch(bpf.JumpEqual, a.audit, c.load(dataNr, number), start)
	}
	c.load(dataArch, start)
	return c.assemble()
}

// refuser writes the program that the refusals ask for.
type refuser struct {
	Refusals
	compiler
	refuse map[unix.Errno]point
}

// calls decides about a call of one ABI, with the number loaded.
func (c *refuser) calls(a fdcall.ABI, native bool) point {
	spare := func(refuse, otherwise point) point {
		if !native || refuse == otherwise {
			return refuse
		}
		return c.unlessIn(c.Spared, refuse, otherwise)
	}
	decisions := make(map[uint32]point)
	for _, call := range slices.Backward(c.Refusals.Calls) {
		if call.Nr[a] == fdcall.None {
			continue
		}
		n := uint32(call.Nr[a])
		otherwise, ok := decisions[n]
		if !ok {
			otherwise = c.allow
		}
		decision := spare(c.refuse[call.Errno], c.allow)
		for _, w := range slices.Backward(call.When) {
			decision = c.when(w, decision, otherwise)
		}
		decisions[n] = decision
	}
	base := uint32(0)
	if a == fdcall.X32 {
		base = x32Bit
	}
	known := c.search(slices.Sorted(maps.Keys(decisions)), decisions)
	if c.Unknown == 0 || c.Unknown >= endUnknown {
		return known
	}
	unknown := c.branch(bpf.JumpGreaterOrEqual, base+c.Unknown, c.refuse[unix.ENOSYS], known)
	return c.branch(bpf.JumpGreaterOrEqual, base+endUnknown, known, unknown)
}

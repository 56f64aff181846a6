package filter

import (
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"

	"github.com/seed-055cd0c8/indirect/fdcall"
)

// refusals are calls of each kind: whole, by flag, by operation, twice.
func refusals() Refusals {
	set := func(arg uint8, bits uint64) []fdcall.Cond {
		return []fdcall.Cond{{Arg: arg, Mask: bits, Not: true}}
	}
	table := fdcall.Linux()
	nr := func(name string) fdcall.Numbers { return table.ByID(name).Nr }
	return Refusals{
		Calls: []Refusal{
			{Nr: nr("pipe2"), Errno: unix.ENOSYS},
			{Nr: nr("openat2"), Errno: unix.EPERM},
			{Nr: nr("recvmsg"), Errno: unix.ENOSYS},
			{Nr: nr("socket"), When: set(1, unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK), Errno: unix.EINVAL},
			{Nr: nr("fcntl F_DUPFD_CLOEXEC"), When: table.ByID("fcntl F_DUPFD_CLOEXEC").When, Errno: unix.EINVAL},
			{Nr: nr("fcntl F_DUPFD"), When: table.ByID("fcntl F_DUPFD").When, Errno: unix.EPERM},
			{Nr: nr("socket"), Errno: unix.EACCES},
			{Nr: nr("eventfd2"), When: []fdcall.Cond{{Arg: 0, Mask: ^uint64(0), Value: 1 << 40}}, Errno: unix.E2BIG},
		},
		Unknown: 472,
		Spared:  Range{Lo: 0x41234000, Hi: 0x41234e00},
	}
}

// refused is what is to become of a call.
func refused(arch string, r Refusals, c call) uint32 {
	abi, native, ok := abiOf(arch, c)
	if !ok {
		return allow
	}
	if n := added(abi, c.nr); n >= r.Unknown && n < endUnknown {
		return unix.SECCOMP_RET_ERRNO | uint32(unix.ENOSYS)
	}
	for _, call := range r.Calls {
		row := fdcall.Call{When: call.When}
		if call.Nr[abi] != fdcall.None && uint32(call.Nr[abi]) == c.nr && row.Matches(&c.args) {
			if native && r.Spared.Lo <= c.ip && c.ip < r.Spared.Hi {
				return allow
			}
			return unix.SECCOMP_RET_ERRNO | uint32(call.Errno)
		}
	}
	return allow
}

func TestRefusals(t *testing.T) {
	r := refusals()
	forEachABI(t, func(t *testing.T, arch string, a abi) {
		program, err := compileRefusals(arch, r)
		if err != nil {
			t.Fatal(err)
		}
		m := loaded(t, program)
		base := uint32(0)
		if a.ABI == fdcall.X32 {
			base = x32Bit
		}
		args := []uint64{0, 1, unix.SOCK_CLOEXEC | 1, unix.F_DUPFD_CLOEXEC, 1 << 40, 1<<64 - 1}
		for n := range uint32(600) {
			for _, ip := range places(r.Spared) {
				for _, arg := range args {
					c := call{nr: base + n, audit: a.audit, ip: ip, args: [6]uint64{arg, arg}}
					if got, want := m.decide(t, c), refused(arch, r, c); got != want {
						t.Fatalf("call %d from %#x with %#x: %#x, want %#x", n, ip, arg, got, want)
					}
				}
			}
		}
	})
}

func TestRandomRefusals(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		cond := rapid.Custom(func(t *rapid.T) fdcall.Cond {
			return fdcall.Cond{
				Arg: rapid.Uint8Range(0, 5).Draw(t, "arg"), Mask: rapid.Uint64().Draw(t, "mask"),
				Value: rapid.Uint64Range(0, 3).Draw(t, "value"), Not: rapid.Bool().Draw(t, "not"),
			}
		})
		r := Refusals{
			Unknown: rapid.Uint32Range(0, 520).Draw(t, "unknown"), Spared: Range{Lo: 0x1000, Hi: 0x2000},
			Calls: rapid.SliceOfN(rapid.Custom(func(t *rapid.T) Refusal {
				n := rapid.Int32Range(0, 20).Draw(t, "nr")
				return Refusal{
					Nr:    fdcall.Numbers{n, n, fdcall.None, n | x32Bit},
					When:  rapid.SliceOfN(cond, 0, 2).Draw(t, "when"),
					Errno: unix.Errno(rapid.IntRange(1, 133).Draw(t, "errno")),
				}
			}), 0, 20).Draw(t, "calls"),
		}
		program, err := compileRefusals("amd64", r)
		if err != nil {
			t.Fatal(err)
		}
		m := loaded(t, program)
		if r.Unknown == 0 {
			r.Unknown = endUnknown // what it means
		}
		for range 30 {
			c := call{
				nr:    rapid.Uint32Range(0, 520).Draw(t, "nr") | rapid.SampledFrom([]uint32{0, x32Bit}).Draw(t, "x32"),
				audit: rapid.SampledFrom([]uint32{unix.AUDIT_ARCH_X86_64, unix.AUDIT_ARCH_I386, 7}).Draw(t, "arch"),
				ip:    rapid.SampledFrom(places(r.Spared)).Draw(t, "ip"),
			}
			for i := range c.args {
				c.args[i] = rapid.Uint64Range(0, 3).Draw(t, "value")
			}
			if got, want := m.decide(t, c), refused("amd64", r, c); got != want {
				t.Fatalf("%+v: %#x, want %#x", c, got, want)
			}
		}
	})
}

// What is not refused costs nothing: the kernel does not even run the program.
func TestUnrefusedCallsAreConstant(t *testing.T) {
	program, err := compileRefusals("amd64", refusals())
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range []uint32{0, 22, 257, 471, 512} {
		if !isConstAllow(program, n, unix.AUDIT_ARCH_X86_64) {
			t.Errorf("the program runs for call %d", n)
		}
	}
}

func TestImpossibleRefusals(t *testing.T) {
	for _, test := range []struct {
		arch string
		r    Refusals
		want string
	}{
		{"riscv64", Refusals{}, "riscv64"},
		{"amd64", Refusals{Spared: Range{Lo: 2, Hi: 1}}, "no range"},
		{"amd64", Refusals{Spared: Range{Hi: 1 << 33}}, "no range"},
		{"amd64", Refusals{Calls: []Refusal{{}}}, "error number 0"},
		{"amd64", Refusals{Calls: []Refusal{{Errno: 4096}}}, "error number 4096"},
	} {
		if _, err := compileRefusals(test.arch, test.r); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s, %+v: %v, want %q", test.arch, test.r, err, test.want)
		}
	}
}

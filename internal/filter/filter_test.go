package filter

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"

	"github.com/seed-055cd0c8/indirect/fdcall"
)

const everything = fdcall.Cloexec | fdcall.Nonblock | fdcall.Nonseq

// rules are those of a run that wants the same for all calls.
func rules(want fdcall.Want) Rules {
	return Rules{
		Table:   fdcall.Linux(),
		Want:    func(*fdcall.Call) fdcall.Want { return want },
		Stub:    Range{Lo: 0x41234000, Hi: 0x41244000},
		Numbers: []uint32{2007},
		Cancel:  true,
	}
}

// places are instruction addresses in, around and far from the stub.
func places(s Range) []uint64 {
	return []uint64{0, s.Lo - 1, s.Lo, s.Lo + 2, s.Hi - 1, s.Hi, s.Lo + 1<<32, s.Lo | 0x7fff<<32, 1<<64 - 1}
}

// wants are the sets of properties that the exhaustive tests try.
var wants = []fdcall.Want{
	0, fdcall.Cloexec, fdcall.Nonblock, fdcall.Nonseq, fdcall.Cloexec | fdcall.Nonblock, everything,
}

// forEachABI runs f for each architecture's ABIs.
func forEachABI(t *testing.T, f func(t *testing.T, arch string, a abi)) {
	for arch, offered := range abis {
		for _, a := range offered {
			t.Run(a.String(), func(t *testing.T) {
				t.Parallel()
				f(t, arch, a)
			})
		}
	}
}

// agree fails unless the program and the oracle say the same of c.
func agree(t rapid.TB, m machine, arch string, r Rules, c call) {
	if got, want := m.decide(t, c), oracle(arch, r, c); got != want {
		t.Helper() // not for each of a million calls: it walks the stack
		t.Fatalf("%s: call %d (arch %#x) from %#x with %#x: the program says %#x, the table %#x",
			arch, c.nr, c.audit, c.ip, c.args, got, want)
	}
}

// meeting returns arguments that meet the row's conditions, with all other bits as in fill.
func meeting(row *fdcall.Call, fill uint64) [6]uint64 {
	var args [6]uint64
	for i := range args {
		args[i] = fill
	}
	for _, w := range row.When {
		a := &args[w.Arg]
		if !w.Not {
			*a = *a&^w.Mask | w.Value
		} else if *a&w.Mask == w.Value {
			*a ^= w.Mask & -w.Mask // its lowest bit
		}
	}
	return args
}

func TestEveryRowAndArgumentBit(t *testing.T) {
	forEachABI(t, func(t *testing.T, arch string, a abi) {
		for _, want := range wants {
			r := rules(want)
			m := compiled(t, arch, r)
			for i := range r.Table.All() {
				row := &r.Table.All()[i]
				if row.Nr[a.ABI] == fdcall.None {
					continue
				}
				for _, fill := range []uint64{0, 1<<64 - 1} {
					c := call{nr: uint32(row.Nr[a.ABI]), audit: a.audit, args: meeting(row, fill)}
					if fill == 0 && !row.Matches(&c.args) {
						t.Fatalf("%s: no arguments found", row.ID())
					}
					for _, c.ip = range places(r.Stub) {
						agree(t, m, arch, r, c)
					}
					for _, c.ip = range []uint64{0, r.Stub.Lo} {
						for bit := range 6 * 64 {
							flipped := c
							flipped.args[bit/64] ^= 1 << (bit % 64)
							agree(t, m, arch, r, flipped)
						}
					}
				}
			}
		}
	})
}

func TestEachFlagAloneIsNotEnough(t *testing.T) {
	forEachABI(t, func(t *testing.T, arch string, a abi) {
		r := rules(fdcall.Cloexec | fdcall.Nonblock)
		m := compiled(t, arch, r)
		tried := 0
		for i := range r.Table.All() {
			row := &r.Table.All()[i]
			flags, missing := row.Carries(row.Applicable(r.Want(row)))
			if row.Nr[a.ABI] == fdcall.None || row.Indirect || row.Block || flags == 0 || missing != 0 {
				continue
			}
			tried++
			args := meeting(row, 0)
			for subset := flags; ; subset = (subset - 1) & flags {
				args[row.FlagsArg] = args[row.FlagsArg]&^uint64(flags) | uint64(subset)
				want := uint32(notify)
				if subset == flags {
					want = allow
				}
				if got := m.decide(t, call{nr: uint32(row.Nr[a.ABI]), audit: a.audit, args: args}); got != want {
					t.Errorf("%s with flags %#x: %#x, want %#x", row.ID(), subset, got, want)
				}
				if subset == 0 {
					break
				}
			}
		}
		if tried < 10 {
			t.Errorf("only %d rows have flags of their own", tried)
		}
	})
}

// TestDecisions has what the other tests' oracle could have misunderstood.
func TestDecisions(t *testing.T) {
	const (
		x86    = unix.AUDIT_ARCH_X86_64
		i386   = unix.AUDIT_ARCH_I386
		oCloex = unix.O_CLOEXEC
	)
	r := rules(fdcall.Cloexec)
	stub := r.Stub.Lo + 2
	for _, test := range []struct {
		name string
		call call
		want uint32
	}{
		{"openat without the flag", call{nr: 257, audit: x86}, notify},
		{"openat with the flag", call{nr: 257, audit: x86, args: [6]uint64{2: oCloex}}, allow},
		{"openat with the flag in the unused half", call{nr: 257, audit: x86, args: [6]uint64{2: oCloex << 32}}, notify},
		{"openat with the flag in another argument", call{nr: 257, audit: x86, args: [6]uint64{3: oCloex}}, notify},
		{"openat by the stub", call{nr: 257, audit: x86, ip: stub}, allow},
		{"openat 4 GiB above the stub", call{nr: 257, audit: x86, ip: stub + 1<<32}, notify},
		{"openat of x32", call{nr: 1<<30 | 257, audit: x86}, notify},
		{"openat of x32 with the flag", call{nr: 1<<30 | 257, audit: x86, args: [6]uint64{2: oCloex}}, allow},
		{"openat of x32 at the stub's address", call{nr: 1<<30 | 257, audit: x86, ip: stub}, notify},
		{"openat of i386", call{nr: 295, audit: i386}, notify},
		{"openat of i386 with the flag", call{nr: 295, audit: i386, args: [6]uint64{2: oCloex}}, allow},
		{"openat of i386 at the stub's address", call{nr: 295, audit: i386, ip: stub}, notify},
		{"openat's number on i386 (remap_file_pages)", call{nr: 257, audit: i386}, allow},
		{"pipe", call{nr: 22, audit: x86}, notify},
		{"pipe by the stub", call{nr: 22, audit: x86, ip: stub}, allow},
		{"dup2", call{nr: 33, audit: x86}, allow},
		{"fcntl F_DUPFD", call{nr: 72, audit: x86, args: [6]uint64{1: unix.F_DUPFD}}, notify},
		{"fcntl F_DUPFD with rubbish in the unused half", call{nr: 72, audit: x86, args: [6]uint64{1: 1<<32 | unix.F_DUPFD}}, notify},
		{"fcntl F_DUPFD_CLOEXEC", call{nr: 72, audit: x86, args: [6]uint64{1: unix.F_DUPFD_CLOEXEC}}, allow},
		{"fcntl F_GETFD", call{nr: 72, audit: x86, args: [6]uint64{1: unix.F_GETFD}}, allow},
		{"openat2, whose flags are in memory", call{nr: 437, audit: x86, args: [6]uint64{2: oCloex}}, notify},
		{"openat2 by the stub", call{nr: 437, audit: x86, ip: stub}, allow},
		{"socketcall SYS_SOCKET", call{nr: 102, audit: i386, args: [6]uint64{0: 1, 1: oCloex}}, notify},
		{"socketcall SYS_BIND", call{nr: 102, audit: i386, args: [6]uint64{0: 2}}, allow},
		{"recvmsg of x32", call{nr: 1<<30 | 519, audit: x86}, notify},
		{"recvmsg's amd64 number with x32's bit", call{nr: 1<<30 | 47, audit: x86}, allow},
		{"the added call", call{nr: 2007, audit: x86}, notify},
		{"the added call by the stub", call{nr: 2007, audit: x86, ip: stub}, notify},
		{"the added call of i386", call{nr: 2007, audit: i386}, notify},
		{"the added call of x32", call{nr: 1<<30 | 2007, audit: x86}, notify},
		{"its neighbour", call{nr: 2008, audit: x86}, allow},
		{"the signal of glibc's pthread_cancel", call{nr: 234, audit: x86, args: [6]uint64{2: 32}}, notify},
		{"the signal of glibc's pthread_cancel by the stub", call{nr: 234, audit: x86, ip: stub, args: [6]uint64{2: 32}}, notify},
		{"the signal of glibc's setuid", call{nr: 234, audit: x86, args: [6]uint64{2: 33}}, allow},
		{"the signal of musl's pthread_cancel", call{nr: 200, audit: x86, args: [6]uint64{1: 33}}, notify},
		{"tgkill's number on i386 (flistxattr)", call{nr: 234, audit: i386, args: [6]uint64{2: 32}}, allow},
		{"a negative number", call{nr: 1<<32 - 1, audit: x86}, allow},
		{"another architecture", call{nr: 0, audit: unix.AUDIT_ARCH_AARCH64}, notify},
	} {
		m := compiled(t, "amd64", r)
		if got := m.decide(t, test.call); got != test.want {
			t.Errorf("%s: %#x, want %#x", test.name, got, test.want)
		}
		if got := oracle("amd64", r, test.call); got != test.want {
			t.Errorf("%s: the oracle says %#x, want %#x", test.name, got, test.want)
		}
	}
}

// TestKernelAnswersOtherNumbers: the kernel must not run the program for
// numbers about which there is nothing to decide, and must for the others.
func TestKernelAnswersOtherNumbers(t *testing.T) {
	forEachABI(t, func(t *testing.T, arch string, a abi) {
		for _, want := range wants {
			r := rules(want)
			m := compiled(t, arch, r)
			constant := 0
			for n := range uint32(601) {
				nr := n
				if a.ABI == fdcall.X32 {
					nr |= 1 << 30
				}
				concerned := slices.ContainsFunc(r.Table.ByNumber(a.ABI, int32(nr)), func(row *fdcall.Call) bool {
					_, todo := r.Table.Plan(row, r.Want(row))
					return todo
				})
				for _, signal := range cancelSignals[a.ABI] {
					concerned = concerned || nr == signal.nr
				}
				if got := isConstAllow(m.program, nr, a.audit); got == concerned {
					t.Errorf("want %b, number %d: constant %v, but there is something to decide: %v", want, nr, got, concerned)
				} else if got {
					constant++
				}
			}
			if constant < 500 {
				t.Errorf("want %b: the kernel answers only %d of 601 numbers by itself", want, constant)
			}
		}
	})
}

// TestSize holds the program to bounds that leave the table room to grow. The
// kernel takes 4096 instructions for a program, and 32768 for all that a task
// is under (MAX_INSNS_PER_PATH in kernel/seccomp.c): runs can be nested.
func TestSize(t *testing.T) {
	for _, test := range []struct {
		arch         string
		want         fdcall.Want
		length, path int
	}{
		{"amd64", fdcall.Cloexec, 600, 32},
		{"amd64", everything, 400, 32},
		{"arm64", fdcall.Cloexec, 180, 32},
		{"arm64", everything, 120, 32},
	} {
		program := compiled(t, test.arch, rules(test.want)).program
		path := longestPath(program)
		t.Logf("%s, want %03b: %d instructions, at most %d for a call", test.arch, test.want, len(program), path)
		if len(program) > test.length || path > test.path {
			t.Errorf("%s, want %03b: %d instructions, at most %d for a call; the bounds are %d and %d",
				test.arch, test.want, len(program), path, test.length, test.path)
		}
	}
}

func TestNothingToTrap(t *testing.T) {
	r := Rules{Table: fdcall.Linux(), Want: func(*fdcall.Call) fdcall.Want { return 0 }}
	for arch, offered := range abis {
		m := compiled(t, arch, r)
		for _, a := range offered {
			for nr := range uint32(601) {
				if got := m.decide(t, call{nr: nr, audit: a.audit}); got != allow {
					t.Errorf("%s: call %d: %#x", arch, nr, got)
				}
			}
		}
	}
}

func TestRefused(t *testing.T) {
	many := make([]uint32, 5000)
	for i := range many {
		many[i] = uint32(i)
	}
	for _, test := range []struct {
		arch string
		Rules
		err string
	}{
		{"mips", rules(0), "architecture mips"},
		{"amd64", Rules{Stub: Range{Lo: 2, Hi: 1}}, "0x2 to 0x1"},
		{"amd64", Rules{Stub: Range{Lo: 1 << 31, Hi: 1 << 32}}, "below 4 GiB"},
		{"amd64", Rules{Numbers: []uint32{1 << 30}}, "0x40000000"},
		{"arm64", Rules{Table: fdcall.Linux(), Want: rules(0).Want, Numbers: many}, "the kernel takes 4096"},
	} {
		if program, err := Compile(test.arch, test.Rules); err == nil || !strings.Contains(err.Error(), test.err) {
			t.Errorf("%d instructions, error %v, want one with %q", len(program), err, test.err)
		}
	}
}

func uint64s() *rapid.Generator[uint64] {
	return rapid.OneOf(rapid.Uint64(), rapid.Uint64Range(0, 3), rapid.Uint64Range(0, 3<<32|3))
}

// anyTable draws a table that knows nothing of Linux: conditions on any bits
// of any argument, several rows for a number, and sometimes more numbers than
// conditional jumps can reach over.
func anyTable(t *rapid.T) *fdcall.Table {
	numbers := rapid.SampledFrom([]int32{3, 40, 400}).Draw(t, "numbers")
	number := rapid.OneOf(rapid.Int32Range(0, numbers), rapid.SampledFrom([]int32{200, 234, 500})) // tkill, tgkill, perhaps added
	flag := rapid.SampledFrom([]uint32{0, 1, 8, 1 << 31, unix.O_CLOEXEC, unix.O_NONBLOCK, 1<<31 | 1})
	var rows []fdcall.Call
	for i := range rapid.IntRange(1, int(min(numbers, 120))).Draw(t, "rows") {
		c := fdcall.Call{
			Name:         fmt.Sprint("call", i),
			Gives:        rapid.SampledFrom([]fdcall.Gives{fdcall.Ret, fdcall.Ret, fdcall.Pair, fdcall.Control, fdcall.Exact}).Draw(t, "gives"),
			Shares:       rapid.Bool().Draw(t, "shares"),
			Leaves:       fdcall.Want(rapid.SampledFrom([]uint8{0, 0, 0, 2, 7}).Draw(t, "leaves")),
			FlagsArg:     rapid.Int8Range(0, 5).Draw(t, "flags"),
			CloexecBits:  flag.Draw(t, "cloexec"),
			NonblockBits: flag.Draw(t, "nonblock"),
			Class:        rapid.SampledFrom([]fdcall.Class{fdcall.HasFlags, fdcall.Overloads, fdcall.Always, fdcall.Never}).Draw(t, "class"),
		}
		n := number.Draw(t, "number")
		c.Nr = fdcall.Numbers{fdcall.AMD64: n, fdcall.I386: number.Draw(t, "i386"), fdcall.ARM64: fdcall.None, fdcall.X32: n | 1<<30}
		if c.CloexecBits|c.NonblockBits == 0 {
			c.FlagsArg = fdcall.NoFlags
		} else {
			c.Indirect = rapid.IntRange(0, 9).Draw(t, "indirect") == 0
		}
		if i > 0 && c.FlagsArg == fdcall.NoFlags {
			c.Upgrade = &fdcall.Upgrade{To: fmt.Sprint("call", rapid.IntRange(0, i).Draw(t, "to"))}
		}
		for range rapid.IntRange(0, 3).Draw(t, "conditions") {
			w := fdcall.Cond{
				Arg:  rapid.Uint8Range(0, 5).Draw(t, "argument"),
				Mask: rapid.OneOf(uint64s(), rapid.Just(uint64(1<<32-1)), rapid.Just(uint64(0xffffffff<<32))).Draw(t, "mask"),
				Not:  rapid.Bool().Draw(t, "not"),
			}
			w.Value = uint64s().Draw(t, "value")
			if rapid.IntRange(0, 9).Draw(t, "possible") > 0 {
				w.Value &= w.Mask
			}
			c.When = append(c.When, w)
		}
		rows = append(rows, c)
	}
	return fdcall.New(rows)
}

func TestAnyTable(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		table := anyTable(t)
		seed := rapid.Uint64().Draw(t, "wants")
		r := Rules{
			Table: table,
			Want: func(c *fdcall.Call) fdcall.Want {
				return fdcall.Want(seed>>(len(c.When)+3*int(c.FlagsArg+1))) & everything
			},
			Numbers: rapid.SliceOfN(rapid.Uint32Range(450, 500), 0, 3).Draw(t, "added"),
			Cancel:  rapid.Bool().Draw(t, "cancel"),
		}
		r.Stub.Lo = rapid.Uint64Range(0, 1<<31).Draw(t, "lo")
		r.Stub.Hi = r.Stub.Lo + rapid.SampledFrom([]uint64{0, 1, 1 << 16}).Draw(t, "size")
		m := compiled(t, "amd64", r)
		for i := range table.All() {
			row := &table.All()[i]
			for _, a := range abis["amd64"] {
				c := call{
					nr: uint32(row.Nr[a.ABI]), audit: a.audit,
					args: meeting(row, uint64s().Draw(t, "fill")),
					ip:   rapid.SampledFrom(places(r.Stub)).Draw(t, "place"),
				}
				if row.FlagsArg >= 0 && rapid.Bool().Draw(t, "flagged") {
					c.args[row.FlagsArg] |= uint64(row.CloexecBits | row.NonblockBits)
				}
				agree(t, m, "amd64", r, c)
			}
		}
	})
}

func TestAnyCall(t *testing.T) {
	for _, want := range wants {
		r := rules(want)
		for arch, offered := range abis {
			m := compiled(t, arch, r)
			numbers := []uint32{2007, 2007 | 1<<30, 234, 200, 131, 130, 1<<32 - 1}
			for i := range r.Table.All() {
				for _, n := range r.Table.All()[i].Nr {
					numbers = append(numbers, uint32(n), uint32(n)-1, uint32(n)+1, uint32(n)^1<<30)
				}
			}
			rapid.Check(t, func(t *rapid.T) {
				c := call{
					nr:    rapid.OneOf(rapid.SampledFrom(numbers), rapid.Uint32()).Draw(t, "number"),
					audit: rapid.OneOf(rapid.SampledFrom(offered)).Draw(t, "ABI").audit,
					ip:    rapid.OneOf(rapid.SampledFrom(places(r.Stub)), rapid.Uint64()).Draw(t, "place"),
				}
				if rapid.IntRange(0, 50).Draw(t, "foreign") == 0 {
					c.audit = rapid.Uint32().Draw(t, "arch")
				}
				for i := range c.args {
					c.args[i] = rapid.OneOf(uint64s(), rapid.Uint64Range(0, 40),
						rapid.SampledFrom([]uint64{1030, unix.O_CLOEXEC, unix.O_CLOEXEC | unix.O_NONBLOCK, 0x40000000, 0x5441, 0xaa00, 1<<64 - 1})).Draw(t, "argument")
				}
				agree(t, m, arch, r, c)
			})
		}
	}
}

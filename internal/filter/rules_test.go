package filter

import (
	"testing"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
	"pgregory.net/rapid"

	"github.com/seed-055cd0c8/indirect/fdcall"
)

// TestWantsOfEachCall has the table's calls want different things, as policies
// for several programs do: one row's wish must not show in another's, least of
// all among the rows of one number.
func TestWantsOfEachCall(t *testing.T) {
	forEachABI(t, func(t *testing.T, arch string, a abi) {
		rapid.Check(t, func(t *rapid.T) {
			r := rules(0)
			wanted := make(map[*fdcall.Call]fdcall.Want)
			for i := range r.Table.All() {
				row := &r.Table.All()[i]
				wanted[row] = rapid.SampledFrom(wants).Draw(t, row.ID())
			}
			r.Want = func(c *fdcall.Call) fdcall.Want { return wanted[c] }
			m := compiled(t, arch, r)
			for row := range wanted {
				if row.Nr[a.ABI] == fdcall.None {
					continue
				}
				c := call{nr: uint32(row.Nr[a.ABI]), audit: a.audit, args: meeting(row, 0)}
				for _, c.ip = range places(r.Stub) {
					agree(t, m, arch, r, c)
					if row.FlagsArg == fdcall.NoFlags {
						continue
					}
					for _, flags := range []uint32{row.CloexecBits, row.NonblockBits, row.CloexecBits | row.NonblockBits} {
						flagged := c
						flagged.args[row.FlagsArg] |= uint64(flags)
						agree(t, m, arch, r, flagged)
					}
				}
			}
		})
	})
}

// TestAddedCallsAndSignals: what is trapped wherever it comes from, with each
// argument bit, beside rows of the table that have the same number.
func TestAddedCallsAndSignals(t *testing.T) {
	forEachABI(t, func(t *testing.T, arch string, a abi) {
		inTable := uint32(fdcall.Linux().ByID("openat").Nr[a.ABI]) &^ x32Bit
		for _, cancel := range []bool{false, true} {
			for _, numbers := range [][]uint32{nil, {0}, {x32Bit - 1}, {2007, 2008, 2009}, {inTable}, {131, 200, 234}} {
				r := rules(fdcall.Cloexec)
				r.Cancel, r.Numbers = cancel, numbers
				m := compiled(t, arch, r)
				for _, nr := range []uint32{0, x32Bit - 1, 2006, 2007, 2009, 2010, inTable, 129, 130, 131, 199, 200, 234, 270} {
					if a.ABI == fdcall.X32 {
						nr |= x32Bit
					}
					for _, signal := range []uint64{0, 31, 32, 33, 34, 1<<32 | 32, 1<<32 | 33} {
						for _, ip := range places(r.Stub) {
							agree(t, m, arch, r, call{nr: nr, audit: a.audit, ip: ip, args: [6]uint64{signal, signal, signal, signal, signal, signal}})
						}
						for bit := range 6 * 64 {
							c := call{nr: nr, audit: a.audit, args: [6]uint64{1: signal, 2: signal}}
							c.args[bit/64] ^= 1 << (bit % 64)
							agree(t, m, arch, r, c)
						}
					}
				}
			}
		}
	})
}

// TestTraps: calls that others want to see, with conditions of their own,
// among them the former numbers of the calls that we add.
func TestTraps(t *testing.T) {
	former := Trap{Nr: fdcall.AddedCalls()[0].Former, When: fdcall.AddedCalls()[0].Formerly}
	forEachABI(t, func(t *testing.T, arch string, a abi) {
		rapid.Check(t, func(t *rapid.T) {
			r := rules(rapid.SampledFrom(wants).Draw(t, "want"))
			r.Issuer = Range{r.Stub.Lo, r.Stub.Lo + (r.Stub.Hi-r.Stub.Lo)/2}
			numbers := []int32{0, 39, r.Table.ByID("openat").Nr[a.ABI] &^ x32Bit, r.Table.ByID("fcntl F_DUPFD").Nr[a.ABI] &^ x32Bit, 130, 131, 234}
			values := rapid.SampledFrom([]uint64{0, 1, 1 << 20, 1 << 31, low32, 0xfffff000, 1 << 32, 1<<47 - 8, ^uint64(0), 1030})
			r.Traps = append(rapid.SliceOfN(rapid.Custom(func(t *rapid.T) Trap {
				n := rapid.SampledFrom(numbers).Draw(t, "number")
				return Trap{
					Nr: fdcall.Numbers{n, n, n, n | x32Bit},
					When: rapid.SliceOfN(rapid.Custom(func(t *rapid.T) fdcall.Cond {
						mask := rapid.SampledFrom([]uint64{low32, ^uint64(0), 0xfff, ^uint64(0xfff), 1 << 40}).Draw(t, "mask")
						return fdcall.Cond{
							Arg: rapid.Uint8Range(0, 5).Draw(t, "argument"), Mask: mask,
							Value: values.Draw(t, "value") & mask, Not: rapid.Bool().Draw(t, "not"),
						}
					}), 0, 3).Draw(t, "conditions"),
				}
			}), 0, 4).Draw(t, "traps"), former)
			m := compiled(t, arch, r)
			for _, n := range append(numbers, max(0, former.Nr[a.ABI]&^x32Bit)) {
				c := call{nr: uint32(n), audit: a.audit}
				if a.ABI == fdcall.X32 {
					c.nr |= x32Bit
				}
				for i := range c.args {
					c.args[i] = values.Draw(t, "argument")
				}
				for _, c.ip = range append(places(r.Stub), places(r.Issuer)...) {
					agree(t, m, arch, r, c)
				}
			}
		})
	})
}

// TestKernelAnswersUnlessAdded: an added number, and no other, costs the
// kernel's own answer, and the signals do only if they are asked for.
func TestKernelAnswersUnlessAdded(t *testing.T) {
	forEachABI(t, func(t *testing.T, arch string, a abi) {
		for _, added := range []uint32{300, 500} {
			with, without := rules(fdcall.Cloexec), rules(fdcall.Cloexec)
			with.Numbers, without.Numbers, without.Cancel = []uint32{added}, nil, false
			m, plain := compiled(t, arch, with), compiled(t, arch, without)
			for n := range uint32(601) {
				nr := n
				if a.ABI == fdcall.X32 {
					nr |= x32Bit
				}
				constant := isConstAllow(plain.program, nr, a.audit)
				for _, s := range cancelSignals[a.ABI] {
					if s.nr == nr && !constant {
						t.Errorf("number %d is not the kernel's to answer without Cancel", nr)
					}
					constant = constant && s.nr != nr
				}
				if got, want := isConstAllow(m.program, nr, a.audit), constant && n != added; got != want {
					t.Errorf("%d added, number %d: constant %v, want %v", added, nr, got, want)
				}
			}
		}
	})
}

// TestEveryBitOfTheAddress: an address that differs from one at the stub's
// borders in any bit, the highest included, is in the stub or it is not.
func TestEveryBitOfTheAddress(t *testing.T) {
	forEachABI(t, func(t *testing.T, arch string, a abi) {
		for _, stub := range []Range{{}, {Hi: 1}, {Lo: 0x41234000, Hi: 0x41234001}, {Lo: 0x41234000, Hi: 0x41244000}, {Lo: 1 << 31, Hi: low32}} {
			r := rules(fdcall.Cloexec)
			r.Stub = stub
			m := compiled(t, arch, r)
			for _, border := range []uint64{stub.Lo - 1, stub.Lo, stub.Hi - 1, stub.Hi} {
				for bit := range 65 {
					ip := border
					if bit < 64 {
						ip ^= 1 << bit
					}
					for _, row := range []string{"openat", "openat2", "dup"} {
						agree(t, m, arch, r, call{nr: uint32(r.Table.ByID(row).Nr[a.ABI]), audit: a.audit, ip: ip})
					}
				}
			}
		}
	})
}

// TestLoadSkips tries loads that go on right behind themselves and farther.
func TestLoadSkips(t *testing.T) {
	for skip := range 4 {
		var p program
		p.ret(10)
		next := p.ret(11)
		for range skip {
			p.ret(12)
		}
		p.load(dataNr, next)
		assembled, err := p.assemble()
		if err != nil {
			t.Fatal(err)
		}
		if got := loaded(t, assembled).decide(t, call{}); got != 11 {
			t.Errorf("a load that skips %d instructions leads to %d, want 11", skip, got)
		}
	}
}

// TestLongestProgram: as long as the kernel takes, and not longer.
func TestLongestProgram(t *testing.T) {
	for _, length := range []int{unix.BPF_MAXINSNS, unix.BPF_MAXINSNS + 1} {
		var p program
		for range length {
			p.emit(bpf.RetConstant{})
		}
		if assembled, err := p.assemble(); (err == nil) != (length <= unix.BPF_MAXINSNS) {
			t.Errorf("%d instructions: %d assembled, error %v", length, len(assembled), err)
		}
	}
}

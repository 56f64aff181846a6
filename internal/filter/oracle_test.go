package filter

import (
	"encoding/binary"
	"slices"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
	"pgregory.net/rapid"

	"github.com/seed-055cd0c8/indirect/fdcall"
)

// call is what seccomp shows a filter (struct seccomp_data).
type call struct {
	nr, audit uint32
	ip        uint64
	args      [6]uint64
}

const (
	allow  = unix.SECCOMP_RET_ALLOW
	notify = unix.SECCOMP_RET_USER_NOTIF
)

// oracle says what is to become of a call, straight from the table's own
// methods: what the program must agree with.
func oracle(arch string, r Rules, c call) uint32 {
	abi, native, ok := abiOf(arch, c)
	if !ok || slices.Contains(r.Numbers, added(abi, c.nr)) {
		return notify
	}
	if r.Cancel && native && cancels(abi, c) {
		return notify
	}
	for _, t := range r.Traps {
		trapped := &fdcall.Call{When: t.When}
		issued := native && r.Issuer.Lo <= c.ip && c.ip < r.Issuer.Hi
		if t.Nr[abi] == int32(c.nr) && trapped.Matches(&c.args) && !issued {
			return notify
		}
	}
	row := r.Table.Lookup(abi, int32(c.nr), &c.args)
	if row == nil {
		return allow
	}
	plan, ok := r.Table.Plan(row, r.Want(row))
	if !ok {
		return allow
	}
	if plan.To == row && plan.After == 0 && plan.FlagWord == 0 && !row.Block {
		if flags := plan.Args[row.FlagsArg].Bits; uint32(c.args[row.FlagsArg])&flags == flags {
			return allow
		}
	}
	if native && r.Stub.Lo <= c.ip && c.ip < r.Stub.Hi {
		return allow
	}
	return notify
}

func abiOf(arch string, c call) (abi fdcall.ABI, native, ok bool) {
	switch {
	case arch == "amd64" && c.audit == unix.AUDIT_ARCH_X86_64 && c.nr < 1<<30:
		return fdcall.AMD64, true, true
	case arch == "amd64" && c.audit == unix.AUDIT_ARCH_X86_64:
		return fdcall.X32, false, true
	case arch == "amd64" && c.audit == unix.AUDIT_ARCH_I386:
		return fdcall.I386, false, true
	case arch == "arm64" && c.audit == unix.AUDIT_ARCH_AARCH64:
		return fdcall.ARM64, true, true
	}
	return 0, false, false
}

// added is the number of an added call without what the ABI adds to it.
func added(abi fdcall.ABI, nr uint32) uint32 {
	if abi == fdcall.X32 {
		return nr ^ 1<<30
	}
	return nr
}

func cancels(abi fdcall.ABI, c call) bool {
	tgkill, tkill := uint32(234), uint32(200)
	if abi == fdcall.ARM64 {
		tgkill, tkill = 131, 130
	}
	return c.nr == tgkill && uint32(c.args[2]) == 32 || c.nr == tkill && uint32(c.args[1]) == 33
}

// machine runs a program.
type machine struct {
	*bpf.VM
	program []unix.SockFilter
}

func compiled(t rapid.TB, arch string, r Rules) machine {
	t.Helper()
	program, err := Compile(arch, r)
	if err != nil {
		t.Fatal(err)
	}
	return loaded(t, program)
}

func loaded(t rapid.TB, program []unix.SockFilter) machine {
	t.Helper()
	instructions := make([]bpf.Instruction, len(program))
	for i, f := range program {
		instructions[i] = bpf.RawInstruction{Op: f.Code, Jt: f.Jt, Jf: f.Jf, K: f.K}.Disassemble()
	}
	vm, err := bpf.NewVM(instructions)
	if err != nil {
		t.Fatal(err)
	}
	return machine{vm, program}
}

// decide returns the program's answer. The interpreter loads big-endian words,
// as from the network; the kernel's loads are native.
func (m machine) decide(t rapid.TB, c call) uint32 {
	var b [dataArgs + 6*8]byte
	put := func(at int, word uint32) { binary.BigEndian.PutUint32(b[at:], word) }
	put(dataNr, c.nr)
	put(dataArch, c.audit)
	put(dataIP, uint32(c.ip))
	put(dataIP+4, uint32(c.ip>>32))
	for i, a := range c.args {
		put(dataArgs+8*i, uint32(a))
		put(dataArgs+8*i+4, uint32(a>>32))
	}
	action, err := m.Run(b[:])
	if err != nil {
		t.Fatalf("%+v: %v", c, err)
	}
	return uint32(action)
}

// isConstAllow is what the kernel's seccomp_is_const_allow (kernel/seccomp.c)
// finds out before any call is made: whether a number is let through without a
// look at anything but itself and the architecture.
func isConstAllow(program []unix.SockFilter, nr, audit uint32) bool {
	var a uint32
	for pc := 0; pc < len(program); pc++ {
		i := program[pc]
		var met bool
		switch i.Code {
		case unix.BPF_LD | unix.BPF_W | unix.BPF_ABS:
			switch i.K {
			case 0:
				a = nr
			case 4:
				a = audit
			default:
				return false
			}
			continue
		case unix.BPF_RET | unix.BPF_K:
			return i.K == unix.SECCOMP_RET_ALLOW
		case unix.BPF_JMP | unix.BPF_JA:
			pc += int(i.K)
			continue
		case unix.BPF_ALU | unix.BPF_AND | unix.BPF_K:
			a &= i.K
			continue
		case unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K:
			met = a == i.K
		case unix.BPF_JMP | unix.BPF_JGE | unix.BPF_K:
			met = a >= i.K
		case unix.BPF_JMP | unix.BPF_JGT | unix.BPF_K:
			met = a > i.K
		case unix.BPF_JMP | unix.BPF_JSET | unix.BPF_K:
			met = a&i.K != 0
		default:
			return false
		}
		if met {
			pc += int(i.Jt)
		} else {
			pc += int(i.Jf)
		}
	}
	return false
}

// longestPath is the number of instructions on the longest way through a program.
func longestPath(program []unix.SockFilter) int {
	longest := make([]int, len(program))
	for pc := len(program) - 1; pc >= 0; pc-- {
		i := program[pc]
		switch i.Code & 0x7 {
		case unix.BPF_RET:
		case unix.BPF_JMP:
			if i.Code == unix.BPF_JMP|unix.BPF_JA {
				longest[pc] = longest[pc+1+int(i.K)]
			} else {
				longest[pc] = max(longest[pc+1+int(i.Jt)], longest[pc+1+int(i.Jf)])
			}
		default:
			longest[pc] = longest[pc+1]
		}
		longest[pc]++
	}
	return longest[0]
}

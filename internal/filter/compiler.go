package filter

import (
	"fmt"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// compiler collects instructions whose jumps lead to labels. All jumps lead
// forward, as BPF wants it.
type compiler struct {
	Rules
	code   []bpf.Instruction
	jumps  map[int]label // instruction to where it leads
	labels []int         // where each label was placed
}

type label int

func (c *compiler) label() label {
	c.labels = append(c.labels, -1)
	return label(len(c.labels) - 1)
}

func (c *compiler) place(l label) { c.labels[l] = len(c.code) }

func (c *compiler) emit(i bpf.Instruction) { c.code = append(c.code, i) }

func (c *compiler) load(offset uint32) { c.emit(bpf.LoadAbsolute{Off: offset, Size: 4}) }

func (c *compiler) and(mask uint32) { c.emit(bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: mask}) }

func (c *compiler) ret(action uint32) { c.emit(bpf.RetConstant{Val: action}) }

func (c *compiler) jump(to label) {
	if c.jumps == nil {
		c.jumps = make(map[int]label)
	}
	c.jumps[len(c.code)] = to
	c.emit(bpf.Jump{})
}

// unless jumps if the condition does not hold for the loaded value. The
// conditional jump only skips an unconditional one, which reaches further than
// the 255 instructions of a conditional jump.
func (c *compiler) unless(cond bpf.JumpTest, value uint32, to label) {
	c.emit(bpf.JumpIf{Cond: cond, Val: value, SkipTrue: 1})
	c.jump(to)
}

// most is the kernel's limit for one program (BPF_MAXINSNS).
const most = 4096

// assemble resolves the labels.
func (c *compiler) assemble() ([]unix.SockFilter, error) {
	if len(c.code) > most {
		return nil, fmt.Errorf("the filter has %d instructions, the kernel takes %d", len(c.code), most)
	}
	for at, to := range c.jumps {
		target := c.labels[to]
		if target <= at {
			return nil, fmt.Errorf("the filter's jump at %d leads backward, to %d", at, target)
		}
		c.code[at] = bpf.Jump{Skip: uint32(target - at - 1)}
	}
	raw, err := bpf.Assemble(c.code)
	if err != nil {
		return nil, fmt.Errorf("assemble the filter: %w", err)
	}
	program := make([]unix.SockFilter, len(raw))
	for i, r := range raw {
		program[i] = unix.SockFilter{Code: r.Op, Jt: r.Jt, Jf: r.Jf, K: r.K}
	}
	return program, nil
}

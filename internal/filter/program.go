package filter

import (
	"fmt"
	"slices"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// program is a BPF program that is written from its end to its beginning. BPF
// only jumps forward, so that whatever an instruction leads to is there before
// the instruction itself: there are no labels to resolve, every end can be
// shared, and how far a jump goes is known when it is written.
type program struct {
	backward []bpf.Instruction
	relays   map[point]point // the nearest jump to a point that was out of reach
}

// point is a place in a program: the number of instructions from there to the end.
type point int

// reach is how many instructions a conditional jump can skip (8 bits), less the
// relay to its other outcome, which may come between.
const reach = 255 - 1

// here is the point where the program begins so far.
func (p *program) here() point { return point(len(p.backward)) }

func (p *program) emit(i bpf.Instruction) point {
	p.backward = append(p.backward, i)
	return p.here()
}

func (p *program) ret(action uint32) point { return p.emit(bpf.RetConstant{Val: action}) }

// near returns a point within a conditional jump's reach that leads to the point to.
func (p *program) near(to point) point {
	if p.here()-to <= reach {
		return to
	}
	if relay, ok := p.relays[to]; ok && p.here()-relay <= reach {
		return relay
	}
	if p.relays == nil {
		p.relays = make(map[point]point)
	}
	p.relays[to] = p.emit(bpf.Jump{Skip: uint32(p.here() - to)})
	return p.relays[to]
}

// low32 is the mask of a whole word.
const low32 = 1<<32 - 1

// load loads the 32-bit word at offset of struct seccomp_data, then goes on at next.
func (p *program) load(offset uint32, next point) point {
	if skip := p.here() - next; skip > 0 {
		p.emit(bpf.Jump{Skip: uint32(skip)})
	}
	return p.emit(bpf.LoadAbsolute{Off: offset, Size: 4})
}

// branch goes on at yes or no, as the loaded word compares with value.
func (p *program) branch(test bpf.JumpTest, value uint32, yes, no point) point {
	if yes == no {
		return yes
	}
	yes, no = p.near(yes), p.near(no)
	return p.emit(bpf.JumpIf{Cond: test, Val: value, SkipTrue: uint8(p.here() - yes), SkipFalse: uint8(p.here() - no)})
}

// test goes on at yes if word&mask == value for the word at offset, else at no.
// It loads nothing if the answer does not depend on the word.
func (p *program) test(offset, mask, value uint32, yes, no point) point {
	switch {
	case value&^mask != 0:
		return no
	case mask == 0 || yes == no:
		return yes
	}
	masked := p.branch(bpf.JumpEqual, value, yes, no)
	if mask != low32 {
		masked = p.emit(bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: mask})
	}
	return p.load(offset, masked)
}

// assemble returns the program in the kernel's form.
func (p *program) assemble() ([]unix.SockFilter, error) {
	if len(p.backward) > unix.BPF_MAXINSNS {
		return nil, fmt.Errorf("the filter has %d instructions, the kernel takes %d", len(p.backward), unix.BPF_MAXINSNS)
	}
	forward := slices.Clone(p.backward)
	slices.Reverse(forward)
	raw, err := bpf.Assemble(forward)
	if err != nil {
		return nil, fmt.Errorf("assemble the filter: %w", err)
	}
	filter := make([]unix.SockFilter, len(raw))
	for i, r := range raw {
		filter[i] = unix.SockFilter{Code: r.Op, Jt: r.Jt, Jf: r.Jf, K: r.K}
	}
	return filter, nil
}

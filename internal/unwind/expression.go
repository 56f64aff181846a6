package unwind

import (
	"encoding/binary"
	"fmt"
)

// Bounds of an expression's evaluation: real ones need a dozen of each.
const (
	maxOperations = 1000
	maxOperands   = 64
)

// evaluate computes a DWARF expression (DWARF 5, 2.5) of call frame
// information, in which an initial value, the CFA, may be on the stack. bias
// is what the loader added to the addresses that the linker knew.
func evaluate(program []byte, regs *Regs, memory *window, bias uint64, initial ...uint64) (uint64, error) {
	stack := make([]uint64, 0, 16)
	stack = append(stack, initial...)
	word := regs.Arch.word()
	var failed bool
	pop := func() uint64 {
		if len(stack) == 0 {
			failed = true
			return 0
		}
		v := stack[len(stack)-1]
		stack = stack[:len(stack)-1]
		return v
	}
	push := func(v uint64) {
		if word == 4 {
			v = uint64(uint32(v))
		}
		stack = append(stack, v)
	}
	signed := func(v uint64) int64 {
		if word == 4 {
			return int64(int32(v))
		}
		return int64(v)
	}
	d := decoder{b: program, word: word}
	for operations := 0; d.at < len(program); operations++ {
		if operations > maxOperations || len(stack) > maxOperands {
			return 0, fmt.Errorf("%w: an expression that is too long", errCorrupt)
		}
		op := d.byte()
		switch {
		case op >= 0x30 && op <= 0x4f: // lit0...
			push(uint64(op - 0x30))
		case op >= 0x70 && op <= 0x8f: // breg0...
			offset := d.sleb()
			v, err := regs.get(uint64(op - 0x70))
			if err != nil {
				return 0, err
			}
			push(v + uint64(offset))
		default:
			switch op {
			case 0x03: // addr
				push(d.unsigned(word) + bias)
			case 0x06, 0x94: // deref, deref_size
				size := word
				if op == 0x94 {
					size = int(d.byte())
				}
				if size != 1 && size != 2 && size != 4 && size != 8 {
					return 0, errCorrupt
				}
				v, err := memory.sized(pop(), size)
				if err != nil {
					return 0, err
				}
				push(v)
			case 0x08: // const1u...
				push(d.unsigned(1))
			case 0x09:
				push(uint64(int64(int8(d.unsigned(1)))))
			case 0x0a:
				push(d.unsigned(2))
			case 0x0b:
				push(uint64(int64(int16(d.unsigned(2)))))
			case 0x0c:
				push(d.unsigned(4))
			case 0x0d:
				push(uint64(int64(int32(d.unsigned(4)))))
			case 0x0e, 0x0f:
				push(d.unsigned(8))
			case 0x10: // constu, consts
				push(d.uleb())
			case 0x11:
				push(uint64(d.sleb()))
			case 0x12: // dup
				v := pop()
				push(v)
				push(v)
			case 0x13: // drop
				pop()
			case 0x14, 0x15: // over, pick
				n := 1
				if op == 0x15 {
					n = int(d.byte())
				}
				if n >= len(stack) {
					return 0, errCorrupt
				}
				push(stack[len(stack)-1-n])
			case 0x16: // swap
				a, b := pop(), pop()
				push(a)
				push(b)
			case 0x17: // rot
				a, b, c := pop(), pop(), pop()
				push(a)
				push(c)
				push(b)
			case 0x19: // abs
				v := signed(pop())
				push(uint64(max(v, -v)))
			case 0x1f: // neg
				push(-pop())
			case 0x20: // not
				push(^pop())
			case 0x23: // plus_uconst
				push(pop() + d.uleb())
			case 0x1a, 0x1b, 0x1c, 0x1d, 0x1e, 0x21, 0x22, 0x24, 0x25, 0x26, 0x27, 0x29, 0x2a, 0x2b, 0x2c, 0x2d, 0x2e:
				b, a := pop(), pop()
				v, ok := binary2(op, a, b, signed)
				if !ok {
					return 0, errCorrupt
				}
				push(v)
			case 0x2f, 0x28: // skip, bra
				to := int(int16(d.unsigned(2)))
				if op == 0x28 && pop() == 0 {
					break
				}
				to += d.at
				if to < 0 || to > len(program) {
					return 0, errCorrupt
				}
				d.at = to
			case 0x92: // bregx
				n, offset := d.uleb(), d.sleb()
				v, err := regs.get(n)
				if err != nil {
					return 0, err
				}
				push(v + uint64(offset))
			case 0x96: // nop
			default:
				return 0, fmt.Errorf("%w: operation %#x of an expression", errCorrupt, op)
			}
		}
		if failed || d.failed {
			return 0, errCorrupt
		}
	}
	v := pop()
	if failed {
		return 0, errCorrupt
	}
	return v, nil
}

// binary2 computes an operation of two operands.
func binary2(op byte, a, b uint64, signed func(uint64) int64) (uint64, bool) {
	truth := func(t bool) (uint64, bool) {
		if t {
			return 1, true
		}
		return 0, true
	}
	switch op {
	case 0x1a:
		return a & b, true
	case 0x1b:
		if b == 0 || signed(b) == -1 {
			return -a, b != 0
		}
		return uint64(signed(a) / signed(b)), true
	case 0x1c:
		return a - b, true
	case 0x1d:
		if b == 0 {
			return 0, false
		}
		return a % b, true
	case 0x1e:
		return a * b, true
	case 0x21:
		return a | b, true
	case 0x22:
		return a + b, true
	case 0x24:
		return a << min(b, 64), true
	case 0x25:
		return a >> min(b, 64), true
	case 0x26:
		return uint64(signed(a) >> min(b, 63)), true
	case 0x27:
		return a ^ b, true
	case 0x29:
		return truth(a == b)
	case 0x2a:
		return truth(signed(a) >= signed(b))
	case 0x2b:
		return truth(signed(a) > signed(b))
	case 0x2c:
		return truth(signed(a) <= signed(b))
	case 0x2d:
		return truth(signed(a) < signed(b))
	case 0x2e:
		return truth(a != b)
	}
	return 0, false
}

// decoder reads the integers of DWARF. After the end it gives zeros and has failed.
type decoder struct {
	b      []byte
	at     int
	word   int // size of an address
	failed bool
}

func (d *decoder) left() int { return len(d.b) - d.at }

func (d *decoder) take(n int) []byte {
	if n < 0 || n > d.left() {
		d.failed, d.at = true, len(d.b)
		return nil
	}
	d.at += n
	return d.b[d.at-n : d.at]
}

func (d *decoder) byte() byte {
	if b := d.take(1); b != nil {
		return b[0]
	}
	return 0
}

// unsigned reads an integer of 1, 2, 4 or 8 bytes.
func (d *decoder) unsigned(size int) uint64 {
	b := d.take(size)
	if b == nil {
		return 0
	}
	var all [8]byte
	copy(all[:], b)
	return binary.LittleEndian.Uint64(all[:])
}

func (d *decoder) uleb() (v uint64) {
	for shift := 0; ; shift += 7 {
		c := d.byte()
		if shift < 64 {
			v |= uint64(c&0x7f) << shift
		}
		if c&0x80 == 0 {
			return v
		}
	}
}

func (d *decoder) sleb() int64 {
	var v int64
	for shift := 0; ; shift += 7 {
		c := d.byte()
		if shift < 64 {
			v |= int64(c&0x7f) << shift
		}
		if c&0x80 == 0 {
			if c&0x40 != 0 && shift+7 < 64 {
				v |= -1 << (shift + 7)
			}
			return v
		}
	}
}

// pointer reads an encoded pointer (LSB Core, 10.5) that lies at address in a
// section that starts at data.
func (d *decoder) pointer(encoding byte, address, data uint64) uint64 {
	const omitted, indirect, pcrel, datarel = 0xff, 0x80, 0x10, 0x30
	if encoding == omitted {
		return 0
	}
	var v uint64
	switch encoding & 0x0f {
	case 0x00:
		v = d.unsigned(d.word)
	case 0x01:
		v = d.uleb()
	case 0x02:
		v = d.unsigned(2)
	case 0x03:
		v = d.unsigned(4)
	case 0x04, 0x0c:
		v = d.unsigned(8)
	case 0x09:
		v = uint64(d.sleb())
	case 0x0a:
		v = uint64(int64(int16(d.unsigned(2))))
	case 0x0b:
		v = uint64(int64(int32(d.unsigned(4))))
	default:
		d.failed = true
	}
	switch encoding & 0x70 {
	case 0:
	case pcrel:
		v += address
	case datarel:
		v += data
	default:
		d.failed = true
	}
	if encoding&indirect != 0 {
		d.failed = true // occurs for personality routines only, which nobody needs
	}
	if d.word == 4 {
		v = uint64(uint32(v))
	}
	return v
}

package patch

import "encoding/binary"

// leaves reports whether the function, which ends where the gap begins, never
// goes on into the gap. A function that cannot be decoded to its very end
// counts as one that does.
func (m *elfImage) leaves(f function, gap span) bool {
	code := m.bytes(f.start, f.end-f.start)
	for at := f.start; at < f.end; {
		in, ok := decode(code[at-f.start:], at)
		if !ok || gap.has(in.target) {
			return false
		}
		if at += uint64(in.size); at == f.end {
			return in.flow == jump || in.flow == computed || in.flow == ends || in.flow == call
		}
	}
	return false
}

// jumpsTo reports whether the function may jump to the gap in front of it. What
// cannot be decoded has no jumps that count: only short ones matter here, and
// targets finds the others.
func (m *elfImage) jumpsTo(f function, gap span) bool {
	code := m.bytes(f.start, min(f.end-f.start, reach+maxInstruction))
	for at := 0; at < len(code); {
		in, ok := decode(code[at:], f.start+uint64(at))
		if gap.has(in.target) {
			return true
		}
		if !ok {
			return false
		}
		at += in.size
	}
	return false
}

func (s span) has(address uint64) bool { return address >= s.start && address < s.end }

// targets is the set of code addresses that some 32-bit jump or call may go to.
type targets struct {
	segments []segment
	bits     [][]uint64 // for each segment, one bit a byte
}

// newTargets looks at every byte of the code as if it were the first of an
// instruction: more addresses than are jumped to are in the set, none is missing.
func newTargets(segments []segment) *targets {
	t := &targets{segments, make([][]uint64, len(segments))}
	for i := range segments {
		t.bits[i] = make([]uint64, len(segments[i].code)/64+1)
	}
	for i := range segments {
		s := &segments[i]
		for at := 0; at+jumpSize <= len(s.code); at++ {
			operand := at + 1
			switch c := s.code[at]; {
			case c == 0xe8 || c == 0xe9:
			case c == 0x0f && s.code[at+1]&0xf0 == 0x80 && at+jumpSize < len(s.code):
				operand++
			default:
				continue
			}
			distance := int64(int32(binary.LittleEndian.Uint32(s.code[operand:])))
			t.add(s.vaddr + uint64(operand) + 4 + uint64(distance))
		}
	}
	return t
}

func (t *targets) add(address uint64) {
	for i := range t.segments {
		s := &t.segments[i]
		if at := address - s.vaddr; at < uint64(len(s.code)) {
			t.bits[i][at/64] |= 1 << (at % 64)
		}
	}
}

// hit reports whether an address of the span is in the set.
func (t *targets) hit(span span) bool {
	for i := range t.segments {
		s := &t.segments[i]
		for address := span.start; address < span.end; address++ {
			at := address - s.vaddr
			if at < uint64(len(s.code)) && t.bits[i][at/64]&(1<<(at%64)) != 0 {
				return true
			}
		}
	}
	return false
}

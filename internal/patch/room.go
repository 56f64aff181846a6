package patch

import (
	"cmp"
	"slices"
	"sort"
)

// span is a run of bytes that nothing enters and that is free to be used.
type span struct{ start, end uint64 }

func (s span) len() uint64 { return s.end - s.start }

// room hands out the bytes of a file that no control flow enters. What it has
// given is taken back by restoring a copy of the span.
type room struct {
	near []span // by address: within reach of some call site
	far  []span // the others
	next int    // the first of far that is not exhausted
}

// reach is how far a short jump goes, in both directions and rounded down.
const reach = 126

// newRoom finds the free bytes of the image: what lies behind its code, and
// the padding between functions that control flow does not enter. Padding far
// from all of the sites is wanted only until there is enough for them.
func newRoom(m *elfImage, sites []uint64, t *targets) *room {
	r := new(room)
	for _, s := range m.segments {
		if len(s.tail) > 0 {
			r.far = append(r.far, span{s.end(), s.end() + uint64(len(s.tail))})
		}
	}
	enough := len(r.far) + 2*len(sites)
	var last function // the one that ends last
	for _, f := range m.functions {
		g := span{last.end, f.start}
		if last.end > 0 && g.start < g.end && g.len() <= maxGap {
			const twoHops = 2 * reach
			i, _ := slices.BinarySearch(sites, g.start-min(g.start, twoHops))
			near := i < len(sites) && sites[i] < g.end+twoHops
			switch wanted := near || g.len() >= trampolineSize && len(r.far) < enough; {
			case !wanted || !m.isFree(g, last, f) || t.hit(g):
			case near:
				r.near = append(r.near, g)
			default:
				r.far = append(r.far, g)
			}
		}
		if f.end > last.end {
			last = f
		}
	}
	return r
}

// isFree reports whether the gap between two functions is padding that neither
// of them enters. Hand-written code does fall through padding into the next
// function: glibc's __memmove_chk is an example.
func (m *elfImage) isFree(gap span, before, behind function) bool {
	return isPadding(m.bytes(gap.start, gap.len())) && m.leaves(before, gap) && !m.jumpsTo(behind, gap)
}

// maxGap is the largest padding that is believed to be padding.
const maxGap = 4096

// isPadding reports whether b consists of whole NOP and INT3 instructions.
func isPadding(b []byte) bool {
	if len(b) == 0 {
		return false
	}
	for len(b) > 0 {
		n := nopLen(b)
		if n == 0 || n > len(b) {
			return false
		}
		b = b[n:]
	}
	return true
}

// nopLen returns the length of the NOP or INT3 at the start of b, 0 if there
// is none.
func nopLen(b []byte) int {
	const (
		int3, nop     = 0xcc, 0x90
		operand16, cs = 0x66, 0x2e
	)
	if b[0] == int3 {
		return 1
	}
	i := 0
	for i < len(b) && i < maxInstruction && (b[i] == operand16 || b[i] == cs) {
		i++
	}
	switch {
	case i < len(b) && b[i] == nop:
		return i + 1
	case i+2 >= len(b) || b[i] != 0x0f || b[i+1] != 0x1f:
		return 0
	}
	n, _ := operandLen(b, i+2)
	return i + 2 + n
}

// place is where in a span a number of bytes fit.
type place struct {
	span *span
	at   uint64
}

// places returns where n bytes can begin at an address from lo to hi, the
// tightest span first.
func (r *room) places(n, lo, hi uint64) []place {
	var found []place
	i := sort.Search(len(r.near), func(i int) bool { return r.near[i].end > lo })
	for ; i < len(r.near) && r.near[i].start <= hi; i++ {
		s := &r.near[i]
		if s.len() < n {
			continue
		}
		switch last := s.end - n; {
		case s.start >= lo:
			found = append(found, place{s, s.start})
		case last < lo:
		case last <= hi:
			found = append(found, place{s, last})
		default:
			found = append(found, place{s, hi})
		}
	}
	slices.SortStableFunc(found, func(a, b place) int { return cmp.Compare(a.span.len(), b.span.len()) })
	return found
}

// take uses n bytes at p. What lies on the shorter side of them, if anything,
// is given up.
func (p place) take(n uint64) {
	if before, after := p.at-p.span.start, p.span.end-(p.at+n); before > after {
		p.span.end = p.at
	} else {
		p.span.start = p.at + n
	}
}

// takeFar uses n bytes that a long jump at from reaches: out of the reach of
// short ones, if there are any.
func (r *room) takeFar(from, n uint64) (uint64, bool) {
	for i := r.next; i < len(r.far); i++ {
		s := &r.far[i]
		if s.len() < trampolineSize && i == r.next {
			r.next++
		}
		if s.len() >= n && longReach(from, s.start) {
			s.start += n
			return s.start - n, true
		}
	}
	for i := range r.near {
		if s := &r.near[i]; s.len() >= n && longReach(from, s.end-n) {
			s.end -= n
			return s.end, true
		}
	}
	return 0, false
}

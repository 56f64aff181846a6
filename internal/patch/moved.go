package patch

import (
	"bytes"
	"encoding/hex"
	"slices"
	"sort"
	"strings"
)

// movable is an instruction that can be executed elsewhere, and twice: by a
// thread that has executed it, is in front of its call, or in a call that the
// kernel restarts there, and goes back because the call has become a jump.
// So it depends neither on its address, nor on what it changes, nor on RCX
// and R11, which a restarted call has overwritten.
type movable struct {
	before []byte // what must be in front of it
	code   []byte
	any    []bool // bytes of code that can have any value
}

// movables are what compilers and musl write in front of SYSCALL, where it is
// long enough for a jump.
var movables = parseMovables(
	"b8........",     // mov $imm, %eax
	"ba........",     // mov $imm, %edx
	"be........",     // mov $imm, %esi
	"bf........",     // mov $imm, %edi
	"41b8........",   // mov $imm, %r8d
	"41b9........",   // mov $imm, %r9d
	"41ba........",   // mov $imm, %r10d
	"48c7c0........", // mov $imm, %rax
	"48c7c2........", // mov $imm, %rdx
	"48c7c6........", // mov $imm, %rsi
	"48c7c7........", // mov $imm, %rdi
	"49c7c0........", // mov $imm, %r8
	"49c7c2........", // mov $imm, %r10
	// musl's __syscall_cp_asm: mov %r11, 8(%rsp). It does depend on R11, but
	// nothing reads what it stores (src/thread/x86_64/syscall_cp.s).
	"4989fb4889f04889d74889ce4c89c24d89ca4c8b4424084c8b4c2410|4c895c2408",
)

func parseMovables(patterns ...string) []movable {
	var all []movable
	for _, p := range patterns {
		before, code, found := strings.Cut(p, "|")
		if !found {
			before, code = "", p
		}
		m := movable{any: make([]bool, len(code)/2)}
		for i := range m.any {
			m.any[i] = code[2*i] == '.'
		}
		m.before, _ = hex.DecodeString(before)
		m.code, _ = hex.DecodeString(strings.ReplaceAll(code, ".", "0"))
		all = append(all, m)
	}
	return all
}

// matches reports whether b ends in the instruction.
func (m *movable) matches(b []byte) bool {
	if len(b) < len(m.before)+len(m.code) {
		return false
	}
	b = b[len(b)-len(m.before)-len(m.code):]
	if !slices.Equal(b[:len(m.before)], m.before) {
		return false
	}
	for i, c := range b[len(m.before):] {
		if !m.any[i] && c != m.code[i] {
			return false
		}
	}
	return true
}

// movedRoute makes room for a long jump in front of the site by executing the
// instruction there elsewhere. The site becomes a jump back to it.
//
// After the first write nothing has changed for the program. After the second
// a thread at the old instruction makes the call through the thunk, and one
// between it and the site still makes it itself. After the third both go
// through the thunk. That holds only because nothing else jumps to the site:
// it would find its number, say, overwritten.
func (p *planner) movedRoute(site uint64) *Route {
	writes := p.move(site)
	if writes == nil {
		return nil
	}
	return &Route{Kind: Moved, Entry: site, Writes: append(writes, p.divert(site, writes[1].Addr))}
}

// inFrontRoute is what a site in two words gets beside its route r, which may
// be nil.
func (p *planner) inFrontRoute(site uint64, r *Route) *Route {
	var writes []Write
	if r != nil && r.Kind == Moved {
		writes = slices.Clone(r.Writes[:2])
	} else {
		writes = p.move(site)
	}
	if writes == nil || !writes[1].Atomic {
		return nil
	}
	return &Route{Kind: InFront, Entry: writes[1].Addr, Writes: writes}
}

// move makes the writes that move the instruction in front of the site: one
// for its copy, one for the jump to it.
func (p *planner) move(site uint64) []Write {
	const longest = 64
	n := min(longest, site-p.image.segment(site).vaddr)
	code := p.image.bytes(site-n, n)
	for i := range movables {
		m := &movables[i]
		size := uint64(len(m.code))
		at := site - size
		if !m.matches(code) || bytes.Contains(code[n-size:], syscallCode) || !p.enteredInFront(at, site) {
			continue
		}
		cave, ok := p.room.takeFar(at, size+trampolineSize)
		if !ok {
			return nil
		}
		jump := longJump(at, cave)
		for uint64(len(jump)) < size {
			jump = append(jump, 0xcc) // never reached
		}
		old := p.old(at, size)
		return []Write{
			{Addr: cave, Old: p.old(cave, size+trampolineSize), New: append(bytes.Clone(old), trampolineCode...), Thunk: int(size) + 1},
			{Addr: at, Old: old, New: jump, Thunk: -1, Live: true, Atomic: inWord(at, size)},
		}
	}
	return nil
}

// enteredInFront reports whether control enters the instruction at the address
// at and the site behind it only at that address.
//
// Where instructions begin is not known in a file without tables. Decoding from
// any of many consecutive bytes soon finds the true instructions; all that is
// found on the way counts.
func (p *planner) enteredInFront(at, site uint64) bool {
	inside := span{at + 1, site + 1}
	if p.targets.hit(inside) || !p.begins(at) {
		return false
	}
	const starts, lead = 32, 96
	own, known := p.image.functionAt(at)
	s := p.image.segment(at)
	first := max(s.vaddr, at-min(at, reach+maxInstruction+lead+starts))
	code := p.image.bytes(first, min(site+2*reach, s.end())-first)
	seen := make([]bool, len(code))
	for start := range min(starts, len(code)) {
		for i := start; i < len(code) && !seen[i]; {
			seen[i] = true
			address := first + uint64(i)
			in, ok := decode(code[i:], address)
			if !ok {
				i++
				continue
			}
			// A table of jumps leads to places in its own function.
			table := in.flow == computed && (!known || address >= own.start && address < own.end)
			if i += in.size; table || inside.has(in.target) || inside.has(address) && address != site ||
				address < at && first+uint64(i) > at {
				return false
			}
		}
	}
	return seen[at-first] && seen[site-first]
}

// begins reports whether an instruction begins at the address, as
// far as a known function around it tells.
func (p *planner) begins(address uint64) bool {
	f, ok := p.image.functionAt(address)
	if !ok {
		return true
	}
	at := f.start
	code := p.image.bytes(at, f.end-at)
	for at < address {
		in, ok := decode(code[at-f.start:], at)
		if !ok {
			return false
		}
		at += uint64(in.size)
	}
	return at == address
}

// functionAt returns the known function that the address is in, unless that is
// far from its start.
func (m *elfImage) functionAt(address uint64) (function, bool) {
	i := sort.Search(len(m.functions), func(i int) bool { return m.functions[i].start > address }) - 1
	const most = 1 << 16
	if i < 0 || m.functions[i].end <= address || address-m.functions[i].start > most {
		return function{}, false
	}
	return m.functions[i], true
}

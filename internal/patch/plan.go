package patch

import (
	"bytes"
	"encoding/binary"
	"math"
)

const (
	syscallSize    = 2
	hopSize        = 2 // jmp rel8
	jumpSize       = 5 // jmp rel32
	trampolineSize = 7 // mov $thunk, %ecx; jmp *%rcx

	maxSites = 1 << 13
)

var (
	syscallCode    = []byte{0x0f, 0x05}
	trampolineCode = []byte{0xb9, 0, 0, 0, 0, 0xff, 0xe1}
)

// planner makes the routes of one file.
type planner struct {
	image   *elfImage
	room    *room
	targets *targets
}

// plan returns the routes of all sites that have one. All of them are planned
// at once: were room given out on demand, two plans of one file could use the
// same bytes for different sites.
func plan(m *elfImage) (routes, inFront map[uint64]*Route) {
	sites := findSites(m)
	if len(sites) == 0 {
		return nil, nil
	}
	t := newTargets(m.segments)
	p := planner{m, newRoom(m, sites, t), t}
	routes = make(map[uint64]*Route, len(sites))
	for _, way := range []func(uint64) *Route{p.nearRoute, p.farRoute, p.twoHopRoute, p.movedRoute} {
		for _, site := range sites {
			if routes[site] != nil {
				continue
			}
			if r := way(site); r != nil {
				routes[site] = r
			}
		}
	}
	inFront = make(map[uint64]*Route)
	for _, site := range sites {
		if inWord(site, syscallSize) {
			continue
		}
		if r := p.inFrontRoute(site, routes[site]); r != nil {
			inFront[site] = r
		}
	}
	return routes, inFront
}

// findSites returns the addresses of the bytes of SYSCALL instructions.
func findSites(m *elfImage) []uint64 {
	var sites []uint64
	for i := range m.segments {
		s := &m.segments[i]
		for at := 0; len(sites) < maxSites; at += syscallSize {
			n := bytes.Index(s.code[at:], syscallCode)
			if n < 0 {
				break
			}
			at += n
			sites = append(sites, s.vaddr+uint64(at))
		}
	}
	return sites
}

// nearRoute leads from the site to a trampoline within reach.
func (p *planner) nearRoute(site uint64) *Route {
	at, writes := p.trampolineFrom(site)
	if writes == nil {
		return nil
	}
	return &Route{Kind: Near, Entry: site, Writes: append(writes, p.divert(site, at))}
}

// farRoute leads from the site over a long jump within reach to a trampoline.
func (p *planner) farRoute(site uint64) *Route {
	at, writes := p.longJumpFrom(site)
	if writes == nil {
		return nil
	}
	return &Route{Kind: Far, Entry: site, Writes: append(writes, p.divert(site, at))}
}

// twoHopRoute leads from the site over a short jump to what the other routes
// begin with.
func (p *planner) twoHopRoute(site uint64) *Route {
	for _, hop := range p.room.places(hopSize, lowest(site), highest(site)) {
		saved := *hop.span
		hop.take(hopSize)
		at, writes := p.trampolineFrom(hop.at)
		if writes == nil {
			at, writes = p.longJumpFrom(hop.at)
		}
		if writes == nil {
			*hop.span = saved
			continue
		}
		writes = append(writes,
			Write{Addr: hop.at, Old: p.old(hop.at, hopSize), New: shortJump(hop.at, at), Thunk: -1},
			p.divert(site, hop.at))
		return &Route{Kind: TwoHops, Entry: site, Writes: writes}
	}
	return nil
}

// trampolineFrom makes a trampoline that a short jump at from reaches.
func (p *planner) trampolineFrom(from uint64) (uint64, []Write) {
	places := p.room.places(trampolineSize, lowest(from), highest(from))
	if len(places) == 0 {
		return 0, nil
	}
	at := places[0]
	at.take(trampolineSize)
	return at.at, []Write{p.trampoline(at.at)}
}

// longJumpFrom makes a jump that a short jump at from reaches, to a trampoline
// somewhere.
func (p *planner) longJumpFrom(from uint64) (uint64, []Write) {
	places := p.room.places(jumpSize, lowest(from), highest(from))
	if len(places) == 0 {
		return 0, nil
	}
	at, saved := places[0], *places[0].span
	at.take(jumpSize)
	to, ok := p.room.takeFar(at.at, trampolineSize)
	if !ok {
		*at.span = saved
		return 0, nil
	}
	return at.at, []Write{p.trampoline(to), {Addr: at.at, Old: p.old(at.at, jumpSize), New: longJump(at.at, to), Thunk: -1}}
}

// divert is the write at the site.
func (p *planner) divert(site, to uint64) Write {
	return Write{Addr: site, Old: p.old(site, syscallSize), New: shortJump(site, to), Thunk: -1, Live: true, Atomic: inWord(site, syscallSize)}
}

// trampoline is the write of the way to the thunk.
func (p *planner) trampoline(at uint64) Write {
	return Write{Addr: at, Old: p.old(at, trampolineSize), New: bytes.Clone(trampolineCode), Thunk: 1}
}

// old returns what the file has at an address: code, or what lies behind it in
// its last page.
func (p *planner) old(at, n uint64) []byte {
	for i := range p.image.segments {
		s := &p.image.segments[i]
		if at >= s.end() && at < s.end()+uint64(len(s.tail)) {
			return bytes.Clone(s.tail[at-s.end():][:n])
		}
	}
	return bytes.Clone(p.image.bytes(at, n))
}

// inWord reports whether n bytes lie in one aligned word of 8 bytes.
func inWord(at, n uint64) bool { return at%8+n <= 8 }

// lowest and highest bound what a short jump at an address reaches.
func lowest(at uint64) uint64  { return at - min(at, reach) }
func highest(at uint64) uint64 { return at + hopSize + math.MaxInt8 }

func shortJump(from, to uint64) []byte {
	return []byte{0xeb, byte(to - (from + hopSize))}
}

func longJump(from, to uint64) []byte {
	return binary.LittleEndian.AppendUint32([]byte{0xe9}, uint32(to-(from+jumpSize)))
}

// longReach reports whether a jmp rel32 goes so far.
func longReach(from, to uint64) bool {
	distance := int64(to - (from + jumpSize))
	return distance == int64(int32(distance))
}

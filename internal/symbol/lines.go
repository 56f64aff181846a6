package symbol

import (
	"cmp"
	"debug/dwarf"
	"encoding/binary"
	"errors"
	"io"
	"slices"
)

// lines finds functions and lines in DWARF.
type lines struct {
	data    *dwarf.Data
	units   []unit
	indexed bool
	ranges  []unitRange // of units, in order of their addresses
	unknown []int       // units that do not say their range
}

// unit is a compilation unit.
type unit struct {
	at        dwarf.Offset // of its entry
	end       dwarf.Offset
	read      bool
	entry     *dwarf.Entry
	functions []functionRange
	qualified map[dwarf.Offset]string // names of functions in namespaces and classes
}

type unitRange struct {
	start, end uint64
	unit       int
}

// functionRange is a part of a function's code.
type functionRange struct {
	start, end uint64
	at         dwarf.Offset
}

// Bounds of following what debug information says.
const (
	maxUnits      = 1 << 18
	maxChain      = 16
	maxDepth      = 512
	maxLineSteps  = 8 << 20
	maxEntriesPer = 16 << 20 // of entries in a unit
	maxQualified  = 1 << 18
)

// newLines lists the units of .debug_info (DWARF 5, 7.5.1).
func newLines(d *dwarf.Data, info []byte) *lines {
	l := &lines{data: d}
	le := binary.LittleEndian
	for at := uint64(0); at+12 <= uint64(len(info)) && len(l.units) < maxUnits; {
		length, head := uint64(le.Uint32(info[at:])), uint64(4)
		offset := uint64(4)
		if length == 0xffffffff {
			length, head, offset = le.Uint64(info[at+4:]), 12, 8
		}
		if length > uint64(len(info))-at-min(head, uint64(len(info))-at) || length < 8 {
			break
		}
		body := at + head
		version := le.Uint16(info[body:])
		header := 2 + offset + 1
		compile := true
		if version >= 5 {
			const typeUnit, skeleton, splitCompile, splitType = 2, 4, 5, 6
			header = 2 + 1 + 1 + offset
			switch info[body+2] {
			case skeleton, splitCompile:
				header += 8
			case typeUnit, splitType:
				compile = false
			}
		}
		if compile && header < length {
			l.units = append(l.units, unit{at: dwarf.Offset(body + header), end: dwarf.Offset(body + length)})
		}
		at = body + length
	}
	return l
}

// index notes which addresses the units are about.
func (l *lines) index() {
	l.indexed = true
	r := l.data.Reader()
	for i := range l.units {
		r.Seek(l.units[i].at)
		e, err := r.Next()
		if err != nil || e == nil {
			continue
		}
		l.units[i].entry = e
		ranges, err := l.data.Ranges(e)
		if err != nil || len(ranges) == 0 {
			if e.Tag == dwarf.TagCompileUnit {
				l.unknown = append(l.unknown, i)
			}
			continue
		}
		for _, p := range ranges {
			if p[0] < p[1] {
				l.ranges = append(l.ranges, unitRange{p[0], p[1], i})
			}
		}
	}
	slices.SortFunc(l.ranges, func(a, b unitRange) int { return cmp.Compare(a.start, b.start) })
}

// frames returns the functions at an address, the innermost first.
func (l *lines) frames(pc uint64) []Frame {
	if !l.indexed {
		l.index()
	}
	i, ok := slices.BinarySearchFunc(l.ranges, pc, func(r unitRange, pc uint64) int { return cmp.Compare(r.start, pc) })
	if !ok {
		i--
	}
	const overlapping = 8
	for j := i; j >= 0 && i-j < overlapping; j-- {
		if pc < l.ranges[j].end {
			if frames := l.inUnit(&l.units[l.ranges[j].unit], pc); len(frames) > 0 {
				return frames
			}
		}
	}
	for _, u := range l.unknown {
		if frames := l.inUnit(&l.units[u], pc); len(frames) > 0 {
			return frames
		}
	}
	return nil
}

// inUnit returns the functions at an address of a unit.
func (l *lines) inUnit(u *unit, pc uint64) []Frame {
	if !u.read {
		u.read = true
		u.functions = l.functions(u)
	}
	here, ok := l.line(u, pc)
	var chain []Frame // the outermost first; each at the line of the one inside
	for i := range u.functions {
		f := &u.functions[i]
		if pc >= f.start && pc < f.end {
			chain = l.chain(u, f.at, pc)
			break
		}
	}
	if len(chain) == 0 {
		if !ok {
			return nil
		}
		chain = []Frame{{}} // assembler code has lines, but no functions
	}
	last := &chain[len(chain)-1]
	last.File, last.Line = here.File, here.Line
	slices.Reverse(chain)
	return chain
}

// functions lists the functions of a unit, and notes the scopes they are in.
func (l *lines) functions(u *unit) (all []functionRange) {
	u.qualified = make(map[dwarf.Offset]string)
	r := l.data.Reader()
	r.Seek(u.at)
	scopes := []string{} // one for each entry with children around this one
	for range maxEntriesPer {
		e, err := r.Next()
		if err != nil || e == nil || e.Offset >= u.end {
			break
		}
		if e.Tag == 0 {
			if len(scopes) > 0 {
				scopes = scopes[:len(scopes)-1]
			}
			continue
		}
		scope := ""
		if len(scopes) > 0 {
			scope = scopes[len(scopes)-1]
		}
		if e.Children {
			if len(scopes) >= maxDepth {
				break
			}
			scopes = append(scopes, within(scope, e))
		}
		if e.Tag != dwarf.TagSubprogram {
			continue
		}
		if name, ok := e.Val(dwarf.AttrName).(string); ok && scope != "" && len(u.qualified) < maxQualified {
			u.qualified[e.Offset] = scope + name
		}
		ranges, err := l.data.Ranges(e)
		if err != nil {
			continue
		}
		for _, p := range ranges {
			if p[0] < p[1] {
				all = append(all, functionRange{p[0], p[1], e.Offset})
			}
		}
	}
	return all
}

// within is the scope that an entry is for its children.
func within(scope string, e *dwarf.Entry) string {
	const longest = 1 << 10
	switch e.Tag {
	case dwarf.TagNamespace, dwarf.TagClassType, dwarf.TagStructType, dwarf.TagUnionType:
		name, ok := e.Val(dwarf.AttrName).(string)
		if !ok && e.Tag != dwarf.TagNamespace {
			return scope // a lambda's
		}
		if !ok {
			name = "(anonymous namespace)"
		}
		if len(scope)+len(name) < longest {
			return scope + name + "::"
		}
	case dwarf.TagCompileUnit:
		return ""
	}
	return scope
}

// chain returns a function and the calls that were inlined at an address, the
// outermost first. The places are those of the calls, so the last has none yet.
func (l *lines) chain(u *unit, at dwarf.Offset, pc uint64) []Frame {
	r := l.data.Reader()
	r.Seek(at)
	e, err := r.Next()
	if err != nil || e == nil {
		return nil
	}
	chain := []Frame{{Function: l.name(u, e, 0)}}
	if !e.Children {
		return chain
	}
	// inside[d] says whether the entries at depth d+1 belong to code around pc.
	inside := []bool{true}
	for range maxEntriesPer {
		e, err := r.Next()
		if err != nil || e == nil {
			break
		}
		if e.Tag == 0 {
			if inside = inside[:len(inside)-1]; len(inside) == 0 {
				break
			}
			continue
		}
		within := false
		if inside[len(inside)-1] {
			switch e.Tag {
			case dwarf.TagInlinedSubroutine:
				if within = l.covers(e, pc); within {
					caller := &chain[len(chain)-1]
					caller.File, caller.Line = l.callSite(u, e)
					chain = append(chain, Frame{Function: l.name(u, e, 0)})
				}
			case dwarf.TagLexDwarfBlock, dwarf.TagTryDwarfBlock, dwarf.TagCatchDwarfBlock:
				within = true
			}
		}
		if e.Children {
			if inside = append(inside, within); len(inside) > maxDepth {
				break
			}
		}
	}
	return chain
}

func (l *lines) covers(e *dwarf.Entry, pc uint64) bool {
	ranges, err := l.data.Ranges(e)
	return err == nil && slices.ContainsFunc(ranges, func(p [2]uint64) bool { return pc >= p[0] && pc < p[1] })
}

// callSite is where an inlined function was called.
func (l *lines) callSite(u *unit, e *dwarf.Entry) (string, int) {
	line, _ := e.Val(dwarf.AttrCallLine).(int64)
	index, ok := e.Val(dwarf.AttrCallFile).(int64)
	if !ok {
		return "", int(line)
	}
	r, err := l.data.LineReader(u.entry)
	if err != nil || r == nil {
		return "", int(line)
	}
	files := r.Files()
	if index < 0 || index >= int64(len(files)) || files[index] == nil {
		return "", int(line)
	}
	return files[index].Name, int(line)
}

// name finds the name of a function, which may be at the entry that it was
// inlined from or declared at.
func (l *lines) name(u *unit, e *dwarf.Entry, links int) string {
	for _, a := range []dwarf.Attr{dwarf.AttrLinkageName, mipsLinkageName} {
		if s, ok := e.Val(a).(string); ok && s != "" {
			if name := readable(s); name != s {
				return name
			}
		}
	}
	plain, _ := e.Val(dwarf.AttrName).(string)
	if name, ok := u.qualified[e.Offset]; ok {
		plain = name
	}
	if links >= maxChain {
		return plain
	}
	for _, a := range []dwarf.Attr{dwarf.AttrAbstractOrigin, dwarf.AttrSpecification} {
		if at, ok := e.Val(a).(dwarf.Offset); ok {
			r := l.data.Reader()
			r.Seek(at)
			if origin, err := r.Next(); err == nil && origin != nil {
				if name := l.name(u, origin, links+1); name != "" {
					return name
				}
			}
		}
	}
	return plain
}

// mipsLinkageName is what compilers wrote before DWARF 4.
const mipsLinkageName = dwarf.Attr(0x2007)

// place is a line of source.
type place struct {
	File string
	Line int
}

// line finds the line of an address.
func (l *lines) line(u *unit, pc uint64) (place, bool) {
	r, err := l.data.LineReader(u.entry)
	if err != nil || r == nil {
		return place{}, false
	}
	var previous, e dwarf.LineEntry
	have := false
	for range maxLineSteps {
		if err := r.Next(&e); err != nil {
			if !errors.Is(err, io.EOF) {
				return place{}, false
			}
			break
		}
		if have && pc >= previous.Address && pc < e.Address && previous.File != nil {
			return place{previous.File.Name, previous.Line}, true
		}
		previous, have = e, !e.EndSequence
	}
	return place{}, false
}

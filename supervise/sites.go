package supervise

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"

	"github.com/seed-055cd0c8/indirect/fdcall"
	"github.com/seed-055cd0c8/indirect/internal/image"
	"github.com/seed-055cd0c8/indirect/internal/listener"
	"github.com/seed-055cd0c8/indirect/internal/patch"
	"github.com/seed-055cd0c8/indirect/internal/tracee"
)

// sites remembers, for each file of code, how to divert its call sites.
type sites struct {
	files map[fileID]*codeFile
}

// fileID tells files apart. An overwritten file may keep its identity: what a
// plan expects is therefore compared with the process's memory each time.
type fileID struct {
	dev   string
	inode uint64
}

// codeFile is a file of code that is mapped in processes.
type codeFile struct {
	planned chan struct{} // closed when result is there: after 10 ms for a C library
	result  *patch.File   // nil if the file cannot be planned
	// known are the sites that have trapped in some process and have a route:
	// they are diverted before they trap in others.
	known []uint64
}

// Bounds on what is remembered.
const (
	maxFiles = 512
	maxKnown = 256 // sites a file
)

func newSites() sites { return sites{files: make(map[fileID]*codeFile)} }

// file returns what is known of the file behind the mapping. Its plan is under
// way then.
func (s *sites) file(tid int, m *tracee.Mapping) *codeFile {
	id := fileID{m.Dev, m.Inode}
	if f, ok := s.files[id]; ok {
		return f
	}
	if len(s.files) >= maxFiles {
		clear(s.files)
	}
	f := &codeFile{planned: make(chan struct{})}
	s.files[id] = f
	file, err := tracee.OpenMapped(tid, m)
	if err != nil {
		close(f.planned)
		return f
	}
	go func() {
		defer close(f.planned)
		f.result = planOf(file)
	}()
	return f
}

// plan waits for the plan, which is nil if there can be none.
func (f *codeFile) plan() *patch.File {
	<-f.planned
	return f.result
}

// awaits reports whether plan would wait.
func (f *codeFile) awaits() bool {
	select {
	case <-f.planned:
		return false
	default:
		return true
	}
}

// planOf plans a file, and closes it.
func planOf(file *os.File) *patch.File {
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return nil
	}
	plan, err := patch.Open(file, info.Size())
	if err != nil {
		return nil
	}
	return plan
}

// foresee begins to plan the file of the first call site that traps: most
// likely it is the C library of all the programs that are to come, and the
// first of them needs no plan yet.
func (e *engine) foresee(n listener.Notification) {
	if e.NoPatch {
		return
	}
	m, err := tracee.CodeMapping(int(n.TID), n.IP-syscallLen)
	if err != nil || !e.listener.Valid(n.ID) {
		return
	}
	e.images.Lock()
	defer e.images.Unlock()
	e.sites.file(int(n.TID), &m)
}

// image is the injected state of one address space while it is being changed.
type imageState struct {
	base   uint32
	mem    *tracee.Memory
	header image.Header
	thunks []byte // those in use
}

// loadImage reads the state of the image in tid's address space.
func (e *engine) loadImage(tid int, m *tracee.Memory) (*imageState, error) {
	h, ok := e.header(tid)
	if !ok {
		return nil, fmt.Errorf("process %d has lost its image", tid)
	}
	s := &imageState{base: e.Base, mem: m, header: h, thunks: make([]byte, image.ThunksLen(h.Thunks))}
	if len(s.thunks) > 0 {
		if err := m.Read(uint64(image.ThunkAddress(e.Base, 0)), s.thunks); err != nil {
			return nil, err
		}
	}
	return s, nil
}

var errFull = errors.New("the image has no room for another call site")

// thunk returns the thunk that goes back to ret, which it makes if need be.
func (s *imageState) thunk(ret uint64) (int, error) {
	i, ok := image.FindThunk(s.thunks, ret)
	if !ok {
		if i = int(s.header.Thunks); i >= image.MaxThunks {
			return 0, errFull
		}
		i = s.add(ret)
		if err := s.mem.Write(uint64(image.ThunkAddress(s.base, i)), s.code(i)); err != nil {
			return 0, err
		}
		if err := s.writeHeader(); err != nil {
			return 0, err
		}
	}
	return i, nil
}

// writeRest writes what only added calls need.
func (s *imageState) writeRest(p *program) error {
	for at, part := range p.code.Rest() {
		if err := s.mem.Write(uint64(s.base+at), part); err != nil {
			return err
		}
	}
	return nil
}

// add makes a thunk, without writing it.
func (s *imageState) add(ret uint64) int {
	i := int(s.header.Thunks)
	s.thunks = append(s.thunks, image.Thunk(i, ret)...)
	s.header.Thunks++
	return i
}

// code is the code of thunk i.
func (s *imageState) code(i int) []byte { return s.thunks[image.ThunksLen(uint32(i)):] }

func (s *imageState) writeHeader() error {
	return s.mem.Write(uint64(s.base)+image.HeaderAt, s.header.Marshal())
}

// patchSite prepares the thunk for the call site of n, which makes the call c
// or, if that is nil, an added one, and diverts the site to it if that can be
// done. Where that would have to wait for a plan it is done the next time, unless
// wait says so.
func (e *engine) patchSite(n listener.Notification, c *fdcall.Call, m *tracee.Memory, wait bool) (thunk uint32, diverted bool, err error) {
	tid := int(n.TID)
	s, err := e.loadImage(tid, m)
	if err != nil {
		return 0, false, err
	}
	if owner := uint32(tid); s.header.Owner != owner {
		if g := uint32(e.group(tid)); s.header.Owner != g {
			e.ledger.programs.Add(1)
			s.header.Owner = g
			if err := s.writeHeader(); err != nil {
				return 0, false, err
			}
		}
	}
	i, err := s.thunk(n.IP)
	if err != nil {
		return 0, false, err
	}
	thunk = image.ThunkAddress(e.Base, i)
	site := n.IP - syscallLen
	if e.NoPatch || keptOut(s.header, c) || image.Unroutable(s.code(i)) || e.kept[site] > 0 {
		return thunk, false, nil
	}
	maps, err := tracee.CodeMaps(tid)
	if err != nil {
		return 0, false, err
	}
	if f, _ := e.codeAt(tid, maps, site); f != nil && !wait && f.awaits() {
		return thunk, false, nil
	}
	alone := aloneOnce(tid)
	if s.header.Flags&(image.Known|image.Cancels) == 0 {
		if err := e.patchKnown(s, maps, alone); err != nil {
			return 0, false, err
		}
	}
	if routes, bias := e.routesOf(tid, maps, site); applyFirst(m, routes, bias, thunk, alone) {
		return thunk, true, nil
	}
	return thunk, false, m.Write(uint64(thunk)+image.UnroutableAt, []byte{1})
}

// keptOut reports whether the call c must not be made in the image with the
// header h; c may be nil.
func keptOut(h image.Header, c *fdcall.Call) bool {
	return h.Flags&image.Cancels != 0 && c != nil && c.Cancels
}

// codeAt returns the file of code that is mapped at an address, and where; or nil.
func (e *engine) codeAt(tid int, maps []tracee.Mapping, address uint64) (*codeFile, *tracee.Mapping) {
	i := slices.IndexFunc(maps, func(m tracee.Mapping) bool { return address >= m.Start && address < m.End })
	if i < 0 {
		return nil, nil
	}
	return e.sites.file(tid, &maps[i]), &maps[i]
}

// routesOf returns the ways to divert the call site, the best one first, and
// how far above the file's addresses the code is loaded.
func (e *engine) routesOf(tid int, maps []tracee.Mapping, site uint64) ([]*patch.Route, uint64) {
	f, mapping := e.codeAt(tid, maps, site)
	if f == nil || f.plan() == nil {
		return nil, 0
	}
	address, ok := f.plan().Address(site - mapping.Start + mapping.Offset)
	if !ok {
		return nil, 0
	}
	routes := f.routes(address)
	if len(routes) > 0 && !slices.Contains(f.known, address) && len(f.known) < maxKnown {
		f.known = append(f.known, address)
	}
	return routes, site - address
}

// routes returns the ways to divert the call site at address.
func (f *codeFile) routes(address uint64) (all []*patch.Route) {
	for _, find := range []func(uint64) (*patch.Route, error){f.plan().Route, f.plan().RouteInFront} {
		if r, err := find(address); err == nil {
			all = append(all, r)
		}
	}
	return all
}

// knownSite is a call site of a process that has been diverted in others.
type knownSite struct {
	routes []*patch.Route
	bias   uint64
	thunk  int
}

// knownSites returns those in the mappings that have no thunk yet, and makes
// one for each, which is still to be written.
func (e *engine) knownSites(s *imageState, maps []tracee.Mapping) (all []knownSite) {
	for i := range maps {
		mapping := &maps[i]
		f, ok := e.sites.files[fileID{mapping.Dev, mapping.Inode}]
		if !ok || len(f.known) == 0 {
			continue // if only because it is not planned yet
		}
		first, ok := f.plan().Address(mapping.Offset)
		if !ok {
			continue
		}
		bias := mapping.Start - first
		for _, address := range f.known {
			site := address + bias
			if site < mapping.Start || site >= mapping.End || e.kept[site] > 0 {
				continue
			}
			if _, ok := image.FindThunk(s.thunks, site+syscallLen); ok {
				continue // it has trapped, or was known before
			}
			if int(s.header.Thunks) >= image.MaxThunks {
				break
			}
			all = append(all, knownSite{f.routes(address), bias, s.add(site + syscallLen)})
		}
	}
	return all
}

// divertKnown diverts sites whose thunks have been written.
func (e *engine) divertKnown(s *imageState, sites []knownSite, alone func() bool) {
	for _, k := range sites {
		if applyFirst(s.mem, k.routes, k.bias, image.ThunkAddress(s.base, k.thunk), alone) {
			e.ledger.served[maxCalls-1][patched].Add(1)
		}
	}
}

// patchKnown diverts the call sites in a process's files that have been
// diverted in other processes.
func (e *engine) patchKnown(s *imageState, maps []tracee.Mapping, alone func() bool) error {
	before := len(s.thunks)
	sites := e.knownSites(s, maps)
	// Thunks first, then the header that counts them, then the sites.
	if added := s.thunks[before:]; len(added) > 0 {
		if err := s.mem.Write(uint64(image.ThunkAddress(s.base, 0))+uint64(before), added); err != nil {
			return err
		}
	}
	s.header.Flags |= image.Known
	if err := s.writeHeader(); err != nil {
		return err
	}
	e.divertKnown(s, sites, alone)
	return nil
}

// aloneOnce answers tracee.Alone, and asks at most once.
func aloneOnce(tid int) func() bool {
	return sync.OnceValue(func() bool { return tracee.Alone(tid) })
}

var (
	errUnexpected = errors.New("the memory is not what the file says")
	errShared     = errors.New("other threads may run in these bytes")
)

// applyFirst applies the first of a site's routes that can be applied. Those
// that need no answer from alone are tried first: to give it takes longer than
// all the writes together.
func applyFirst(m *tracee.Memory, routes []*patch.Route, bias uint64, thunk uint32, alone func() bool) bool {
	for _, asks := range []bool{false, true} {
		for _, route := range routes {
			if needsAlone(route, bias) == asks && applyRoute(m, route, bias, thunk, alone) == nil {
				return true
			}
		}
	}
	return false
}

// needsAlone reports whether a route has a write during which no other thread
// may run in its bytes.
func needsAlone(route *patch.Route, bias uint64) bool {
	return slices.ContainsFunc(route.Writes, func(w patch.Write) bool { return w.Live && !atOnce(w, bias) })
}

// applyRoute writes a route into a process whose code is loaded bias bytes
// above the file's addresses; alone tells whether no other thread can run in
// them. An error means that the site is as it was.
func applyRoute(m *tracee.Memory, route *patch.Route, bias uint64, thunk uint32, alone func() bool) error {
	type change struct {
		patch.Write
		bytes []byte
		done  bool
	}
	changes := make([]change, len(route.Writes))
	for i, w := range route.Writes {
		c := change{Write: w, bytes: bytes.Clone(w.New)}
		if w.Thunk >= 0 {
			binary.LittleEndian.PutUint32(c.bytes[w.Thunk:], thunk)
		}
		now := make([]byte, len(w.New))
		if err := m.Read(w.Addr+bias, now); err != nil {
			return err
		}
		switch {
		case bytes.Equal(now, c.bytes):
			c.done = true
		case bytes.Equal(now, w.Old):
		case !w.Live && w.Thunk >= 0 && equalButThunk(now, c.bytes, w.Thunk):
			// left behind by a supervisor that died before the site was diverted
		default:
			return errUnexpected
		}
		changes[i] = c
	}
	for _, c := range changes {
		if c.Live && !atOnce(c.Write, bias) && !c.done && !alone() {
			return errShared
		}
	}
	for _, c := range changes {
		write := m.Write
		if atOnce(c.Write, bias) {
			write = m.WriteAtOnce
		}
		if c.done {
			continue
		}
		if err := write(c.Addr+bias, c.bytes); err != nil {
			return err
		}
	}
	return nil
}

// atOnce reports whether a write may be made while other threads run there.
func atOnce(w patch.Write, bias uint64) bool {
	return w.Atomic || len(w.New) == syscallLen && tracee.AtOnce(w.Addr+bias, syscallLen)
}

// undoRoute restores the bytes of a diverted call site that control flow
// reaches. An error means that it is still diverted.
func undoRoute(tid int, m *tracee.Memory, route *patch.Route, bias uint64) error {
	if needsAlone(route, bias) && !tracee.Alone(tid) {
		return errShared
	}
	for _, w := range slices.Backward(route.Writes) {
		if !w.Live {
			continue
		}
		now := make([]byte, len(w.New))
		if err := m.Read(w.Addr+bias, now); err != nil {
			return err
		}
		if !bytes.Equal(now, w.New) {
			continue // it was not diverted
		}
		write := m.Write
		if atOnce(w, bias) {
			write = m.WriteAtOnce
		}
		if err := write(w.Addr+bias, w.Old); err != nil {
			return err
		}
	}
	return nil
}

func equalButThunk(a, b []byte, at int) bool {
	return bytes.Equal(a[:at], b[:at]) && bytes.Equal(a[at+4:], b[at+4:])
}

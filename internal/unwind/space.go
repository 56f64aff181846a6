package unwind

import (
	"bytes"
	"cmp"
	"fmt"
	"io"
	"os"
	"slices"
	"sync"
	"syscall"

	"github.com/seed-055cd0c8/indirect/internal/tracee"
)

// Space is the code that is mapped in an address space. It may be used by many
// goroutines at once, for all processes that share it or have a copy of it by
// fork(2), until they execute another program. What they map after it was read
// is noticed, what they map at the place of something else is not.
type Space struct {
	mu      sync.RWMutex
	regions []*region // in order of their addresses
}

// region is a mapping of code, and the file it is from once that was looked at.
type region struct {
	tracee.Mapping
	mu     sync.Mutex
	done   bool
	module *module // nil: not a program's file
}

// Map reads which code is mapped in the process that tid belongs to.
func Map(tid int) (*Space, error) {
	s := new(Space)
	return s, s.reload(Memory(tid))
}

// reload reads the mappings again.
func (s *Space) reload(p Process) error {
	all, err := p.Mappings()
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	old := s.regions
	s.regions = nil
	for i := range all {
		if !all[i].Executable() {
			continue
		}
		same := slices.IndexFunc(old, func(r *region) bool { return r.Mapping == all[i] })
		if same >= 0 {
			s.regions = append(s.regions, old[same])
			continue
		}
		s.regions = append(s.regions, &region{Mapping: all[i]})
	}
	slices.SortFunc(s.regions, func(a, b *region) int { return cmp.Compare(a.Start, b.Start) })
	return nil
}

// Mapping returns the code mapping that contains an address, nil for none.
func (s *Space) Mapping(address uint64) *tracee.Mapping {
	if r := s.find(address); r != nil {
		return &r.Mapping
	}
	return nil
}

func (s *Space) find(address uint64) *region {
	s.mu.RLock()
	defer s.mu.RUnlock()
	i, ok := slices.BinarySearchFunc(s.regions, address, func(r *region, a uint64) int {
		switch {
		case r.End <= a:
			return -1
		case r.Start > a:
			return 1
		}
		return 0
	})
	if !ok {
		return nil
	}
	return s.regions[i]
}

// file is what a module is read from.
type file interface {
	io.ReaderAt
	io.Closer
}

// image is a module that is only in memory: the vDSO.
type image struct{ *bytes.Reader }

func (image) Close() error { return nil }

const (
	vdsoPath    = "[vdso]"
	largestVDSO = 1 << 16
)

// open opens the file behind a region.
func (r *region) open(p Process) (file, error) {
	if r.Path == vdsoPath && r.End-r.Start <= largestVDSO {
		b := make([]byte, r.End-r.Start)
		if n, err := p.ReadAt(b, int64(r.Start)); n < len(b) {
			return nil, fmt.Errorf("read the vDSO: %w", err)
		}
		return image{bytes.NewReader(b)}, nil
	}
	if r.Inode == 0 {
		return nil, errNoRules
	}
	return p.Open(&r.Mapping)
}

// read returns the module of a region, nil if it has none that is readable.
func (r *region) read(known *modules, p Process) *module {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.done {
		return r.module
	}
	f, err := r.open(p)
	if err != nil {
		return nil // another process that has it mapped may be able to
	}
	defer f.Close()
	r.module, r.done = known.of(f), true
	return r.module
}

// identity tells files apart, also one that was written again in place.
type identity struct {
	dev, ino    uint64
	size        int64
	sec, nsec   int64
	vdsoContent string
}

// modules are the modules that were looked at last.
type modules struct {
	most int

	mu    sync.Mutex
	known map[identity]*module
	clock uint64
}

// of returns the module that a file holds, nil if it is none.
func (ms *modules) of(f file) *module {
	id, ok := identify(f)
	if !ok {
		return nil
	}
	ms.mu.Lock()
	defer ms.mu.Unlock()
	ms.clock++
	m, ok := ms.known[id]
	if !ok {
		var err error
		if m, err = readModule(f); err != nil {
			m = nil // known to be of no use
		}
		if len(ms.known) >= ms.most {
			ms.forget()
		}
		ms.known[id] = m
	}
	if m != nil {
		m.used = ms.clock
	}
	return m
}

// forget forgets the module that was not asked for longest.
func (ms *modules) forget() {
	var oldest identity
	at := ^uint64(0)
	for id, m := range ms.known {
		if m == nil {
			oldest = id
			break
		}
		if m.used < at {
			oldest, at = id, m.used
		}
	}
	delete(ms.known, oldest)
}

func identify(f file) (identity, bool) {
	switch f := f.(type) {
	case image:
		b := make([]byte, f.Size())
		f.ReadAt(b, 0)
		return identity{vdsoContent: string(b)}, true
	case *os.File:
		info, err := f.Stat()
		if err != nil {
			return identity{}, false
		}
		st, ok := info.Sys().(*syscall.Stat_t)
		if !ok || !info.Mode().IsRegular() {
			return identity{}, false
		}
		return identity{dev: uint64(st.Dev), ino: st.Ino, size: st.Size, sec: st.Mtim.Sec, nsec: st.Mtim.Nsec}, true
	}
	return identity{}, false
}

// Mappings lists the mappings of code, in order of their addresses.
func (s *Space) Mappings() []tracee.Mapping {
	s.mu.RLock()
	defer s.mu.RUnlock()
	all := make([]tracee.Mapping, len(s.regions))
	for i, r := range s.regions {
		all[i] = r.Mapping
	}
	return all
}

package recorder

import (
	"cmp"
	"debug/elf"
	"encoding/hex"
	"slices"
	"sync"

	"github.com/seed-055cd0c8/indirect/internal/tracee"
)

// Module is a file that code was mapped from.
type Module struct {
	ID      uint64
	Path    string // as /proc/PID/maps shows it
	Dev     string // major:minor, in hexadecimal
	Ino     uint64
	BuildID string `json:",omitempty"` // in hexadecimal
}

// region is a mapping of a module's code.
type region struct {
	start, end uint64
	offset     uint64 // of start, in the file
	module     uint64 // ID
}

// space is the code in an address space, in order of the addresses.
type space []region

// find returns the region of an address, or nil.
func (s space) find(address uint64) *region {
	i, ok := slices.BinarySearchFunc(s, address, func(r region, a uint64) int {
		switch {
		case r.end <= a:
			return -1
		case r.start > a:
			return 1
		}
		return 0
	})
	if !ok {
		return nil
	}
	return &s[i]
}

// modules knows the files that programs map code from.
type modules struct {
	log *log

	mu     sync.Mutex
	ids    map[file]uint64
	spaces map[uint64]space // by where the stack begins (see [image])
}

type file struct {
	dev  string
	ino  uint64
	path string
}

// Bounds of what is known at the same time.
const (
	maxModules = 1 << 14
	maxSpaces  = 512
)

// space returns the code mapped in a process whose stack begins at stack. With
// again, what was known of it is out of date.
func (m *modules) space(pid int, stack uint64, again bool) space {
	m.mu.Lock()
	s, ok := m.spaces[stack]
	m.mu.Unlock()
	if ok && !again {
		return s
	}
	all, err := tracee.Maps(pid)
	if err != nil {
		return s
	}
	s = nil
	for i := range all {
		a := &all[i]
		if a.Executable() {
			s = append(s, region{a.Start, a.End, a.Offset, m.module(pid, a)})
		}
	}
	slices.SortFunc(s, func(a, b region) int { return cmp.Compare(a.start, b.start) })
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.spaces) >= maxSpaces {
		clear(m.spaces)
	}
	m.spaces[stack] = s
	return s
}

// module returns the ID of the file behind a mapping, and tells of it at the
// first time.
func (m *modules) module(pid int, a *tracee.Mapping) uint64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	f := file{a.Dev, a.Inode, a.Path}
	if id, ok := m.ids[f]; ok {
		return id
	}
	if len(m.ids) >= maxModules {
		clear(m.ids)
	}
	id := m.log.id()
	m.ids[f] = id
	e := &Module{ID: id, Path: a.Path, Dev: a.Dev, Ino: a.Inode}
	if a.Inode != 0 {
		e.BuildID = buildID(pid, a)
	}
	m.log.write(Entry{Module: e})
	return id
}

// buildID reads the build ID of the file behind a mapping, "" if it has none.
func buildID(pid int, a *tracee.Mapping) string {
	f, err := tracee.OpenMapped(pid, a)
	if err != nil {
		return ""
	}
	defer f.Close()
	e, err := elf.NewFile(f)
	if err != nil {
		return ""
	}
	s := e.Section(".note.gnu.build-id")
	const largest = 1024
	if s == nil || s.Size > largest {
		return ""
	}
	note, err := s.Data()
	const header = 16 // three words and "GNU"
	if err != nil || len(note) <= header {
		return ""
	}
	return hex.EncodeToString(note[header:])
}

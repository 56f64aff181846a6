package recorder

import (
	"debug/elf"
	"encoding/hex"
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

// modules knows the files that programs map code from.
type modules struct {
	log *log

	mu  sync.Mutex
	ids map[file]uint64
}

type file struct {
	dev  string
	ino  uint64
	path string
}

// maxModules bounds what is known at the same time.
const maxModules = 1 << 14

// id returns the ID of the file behind a mapping, and tells of it at the
// first time.
func (m *modules) id(pid int, a *tracee.Mapping) uint64 {
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

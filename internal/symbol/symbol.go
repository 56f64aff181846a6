// Package symbol says which function and which line of source an instruction
// of a program belongs to, with the calls that the compiler inlined there.
//
// It reads what debug information there is, in this order: DWARF in the file,
// in its separate debug file (by build ID under /usr/lib/debug, by
// .gnu_debuglink, from debuginfod servers if there are any), the table that Go
// programs carry, and the symbol tables. Without any of it, what remains is
// the file, the offset and the build ID.
//
// The files are input: whatever they contain, a lookup ends and does not panic.
package symbol

import (
	"context"
	"debug/elf"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"sync"
	"syscall"

	"github.com/ianlancetaylor/demangle"
)

// Module is a file that code was mapped from.
type Module struct {
	Path    string // as /proc/PID/maps shows it
	Inode   uint64 // 0: not known
	BuildID string // in hexadecimal; "": none or not known
}

// Frame is a function at a line of its source.
type Frame struct {
	Function string // "" if not known
	File     string // "" if not known
	Line     int    // 0 if not known
	Module   string // path of the file that holds the code
	Offset   uint64 // in that file; the address if there is no file
	BuildID  string // in hexadecimal
	Inlined  bool   // into the frame that follows
	Guessed  bool   // the unwinder's, for the caller to set: this may be no frame
}

// String writes a frame as "function (file:line)", or what is known of it.
func (f Frame) String() string {
	switch {
	case f.Function != "" && f.File != "":
		return fmt.Sprintf("%s (%s:%d)", f.Function, f.File, f.Line)
	case f.Function != "":
		return fmt.Sprintf("%s (%s+%#x)", f.Function, f.Module, f.Offset)
	case f.Module == "":
		return fmt.Sprintf("%#x", f.Offset)
	case f.BuildID != "":
		return fmt.Sprintf("%s+%#x (build ID %s)", f.Module, f.Offset, f.BuildID)
	}
	return fmt.Sprintf("%s+%#x", f.Module, f.Offset)
}

// Options say where debug information is. The zero value is usable.
type Options struct {
	// Open opens a module, for programs whose files are not where the paths
	// say. By default the path is opened, if it leads to the same file.
	Open func(Module) (*os.File, error)
	// Debug is where the system keeps debug files: "/usr/lib/debug" by default.
	Debug string
	// Debuginfod are the servers to ask for debug files, none by default: a
	// server learns which programs are run (see [DebuginfodServers]).
	Debuginfod []string
	// Cache is where downloads are kept: by default where debuginfod's own
	// client keeps them.
	Cache string
	// Client makes the requests to the servers.
	Client *http.Client
}

// DebuginfodServers are those that the user has set in DEBUGINFOD_URLS
// (debuginfod-client-config(7)).
func DebuginfodServers() []string { return strings.Fields(os.Getenv("DEBUGINFOD_URLS")) }

// Bounds of what is kept.
const (
	maxFiles   = 64
	maxBytes   = 512 << 20 // of debug information
	maxAnswers = 1 << 16
)

// Symbolizer finds symbols, and keeps what it has read. It may be used by many
// goroutines at once. It holds no file open.
type Symbolizer struct {
	options Options

	mu      sync.Mutex
	objects map[Module]*object
	clock   uint64
	answers map[question][]Frame
}

type question struct {
	module Module
	offset uint64
}

// New returns a symbolizer.
func New(o Options) *Symbolizer {
	if o.Debug == "" {
		o.Debug = "/usr/lib/debug"
	}
	if o.Open == nil {
		o.Open = openSame
	}
	if o.Client == nil {
		o.Client = http.DefaultClient
	}
	return &Symbolizer{options: o, objects: make(map[Module]*object), answers: make(map[question][]Frame)}
}

// openSame opens a module by its path.
func openSame(m Module) (*os.File, error) {
	if !strings.HasPrefix(m.Path, "/") {
		return nil, fmt.Errorf("%q is no file", m.Path)
	}
	f, err := os.OpenFile(m.Path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%s is no regular file", m.Path)
	}
	if err == nil && m.Inode != 0 && info.Sys().(*syscall.Stat_t).Ino != m.Inode && m.BuildID == "" {
		err = fmt.Errorf("%s was replaced", m.Path)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// Frames returns the functions at an offset in a module's file, the innermost
// inlined one first. It always returns at least one frame. A return address is
// not exact: the call is what lies before it.
func (s *Symbolizer) Frames(ctx context.Context, m Module, offset uint64, exact bool) []Frame {
	at := offset
	if !exact && at > 0 {
		at--
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	q := question{m, at}
	frames, ok := s.answers[q]
	if !ok {
		frames = s.find(ctx, m, at)
		if len(s.answers) >= maxAnswers {
			clear(s.answers)
		}
		s.answers[q] = frames
	}
	all := make([]Frame, len(frames))
	for i, f := range frames {
		f.Module, f.Offset, f.BuildID, f.Inlined = m.Path, offset, m.BuildID, i < len(frames)-1
		all[i] = f
	}
	return all
}

// find looks up frames. Those of debug/elf and debug/dwarf that read hostile
// files may panic: they promise nothing else.
func (s *Symbolizer) find(ctx context.Context, m Module, at uint64) (frames []Frame) {
	frames = []Frame{{}}
	defer func() { _ = recover() }()
	o := s.object(ctx, m)
	if o == nil {
		return frames
	}
	if found := o.frames(at); len(found) > 0 {
		frames = found
	}
	return frames
}

// object returns what is known of a module, nil if it is unreadable.
func (s *Symbolizer) object(ctx context.Context, m Module) *object {
	s.clock++
	o, ok := s.objects[m]
	if !ok {
		s.objects[m] = nil // what panics or fails is not tried again
		o = s.read(ctx, m)
		s.objects[m] = o
		s.trim(m)
	}
	if o != nil {
		o.used = s.clock
	}
	return o
}

// trim forgets the modules that were not asked for longest.
func (s *Symbolizer) trim(keep Module) {
	for {
		var size int64
		var oldest Module
		at := ^uint64(0)
		for m, o := range s.objects {
			used := uint64(0)
			if o != nil {
				size += o.size
				used = o.used
			}
			if m != keep && used < at {
				oldest, at = m, used
			}
		}
		if len(s.objects) <= maxFiles && size <= maxBytes || at == ^uint64(0) {
			return
		}
		delete(s.objects, oldest)
	}
}

// read reads a module and its debug file.
func (s *Symbolizer) read(ctx context.Context, m Module) *object {
	f, err := s.options.Open(m)
	if err != nil {
		return nil
	}
	defer f.Close()
	e, err := elf.NewFile(io.NewSectionReader(f, 0, fileSize(f)))
	if err != nil {
		return nil
	}
	id := buildID(e)
	if m.BuildID != "" && id != m.BuildID {
		return nil // it was replaced by another version
	}
	o := newObject(e)
	o.readSymbols(e)
	o.readGo(e, f)
	if o.readDWARF(e) {
		return o
	}
	if d := s.debugFile(ctx, m.Path, id, debugLink(e)); d != nil {
		defer d.Close()
		if de, err := elf.NewFile(io.NewSectionReader(d, 0, fileSize(d))); err == nil {
			o.readSymbols(de)
			o.readDWARF(de)
		}
	}
	return o
}

func fileSize(f *os.File) int64 {
	info, err := f.Stat()
	if err != nil {
		return 0
	}
	return info.Size()
}

// readable is a function's name as its author wrote it.
func readable(name string) string {
	const longest = 1 << 14
	if len(name) > longest {
		return name[:longest]
	}
	return demangle.Filter(name)
}

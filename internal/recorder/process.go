package recorder

import (
	"maps"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/seed-055cd0c8/indirect/fdcall"
)

// record is what is known of a descriptor: the last call that made it
// inheritable. Copies of a descriptor in forked processes share it.
type record struct {
	origin  Origin
	program *program // that made the call
	tid     int
	call    call
	stack   uint64 // ID
	fd      int
	made    int64   // when the call was about to run, in nanoseconds of CLOCK_MONOTONIC
	object  object  // zero until it has been looked at
	flagged bool    // made close-on-exec since
	id      uint64  // as the report knows it; 0 if it has not been told of it
	others  bool    // the process had other threads
	handed  bool    // a program has received it
	copied  bool    // a child has it
	before  *record // what the number stood for until then, for children that are older
}

// call is a system call as it was made.
type call struct {
	row  *fdcall.Call // nil for calls that are not of the table
	name string
	args [6]uint64
	path string // the file name among the arguments, if there is one
}

// descriptors are the records of one descriptor table, by number.
type descriptors map[int]*record

// program is a program that a process runs, or has run.
type program struct {
	id    uint64 // as the report knows it
	pid   int
	exe   string // the file that runs, which for a script is its interpreter
	argv  []string
	shell bool
	execs int // how many executions led to it, from the command's own
}

// process is a process that has made a trapped call.
type process struct {
	pid     int
	image   image
	program *program
	files   *descriptors // shared if the processes share the table
	shared  bool
	ignored bool       // not to be followed
	exec    *execution // whose success has not been seen
}

// maxProcesses bounds the processes that are known at the same time.
const maxProcesses = 1 << 14

// maxRecords bounds the records of one table.
const maxRecords = 1 << 14

// process returns what is known of a process.
func (r *recorder) process(pid int) *process {
	p, ok := r.processes[pid]
	if !ok {
		s, err := readStat(pid)
		if err != nil {
			return nil
		}
		p = r.adopt(pid, s)
	}
	if p.exec != nil {
		r.confirm(p)
	}
	return p
}

// adopt makes the process known that has made its first trapped call. Its
// descriptors are those of its parent, as far as they are certain: the parent
// has gone on since.
func (r *recorder) adopt(pid int, s stat) *process {
	files := make(descriptors)
	p := &process{pid: pid, image: s.image, files: &files}
	parent := r.processes[s.Parent]
	if parent == nil {
		return r.adoptOrphan(p)
	}
	if parent.exec != nil {
		r.confirm(parent)
	}
	p.ignored = parent.ignored
	p.program = r.newProgram(pid, parent.program, parent.program.exe, parent.program.argv, now())
	if sameFiles(pid, parent.pid) {
		p.files, p.shared, parent.shared = parent.files, true, true
		return r.insert(p)
	}
	born := r.clock.monotonic(s.Started)
	for fd, rec := range *parent.files {
		switch {
		case sameFile(pid, parent.pid, fd):
		case !isOpen(pid, fd):
			continue
		case isOpen(parent.pid, fd), rec.made > born+tick: // made again since
			if rec = rec.before; rec == nil || rec.made > born+tick {
				continue
			}
		}
		rec.copied = true
		files[fd] = rec
	}
	return r.insert(p)
}

// adoptOrphan is adopt for a process whose parent is gone, or made no call that
// we saw. What it shares with a process that is known has the same origin.
func (r *recorder) adoptOrphan(p *process) *process {
	var from *program
	const most = 256
	searched := 0
	for _, other := range r.processes {
		if searched++; searched > most {
			break
		}
		for fd, rec := range *other.files {
			if (*p.files)[fd] == nil && sameFile(p.pid, other.pid, fd) {
				(*p.files)[fd] = rec
				from, p.ignored = other.program, other.ignored
			}
		}
	}
	p.program = r.newProgram(p.pid, from, executable(p.pid, ""), commandLine(p.pid), now())
	return r.insert(p)
}

func (r *recorder) insert(p *process) *process {
	if len(r.processes) >= maxProcesses {
		maps.DeleteFunc(r.processes, func(pid int, _ *process) bool { return unix.Kill(pid, 0) == unix.ESRCH })
	}
	if len(r.processes) >= maxProcesses {
		r.drop()
		clear(r.processes)
	}
	r.processes[p.pid] = p
	return p
}

// put records what has become of a descriptor.
func (r *recorder) put(p *process, rec *record) {
	if len(*p.files) >= maxRecords && (*p.files)[rec.fd] == nil {
		r.drop()
		return
	}
	if old := (*p.files)[rec.fd]; old != nil && old.fd == rec.fd {
		previous := *old
		previous.before = nil // one is enough, and all would be for ever
		rec.before = &previous
	}
	(*p.files)[rec.fd] = rec
}

// executable is the file that a process runs, or otherwise if that cannot be told.
func executable(pid int, otherwise string) string {
	link, err := os.Readlink(procName(pid, "exe"))
	if err != nil {
		return otherwise
	}
	return link
}

// commandLine reads a process's arguments.
func commandLine(pid int) []string {
	b, err := readSmall(procName(pid, "cmdline"))
	if err != nil || len(b) == 0 {
		return nil
	}
	return bounded(strings.Split(strings.TrimSuffix(string(b), "\x00"), "\x00"))
}

// Bounds of what is kept of a command line.
const (
	maxArguments    = 256
	maxArgumentSize = 4096
)

// bounded cuts what would take too much room in a report.
func bounded(argv []string) []string {
	if len(argv) > maxArguments {
		argv = append(slices.Clone(argv[:maxArguments]), "…")
	}
	for i, a := range argv {
		if len(a) > maxArgumentSize {
			argv[i] = a[:maxArgumentSize] + "…"
		}
	}
	return argv
}

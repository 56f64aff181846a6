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
	made    int64  // when the call was about to run, in nanoseconds of CLOCK_MONOTONIC
	object  object // zero until it has been looked at
	flagged bool   // made close-on-exec since
	id      uint64 // as the report knows it; 0 if it has not been told of it
	others  bool   // the process had other threads
	handed  bool   // a program has received it
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
	pid      int
	image    image
	program  *program
	files    *descriptors // shared if the processes share the table
	shared   bool
	threaded bool // has, or has had, other threads
	ignored  bool // not to be followed
	births   []birth
	forks    []fork
	exec     *execution // whose success has not been seen
}

// birth is a fork whose child has not been seen.
type birth struct {
	tid     int
	files   *descriptors
	shared  bool
	program *program
	when    int64
}

// fork is one that may lie in a window between creating and flagging.
type fork struct {
	tid  int
	when int64
}

// maxForks bounds the forks that a process is known to have made: windows are short.
const maxForks = 64

// maxProcesses bounds the processes that are known at the same time.
const maxProcesses = 1 << 14

// maxRecords bounds the records of one table.
const maxRecords = 1 << 14

// process returns what is known of a process, with its children's births
// settled that thread tid has waited for in fork.
func (r *recorder) process(pid, tid int) *process {
	p, ok := r.processes[pid]
	if !ok {
		s, err := readStat(pid)
		if err != nil {
			return nil
		}
		p = r.adopt(pid, s)
	}
	r.settle(p, tid)
	if p.exec != nil {
		r.confirm(p)
	}
	return p
}

// adopt makes the process that has made its first trapped call known.
func (r *recorder) adopt(pid int, s stat) *process {
	parent := r.processes[s.Parent]
	if parent == nil {
		files := make(descriptors)
		p := &process{pid: pid, image: s.image, files: &files, threaded: s.Threads > 1}
		p.program = r.newProgram(pid, nil, executable(pid, ""), commandLine(pid), now())
		r.insert(p)
		return p
	}
	i := slices.IndexFunc(parent.births, func(b birth) bool {
		return len(parent.births) == 1 || slices.Contains(children(parent.pid, b.tid), pid)
	})
	if i < 0 {
		// It is not its parent's thread that forked it (CLONE_PARENT), or the
		// supervisor that saw the fork is gone: nothing is known of its descriptors.
		files := make(descriptors)
		return r.insert(&process{
			pid: pid, image: s.image, files: &files, program: r.newProgram(pid, parent.program, parent.program.exe, parent.program.argv, now()),
			threaded: s.Threads > 1, ignored: parent.ignored,
		})
	}
	p := r.born(parent, parent.births[i], pid, s)
	parent.births = slices.Delete(parent.births, i, i+1)
	return p
}

// born makes the child of a fork known.
func (r *recorder) born(parent *process, b birth, pid int, s stat) *process {
	return r.insert(&process{
		pid: pid, image: s.image, files: b.files, shared: b.shared,
		program:  r.newProgram(pid, b.program, b.program.exe, b.program.argv, b.when),
		threaded: s.Threads > 1, ignored: parent.ignored,
	})
}

// settle finds the children that thread tid has forked: it runs again, so its
// fork has returned.
func (r *recorder) settle(p *process, tid int) {
	i := slices.IndexFunc(p.births, func(b birth) bool { return b.tid == tid })
	if i < 0 {
		return
	}
	b := p.births[i]
	p.births = slices.Delete(p.births, i, i+1)
	for _, pid := range slices.Backward(children(p.pid, tid)) { // the youngest first
		s, err := readStat(pid)
		if err != nil {
			continue
		}
		if known := r.processes[pid]; known == nil || known.image.Started != s.Started {
			r.born(p, b, pid, s)
		}
		return
	}
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

// fork notes that thread tid is about to fork.
func (p *process) fork(tid int, flags uint64, now int64) {
	const (
		files  = unix.CLONE_FILES
		thread = unix.CLONE_THREAD
	)
	if flags&thread != 0 {
		p.threaded = true
		return
	}
	b := birth{tid: tid, files: p.files, program: p.program, shared: flags&files != 0, when: now}
	if b.shared {
		p.shared = true
	} else {
		copied := maps.Clone(*p.files)
		b.files = &copied
	}
	p.births = append(p.births, b)
	if len(p.forks) == maxForks {
		p.forks = slices.Delete(p.forks, 0, 1)
	}
	p.forks = append(p.forks, fork{tid, now})
}

// put records what has become of a descriptor.
func (r *recorder) put(p *process, rec *record) {
	if len(*p.files) >= maxRecords && (*p.files)[rec.fd] == nil {
		r.drop()
		return
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

package recorder

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/seed-055cd0c8/indirect/supervise"
)

// execution is an execve whose success has not been seen yet: the call tells
// nobody when it succeeds. A program that goes on to call us does.
type execution struct {
	path  string
	argv  []string
	env   []string // what mentions a descriptor that is handed on
	stack uint64
	when  int64
	tid   int
	kept  []handed
	to    *program
}

// handed is a descriptor that a program receives.
type handed struct {
	fd     int
	object object
	record *record // nil: nothing is known of where it comes from
}

// execute looks at a program being executed.
func (r *recorder) execute(ev *supervise.Event, w *watched, pid int, when int64) {
	path, argv, env := ev.Args[0], ev.Args[1], ev.Args[2]
	dir := unix.AT_FDCWD
	if w.name == "execveat" {
		dir, path, argv, env = int(int32(ev.Args[0])), ev.Args[1], ev.Args[2], ev.Args[3]
	}
	name, err := ev.String(path, unix.PathMax)
	if err != nil {
		return
	}
	file, ok := canExecute(ev.TID, dir, name)
	if !ok {
		return // it will fail, as in a search through PATH
	}
	x := &execution{path: file, when: when, tid: ev.TID, argv: readStrings(ev, argv, maxArguments)}
	fds, err := inheritable(pid)
	if err != nil {
		return
	}
	s, err := readStat(pid)
	if err != nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if p := r.processes[pid]; p != nil && p.image.Started != s.Started {
		delete(r.processes, pid) // another process, with the same ID
	}
	p := r.process(pid)
	if p == nil {
		return
	}
	p.image = s.image
	first := !r.begun
	r.begun = true
	for _, fd := range fds {
		o, ok := objectOf(pid, fd)
		if !ok || p.ignored {
			continue
		}
		rec := (*p.files)[fd]
		switch {
		case rec == nil && first:
			rec = &record{origin: Inherited, program: p.program, fd: fd, made: when, object: o}
		case rec != nil && !rec.plausible(pid, o):
			rec = nil
		}
		x.kept = append(x.kept, handed{fd, o, rec})
	}
	if len(x.kept) > 0 {
		x.env = mentioning(readStrings(ev, env, maxVariables), x.kept)
		x.stack, _ = r.stacks.ofWaiting(ev, pid, s.Stack)
	}
	x.to = r.newProgram(pid, p.program, x.path, x.argv, x.when)
	x.to.execs++
	r.log.write(Entry{Exec: &Exec{
		From: p.program.id, To: x.to.id, TID: x.tid, Time: x.when, Stack: x.stack, Env: x.env, Handed: r.handed(x.kept),
	}})
	p.exec = x
	r.confirmLater(p, x, leastPatience)
}

// maxVariables bounds the environment that is looked through.
const maxVariables = 1024

// confirmLater finds out, after patience, what a program has become that makes
// no call that we would see.
func (r *recorder) confirmLater(p *process, x *execution, patience time.Duration) {
	time.AfterFunc(patience, func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		if p.exec != x {
			return
		}
		s, err := readStat(p.pid)
		switch {
		case err != nil || s.image != p.image:
			r.confirm(p)
		case patience < mostPatience: // the kernel may be reading the program from a slow disk
			r.confirmLater(p, x, 4*patience)
		}
	})
}

const (
	leastPatience = 20 * time.Millisecond
	mostPatience  = 2 * time.Second
)

// confirm finds out whether the process's execve has succeeded, and if so puts
// the new program in the place of the old one.
func (r *recorder) confirm(p *process) {
	x := p.exec
	p.exec = nil
	s, err := readStat(p.pid)
	if err == nil && s.image == p.image {
		// It runs the old program: the call has failed.
		r.log.write(Entry{Failed: &Failed{Program: x.to.id}})
		return
	}
	r.executed(p, x)
	if err == nil {
		p.image = s.image
	}
}

// executed puts the new program in the place of the old one.
func (r *recorder) executed(p *process, x *execution) {
	if exe := executable(p.pid, x.to.exe); exe != x.to.exe { // a script's interpreter
		x.to.exe, x.to.shell = exe, r.shells.Program(exe).Exempt()
		r.log.write(Entry{Program: &Program{ID: x.to.id, Parent: p.program.id, PID: p.pid, Executable: exe, Argv: x.argv, Started: x.when}})
	}
	files := make(descriptors)
	for _, h := range x.kept {
		if h.record != nil {
			files[h.fd] = h.record
		}
	}
	p.program, p.files, p.shared = x.to, &files, false
	p.ignored = p.ignored || r.NoFollow && x.to.execs > 1
}

// plausible reports whether o can be what the record's call gave.
func (rec *record) plausible(pid int, o object) bool {
	if rec.object != (object{}) {
		return rec.object.same(o)
	}
	if !fits(pid, &rec.call, o) {
		return false
	}
	rec.object = o
	return true
}

// fits reports whether a call can have given o.
func fits(pid int, c *call, o object) bool {
	kind := func(prefix string) bool { return strings.HasPrefix(o.Link, prefix) }
	switch c.name {
	case "pipe", "pipe2":
		return kind("pipe:")
	case "socket", "socketpair", "accept", "accept4":
		return kind("socket:")
	case "epoll_create", "epoll_create1":
		return kind("anon_inode:[eventpoll]")
	case "eventfd", "eventfd2":
		return kind("anon_inode:[eventfd")
	case "timerfd_create":
		return kind("anon_inode:[timerfd]")
	case "signalfd", "signalfd4":
		return kind("anon_inode:[signalfd]")
	case "inotify_init", "inotify_init1":
		return kind("anon_inode:inotify")
	case "memfd_create":
		return kind("/memfd:" + c.path)
	case "open", "creat", "openat", "openat2":
		if filepath.Base(strings.TrimSuffix(o.Link, " (deleted)")) == filepath.Base(c.path) {
			return true
		}
		// Opened through a symbolic link, or something like /dev/tty.
		var st unix.Stat_t
		return unix.Stat(inside(pid, unix.AT_FDCWD, c.path), &st) == nil && st.Dev == o.Dev && st.Ino == o.Ino
	}
	return true
}

// inside is the name by which we reach a file that a process names.
func inside(tid, dir int, name string) string {
	switch {
	case strings.HasPrefix(name, "/"):
		return procName(tid, "root"+name)
	case dir == unix.AT_FDCWD:
		return procName(tid, "cwd/"+name)
	}
	return descriptorName(tid, dir) + "/" + name
}

// canExecute reports whether an execve of a file may succeed, and the file's
// real name: most that fail do so because there is none. It spares us the work
// for those; the others are found out when the process goes on.
func canExecute(tid, dir int, name string) (string, bool) {
	file := inside(tid, dir, name)
	if name == "" { // execveat(2) with AT_EMPTY_PATH
		file = descriptorName(tid, dir)
	}
	fd, err := unix.Open(file, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", false
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if unix.Fstat(fd, &st) != nil || st.Mode&unix.S_IFMT != unix.S_IFREG || st.Mode&0o111 == 0 {
		return "", false
	}
	self := "/proc/self/fd/" + strconv.Itoa(fd)
	if f, err := os.Open(self); err == nil { // a program need not be readable
		defer f.Close()
		var b [4]byte
		// What binfmt_misc(5) may make of other files is not known.
		if n, err := f.Read(b[:]); err != nil || string(b[:n]) != "\x7fELF" && !strings.HasPrefix(string(b[:n]), "#!") {
			return "", false
		}
	}
	if link, err := os.Readlink(self); err == nil {
		return link, true
	}
	return name, true
}

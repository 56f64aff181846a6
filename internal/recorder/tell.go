package recorder

import (
	"slices"
	"strconv"
	"strings"
	"unicode"

	"github.com/seed-055cd0c8/indirect/internal/launch"
)

// newProgram makes a program and tells of it.
func (r *recorder) newProgram(pid int, parent *program, exe string, argv []string, when int64) *program {
	argv = launch.Becomes(argv)
	p := &program{id: r.log.id(), pid: pid, exe: exe, argv: argv, shell: r.shells.Program(exe).Exempt()}
	e := &Program{ID: p.id, PID: pid, Executable: exe, Argv: argv, Started: when}
	if parent != nil {
		e.Parent = parent.id
		p.execs = parent.execs
	}
	r.log.write(Entry{Program: e})
	return p
}

// tell tells of a record's creation, once, and returns its ID.
func (r *recorder) tell(rec *record) uint64 {
	if rec == nil {
		return 0
	}
	if rec.id == 0 {
		rec.id = r.log.id()
		r.log.write(Entry{Creation: &Creation{
			ID: rec.id, Origin: rec.origin, Program: rec.program.id, TID: rec.tid, Time: rec.made,
			Call: rec.call.id(), Args: rec.call.args, Path: rec.call.path, FD: rec.fd,
			Object: rec.object.told(), Stack: rec.stack, Threads: rec.others,
		}})
	}
	return rec.id
}

// id is the call's name in the table of calls, if it is there.
func (c *call) id() string {
	if c.row != nil {
		return c.row.ID()
	}
	return c.name
}

func (o object) told() Object { return Object{Link: o.Link, Ino: o.Ino, Detail: o.Detail} }

// raced tells that rec has been made close-on-exec; flagged is its record from now on.
func (r *recorder) raced(p *process, rec, flagged *record, when int64, tid int, stack uint64) {
	if rec.object == (object{}) {
		rec.object, _ = objectOf(p.pid, rec.fd)
	}
	others := rec.others || threaded(p.pid)
	e := &Race{Creation: r.tell(rec), TID: tid, Time: when, Stack: stack, Threads: others, Forked: others && rec.copied}
	flagged.id = rec.id
	r.log.write(Entry{Race: e})
}

// handed tells what a program receives.
func (r *recorder) handed(kept []handed) []Handed {
	var all []Handed
	for _, h := range kept {
		if h.record != nil {
			h.record.handed = true
		}
		all = append(all, Handed{FD: h.fd, Creation: r.tell(h.record), Object: h.object.told()})
	}
	return all
}

// mentioning selects the variables that mention the number of a descriptor
// that is handed on.
func mentioning(env []string, kept []handed) []string {
	return slices.DeleteFunc(env, func(v string) bool {
		_, value, _ := strings.Cut(v, "=")
		numbers := strings.FieldsFunc(value, func(c rune) bool { return !unicode.IsDigit(c) })
		return !strings.HasPrefix(v, "LISTEN_") && !slices.ContainsFunc(kept, func(h handed) bool { return slices.Contains(numbers, strconv.Itoa(h.fd)) })
	})
}

// Package recorder watches, from inside the supervisor, what the programs of
// an audited command do with their descriptors: where each inheritable one was
// created, what happened to its flag, and which program it reached.
//
// It is an extension of package supervise. It stops no thread where it need
// not: a process with one thread gets the lowest free number for a new
// descriptor, so that the number is known before the call is made, and the
// stack can be read while the thread waits for its answer. Only in processes
// with threads, and where a descriptor arrives in a message, does it attach to
// see the result.
//
// Closing is not watched. A descriptor that is inheritable when a program is
// executed was made so by the last call that gave this number without the
// flag; what the call should have given is compared with what is there, and
// where they differ nothing is said.
package recorder

import (
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/seed-055cd0c8/indirect/fdcall"
	"github.com/seed-055cd0c8/indirect/policy"
	"github.com/seed-055cd0c8/indirect/supervise"
)

// Name is the extension's name (see [supervise.Main]).
const Name = "audit"

// Config is what a recorder is told.
type Config struct {
	// StackDepth is how many frames of a stack are kept, 1 to 256.
	StackDepth int
	// NoFollow watches the command alone, not the programs that it executes.
	NoFollow bool
	// Enforced says that a policy adds the flag to calls. What would have to be
	// watched attached is then not recorded: the policy must have its turn.
	Enforced bool
	// Latent also tells of descriptors that no program received.
	Latent bool
}

// recorder is the handler.
type recorder struct {
	Config
	table   *fdcall.Table
	watched []watched
	shells  *policy.Policy // exempts them
	stacks  *stacks
	clock   clock
	log     *log

	mu        sync.Mutex
	processes map[int]*process
	begun     bool // the command has been executed
}

// Open makes the handler, for [supervise.Main]. The file receives the log.
func Open(config json.RawMessage, file *os.File) (supervise.Handler, error) {
	r := &recorder{table: fdcall.Linux(), shells: policy.New(fdcall.Cloexec), processes: make(map[int]*process), clock: newClock()}
	if err := json.Unmarshal(config, &r.Config); err != nil {
		return nil, fmt.Errorf("read the audit's configuration: %w", err)
	}
	r.watched = watchedCalls(r.table)
	var err error
	if r.log, err = openLog(file); err != nil {
		return nil, err
	}
	r.begun = r.log.resumed
	r.stacks = newStacks(r.log, r.StackDepth)
	return r, nil
}

func now() int64 {
	var t unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &t) // cannot fail
	return t.Nano()
}

// Handle decides about one call: it always goes on, sometimes with us attached.
func (r *recorder) Handle(ev *supervise.Event) supervise.Decision {
	for i := range r.watched {
		w := &r.watched[i]
		c := fdcall.Call{Nr: w.Nr, When: w.When}
		if w.Nr[ev.ABI] != ev.Nr || !c.Matches(&ev.Args) {
			continue
		}
		r.watch(ev, w)
		return supervise.Continue()
	}
	if row := r.table.Lookup(ev.ABI, ev.Nr, &ev.Args); row != nil {
		return r.create(ev, row)
	}
	return supervise.Continue()
}

// watch looks at a call that creates no descriptor.
func (r *recorder) watch(ev *supervise.Event, w *watched) {
	when, pid := now(), ev.Process()
	switch w.deed {
	case setsFlag:
		r.flag(ev, w, pid, when)
	case executes:
		r.execute(ev, w, pid, when)
	case exits:
		r.mu.Lock()
		defer r.mu.Unlock()
		if p := r.process(pid); p != nil {
			r.exit(p, when)
		}
	}
}

// create looks at a call that gives descriptors without the flag.
func (r *recorder) create(ev *supervise.Event, row *fdcall.Call) supervise.Decision {
	c := call{row: row, name: row.Name, args: ev.Args}
	if row.Block {
		if !readBlock(ev, &c) {
			return supervise.Continue()
		}
		if row = r.table.ByID(row.Upgrade.To); row == nil {
			return supervise.Continue()
		}
		c.row, c.name = row, row.Name
	}
	if asksForFlag(ev, row, &c) || row.Gives == fdcall.Control && !controls(ev, c.args[row.GivesArg]) {
		return supervise.Continue()
	}
	if c.path = readPath(ev, &c); missing(ev.TID, &c) {
		return supervise.Continue()
	}
	when, pid := now(), ev.Process()
	r.mu.Lock()
	p := r.process(pid)
	if p == nil || p.ignored {
		r.mu.Unlock()
		return supervise.Continue()
	}
	shared, image := p.shared, p.image
	rec := record{program: p.program, tid: ev.TID, made: when, origin: Created}
	r.mu.Unlock()
	rec.others = threaded(pid)
	alone := !rec.others && !shared
	rec.call = c
	if row.Gives == fdcall.Exact || rec.program.shell {
		rec.origin = Placed // a shell's redirections are by number, and its users' wish
	}
	numbers, known := predict(ev, &c, alone)
	stack, ok := r.stacks.ofWaiting(ev, pid, image.Stack)
	if known && ok {
		rec.stack = stack
		r.record(p, rec, numbers)
		return supervise.Continue()
	}
	if r.Enforced {
		return supervise.Continue()
	}
	return supervise.Continue().Watch(ev,
		func(a *supervise.Attached) {
			if !ok {
				stack = r.stacks.ofAttached(ev, a, pid, image.Stack)
			}
			rec.stack = stack
		},
		func(a *supervise.Attached, result int64) int64 {
			if result >= 0 {
				rec.made = now()
				r.record(p, rec, given(a, ev.ABI, &c, result))
			}
			return result
		})
}

// record records new descriptors.
func (r *recorder) record(p *process, rec record, numbers []int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, fd := range numbers {
		if fd <= 2 {
			delete(*p.files, fd) // a standard stream: meant to be inherited
			continue
		}
		one := rec
		one.fd = fd
		r.put(p, &one)
	}
}

// predict tells which numbers a call will give, if that can be told: alone
// says that no other thread creates descriptors in the same table.
func predict(ev *supervise.Event, c *call, alone bool) (numbers []int, ok bool) {
	if c.row.Gives == fdcall.Exact {
		old, fd := int(int32(c.args[0])), int(int32(c.args[c.row.GivesArg]))
		if old == fd || !isOpen(ev.TID, old) {
			return nil, true
		}
		return []int{fd}, true
	}
	if !alone {
		return nil, false
	}
	count, from := 0, 0
	switch c.row.Gives {
	case fdcall.Ret:
		count = 1
		if c.row.Op == "F_DUPFD" {
			from = int(int32(c.args[2]))
		}
	case fdcall.Pair:
		count = 2
	default:
		return nil, false
	}
	for range count {
		fd := lowestFree(ev.TID, max(from, 0))
		if fd < 0 {
			return nil, false
		}
		numbers = append(numbers, fd)
		from = fd + 1
	}
	return numbers, true
}

// flag looks at a call that sets or clears the flag.
func (r *recorder) flag(ev *supervise.Event, w *watched, pid int, when int64) {
	first, last, set := flagChange(ev, w)
	r.mu.Lock()
	p := r.process(pid)
	if p == nil || p.ignored {
		r.mu.Unlock()
		return
	}
	var raced []*record
	for _, fd := range p.files.numbers(first, last) {
		if rec := (*p.files)[fd]; set && !rec.flagged {
			raced = append(raced, rec)
		}
	}
	image, program := p.image, p.program
	r.mu.Unlock()
	switch {
	case set && len(raced) == 0:
	case set:
		stack, _ := r.stacks.ofWaiting(ev, pid, image.Stack)
		r.mu.Lock()
		defer r.mu.Unlock()
		for _, rec := range raced {
			flagged := *rec // forked processes share the record
			flagged.flagged = true
			r.put(p, &flagged)
			// The descriptor may have been closed since, and its number given
			// again by a call with the flag.
			if rec.origin == Created && !closeOnExec(pid, rec.fd) {
				r.raced(p, rec, &flagged, when, ev.TID, stack)
			}
		}
	default:
		if first <= 2 || !isOpen(pid, first) {
			return
		}
		stack, _ := r.stacks.ofWaiting(ev, pid, image.Stack)
		r.mu.Lock()
		defer r.mu.Unlock()
		r.put(p, &record{
			origin: Cleared, program: program, tid: ev.TID, fd: first, made: when, stack: stack, others: threaded(pid),
			call: call{name: w.name, args: ev.Args},
		})
	}
}

// flagChange tells what a call does to the flags of the descriptors first to last.
func flagChange(ev *supervise.Event, w *watched) (first, last int, set bool) {
	first = int(int32(ev.Args[0]))
	switch {
	case w.name == "close_range":
		last = int(min(uint64(uint32(ev.Args[1])), 1<<31-1))
		return first, last, true
	case w.name == "ioctl":
		return first, first, uint32(ev.Args[1]) == fioclex
	}
	return first, first, ev.Args[2]&unix.FD_CLOEXEC != 0
}

// numbers lists the recorded descriptors from first to last.
func (d descriptors) numbers(first, last int) (all []int) {
	if first == last {
		if d[first] != nil {
			all = append(all, first)
		}
		return all
	}
	for fd := range d {
		if fd >= first && fd <= last {
			all = append(all, fd)
		}
	}
	slices.Sort(all)
	return all
}

// exit forgets a process, and tells of the descriptors that it never closed.
func (r *recorder) exit(p *process, when int64) {
	for fd, rec := range *p.files {
		if rec.origin == Created && !rec.flagged && !rec.handed && rec.program.pid == p.pid && isOpen(p.pid, fd) && !closeOnExec(p.pid, fd) {
			if rec.object == (object{}) {
				rec.object, _ = objectOf(p.pid, fd)
			}
			r.log.write(Entry{Latent: &Latent{Creation: r.tell(rec), Time: when}})
		}
	}
	r.log.write(Entry{Exit: &Exit{Program: p.program.id, Time: when}})
	delete(r.processes, p.pid)
	r.stacks.pointers.forget(p.pid)
}

// drop counts what there was no room for.
func (r *recorder) drop() { r.log.dropped() }

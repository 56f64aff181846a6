package audit

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"iter"
	"slices"
	"strings"
	"time"

	"github.com/seed-055cd0c8/indirect/fdcall"
	"github.com/seed-055cd0c8/indirect/policy"
)

// Options are what the user says about a report.
type Options struct {
	Command      []string      // to be named in the report
	Suppressions *Suppressions // may be nil
	// MaxFindings bounds the different findings that are kept, the first ones;
	// 0 stands for 10,000.
	MaxFindings int
}

// Bounds of what is remembered of the events.
const (
	usualFindings  = 10_000
	rememberedIDs  = 1 << 15 // of each sort
	rememberedRuns = 2_000   // of programs that have to do with no finding
)

// Classify makes a report of what a recorder tells. Its memory does not grow
// with the number of events.
func Classify(events iter.Seq[Event], o Options) *Report {
	if o.MaxFindings <= 0 {
		o.MaxFindings = usualFindings
	}
	c := &classifier{
		Options:  o,
		calls:    fdcall.Linux(),
		shells:   policy.New(fdcall.Cloexec),
		given:    make(map[gift]bool),
		found:    make(map[likeness]*Finding),
		kept:     make(map[uint64]*Run),
		report:   &Report{Command: o.Command, Counts: make(map[Kind]int), Suppressed: make(map[string]int)},
		programs: remember[*Run](), stacks: remember[*stack](), creations: remember[*Creation](),
	}
	for e := range events {
		c.event(&e)
	}
	return c.finish()
}

type classifier struct {
	Options
	calls     *fdcall.Table
	shells    *policy.Policy // exempts them
	given     map[gift]bool
	programs  memory[*Run]
	stacks    memory[*stack]
	creations memory[*Creation]
	found     map[likeness]*Finding
	kept      map[uint64]*Run // for the report
	lost      uint64          // by the recorder
	report    *Report
}

// gift is a descriptor that a program was given on purpose.
type gift struct{ program, creation uint64 }

// stack is a [Stack] with what tells it from others.
type stack struct {
	frames []Frame
	print  [sha256.Size]byte
}

// likeness is what findings have in common that are one.
type likeness struct {
	kind              Kind
	stack             [sha256.Size]byte
	call              string
	creator, receiver string // executables
	object            string // where there is no stack
}

func (c *classifier) event(e *Event) {
	switch {
	case e.Program != nil:
		p := bounded(*e.Program)
		run := &Run{Program: p}
		c.programs.put(p.ID, run)
		c.programs.get(p.Parent) // is not to be forgotten
		if len(c.kept) < rememberedRuns {
			c.kept[p.ID] = run
		}
	case e.Stack != nil:
		c.stacks.put(e.Stack.ID, newStack(e.Stack.Frames))
	case e.Creation != nil:
		made := *e.Creation
		made.Args = boundedArguments(made.Args)
		made.Object = boundedObject(made.Object)
		c.creations.put(made.ID, &made)
	case e.Race != nil:
		c.race(e.Race)
	case e.Exec != nil:
		c.exec(e.Exec)
	case e.Latent != nil:
		if made := c.creation(e.Latent.Creation); made != nil {
			c.add(Finding{Kind: KindLatent, Creation: *made})
		}
	case e.Exit != nil:
		if p, ok := c.programs.get(e.Exit.Program); ok {
			p.Ended = e.Exit.Time
		}
	case e.Lost != nil:
		c.lost = max(c.lost, e.Lost.Count)
	}
}

// creation finds what an event refers to.
func (c *classifier) creation(id uint64) *Creation {
	made, ok := c.creations.get(id)
	if !ok {
		c.report.Lost++
		return nil
	}
	return made
}

func (c *classifier) program(id uint64) Program {
	if p, ok := c.programs.get(id); ok {
		return p.Program
	}
	return Program{}
}

func (c *classifier) frames(id uint64) []Frame {
	if s, ok := c.stacks.get(id); ok {
		return s.frames
	}
	return nil
}

func (c *classifier) race(r *Race) {
	made := c.creation(r.Creation)
	if made == nil || made.Origin != Created {
		return
	}
	c.add(Finding{Kind: KindRace, Creation: *made, Window: &Window{
		Length: time.Duration(max(r.Time-made.Time, 0)), Threads: r.Threads, Forked: r.Forked, Stack: c.frames(r.Stack),
	}})
}

func (c *classifier) exec(e *Exec) {
	if from, ok := c.programs.get(e.From); ok {
		from.Ended = e.Time
	}
	to := c.program(e.To)
	for _, h := range e.Handed {
		h.Object = boundedObject(h.Object)
		f := Finding{Receipt: &Receipt{Program: to, Before: c.program(e.From), Time: e.Time, Stack: c.frames(e.Stack)}}
		if h.Creation == 0 {
			f.Kind, f.Reason, f.Creation = KindInherited, "it is not known where it was created", Creation{FD: h.FD, Object: h.Object}
			c.add(f)
			continue
		}
		made := c.creation(h.Creation)
		if made == nil {
			continue
		}
		f.Creation = *made
		f.Kind, f.Reason = c.judge(made, &h, e, &to)
		if f.Kind == KindLeak && c.givenToShell(e.From, h.Creation) {
			f.Kind, f.Reason = KindDeliberate, "a shell had been given it, and hands on all that it has"
		}
		if f.Kind == KindDeliberate && len(c.given) < rememberedIDs {
			c.given[gift{e.To, h.Creation}] = true
		}
		if made := &f.Creation.Object; *made == (Object{}) || made.Link == h.Object.Link && h.Object.Detail != "" {
			*made = h.Object // a socket has its addresses by now
		}
		c.add(f)
	}
}

// givenToShell reports whether a program is a shell, or a child that one has
// forked, and was given the descriptor on purpose.
func (c *classifier) givenToShell(program, creation uint64) bool {
	const mostForks = 64
	for range mostForks {
		p, ok := c.programs.get(program)
		if !ok || !c.shells.Program(p.Executable).Exempt() {
			return false
		}
		if c.given[gift{program, creation}] {
			return true
		}
		program = p.Parent
	}
	return false
}

// judge says what a descriptor is that a program received, and why.
func (c *classifier) judge(made *Creation, h *Handed, e *Exec, to *Program) (Kind, string) {
	switch {
	case made.Origin == Inherited:
		return KindInherited, "it was open before the audit began"
	case made.FD != h.FD || made.Time > e.Time || !consistent(made.Object, h.Object):
		return KindInherited, "it is not certain that this call created it"
	case made.Origin == Placed:
		if row := c.calls.ByID(made.Call); row != nil && row.Gives == fdcall.Exact {
			return KindDeliberate, "the program chose its number, by " + made.Call
		}
		return KindDeliberate, "a shell was told to open it"
	case made.Origin == Cleared:
		return KindDeliberate, "the program took close-on-exec away from it, by " + made.Call
	case made.Origin != Created:
		return KindInherited, "it is not known where it was created"
	}
	if arg, ok := inArguments(to.Argv, h.FD); ok {
		return KindDeliberate, fmt.Sprintf("the arguments mention its number: %s", clip(arg, 80))
	}
	if v, ok := inEnvironment(e.Env, h.FD); ok {
		return KindDeliberate, fmt.Sprintf("the environment mentions its number: %s", clip(v, 80))
	}
	return KindLeak, ""
}

// consistent reports whether one descriptor can have been both.
func consistent(a, b Object) bool {
	const anonymous = "anon_inode:"
	kind := func(o Object) string {
		if strings.HasPrefix(o.Link, "/") {
			return "/"
		}
		before, _, _ := strings.Cut(o.Link, ":")
		return before
	}
	switch {
	case a.Link == "" || b.Link == "":
		return true
	case kind(a) != kind(b):
		return false
	case strings.HasPrefix(a.Link, anonymous):
		return a.Link == b.Link
	case a.Ino != 0 && b.Ino != 0:
		return a.Ino == b.Ino
	}
	const deleted = " (deleted)" // fs/d_path.c of the kernel
	return strings.TrimSuffix(a.Link, deleted) == strings.TrimSuffix(b.Link, deleted)
}

// add counts a descriptor, and keeps its finding if it is the first of its like.
func (c *classifier) add(f Finding) {
	f.Count = 1
	f.Creator = c.program(f.Creation.Program)
	s, ok := c.stacks.get(f.Creation.Stack)
	if !ok {
		s = new(stack)
	}
	f.Stack = s.frames
	if name, ok := c.Suppressions.match(&f); ok {
		c.report.Suppressed[name]++
		return
	}
	c.report.Counts[f.Kind]++
	key := likeness{kind: f.Kind, stack: s.print, call: f.Creation.Call, creator: f.Creator.Executable}
	if f.Receipt != nil {
		key.receiver = cmp.Or(f.Receipt.Program.Executable, strings.Join(f.Receipt.Program.Argv, " "))
	}
	if len(s.frames) == 0 || f.Kind == KindInherited {
		key.object = f.Creation.Object.Link
	}
	if old := c.found[key]; old != nil {
		old.Count++
		if old.Window != nil {
			old.Window.add(f.Window)
		}
		return
	}
	if len(c.found) >= c.MaxFindings {
		c.report.Dropped++
		return
	}
	c.found[key] = &f
	c.keep(f.Creation.Program)
	if f.Receipt != nil {
		c.keep(f.Receipt.Program.ID)
		c.keep(f.Receipt.Before.ID)
	}
}

// keep makes a program and those that it stems from part of the report.
func (c *classifier) keep(id uint64) {
	for c.kept[id] == nil {
		p, ok := c.programs.get(id)
		if !ok {
			return
		}
		c.kept[id] = p
		id = p.Parent
	}
}

// add makes w the worst of both windows.
func (w *Window) add(other *Window) {
	w.Length = max(w.Length, other.Length)
	w.Threads = w.Threads || other.Threads
	w.Forked = w.Forked || other.Forked
}

func (c *classifier) finish() *Report {
	r := c.report
	r.Lost += c.lost
	for _, f := range c.found {
		r.Findings = append(r.Findings, *f)
	}
	slices.SortFunc(r.Findings, func(a, b Finding) int {
		return cmp.Or(
			cmp.Compare(slices.Index(kinds, a.Kind), slices.Index(kinds, b.Kind)),
			a.harmless()-b.harmless(),
			cmp.Compare(a.time(), b.time()),
			cmp.Compare(a.Creation.FD, b.Creation.FD),
			cmp.Compare(a.Creation.ID, b.Creation.ID),
		)
	})
	for _, run := range c.kept {
		r.Programs = append(r.Programs, *run)
	}
	slices.SortFunc(r.Programs, func(a, b Run) int {
		return cmp.Or(cmp.Compare(a.Started, b.Started), cmp.Compare(a.ID, b.ID))
	})
	return r
}

// harmless is 1 for what is to come last of its kind.
func (f *Finding) harmless() int {
	if f.Harmless() {
		return 1
	}
	return 0
}

// time is when the finding came to be.
func (f *Finding) time() int64 {
	if f.Receipt != nil {
		return f.Receipt.Time
	}
	return f.Creation.Time
}

func newStack(frames []Frame) *stack {
	s := &stack{frames: boundedFrames(frames)}
	h := sha256.New()
	var b []byte
	for _, f := range s.frames {
		if f.Module == "" {
			f.Offset = 0 // an address, which is another one in each process
		}
		b = b[:0]
		for _, text := range []string{f.Function, f.File, f.Module, f.BuildID} {
			b = binary.AppendUvarint(b, uint64(len(text)))
			b = append(b, text...)
		}
		b = binary.AppendVarint(b, int64(f.Line))
		b = binary.AppendUvarint(b, f.Offset)
		h.Write(b)
	}
	h.Sum(s.print[:0])
	return s
}

// memory remembers what was used last, under IDs: at least rememberedIDs, and
// at most twice as many.
type memory[T any] struct{ young, old map[uint64]T }

func remember[T any]() memory[T] { return memory[T]{young: make(map[uint64]T)} }

func (m *memory[T]) put(id uint64, v T) {
	if id == 0 {
		return
	}
	if len(m.young) >= rememberedIDs {
		m.old, m.young = m.young, make(map[uint64]T)
	}
	m.young[id] = v
}

func (m *memory[T]) get(id uint64) (T, bool) {
	if v, ok := m.young[id]; ok {
		return v, true
	}
	v, ok := m.old[id]
	if ok {
		m.put(id, v)
	}
	return v, ok
}

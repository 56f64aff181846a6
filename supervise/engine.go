package supervise

import (
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/seed-055cd0c8/indirect/fdcall"
	"github.com/seed-055cd0c8/indirect/internal/image"
	"github.com/seed-055cd0c8/indirect/internal/listener"
	"github.com/seed-055cd0c8/indirect/internal/tracee"
	"github.com/seed-055cd0c8/indirect/policy"
)

// engine answers the notifications of one run.
type engine struct {
	config
	listener   *listener.Listener
	ledger     *ledger
	table      *fdcall.Table
	index      map[*fdcall.Call]int // rows of the ledger
	addedCalls []fdcall.Added
	extensions []loaded
	cpus       unix.CPUSet // on which our threads may run
	code       []byte      // what is written to the vDSO: for landing, and for single calls
	singleAt   uint64      // where in it the latter begins
	issued     uint32      // where in the image the stub's call returns
	sysletAt   uint32      // where in it a thread begins that brings a syslet
	told       uint64      // where in the landing code its last call returns
	cave       uint64      // where in the vDSO it goes
	caveErr    error

	// images serialises all changes to what is injected into processes: two
	// threads of one address space may trap at the same time, and nothing
	// cheap tells that two processes share one.
	images   sync.Mutex
	filling  []byte // what was written to the last new image
	programs map[string]*program
	codes    map[string]*image.Code // by what is wanted of each call
	sites    sites
	foreseen sync.Once
	kept     map[uint64]int               // call sites that must stay as they are: threads are about to make a call there
	landings map[int]landing              // thread: where it has begun to land
	singles  map[int]uint64               // thread that has made a single call: the vDSO of its program image
	plans    map[*fdcall.Call]fdcall.Plan // calls that can be made singly
	kinds    map[fdcall.ABI]map[int32]image.Kind

	awaited awaited
	clears  sync.Map     // process: its threads are being taken out of its image
	inPlace sync.Map     // tid: a call of this thread is being run in place
	blocked atomic.Int32 // how many there are
	orphans sync.Map     // tid: the state of a thread that a supervisor held when it died
	ready   sync.Map     // tid: its call at this instruction has waited with its signal mask
}

// program is what a policy means for one executable.
type program struct {
	policy.Program
	code *image.Code
	// repeats says that a process of the program has made a second call that
	// trapped: the next one's call sites are diverted at once.
	repeats atomic.Bool
	sets    map[fdcall.Want][]byte // what programs that ask need more; guarded by engine.images
}

// landing is a thread's attempt to map an image.
type landing struct {
	vdso    uint64 // tells the program from others that the thread may execute
	program *program
	ret     uint64 // where the call returns that it has interrupted
}

func newEngine(c config, l *listener.Listener, led *ledger) (*engine, error) {
	e := &engine{
		config: c, listener: l, ledger: led,
		table:      fdcall.Linux(),
		addedCalls: fdcall.AddedCalls(),
		index:      make(map[*fdcall.Call]int),
		programs:   make(map[string]*program),
		codes:      make(map[string]*image.Code),
		sites:      newSites(),
		kept:       make(map[uint64]int),
		landings:   make(map[int]landing),
		singles:    make(map[int]uint64),
		kinds:      make(map[fdcall.ABI]map[int32]image.Kind),
	}
	calls := e.table.All()
	for i := range calls {
		e.index[&calls[i]] = i
	}
	var err error
	if e.cpus, err = tracee.Processors(0); err != nil {
		return nil, err
	}
	if e.code, err = image.Landing(); err != nil {
		return nil, err
	}
	e.singleAt = uint64(len(e.code))
	single, err := image.Single()
	if err != nil {
		return nil, err
	}
	e.code = append(e.code, single...)
	if e.issued, err = image.Issued(); err != nil {
		return nil, err
	}
	if e.sysletAt, err = image.SysletAt(); err != nil {
		return nil, err
	}
	told, err := image.LandingTold()
	if err != nil {
		return nil, err
	}
	e.told = uint64(told)
	e.cave, e.caveErr = tracee.VDSOCave(len(e.code))
	e.plans = e.singlePlans()
	return e, nil
}

var errStopped = errors.New("told to stop")

// maxWorkers bounds the notifications that are worked on at the same time, and
// maxBlocked those among them that may take for ever, because the program's
// call blocks while it is run in place: the others must not wait for them.
const (
	maxWorkers = 256
	maxBlocked = maxWorkers - 16
)

// serve answers notifications, those that were left by a supervisor before us
// among them, until no process is left under the filter (listener.ErrDone) or
// the other end of stop is closed (errStopped).
func (e *engine) serve(stop *os.File, left []*flight) error {
	w := workers{engine: e, failed: make(chan error, maxWorkers)}
	for _, f := range left {
		w.resume(f)
	}
	w.rest() // first things first: supervisors that die early would never get to the end of them
	for range receivers {
		w.start()
	}
	watched := make(chan error, 2)
	go func() { watched <- e.listener.Watch() }()
	go func() {
		_, _ = io.Copy(io.Discard, stop)
		watched <- errStopped
	}()
	var err error
	select {
	case err = <-watched:
	case err = <-w.failed:
	}
	w.stop()
	if errors.Is(err, errStopped) && e.listener.Done() { // both at once
		return listener.ErrDone
	}
	return err
}

// recover takes over what a supervisor that died has left behind, and returns
// what of it is left to do for workers.
func (e *engine) recover() (left []*flight) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	for i := range e.ledger.flight {
		f := &e.ledger.flight[i]
		f.adopt()
		f.share.end(e.cpus)
		n := f.notice
		waits := n.ID != 0 && e.listener.Valid(n.ID) // otherwise it is answered, or dead
		if waits && f.tries.Add(1) > maxTries {
			var c *fdcall.Call
			if abi, nr, ok := abiOf(n); ok {
				c = e.table.Lookup(abi, nr, &n.Args)
			}
			e.pass(n, c, gap)
			waits = false
		}
		tid := int(f.held.tid.Load())
		if tid != 0 {
			s := f.held.state
			e.orphans.Store(tid, &s)
		}
		if waits || tid != 0 {
			left = append(left, f)
		} else {
			f.drop()
		}
	}
	return left
}

// maxTries bounds the supervisors that one notification may bring down.
const maxTries = 8

// handle answers one notification.
func (e *engine) handle(n listener.Notification) {
	if _, ok := e.inPlace.Load(int(n.TID)); ok {
		e.answer(e.listener.Continue(n.ID))
		return
	}
	abi, nr, ok := abiOf(n)
	if !ok {
		e.pass(n, nil, impossible)
		return
	}
	switch {
	case n.Nr == image.Mapped && abi == native:
		e.answer(e.listener.Return(n.ID, e.setArena(int(n.TID), n.Args[0])))
		return
	case abi == native && e.tells(n):
		e.landed(n)
		return
	case isCancel(abi, nr):
		e.cancels(n)
		return
	}
	if e.extend(n, abi, nr) {
		return
	}
	if installsFilter(abi, nr, &n.Args) {
		if err := e.noteFilter(int(n.TID)); err != nil && !errors.Is(err, tracee.ErrGone) {
			e.complain(fmt.Errorf("note that thread %d filters its own calls: %w", n.TID, err))
		}
		e.beforeFilter(n)
		return
	}
	if a, former := e.added(abi, nr, &n.Args); a != nil && n.TID != 0 {
		err := e.retryTraced(n, func() error { return e.runAdded(n, abi, a, former) })
		if err != nil && !errors.Is(err, listener.ErrGone) && !errors.Is(err, tracee.ErrGone) && e.listener.Valid(n.ID) {
			refused := &e.ledger.refused[len(e.index)+int(a.Nr-fdcall.NrIndirect)][e.whyNot(n, err)]
			e.answer(counting(refused, func() error { return e.listener.Fail(n.ID, unix.ENOSYS) }))
		}
		return
	}
	c := e.table.Lookup(abi, nr, &n.Args)
	if c == nil {
		// An extension's call, with which it had nothing to do.
		e.answer(e.listener.Continue(n.ID))
		return
	}
	if n.TID == 0 {
		e.pass(n, c, unseen)
		return
	}
	err := e.retryTraced(n, func() error { return e.enforce(n, abi, c) })
	switch {
	case err != nil && !e.listener.Valid(n.ID): // it died, or has its answer
	case err == nil || errors.Is(err, listener.ErrGone) || errors.Is(err, tracee.ErrGone):
	default:
		e.pass(n, c, e.whyNot(n, err))
	}
}

// whyNot tells why err kept a call from what was wanted of it.
func (e *engine) whyNot(n listener.Notification, err error) reason {
	switch {
	case errors.Is(err, errImpossible):
		return impossible
	case errors.Is(err, errCrowded):
		return crowded
	case errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES):
		if s, err := tracee.ReadStatus(int(n.TID)); err == nil && s.Tracer != 0 {
			return traced
		}
		return forbidden
	}
	e.complain(fmt.Errorf("%s of thread %d: %w", e.nameOf(n), n.TID, err))
	return failed
}

// added returns the added call that a program made, and whether by the number
// that it had in its time.
func (e *engine) added(abi fdcall.ABI, nr int32, args *[6]uint64) (a *fdcall.Added, former bool) {
	for i := range e.addedCalls {
		if ok, former := e.addedCalls[i].Matches(abi, nr, args); ok {
			return &e.addedCalls[i], former
		}
	}
	return nil, false
}

// nameOf names the call of n for people.
func (e *engine) nameOf(n listener.Notification) string {
	if abi, nr, ok := abiOf(n); ok {
		if c := e.table.Lookup(abi, nr, &n.Args); c != nil {
			return c.ID()
		}
		if a, _ := e.added(abi, nr, &n.Args); a != nil {
			return a.Name
		}
	}
	return fmt.Sprintf("call %d", n.Nr)
}

// retryTraced tries something that attaches to the thread of n for as long as
// a thread of our own is in the way.
func (e *engine) retryTraced(n listener.Notification, try func() error) error {
	err := try()
	for i := 0; errors.Is(err, unix.EPERM) && i < maxDetaching && ours(int(n.TID), i == 0); i++ {
		if e.awaited.do(int(n.TID), func() { e.answer(e.listener.Restart(n.ID)) }) {
			return nil
		}
		time.Sleep(detaching)
		err = try()
	}
	return err
}

// A worker may hold, for a moment, a thread that is not the one it was told of:
// an execve gives the thread that makes it the ID of its process's first
// thread. Another worker that has a call of that thread in hand waits, or, if
// the first one waits for the thread to stop, lets it: it will trap again.
const (
	detaching    = 200 * time.Microsecond
	maxDetaching = 500
)

// ours reports whether one of our own threads traces tid. Has it been let go
// since, that counts only the first time.
func ours(tid int, first bool) bool {
	s, err := tracee.ReadStatus(tid)
	if err != nil || s.Tracer == 0 {
		return err == nil && first
	}
	_, err = os.Stat(fmt.Sprintf("/proc/self/task/%d", s.Tracer))
	return err == nil
}

var (
	errImpossible = errors.New(reasonText[impossible])
	errCrowded    = errors.New(reasonText[crowded])
)

// memory opens the memory of the process of n, whose thread still waits then:
// otherwise it might be that of another program, which a thread that is gone
// with n has executed.
func (e *engine) memory(n listener.Notification) (*tracee.Memory, error) {
	m, err := tracee.OpenMemory(int(n.TID))
	if err == nil && !e.listener.Valid(n.ID) {
		return nil, errors.Join(tracee.ErrGone, m.Close())
	}
	return m, err
}

// header reads the header of the image in the address space of tid.
func (e *engine) header(tid int) (image.Header, bool) {
	var b [image.HeaderSize]byte
	got := tracee.Peek(tid, uint64(e.Base)+image.HeaderAt, b[:])
	return image.ParseHeader(b[:got], e.Magic)
}

// maxPrograms bounds the memory that names of executables take.
const maxPrograms = 512

// program returns what the policy wants of the program that tid runs.
func (e *engine) program(tid int) (*program, error) {
	exe, err := tracee.Executable(tid)
	if err != nil {
		exe = "" // unreadable: the policy's default holds
	}
	e.images.Lock()
	defer e.images.Unlock()
	if p, ok := e.programs[exe]; ok {
		return p, nil
	}
	p := &program{Program: e.Policy.Program(exe), sets: make(map[fdcall.Want][]byte)}
	inProcess := func(c *fdcall.Call) fdcall.Want {
		if e.trapped(c) {
			return 0
		}
		return p.Want(c)
	}
	if p.code, err = e.codeFor(inProcess); err != nil {
		return nil, fmt.Errorf("build the image for %s: %w", exe, err)
	}
	if len(e.programs) >= maxPrograms {
		clear(e.programs)
	}
	e.programs[exe] = p
	return p, nil
}

// codeFor returns the code of images that give the calls what want names; most
// programs want the same. The caller holds images.
func (e *engine) codeFor(want func(*fdcall.Call) fdcall.Want) (*image.Code, error) {
	calls := e.table.All()
	wants := make([]byte, len(calls))
	for i := range calls {
		wants[i] = byte(want(&calls[i]))
	}
	if code, ok := e.codes[string(wants)]; ok {
		return code, nil
	}
	code, err := image.Build(e.table, want, e.Base)
	if err != nil {
		return nil, err
	}
	if len(e.codes) >= maxPrograms {
		clear(e.codes)
	}
	e.codes[string(wants)] = code
	return code, nil
}

// group is the thread group (the process) of tid.
func (e *engine) group(tid int) int {
	if tracee.Leader(tid) {
		return tid
	}
	s, err := tracee.ReadStatus(tid)
	if err != nil {
		return tid
	}
	return s.TGID
}

// letThrough answers a call from which nothing is wanted.
func (e *engine) letThrough(n listener.Notification, c *fdcall.Call) {
	_ = counting(e.served(c, spared), func() error { return e.listener.Continue(n.ID) })
}

// pass lets a call run unchanged, and counts why.
func (e *engine) pass(n listener.Notification, c *fdcall.Call, why reason) {
	_ = counting(&e.ledger.refused[e.row(c)][why], func() error { return e.listener.Continue(n.ID) })
}

// row is where the ledger counts the call c; nil stands for a call that is
// not known.
func (e *engine) row(c *fdcall.Call) int {
	if i, ok := e.index[c]; ok {
		return i
	}
	return maxCalls - 1
}

// served is where the ledger counts the calls c that were served in a way.
func (e *engine) served(c *fdcall.Call, w way) *atomic.Uint64 { return &e.ledger.served[e.row(c)][w] }

// answer drops the error of an answer to a thread that is gone.
func (e *engine) answer(err error) {
	if err != nil && !errors.Is(err, listener.ErrGone) {
		e.complain(err)
	}
}

// complain tells the front, which owns the terminal.
func (e *engine) complain(err error) { fmt.Fprintln(os.Stderr, err) }

// awaited are the threads that have been interrupted and are to stop.
type awaited struct {
	mu   sync.Mutex
	tids map[int]bool
}

func (a *awaited) add(tid int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.tids == nil {
		a.tids = make(map[int]bool)
	}
	a.tids[tid] = true
}

func (a *awaited) remove(tid int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.tids, tid)
}

// do calls f if the thread is awaited, and cannot be let go meanwhile.
func (a *awaited) do(tid int, f func()) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.tids[tid] {
		f()
	}
	return a.tids[tid]
}

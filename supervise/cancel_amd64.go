package supervise

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/seed-055cd0c8/indirect/internal/image"
	"github.com/seed-055cd0c8/indirect/internal/listener"
	"github.com/seed-055cd0c8/indirect/internal/tracee"
)

// cancels handles the signal by which a thread is cancelled (pthread_cancel(3)).
// The C libraries decide by the instruction pointer of the interrupted thread
// whether it may be cancelled (musl), or unwind from there (glibc), so that
// from the first such signal on no thread of the program may be found in code
// of ours in front of, or in, a call that blocks: all call sites are restored,
// threads that are on their way are put back to them, and cancellation points
// are run in place.
func (e *engine) cancels(n listener.Notification) {
	if e.landFirst(n) {
		return // the mark lives in the image
	}
	tid := int(n.TID)
	process := e.group(tid)
	for {
		if _, busy := e.clears.LoadOrStore(process, true); !busy {
			break
		}
		// Another thread cancels one, and its worker may wait for this thread.
		if e.awaited.do(tid, func() { e.answer(e.listener.Restart(n.ID)) }) {
			return // it will be back
		}
		time.Sleep(detaching)
	}
	defer e.clears.Delete(process)
	if err := e.clear(tid, e.ledger.of(n.ID)); err != nil && !errors.Is(err, tracee.ErrGone) {
		e.complain(fmt.Errorf("prepare process %d for thread cancellation: %w", tid, err))
	}
	e.answer(e.listener.Continue(n.ID))
}

// clear takes all threads of tid's process out of the image, once, but for tid
// itself, which waits for us; f is where its notification is.
func (e *engine) clear(tid int, f *flight) error {
	h, ok := e.header(tid)
	for i := 0; !ok && i < maxLanding && e.mapped(tid); i++ {
		time.Sleep(detaching) // another thread lands
		h, ok = e.header(tid)
	}
	if !ok || h.Flags&image.Cleared != 0 {
		return nil // everything is run in place already
	}
	m, err := tracee.OpenMemory(tid)
	if err != nil {
		return err
	}
	defer m.Close()
	c := clearing{engine: e, mem: m, flight: f}
	if c.vdso, err = tracee.VDSO(tid); err != nil {
		return err
	}
	if c.diverted, err = e.restoreSites(tid, m); err != nil {
		return err
	}
	// Without the lock: a thread that is waited for may be in a call that another
	// worker has to answer first. None enters the image any more: see enter.
	threads, err := tasks(tid)
	if err != nil {
		return err
	}
	var errs []error
	for _, t := range threads {
		if t == tid {
			continue
		}
		if err := c.thread(t); err != nil && !errors.Is(err, tracee.ErrGone) {
			errs = append(errs, err)
		}
	}
	if len(errs) > 0 {
		return errors.Join(errs...)
	}
	return e.mark(tid, m, image.Cleared)
}

// maxLanding bounds the wait for another thread's landing: what is mapped there
// may be the program's own.
const maxLanding = 100

// mapped reports whether there is memory where the image of tid would be.
func (e *engine) mapped(tid int) bool {
	var b [1]byte
	return tracee.Peek(tid, uint64(e.Base)+image.HeaderAt, b[:]) == len(b)
}

// mark sets a flag in the header of the image of tid.
func (e *engine) mark(tid int, m *tracee.Memory, flag image.Flags) error {
	e.images.Lock()
	defer e.images.Unlock()
	s, err := e.loadImage(tid, m)
	if err != nil {
		return err
	}
	s.header.Flags |= flag
	return s.writeHeader()
}

// restoreSites sets the mark that keeps cancellation points out of the image,
// and undiverts all call sites. It returns where a thread may be that was
// diverted before.
func (e *engine) restoreSites(tid int, m *tracee.Memory) (diverted []span, err error) {
	e.images.Lock()
	defer e.images.Unlock()
	s, err := e.loadImage(tid, m)
	if err != nil {
		return nil, err
	}
	s.header.Flags |= image.Cancels
	if err := s.writeHeader(); err != nil {
		return nil, err
	}
	maps, err := tracee.CodeMaps(tid)
	if err != nil {
		return nil, err
	}
	for i := range int(s.header.Thunks) {
		site := image.ReturnOf(s.code(i)) - syscallLen
		routes, bias := e.routesOf(tid, maps, site)
		for _, route := range routes {
			// What cannot be restored stays diverted; it is no worse than before.
			_ = undoRoute(tid, m, route, bias)
			for _, w := range route.Writes {
				diverted = append(diverted, span{w.Addr + bias, w.Addr + bias + uint64(len(w.New))})
			}
		}
	}
	return diverted, nil
}

// tasks lists the threads of tid's process.
func tasks(tid int) ([]int, error) {
	names, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", tid))
	if err != nil {
		return nil, fmt.Errorf("list the threads of process %d: %w", tid, err)
	}
	var all []int
	for _, n := range names {
		if t, err := strconv.Atoi(n.Name()); err == nil {
			all = append(all, t)
		}
	}
	return all, nil
}

// span is a range of addresses; the end does not belong to it.
type span struct{ start, end uint64 }

func (s span) has(address uint64) bool { return address >= s.start && address < s.end }

// clearing takes the threads of one process out of its image.
type clearing struct {
	*engine
	mem      *tracee.Memory
	vdso     uint64
	diverted []span // code outside of the image that leads there
	flight   *flight
}

func (c *clearing) image() span { return span{uint64(c.Base), uint64(c.Base) + image.Size} }

// cave is where a landing thread is.
func (c *clearing) cave() span {
	at := c.vdso + c.engine.cave
	return span{at, at + c.singleAt}
}

// thread takes a thread out of the image, if it is there. It may be traced for
// a moment by another worker; one that the program itself traces is not there.
func (c *clearing) thread(tid int) error {
	for try := 0; ; try++ {
		if !c.mayBeInside(tid) {
			return nil
		}
		err := c.takeOut(tid)
		switch {
		case !errors.Is(err, unix.EPERM) || try == maxDetaching:
			return err
		case !ours(tid, try == 0):
			return nil
		}
		time.Sleep(detaching)
	}
}

// mayBeInside reports whether a thread runs, or is blocked in a call that our
// code in its process has made, or is held: it may be sent there, unless its
// call is run in place.
func (c *clearing) mayBeInside(tid int) bool {
	if _, ok := c.inPlace.Load(tid); ok {
		return false
	}
	if ours(tid, false) {
		return true
	}
	_, pc, waits := tracee.Where(tid)
	return !waits || c.image().has(pc) || c.cave().has(pc)
}

// stepping blocks all signals but SIGTRAP, with which single steps end: the
// kernel would reset its handler (force_sig_info_to_task in kernel/signal.c).
const stepping = tracee.AllSignals &^ (1 << (unix.SIGTRAP - 1))

// maxSteps bounds the instructions that a thread makes on its way out.
const maxSteps = 4096

// takeOut stops a thread. If it is on its way to a call, it goes back to the
// program's own instruction for that; if it comes from one, it goes on to the
// program, instruction by instruction. Signals have to wait meanwhile.
func (c *clearing) takeOut(tid int) error {
	t, stop, sig, err := c.attach(tid, func() {})
	if err != nil {
		return err
	}
	if stop != tracee.Interrupted {
		return t.Detach(sig) // its handler comes first
	}
	mask, err := t.SigMask()
	if err != nil {
		return err
	}
	blocked := false
	for range maxSteps {
		r, err := t.Regs()
		if err != nil {
			return err
		}
		back, its, ok := c.before(r)
		if ok {
			if its != nil {
				mask = *its
			}
			return errors.Join(t.SetSigMask(mask), resume(t, back))
		}
		if !c.steps(r) {
			break
		}
		if !blocked {
			if c.flight != nil {
				c.flight.held.begin(tid, state{mask: mask})
				defer c.flight.held.end(tid)
			}
			if err := t.SetSigMask(stepping); err != nil {
				return err
			}
			blocked = true
		}
		if err := t.Step(); err != nil {
			return err
		}
	}
	if blocked {
		if err := t.SetSigMask(mask); err != nil {
			return errors.Join(err, t.Detach(0))
		}
	}
	return t.Detach(0)
}

// steps reports whether a thread is in code of ours, in front of an instruction
// that cannot block.
func (c *clearing) steps(r tracee.Regs) bool {
	inside := c.image().has(r.Rip) || c.cave().has(r.Rip) || slices.ContainsFunc(c.diverted, func(s span) bool { return s.has(r.Rip) })
	if !inside || int64(r.Orig_rax) >= 0 && restarts(r) {
		return false
	}
	b := make([]byte, syscallLen)
	if c.mem.Read(r.Rip, b) != nil {
		return false
	}
	return !bytes.Equal(b, syscallCode) || c.image().has(r.Rip) && slices.Contains(quickCalls, r.Rax)
}

// quickCalls are calls that the stub makes before or after the program's, and
// that do not block.
var quickCalls = []uint64{unix.SYS_FCNTL, unix.SYS_CLOSE, unix.SYS_GETPID, unix.SYS_GETRANDOM, unix.SYS_PRLIMIT64, unix.SYS_PROCESS_VM_READV, unix.SYS_PROCESS_VM_WRITEV}

// restarts reports whether a thread was interrupted in a call that has done
// nothing, and would make it again. The results are those of the kernel's
// include/linux/errno.h.
func restarts(r tracee.Regs) bool {
	const (
		restartSys       = -512
		restartNoIntr    = -513
		restartNoHandler = -514
		restartBlock     = -516
	)
	switch int64(r.Rax) {
	case restartSys, restartNoIntr, restartNoHandler, restartBlock, -int64(unix.EINTR):
		return int64(r.Orig_rax) >= 0
	}
	return false
}

// before returns the registers that a thread had at its call site, and its
// signal mask if it has another one now, if r are those of one in our code that
// has not made its call, or whose call was interrupted and has done nothing.
func (c *clearing) before(r tracee.Regs) (back tracee.Regs, mask *tracee.SigMask, ok bool) {
	if cave := c.cave(); cave.has(r.Rip) {
		return c.beforeLanding(r, cave)
	}
	if !c.image().has(r.Rip) {
		return r, nil, false
	}
	nr, made := r.Rax, uint64(0) // what lies behind a call's instruction
	if int64(r.Orig_rax) >= 0 {
		if !restarts(r) {
			return r, nil, false
		}
		const restartBlock = -516
		if nr = r.Orig_rax; int64(r.Rax) == restartBlock {
			nr = unix.SYS_RESTART_SYSCALL
		}
		made = syscallLen
	}
	at := r.Rip - made
	if thunk := at - (image.PlainReturn - syscallLen); made == 0 && c.site(at) != 0 || c.site(thunk) != 0 {
		if c.site(thunk) == 0 {
			thunk = at // its first instruction
		}
		r.Rip, r.Rax, r.Orig_rax = c.site(thunk), nr, ^uint64(0)
		return r, nil, true
	}
	if at != uint64(c.Base)+uint64(c.issued)-syscallLen {
		return r, nil, false
	}
	f, ok := c.frame(r.Rsp)
	if ok && f.Thunk == image.OwnThunk(c.Base) { // the call was run for an added one
		r.Rsp += image.NestedSize
		f, ok = c.frame(r.Rsp)
	}
	if !ok || c.site(f.Thunk) == 0 {
		return r, nil, false
	}
	r.Rdi, r.Rsi, r.Rdx, r.R10, r.R8, r.R9 = f.Args[0], f.Args[1], f.Args[2], f.Args[3], f.Args[4], f.Args[5]
	r.Rbx, r.Rax, r.Orig_rax = f.BX, f.Nr, ^uint64(0)
	r.Rip, r.Rsp = c.site(f.Thunk), r.Rsp+image.FrameSize
	return r, nil, true
}

// beforeLanding is before for a thread that lands. With its last instruction it
// has its registers back.
func (c *clearing) beforeLanding(r tracee.Regs, cave span) (tracee.Regs, *tracee.SigMask, bool) {
	if r.Rip >= cave.end-uint64(len(image.LandingEnd)) {
		return r, nil, false
	}
	b := make([]byte, image.LandingFrameSize)
	if c.mem.Read(r.Rsp, b) != nil {
		return r, nil, false
	}
	f := image.ParseLandingFrame(b)
	if site := c.site(f.Site); site != 0 {
		f.Site = site
	}
	r.Rdi, r.Rsi, r.Rdx, r.R10, r.R8, r.R9 = f.DI, f.SI, f.DX, f.R10, f.R8, f.R9
	r.Rax, r.Orig_rax = f.AX, ^uint64(0)
	r.Rip, r.Rsp = f.Site, r.Rsp+image.LandingFrameSize+redZone
	mask := tracee.SigMask(f.Mask)
	return r, &mask, true
}

// frame reads the stub's frame at an address.
func (c *clearing) frame(at uint64) (image.Frame, bool) {
	b := make([]byte, image.FrameHead)
	if c.mem.Read(at, b) != nil {
		return image.Frame{}, false
	}
	return image.ParseFrame(b)
}

// site returns the call site of the thunk at an address, or 0.
func (c *clearing) site(thunk uint64) uint64 {
	b := make([]byte, image.ThunksLen(1))
	if _, ok := image.ThunkIndex(c.Base, thunk); !ok || c.mem.Read(thunk, b) != nil {
		return 0
	}
	ret := image.ReturnOf(b)
	if ret == 0 {
		return 0 // not in use
	}
	return ret - syscallLen
}

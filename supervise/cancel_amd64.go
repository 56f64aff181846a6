package supervise

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/seed-055cd0c8/indirect/internal/image"
	"github.com/seed-055cd0c8/indirect/internal/listener"
	"github.com/seed-055cd0c8/indirect/internal/tracee"
)

// cancels handles the signal by which a thread is cancelled (pthread_cancel(3)).
// The C libraries decide by the instruction pointer of the interrupted thread
// whether it may be cancelled (musl), or unwind from there (glibc), so that
// from the first such signal on no thread of the program may be found inside
// the stub in a call that blocks: all call sites are restored, threads that
// wait in the stub are put back to their call sites, and cancellation points
// are run in place.
func (e *engine) cancels(n listener.Notification) {
	tid := int(n.TID)
	if _, ok := e.header(tid); !ok {
		// The mark lives in the image: make one, the call comes back.
		if vdso, ok := e.mayLand(tid); ok {
			if err := e.land(n, vdso); err == nil || errors.Is(err, tracee.ErrGone) {
				return
			}
		}
	}
	if err := e.restoreSites(tid); err != nil && !errors.Is(err, tracee.ErrGone) {
		e.complain(fmt.Errorf("prepare process %d for thread cancellation: %w", tid, err))
	}
	e.answer(e.listener.Continue(n.ID))
}

func (e *engine) restoreSites(tid int) error {
	if _, ok := e.header(tid); !ok {
		return nil // everything is run in place already
	}
	m, err := tracee.OpenMemory(tid)
	if err != nil {
		return err
	}
	defer m.Close()
	e.images.Lock()
	defer e.images.Unlock()
	s, err := e.loadImage(tid, m)
	if err != nil || s.header.Flags&image.Cancels != 0 {
		return err
	}
	s.header.Flags |= image.Cancels
	if err := s.writeHeader(); err != nil {
		return err
	}
	maps, err := tracee.CodeMaps(tid)
	if err != nil {
		return err
	}
	for i := range int(s.header.Thunks) {
		site := image.ReturnOf(s.code(i)) - syscallLen
		routes, bias := e.routesOf(tid, maps, site)
		for _, route := range routes {
			// What cannot be restored stays diverted; it is no worse than before.
			_ = undoRoute(tid, m, route, bias)
		}
	}
	threads, err := tasks(tid)
	if err != nil {
		return err
	}
	var errs []error
	for _, t := range threads {
		if e.waitsInImage(t) {
			errs = append(errs, e.putBack(t, m))
		}
	}
	return errors.Join(slices.DeleteFunc(errs, func(err error) bool { return errors.Is(err, tracee.ErrGone) })...)
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

// waitsInImage reports whether a thread is blocked in a call that the image
// made: /proc/TID/syscall ends with the stack pointer and the program counter.
func (e *engine) waitsInImage(tid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/syscall", tid))
	if err != nil {
		return false
	}
	fields := strings.Fields(string(b))
	if len(fields) < 3 {
		return false // running
	}
	pc, err := strconv.ParseUint(fields[len(fields)-1], 0, 64)
	return err == nil && pc >= uint64(e.Base) && pc < uint64(e.Base)+image.Size
}

// putBack interrupts a thread that waits in the stub and lets it make its
// call again at its own call site.
func (e *engine) putBack(tid int, m *tracee.Memory) error {
	t, err := tracee.Seize(tid)
	if err != nil {
		return err
	}
	stop, sig, err := t.Stopped()
	if err != nil {
		return err
	}
	r, err := t.Regs()
	if err != nil {
		return err
	}
	if back, ok := e.before(r, m); ok && stop == tracee.Interrupted {
		return resume(t, back)
	}
	return t.Detach(sig)
}

// before returns the registers that a thread had at its call site, if r are
// those of one whose call in the image was interrupted and has done nothing.
func (e *engine) before(r tracee.Regs, m *tracee.Memory) (tracee.Regs, bool) {
	// Results of an interrupted call, from the kernel's include/linux/errno.h.
	const (
		restartSys       = -512
		restartNoIntr    = -513
		restartNoHandler = -514
		restartBlock     = -516
	)
	result := int64(r.Rax)
	nr := r.Orig_rax
	switch result {
	case restartSys, restartNoIntr, restartNoHandler, -int64(unix.EINTR):
	case restartBlock:
		nr = unix.SYS_RESTART_SYSCALL
	default:
		return r, false
	}
	if int64(r.Orig_rax) < 0 {
		return r, false
	}
	thunk := make([]byte, image.ThunksLen(1))
	if _, ok := image.ThunkIndex(e.Base, r.Rip-image.PlainReturn); ok {
		if m.Read(r.Rip-image.PlainReturn, thunk) != nil {
			return r, false
		}
		r.Rip, r.Rax, r.Orig_rax = image.ReturnOf(thunk)-syscallLen, nr, ^uint64(0)
		return r, true
	}
	if r.Rip != uint64(e.Base)+uint64(e.issued) {
		return r, false
	}
	b := make([]byte, image.FrameHead)
	if m.Read(r.Rsp, b) != nil {
		return r, false
	}
	f, ok := image.ParseFrame(b)
	if !ok {
		return r, false
	}
	if f.Thunk == image.OwnThunk(e.Base) { // the call was run for an added one
		r.Rsp += image.NestedSize
		if m.Read(r.Rsp, b) != nil {
			return r, false
		}
		f, _ = image.ParseFrame(b)
	}
	if _, ok := image.ThunkIndex(e.Base, f.Thunk); !ok || m.Read(f.Thunk, thunk) != nil {
		return r, false
	}
	r.Rdi, r.Rsi, r.Rdx, r.R10, r.R8, r.R9 = f.Args[0], f.Args[1], f.Args[2], f.Args[3], f.Args[4], f.Args[5]
	r.Rbx, r.Rax, r.Orig_rax = f.BX, f.Nr, ^uint64(0)
	r.Rip, r.Rsp = image.ReturnOf(thunk)-syscallLen, r.Rsp+image.FrameSize
	return r, true
}

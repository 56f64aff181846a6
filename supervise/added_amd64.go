package supervise

import (
	"encoding/binary"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/seed-055cd0c8/indirect/fdcall"
	"github.com/seed-055cd0c8/indirect/internal/image"
	"github.com/seed-055cd0c8/indirect/internal/listener"
	"github.com/seed-055cd0c8/indirect/internal/tracee"
)

// request is a call that is to be run for a program.
type request struct {
	call  *fdcall.Call // nil if it creates no descriptor
	nr    int32
	args  [6]uint64
	asked fdcall.Want   // what the program itself asked for, by an added call
	added *fdcall.Added // that call, or nil
	mask  uint64        // where the signal mask for the wait is, or 0

	syslet *syslet // it may go on by itself
	ring   bool    // it waits for a ring
}

// runAdded runs an added call: in process from the next time on, if it can be.
func (e *engine) runAdded(n listener.Notification, abi fdcall.ABI, a *fdcall.Added, former bool) error {
	tid := int(n.TID)
	q, err := e.decode(n, abi, a)
	if errors.Is(err, errUnreadable) && former {
		return e.listener.Continue(n.ID) // it was the other call after all
	}
	p, perr := e.program(tid)
	if perr != nil {
		return perr
	}
	var errno unix.Errno
	if errors.As(err, &errno) && e.inImage(n) {
		return e.listener.Fail(n.ID, errno) // the stub has left it to us
	}
	inPlace := abi != native || q.call != nil && e.trapped(q.call)
	h, ok := e.header(tid)
	// Also in programs that cancel threads: the C libraries have no cancellation
	// point that makes an added call.
	switch {
	case inPlace:
	case !ok:
		if vdso, ok := e.mayLand(tid); ok {
			return e.land(n, vdso, p)
		}
	case e.inImage(n) && h.Sets&(1<<q.asked) != 0: // the stub has left it to us
	default:
		return e.divertAdded(n, p, q)
	}
	switch {
	case errors.As(err, &errno):
		return e.listener.Fail(n.ID, errno)
	case err != nil:
		return err
	case abi == native && (q.syslet != nil || q.ring): // only the stub can
		return e.listener.Fail(n.ID, unix.ENOSYS)
	case q.ring:
		return e.waitRing(n, abi, q)
	case q.syslet != nil:
		return e.runSyslet(n, abi, q, p)
	case q.mask != 0 && e.waits(n, q):
		return e.waitMasked(n, abi, q)
	}
	e.ready.Delete(tid)
	return e.runRequest(n, abi, q, p)
}

var errUnreadable = fmt.Errorf("the call's description cannot be read: %w", unix.EFAULT)

// decode reads what an added call asks for, in the order of the call's own
// checks. Memory is read once, and what was read is used. The request's
// properties hold also if an error is returned.
func (e *engine) decode(n listener.Notification, abi fdcall.ABI, a *fdcall.Added) (request, error) {
	q := request{added: a}
	switch {
	case a.Nr == fdcall.NrIndirect:
		return e.decodeIndirect(n, abi, q)
	case a.Runs == "":
		var ring [16]byte
		if tracee.Peek(int(n.TID), n.Args[0], ring[:]) < len(ring) {
			return q, errUnreadable
		}
		q.ring = true
		return q, nil
	}
	flags := uint32(n.Args[a.FlagsArg])
	q.call = e.table.ByID(a.Runs)
	q.nr = q.call.Nr[abi]
	q.asked = fdcall.Asks(flags) | a.Gives
	for i, o := range a.Args {
		q.args[i] = o.Apply(&n.Args)
	}
	const maskSize = 8
	if a.MaskArg != 0 && n.Args[a.MaskArg] != 0 {
		if q.mask = n.Args[a.MaskArg]; n.Args[a.MaskArg+1] != maskSize {
			return q, unix.EINVAL
		}
	}
	if flags&^a.Accepts != 0 {
		return q, unix.EINVAL
	}
	if q.nr == fdcall.None { // i386 has no accept of its own
		up := q.call.Upgrade
		q.call = e.table.ByID(up.To)
		if q.nr = q.call.Nr[abi]; q.nr == fdcall.None {
			return q, unix.ENOSYS
		}
		var args [6]uint64
		for i, o := range up.Args {
			args[i] = o.Apply(&q.args)
		}
		q.args = args
	}
	q.call = e.table.Lookup(abi, q.nr, &q.args)
	return q, nil
}

// decodeIndirect reads the structures of indirect(2): a call's number and six
// arguments, and its file flags.
func (e *engine) decodeIndirect(n listener.Notification, abi fdcall.ABI, q request) (request, error) {
	const registers, fileFlags, sysletArgs = 7, 4, 32
	word := 8
	if abi == fdcall.I386 {
		word = 4
	}
	if int32(n.Args[3]) != 0 {
		return q, unix.EINVAL
	}
	b := make([]byte, registers*8)
	if tracee.Peek(int(n.TID), n.Args[0], b[:registers*word]) < registers*word {
		return q, errUnreadable
	}
	var regs [registers]uint64
	for i := range regs {
		if word == 4 {
			regs[i] = uint64(binary.LittleEndian.Uint32(b[i*word:]))
		} else {
			regs[i] = binary.LittleEndian.Uint64(b[i*word:])
		}
	}
	copy(q.args[:], regs[1:])
	q.nr = int32(regs[0])
	size := n.Args[2]
	if size > fileFlags && size <= sysletArgs {
		if abi == native {
			q.syslet = new(syslet) // the stub reads it
			return q, nil
		}
		var err error
		if q.syslet, err = decodeSyslet(int(n.TID), n.Args[1], size); err != nil {
			return q, err
		}
		if q.syslet != nil {
			q.call = e.table.Lookup(abi, q.nr, &q.args)
			return q, nil
		}
		size = 0 // without a ring, it has no flags
	}
	params := make([]byte, fileFlags)
	readable := size == 0 || size <= fileFlags && tracee.Peek(int(n.TID), n.Args[1], params[:size]) == int(size)
	if readable {
		q.asked = fdcall.Asks(binary.LittleEndian.Uint32(params))
	}
	rows := e.table.ByNumber(abi, q.nr)
	switch {
	case uint64(uint32(q.nr)) != regs[0], len(rows) == 0, !rows[0].CanIndirect():
		return q, unix.EINVAL
	case size > fileFlags:
		return q, unix.EINVAL
	case !readable:
		return q, unix.EFAULT
	}
	q.call = e.table.Lookup(abi, q.nr, &q.args)
	return q, nil
}

// divertAdded makes the call site of an added call lead to the stub, which
// then serves it, and sees to it that the rows that this call needs are there.
func (e *engine) divertAdded(n listener.Notification, p *program, q request) error {
	tid := int(n.TID)
	m, err := e.memory(n)
	if err != nil {
		return err
	}
	defer m.Close()
	thunk, diverted := uint32(n.IP-image.PlainReturn), e.inImage(n)
	inImage := diverted
	e.images.Lock()
	if err = e.addSet(tid, m, p, q.asked); err == nil && !inImage {
		thunk, diverted, err = e.patchSite(n, nil, m, true)
	}
	e.images.Unlock()
	if err != nil {
		return err
	}
	t, r, err := e.hold(n)
	if err != nil {
		return err
	}
	way := once
	if diverted {
		way = patched
	}
	return counting(&e.ledger.served[e.rowOf(q)][way], func() error { return e.enter(t, r, thunk, nil) })
}

// inImage reports whether a thunk made the call.
func (e *engine) inImage(n listener.Notification) bool {
	_, ok := image.ThunkIndex(e.Base, n.IP-image.PlainReturn)
	return ok
}

// addSet writes the rows for the properties asked into the image of tid.
func (e *engine) addSet(tid int, m *tracee.Memory, p *program, asked fdcall.Want) error {
	s, err := e.loadImage(tid, m)
	if err != nil || s.header.Sets&(1<<asked) != 0 {
		return err
	}
	rows, ok := p.sets[asked]
	if !ok {
		if rows, err = image.BuildSet(e.table, p.Want, e.trapped, asked); err != nil {
			return err
		}
		p.sets[asked] = rows
	}
	if s.header.Sets == 0 {
		if err := s.writeRest(p); err != nil {
			return err
		}
	}
	if err := m.Write(uint64(e.Base+image.SetAt(asked)), rows); err != nil {
		return err
	}
	s.header.Sets |= 1 << asked
	return s.writeHeader()
}

// setArena writes down where the process keeps its syslets, and returns the
// address that holds: that of the first thread that has mapped one, or 0.
func (e *engine) setArena(tid int, address uint64) int64 {
	m, err := tracee.OpenMemory(tid)
	if err != nil {
		return 0
	}
	defer m.Close()
	if !tracee.Writable(tid, address, image.ArenaSize) {
		return 0
	}
	e.images.Lock()
	defer e.images.Unlock()
	s, err := e.loadImage(tid, m)
	switch {
	case err != nil:
		return 0
	case s.header.Arena != 0:
		return int64(s.header.Arena)
	}
	s.header.Arena = address
	if s.writeHeader() != nil {
		return 0
	}
	return int64(address)
}

// noteFilter writes down that the thread is about to install a filter of its
// own: other threads' syslets would not be under it.
func (e *engine) noteFilter(tid int) error {
	if _, ok := e.header(tid); !ok {
		return nil
	}
	m, err := tracee.OpenMemory(tid)
	if err != nil {
		return err
	}
	defer m.Close()
	e.images.Lock()
	defer e.images.Unlock()
	s, err := e.loadImage(tid, m)
	if err != nil || s.header.Flags&image.OwnFilters != 0 {
		return err
	}
	s.header.Flags |= image.OwnFilters
	return s.writeHeader()
}

// rowOf is where the ledger counts a request.
func (e *engine) rowOf(q request) int {
	if q.added != nil {
		return len(e.index) + int(q.added.Nr-fdcall.NrIndirect)
	}
	return e.row(q.call)
}

// waits reports whether a call with a signal mask has yet to wait: the
// descriptor is a listening socket, it blocks, and the wait has not been made.
func (e *engine) waits(n listener.Notification, q request) bool {
	if ip, ok := e.ready.Load(int(n.TID)); ok && ip == n.IP {
		return false
	}
	fd, err := descriptorOf(e.group(int(n.TID)), q.args[0])
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	listening, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ACCEPTCONN)
	if err != nil || listening == 0 {
		return false
	}
	flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
	return err == nil && flags&unix.O_NONBLOCK == 0
}

// ppoll's numbers.
var ppoll = map[fdcall.ABI]int32{fdcall.AMD64: unix.SYS_PPOLL, fdcall.X32: unix.SYS_PPOLL | x32Bit, fdcall.I386: 309}

// waitMasked makes the thread wait for its socket with the signal mask in
// place, and then make its call again.
func (e *engine) waitMasked(n listener.Notification, abi fdcall.ABI, q request) error {
	defer e.blocked.Add(-1)
	if e.blocked.Add(1) > maxBlocked {
		return errCrowded
	}
	tid := int(n.TID)
	m, err := e.memory(n)
	if err != nil {
		return err
	}
	defer m.Close()
	t, r, err := e.hold(n)
	if err != nil {
		return err
	}
	const maskSize = 8
	at := (r.Rsp - redZone - maskSize) &^ 15
	if abi == fdcall.I386 {
		at = uint64(uint32(at))
	}
	pollfd := binary.LittleEndian.AppendUint32(nil, uint32(q.args[0]))
	pollfd = binary.LittleEndian.AppendUint32(pollfd, unix.POLLIN)
	if err := m.Write(at, pollfd); err != nil {
		return resume(t, r)
	}
	// Not answered by an error from here on: it would be the next call's.
	if err := e.runHeld(n, abi, t, r, ppoll[abi], [6]uint64{at, 1, 0, q.mask, maskSize, 0}, func(result uint64) (uint64, error) {
		if int64(result) > 0 {
			e.ready.Store(tid, n.IP)
			return 0, errAgain
		}
		return result, nil
	}); err != nil && !errors.Is(err, tracee.ErrGone) {
		e.complain(fmt.Errorf("wait with a signal mask for thread %d: %w", tid, err))
	}
	return nil
}

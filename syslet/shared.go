package syslet

import (
	"slices"

	"github.com/seed-055cd0c8/indirect/internal/uring"
	"golang.org/x/sys/unix"
)

// sharedAccept is a multishot accept: one request whose completions are the
// connections, as direct descriptors that the kernel chooses. They go to the
// chains that wait, in order; where none does they wait themselves.
type sharedAccept struct {
	listener, flags int
	data            uint64 // of the request
	armed           bool   // there is a request
	ending          bool   // whose cancellation was asked for
	waiting         []*flight
	arrived         []uint32
}

// ahead is the number of direct descriptors for connections. The kernel accepts
// before it looks for a free one, and drops the connection where there is none,
// so there are always enough: what chains hold, what has arrived when the request
// is cancelled, and what arrives until then, which no more completions than the
// queue has entries can tell of.
func ahead(depth, completions int) int { return depth + 2*completions }

// shares tells whether step i is served by a request that chains share.
func (b *ringBackend) shares(f *flight, i int) bool {
	return b.multishot && f.chain[i].Multishot && f.chain[i].Call == Accept && !b.plainAt(f, i)
}

// take gives f a connection, now or when one comes. It reports false where there
// is no room for the request.
func (b *ringBackend) take(f *flight) bool {
	s := &f.chain[f.pc]
	a := b.sharedFor(int(s.Fd.n), s.Flags)
	switch {
	case len(a.arrived) > 0:
		b.accepted(f, a.first())
		return true
	case a.armed:
	case !b.room(1):
		return false
	default:
		q := b.ring.Next()
		q.Op, q.Fd, q.OpFlags, q.UserData = uring.OpAccept, s.Fd.n, uint32(s.Flags), a.data
		q.Ioprio, q.FileIndex = uring.AcceptMultishot, uring.FileAlloc
		a.armed, a.ending = true, false
		b.out++
	}
	a.waiting = append(a.waiting, f)
	return true
}

// sharedFor returns the shared accept for a listener: an idle one is used again.
func (b *ringBackend) sharedFor(listener, flags int) *sharedAccept {
	var idle *sharedAccept
	for _, a := range b.shared {
		if a.listener == listener && a.flags == flags {
			return a
		}
		if !a.armed && len(a.waiting)+len(a.arrived) == 0 {
			idle = a
		}
	}
	if idle == nil {
		idle = &sharedAccept{data: uint64(len(b.shared))<<8 | kindShared}
		b.shared = append(b.shared, idle)
	}
	idle.listener, idle.flags = listener, flags
	return idle
}

// awaiting is the number of chains that wait for a connection.
func (b *ringBackend) awaiting() int {
	n := 0
	for _, a := range b.shared {
		n += len(a.waiting)
	}
	return n
}

func (a *sharedAccept) first() int32 {
	slot := a.arrived[0]
	a.arrived = slices.Delete(a.arrived, 0, 1)
	return int32(slot)
}

// connection notes a completion of a shared accept.
func (b *ringBackend) connection(a *sharedAccept, c uring.CQE) {
	if !a.armed {
		return
	}
	if c.Flags&uring.More == 0 {
		a.armed = false
		b.out--
	}
	switch {
	case c.Res >= 0:
		a.arrived = append(a.arrived, uint32(c.Res))
	case a.ending || b.stop.Load() || len(a.waiting) == 0: // nobody has to hear of it
	case c.Res == -int32(unix.EAGAIN) || c.Res == -int32(unix.EINVAL):
		b.multishot = false // the kernel, or this listener, can do no more than one at a time
	default:
		b.next(a, c.Res)
	}
	for len(a.waiting) > 0 && len(a.arrived) > 0 {
		b.next(a, a.first())
	}
	if !a.armed {
		b.queue = append(b.queue, a.waiting...) // to ask again
		a.waiting = a.waiting[:0]
		return
	}
	// Back-pressure: what comes from here on waits in the listener's backlog.
	if len(a.arrived) < b.e.config.Depth || a.ending {
		return
	}
	if q := b.ring.Next(); q != nil {
		q.Op, q.Addr, q.UserData = uring.OpAsyncCancel, a.data, cancelData
		a.ending = true
		b.out++
	}
}

// next gives a result to the chain that has waited longest.
func (b *ringBackend) next(a *sharedAccept, res int32) {
	f := a.waiting[0]
	a.waiting = slices.Delete(a.waiting, 0, 1)
	b.accepted(f, res)
}

// accepted goes on with a chain whose shared accept has a result.
func (b *ringBackend) accepted(f *flight, res int32) {
	i := f.pc
	if res >= 0 {
		if f.fds[i] != noFd { // a loop came here again
			b.drop = append(b.drop, f.ring.slots[i])
		}
		f.ring.slots[i], f.fds[i], res = uint32(res), 0, 0
	}
	if f.pc = f.settle(i, res); f.pc < 0 {
		b.finish(f)
	} else {
		b.proceed(f)
	}
}

// abandonShared takes the chains that wait for a connection, and the connections
// that wait for a chain, out of the shared accepts, when a run ends. It reports
// whether the kernel still works on one.
func (b *ringBackend) abandonShared() bool {
	armed := false
	for _, a := range b.shared {
		b.queue = append(b.queue, a.waiting...)
		b.drop = append(b.drop, a.arrived...)
		a.waiting, a.arrived = a.waiting[:0], a.arrived[:0]
		armed = armed || a.armed
	}
	return armed
}

// dropSome closes direct descriptors that nobody wants, as far as there is room.
func (b *ringBackend) dropSome() {
	for len(b.drop) > 0 && b.room(1) {
		last := len(b.drop) - 1
		q := b.ring.Next()
		q.Op, q.FileIndex, q.UserData = uring.OpClose, b.drop[last]+1, kindDrop
		b.drop = b.drop[:last]
		b.out++
	}
}

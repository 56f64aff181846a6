package supervise

import (
	"testing"

	"golang.org/x/sys/unix"

	"github.com/seed-055cd0c8/indirect/internal/tracee"
)

// A thread is sent back to its call only from there.
func TestStateStands(t *testing.T) {
	const site, restart = 0x1000, 512
	own := tracee.Regs{Rip: site, Rax: unix.SYS_ACCEPT, Rdi: 3, R10: 77, Rsp: 0x7000, Orig_rax: ^uint64(0)}
	run := own
	run.Rax, run.R10 = unix.SYS_ACCEPT4, unix.SOCK_CLOEXEC
	blocked := run
	blocked.Rip, blocked.Rax, blocked.Orig_rax, blocked.Rcx, blocked.R11 = site+syscallLen, ^uint64(restart-1), unix.SYS_ACCEPT4, site+syscallLen, 0x246
	changed := func(r tracee.Regs, change func(*tracee.Regs)) tracee.Regs {
		change(&r)
		return r
	}
	for _, test := range []struct {
		what string
		now  tracee.Regs
		want bool
	}{
		{"in front of its call", run, true},
		{"interrupted in it", blocked, true},
		{"interrupted in it by a signal", changed(blocked, func(r *tracee.Regs) { r.Rax = ^uint64(unix.EINTR - 1) }), true},
		{"behind it, with a descriptor", changed(blocked, func(r *tracee.Regs) { r.Rax, r.Orig_rax = 5, ^uint64(0) }), false},
		{"at its end, with a descriptor", changed(blocked, func(r *tracee.Regs) { r.Rax = 5 }), false},
		{"in a call of its own", changed(blocked, func(r *tracee.Regs) { r.Orig_rax = unix.SYS_ACCEPT }), false},
		{"in another one of the same kind", changed(blocked, func(r *tracee.Regs) { r.Rdi = 4 }), false},
		{"on another stack", changed(blocked, func(r *tracee.Regs) { r.Rsp -= 16 }), false},
		{"in front of a call of its own", own, false},
		{"elsewhere", changed(blocked, func(r *tracee.Regs) { r.Rip += 0x100 }), false},
		{"nowhere", tracee.Regs{}, false},
	} {
		if s := (state{own: own, run: run}); s.stands(test.now) != test.want {
			t.Errorf("%s: %v", test.what, !test.want)
		}
		if s := (state{}); s.stands(test.now) {
			t.Errorf("%s: a thread without a call in place stands in front of it", test.what)
		}
	}
}

func TestBlocksAll(t *testing.T) {
	const kept = tracee.SigMask(1<<(unix.SIGKILL-1) | 1<<(unix.SIGSTOP-1)) // never blocked
	for _, given := range []tracee.SigMask{tracee.AllSignals, stepping} {
		if !blocksAll(given) || !blocksAll(given&^kept) {
			t.Errorf("%#x is a mask that we give", given)
		}
	}
	for _, own := range []tracee.SigMask{0, 1 << (unix.SIGINT - 1), tracee.AllSignals &^ (1 << (33 - 1))} {
		if blocksAll(own) {
			t.Errorf("%#x is a program's own", own)
		}
	}
}

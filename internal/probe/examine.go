package probe

import (
	"encoding/binary"
	"fmt"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/seed-055cd0c8/indirect/fdcall"
)

// examiner makes calls and says what their answers mean. It is the prober's.
type examiner struct {
	trials   map[string]trial
	filtered bool // a seccomp filter may answer in the kernel's place
}

// filtered reports whether this process runs under a seccomp filter.
func filtered() bool {
	status, err := os.ReadFile("/proc/self/status")
	return err == nil && strings.Contains(string(status), "\nSeccomp:\t2\n")
}

// readSetting returns a setting of sysctl(8), empty if there is none.
func readSetting(path string) string {
	b, err := os.ReadFile("/proc/sys/" + path)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

// examine finds out about one call.
func (e *examiner) examine(x subject) Finding {
	if x.row == nil {
		return e.bare(x)
	}
	f := Finding{Name: x.name, Cloexec: flagOf(x.row, x.row.CloexecBits, fdcall.Cloexec), Nonblock: flagOf(x.row, x.row.NonblockBits, fdcall.Nonblock)}
	t, ok := e.trials[x.name]
	if !ok {
		f.State, f.Detail = Unknown, "not tried: it takes a network interface"
		if f.Cloexec == Always {
			f.Cloexec = NotTried
		}
		return f
	}
	var born fdcall.Want
	f.State, f.Detail = e.attempt(x, t, 0, &born)
	switch {
	case f.Cloexec != Always:
	case f.State != Present || f.Detail != "" || t.empty:
		f.Cloexec = NotTried
	case born&fdcall.Cloexec == 0:
		f.Cloexec, f.Detail = None, "the descriptor is not close-on-exec"
	}
	if f.State != Present || f.Detail != "" || t.locked {
		return f // it is there, and cannot succeed, or not again
	}
	for _, flag := range []struct {
		answer *Flag
		bits   uint32
		want   fdcall.Want
	}{{&f.Cloexec, x.row.CloexecBits, fdcall.Cloexec}, {&f.Nonblock, x.row.NonblockBits, fdcall.Nonblock}} {
		if flag.bits == 0 {
			continue
		}
		var got fdcall.Want
		state, detail := e.attempt(x, t, flag.bits, &got)
		switch {
		case state != Present || detail != "":
			*flag.answer = Refused
		case got&flag.want != 0:
			*flag.answer = Works
		default:
			*flag.answer = Ignored
		}
	}
	return f
}

// flagOf is what is known of a flag before it is tried.
func flagOf(c *fdcall.Call, bits uint32, w fdcall.Want) Flag {
	switch {
	case bits != 0:
		return NotTried
	case w == fdcall.Cloexec && c.Class == fdcall.Always:
		return Always
	}
	return None
}

// attempt makes a row's call once, with flags, and closes what it gave. got
// receives the properties that all its descriptors have. A call that is
// present but failed has a detail.
func (e *examiner) attempt(x subject, t trial, flags uint32, got *fdcall.Want) (State, string) {
	s, err := newScratch()
	if err != nil {
		return Unknown, err.Error()
	}
	defer s.close()
	args := t.args(s)
	if s.err != nil {
		return e.unprepared(s, x)
	}
	if flags != 0 {
		if x.row.Indirect {
			how := s.at(args[x.row.FlagsArg])
			binary.NativeEndian.PutUint64(how, binary.NativeEndian.Uint64(how)|uint64(flags))
		} else {
			args[x.row.FlagsArg] |= uint64(flags)
		}
	}
	call := s.call
	if t.fork {
		call = s.fork
	}
	result, errno := call(x.nr, args)
	if errno != 0 {
		return e.failed(s, x, t, errno)
	}
	if x.name == "mq_open" {
		s.call(unix.SYS_MQ_UNLINK, args)
	}
	if t.empty {
		return Present, ""
	}
	all := fdcall.Cloexec | fdcall.Nonblock
	for _, fd := range s.descriptors(x.row, args, result) {
		descriptor, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
		if err != nil {
			return Absent, "it is ignored: no descriptor came"
		}
		if descriptor&unix.FD_CLOEXEC == 0 {
			all &^= fdcall.Cloexec
		}
		if status, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0); err != nil || status&unix.O_NONBLOCK == 0 {
			all &^= fdcall.Nonblock
		}
	}
	if got != nil {
		*got = all
	}
	return Present, ""
}

// failed says what it means that a call failed which should have succeeded.
func (e *examiner) failed(s *scratch, x subject, t trial, errno unix.Errno) (State, string) {
	shown := slices.Contains(t.shows, errno)
	switch {
	case errno == unix.ENOSYS:
		return Absent, ""
	case errno == unknownOperation(x.row) && !shown:
		return Absent, fmt.Sprintf("%s: the kernel knows %s, but not this", unix.ErrnoName(errno), x.row.Name)
	}
	reason := ""
	if t.denies != nil {
		reason = t.denies()
	}
	if e.filtered && !shown {
		// The kernel has another answer to arguments that make no sense,
		// unless it looks at the caller first. A filter mostly has not.
		again := s.senseless(x)
		if again == errno && reason == "" {
			return Blocked, fmt.Sprintf("%s, whatever the arguments: a seccomp filter", unix.ErrnoName(errno))
		}
		if again == errno {
			reason += ", or by a seccomp filter"
		}
	}
	switch {
	case shown:
		return Present, "answers " + unix.ErrnoName(errno) + ", as it should to what was asked"
	case errno == unix.EPERM || errno == unix.EACCES:
		if reason == "" {
			reason = "here"
		}
		return Denied, fmt.Sprintf("%s %s", unix.ErrnoName(errno), reason)
	}
	return Present, fmt.Sprintf("fails here: %s", unix.ErrnoName(errno))
}

// unprepared says what is known of a call for which something is missing.
func (e *examiner) unprepared(s *scratch, x subject) (State, string) {
	if s.senseless(x) == unix.ENOSYS {
		return Absent, ""
	}
	return Unknown, "not tried: " + s.err.Error()
}

// senseless makes a row's call with arguments that make no sense.
func (s *scratch) senseless(x subject) unix.Errno {
	const bad = ^uint64(0)
	args := [6]uint64{bad, bad, bad, bad, bad, bad}
	for _, w := range x.row.When {
		if !w.Not {
			args[w.Arg] = w.Value
		}
	}
	r, errno := s.call(x.nr, args)
	if errno == 0 && x.row.Gives == fdcall.Ret { // eventfd takes any argument
		s.fds = append(s.fds, int(r))
	}
	return errno
}

// bare finds out whether a call that creates no descriptors is there, by
// arguments that it refuses.
func (e *examiner) bare(x subject) Finding {
	f := Finding{Name: x.name, State: Present, Cloexec: None, Nonblock: None}
	if effective[x.name] {
		f.State, f.Detail = Unknown, "not tried: it takes effect whatever its arguments"
		return f
	}
	s, err := newScratch()
	if err != nil {
		f.State, f.Detail = Unknown, err.Error()
		return f
	}
	defer s.close()
	const bad = ^uint64(0)
	args := [6]uint64{bad, bad, bad, bad, bad, bad}
	if good, ok := harmless[x.name]; ok {
		args = good(s)
	}
	switch _, errno := s.call(x.nr, args); {
	case errno == unix.ENOSYS:
		f.State = Absent
	case errno == unix.EPERM || errno == unix.EACCES:
		if e.filtered {
			f.State, f.Detail = Blocked, unix.ErrnoName(errno)+": a seccomp filter, or the kernel for want of a right"
		} else {
			f.State, f.Detail = Denied, unix.ErrnoName(errno)+" here"
		}
	}
	return f
}

// effective are the calls that arguments cannot keep from doing something.
var effective = map[string]bool{
	"exit": true, "exit_group": true, "fork": true, "vfork": true, "pause": true, "rt_sigreturn": true,
	"sigreturn": true, "restart_syscall": true, "vhangup": true, "sync": true, "reboot": true,
	"uretprobe": true, "uprobe": true, "munlockall": true, "setsid": true, "kill": true, "tkill": true,
}

// harmless are arguments for the calls that answer ENOSYS to senseless ones.
var harmless = map[string]func(*scratch) [6]uint64{
	"futex": func(s *scratch) [6]uint64 {
		const wake = 1
		return [6]uint64{s.room(4), wake, 1}
	},
	"modify_ldt": func(s *scratch) [6]uint64 { return [6]uint64{0, s.room(8), 0} },
	"umask":      func(*scratch) [6]uint64 { return [6]uint64{0o22} },
}

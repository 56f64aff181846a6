package probe

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/seed-055cd0c8/indirect/internal/image"
	"github.com/seed-055cd0c8/indirect/internal/launch"
	"github.com/seed-055cd0c8/indirect/internal/listener"
	"github.com/seed-055cd0c8/indirect/internal/tracee"
)

// Find tries the calls with the given names; without names, all calls of the
// table, and the mechanisms that "indirect run" uses. An unknown name is an
// error that says which known ones are like it.
func Find(ctx context.Context, names []string) (*Report, error) {
	calls, err := find(ctx, names)
	if err != nil {
		return nil, err
	}
	r := &Report{Calls: calls, Filtered: filtered()}
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return nil, fmt.Errorf("ask for the kernel's version: %w", err)
	}
	r.Kernel = unix.ByteSliceToString(u.Release[:])
	if len(names) == 0 {
		r.mechanisms()
	}
	return r, nil
}

// mechanisms finds out what "indirect run" can use, and what it will do.
func (r *Report) mechanisms() {
	add := func(name string, works bool, detail string) {
		r.Mechanisms = append(r.Mechanisms, Mechanism{name, works, detail})
	}
	said := func(err error) string {
		if err == nil {
			return ""
		}
		return err.Error()
	}
	never := func(err error) {
		r.Run = append(r.Run, "does not start: "+err.Error())
	}
	if _, err := image.Landing(); err != nil {
		never(fmt.Errorf("it cannot inject code on %s: %w", runtime.GOARCH, err))
	}
	p, err := launch.Start(launch.Spec{Path: "/proc/self/exe", Args: []string{"true"}, Env: []string{}, Filter: allowAll})
	add("seccomp user notification", err == nil, said(err))
	permitted := tracee.Permitted()
	if err != nil {
		never(err)
		add("ptrace", permitted == nil, said(permitted))
	} else {
		defer p.Abort()
		add("notification: killable wait", p.WaitKillable(), since(p.WaitKillable(), "5.19"))
		l := listener.New(p.Listener())
		defer l.Close()
		syncErr := l.SyncWakeUp()
		add("notification: synchronous wake-up", syncErr == nil, since(syncErr == nil, "6.6"))
		add("filter without no_new_privs", !p.NoNewPrivs(), map[bool]string{true: "needs CAP_SYS_ADMIN"}[p.NoNewPrivs()])
		traceErr := errors.Join(permitted, attach(p.Pid()))
		add("ptrace", traceErr == nil, said(traceErr))
		switch {
		case traceErr != nil:
			never(fmt.Errorf("ptrace: %w", traceErr))
		default:
			r.outlook(p, syncErr == nil)
		}
	}
	r.borrowed("io_uring", "io_uring_setup", "operations on a ring create descriptors that no filter of system calls sees")
	r.borrowed("BPF", "bpf BPF_PROG_LOAD", "")
}

// outlook says what "indirect run" does where it starts.
func (r *Report) outlook(p *launch.Process, sync bool) {
	say := func(s string) { r.Run = append(r.Run, s) }
	say("starts, and gives new descriptors their flags inside the program, after the first call from each place")
	if sync {
		say("a call from a new place costs some hundred microseconds, once")
	} else {
		say("a call from a new place costs some two hundred microseconds, once: synchronous wake-up came with Linux 6.6")
	}
	if !p.WaitKillable() {
		say("a signal handler that runs during a call from a new place interrupts it, and it is made again: killable wait came with Linux 5.19")
	}
	if p.NoNewPrivs() {
		say("set-user-ID programs run without their owner's rights, for want of CAP_SYS_ADMIN")
	}
	for _, f := range r.Calls {
		if f.Name == "pipe2" && f.State != Present {
			say("pipe2 is not there: a pipe gets close-on-exec after it was made, if at all")
		}
	}
}

// borrowed adds a mechanism that one of the calls has shown.
func (r *Report) borrowed(name, call, note string) {
	for _, f := range r.Calls {
		if f.Name == call {
			works := f.State == Present
			if !works {
				note = string(f.State)
				if f.Detail != "" {
					note += ": " + f.Detail
				}
			}
			r.Mechanisms = append(r.Mechanisms, Mechanism{name, works, note})
		}
	}
}

func since(works bool, version string) string {
	if works {
		return ""
	}
	return "came with Linux " + version
}

// allowAll is a filter that lets everything pass.
var allowAll = []unix.SockFilter{{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW}}

// attach attaches to the process and lets it go again.
func attach(pid int) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	t, err := tracee.Seize(pid)
	if err != nil {
		return err
	}
	if _, _, err := t.Stopped(); err != nil {
		return err
	}
	return t.Detach(0)
}

// unlink removes a message queue, if it is there.
func unlink(name *byte) {
	unix.Syscall(unix.SYS_MQ_UNLINK, uintptr(unsafe.Pointer(name)), 0, 0)
}

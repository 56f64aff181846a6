package launch

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/seed-055cd0c8/indirect/internal/launch/signals"
)

// launcherName is argv[0] of a launcher. The socket's number, the command's
// path and its argument vector follow.
const launcherName = "indirect-launcher"

// Becomes returns the argument vector of the command that a process with the
// argument vector argv becomes, if that is a launcher, and otherwise argv.
func Becomes(argv []string) []string {
	const first = 3
	if len(argv) > first && argv[0] == launcherName {
		return argv[first:]
	}
	return argv
}

// order is what a launcher is told, followed by the filters' instructions.
type order struct {
	Signals        signals.State
	NoWaitKillable uint32
	Instructions   uint32
	Refusals       uint32
}

// report is a launcher's answer. The listener comes with it if Errno is zero.
type report struct {
	Step                     Step
	Errno                    uint32
	WaitKillable, NoNewPrivs uint32
}

func writeOrder(control *os.File, s Spec) error {
	o := order{Signals: s.Signals, Instructions: uint32(len(s.Filter)), Refusals: uint32(len(s.Refusals))}
	if s.NoWaitKillable {
		o.NoWaitKillable = 1
	}
	var b bytes.Buffer
	for _, part := range []any{o, s.Filter, s.Refusals} {
		if err := binary.Write(&b, binary.NativeEndian, part); err != nil {
			return err
		}
	}
	_, err := control.Write(b.Bytes())
	return err
}

func readReport(control *os.File) (report, *os.File, error) {
	var r report
	b := make([]byte, binary.Size(r))
	oob := make([]byte, unix.CmsgSpace(4))
	n, oobn, err := recvmsg(int(control.Fd()), b, oob)
	switch {
	case err != nil:
		return r, nil, err
	case n == 0:
		return r, nil, fmt.Errorf("the launcher ended")
	}
	var listener *os.File
	if messages, err := unix.ParseSocketControlMessage(oob[:oobn]); err == nil {
		for _, m := range messages {
			if fds, err := unix.ParseUnixRights(&m); err == nil && len(fds) == 1 {
				listener = os.NewFile(uintptr(fds[0]), "listener")
			}
		}
	}
	if _, err := binary.Decode(b[:n], binary.NativeEndian, &r); err != nil {
		return r, listener, err
	}
	if r.Errno == 0 && listener == nil {
		return r, nil, fmt.Errorf("the listener is missing")
	}
	return r, listener, nil
}

func recvmsg(fd int, b, oob []byte) (n, oobn int, err error) {
	for {
		n, oobn, _, _, err = unix.Recvmsg(fd, b, oob, unix.MSG_CMSG_CLOEXEC)
		if err != unix.EINTR {
			return n, oobn, err
		}
	}
}

// Main runs a launcher if this process was started as one, and then does not
// return. A program that uses [Start] must call it first thing in main; a test
// that does, first thing in TestMain.
func Main() {
	if len(os.Args) < 4 || os.Args[0] != launcherName {
		return
	}
	socket, err := strconv.Atoi(os.Args[1])
	if err != nil {
		return
	}
	runtime.LockOSThread() // the thread that takes the filter is the one that becomes the command
	launcher{socket: socket, path: os.Args[2], argv: os.Args[3:]}.run()
	// The other end sees the socket close.
	const unused = 125
	os.Exit(unused)
}

type launcher struct {
	socket int
	path   string
	argv   []string
}

// run returns if the launcher was not released, or could not become the
// command. From the moment when the filter is there until the listener is
// served, this thread must not create descriptors, or it would wait for ever:
// no os.File here.
func (l launcher) run() {
	unix.CloseOnExec(l.socket)
	var o order
	b := make([]byte, binary.Size(o))
	if !l.readFull(b) {
		return
	}
	if _, err := binary.Decode(b, binary.NativeEndian, &o); err != nil || max(o.Instructions, o.Refusals) > unix.BPF_MAXINSNS {
		return
	}
	filters := make([]unix.SockFilter, o.Instructions+o.Refusals)
	b = make([]byte, binary.Size(filters))
	if !l.readFull(b) {
		return
	}
	if _, err := binary.Decode(b, binary.NativeEndian, filters); err != nil {
		return
	}
	filter, refusals := filters[:o.Instructions], filters[o.Instructions:]
	env := Environ()
	candidates := candidates(l.path, env)

	// From here on a signal does to us what it would do to any process
	// between fork and execve. The runtime lets SIGTERM and its like through
	// whatever mask we were started with; others wait for the command.
	signals.Reset(o.Signals.Ignored)
	listener, answer := install(filter, o.NoWaitKillable == 0)
	if !l.answer(listener, answer) {
		return
	}
	var released [1]byte
	if !l.readFull(released[:]) {
		return
	}
	// A Ctrl-Z that came meanwhile would stop us in front of execve, for
	// which whoever released us waits. Ignoring a signal discards it.
	signals.Reset(o.Signals.Ignored | signals.Of(unix.SIGTSTP, unix.SIGTTIN, unix.SIGTTOU))
	signals.Reset(o.Signals.Ignored)
	if _, err := signals.SetMask(o.Signals.Blocked); err != nil {
		return
	}
	if errno := refuse(refusals); errno != 0 {
		l.fail(notRefusing | uint32(errno))
		return
	}
	l.fail(uint32(execute(candidates, l.argv, env)))
}

// notRefusing marks the error of a launcher that could not install its second filter.
const notRefusing = 1 << 31

// fail says why we have not become the command.
func (l launcher) fail(why uint32) {
	var result [4]byte
	binary.NativeEndian.PutUint32(result[:], why)
	unix.Write(l.socket, result[:])
}

// refuse installs the filter that refuses calls, on the calling thread. It
// comes last, because it may refuse what we need ourselves.
func refuse(filter []unix.SockFilter) unix.Errno {
	if len(filter) == 0 {
		return 0
	}
	// Go raised the limit on descriptors (os/rlimit.go). Exec brings it back,
	// by prlimit64(2), which may be refused: here it fails after it has.
	_ = syscall.Exec("/", nil, nil)
	program := unix.SockFprog{Len: uint16(len(filter)), Filter: unsafe.SliceData(filter)}
	_, errno := seccomp(setModeFilter, flagSpecAllow, unsafe.Pointer(&program))
	return errno
}

func (l launcher) readFull(b []byte) bool {
	for len(b) > 0 {
		n, err := unix.Read(l.socket, b)
		if err == unix.EINTR {
			continue
		}
		if err != nil || n == 0 {
			return false
		}
		b = b[n:]
	}
	return true
}

// answer sends the report, and the listener if there is one.
func (l launcher) answer(listener int, r report) bool {
	var b bytes.Buffer
	if err := binary.Write(&b, binary.NativeEndian, r); err != nil {
		return false
	}
	var rights []byte
	if r.Errno == 0 {
		rights = unix.UnixRights(listener)
	}
	if err := unix.Sendmsg(l.socket, b.Bytes(), rights, nil, unix.MSG_NOSIGNAL); err != nil {
		return false
	}
	if r.Errno == 0 {
		unix.Close(listener)
	}
	return r.Errno == 0
}

// Flags and operations of seccomp(2), include/uapi/linux/seccomp.h.
const (
	setModeFilter    = 1
	getActionAvail   = 2
	flagSpecAllow    = 1 << 2
	flagNewListener  = 1 << 3
	flagWaitKillable = 1 << 5
	retUserNotif     = 0x7fc00000
)

// install installs the filter on the calling thread and returns the listener.
// What the kernel can do is found out by doing it.
func install(filter []unix.SockFilter, waitKillable bool) (listener int, r report) {
	action := uint32(retUserNotif)
	if _, errno := seccomp(getActionAvail, 0, unsafe.Pointer(&action)); errno == unix.EOPNOTSUPP {
		return -1, report{Step: StepUserNotif, Errno: uint32(errno)}
	}
	flags := uintptr(flagNewListener | flagSpecAllow)
	if waitKillable {
		flags |= flagWaitKillable
		r.WaitKillable = 1
	}
	program := unix.SockFprog{Len: uint16(len(filter)), Filter: unsafe.SliceData(filter)}
	for {
		fd, errno := seccomp(setModeFilter, flags, unsafe.Pointer(&program))
		switch {
		case errno == 0:
			return fd, r
		case errno == unix.EACCES && r.NoNewPrivs == 0:
			if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
				return -1, report{Step: StepNoNewPrivs, Errno: uint32(errno)}
			}
			r.NoNewPrivs = 1
		case errno == unix.EINVAL && r.WaitKillable != 0:
			flags &^= flagWaitKillable
			r.WaitKillable = 0
		default:
			return -1, report{Step: StepInstall, Errno: uint32(errno)}
		}
	}
}

func seccomp(operation, flags uintptr, args unsafe.Pointer) (int, unix.Errno) {
	r, _, errno := unix.RawSyscall(unix.SYS_SECCOMP, operation, flags, uintptr(args))
	return int(r), errno
}

// probeListener checks that the listener is that of Linux 5.9 or later: those
// refuse to add a descriptor for a notification that does not exist, older
// ones do not know the request.
func probeListener(listener *os.File) error {
	const notifAddFD = 0x40182103 // SECCOMP_IOCTL_NOTIF_ADDFD
	add := struct {               // struct seccomp_notif_addfd
		ID                             uint64
		Flags, Source, New, NewFDFlags uint32
	}{ID: ^uint64(0), Source: uint32(listener.Fd())}
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, listener.Fd(), notifAddFD, uintptr(unsafe.Pointer(&add)))
	if errno == unix.EINVAL || errno == unix.ENOTTY {
		return &FilterError{Step: StepAddFD, Errno: errno}
	}
	return nil
}

// execute becomes the first of the candidates that can be executed, as
// execvp(3) does, and returns the error if there is none.
func execute(candidates, argv, env []string) unix.Errno {
	result := unix.ENOENT
	for _, path := range candidates {
		err := syscall.Exec(path, argv, env)
		if err == syscall.ENOEXEC {
			// A script without #!: execvp hands it to the shell.
			const shell = "/bin/sh"
			err = syscall.Exec(shell, append([]string{shell, path}, argv[1:]...), env)
		}
		errno, ok := err.(syscall.Errno)
		if !ok {
			return unix.EINVAL // a zero byte in a string, which argv cannot bring
		}
		switch errno {
		case unix.EACCES:
			result = errno // go on, but remember that there was something
		case unix.ENOENT, unix.ESTALE, unix.ENOTDIR, unix.ENODEV, unix.ETIMEDOUT:
			if len(candidates) == 1 && result == unix.ENOENT {
				result = errno
			}
		default:
			return errno
		}
	}
	return result
}

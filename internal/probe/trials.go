package probe

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"strconv"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/seed-055cd0c8/indirect/fdcall"
)

// trial says how to make a row's call so that it succeeds, without flags.
type trial struct {
	args func(*scratch) [6]uint64
	// shows are errors that show that the call is there, if it cannot succeed here.
	shows []unix.Errno
	// denies tells why the kernel itself may answer EPERM before it looks at
	// the arguments: empty if it may not.
	denies func() string
	fork   bool // the call makes a process
	empty  bool // the call creates no descriptor
	locked bool // the thread cannot be used afterwards
}

// trials returns the trial of each row, by its ID.
func trials() map[string]trial {
	admin := func() string { return lacks(unix.CAP_SYS_ADMIN, "CAP_SYS_ADMIN") }
	all := map[string]trial{
		// Opening the null device has no effect, whatever the flags.
		"open":   {args: func(s *scratch) [6]uint64 { return [6]uint64{s.str(os.DevNull), unix.O_RDWR} }},
		"creat":  {args: func(s *scratch) [6]uint64 { return [6]uint64{s.str(os.DevNull), 0o600} }},
		"openat": {args: func(s *scratch) [6]uint64 { return [6]uint64{atCwd, s.str(os.DevNull), unix.O_RDWR} }},
		"openat2": {args: func(s *scratch) [6]uint64 {
			return [6]uint64{atCwd, s.str(os.DevNull), s.words(unix.O_RDWR, 0, 0), unix.SizeofOpenHow}
		}},
		"open_by_handle_at": {args: handle, shows: []unix.Errno{unix.ESTALE, unix.EINVAL}, denies: func() string {
			return lacks(unix.CAP_DAC_READ_SEARCH, "CAP_DAC_READ_SEARCH")
		}},
		"mq_open": {args: func(s *scratch) [6]uint64 {
			return [6]uint64{s.str(queue(os.Getppid())), unix.O_CREAT | unix.O_RDWR, 0o600}
		}},
		"memfd_create": {args: func(s *scratch) [6]uint64 { return [6]uint64{s.str("probe")} }},
		"memfd_secret": {args: zeros},
		"open_tree":    {args: func(s *scratch) [6]uint64 { return [6]uint64{atCwd, s.str("/")} }},
		"open_tree_attr": {denies: admin, args: func(s *scratch) [6]uint64 {
			return [6]uint64{atCwd, s.str("/"), unix.OPEN_TREE_CLONE, s.words(unix.MOUNT_ATTR_RDONLY, 0, 0, 0), 32}
		}},
		"fsopen": {denies: admin, args: func(s *scratch) [6]uint64 { return [6]uint64{s.str("tmpfs")} }},
		"fsmount": {denies: admin, shows: []unix.Errno{unix.EBADF}, args: func(s *scratch) [6]uint64 {
			fs, err := unix.Fsopen("tmpfs", unix.FSOPEN_CLOEXEC)
			if err != nil || unix.FsconfigCreate(fs) != nil {
				return [6]uint64{noFd}
			}
			return [6]uint64{s.fd(fs, nil)}
		}},
		"fspick": {denies: admin, args: func(s *scratch) [6]uint64 { return [6]uint64{atCwd, s.str("/")} }},

		"pipe":                  {args: func(s *scratch) [6]uint64 { return [6]uint64{s.room(8)} }},
		"pipe2":                 {args: func(s *scratch) [6]uint64 { return [6]uint64{s.room(8)} }},
		"dup":                   {args: func(s *scratch) [6]uint64 { return [6]uint64{s.null()} }},
		"dup2":                  {args: dupTo},
		"dup3":                  {args: dupTo},
		"fcntl F_DUPFD":         {args: func(s *scratch) [6]uint64 { return [6]uint64{s.null(), unix.F_DUPFD, 10} }},
		"fcntl F_DUPFD_CLOEXEC": {args: func(s *scratch) [6]uint64 { return [6]uint64{s.null(), unix.F_DUPFD_CLOEXEC, 10} }},

		"socket": {args: func(*scratch) [6]uint64 { return [6]uint64{unix.AF_UNIX, unix.SOCK_STREAM} }},
		"socketpair": {args: func(s *scratch) [6]uint64 {
			return [6]uint64{unix.AF_UNIX, unix.SOCK_STREAM, 0, s.room(8)}
		}},
		"accept":  {args: func(s *scratch) [6]uint64 { return [6]uint64{s.listener()} }},
		"accept4": {args: func(s *scratch) [6]uint64 { return [6]uint64{s.listener()} }},
		"recvmsg": {args: func(s *scratch) [6]uint64 {
			socket, vector := s.message()
			return [6]uint64{socket, vector}
		}},
		"recvmmsg": {args: func(s *scratch) [6]uint64 {
			socket, vector := s.message()
			return [6]uint64{socket, vector, 1}
		}},
		"getsockopt SO_PEERPIDFD": {args: func(s *scratch) [6]uint64 {
			socket, _ := s.pair()
			return [6]uint64{socket, unix.SOL_SOCKET, unix.SO_PEERPIDFD, s.room(4), s.halves(4)}
		}},

		"epoll_create":   {args: func(*scratch) [6]uint64 { return [6]uint64{1} }},
		"epoll_create1":  {args: zeros},
		"eventfd":        {args: zeros},
		"eventfd2":       {args: zeros},
		"signalfd":       {args: signalMask},
		"signalfd4":      {args: signalMask},
		"timerfd_create": {args: func(*scratch) [6]uint64 { return [6]uint64{unix.CLOCK_MONOTONIC} }},
		"inotify_init":   {args: zeros},
		"inotify_init1":  {args: zeros},
		"fanotify_init": {denies: admin, args: func(*scratch) [6]uint64 {
			return [6]uint64{unix.FAN_CLASS_NOTIF, unix.O_RDONLY}
		}},
		"userfaultfd": {args: zeros},
		"perf_event_open": {args: func(s *scratch) [6]uint64 {
			attr := unix.PerfEventAttr{
				Type: unix.PERF_TYPE_SOFTWARE, Config: unix.PERF_COUNT_SW_DUMMY,
				Size: uint32(unsafe.Sizeof(unix.PerfEventAttr{})), Bits: unix.PerfBitExcludeKernel,
			}
			return [6]uint64{object(s, attr), 0, ^uint64(0), ^uint64(0)}
		}},
		"io_uring_setup": {
			args: func(s *scratch) [6]uint64 { return [6]uint64{1, s.room(120)} },
			denies: func() string {
				if setting := readSetting("kernel/io_uring_disabled"); setting != "" && setting != "0" {
					return "kernel.io_uring_disabled=" + setting
				}
				return ""
			},
		},

		"pidfd_open":  {args: func(*scratch) [6]uint64 { return [6]uint64{uint64(os.Getpid())} }},
		"pidfd_getfd": {args: func(s *scratch) [6]uint64 { return [6]uint64{s.self(), s.null()} }},
		"clone CLONE_PIDFD": {fork: true, args: func(s *scratch) [6]uint64 {
			return [6]uint64{uint64(unix.CLONE_PIDFD | unix.SIGCHLD), 0, s.halves(noFd)}
		}},
		"clone3": {fork: true, args: func(s *scratch) [6]uint64 {
			return [6]uint64{s.words(unix.CLONE_PIDFD, s.halves(noFd), 0, 0, uint64(unix.SIGCHLD), 0, 0, 0), 64}
		}},
		"landlock_create_ruleset": {shows: []unix.Errno{unix.EOPNOTSUPP}, args: func(s *scratch) [6]uint64 {
			return [6]uint64{s.words(unix.LANDLOCK_ACCESS_FS_WRITE_FILE), 8}
		}},
		"seccomp SECCOMP_FILTER_FLAG_NEW_LISTENER": {locked: true, shows: []unix.Errno{unix.EBUSY}, args: func(s *scratch) [6]uint64 {
			s.must(unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
			allow := object(s, unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW})
			return [6]uint64{unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_NEW_LISTENER, s.words(1, allow)}
		}},

		"ioctl TIOCGPTPEER": {args: func(s *scratch) [6]uint64 {
			master := s.open("/dev/ptmx", unix.O_RDWR)
			if s.err == nil {
				s.must(unix.IoctlSetPointerInt(int(master), unix.TIOCSPTLCK, 0))
			}
			return [6]uint64{master, unix.TIOCGPTPEER, unix.O_RDWR | unix.O_NOCTTY}
		}},
		"ioctl USERFAULTFD_IOC_NEW": {args: func(s *scratch) [6]uint64 {
			return [6]uint64{s.open("/dev/userfaultfd", unix.O_RDWR), 0xaa00}
		}},
		"ioctl KVM_CREATE_GUEST_MEMFD": {shows: []unix.Errno{unix.EINVAL}, args: func(s *scratch) [6]uint64 {
			return [6]uint64{s.vm(), 0xc040aed4, s.words(1<<20, 0, 0, 0, 0, 0, 0, 0)}
		}},
		"ioctl KVM_CREATE_DEVICE": {empty: true, shows: []unix.Errno{unix.ENODEV}, args: func(s *scratch) [6]uint64 {
			const vfio, onlyTest = 4, 1
			return [6]uint64{s.vm(), 0xc00caee0, s.halves(vfio, 0, onlyTest)}
		}},
		"ioctl KVM_CREATE_VM":    {args: func(s *scratch) [6]uint64 { return [6]uint64{s.open("/dev/kvm", unix.O_RDWR), 0xae01} }},
		"ioctl KVM_CREATE_VCPU":  {args: func(s *scratch) [6]uint64 { return [6]uint64{s.vm(), 0xae41} }},
		"ioctl KVM_GET_STATS_FD": {args: func(s *scratch) [6]uint64 { return [6]uint64{s.vm(), 0xaece} }},
		"ioctl NS_GET_USERNS":    {args: namespaceOf("net", unix.NS_GET_USERNS), shows: []unix.Errno{unix.EPERM}},
		"ioctl NS_GET_PARENT":    {args: namespaceOf("user", unix.NS_GET_PARENT), shows: []unix.Errno{unix.EPERM}},
		"ioctl NS_MNT_GET_NEXT":  {args: mountNamespace(0x8010b70b), shows: []unix.Errno{unix.ENOENT, unix.EPERM}},
		"ioctl NS_MNT_GET_PREV":  {args: mountNamespace(0x8010b70c), shows: []unix.Errno{unix.ENOENT, unix.EPERM}},
		"ioctl SIOCGSKNS": {shows: []unix.Errno{unix.EPERM}, args: func(s *scratch) [6]uint64 {
			socket, _ := s.pair()
			return [6]uint64{socket, unix.SIOCGSKNS}
		}},
	}
	for name, request := range map[string]uint64{
		"CGROUP": unix.PIDFD_GET_CGROUP_NAMESPACE, "IPC": unix.PIDFD_GET_IPC_NAMESPACE, "MNT": unix.PIDFD_GET_MNT_NAMESPACE,
		"NET": unix.PIDFD_GET_NET_NAMESPACE, "PID": unix.PIDFD_GET_PID_NAMESPACE,
		"PID_FOR_CHILDREN": unix.PIDFD_GET_PID_FOR_CHILDREN_NAMESPACE, "TIME": unix.PIDFD_GET_TIME_NAMESPACE,
		"TIME_FOR_CHILDREN": unix.PIDFD_GET_TIME_FOR_CHILDREN_NAMESPACE, "USER": unix.PIDFD_GET_USER_NAMESPACE,
		"UTS": unix.PIDFD_GET_UTS_NAMESPACE,
	} {
		all["ioctl PIDFD_GET_"+name+"_NAMESPACE"] = trial{args: func(s *scratch) [6]uint64 { return [6]uint64{s.self(), request} }}
	}
	for command, t := range bpfTrials() {
		t.denies = func() string {
			if readSetting("kernel/unprivileged_bpf_disabled") == "0" {
				return ""
			}
			return lacks(unix.CAP_BPF, "CAP_BPF")
		}
		all["bpf "+command] = t
	}
	return all
}

// bpfTrials returns the trials of bpf(2): see bpf_attr in include/uapi/linux/bpf.h.
// What needs a program of a special kind, or a mounted file system, only shows
// by what it refuses: the object of an impossible number.
func bpfTrials() map[string]trial {
	noEntry, badFd := []unix.Errno{unix.ENOENT}, []unix.Errno{unix.EBADF}
	command := func(nr uint64, size uint64, attr func(*scratch) uint64) func(*scratch) [6]uint64 {
		return func(s *scratch) [6]uint64 { return [6]uint64{nr, attr(s), size} }
	}
	noID := func(s *scratch) uint64 { return s.halves(noFd, 0, 0) }
	return map[string]trial{
		"BPF_MAP_CREATE": {args: command(unix.BPF_MAP_CREATE, 48, func(s *scratch) uint64 {
			return s.halves(unix.BPF_MAP_TYPE_ARRAY, 4, 4, 1, 0, 0, 0, 0, 0, 0, 0, 0)
		})},
		"BPF_PROG_LOAD": {args: command(unix.BPF_PROG_LOAD, 48, func(s *scratch) uint64 {
			code := s.put([]byte{0xb7, 0, 0, 0, 1, 0, 0, 0, 0x95, 0, 0, 0, 0, 0, 0, 0}) // return 1
			license := s.str("GPL")
			return s.words(unix.BPF_PROG_TYPE_SOCKET_FILTER|2<<32, code, license, 0, 0, 0)
		})},
		"BPF_OBJ_GET": {shows: noEntry, args: command(unix.BPF_OBJ_GET, 16, func(s *scratch) uint64 {
			return s.words(s.str("/nonexistent"), 0)
		})},
		"BPF_PROG_GET_FD_BY_ID": {shows: noEntry, args: command(unix.BPF_PROG_GET_FD_BY_ID, 12, noID)},
		"BPF_MAP_GET_FD_BY_ID":  {shows: noEntry, args: command(unix.BPF_MAP_GET_FD_BY_ID, 12, noID)},
		"BPF_RAW_TRACEPOINT_OPEN": {shows: append(noEntry, badFd...), args: command(unix.BPF_RAW_TRACEPOINT_OPEN, 16, func(s *scratch) uint64 {
			return s.words(s.str("sched_process_exit"), noFd)
		})},
		"BPF_BTF_LOAD":          {args: command(unix.BPF_BTF_LOAD, 32, btf)},
		"BPF_BTF_GET_FD_BY_ID":  {shows: noEntry, args: command(unix.BPF_BTF_GET_FD_BY_ID, 12, noID)},
		"BPF_LINK_CREATE":       {shows: badFd, args: command(unix.BPF_LINK_CREATE, 16, func(s *scratch) uint64 { return s.halves(noFd, noFd, unix.BPF_SK_LOOKUP, 0) })},
		"BPF_LINK_GET_FD_BY_ID": {shows: noEntry, args: command(unix.BPF_LINK_GET_FD_BY_ID, 12, noID)},
		"BPF_ENABLE_STATS":      {args: command(unix.BPF_ENABLE_STATS, 4, func(s *scratch) uint64 { return s.halves(unix.BPF_STATS_RUN_TIME) })},
		"BPF_ITER_CREATE":       {shows: badFd, args: command(unix.BPF_ITER_CREATE, 8, func(s *scratch) uint64 { return s.halves(noFd, 0) })},
		"BPF_TOKEN_CREATE":      {shows: badFd, args: command(36, 8, func(s *scratch) uint64 { return s.halves(0, noFd) })},
	}
}

// btf describes the one type int: see include/uapi/linux/btf.h.
func btf(s *scratch) uint64 {
	b := binary.NativeEndian.AppendUint16(nil, 0xeb9f)
	b = append(b, 1, 0)
	for _, word := range []uint32{
		24, 0, 16, 16, 5, // header length; types: offset, length; strings: offset, length
		1, 1 << 24, 4, 1<<24 | 32, // "int", kind, bytes, signed and 32 bits
	} {
		b = binary.NativeEndian.AppendUint32(b, word)
	}
	b = append(b, "\x00int\x00"...)
	return s.words(s.put(b), 0, uint64(len(b)), 0)
}

func zeros(*scratch) [6]uint64 { return [6]uint64{} }

// handle asks for a file by its handle.
func handle(s *scratch) [6]uint64 {
	for _, dir := range []string{"/", "/tmp", "/dev/shm", "/sys"} {
		h, _, err := unix.NameToHandleAt(unix.AT_FDCWD, dir, 0)
		if err != nil {
			continue
		}
		b := binary.NativeEndian.AppendUint32(nil, uint32(h.Size()))
		b = binary.NativeEndian.AppendUint32(b, uint32(h.Type()))
		return [6]uint64{s.open(dir, unix.O_RDONLY), s.put(append(b, h.Bytes()...)), unix.O_RDONLY}
	}
	return [6]uint64{s.open("/", unix.O_RDONLY), s.halves(8, 1, 0, 0), unix.O_RDONLY}
}

// queue is the name of the message queue that a prober of process pid makes.
func queue(pid int) string { return "indirect-probe-" + strconv.Itoa(pid) }

// dupTo asks for a number that is free.
func dupTo(s *scratch) [6]uint64 {
	from := s.null()
	free, err := unix.FcntlInt(uintptr(from), unix.F_DUPFD, 100)
	s.must(err)
	unix.Close(free)
	return [6]uint64{from, uint64(free)}
}

func signalMask(s *scratch) [6]uint64 {
	return [6]uint64{noFd, s.words(1 << (unix.SIGUSR1 - 1)), 8}
}

func (s *scratch) self() uint64 {
	fd, err := unix.PidfdOpen(os.Getpid(), 0)
	if err != nil {
		err = fmt.Errorf("open a pidfd: %w", err)
	}
	return s.fd(fd, err)
}

func (s *scratch) vm() uint64 {
	const create = 0xae01
	kvm := s.open("/dev/kvm", unix.O_RDWR)
	if s.err != nil {
		return noFd
	}
	r, errno := s.call(unix.SYS_IOCTL, [6]uint64{kvm, create})
	if errno != 0 {
		s.must(errno)
		return noFd
	}
	return s.fd(int(r), nil)
}

func namespaceOf(kind string, request uint64) func(*scratch) [6]uint64 {
	return func(s *scratch) [6]uint64 { return [6]uint64{s.open("/proc/self/ns/"+kind, unix.O_RDONLY), request} }
}

func mountNamespace(request uint64) func(*scratch) [6]uint64 {
	return func(s *scratch) [6]uint64 {
		return [6]uint64{s.open("/proc/self/ns/mnt", unix.O_RDONLY), request, s.words(16, 0)}
	}
}

// unknownOperation is what a multiplexed call says to an operation that it does not know.
func unknownOperation(c *fdcall.Call) unix.Errno {
	switch {
	case c == nil || c.Op == "":
		return 0
	case c.Name == "ioctl":
		return unix.ENOTTY
	case c.Name == "getsockopt":
		return unix.ENOPROTOOPT
	}
	return unix.EINVAL
}

// lacks returns a phrase if we do not have a capability.
func lacks(capability int, name string) string {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return ""
	}
	_, after, _ := bytes.Cut(status, []byte("\nCapEff:"))
	line, _, _ := bytes.Cut(after, []byte("\n"))
	if effective, err := strconv.ParseUint(string(bytes.TrimSpace(line)), 16, 64); err == nil && effective&(1<<capability) != 0 {
		return ""
	}
	return "for want of " + name
}

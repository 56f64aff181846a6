package fdcall

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	noFd  = 0xffffffff
	atCwd = 0xffffff9c
)

// trials says how to make each row's call, by its ID.
var trials = map[string]trial{
	"open":   {count: 3, args: func(k *kernel) [6]uint64 { return [6]uint64{k.str(k.file()), unix.O_RDWR} }},
	"creat":  {count: 2, args: func(k *kernel) [6]uint64 { return [6]uint64{k.str(k.file()), 0o600} }},
	"openat": {count: 4, args: func(k *kernel) [6]uint64 { return [6]uint64{atCwd, k.str(k.file()), unix.O_RDWR} }},
	"openat2": {count: 4, args: func(k *kernel) [6]uint64 {
		return [6]uint64{atCwd, k.str(k.file()), k.words(unix.O_RDWR, 0, 0), unix.SizeofOpenHow}
	}},
	"open_by_handle_at": {count: 3, args: func(k *kernel) [6]uint64 {
		k.asRoot()
		for _, dir := range []string{k.TempDir(), "/dev/shm", "/sys"} {
			h, _, err := unix.NameToHandleAt(unix.AT_FDCWD, dir, 0)
			if err != nil {
				continue
			}
			b := binary.NativeEndian.AppendUint32(nil, uint32(h.Size()))
			b = binary.NativeEndian.AppendUint32(b, uint32(h.Type()))
			return [6]uint64{k.openRead(dir), k.put(append(b, h.Bytes()...)), unix.O_RDONLY}
		}
		k.lacks(errors.New("no file system here gives handles"))
		return [6]uint64{}
	}},
	"mq_open": {count: 2, args: func(k *kernel) [6]uint64 {
		name := fmt.Sprintf("fdcall-%d", os.Getpid())
		at := k.str(name)
		k.Cleanup(func() { unix.Syscall(unix.SYS_MQ_UNLINK, uintptr(at), 0, 0) })
		return [6]uint64{at, unix.O_CREAT | unix.O_RDWR, 0o600}
	}},
	"memfd_create": {count: 2, args: func(k *kernel) [6]uint64 { return [6]uint64{k.str("fdcall")} }},
	"memfd_secret": {count: 1, args: func(k *kernel) [6]uint64 { return [6]uint64{} }},
	"open_tree":    {count: 3, args: func(k *kernel) [6]uint64 { return [6]uint64{atCwd, k.str("/")} }},
	"open_tree_attr": {count: 5, args: func(k *kernel) [6]uint64 {
		k.asRoot()
		return [6]uint64{atCwd, k.str("/"), unix.OPEN_TREE_CLONE, k.words(unix.MOUNT_ATTR_RDONLY, 0, 0, 0), 32}
	}},
	"fsopen": {count: 2, args: func(k *kernel) [6]uint64 {
		k.asRoot()
		return [6]uint64{k.str("tmpfs")}
	}},
	"fsmount": {count: 3, args: func(k *kernel) [6]uint64 {
		k.asRoot()
		fs := k.fd(unix.Fsopen("tmpfs", unix.FSOPEN_CLOEXEC))
		k.must(unix.FsconfigCreate(int(fs)))
		return [6]uint64{fs}
	}},
	"fspick": {count: 3, args: func(k *kernel) [6]uint64 {
		k.asRoot()
		return [6]uint64{atCwd, k.str("/")}
	}},

	"pipe":  {count: 1, args: func(k *kernel) [6]uint64 { return [6]uint64{k.room(8)} }},
	"pipe2": {count: 2, args: func(k *kernel) [6]uint64 { return [6]uint64{k.room(8)} }},
	"dup":   {count: 1, args: func(k *kernel) [6]uint64 { return [6]uint64{k.open("/dev/null")} }},
	"dup2":  {count: 2, args: dupTo},
	"dup3":  {count: 3, args: dupTo},
	"fcntl F_DUPFD": {count: 3, args: func(k *kernel) [6]uint64 {
		return [6]uint64{k.open("/dev/null"), unix.F_DUPFD, 10}
	}},
	"fcntl F_DUPFD_CLOEXEC": {count: 3, args: func(k *kernel) [6]uint64 {
		return [6]uint64{k.open("/dev/null"), unix.F_DUPFD_CLOEXEC, 10}
	}},
	"fcntl64 F_DUPFD": {count: 3, args: func(k *kernel) [6]uint64 {
		return [6]uint64{k.open("/dev/null"), unix.F_DUPFD, 10}
	}},
	"fcntl64 F_DUPFD_CLOEXEC": {count: 3, args: func(k *kernel) [6]uint64 {
		return [6]uint64{k.open("/dev/null"), unix.F_DUPFD_CLOEXEC, 10}
	}},

	"socket":          {count: 3, args: newSocket},
	"socketpair":      {count: 4, args: newSocketpair},
	"accept":          {count: 3, args: accepting},
	"accept4":         {count: 4, args: accepting},
	"recvmsg":         {count: 3, args: receiving},
	"recvmmsg":        {count: 5, args: receivingOne},
	"recvmmsg_time64": {count: 5, args: receivingOne},
	"getsockopt SO_PEERPIDFD": {count: 5, args: func(k *kernel) [6]uint64 {
		s, _ := k.pair()
		return [6]uint64{s, unix.SOL_SOCKET, unix.SO_PEERPIDFD, k.room(4), k.halves(4)}
	}},
	"socketcall SYS_SOCKET":     {count: 3, args: newSocket},
	"socketcall SYS_SOCKETPAIR": {count: 4, args: newSocketpair},
	"socketcall SYS_ACCEPT":     {count: 3, args: accepting},
	"socketcall SYS_ACCEPT4":    {count: 4, args: accepting},
	"socketcall SYS_RECVMSG":    {count: 3, args: receiving},
	"socketcall SYS_RECVMMSG":   {count: 5, args: receivingOne},

	"epoll_create":  {count: 1, args: func(*kernel) [6]uint64 { return [6]uint64{1} }},
	"epoll_create1": {count: 1, args: func(*kernel) [6]uint64 { return [6]uint64{} }},
	"eventfd":       {count: 1, args: func(*kernel) [6]uint64 { return [6]uint64{3} }},
	"eventfd2":      {count: 2, args: func(*kernel) [6]uint64 { return [6]uint64{3} }},
	"signalfd":      {count: 3, args: signals},
	"signalfd4":     {count: 4, args: signals},
	"timerfd_create": {count: 2, args: func(*kernel) [6]uint64 {
		return [6]uint64{unix.CLOCK_MONOTONIC}
	}},
	"inotify_init":  {count: 0, args: func(*kernel) [6]uint64 { return [6]uint64{} }},
	"inotify_init1": {count: 1, args: func(*kernel) [6]uint64 { return [6]uint64{} }},
	"fanotify_init": {count: 2, args: func(k *kernel) [6]uint64 {
		k.asRoot()
		return [6]uint64{unix.FAN_CLASS_NOTIF, unix.O_RDONLY}
	}},
	"userfaultfd": {count: 1, args: func(k *kernel) [6]uint64 {
		k.asRoot()
		return [6]uint64{}
	}},
	"perf_event_open": {count: 5, args: func(k *kernel) [6]uint64 {
		attr := unix.PerfEventAttr{
			Type: unix.PERF_TYPE_SOFTWARE, Config: unix.PERF_COUNT_SW_DUMMY,
			Size: uint32(unsafe.Sizeof(unix.PerfEventAttr{})), Bits: unix.PerfBitExcludeKernel,
		}
		return [6]uint64{object(k, attr), 0, ^uint64(0), ^uint64(0)}
	}},
	"io_uring_setup": {count: 2, args: func(k *kernel) [6]uint64 { return [6]uint64{1, k.room(120)} }},

	"pidfd_open": {count: 2, args: func(*kernel) [6]uint64 { return [6]uint64{uint64(os.Getpid())} }},
	"pidfd_getfd": {count: 3, args: func(k *kernel) [6]uint64 {
		return [6]uint64{k.self(), k.open("/dev/null")}
	}},
	"clone CLONE_PIDFD": {count: 5, fork: true, args: func(k *kernel) [6]uint64 {
		return [6]uint64{uint64(unix.CLONE_PIDFD | unix.SIGCHLD), 0, k.room(4)}
	}},
	"clone3": {count: 2, fork: true, args: func(k *kernel) [6]uint64 {
		return [6]uint64{k.words(unix.CLONE_PIDFD, k.room(4), 0, 0, uint64(unix.SIGCHLD), 0, 0, 0), 64}
	}},
	"landlock_create_ruleset": {count: 3, args: func(k *kernel) [6]uint64 {
		return [6]uint64{k.words(unix.LANDLOCK_ACCESS_FS_WRITE_FILE), 8}
	}},
	"seccomp SECCOMP_FILTER_FLAG_NEW_LISTENER": {count: 3, args: func(k *kernel) [6]uint64 {
		k.asRoot()
		// The filter is for ever: the thread ends with the test.
		runtime.LockOSThread()
		allow := unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW}
		program := unix.SockFprog{Len: 1, Filter: (*unix.SockFilter)(unsafe.Pointer(&k.at(object(k, allow))[0]))}
		return [6]uint64{unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_NEW_LISTENER, object(k, program)}
	}},

	"bpf BPF_MAP_CREATE": {count: 3, args: func(k *kernel) [6]uint64 {
		k.asRoot()
		return [6]uint64{unix.BPF_MAP_CREATE, k.arrayMap(), 48}
	}},
	"bpf BPF_PROG_LOAD": {count: 3, args: func(k *kernel) [6]uint64 {
		k.asRoot()
		return [6]uint64{unix.BPF_PROG_LOAD, k.program(unix.BPF_PROG_TYPE_SOCKET_FILTER, 0), 72}
	}},
	"bpf BPF_OBJ_GET": {count: 3, args: func(k *kernel) [6]uint64 {
		k.asRoot()
		dir := k.TempDir()
		k.must(unix.Mount("fdcall", dir, "bpf", 0, ""))
		k.Cleanup(func() { k.must(unix.Unmount(dir, unix.MNT_DETACH)) })
		path := k.str(dir + "/map")
		k.bpf(unix.BPF_OBJ_PIN, k.words(path, k.bpfFd(unix.BPF_MAP_CREATE, k.arrayMap(), 48), 0), 16)
		return [6]uint64{unix.BPF_OBJ_GET, k.words(path, 0, 0), 16}
	}},
	"bpf BPF_PROG_GET_FD_BY_ID": {count: 3, args: func(k *kernel) [6]uint64 {
		k.asRoot()
		k.bpfFd(unix.BPF_PROG_LOAD, k.program(unix.BPF_PROG_TYPE_SOCKET_FILTER, 0), 72)
		return k.byID(unix.BPF_PROG_GET_NEXT_ID, unix.BPF_PROG_GET_FD_BY_ID)
	}},
	"bpf BPF_MAP_GET_FD_BY_ID": {count: 3, args: func(k *kernel) [6]uint64 {
		k.asRoot()
		k.bpfFd(unix.BPF_MAP_CREATE, k.arrayMap(), 48)
		return k.byID(unix.BPF_MAP_GET_NEXT_ID, unix.BPF_MAP_GET_FD_BY_ID)
	}},
	"bpf BPF_RAW_TRACEPOINT_OPEN": {count: 3, args: func(k *kernel) [6]uint64 {
		k.asRoot()
		return [6]uint64{unix.BPF_RAW_TRACEPOINT_OPEN, k.tracepoint(), 16}
	}},
	"bpf BPF_BTF_LOAD": {count: 3, args: func(k *kernel) [6]uint64 {
		k.asRoot()
		return [6]uint64{unix.BPF_BTF_LOAD, k.btf(), 32}
	}},
	"bpf BPF_BTF_GET_FD_BY_ID": {count: 3, args: func(k *kernel) [6]uint64 {
		k.asRoot()
		k.bpfFd(unix.BPF_BTF_LOAD, k.btf(), 32)
		return k.byID(unix.BPF_BTF_GET_NEXT_ID, unix.BPF_BTF_GET_FD_BY_ID)
	}},
	"bpf BPF_LINK_CREATE": {count: 3, args: func(k *kernel) [6]uint64 {
		k.asRoot()
		program := k.bpfFd(unix.BPF_PROG_LOAD, k.program(unix.BPF_PROG_TYPE_SK_LOOKUP, unix.BPF_SK_LOOKUP), 72)
		return [6]uint64{unix.BPF_LINK_CREATE, k.halves(uint32(program), uint32(k.openRead("/proc/self/ns/net")), unix.BPF_SK_LOOKUP, 0), 16}
	}},
	"bpf BPF_LINK_GET_FD_BY_ID": {count: 3, args: func(k *kernel) [6]uint64 {
		k.asRoot()
		k.bpfFd(unix.BPF_RAW_TRACEPOINT_OPEN, k.tracepoint(), 16)
		return k.byID(unix.BPF_LINK_GET_NEXT_ID, unix.BPF_LINK_GET_FD_BY_ID)
	}},
	"bpf BPF_ENABLE_STATS": {count: 3, args: func(k *kernel) [6]uint64 {
		k.asRoot()
		return [6]uint64{unix.BPF_ENABLE_STATS, k.words(unix.BPF_STATS_RUN_TIME), 4}
	}},
	// These two are only seen to refuse: they need an iterator program, which
	// needs the kernel's BTF, and a bpffs that delegates to a user namespace.
	"bpf BPF_ITER_CREATE": {count: 3, refused: unix.EBADF, args: func(k *kernel) [6]uint64 {
		return [6]uint64{unix.BPF_ITER_CREATE, k.halves(noFd, 0), 8}
	}},
	"bpf BPF_TOKEN_CREATE": {count: 3, refused: unix.EBADF, args: func(k *kernel) [6]uint64 {
		const create = 36
		return [6]uint64{create, k.halves(0, noFd), 8}
	}},

	"ioctl TIOCGPTPEER": {count: 3, args: func(k *kernel) [6]uint64 {
		master := k.open("/dev/ptmx")
		k.must(unix.IoctlSetPointerInt(int(master), unix.TIOCSPTLCK, 0))
		return [6]uint64{master, unix.TIOCGPTPEER, unix.O_RDWR | unix.O_NOCTTY}
	}},
	"ioctl USERFAULTFD_IOC_NEW": {count: 3, args: func(k *kernel) [6]uint64 {
		return [6]uint64{k.open("/dev/userfaultfd"), 0xaa00}
	}},
	"ioctl KVM_CREATE_GUEST_MEMFD": {count: 3, device: "/dev/kvm", args: func(k *kernel) [6]uint64 {
		return [6]uint64{k.vm(), 0xc040aed4, k.words(1<<20, 0, 0, 0, 0, 0, 0, 0)}
	}},
	"ioctl KVM_CREATE_DEVICE": {count: 3, device: "/dev/kvm", args: func(k *kernel) [6]uint64 {
		const vfio = 4
		return [6]uint64{k.vm(), 0xc00caee0, k.halves(vfio, 0, 0)}
	}},
	"ioctl KVM_CREATE_VM":    {count: 3, device: "/dev/kvm", args: func(k *kernel) [6]uint64 { return [6]uint64{k.open("/dev/kvm"), 0xae01} }},
	"ioctl KVM_CREATE_VCPU":  {count: 3, device: "/dev/kvm", args: func(k *kernel) [6]uint64 { return [6]uint64{k.vm(), 0xae41} }},
	"ioctl KVM_GET_STATS_FD": {count: 3, device: "/dev/kvm", args: func(k *kernel) [6]uint64 { return [6]uint64{k.vm(), 0xaece} }},
	"ioctl NS_GET_USERNS": {count: 3, args: func(k *kernel) [6]uint64 {
		return [6]uint64{k.openRead("/proc/self/ns/net"), unix.NS_GET_USERNS}
	}},
	"ioctl NS_GET_PARENT": {count: 3, args: func(k *kernel) [6]uint64 {
		return [6]uint64{k.openRead(k.sleeper(unix.CLONE_NEWUSER) + "/ns/user"), unix.NS_GET_PARENT}
	}},
	"ioctl NS_MNT_GET_NEXT": {count: 3, args: func(k *kernel) [6]uint64 {
		k.sleeper(unix.CLONE_NEWNS)
		return [6]uint64{k.openRead("/proc/self/ns/mnt"), 0x8010b70b, k.words(16, 0)}
	}},
	"ioctl NS_MNT_GET_PREV": {count: 3, args: func(k *kernel) [6]uint64 {
		return [6]uint64{k.openRead(k.sleeper(unix.CLONE_NEWNS) + "/ns/mnt"), 0x8010b70c, k.words(16, 0)}
	}},
	"ioctl SIOCGSKNS": {count: 3, args: func(k *kernel) [6]uint64 {
		k.asRoot()
		s, _ := k.pair()
		return [6]uint64{s, unix.SIOCGSKNS}
	}},
	"ioctl TUNGETDEVNETNS": {count: 3, args: func(k *kernel) [6]uint64 {
		tun := k.open("/dev/net/tun")
		request, err := unix.NewIfreq("")
		k.must(err)
		request.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
		k.must(unix.IoctlIfreq(int(tun), unix.TUNSETIFF, request))
		return [6]uint64{tun, unix.TUNGETDEVNETNS}
	}},
	"ioctl PIDFD_GET_CGROUP_NAMESPACE":            {count: 3, args: namespace(unix.PIDFD_GET_CGROUP_NAMESPACE)},
	"ioctl PIDFD_GET_IPC_NAMESPACE":               {count: 3, args: namespace(unix.PIDFD_GET_IPC_NAMESPACE)},
	"ioctl PIDFD_GET_MNT_NAMESPACE":               {count: 3, args: namespace(unix.PIDFD_GET_MNT_NAMESPACE)},
	"ioctl PIDFD_GET_NET_NAMESPACE":               {count: 3, args: namespace(unix.PIDFD_GET_NET_NAMESPACE)},
	"ioctl PIDFD_GET_PID_NAMESPACE":               {count: 3, args: namespace(unix.PIDFD_GET_PID_NAMESPACE)},
	"ioctl PIDFD_GET_PID_FOR_CHILDREN_NAMESPACE":  {count: 3, args: namespace(unix.PIDFD_GET_PID_FOR_CHILDREN_NAMESPACE)},
	"ioctl PIDFD_GET_TIME_NAMESPACE":              {count: 3, args: namespace(unix.PIDFD_GET_TIME_NAMESPACE)},
	"ioctl PIDFD_GET_TIME_FOR_CHILDREN_NAMESPACE": {count: 3, args: namespace(unix.PIDFD_GET_TIME_FOR_CHILDREN_NAMESPACE)},
	"ioctl PIDFD_GET_USER_NAMESPACE":              {count: 3, args: namespace(unix.PIDFD_GET_USER_NAMESPACE)},
	"ioctl PIDFD_GET_UTS_NAMESPACE":               {count: 3, args: namespace(unix.PIDFD_GET_UTS_NAMESPACE)},
}

// dupTo asks for a number that is free.
func dupTo(k *kernel) [6]uint64 {
	from := k.open("/dev/null")
	free, err := unix.FcntlInt(uintptr(from), unix.F_DUPFD_CLOEXEC, 500)
	k.must(err)
	k.must(unix.Close(free))
	return [6]uint64{from, uint64(free)}
}

func newSocket(*kernel) [6]uint64 { return [6]uint64{unix.AF_UNIX, unix.SOCK_STREAM} }

func newSocketpair(k *kernel) [6]uint64 {
	return [6]uint64{unix.AF_UNIX, unix.SOCK_STREAM, 0, k.room(8)}
}

func accepting(k *kernel) [6]uint64 { return [6]uint64{k.listener()} }

func receiving(k *kernel) [6]uint64 {
	socket, vector := k.message()
	return [6]uint64{socket, vector}
}

func receivingOne(k *kernel) [6]uint64 {
	socket, vector := k.message()
	return [6]uint64{socket, vector, 1}
}

func signals(k *kernel) [6]uint64 { return [6]uint64{noFd, k.words(1 << (unix.SIGUSR1 - 1)), 8} }

func (k *kernel) self() uint64 {
	k.Helper()
	return k.fd(unix.PidfdOpen(os.Getpid(), 0))
}

func namespace(request uint64) func(*kernel) [6]uint64 {
	return func(k *kernel) [6]uint64 { return [6]uint64{k.self(), request} }
}

func (k *kernel) vm() uint64 {
	k.Helper()
	const create = 0xae01
	r, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(k.open("/dev/kvm")), create, 0)
	if errno != 0 {
		k.lacks(errno)
	}
	return k.fd(int(r), nil)
}

func (k *kernel) bpf(command, attr uint64, size uintptr) uint64 {
	k.Helper()
	r, _, errno := unix.Syscall(unix.SYS_BPF, uintptr(command), uintptr(attr), size)
	if errno != 0 {
		k.lacks(fmt.Errorf("bpf command %d: %w", command, errno))
	}
	return uint64(r)
}

func (k *kernel) bpfFd(command, attr uint64, size uintptr) uint64 {
	k.Helper()
	return k.fd(int(k.bpf(command, attr, size)), nil)
}

// byID asks for the descriptor of the first object of a kind.
func (k *kernel) byID(next, get uint64) [6]uint64 {
	k.Helper()
	attr := k.room(16) // start_id, next_id, open_flags
	k.bpf(next, attr, 12)
	id := binary.NativeEndian.Uint32(k.at(attr)[4:])
	return [6]uint64{get, k.halves(id, 0, 0), 12}
}

// The attributes of bpf commands: see bpf_attr in include/uapi/linux/bpf.h.

func (k *kernel) arrayMap() uint64 {
	return k.halves(unix.BPF_MAP_TYPE_ARRAY, 4, 4, 1, 0, 0, 0, 0, 0, 0, 0, 0)
}

// program is "return 1".
func (k *kernel) program(kind, attach uint32) uint64 {
	code := k.put([]byte{0xb7, 0, 0, 0, 1, 0, 0, 0, 0x95, 0, 0, 0, 0, 0, 0, 0})
	license := k.str("GPL")
	return k.halves(kind, 2, uint32(code), uint32(code>>32), uint32(license), uint32(license>>32), 0, 0, 0, 0, 0, 0,
		0, 0, 0, 0, 0, attach)
}

func (k *kernel) tracepoint() uint64 {
	k.Helper()
	program := k.bpfFd(unix.BPF_PROG_LOAD, k.program(unix.BPF_PROG_TYPE_RAW_TRACEPOINT, 0), 72)
	return k.words(k.str("sched_process_exit"), program)
}

// btf is a description of the one type int: see include/uapi/linux/btf.h.
func (k *kernel) btf() uint64 {
	var b bytes.Buffer
	write := func(v any) { k.must(binary.Write(&b, binary.NativeEndian, v)) }
	write(uint16(0xeb9f))
	write([]uint8{1, 0})
	write([]uint32{24, 0, 16, 16, 5})          // header length; types: offset, length; strings: offset, length
	write([]uint32{1, 1 << 24, 4, 1<<24 | 32}) // "int", kind, bytes, signed and 32 bits
	write([]byte("\x00int\x00"))
	return k.words(k.put(b.Bytes()), 0, uint64(b.Len()), 0)
}

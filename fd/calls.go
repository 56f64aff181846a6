//go:build linux && (amd64 || arm64 || 386)

package fd

import (
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/seed-055cd0c8/indirect/fdcall"
)

// The calls that this package uses.
var (
	openat        = newCall("openat", refuses(noFD))
	openat2       = newCall("openat2", nil)
	openByHandle  = newCall("open_by_handle_at", nil)
	mqOpen        = newCall("mq_open", nil)
	memfdCreate   = newCall("memfd_create", named("probe"))
	memfdSecret   = newCall("memfd_secret", creates())
	openTree      = newCall("open_tree", nil)
	fsopen        = newCall("fsopen", nil)
	fsmount       = newCall("fsmount", nil)
	fspick        = newCall("fspick", nil)
	pipe2         = newCall("pipe2", createsPair(0))
	dup           = newCall("fcntl F_DUPFD_CLOEXEC", refuses(noFD, unix.F_DUPFD_CLOEXEC))
	dup3          = newCall("dup3", refuses(noFD, 1<<20))
	socket        = newCall("socket", creates(unix.AF_UNIX, unix.SOCK_STREAM))
	socketpair    = newCall("socketpair", createsPair(3, unix.AF_UNIX, unix.SOCK_STREAM))
	accept4       = newCall("accept4", refuses(noFD))
	epollCreate1  = newCall("epoll_create1", creates())
	eventfd2      = newCall("eventfd2", creates())
	signalfd4     = newCall("signalfd4", probeSignalfd)
	timerfdCreate = newCall("timerfd_create", creates(unix.CLOCK_MONOTONIC))
	inotifyInit1  = newCall("inotify_init1", creates())
	fanotifyInit  = newCall("fanotify_init", nil)
	userfaultfd   = newCall("userfaultfd", nil)
	perfEventOpen = newCall("perf_event_open", nil)
	pidfdOpen     = newCall("pidfd_open", nil)
	pidfdGetfd    = newCall("pidfd_getfd", nil)
	ioUringSetup  = newCall("io_uring_setup", nil)
	landlock      = newCall("landlock_create_ruleset", nil)
	ptyPeer       = newCall("ioctl TIOCGPTPEER", nil)

	calls = map[string]*call{
		"openat": openat, "openat2": openat2, "open_by_handle_at": openByHandle, "mq_open": mqOpen, "memfd_create": memfdCreate,
		"memfd_secret": memfdSecret, "open_tree": openTree, "fsopen": fsopen, "fsmount": fsmount, "fspick": fspick, "pipe2": pipe2,
		"fcntl F_DUPFD_CLOEXEC": dup, "dup3": dup3, "socket": socket, "socketpair": socketpair, "accept4": accept4,
		"epoll_create1": epollCreate1, "eventfd2": eventfd2, "signalfd4": signalfd4, "timerfd_create": timerfdCreate,
		"inotify_init1": inotifyInit1, "fanotify_init": fanotifyInit, "userfaultfd": userfaultfd, "perf_event_open": perfEventOpen,
		"pidfd_open": pidfdOpen, "pidfd_getfd": pidfdGetfd, "io_uring_setup": ioUringSetup, "landlock_create_ruleset": landlock,
		"ioctl TIOCGPTPEER": ptyPeer,
	}
)

const sigsetSize = 8 // of the kernel

var noSignals unix.Sigset_t

func probeSignalfd(c *call) unix.Errno {
	return creates(noFD, uintptr(unsafe.Pointer(&noSignals)), sigsetSize)(c)
}

// Open opens a file: see [unix.Open]. O_CLOEXEC and O_NONBLOCK in mode count
// as asked for.
func Open(path string, mode int, perm uint32, props Props) (int, error) {
	return Openat(unix.AT_FDCWD, path, mode, perm, props)
}

// Openat opens a file relative to a directory: see [unix.Openat].
func Openat(dirfd int, path string, mode int, perm uint32, props Props) (int, error) {
	p, err := unix.BytePtrFromString(path)
	if err != nil {
		return -1, err
	}
	return openat.pointing(props, nil, uintptr(dirfd), uintptr(unsafe.Pointer(p)), uintptr(mode|largeFile), uintptr(perm), 0)
}

// Creat creates or truncates a file for writing: see creat(2).
func Creat(path string, perm uint32, props Props) (int, error) {
	return Open(path, unix.O_CREAT|unix.O_WRONLY|unix.O_TRUNC, perm, props)
}

// Openat2 opens a file: see [unix.Openat2]. The structure is copied, not changed.
func Openat2(dirfd int, path string, how *unix.OpenHow, props Props) (int, error) {
	p, err := unix.BytePtrFromString(path)
	if err != nil {
		return -1, err
	}
	h := new(unix.OpenHow)
	*h = *how
	if props&Inheritable == 0 || props&NonSequential != 0 {
		h.Flags |= unix.O_CLOEXEC
	}
	if props&Nonblock != 0 {
		h.Flags |= unix.O_NONBLOCK
	}
	// The flags are in memory, where the call's row says they are not to be OR-ed in.
	r, _, errno := unix.Syscall6(openat2.nr, uintptr(dirfd), uintptr(unsafe.Pointer(p)), uintptr(unsafe.Pointer(h)), unsafe.Sizeof(*h), 0, 0)
	if errno != 0 {
		return -1, errno
	}
	if props&NonSequential == 0 {
		return int(r), nil
	}
	fd, errno := settle(int(r), NonSequential, props, false)
	return fd, asError(errno)
}

func asError(errno unix.Errno) error {
	if errno == 0 {
		return nil
	}
	return errno
}

// OpenByHandleAt opens a file by its handle: see [unix.OpenByHandleAt].
func OpenByHandleAt(mountFD int, handle unix.FileHandle, mode int, props Props) (int, error) {
	type header struct{ size, kind uint32 }
	b := make([]byte, unsafe.Sizeof(header{})+uintptr(handle.Size()))
	*(*header)(unsafe.Pointer(&b[0])) = header{uint32(handle.Size()), uint32(handle.Type())}
	copy(b[unsafe.Sizeof(header{}):], handle.Bytes())
	return openByHandle.pointing(props, nil, uintptr(mountFD), uintptr(unsafe.Pointer(&b[0])), uintptr(mode|largeFile), 0, 0)
}

// MqOpen opens a message queue: see mq_open(3). The name has no leading slash;
// attr may be nil, or point to a struct mq_attr.
func MqOpen(name string, mode int, perm uint32, attr unsafe.Pointer, props Props) (int, error) {
	p, err := unix.BytePtrFromString(name)
	if err != nil {
		return -1, err
	}
	return mqOpen.pointing(props, nil, uintptr(unsafe.Pointer(p)), uintptr(mode), uintptr(perm), uintptr(attr), 0)
}

// MemfdCreate creates a file in memory: see [unix.MemfdCreate].
func MemfdCreate(name string, flags int, props Props) (int, error) {
	p, err := unix.BytePtrFromString(name)
	if err != nil {
		return -1, err
	}
	return memfdCreate.pointing(props, nil, uintptr(unsafe.Pointer(p)), uintptr(flags), 0, 0, 0)
}

// MemfdSecret creates memory that the kernel itself does not see: see memfd_secret(2).
func MemfdSecret(flags int, props Props) (int, error) {
	return memfdSecret.create(props, nil, [6]uintptr{uintptr(flags)})
}

// OpenTree opens or copies a mount: see [unix.OpenTree].
func OpenTree(dirfd int, path string, flags uint, props Props) (int, error) {
	p, err := unix.BytePtrFromString(path)
	if err != nil {
		return -1, err
	}
	return openTree.pointing(props, nil, uintptr(dirfd), uintptr(unsafe.Pointer(p)), uintptr(flags), 0, 0)
}

// Fsopen opens a file system to be configured: see [unix.Fsopen].
func Fsopen(name string, flags int, props Props) (int, error) {
	p, err := unix.BytePtrFromString(name)
	if err != nil {
		return -1, err
	}
	return fsopen.pointing(props, nil, uintptr(unsafe.Pointer(p)), uintptr(flags), 0, 0, 0)
}

// Fsmount makes a mount of a configured file system: see [unix.Fsmount].
func Fsmount(fs, flags, attributes int, props Props) (int, error) {
	return fsmount.create(props, nil, [6]uintptr{uintptr(fs), uintptr(flags), uintptr(attributes)})
}

// Fspick opens a mounted file system to be configured: see [unix.Fspick].
func Fspick(dirfd int, path string, flags int, props Props) (int, error) {
	p, err := unix.BytePtrFromString(path)
	if err != nil {
		return -1, err
	}
	return fspick.pointing(props, nil, uintptr(dirfd), uintptr(unsafe.Pointer(p)), uintptr(flags), 0, 0)
}

// Pipe creates a pipe: p[0] is to be read, p[1] to be written.
func Pipe(p *[2]int, props Props) error {
	pair := pairs.Get().(*[2]int32)
	defer pairs.Put(pair)
	_, err := pipe2.pointing(props, pair, uintptr(unsafe.Pointer(pair)), 0, 0, 0, 0)
	if err == nil {
		p[0], p[1] = int(pair[0]), int(pair[1])
	}
	return err
}

// Dup gives an open file another number. Nonblock is refused with EINVAL: the
// status flags belong to all who share the file.
func Dup(fd int, props Props) (int, error) {
	if props&Nonblock != 0 {
		return -1, unix.EINVAL
	}
	if props&(Inheritable|NonSequential) == Inheritable {
		r, _, errno := unix.Syscall(unix.SYS_FCNTL, uintptr(fd), unix.F_DUPFD, 0)
		if errno != 0 {
			return -1, errno
		}
		return int(r), nil
	}
	return dup.create(props, nil, [6]uintptr{uintptr(fd), unix.F_DUPFD_CLOEXEC})
}

// DupTo gives an open file the number newfd, which is closed if it is in use:
// see dup3(2). NonSequential and Nonblock are refused with EINVAL.
func DupTo(oldfd, newfd int, props Props) error {
	if props&^Inheritable != 0 {
		return unix.EINVAL
	}
	_, err := dup3.create(props, nil, [6]uintptr{uintptr(oldfd), uintptr(newfd)})
	return err
}

// Socket creates a socket: see [unix.Socket].
func Socket(domain, typ, protocol int, props Props) (int, error) {
	return socket.create(props, nil, [6]uintptr{uintptr(domain), uintptr(typ), uintptr(protocol)})
}

// Socketpair creates two connected sockets: see [unix.Socketpair].
func Socketpair(domain, typ, protocol int, props Props) ([2]int, error) {
	pair := pairs.Get().(*[2]int32)
	defer pairs.Put(pair)
	_, err := socketpair.pointing(props, pair, uintptr(domain), uintptr(typ), uintptr(protocol), uintptr(unsafe.Pointer(pair)), 0)
	if err != nil {
		return [2]int{-1, -1}, err
	}
	return [2]int{int(pair[0]), int(pair[1])}, nil
}

// Accept accepts a connection of a listening socket, and waits for one if the
// socket blocks. [unix.Getpeername] tells whose it is.
func Accept(fd int, props Props) (int, error) {
	if accept4.decide() == Fcntl {
		// Nobody forks while the lock is held: wait without it.
		if err := waitReadable(fd, nil); err != nil {
			return -1, err
		}
	}
	return accept4.create(props, nil, [6]uintptr{uintptr(fd)})
}

// EpollCreate creates an epoll instance: see [unix.EpollCreate1].
func EpollCreate(props Props) (int, error) { return epollCreate1.create(props, nil, [6]uintptr{}) }

// Eventfd creates an event counter: see [unix.Eventfd].
func Eventfd(initial uint, flags int, props Props) (int, error) {
	return eventfd2.create(props, nil, [6]uintptr{uintptr(initial), uintptr(flags)})
}

// Signalfd creates a descriptor that signals can be read from: see
// [unix.Signalfd]. The Go runtime wants most signals for itself.
func Signalfd(mask *unix.Sigset_t, props Props) (int, error) {
	return signalfd4.pointing(props, nil, noFD, uintptr(unsafe.Pointer(mask)), sigsetSize, 0, 0)
}

// TimerfdCreate creates a timer: see [unix.TimerfdCreate].
func TimerfdCreate(clock int, props Props) (int, error) {
	return timerfdCreate.create(props, nil, [6]uintptr{uintptr(clock)})
}

// InotifyInit creates an inotify instance: see [unix.InotifyInit1].
func InotifyInit(props Props) (int, error) { return inotifyInit1.create(props, nil, [6]uintptr{}) }

// FanotifyInit creates a fanotify group: see [unix.FanotifyInit]. The
// descriptors that are read from it are close-on-exec unless props has
// Inheritable.
func FanotifyInit(flags, eventFlags uint, props Props) (int, error) {
	if props&Inheritable == 0 {
		eventFlags |= unix.O_CLOEXEC
	}
	return fanotifyInit.create(props, nil, [6]uintptr{uintptr(flags), uintptr(eventFlags)})
}

// Userfaultfd creates a descriptor for page faults: see userfaultfd(2).
func Userfaultfd(flags int, props Props) (int, error) {
	return userfaultfd.create(props, nil, [6]uintptr{uintptr(flags)})
}

// PerfEventOpen opens a performance counter: see [unix.PerfEventOpen].
func PerfEventOpen(attr *unix.PerfEventAttr, pid, cpu, group int, flags int, props Props) (int, error) {
	return perfEventOpen.pointing(props, nil, uintptr(unsafe.Pointer(attr)), uintptr(pid), uintptr(cpu), uintptr(group), uintptr(flags))
}

// PidfdOpen opens a process: see [unix.PidfdOpen].
func PidfdOpen(pid, flags int, props Props) (int, error) {
	return pidfdOpen.create(props, nil, [6]uintptr{uintptr(pid), uintptr(flags)})
}

// PidfdGetfd copies a descriptor of another process: see [unix.PidfdGetfd].
// Nonblock is refused with EINVAL, as for [Dup].
func PidfdGetfd(pidfd, target, flags int, props Props) (int, error) {
	if props&Nonblock != 0 {
		return -1, unix.EINVAL
	}
	return pidfdGetfd.create(props, nil, [6]uintptr{uintptr(pidfd), uintptr(target), uintptr(flags)})
}

// IoUringSetup creates an io_uring: see io_uring_setup(2). params points to a
// struct io_uring_params.
func IoUringSetup(entries uint32, params unsafe.Pointer, props Props) (int, error) {
	return ioUringSetup.pointing(props, nil, uintptr(entries), uintptr(params), 0, 0, 0)
}

// LandlockCreateRuleset creates a Landlock ruleset: see landlock_create_ruleset(2).
// attr points to a struct landlock_ruleset_attr of size bytes.
func LandlockCreateRuleset(attr unsafe.Pointer, size uintptr, props Props) (int, error) {
	return landlock.pointing(props, nil, uintptr(attr), size, 0, 0, 0)
}

// PtyPeer opens the other end of a pseudoterminal: see ioctl_tty(2), TIOCGPTPEER.
func PtyPeer(ptmx, mode int, props Props) (int, error) {
	return ptyPeer.create(props, nil, [6]uintptr{uintptr(ptmx), tiocgptpeer, uintptr(mode)})
}

const tiocgptpeer = 0x5441

// Create makes any call of the table (package fdcall) that returns one new
// descriptor, by the name of its row, for those that have no function here:
// "bpf BPF_MAP_CREATE", "ioctl NS_GET_USERNS". The arguments are those of the
// system call, without flags for the properties. Memory that they point to must
// be kept alive by the caller, and not be on a stack. It fails with ENOSYS for
// another name, or one that this architecture does not have.
func Create(name string, props Props, args [6]uintptr) (int, error) {
	c, ok := calls[name]
	if !ok {
		c = other(name)
	}
	if c == nil || c.nr == none {
		return -1, unix.ENOSYS
	}
	return c.create(props, nil, args)
}

// other returns what is known of a call that has no function here, or nil.
func other(name string) *call {
	others.Lock()
	defer others.Unlock()
	if c, ok := others.calls[name]; ok {
		return c
	}
	row := fdcall.Linux().ByID(name)
	if row == nil || row.Gives != fdcall.Ret || row.Indirect || row.Block {
		return nil
	}
	c := newCall(name, nil)
	others.calls[name] = c
	return c
}

// others are the calls of [Create].
var others = struct {
	sync.Mutex
	calls map[string]*call
}{calls: make(map[string]*call)}

package probe

import (
	"encoding/binary"
	"fmt"
	"os"
	"runtime"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/seed-055cd0c8/indirect/fdcall"
)

// scratch is what the trial of one call may use: memory at fixed addresses,
// and descriptors that are closed at the end.
type scratch struct {
	page []byte
	used int
	fds  []int
	err  error // the first step of the preparation that failed
}

func newScratch() (*scratch, error) {
	page, err := unix.Mmap(-1, 0, 1<<16, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		return nil, fmt.Errorf("map memory for a trial: %w", err)
	}
	return &scratch{page: page}, nil
}

func (s *scratch) close() {
	for _, fd := range s.fds {
		unix.Close(fd)
	}
	unix.Munmap(s.page)
}

// base is the address of the memory.
func (s *scratch) base() uint64 { return uint64(uintptr(unsafe.Pointer(&s.page[0]))) }

// room returns the address of n zero bytes.
func (s *scratch) room(n int) uint64 {
	at := s.used
	s.used += (n + 15) &^ 15
	return s.base() + uint64(at)
}

// at returns the memory from an address that room gave, nil for other addresses.
func (s *scratch) at(address uint64) []byte {
	if address < s.base() || address >= s.base()+uint64(len(s.page)) {
		return nil
	}
	return s.page[address-s.base():]
}

// put returns the address of a copy of b.
func (s *scratch) put(b []byte) uint64 {
	at := s.room(len(b))
	copy(s.at(at), b)
	return at
}

func (s *scratch) str(text string) uint64 { return s.put(append([]byte(text), 0)) }

func (s *scratch) words(w ...uint64) uint64 {
	var b []byte
	for _, w := range w {
		b = binary.NativeEndian.AppendUint64(b, w)
	}
	return s.put(b)
}

func (s *scratch) halves(w ...uint32) uint64 {
	var b []byte
	for _, w := range w {
		b = binary.NativeEndian.AppendUint32(b, w)
	}
	return s.put(b)
}

// object returns the address of a copy of v, a structure of golang.org/x/sys.
func object[T any](s *scratch, v T) uint64 {
	return s.put(unsafe.Slice((*byte)(unsafe.Pointer(&v)), unsafe.Sizeof(v)))
}

// fd notes a descriptor of the preparation, or that it failed.
func (s *scratch) fd(fd int, err error) uint64 {
	if s.must(err); err != nil {
		return noFd
	}
	s.fds = append(s.fds, fd)
	return uint64(fd)
}

// must notes that a step of the preparation failed.
func (s *scratch) must(err error) {
	if s.err == nil {
		s.err = err
	}
}

func (s *scratch) open(name string, flags int) uint64 {
	fd, err := unix.Open(name, flags|unix.O_CLOEXEC|unix.O_NOCTTY, 0)
	if err != nil {
		err = fmt.Errorf("open %s: %w", name, err)
	}
	return s.fd(fd, err)
}

func (s *scratch) null() uint64 { return s.open(os.DevNull, unix.O_RDWR) }

func (s *scratch) pair() (uint64, uint64) {
	p, err := syscall.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	return s.fd(p[0], err), s.fd(p[1], err)
}

// listener returns a socket at which a connection waits.
func (s *scratch) listener() uint64 {
	const backlog = 1
	l := s.fd(unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0))
	c := s.fd(unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0))
	if s.err != nil {
		return noFd
	}
	s.must(unix.Bind(int(l), &unix.SockaddrUnix{})) // an abstract name of the kernel's choice
	s.must(unix.Listen(int(l), backlog))
	name, err := unix.Getsockname(int(l))
	if s.must(err); err == nil {
		s.must(unix.Connect(int(c), name))
	}
	return l
}

// message returns a socket at which a message with a descriptor waits, and a
// vector of one header to receive it.
func (s *scratch) message() (uint64, uint64) {
	from, to := s.pair()
	null := s.null()
	if s.err != nil {
		return noFd, 0
	}
	s.must(unix.Sendmsg(int(from), []byte{1}, unix.UnixRights(int(null)), nil, 0))
	const control = 64
	iov := s.words(s.room(1), 1)
	// struct mmsghdr: struct msghdr (name, namelen, iov, iovlen, control,
	// controllen, flags) and a count.
	vector := s.words(0, 0, iov, 1, s.room(control), control, 0, 0)
	return to, vector
}

// call makes a system call.
func (s *scratch) call(nr int32, args [6]uint64) (uint64, unix.Errno) {
	r, _, errno := unix.Syscall6(uintptr(nr), uintptr(args[0]), uintptr(args[1]), uintptr(args[2]),
		uintptr(args[3]), uintptr(args[4]), uintptr(args[5]))
	runtime.KeepAlive(s)
	return uint64(r), errno
}

// fork makes a call whose child ends at once.
//
//go:norace
func (s *scratch) fork(nr int32, args [6]uint64) (uint64, unix.Errno) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	pid, _, errno := syscall.RawSyscall6(uintptr(nr), uintptr(args[0]), uintptr(args[1]), uintptr(args[2]),
		uintptr(args[3]), uintptr(args[4]), uintptr(args[5]))
	if errno != 0 {
		return 0, errno
	}
	if pid == 0 {
		for {
			syscall.RawSyscall(unix.SYS_EXIT_GROUP, 0, 0, 0)
		}
	}
	for {
		if _, err := unix.Wait4(int(pid), nil, 0, nil); err != unix.EINTR {
			return uint64(pid), 0
		}
	}
}

// descriptors returns those that a call gave. They are closed with s.
func (s *scratch) descriptors(c *fdcall.Call, args [6]uint64, result uint64) []int {
	var fds []int
	word := func(address uint64) {
		if b := s.at(address); b != nil {
			fds = append(fds, int(int32(binary.NativeEndian.Uint32(b))))
		}
	}
	at := args[c.GivesArg]
	switch c.Gives {
	case fdcall.Ret, fdcall.Exact:
		fds = append(fds, int(result))
	case fdcall.Pair:
		word(at)
		word(at + 4)
	case fdcall.Memory:
		if c.Name == "clone3" { // where the structure says
			at = binary.NativeEndian.Uint64(s.at(at)[8:])
		}
		word(at)
	case fdcall.Control, fdcall.Controls: // the first header of a vector: one message was sent
		h := (*unix.Msghdr)(unsafe.Pointer(&s.at(at)[0]))
		messages, err := unix.ParseSocketControlMessage(unsafe.Slice(h.Control, int(h.Controllen)))
		if err != nil {
			break
		}
		for i := range messages {
			if got, err := unix.ParseUnixRights(&messages[i]); err == nil {
				fds = append(fds, got...)
			}
		}
	}
	s.fds = append(s.fds, fds...)
	return fds
}

const (
	noFd  = 0xffffffff
	atCwd = 0xffffff9c
)

package recorder

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// image tells one program image of one process from others: a process ID comes
// back after a while, and execve keeps it. The kernel chooses another place
// for the stack at each execve (unless address randomisation is off).
type image struct {
	Started uint64 // clock ticks since the machine's start
	Stack   uint64 // where its stack begins
}

// stat is what /proc/PID/stat tells that matters here.
type stat struct {
	image
	Parent int
}

// readStat reads the status of a process (proc_pid_stat(5)).
func readStat(pid int) (stat, error) {
	b, err := readSmall(procName(pid, "stat"))
	if err != nil {
		return stat{}, fmt.Errorf("read the status of process %d: %w", pid, err)
	}
	return parseStat(b)
}

var errStat = errors.New("/proc/PID/stat has another form than expected")

func parseStat(b []byte) (s stat, err error) {
	// The name in parentheses can hold anything, parentheses too.
	end := bytes.LastIndexByte(b, ')')
	fields := bytes.Fields(b[end+1:])
	const ( // numbers of proc_pid_stat(5), less the two fields that are gone
		parent, started, stack = 4 - 3, 22 - 3, 28 - 3
	)
	if end < 0 || len(fields) <= stack {
		return s, errStat
	}
	var errs [3]error
	s.Parent, errs[0] = strconv.Atoi(string(fields[parent]))
	s.Started, errs[1] = strconv.ParseUint(string(fields[started]), 10, 64)
	s.Stack, errs[2] = strconv.ParseUint(string(fields[stack]), 10, 64)
	return s, errors.Join(errs[:]...)
}

// threaded reports whether a process has more than one thread. Each is a
// directory, and thus a link of the directory that they are in.
func threaded(pid int) bool {
	const alone = 3
	var st unix.Stat_t
	return unix.Stat(procName(pid, "task"), &st) == nil && st.Nlink > alone
}

// Types of kcmp(2).
const (
	kcmpFile  = 0
	kcmpFiles = 2
)

// sameFile reports whether a descriptor is the same open file description in
// two processes.
func sameFile(a, b, fd int) bool {
	r, _, errno := unix.Syscall6(unix.SYS_KCMP, uintptr(a), uintptr(b), kcmpFile, uintptr(fd), uintptr(fd), 0)
	return errno == 0 && r == 0
}

// sameFiles reports whether two processes share one descriptor table.
func sameFiles(a, b int) bool {
	r, _, errno := unix.Syscall6(unix.SYS_KCMP, uintptr(a), uintptr(b), kcmpFiles, 0, 0, 0)
	return errno == 0 && r == 0
}

// clock turns clock ticks since the machine's start into nanoseconds of CLOCK_MONOTONIC.
type clock struct{ asleep int64 } // what CLOCK_MONOTONIC has left out

// tick is the length of a clock tick in nanoseconds: USER_HZ is 100 on all of our architectures.
const tick = 10_000_000

func newClock() clock {
	var t unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_BOOTTIME, &t) // cannot fail
	return clock{t.Nano() - now()}
}

func (c clock) monotonic(ticks uint64) int64 { return int64(ticks)*tick - c.asleep }

// pointers reads the stack pointers of threads that wait in a system call. It
// keeps the files open in which the kernel tells them: opening one takes
// longer than reading it.
type pointers struct {
	mu    sync.Mutex
	files map[int]int // descriptors, by thread
}

const maxPointers = 64

// of is the stack pointer of a thread, and 0 if it cannot be told.
func (p *pointers) of(tid int) uint64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	var b [256]byte
	fd, ok := p.files[tid]
	if ok {
		if n, err := unix.Pread(fd, b[:], 0); err == nil {
			return parseSyscall(b[:n])
		}
		p.close(tid) // it is gone, and another has its ID
	}
	fd, err := unix.Open(procName(tid, "syscall"), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0
	}
	if len(p.files) >= maxPointers {
		for tid := range p.files {
			p.close(tid)
		}
	}
	p.files[tid] = fd
	n, err := unix.Pread(fd, b[:], 0)
	if err != nil {
		return 0
	}
	return parseSyscall(b[:n])
}

// forget closes the file of a thread that ends.
func (p *pointers) forget(tid int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.close(tid)
}

func (p *pointers) close(tid int) {
	if fd, ok := p.files[tid]; ok {
		unix.Close(fd)
		delete(p.files, tid)
	}
}

// parseSyscall finds the stack pointer in /proc/PID/syscall
// (proc_pid_syscall(5)), which has the call's number, its six arguments, the
// stack pointer and the instruction pointer if the thread is in a call.
func parseSyscall(b []byte) uint64 {
	fields := strings.Fields(string(b))
	const calling = 9
	if len(fields) != calling {
		return 0
	}
	sp, err := strconv.ParseUint(fields[7], 0, 64)
	if err != nil {
		return 0
	}
	return sp
}

// readSmall reads a file of /proc in one read, as its text is made then.
func readSmall(name string) ([]byte, error) {
	fd, err := unix.Open(name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	b := make([]byte, 4096)
	for n := 0; ; {
		got, err := unix.Read(fd, b[n:])
		switch {
		case err == unix.EINTR:
		case err != nil:
			return nil, err
		case got == 0:
			return b[:n], nil
		default:
			if n += got; n == len(b) {
				b = slices.Grow(b, n)[:2*n]
			}
		}
	}
}

// isOpen reports whether a process has the descriptor. It costs one system
// call that touches no file.
func isOpen(pid, fd int) bool {
	_, _, errno := unix.Syscall6(unix.SYS_KCMP, uintptr(pid), uintptr(pid), kcmpFile, uintptr(fd), uintptr(fd), 0)
	if errno == unix.ENOSYS { // CONFIG_KCMP
		_, err := os.Lstat(descriptorName(pid, fd))
		return err == nil
	}
	return errno == 0
}

// lowestFree is the number that the next descriptor of a process will get if
// it is to be at least from, and -1 if that takes too long to find.
func lowestFree(pid, from int) int {
	for fd := from; fd < from+maxSearched; fd++ {
		if !isOpen(pid, fd) {
			return fd
		}
	}
	return -1
}

// maxSearched bounds the search for a free number: attaching to the process
// takes as long as this many system calls.
const maxSearched = 256

func descriptorName(pid, fd int) string { return procName(pid, "fd/"+strconv.Itoa(fd)) }

// procName is the name of a file in /proc/PID.
func procName(pid int, file string) string { return "/proc/" + strconv.Itoa(pid) + "/" + file }

// object identifies what a descriptor refers to.
type object struct {
	Dev, Ino uint64
	Mode     uint32
	Link     string // as /proc/PID/fd shows it: a path, "socket:[1]", "pipe:[2]", "anon_inode:[eventpoll]"
	Detail   string // of a socket
}

// same reports whether two descriptors refer to one file or pipe or socket. All
// anonymous inodes are one: there the name must do.
func (o object) same(p object) bool {
	if strings.HasPrefix(o.Link, "anon_inode:") {
		return o.Link == p.Link
	}
	return o.Dev == p.Dev && o.Ino == p.Ino
}

// objectOf tells what descriptor fd of a process is.
func objectOf(pid, fd int) (object, bool) {
	name := descriptorName(pid, fd)
	link, err := os.Readlink(name)
	if err != nil {
		return object{}, false
	}
	o := object{Link: link}
	var st unix.Stat_t
	if unix.Stat(name, &st) == nil {
		o.Dev, o.Ino, o.Mode = st.Dev, st.Ino, st.Mode
	}
	if strings.HasPrefix(link, "socket:") {
		o.Detail = socketDetail(pid, fd)
	}
	return o, true
}

// inheritable lists the descriptors above the standard streams that a process
// would hand on to a program that it executes, in order.
func inheritable(pid int) ([]int, error) {
	dir, err := unix.Open(procName(pid, "fd"), unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("list the descriptors of process %d: %w", pid, err)
	}
	defer unix.Close(dir)
	var names []string
	b := make([]byte, 8192)
	for {
		n, err := unix.Getdents(dir, b)
		if err != nil {
			return nil, fmt.Errorf("list the descriptors of process %d: %w", pid, err)
		}
		if n == 0 {
			break
		}
		_, _, names = unix.ParseDirent(b[:n], -1, names)
	}
	var all []int
	for _, name := range names {
		if fd, err := strconv.Atoi(name); err == nil && fd > 2 && !closeOnExec(pid, fd) {
			all = append(all, fd)
		}
	}
	slices.Sort(all)
	return all, nil
}

// closeOnExec reports whether a descriptor will be closed by execve, or is
// closed already (proc_pid_fdinfo(5)).
func closeOnExec(pid, fd int) bool {
	b, err := readSmall(procName(pid, "fdinfo/"+strconv.Itoa(fd)))
	if err != nil {
		return true
	}
	return parseFlags(b)&unix.O_CLOEXEC != 0
}

func parseFlags(b []byte) uint64 {
	_, rest, _ := bytes.Cut(b, []byte("flags:"))
	line, _, _ := bytes.Cut(rest, []byte("\n"))
	flags, err := strconv.ParseUint(string(bytes.TrimSpace(line)), 8, 64)
	if err != nil {
		return unix.O_CLOEXEC // not to be accused
	}
	return flags
}

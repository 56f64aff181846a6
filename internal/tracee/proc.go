package tracee

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Mapping is a line of /proc/PID/maps.
type Mapping struct {
	Start, End uint64
	Perm       string // "r-xp"
	Offset     uint64 // in the file
	Dev        string // major:minor, in hexadecimal
	Inode      uint64 // 0 for anonymous memory
	Path       string
}

// Executable reports whether the mapping holds code.
func (m *Mapping) Executable() bool { return len(m.Perm) > 2 && m.Perm[2] == 'x' }

// Maps returns the mappings of the process that tid belongs to.
func Maps(tid int) ([]Mapping, error) {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(tid) + "/maps")
	if err != nil {
		return nil, fmt.Errorf("read the mappings of process %d: %w", tid, err)
	}
	var all []Mapping
	for line := range bytes.Lines(b) {
		if m, ok := parseMapping(string(bytes.TrimSuffix(line, []byte("\n")))); ok {
			all = append(all, m)
		}
	}
	return all, nil
}

// parseMapping reads "start-end perm offset dev inode   path" (proc_pid_maps(5)).
func parseMapping(line string) (Mapping, bool) {
	var m Mapping
	var fields [5]string
	for i := range fields {
		fields[i], line, _ = strings.Cut(line, " ")
	}
	start, end, ok := strings.Cut(fields[0], "-")
	if !ok {
		return m, false
	}
	var errs [4]error
	m.Start, errs[0] = strconv.ParseUint(start, 16, 64)
	m.End, errs[1] = strconv.ParseUint(end, 16, 64)
	m.Offset, errs[2] = strconv.ParseUint(fields[2], 16, 64)
	m.Inode, errs[3] = strconv.ParseUint(fields[4], 10, 64)
	m.Perm, m.Dev, m.Path = fields[1], fields[3], strings.TrimLeft(line, " ")
	return m, errors.Join(errs[:]...) == nil
}

// procmapQuery is struct procmap_query of include/uapi/linux/fs.h (Linux 6.11).
type procmapQuery struct {
	size, flags, address                    uint64
	start, end, perm, pageSize, offset, ino uint64
	major, minor, nameSize, buildIDSize     uint32
	name, buildID                           uint64
}

const (
	procmapQueryRequest = 0xc0686611 // PROCMAP_QUERY
	procmapExecutable   = 0x04
	procmapNext         = 0x10 // the covering mapping or the next one
	procmapFileBacked   = 0x20
)

// openMaps opens the mappings of the process that tid belongs to.
func openMaps(tid int) (fd int, err error) {
	fd, err = unix.Open("/proc/"+strconv.Itoa(tid)+"/maps", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0, fmt.Errorf("open the mappings of process %d: %w", tid, err)
	}
	return fd, nil
}

// ask asks about one mapping. It fails with ENOENT if there is none, and with
// other errors on older kernels.
func (q *procmapQuery) ask(fd int) unix.Errno {
	q.size = uint64(unsafe.Sizeof(*q))
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), procmapQueryRequest, uintptr(unsafe.Pointer(q)))
	return errno
}

// code makes the query one for executable mappings of files.
func (q *procmapQuery) code(fd int) (Mapping, unix.Errno) {
	q.flags |= procmapExecutable | procmapFileBacked
	errno := q.ask(fd)
	return Mapping{
		Start: q.start, End: q.end, Perm: "r-xp", Offset: q.offset, Inode: q.ino,
		Dev: fmt.Sprintf("%02x:%02x", q.major, q.minor),
	}, errno
}

// CodeMapping returns the executable mapping of a file that has the address in
// the process that tid belongs to. Its path may be missing.
func CodeMapping(tid int, address uint64) (Mapping, error) {
	fd, err := openMaps(tid)
	if err != nil {
		return Mapping{}, err
	}
	defer unix.Close(fd)
	q := procmapQuery{address: address}
	m, errno := q.code(fd)
	if errno == 0 {
		return m, nil
	}
	none := fmt.Errorf("find the code at %#x of process %d: %w", address, tid, unix.ENOENT)
	if errno == unix.ENOENT {
		return m, none
	}
	all, err := codeMaps(tid)
	if err != nil {
		return m, err
	}
	for _, m := range all {
		if address >= m.Start && address < m.End {
			return m, nil
		}
	}
	return m, none
}

// CodeMaps returns the executable mappings of files in the process that tid
// belongs to. Their paths may be missing.
func CodeMaps(tid int) ([]Mapping, error) {
	fd, err := openMaps(tid)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	var all []Mapping
	for q := (procmapQuery{}); ; q = (procmapQuery{address: q.end}) {
		q.flags = procmapNext
		m, errno := q.code(fd)
		switch errno {
		case 0:
			all = append(all, m)
		case unix.ENOENT:
			return all, nil
		default:
			return codeMaps(tid)
		}
	}
}

// codeMaps is CodeMaps on kernels without PROCMAP_QUERY.
func codeMaps(tid int) ([]Mapping, error) {
	all, err := Maps(tid)
	return slices.DeleteFunc(all, func(m Mapping) bool { return !m.Executable() || m.Inode == 0 }), err
}

// Writable reports whether the process that tid belongs to may write to the
// size bytes at address.
func Writable(tid int, address, size uint64) bool {
	all, err := Maps(tid)
	if err != nil || address+size < address {
		return false
	}
	for _, m := range all { // in order of their addresses
		if address >= m.Start && address < m.End && strings.Contains(m.Perm, "w") {
			if size <= m.End-address {
				return true
			}
			address, size = m.End, size-(m.End-address)
		}
	}
	return size == 0
}

// pathOf finds the path of a mapping that has none.
func pathOf(tid int, m *Mapping) string {
	if m.Path != "" {
		return m.Path
	}
	all, err := Maps(tid)
	if err != nil {
		return ""
	}
	for _, other := range all {
		if other.Start == m.Start {
			return other.Path
		}
	}
	return ""
}

// Leader reports whether tid is the first thread of its process: only then is
// there a thread tid in a process tid for tgkill(2) to check.
func Leader(tid int) bool {
	err := unix.Tgkill(tid, tid, 0)
	return err == nil || err == unix.EPERM
}

// OpenMapped opens the file behind a mapping of the process that tid belongs
// to, whatever mount namespace or root directory it lives in.
func OpenMapped(tid int, m *Mapping) (*os.File, error) {
	dir := "/proc/" + strconv.Itoa(tid)
	var err error
	for _, path := range []func() string{
		func() string { return fmt.Sprintf("%s/map_files/%x-%x", dir, m.Start, m.End) }, // needs CAP_CHECKPOINT_RESTORE
		func() string { return dir + "/exe" },
		func() string { return dir + "/root" + pathOf(tid, m) },
		func() string { return pathOf(tid, m) },
	} {
		path := path()
		var f *os.File
		if f, err = os.Open(path); err != nil {
			continue
		}
		if info, e := f.Stat(); e == nil && info.Sys().(*syscall.Stat_t).Ino == m.Inode {
			return f, nil
		}
		f.Close()
		err = fmt.Errorf("%s is another file than the one that is mapped", path)
	}
	return nil, fmt.Errorf("open the file of inode %d that process %d has mapped: %w", m.Inode, tid, err)
}

// VDSO returns where the kernel has put the vDSO of the process that tid
// belongs to: AT_SYSINFO_EHDR of its auxiliary vector.
func VDSO(tid int) (uint64, error) {
	var buf [1024]byte // two words each, of which there are some twenty
	b, err := readSmall(tid, "auxv", buf[:])
	if err != nil {
		return 0, err
	}
	const atSysinfoEhdr = 33
	for ; len(b) >= 16; b = b[16:] {
		if binary.LittleEndian.Uint64(b) == atSysinfoEhdr {
			return binary.LittleEndian.Uint64(b[8:]), nil
		}
	}
	return 0, fmt.Errorf("process %d has no vDSO", tid)
}

// VDSOCave returns the offset from the vDSO's start of at least size bytes
// that follow everything that is in it, in its last page: nothing reads or
// runs them. The vDSO is the same for all 64-bit processes of a kernel, so we
// look at our own.
func VDSOCave(size int) (uint64, error) {
	start, err := VDSO(os.Getpid())
	if err != nil {
		return 0, err
	}
	maps, err := Maps(os.Getpid())
	if err != nil {
		return 0, err
	}
	for _, m := range maps {
		if m.Start != start {
			continue
		}
		b := make([]byte, m.End-m.Start)
		if n := Peek(os.Getpid(), start, b); n < len(b) {
			return 0, errors.New("our own vDSO is unreadable")
		}
		const apart = 16 // stay clear of what only looks like the end
		used := len(bytes.TrimRight(b, "\x00")) + apart
		if cave := (len(b) - size) &^ 15; cave >= used {
			return uint64(cave), nil
		}
		return 0, fmt.Errorf("the vDSO's last page has no %d bytes left", size)
	}
	return 0, errors.New("our own vDSO is not in our mappings")
}

// Executable returns the path of the program that tid runs, as /proc/PID/exe
// shows it.
func Executable(tid int) (string, error) {
	path, err := os.Readlink("/proc/" + strconv.Itoa(tid) + "/exe")
	if err != nil {
		return "", fmt.Errorf("find the executable of process %d: %w", tid, err)
	}
	return path, nil
}

// Status is what /proc/PID/status tells that matters here.
type Status struct {
	TGID    int
	Tracer  int // 0: nobody traces it
	Blocked SigMask
}

// ReadStatus reads the status of thread tid.
func ReadStatus(tid int) (Status, error) {
	var buf [4096]byte
	b, err := readSmall(tid, "status", buf[:])
	if err != nil {
		return Status{}, err
	}
	var s Status
	for line := range strings.Lines(string(b)) {
		key, value, _ := strings.Cut(line, ":")
		value = strings.TrimSpace(value)
		switch key {
		case "Tgid":
			s.TGID, _ = strconv.Atoi(value)
		case "TracerPid":
			s.Tracer, _ = strconv.Atoi(value)
		case "SigBlk":
			blocked, _ := strconv.ParseUint(value, 16, 64)
			s.Blocked = SigMask(blocked)
		}
	}
	return s, nil
}

// Where returns the stack pointer and the program counter of thread tid, if it
// does not run (proc_pid_syscall(5)).
func Where(tid int) (sp, pc uint64, ok bool) {
	var buf [256]byte
	b, err := readSmall(tid, "syscall", buf[:])
	if err != nil {
		return 0, 0, false
	}
	fields := strings.Fields(string(b)) // "running", or a number, arguments, and these
	if len(fields) < 3 {
		return 0, 0, false
	}
	sp, errSP := strconv.ParseUint(fields[len(fields)-2], 0, 64)
	pc, errPC := strconv.ParseUint(fields[len(fields)-1], 0, 64)
	return sp, pc, errSP == nil && errPC == nil
}

// Alone reports whether no other thread can run in the address space of tid
// while tid is held: it is its process's only thread, and neither its parent
// (which vfork makes share it) nor a child does.
func Alone(tid int) bool {
	var buf [1024]byte
	b, err := readSmall(tid, "stat", buf[:])
	if err != nil {
		return false
	}
	parent, threads, ok := parseStat(b)
	if !ok || threads != 1 || parent > 0 && !differ(tid, parent) {
		return false
	}
	b, err = readSmall(tid, "task/"+strconv.Itoa(tid)+"/children", buf[:])
	if err != nil || len(b) == len(buf) {
		return false
	}
	for f := range bytes.FieldsSeq(b) {
		child, err := strconv.Atoi(string(f))
		if err != nil || !differ(tid, child) {
			return false
		}
	}
	return true
}

// OneThread reports whether tid is its process's only thread: a process's
// directory of threads has two links more than there are (proc_task_getattr in
// the kernel's fs/proc/base.c).
func OneThread(tid int) bool {
	const own = 2
	var st unix.Stat_t
	err := unix.Stat("/proc/"+strconv.Itoa(tid)+"/task", &st)
	return err == nil && st.Nlink == own+1
}

// parseStat finds the parent's process ID and the number of threads in what
// /proc/PID/stat says (proc_pid_stat(5)), which the kernel writes several
// times faster than /proc/PID/status.
func parseStat(b []byte) (parent, threads int, ok bool) {
	const ppid, numThreads = 1, 17 // fields after the name, which may contain anything
	fields := bytes.Fields(b[bytes.LastIndexByte(b, ')')+1:])
	if len(fields) <= numThreads {
		return 0, 0, false
	}
	parent, errParent := strconv.Atoi(string(fields[ppid]))
	threads, errThreads := strconv.Atoi(string(fields[numThreads]))
	return parent, threads, errParent == nil && errThreads == nil
}

// readSmall reads as much of a file in /proc/TID as fits into buf. Programs
// wait while we read such files, and [os.ReadFile] takes twice as long.
func readSmall(tid int, name string, buf []byte) ([]byte, error) {
	path := "/proc/" + strconv.Itoa(tid) + "/" + name
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	defer unix.Close(fd)
	n, err := unix.Read(fd, buf)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	return buf[:n], nil
}

// differ reports whether two processes have different address spaces. It says
// no where it cannot tell, except that a process which is gone has none.
func differ(a, b int) bool {
	const kcmpVM = 1
	r, _, errno := unix.Syscall6(unix.SYS_KCMP, uintptr(a), uintptr(b), kcmpVM, 0, 0, 0)
	return errno == unix.ESRCH || errno == 0 && r != 0
}

// Permitted returns an error if the kernel lets nobody but ancestors trace a
// process, and we have no privilege to: Yama's ptrace_scope
// (Documentation/admin-guide/LSM/Yama.rst).
func Permitted() error {
	scope, err := os.ReadFile("/proc/sys/kernel/yama/ptrace_scope")
	if err != nil {
		return nil // no Yama
	}
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return fmt.Errorf("read our own capabilities: %w", err)
	}
	return permitted(strings.TrimSpace(string(scope)), string(status))
}

func permitted(scope, status string) error {
	const capSysPtrace = 1 << 19
	_, after, _ := strings.Cut(status, "\nCapEff:")
	line, _, _ := strings.Cut(after, "\n")
	effective, err := strconv.ParseUint(strings.TrimSpace(line), 16, 64)
	switch {
	case scope == "0":
		return nil
	case scope == "3":
		return errors.New("kernel.yama.ptrace_scope=3 forbids ptrace until the next boot")
	case err == nil && effective&capSysPtrace != 0:
		return nil
	}
	return fmt.Errorf("kernel.yama.ptrace_scope=%s lets only root attach to programs that are not one's children: run as root, or say sysctl kernel.yama.ptrace_scope=0", scope)
}

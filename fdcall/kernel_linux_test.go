package fdcall

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// native is the ABI of this test. To test i386 on amd64: GOARCH=386 go test.
var native = map[string]ABI{"amd64": AMD64, "386": I386, "arm64": ARM64}[runtime.GOARCH]

// kernel is what a trial of one row may use: memory at fixed addresses, and
// descriptors that are closed at the end.
type kernel struct {
	*testing.T
	row  *Call
	page []byte
	used int
}

func newKernel(t *testing.T, c *Call) *kernel {
	t.Helper()
	page, err := unix.Mmap(-1, 0, 1<<16, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Munmap(page); err != nil {
			t.Error(err)
		}
	})
	return &kernel{T: t, row: c, page: page}
}

// room returns the address of n zero bytes.
func (k *kernel) room(n int) uint64 {
	at := k.used
	k.used += (n + 15) &^ 15
	clear(k.page[at:k.used])
	return uint64(uintptr(unsafe.Pointer(&k.page[0]))) + uint64(at)
}

// at returns the memory at an address that room gave, nil for other addresses.
func (k *kernel) at(address uint64) []byte {
	base := uint64(uintptr(unsafe.Pointer(&k.page[0])))
	if address < base || address >= base+uint64(len(k.page)) {
		return nil
	}
	return k.page[address-base:]
}

// put returns the address of a copy of b.
func (k *kernel) put(b []byte) uint64 {
	at := k.room(len(b))
	copy(k.at(at), b)
	return at
}

func (k *kernel) str(s string) uint64 { return k.put(append([]byte(s), 0)) }

func (k *kernel) words(w ...uint64) uint64 {
	var b []byte
	for _, w := range w {
		b = binary.NativeEndian.AppendUint64(b, w)
	}
	return k.put(b)
}

func (k *kernel) halves(w ...uint32) uint64 {
	var b []byte
	for _, w := range w {
		b = binary.NativeEndian.AppendUint32(b, w)
	}
	return k.put(b)
}

// object returns the address of a copy of v, a structure of golang.org/x/sys.
func object[T any](k *kernel, v T) uint64 {
	return k.put(unsafe.Slice((*byte)(unsafe.Pointer(&v)), unsafe.Sizeof(v)))
}

// fd checks a set-up step that gives a descriptor, and closes it at the end.
func (k *kernel) fd(fd int, err error) uint64 {
	k.Helper()
	if err != nil {
		k.lacks(err)
	}
	k.Cleanup(func() { unix.Close(fd) })
	return uint64(fd)
}

// must checks a set-up step.
func (k *kernel) must(err error) {
	k.Helper()
	if err != nil {
		k.lacks(err)
	}
}

// lacks ends the trial of a call that cannot succeed here. The call is still
// made, with arguments that it must refuse.
func (k *kernel) lacks(why error) {
	k.Helper()
	args := [6]uint64{^uint64(0), ^uint64(0), ^uint64(0), ^uint64(0), ^uint64(0), ^uint64(0)}
	for _, w := range k.row.When {
		if !w.Not && w.Mask == low32 && !k.row.Block {
			args[w.Arg] = w.Value
		}
	}
	k.refuses(args, why)
}

// refuses is lacks with the arguments to be refused.
func (k *kernel) refuses(args [6]uint64, why error) {
	k.Helper()
	_, err := k.call(k.row, args)
	if err == nil {
		k.Fatalf("%s accepts %#x", k.row.ID(), args)
	}
	k.Skipf("%s can only be seen to refuse (%v) here: %v", k.row.ID(), err, why)
}

// refusesElsewhere checks that an ioctl is refused on a file that has no such
// operation.
func (k *kernel) refusesElsewhere() {
	k.Helper()
	args := [6]uint64{k.open("/dev/null"), k.row.When[0].Value}
	if !k.row.Matches(&args) {
		k.Fatalf("%#x are not this row's arguments", args)
	}
	if _, err := k.call(k.row, args); !errors.Is(err, unix.ENOTTY) {
		k.Errorf("%s on /dev/null: %v, want ENOTTY", k.row.ID(), err)
	}
}

// call makes a system call. Those of socketcall get their arguments in memory.
func (k *kernel) call(c *Call, args [6]uint64) (uint64, error) {
	if c.Block {
		block := make([]uint32, 6)
		for i, a := range args {
			block[i] = uint32(a)
		}
		args = [6]uint64{c.When[0].Value, k.halves(block...)}
	}
	r, _, errno := unix.Syscall6(uintptr(c.Nr[native]), uintptr(args[0]), uintptr(args[1]), uintptr(args[2]),
		uintptr(args[3]), uintptr(args[4]), uintptr(args[5]))
	runtime.KeepAlive(k)
	if errno != 0 {
		return 0, errno
	}
	return uint64(r), nil
}

// planned makes the system call that a plan says.
func (k *kernel) planned(p Plan, args [6]uint64) (uint64, error) {
	var final [6]uint64
	for i, o := range p.Args {
		final[i] = o.Apply(&args)
	}
	if p.FlagWord != 0 {
		// Where there is no structure to copy, the kernel says why.
		at, size := p.To.FlagsArg, args[p.To.FlagsArg+1]
		if how := k.at(args[at]); how != nil && size >= 8 && size < 4096 {
			final[at] = k.put(how[:size])
			how = k.at(final[at])
			binary.NativeEndian.PutUint64(how, binary.NativeEndian.Uint64(how)|uint64(p.FlagWord))
		}
	}
	return k.call(p.To, final)
}

// descriptors returns what a call gave.
func (k *kernel) descriptors(c *Call, args [6]uint64, result uint64) []int {
	k.Helper()
	var fds []int
	switch c.Gives {
	case Ret, Exact:
		fds = append(fds, int(result))
	case Pair:
		pair := k.at(args[c.GivesArg])
		fds = append(fds, int(binary.NativeEndian.Uint32(pair)), int(binary.NativeEndian.Uint32(pair[4:])))
	case Memory:
		place := k.at(args[c.GivesArg])
		if c.Op == "KVM_CREATE_DEVICE" {
			place = place[4:]
		}
		if c.Name == "clone3" {
			place = k.at(binary.NativeEndian.Uint64(place[8:]))
		}
		fds = append(fds, int(binary.NativeEndian.Uint32(place)))
	case Control, Controls: // the first header of a vector will do: the test sends one message
		h := (*unix.Msghdr)(unsafe.Pointer(&k.at(args[c.GivesArg])[0]))
		control := unsafe.Slice(h.Control, h.Controllen)
		messages, err := unix.ParseSocketControlMessage(control)
		if err != nil {
			k.Fatal(err)
		}
		for i := range messages {
			got, err := unix.ParseUnixRights(&messages[i])
			if err != nil {
				k.Fatal(err)
			}
			fds = append(fds, got...)
		}
	}
	for _, fd := range fds {
		k.Cleanup(func() { unix.Close(fd) })
	}
	if len(fds) == 0 {
		k.Fatal("no descriptor")
	}
	return fds
}

// check fails unless every descriptor has exactly the given properties.
func (k *kernel) check(fds []int, want Want, what string) {
	k.Helper()
	for _, fd := range fds {
		flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
		if err != nil {
			k.Fatalf("%s: descriptor %d: %v", what, fd, err)
		}
		status, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
		if err != nil {
			k.Fatalf("%s: descriptor %d: %v", what, fd, err)
		}
		var got Want
		if flags&unix.FD_CLOEXEC != 0 {
			got |= Cloexec
		}
		if status&unix.O_NONBLOCK != 0 {
			got |= Nonblock
		}
		if got != want {
			k.Errorf("%s: descriptor %d has %v, want %v", what, fd, got.words(), want.words())
		}
	}
}

// Every call of the table is made, plainly and with flags. See trials for the arguments.
func TestKernelAgrees(t *testing.T) {
	table := Linux()
	for i := range table.All() {
		c := &table.All()[i]
		if c.Nr[native] == None {
			continue
		}
		t.Run(c.ID(), func(t *testing.T) {
			trial, ok := trials[c.ID()]
			if !ok {
				t.Fatal("the row has no trial")
			}
			k := newKernel(t, c)
			if _, err := os.Stat(trial.device); trial.device != "" && errors.Is(err, fs.ErrNotExist) {
				k.refusesElsewhere()
				t.Logf("%v", err)
				return
			}
			born := Want(0)
			if c.Class == Always {
				born = Cloexec
			}
			args := trial.args(k)
			matched := args
			if c.Block {
				matched = [6]uint64{c.When[0].Value}
			}
			if !c.Matches(&matched) {
				t.Fatalf("the trial's arguments %#x are not this row's", args)
			}
			call := k.call
			if trial.fork {
				call = k.fork
			}
			result, err := call(c, args)
			switch {
			case trial.refused != 0 && errors.Is(err, trial.refused):
				return
			case errors.Is(err, unix.ENOSYS) || err != nil && older(running(t), c.Since):
				t.Skipf("this kernel has no %s, which came with Linux %s: %v", c.ID(), c.Since, err)
			case errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES):
				t.Skipf("%s is forbidden here: %v", c.ID(), err)
			case err != nil:
				t.Fatalf("%#x: %v", args, err)
			}
			k.check(k.descriptors(c, args, result), born, "without flags")

			for _, w := range []Want{Cloexec, Nonblock, Cloexec | Nonblock} {
				// The flags that a program would pass itself.
				if flags, missing := c.Carries(w); missing == 0 && c.FlagsArg != NoFlags && !c.Indirect {
					args := trial.args(k)
					args[c.FlagsArg] |= uint64(flags)
					result, err := k.call(c, args)
					if err != nil {
						t.Fatalf("with flags %#x: %v", flags, err)
					}
					k.check(k.descriptors(c, args, result), w|born, "with flags")
				}
				p, ok := table.Plan(c, w)
				if !ok {
					continue
				}
				args := trial.args(k)
				result, err := k.planned(p, args)
				if err != nil {
					t.Fatalf("planned for %v: %v", w.words(), err)
				}
				k.check(k.descriptors(c, args, result), c.Applicable(w)&^p.After|born, fmt.Sprintf("planned for %v", w.words()))
			}
		})
	}
	for id := range trials {
		if table.ByID(id) == nil {
			t.Errorf("a trial of %q, which is not in the table", id)
		}
	}
}

// A planned call fails as the plain call would have failed, with good
// arguments but for one.
func TestPlannedCallsFailAlike(t *testing.T) {
	table := Linux()
	bad := []uint64{^uint64(0), 0, 1, 2, 0x10, 1 << 20, 1 << 30, 0x7fffffff, 1 << 31}
	for i := range table.All() {
		c := &table.All()[i]
		p, ok := table.Plan(c, Cloexec)
		if c.Nr[native] == None || !ok || p.After&Cloexec != 0 {
			continue
		}
		t.Run(c.ID(), func(t *testing.T) {
			trials[c.ID()].args(newKernel(t, c)) // skips what cannot be tried here
			failed := 0
			for arg := range trials[c.ID()].count {
				for _, b := range bad {
					outcome := func(call func(*kernel, [6]uint64) (uint64, error)) error {
						var err error
						t.Run(fmt.Sprintf("%d=%#x", arg, b), func(t *testing.T) {
							k := newKernel(t, c)
							args := trials[c.ID()].args(k)
							args[arg] = b
							if !c.Block && !c.Matches(&args) {
								err = errNotThisRow
								return
							}
							var result uint64
							if result, err = call(k, args); err != nil {
								return
							}
							switch c.Gives {
							case Ret:
								unix.Close(int(result))
							case Pair:
								if pair := k.at(args[c.GivesArg]); pair != nil {
									k.descriptors(c, args, result)
								}
							}
						})
						return err
					}
					plain := outcome(func(k *kernel, args [6]uint64) (uint64, error) { return k.call(c, args) })
					planned := outcome(func(k *kernel, args [6]uint64) (uint64, error) { return k.planned(p, args) })
					if plain != planned {
						t.Errorf("argument %d = %#x: plainly %v, planned %v", arg, b, plain, planned)
					}
					if plain != nil && plain != errNotThisRow {
						failed++
					}
				}
			}
			if failed == 0 && trials[c.ID()].count > 1 {
				t.Error("no argument made the call fail")
			}
		})
	}
}

var errNotThisRow = errors.New("the arguments are those of another row")

// fork makes a call whose child ends at once.
//
//go:norace
func (k *kernel) fork(c *Call, args [6]uint64) (uint64, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	pid, _, errno := syscall.RawSyscall6(uintptr(c.Nr[native]), uintptr(args[0]), uintptr(args[1]), uintptr(args[2]),
		uintptr(args[3]), uintptr(args[4]), uintptr(args[5]))
	if errno != 0 {
		return 0, errno
	}
	if pid == 0 {
		for {
			syscall.RawSyscall(unix.SYS_EXIT_GROUP, 0, 0, 0)
		}
	}
	_, err := unix.Wait4(int(pid), nil, 0, nil)
	return uint64(pid), err
}

// running returns the version of this kernel.
func running(t *testing.T) Version {
	t.Helper()
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		t.Fatal(err)
	}
	var v Version
	// A patch number above 255, of a long-term kernel, does not matter here.
	if _, err := fmt.Sscanf(unix.ByteSliceToString(name.Release[:]), "%d.%d", &v.Major, &v.Minor); err != nil {
		t.Fatal(err)
	}
	return v
}

// asRoot ends a trial that needs privileges.
func (k *kernel) asRoot() {
	k.Helper()
	if os.Geteuid() != 0 {
		k.lacks(errors.New("needs root"))
	}
}

// file returns the name of a new file.
func (k *kernel) file() string {
	k.Helper()
	name := filepath.Join(k.TempDir(), "file")
	if err := os.WriteFile(name, []byte("x"), 0o600); err != nil {
		k.Fatal(err)
	}
	return name
}

// sleeper starts a process in namespaces of its own and returns its directory in /proc.
func (k *kernel) sleeper(namespaces uintptr) string {
	k.Helper()
	cmd := exec.Command("sleep", "60")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: namespaces, Pdeathsig: syscall.SIGKILL}
	k.must(cmd.Start())
	k.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	return fmt.Sprintf("/proc/%d", cmd.Process.Pid)
}

func (k *kernel) open(name string) uint64 {
	k.Helper()
	return k.fd(unix.Open(name, unix.O_RDWR|unix.O_CLOEXEC, 0))
}

func (k *kernel) openRead(name string) uint64 {
	k.Helper()
	return k.fd(unix.Open(name, unix.O_RDONLY|unix.O_CLOEXEC, 0))
}

func (k *kernel) pair() (uint64, uint64) {
	k.Helper()
	p, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		k.Fatal(err)
	}
	return k.fd(p[0], nil), k.fd(p[1], nil)
}

// listener returns a socket at which a connection waits.
func (k *kernel) listener() uint64 {
	k.Helper()
	l := k.fd(unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0))
	k.must(unix.Bind(int(l), &unix.SockaddrUnix{})) // an abstract name of the kernel's choice
	k.must(unix.Listen(int(l), 1))
	name, err := unix.Getsockname(int(l))
	k.must(err)
	c := k.fd(unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0))
	k.must(unix.Connect(int(c), name))
	return l
}

// message returns a socket at which a message with two descriptors waits, and
// a vector of one header to receive it.
func (k *kernel) message() (uint64, uint64) {
	k.Helper()
	from, to := k.pair()
	sent := int(k.open("/dev/null"))
	k.must(unix.Sendmsg(int(from), []byte{1}, unix.UnixRights(sent, sent), nil, 0))
	iov := unix.Iovec{Base: &k.at(k.room(1))[0]}
	iov.SetLen(1)
	h := unix.Msghdr{Iov: (*unix.Iovec)(unsafe.Pointer(&k.at(object(k, iov))[0])), Control: &k.at(k.room(64))[0]}
	h.SetIovlen(1)
	h.SetControllen(64)
	vector := k.room(int(unsafe.Sizeof(h)) + 8) // struct mmsghdr: the header and a count
	*(*unix.Msghdr)(unsafe.Pointer(&k.at(vector)[0])) = h
	return to, vector
}

// trial says how to make a row's call so that it succeeds.
type trial struct {
	args    func(*kernel) [6]uint64 // without flags
	count   int                     // how many arguments the call has
	fork    bool
	refused unix.Errno // what the kernel says at best, if the call cannot succeed in a test
	// device is what a machine may lack, and nobody can install: without it the
	// kernel is only seen to refuse the operation on another file.
	device string
}

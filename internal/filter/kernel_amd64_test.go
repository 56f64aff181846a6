package filter

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/seed-055cd0c8/indirect/fdcall"
	"github.com/seed-055cd0c8/indirect/internal/guest"
)

// underFilter is set in the environment of the process that tries a filter on itself.
const underFilter = "INDIRECT_TEST_UNDER_FILTER"

// trapped is the error that the filter under test gives instead of a
// notification. No call fails with it.
const trapped = unix.Errno(4000)

// answering returns the program with an error in the place of each notification.
func answering(program []unix.SockFilter, errno unix.Errno) []unix.SockFilter {
	program = slices.Clone(program)
	for i := range program {
		if program[i].Code == unix.BPF_RET|unix.BPF_K && program[i].K == unix.SECCOMP_RET_USER_NOTIF {
			program[i].K = unix.SECCOMP_RET_ERRNO | uint32(errno)
		}
	}
	return program
}

// install puts the calling thread, which must be locked, under the program for ever.
func install(program []unix.SockFilter) error {
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("set no_new_privs: %w", err)
	}
	prog := unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]}
	_, _, errno := unix.RawSyscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, 0, uintptr(unsafe.Pointer(&prog)))
	runtime.KeepAlive(program)
	if errno != 0 {
		return fmt.Errorf("install a filter of %d instructions: %w", len(program), errno)
	}
	return nil
}

// gate makes calls by the instructions and from the addresses that a Go
// program has not: the i386 entry, and a stub.
type gate struct {
	page []byte // code at 0 and i386At, memory for arguments from memoryAt on
	used int
}

const (
	i386At   = 64
	memoryAt = 2048
	gateSize = 4096
)

// newGate maps the gate below 2 GiB, where i386 can point to it.
func newGate() (*gate, error) {
	page, err := unix.Mmap(-1, 0, gateSize, unix.PROT_READ|unix.PROT_WRITE|unix.PROT_EXEC, unix.MAP_ANON|unix.MAP_PRIVATE|unix.MAP_32BIT)
	if err != nil {
		return nil, fmt.Errorf("map code: %w", err)
	}
	// Go's register convention passes the pointer to the words in rax, keeps g
	// in r14 and wants rsp and rbp back; system calls change rax, rcx and r11,
	// and int 0x80 may clear r8 to r11 on old kernels.
	copy(page, []byte{
		0x53,             // push %rbx
		0x48, 0x89, 0xc3, // mov %rax,%rbx
		0x48, 0x8b, 0x7b, 0x08, // mov 8(%rbx),%rdi
		0x48, 0x8b, 0x73, 0x10, // mov 16(%rbx),%rsi
		0x48, 0x8b, 0x53, 0x18, // mov 24(%rbx),%rdx
		0x4c, 0x8b, 0x53, 0x20, // mov 32(%rbx),%r10
		0x4c, 0x8b, 0x43, 0x28, // mov 40(%rbx),%r8
		0x4c, 0x8b, 0x4b, 0x30, // mov 48(%rbx),%r9
		0x48, 0x8b, 0x03, // mov (%rbx),%rax
		0x0f, 0x05, // syscall
		0x48, 0x89, 0x03, // mov %rax,(%rbx)
		0x5b, // pop %rbx
		0xc3, // ret
	})
	copy(page[i386At:], []byte{
		0x53,             // push %rbx
		0x55,             // push %rbp
		0x50,             // push %rax
		0x8b, 0x58, 0x08, // mov 8(%rax),%ebx
		0x8b, 0x48, 0x10, // mov 16(%rax),%ecx
		0x8b, 0x50, 0x18, // mov 24(%rax),%edx
		0x8b, 0x70, 0x20, // mov 32(%rax),%esi
		0x8b, 0x78, 0x28, // mov 40(%rax),%edi
		0x8b, 0x68, 0x30, // mov 48(%rax),%ebp
		0x8b, 0x00, // mov (%rax),%eax
		0xcd, 0x80, // int $0x80
		0x59,             // pop %rcx
		0x48, 0x63, 0xc0, // movslq %eax,%rax
		0x48, 0x89, 0x01, // mov %rax,(%rcx)
		0x5d, // pop %rbp
		0x5b, // pop %rbx
		0xc3, // ret
	})
	return &gate{page: page}, nil
}

func (g *gate) address(offset int) uint64 {
	return uint64(uintptr(unsafe.Pointer(&g.page[offset])))
}

// stub is the range of the gate's native code.
func (g *gate) stub() Range { return Range{Lo: g.address(0), Hi: g.address(i386At)} }

// memory returns the address of the given words, below 2 GiB.
func (g *gate) memory(words ...uint32) uint64 {
	at := memoryAt + g.used
	for _, w := range words {
		binary.LittleEndian.PutUint32(g.page[memoryAt+g.used:], w)
		g.used += 4
	}
	return g.address(at)
}

// call makes a call by the code at offset.
func (g *gate) call(offset int, nr uint64, args [6]uint64) (int64, unix.Errno) {
	words := [7]uint64{nr, args[0], args[1], args[2], args[3], args[4], args[5]}
	code := g.address(offset)
	closure := &code // a Go function value points to its code's address
	(*(*func(*[7]uint64))(unsafe.Pointer(&closure)))(&words)
	if result := int64(words[0]); result < 0 && result >= -4095 {
		return -1, unix.Errno(-result)
	}
	return int64(words[0]), 0
}

// entries are the ways into the kernel.
type entry struct {
	name string
	a    abi
	stub bool
	make func(g *gate, nr uint64, args [6]uint64) (int64, unix.Errno)
}

func entries(i386Too bool) []entry {
	amd64, x32, i386 := abis["amd64"][0], abis["amd64"][1], abis["amd64"][2]
	elsewhere := func(_ *gate, nr uint64, a [6]uint64) (int64, unix.Errno) {
		r, _, errno := unix.RawSyscall6(uintptr(nr), uintptr(a[0]), uintptr(a[1]), uintptr(a[2]), uintptr(a[3]), uintptr(a[4]), uintptr(a[5]))
		return int64(r), errno
	}
	inStub := func(g *gate, nr uint64, a [6]uint64) (int64, unix.Errno) { return g.call(0, nr, a) }
	all := []entry{
		{"amd64", amd64, false, elsewhere},
		{"amd64 in the stub", amd64, true, inStub},
		{"x32", x32, false, elsewhere},
		{"x32 in the stub", x32, true, inStub},
	}
	if i386Too {
		all = append(all, entry{"i386", i386, false, func(g *gate, nr uint64, a [6]uint64) (int64, unix.Errno) { return g.call(i386At, nr, a) }})
	}
	return all
}

// TestMain lets the tests be a machine's only program.
func TestMain(m *testing.M) {
	guest.Main()
	os.Exit(m.Run())
}

// TestInOtherKernel is TestInTheKernel on Linux 6.1, which has all entries.
func TestInOtherKernel(t *testing.T) {
	if guest.Inside() {
		return
	}
	t.Parallel()
	kernel, err := guest.Kernel("6.1")
	if errors.Is(err, guest.ErrMissing) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	m, err := guest.Tests(t.Context(), kernel, t.TempDir(), "^TestInTheKernel$")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	console, status, err := m.Run(ctx)
	if err != nil || status != 0 || !strings.Contains(console, "with i386") {
		t.Errorf("status %d, %v\n%s", status, err, console)
	}
}

// TestInTheKernel installs the program in a process of its own, for each set
// of wanted properties, and makes calls by every way into the kernel.
func TestInTheKernel(t *testing.T) {
	if os.Getenv(underFilter) != "" {
		runtime.LockOSThread() // and never unlock: the thread is under the filter
		for _, want := range wants {
			if os.Getenv(underFilter) == fmt.Sprint(want) {
				tryInTheKernel(t, want)
			}
		}
		return
	}
	for _, want := range wants {
		t.Run(fmt.Sprintf("want %03b", want), func(t *testing.T) {
			t.Parallel()
			child := exec.Command(os.Args[0], "-test.run=^TestInTheKernel$", "-test.v")
			child.Env = append(os.Environ(), fmt.Sprintf("%s=%d", underFilter, want))
			out, err := child.CombinedOutput()
			if err != nil || !strings.Contains(string(out), "calls made") {
				t.Errorf("%v\n%s", err, out)
			}
			t.Logf("%s", out)
		})
	}
}

func tryInTheKernel(t *testing.T, want fdcall.Want) {
	g, err := newGate()
	if err != nil {
		t.Fatal(err)
	}
	hasI386, err := guest.RunsI386()
	if err != nil {
		t.Fatal(err)
	}
	entries := entries(hasI386)
	r := rules(want)
	r.Stub = g.stub()
	m := compiled(t, "amd64", r)
	if err := install(answering(m.program, trapped)); err != nil {
		t.Fatal(err)
	}
	made := 0
	try := func(e entry, c call) {
		t.Helper()
		c.audit = e.a.audit
		if e.stub {
			c.ip = r.Stub.Lo
		}
		result, errno := e.make(g, uint64(c.nr), c.args)
		made++
		if result > 2 && errno == 0 {
			_ = unix.Close(int(result))
		}
		if want := oracle("amd64", r, c) == notify; want != (errno == trapped) {
			t.Errorf("%s: call %#x with %#x: result %d, error %v (%d), to be trapped: %v", e.name, c.nr, c.args, result, errno, errno, want)
		}
	}
	// What is to be trapped does nothing, so that every row can be tried.
	for _, e := range entries {
		for i := range r.Table.All() {
			row := &r.Table.All()[i]
			if row.Nr[e.a.ABI] == fdcall.None {
				continue
			}
			for _, fill := range []uint64{0, 1<<64 - 1} {
				c := call{nr: uint32(row.Nr[e.a.ABI]), args: meeting(row, fill)}
				if e.a.ABI == fdcall.I386 {
					for i := range c.args {
						c.args[i] &= low32
					}
				}
				shown := c
				shown.audit = e.a.audit
				if e.stub {
					shown.ip = r.Stub.Lo
				}
				if oracle("amd64", r, shown) == notify {
					try(e, c)
				}
			}
		}
	}
	// And calls that are harmless if let through.
	path := g.memory(binary.LittleEndian.Uint32([]byte("/\x00\x00\x00")))
	pair := g.memory(0, 0)
	how := g.memory(0, 0, 0, 0, 0, 0)
	socket := g.memory(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	const bits = unix.O_CLOEXEC | unix.O_NONBLOCK
	bad := ^uint64(0)
	for _, flags := range []uint64{0, unix.O_CLOEXEC, unix.O_NONBLOCK, bits} {
		for _, e := range entries {
			type numbers struct{ open, openat, openat2, pipe2, socket, fcntl, dup3, recvmsg, added uint32 }
			n := numbers{2, 257, 437, 293, 41, 72, 292, 47, 2007}
			switch e.a.ABI {
			case fdcall.X32:
				n = numbers{2 | x32Bit, 257 | x32Bit, 437 | x32Bit, 293 | x32Bit, 41 | x32Bit, 72 | x32Bit, 292 | x32Bit, 519 | x32Bit, 2007 | x32Bit}
			case fdcall.I386:
				n = numbers{5, 295, 437, 331, 359, 55, 330, 372, 2007}
				try(e, call{nr: 102, args: [6]uint64{1, socket}})
				try(e, call{nr: 102, args: [6]uint64{2, socket}})
			}
			try(e, call{nr: n.open, args: [6]uint64{path, flags}})
			try(e, call{nr: n.openat, args: [6]uint64{bad & low32, path, flags}})
			try(e, call{nr: n.openat2, args: [6]uint64{bad & low32, path, how, 24}})
			try(e, call{nr: n.pipe2, args: [6]uint64{pair, flags}})
			try(e, call{nr: n.socket, args: [6]uint64{unix.AF_UNIX, unix.SOCK_STREAM | flags}})
			try(e, call{nr: n.fcntl, args: [6]uint64{1, unix.F_DUPFD, 100}})
			try(e, call{nr: n.fcntl, args: [6]uint64{1, unix.F_DUPFD_CLOEXEC, 100}})
			try(e, call{nr: n.fcntl, args: [6]uint64{bad & low32, unix.F_GETFD}})
			try(e, call{nr: n.dup3, args: [6]uint64{1, 100, flags & unix.O_CLOEXEC}})
			try(e, call{nr: n.recvmsg, args: [6]uint64{bad & low32, 0, unix.MSG_CMSG_CLOEXEC}})
			try(e, call{nr: n.added})
		}
	}
	for _, e := range entries[:2] { // signal 0 to nobody, and the C libraries' own to nobody
		for _, signal := range []uint64{0, 32, 33} {
			try(e, call{nr: unix.SYS_TGKILL, args: [6]uint64{bad & low32, bad & low32, signal}})
			try(e, call{nr: unix.SYS_TKILL, args: [6]uint64{bad & low32, signal}})
		}
	}
	with := ""
	if hasI386 {
		with = " with i386"
	}
	t.Logf("%d calls made%s", made, with)
}

// BenchmarkCall compares a call under the filter with the same call without,
// each made by a thread of its own, in turns.
func BenchmarkCall(b *testing.B) {
	for _, bench := range []struct {
		name string
		nr   uintptr
		args [3]uintptr
	}{
		{"getppid, which the table has not", unix.SYS_GETPPID, [3]uintptr{}},
		{"fcntl F_GETFD, another operation", unix.SYS_FCNTL, [3]uintptr{0, unix.F_GETFD}},
		{"dup3 EINVAL, never flagged", unix.SYS_DUP3, [3]uintptr{0, 0, unix.O_CLOEXEC}},
		{"pipe2 EFAULT, flagged", unix.SYS_PIPE2, [3]uintptr{0, unix.O_CLOEXEC}},
		{"recvmsg EBADF, flagged", unix.SYS_RECVMSG, [3]uintptr{1<<32 - 1, 0, unix.MSG_CMSG_CLOEXEC}},
	} {
		b.Run(bench.name, func(b *testing.B) {
			calls := func(n int) time.Duration {
				start := time.Now()
				for range n {
					_, _, _ = unix.RawSyscall(bench.nr, bench.args[0], bench.args[1], bench.args[2])
				}
				return time.Since(start)
			}
			program := compiled(b, "amd64", rules(fdcall.Cloexec)).program
			bare, filtered := worker(b, calls, nil), worker(b, calls, program)
			defer close(bare.rounds)
			defer close(filtered.rounds)
			const round = 1000
			var without, with []time.Duration
			for b.Loop() {
				bare.rounds <- round
				without = append(without, <-bare.took)
				filtered.rounds <- round
				with = append(with, <-filtered.took)
			}
			slices.Sort(without)
			slices.Sort(with)
			bareTime, filteredTime := without[len(without)/2], with[len(with)/2]
			b.ReportMetric(float64(bareTime)/round, "ns/bare")
			b.ReportMetric(float64(filteredTime)/round, "ns/filtered")
			b.ReportMetric(float64(filteredTime)/float64(bareTime), "ratio")
			b.ReportMetric(0, "ns/op")
		})
	}
}

type rounds struct {
	rounds chan int
	took   chan time.Duration
}

// worker makes rounds of calls on a thread that is under the program, if there
// is one, and ends with it.
func worker(b *testing.B, calls func(n int) time.Duration, program []unix.SockFilter) rounds {
	w := rounds{make(chan int), make(chan time.Duration)}
	go func() {
		runtime.LockOSThread() // not unlocked: the thread ends with the goroutine
		if program != nil {
			if err := install(answering(program, trapped)); err != nil {
				b.Error(err)
			}
		}
		for n := range w.rounds {
			w.took <- calls(n)
		}
	}()
	return w
}

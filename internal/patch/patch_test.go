package patch

import (
	"bytes"
	"encoding/binary"
	"errors"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

const program = `
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>
#ifdef THREADS
#include <pthread.h>
static void *wait_for_ever(void *fd) { char c; read(*(int *)fd, &c, 1); return 0; }
#endif
int main(int argc, char **argv) {
	int p[2];
	printf("%d %d\n", pipe(p), open("/dev/null", O_RDONLY));
	printf("%d %d %d\n", dup(p[0]), socket(AF_UNIX, SOCK_STREAM, 0), openat(AT_FDCWD, "/", O_RDONLY));
	printf("%d\n", fcntl(p[0], F_DUPFD, 20));
	printf("%d\n", accept(p[0], 0, 0));
	FILE *f = fopen("/proc/self/cmdline", "r");
	printf("%d\n", f ? fileno(f) : -1);
	fflush(stdout);
	pid_t pid = fork();
	if (pid == 0) _exit(7);
	int status;
	printf("%d", waitpid(pid, &status, 0) == pid);
	printf(" %d\n", WEXITSTATUS(status));
#ifdef THREADS
	pthread_t t;
	void *result;
	printf("%d", pthread_create(&t, 0, wait_for_ever, &p[0]));
	if (argc > 1) pthread_cancel(t);
	else write(p[1], "x", 1);
	printf(" %d\n", pthread_join(t, &result));
#endif
	return 0;
}
`

// build compiles the test program.
func build(t testing.TB, compiler string, flags ...string) string {
	t.Helper()
	if _, err := exec.LookPath(compiler); err != nil {
		t.Skipf("%s is needed: %v", compiler, err)
	}
	dir := t.TempDir()
	source, out := filepath.Join(dir, "p.c"), filepath.Join(dir, "p")
	if err := os.WriteFile(source, []byte(program), 0o666); err != nil {
		t.Fatal(err)
	}
	if b, err := exec.Command(compiler, append(flags, "-w", "-o", out, source)...).CombinedOutput(); err != nil {
		t.Fatalf("%s %v: %v\n%s", compiler, flags, err, b)
	}
	return out
}

// buildGo compiles a Go program that makes system calls by itself.
func buildGo(t testing.TB, flags ...string) string {
	t.Helper()
	dir := t.TempDir()
	source, out := filepath.Join(dir, "p.go"), filepath.Join(dir, "p")
	if err := os.WriteFile(source, []byte("package main\n\nimport \"os\"\n\nfunc main() { os.Stdout.WriteString(\"x\\n\") }\n"), 0o666); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("go", append(append([]string{"build"}, flags...), "-o", out, source)...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOARCH=amd64", "GOOS=linux")
	if b, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, b)
	}
	return out
}

func present(t testing.TB, path string) string {
	t.Helper()
	if _, err := os.Stat(path); err != nil {
		t.Skipf("not on this machine: %v", err)
	}
	return path
}

// subjects are the files that tests plan, and the share of their call sites
// that must have a route, in percent.
var subjects = []struct {
	name  string
	path  func(testing.TB) string
	least int
}{
	{"glibc", func(t testing.TB) string { return present(t, "/lib/x86_64-linux-gnu/libc.so.6") }, 80},
	{"ld.so", func(t testing.TB) string { return present(t, "/lib64/ld-linux-x86-64.so.2") }, 80},
	{"glibc static", func(t testing.TB) string { return build(t, "gcc", "-static") }, 75},
	{"glibc static stripped", func(t testing.TB) string { return build(t, "gcc", "-static", "-s") }, 75},
	{"glibc static threads", func(t testing.TB) string { return build(t, "gcc", "-static", "-DTHREADS") }, 75},
	{"musl", func(t testing.TB) string { return present(t, "/lib/x86_64-linux-musl/libc.so") }, 60},
	{"musl static", func(t testing.TB) string { return build(t, "musl-gcc", "-static", "-Os") }, 60},
	{"musl static threads", func(t testing.TB) string { return build(t, "musl-gcc", "-static", "-Os", "-DTHREADS") }, 60},
	{"musl static stripped", func(t testing.TB) string { return build(t, "musl-gcc", "-static", "-Os", "-s") }, 5},
	{"musl static stripped threads", func(t testing.TB) string { return build(t, "musl-gcc", "-static", "-Os", "-s", "-DTHREADS") }, 5},
	{"go", func(t testing.TB) string { return buildGo(t) }, 50},
}

func open(t testing.TB, path string) (*File, []byte) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	f, err := Open(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		t.Fatal(err)
	}
	return f, b
}

func TestRoutes(t *testing.T) {
	for _, subject := range subjects {
		t.Run(subject.name, func(t *testing.T) {
			path := subject.path(t)
			f, file := open(t, path)
			checkRoutes(t, f, file)
			again, _ := open(t, path)
			if diff := cmp.Diff(f.routes, again.routes); diff != "" {
				t.Errorf("two plans of one file differ:\n%s", diff)
			}
			calls, routed, atomic, inFront := 0, 0, 0, 0
			kinds := make(map[Kind]int)
			for _, l := range disassemble(t, path) {
				if l.text != "syscall" {
					continue
				}
				calls++
				r, err := f.Route(l.address)
				if err != nil {
					if !errors.Is(err, ErrNoRoute) {
						t.Error(err)
					}
					continue
				}
				routed++
				kinds[r.Kind]++
				if _, err := f.RouteInFront(l.address); !slices.ContainsFunc(r.Writes, func(w Write) bool { return w.Live && !w.Atomic }) {
					atomic++
				} else if err == nil {
					inFront++
				}
			}
			t.Logf("%d of %d call sites have a route, %d+%d of them while other threads run: %v", routed, calls, atomic, inFront, kinds)
			if routed*100 < calls*subject.least || calls == 0 {
				t.Errorf("%d of %d call sites have a route, want %d%%", routed, calls, subject.least)
			}
		})
	}
}

// Shells call fcntl(F_DUPFD) for every redirection, and all programs openat:
// those with threads too.
func TestGlibcSitesHaveRoutes(t *testing.T) {
	f, file := open(t, present(t, "/lib/x86_64-linux-gnu/libc.so.6"))
	for _, call := range []struct {
		name         string
		nr           uint32
		whileThreads bool // other threads run
	}{
		{"fcntl", unix.SYS_FCNTL, false},
		{"openat", unix.SYS_OPENAT, true},
	} {
		t.Run(call.name, func(t *testing.T) {
			code := append(binary.LittleEndian.AppendUint32([]byte{0xb8}, call.nr), syscallCode...) // mov $nr, %eax; syscall
			found := 0
			for at := 0; ; at++ {
				n := bytes.Index(file[at:], code)
				if n < 0 {
					break
				}
				at += n
				site, ok := f.Address(uint64(at + 5))
				if !ok {
					continue
				}
				found++
				r, err := f.Route(site)
				if err == nil && call.whileThreads && slices.ContainsFunc(r.Writes, func(w Write) bool { return w.Live && !w.Atomic }) {
					_, err = f.RouteInFront(site)
				}
				if err != nil {
					t.Error(err)
				}
			}
			if found == 0 {
				t.Error("no call found")
			}
		})
	}
}

// memory is a process's, in which routes are applied.
type memory []segment

// newMemory is what f, the plan of file, is applied to.
func newMemory(f *File, file []byte) memory {
	m := slices.Clone(f.segments)
	for i := range m {
		s := &m[i]
		s.code = slices.Concat(file[s.offset:][:s.filesz], s.tail)
	}
	return m
}

// at returns the memory from an address on, nil where there is none.
func (m memory) at(address uint64) []byte {
	for _, s := range m {
		if at := address - s.vaddr; at < uint64(len(s.code)) {
			return s.code[at:]
		}
	}
	return nil
}

func (m memory) read(at uint64, n int) []byte {
	b := make([]byte, n)
	copy(b, m.at(at))
	return b
}

// thunkAfter follows jumps from an address to a trampoline. It returns the
// thunk that it leads to, and the instructions between the jumps.
func (m memory) thunkAfter(at uint64) (thunk uint32, executed []byte, ok bool) {
	for range 20 {
		code := m.read(at, maxInstruction)
		in, ok := decode(code, at)
		switch {
		case !ok, bytes.HasPrefix(code, syscallCode):
			return 0, nil, false
		case in.flow == jump:
			at = in.target
		case code[0] == 0xb9 && code[5] == 0xff && code[6] == 0xe1:
			return binary.LittleEndian.Uint32(code[1:]), executed, true
		default:
			executed = append(executed, code[:in.size]...)
			at += uint64(in.size)
		}
	}
	return 0, nil, false
}

// checkRoutes applies all routes of a plan to one copy of its file's code.
func checkRoutes(t testing.TB, f *File, file []byte) {
	t.Helper()
	m := newMemory(f, file)
	written := make(map[uint64]uint64) // site by address
	thunk := func(site uint64) uint32 { return uint32(site)*2654435761 | 1 }
	for site, r := range f.routes {
		if before := m.read(site, syscallSize); !bytes.Equal(before, syscallCode) {
			t.Fatalf("%#x is no call: % x", site, before)
		}
		if last := r.Writes[len(r.Writes)-1]; last.Addr != site || !last.Live || len(last.New) != syscallSize {
			t.Fatalf("the last write of %#x is %+v", site, last)
		}
		for _, w := range r.Writes {
			n := len(w.New)
			switch {
			case len(w.Old) != n || w.Thunk >= 0 && w.Thunk > n-4 || w.Live && w.Thunk >= 0:
				t.Fatalf("%#x: bad write %+v", site, w)
			case w.Atomic && w.Addr/8 != (w.Addr+uint64(n)-1)/8:
				t.Fatalf("%#x: %+v is in two words", site, w)
			case !bytes.Equal(m.read(w.Addr, n), w.Old):
				t.Fatalf("%#x: % x at %#x, want % x", site, m.read(w.Addr, n), w.Addr, w.Old)
			}
			b := bytes.Clone(w.New)
			if w.Thunk >= 0 {
				binary.LittleEndian.PutUint32(b[w.Thunk:], thunk(site))
			}
			for i, c := range b {
				at := w.Addr + uint64(i)
				if other, ok := written[at]; ok {
					t.Fatalf("%#x and %#x share %#x", site, other, at)
				}
				if m.at(at) == nil {
					t.Fatalf("%#x: %#x is no code", site, at)
				}
				written[at] = site
				m.at(at)[0] = c
			}
			// What each state in between means for a thread at the site, or
			// at the instruction in front of it.
			if got, _, ok := m.thunkAfter(site); bytes.Equal(m.read(site, syscallSize), syscallCode) == ok || ok && got != thunk(site) {
				t.Fatalf("%#x: after the write at %#x the site leads to %#x, %v", site, w.Addr, got, ok)
			}
		}
	}
	for site, r := range f.inFront {
		if r.Kind != InFront || len(r.Writes) != 2 || r.Entry != r.Writes[1].Addr || !r.Writes[1].Atomic {
			t.Fatalf("%#x: bad route in front %+v", site, r)
		}
		if own := f.routes[site]; own != nil && own.Kind == Moved {
			if !cmp.Equal(own.Writes[:2], r.Writes) {
				t.Fatalf("%#x: two ways to move:\n%+v\n%+v", site, own, r)
			}
			continue
		}
		for _, w := range r.Writes {
			if !bytes.Equal(m.read(w.Addr, len(w.Old)), w.Old) {
				t.Fatalf("%#x: % x at %#x, want % x", site, m.read(w.Addr, len(w.Old)), w.Addr, w.Old)
			}
			b := bytes.Clone(w.New)
			if w.Thunk >= 0 {
				binary.LittleEndian.PutUint32(b[w.Thunk:], thunk(site))
			}
			for i, c := range b {
				at := w.Addr + uint64(i)
				if other, ok := written[at]; ok {
					t.Fatalf("%#x and %#x share %#x", site, other, at)
				}
				written[at] = site
				m.at(at)[0] = c
			}
		}
		if got, executed, ok := m.thunkAfter(r.Entry); !ok || got != thunk(site) || !bytes.Equal(executed, r.Writes[1].Old) {
			t.Fatalf("%#x leads to %#x, %v over % x", r.Entry, got, ok, executed)
		}
	}
	for site, r := range f.routes {
		if r.Entry != site {
			t.Fatalf("%#x: %+v", site, r)
		}
		got, executed, ok := m.thunkAfter(site)
		if !ok || got != thunk(site) {
			t.Fatalf("%#x (%v) leads to %#x, %v; want %#x", site, r.Kind, got, ok, thunk(site))
		}
		if r.Kind != Moved {
			if len(executed) != 0 {
				t.Fatalf("%#x executes % x", site, executed)
			}
			continue
		}
		moved := r.Writes[1]
		if !bytes.Equal(executed, moved.Old) || !moved.Live {
			t.Fatalf("%#x executes % x instead of % x", site, executed, moved.Old)
		}
		got, executed, ok = m.thunkAfter(moved.Addr)
		if !ok || got != thunk(site) || !bytes.Equal(executed, moved.Old) {
			t.Fatalf("%#x leads to %#x, %v over % x", moved.Addr, got, ok, executed)
		}
	}
}

// TestPatchedProgram runs programs whose file has all routes applied: all calls
// with a route are made by thunks.
func TestPatchedProgram(t *testing.T) {
	for _, test := range []struct {
		name, compiler string
		flags          []string
	}{
		{"musl", "musl-gcc", []string{"-static", "-no-pie", "-Os"}},
		{"musl stripped", "musl-gcc", []string{"-static", "-no-pie", "-Os", "-s"}},
		{"musl threads", "musl-gcc", []string{"-static", "-no-pie", "-Os", "-DTHREADS"}},
		{"glibc", "gcc", []string{"-static", "-no-pie"}},
		{"glibc threads", "gcc", []string{"-static", "-no-pie", "-DTHREADS"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			path := build(t, test.compiler, append(test.flags, "-Wl,-Ttext-segment=0x400000")...)
			want := run(t, path)
			f, b := open(t, path)
			patched := path + ".patched"
			if err := os.WriteFile(patched, withThunks(t, b, f), 0o777); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, run(t, patched)); diff != "" {
				t.Errorf("output of the patched program:\n%s", diff)
			}
			t.Logf("%d routes", len(f.routes))
		})
	}
}

func run(t *testing.T, path string) string {
	t.Helper()
	b, err := exec.Command(path).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", path, err, b)
	}
	return string(b)
}

// withThunks returns the file with all its routes applied, and with a further
// segment that holds their thunks. It takes the program header of PT_GNU_STACK.
func withThunks(t *testing.T, file []byte, f *File) []byte {
	t.Helper()
	const base, gnuStack, rwx = 0x10000000, 0x6474e551, 7
	le := binary.LittleEndian
	file = bytes.Clone(file)
	var thunks []byte
	for _, site := range slices.Sorted(maps.Keys(f.routes)) {
		thunk := base + uint64(len(thunks))
		thunks = append(thunks, syscallCode...)
		thunks = append(thunks, longJump(thunk+syscallSize, site+syscallSize)...)
		for _, w := range f.routes[site].Writes {
			s := f.segments[slices.IndexFunc(f.segments, func(s segment) bool {
				return w.Addr >= s.vaddr && w.Addr < s.end()+uint64(len(s.tail))
			})]
			at := file[w.Addr-s.vaddr+s.offset:]
			copy(at, w.New)
			if w.Thunk >= 0 {
				le.PutUint32(at[w.Thunk:], uint32(thunk))
			}
		}
	}
	for len(file)%pageSize != 0 {
		file = append(file, 0)
	}
	headers, n := le.Uint64(file[32:]), int(le.Uint16(file[56:]))
	for i := range n {
		h := file[headers+uint64(i)*56:]
		if le.Uint32(h) != gnuStack {
			continue
		}
		le.PutUint32(h, ptLoad)
		le.PutUint32(h[4:], rwx)
		for j, v := range []uint64{uint64(len(file)), base, base, uint64(len(thunks)), uint64(len(thunks)), pageSize} {
			le.PutUint64(h[8+8*j:], v)
		}
		return append(file, thunks...)
	}
	t.Fatal("no program header to spare")
	return nil
}

// TestMuslCancellationPoint finds the one call site of most of musl's blocking
// calls.
func TestMuslCancellationPoint(t *testing.T) {
	for name, test := range map[string]struct {
		flags []string
		want  Kind
	}{
		"symbols":  {nil, Near},
		"stripped": {[]string{"-s"}, Moved},
	} {
		t.Run(name, func(t *testing.T) {
			f, b := open(t, build(t, "musl-gcc", append(test.flags, "-static", "-Os", "-DTHREADS")...))
			point := movables[len(movables)-1]
			at := bytes.Index(b, append(bytes.Clone(point.before), point.code...))
			if at < 0 {
				t.Fatal("musl's __syscall_cp_asm has changed")
			}
			site, _ := f.Address(uint64(at + len(point.before) + len(point.code)))
			r, err := f.Route(site)
			if err != nil || r.Kind != test.want {
				t.Errorf("route %+v, %v; want %v", r, err, test.want)
			}
		})
	}
}

func TestFallThroughIsNoPadding(t *testing.T) {
	for name, test := range map[string]struct {
		code string
		want bool
	}{
		"return":               {"31c0c3", true},
		"jump":                 {"e900100000", true},
		"computed jump":        {"ffe0", true},
		"tail call":            {"ff2500100000", true},
		"trap":                 {"0f0b", true},
		"call":                 {"e800100000", true},
		"branch":               {"39ca0f8200100000", false},
		"nothing":              {"31c0", false},
		"a return's byte":      {"b8000000c3", false},
		"a jump's byte":        {"b8eb000000", false},
		"branch into the gap":  {"7404" + "31c0c3", false},
		"ends within":          {"31c0b8c3", false},
		"an unknown byte":      {"06c3", false},
		"breakpoint, goes on?": {"cc", false},
	} {
		t.Run(name, func(t *testing.T) {
			const base = 0x1000
			var code []byte
			for i := 0; i < len(test.code); i += 2 {
				code = append(code, unhex(test.code[i])<<4|unhex(test.code[i+1]))
			}
			end := uint64(base + len(code))
			code = append(code, bytes.Repeat([]byte{0x90}, 9)...)
			code = append(code, 0xc3)
			m := &elfImage{
				segments:  []segment{{vaddr: base, filesz: uint64(len(code)), code: code}},
				functions: []function{{base, end}, {end + 9, end + 10}},
			}
			got := m.isFree(span{end, end + 9}, m.functions[0], m.functions[1])
			if got = got && !newTargets(m.segments).hit(span{end, end + 9}); got != test.want {
				t.Errorf("padding is %v, want %v", got, test.want)
			}
		})
	}
}

func unhex(c byte) byte { return byte(strings.IndexByte("0123456789abcdef", c)) }

func TestIsPadding(t *testing.T) {
	for code, want := range map[string]bool{
		"":                                 false,
		"\x90":                             true,
		"\xcc\xcc":                         true,
		"\x66\x90":                         true,
		"\x0f\x1f\x00":                     true,
		"\x0f\x1f\x40\x00":                 true,
		"\x0f\x1f\x44\x00\x00":             true,
		"\x66\x0f\x1f\x44\x00\x00":         true,
		"\x0f\x1f\x80\x00\x00\x00\x00":     true,
		"\x0f\x1f\x84\x00\x00\x00\x00\x00": true,
		"\x66\x66\x2e\x0f\x1f\x84\x00\x00\x00\x00\x00\x90": true,
		"\x0f\x1f\x84\x00\x00":                             false,
		"\x0f\x1f":                                         false,
		"\x0f":                                             false,
		"\x00\x00":                                         false,
		"\xf3\x90":                                         false,
		"\xf3\x0f\x1e\xfa":                                 false,
		"\x66":                                             false,
		"\x90\xc3":                                         false,
	} {
		if got := isPadding([]byte(code)); got != want {
			t.Errorf("% x: %v", code, got)
		}
	}
}

func TestMovedOnlyIfEnteredInFront(t *testing.T) {
	// mov $32, %eax; syscall; ret, with something in front of it
	const call = "\xb8\x20\x00\x00\x00\x0f\x05\xc3"
	for name, test := range map[string]struct {
		front, behind string
		want          bool
		known         string // what of the front is known to be in the call's function
	}{
		"plain":                         {"\x48\x63\xff", "", true, ""},
		"movl $imm, -0x48(%rbp)":        {"\xc7\x45", "", false, ""},
		"mov $imm, %r8d is moved whole": {"\x41", "", true, ""},
		"mov $imm, %r11d":               {"\x41\xbb\x20\x00\x00\x00\x0f\x05", "", true, ""},
		"movabs":                        {"\x48", "", false, ""},
		"jump to the site":              {"", "\xeb\xfb", false, ""},
		"jump to the mov":               {"", "\xeb\xf6", true, ""},
		"long jump to the site":         {"", "\xe9\xf8\xff\xff\xff", false, ""},
		"long jump to the mov":          {"", "\xe9\xf3\xff\xff\xff", true, ""},
		"jump into the mov":             {"", "\x74\xf8", false, ""},
		"computed jump":                 {"\xff\xe0", "", false, ""},
		"computed jump of its function": {"\xff\xe0\x31\xc0", "", false, "\xff\xe0\x31\xc0"},
		"computed jump of another one":  {"\xff\xe0\x31\xc0", "", true, "\x31\xc0"},
	} {
		t.Run(name, func(t *testing.T) {
			const base = 0x1000
			code := strings.Repeat("\x31\xc0", 200) + test.front
			site := uint64(base + len(code) + 5)
			code += call + test.behind
			code += strings.Repeat("\x31\xc0", 200)
			s := segment{vaddr: base, filesz: uint64(len(code)), code: []byte(code), tail: make([]byte, 100)}
			m := &elfImage{segments: []segment{s}}
			if test.known != "" {
				m.functions = []function{{site - 5 - uint64(len(test.known)), site + 3}}
			}
			routes, _ := plan(m)
			if r := routes[site]; (r != nil) != test.want {
				t.Errorf("route: %+v", r)
			}
		})
	}
}

func TestOpenRefuses(t *testing.T) {
	b, err := os.ReadFile(buildGo(t))
	if err != nil {
		t.Fatal(err)
	}
	change := func(at int, v byte) []byte {
		c := bytes.Clone(b)
		c[at] = v
		return c
	}
	for name, file := range map[string][]byte{
		"empty":           nil,
		"text":            []byte("#!/bin/sh\n"),
		"cut off":         b[:pageSize],
		"32-bit":          change(4, 1),
		"big-endian":      change(5, 2),
		"arm64":           change(18, 183),
		"relocatable":     change(16, 1),
		"header size":     change(54, 57),
		"headers outside": change(39, 0x7f),
	} {
		if f, err := Open(bytes.NewReader(file), int64(len(file))); err == nil {
			t.Errorf("%s: %d routes", name, len(f.routes))
		}
	}
}

func BenchmarkOpen(b *testing.B) {
	for _, subject := range subjects {
		b.Run(subject.name, func(b *testing.B) {
			path := subject.path(b)
			for b.Loop() {
				file, err := os.Open(path)
				if err != nil {
					b.Fatal(err)
				}
				info, err := file.Stat()
				if err != nil {
					b.Fatal(err)
				}
				if _, err := Open(file, info.Size()); err != nil {
					b.Fatal(err)
				}
				file.Close()
			}
		})
	}
}

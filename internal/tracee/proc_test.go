package tracee

import (
	"errors"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

func TestParseMapping(t *testing.T) {
	for _, tt := range []struct {
		line string
		want Mapping
		ok   bool
	}{
		{
			"7f1c8e400000-7f1c8e555000 r-xp 00026000 fe:00 1056              /usr/lib/libc.so.6",
			Mapping{0x7f1c8e400000, 0x7f1c8e555000, "r-xp", 0x26000, "fe:00", 1056, "/usr/lib/libc.so.6"}, true,
		},
		{"20000000-20010000 r-xp 00000000 00:00 0 ", Mapping{0x20000000, 0x20010000, "r-xp", 0, "00:00", 0, ""}, true},
		{
			"1000-2000 rw-s 00000000 00:01 7 /a name with  spaces (deleted)",
			Mapping{0x1000, 0x2000, "rw-s", 0, "00:01", 7, "/a name with  spaces (deleted)"}, true,
		},
		{"", Mapping{}, false},
		{"1000 r-xp 0 00:00 0", Mapping{}, false},
		{"x-2000 r-xp 0 00:00 0", Mapping{}, false},
		{"1000-2000 r-xp 0 00:00", Mapping{}, false},
	} {
		got, ok := parseMapping(tt.line)
		if ok != tt.ok || ok && got != tt.want {
			t.Errorf("%q: %+v, %v", tt.line, got, ok)
		}
	}
}

func FuzzParseMapping(f *testing.F) {
	f.Add("7f1c8e400000-7f1c8e555000 r-xp 00026000 fe:00 1056 /usr/lib/libc.so.6")
	f.Add("- - - - -")
	f.Fuzz(func(_ *testing.T, line string) { parseMapping(line) })
}

// The kernel's answers about code mappings are those of its text file.
func TestCodeMapsAgreesWithMaps(t *testing.T) {
	all, err := Maps(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	want := slices.DeleteFunc(all, func(m Mapping) bool { return !m.Executable() || m.Inode == 0 })
	got, err := CodeMaps(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	for i := range want {
		want[i].Path = ""
	}
	for i := range got {
		got[i].Path = ""
	}
	if diff := cmp.Diff(want, got); diff != "" || len(got) == 0 {
		t.Errorf("code mappings (-text +query):\n%s", diff)
	}
	for _, m := range got {
		for _, at := range []uint64{m.Start, m.End - 1} {
			one, err := CodeMapping(os.Getpid(), at)
			one.Path = ""
			if diff := cmp.Diff(m, one); err != nil || diff != "" {
				t.Errorf("code at %#x: %v (-all +one)\n%s", at, err, diff)
			}
		}
	}
	if m, err := CodeMapping(os.Getpid(), 0); !errors.Is(err, unix.ENOENT) {
		t.Errorf("code at 0: %v, %v", m, err)
	}
	f, err := OpenMapped(os.Getpid(), &got[0])
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
}

func TestVDSOCaveIsUnused(t *testing.T) {
	const size = 128
	at, err := VDSOCave(size)
	if err != nil {
		t.Fatal(err)
	}
	start, err := VDSO(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	b := make([]byte, size)
	if got := Peek(os.Getpid(), start+at, b); got != size || slices.ContainsFunc(b, func(c byte) bool { return c != 0 }) {
		t.Errorf("%d bytes at offset %#x: %x", got, at, b)
	}
	if _, err := VDSOCave(1 << 20); err == nil {
		t.Error("a megabyte fits into the vDSO")
	}
}

func TestStatus(t *testing.T) {
	s, err := ReadStatus(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	if s.TGID != os.Getpid() || s.Tracer != 0 {
		t.Errorf("status %+v", s)
	}
	if s.Blocked != 0 {
		t.Errorf("blocked signals %#x", s.Blocked)
	}
	if Alone(os.Getpid()) {
		t.Error("the Go runtime has one thread only")
	}
	if !Leader(os.Getpid()) {
		t.Error("we are not our own first thread")
	}
	if _, err := ReadStatus(1 << 30); err == nil {
		t.Error("a thread that cannot be has a status")
	}
}

func TestStatusOfBlockedSignals(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var now, before unix.Sigset_t
	now.Val[0] = 1<<(unix.SIGUSR1-1) | 1<<(64-1)
	if err := unix.PthreadSigmask(unix.SIG_SETMASK, &now, &before); err != nil {
		t.Fatal(err)
	}
	s, err := ReadStatus(unix.Gettid())
	if err := unix.PthreadSigmask(unix.SIG_SETMASK, &before, nil); err != nil {
		t.Fatal(err)
	}
	if err != nil || s.Blocked != SigMask(now.Val[0]) {
		t.Errorf("blocked signals %#x, want %#x: %v", s.Blocked, now.Val[0], err)
	}
}

func TestWhere(t *testing.T) {
	c := exec.Command("sleep", "100")
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	defer c.Wait()
	defer c.Process.Kill()
	inside := func(address uint64, what func(*Mapping) bool) bool {
		maps, err := Maps(c.Process.Pid)
		if err != nil {
			t.Fatal(err)
		}
		return slices.ContainsFunc(maps, func(m Mapping) bool { return address >= m.Start && address < m.End && what(&m) })
	}
	var sp, pc uint64
	found := false
	for i := 0; !found && i < 1000; i++ { // until it sleeps
		time.Sleep(time.Millisecond)
		var ok bool
		sp, pc, ok = Where(c.Process.Pid)
		found = ok && inside(pc, (*Mapping).Executable) && inside(sp, func(m *Mapping) bool { return m.Path == "[stack]" })
	}
	if !found {
		t.Errorf("stack pointer %#x, program counter %#x", sp, pc)
	}
	if _, _, ok := Where(1 << 30); ok {
		t.Error("a thread that cannot be is somewhere")
	}
}

func TestParseStat(t *testing.T) {
	for _, c := range []struct {
		stat            string
		parent, threads int
		ok              bool
	}{
		{"7 (sh) S 5 7 7 34816 9 4194304 1 2 3 4 5 6 7 8 20 0 3 0 100 200", 5, 3, true},
		{"7 (a) R 1 (b) S 5 7 7 34816 9 4194304 1 2 3 4 5 6 7 8 20 0 1", 5, 1, true},
		{"7 (sh) S 5 7 7 34816 9 4194304 1 2 3 4 5 6 7 8 20 0", 0, 0, false},
		{"7 (sh) S x 7 7 34816 9 4194304 1 2 3 4 5 6 7 8 20 0 1", 0, 1, false},
		{"", 0, 0, false},
	} {
		parent, threads, ok := parseStat([]byte(c.stat))
		if ok != c.ok || parent != c.parent || threads != c.threads {
			t.Errorf("%q: parent %d, %d threads, %t", c.stat, parent, threads, ok)
		}
	}
	var buf [4096]byte
	b, err := readSmall(os.Getpid(), "stat", buf[:])
	if err != nil {
		t.Fatal(err)
	}
	if parent, threads, ok := parseStat(b); !ok || parent != os.Getppid() || threads < 2 {
		t.Errorf("this process: parent %d, %d threads, %t", parent, threads, ok)
	}
}

func TestAloneChild(t *testing.T) {
	c := exec.Command("sleep", "60")
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	defer c.Wait()
	defer c.Process.Kill()
	if !Alone(c.Process.Pid) {
		t.Error("sleep shares its memory")
	}
}

func TestExecutable(t *testing.T) {
	got, err := Executable(os.Getpid())
	want, _ := os.Executable()
	if err != nil || got != want {
		t.Errorf("%q, %v; want %q", got, err, want)
	}
}

func TestPermitted(t *testing.T) {
	const root, user = "Name:\tx\nCapEff:\t000001fffeffffff\nCapBnd:\t0\n", "Name:\tx\nCapEff:\t0000000000000000\nCapBnd:\t0\n"
	for _, tt := range []struct {
		scope, status string
		ok            bool
	}{
		{"0", user, true},
		{"1", root, true},
		{"1", user, false},
		{"2", root, true},
		{"2", user, false},
		{"3", root, false},
		{"1", "", false},
	} {
		if err := permitted(tt.scope, tt.status); (err == nil) != tt.ok {
			t.Errorf("ptrace_scope %s, %q: %v", tt.scope, tt.status, err)
		}
	}
}

// A process has one thread until it makes another.
func TestOneThread(t *testing.T) {
	cmd := exec.Command("sleep", "100")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	defer cmd.Process.Kill()
	for tid, want := range map[int]bool{cmd.Process.Pid: true, os.Getpid(): false, 1 << 30: false} {
		if OneThread(tid) != want {
			t.Errorf("thread %d: %v", tid, !want)
		}
	}
}

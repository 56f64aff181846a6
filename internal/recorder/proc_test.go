package recorder

import (
	"math"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestParseStat(t *testing.T) {
	tests := []struct {
		name, text string
		want       stat
		ok         bool
	}{
		{"ordinary", "42 (sh) S 7 42 42 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 3 0 12345 1000 200 18446744073709551615 1 2 140732403813975 0 0",
			stat{image{12345, 140732403813975}, 7}, true},
		{"parentheses and spaces in the name", "42 (a) S 1 (b) S 7 42 42 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 9 1000 200 18446744073709551615 1 2 8 0 0",
			stat{image{9, 8}, 7}, true},
		{"cut", "42 (sh) S 7 42", stat{}, false},
		{"empty", "", stat{}, false},
		{"no name", "42 sh S 7", stat{}, false},
		{"no number", "42 (sh) S x 42 42 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 3 0 12345 1000 200 18446744073709551615 1 2 3 0 0", stat{}, false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got, err := parseStat([]byte(test.text))
			if (err == nil) != test.ok || test.ok && got != test.want {
				t.Errorf("got %+v, %v", got, err)
			}
		})
	}
}

func TestParseSyscall(t *testing.T) {
	for text, want := range map[string]uint64{
		"257 0xffffff9c 0x1 0x2 0x3 0x4 0x5 0x7ffe1335c5a8 0x7f8b0b39c2ad\n": 0x7ffe1335c5a8,
		"running\n":                        0,
		"-1 0x7ffe1335c5a8 0x7f8b0b39c2\n": 0,
		"":                                 0,
		"257 0 0 0 0 0 0 x 0":              0,
	} {
		if got := parseSyscall([]byte(text)); got != want {
			t.Errorf("parseSyscall(%q) = %#x, want %#x", text, got, want)
		}
	}
}

func TestParseFlags(t *testing.T) {
	for text, want := range map[string]uint64{
		"pos:\t0\nflags:\t02100000\nmnt_id:\t1\n": 0o2100000,
		"pos:\t0\nflags:\t0\n":                    0,
		"":                                        unix.O_CLOEXEC, // unknown: nobody is to be accused
		"flags:\tx\n":                             unix.O_CLOEXEC,
	} {
		if got := parseFlags([]byte(text)); got != want {
			t.Errorf("parseFlags(%q) = %#o, want %#o", text, got, want)
		}
	}
}

// TestProcess compares what is read of a process with what was done.
func TestProcess(t *testing.T) {
	// It is to inherit nothing that our starter left open.
	if err := unix.CloseRange(3, math.MaxUint32, unix.CLOSE_RANGE_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	file, err := os.Open("/etc/passwd")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	cmd := exec.Command("sleep", "100")
	cmd.ExtraFiles = []*os.File{file, file} // 3 and 4
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	defer cmd.Process.Kill()
	pid := cmd.Process.Pid
	var p pointers
	p.files = make(map[int]int)
	const sleeps = "230 " // clock_nanosleep
	for range 2000 {
		if b, err := readSmall(procName(pid, "syscall")); err != nil || strings.HasPrefix(string(b), sleeps) {
			break
		}
		time.Sleep(time.Millisecond)
	}
	if a, b := p.of(pid), p.of(pid); a == 0 || a != b {
		t.Errorf("its stack pointer is %#x, and then %#x", a, b)
	}
	p.forget(pid)
	if len(p.files) != 0 {
		t.Error("the file stayed open")
	}
	if fds, err := inheritable(pid); err != nil || !slices.Equal(fds, []int{3, 4}) {
		t.Errorf("it hands on %v, %v; want 3 and 4", fds, err)
	}
	if !isOpen(pid, 4) || isOpen(pid, 5) {
		t.Error("4 is open, 5 is not")
	}
	if fd := lowestFree(pid, 1); fd != 5 {
		t.Errorf("the lowest free number is %d, want 5", fd)
	}
	a, _ := objectOf(pid, 3)
	b, _ := objectOf(pid, 4)
	null, _ := objectOf(pid, 0)
	if !a.same(b) || a.same(null) || a.Link != "/etc/passwd" {
		t.Errorf("%+v, %+v and %+v", a, b, null)
	}
	s, err := readStat(pid)
	if err != nil || s.Parent != os.Getpid() || threaded(pid) || s.Started == 0 || s.Stack == 0 {
		t.Errorf("its status is %+v, %v", s, err)
	}
}

package oldkernel

import (
	"encoding/json"
	"runtime"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/seed-055cd0c8/indirect/fdcall"
	"github.com/seed-055cd0c8/indirect/syscalls"
)

func v(major, minor, patch uint8) fdcall.Version {
	return fdcall.Version{Major: major, Minor: minor, Patch: patch}
}

func TestParse(t *testing.T) {
	for _, test := range []struct {
		text    string
		version fdcall.Version
		release string
		err     string
	}{
		{text: "3.10", version: v(3, 10, 0), release: "3.10.0"},
		{text: "4.4.302", version: v(4, 4, 0), release: "4.4.302"},
		{text: "2.6.26", version: v(2, 6, 26), release: "2.6.26"},
		{text: "2.6", version: v(2, 6, 0), release: "2.6.0"},
		{text: "6.19.999", version: v(6, 19, 0), release: "6.19.999"},
		{text: "7.3", version: v(7, 3, 0), release: "7.3.0"},
		{text: "99.999", version: v(99, 255, 0), release: "99.999.0"},
		{text: "2.6.40", err: "nearest versions are 2.6.39 and 3.0"},
		{text: "2.7", err: "nearest versions are 2.6.39 and 3.0"},
		{text: "3.20", err: "nearest versions are 3.19 and 4.0"},
		{text: "4.400", err: "nearest versions are 4.20 and 5.0"},
		{text: "6.20", err: "nearest versions are 6.19 and 7.0"},
		{text: "2.4.37", err: "the oldest version is 2.6"},
		{text: "1.0", err: "the oldest version is 2.6"},
		{text: "", err: "no kernel version"},
		{text: "3", err: "no kernel version"},
		{text: "3.10.0-1160.el7", err: "no kernel version"},
		{text: "-3.10", err: "no kernel version"},
		{text: "3.10.", err: "no kernel version"},
		{text: "100.1", err: "no kernel version"},
	} {
		version, release, err := parse(test.text)
		switch {
		case test.err != "":
			if err == nil || !strings.Contains(err.Error(), test.err) {
				t.Errorf("%q: %v, want %q", test.text, err, test.err)
			}
		case err != nil || version != test.version || release != test.release:
			t.Errorf("%q is %s, %q, %v; want %s, %q", test.text, version, release, err, test.version, test.release)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"3.10", "2.6.39", "4.4.302", "99.999.999", ""} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		version, release, err := parse(s)
		if err != nil {
			return
		}
		if syscalls.Compare(version, v(2, 6, 0)) < 0 || len(release) >= 65 {
			t.Errorf("%q is Linux %s, %q", s, version, release)
		}
		if again, same, err := parse(release); err != nil || again != version || same != release {
			t.Errorf("%q is %s, %q, which is %s, %q, %v", s, version, release, again, same, err)
		}
	})
}

func TestBadOptions(t *testing.T) {
	for _, test := range []struct {
		o    Options
		want string
	}{
		{Options{Kernel: "banana"}, "--kernel"},
		{Options{Kernel: "98.0"}, "newer than this kernel"},
		{Options{Without: []string{"opennat"}}, "did you mean openat"},
		{Options{Without: []string{"fcntl F_DUPFD_CLOEX"}}, "fcntl F_DUPFD_CLOEXEC"},
		{Options{Without: []string{"xxxxxxxxxxxxxxx"}}, "none with a name like it"},
		{Options{Without: []string{""}}, "no system call"},
		{Options{Without: []string{"execve"}}, "cannot be taken away"},
		{Options{Without: []string{"statx"}, Error: "EPER"}, "did you mean EPERM"},
		{Options{Without: []string{"statx"}, Error: "1"}, "no error"},
		{Options{Error: "EPERM"}, "write --without too"},
	} {
		if _, err := New(test.o); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%+v: %v, want %q", test.o, err, test.want)
		}
	}
	// The features of this very kernel are all there.
	running, err := Running()
	if err != nil {
		t.Fatal(err)
	}
	s, err := New(Options{Kernel: running.String()})
	if err != nil {
		t.Fatal(err)
	}
	for _, g := range s.gone {
		if g.old.Errno != unix.ENOSYS {
			t.Errorf("%+v is gone from the running kernel", g)
		}
	}
}

// Every flag that the table of descriptors knows to be younger than its call is here.
func TestFlagsOfTheTable(t *testing.T) {
	find := func(name string, bits uint32) (flag, bool) {
		for _, f := range flags() {
			if f.call == name && f.bits&uint64(bits) != 0 {
				return f, true
			}
		}
		return flag{}, false
	}
	for _, row := range fdcall.Linux().All() {
		if row.Op != "" && !row.Block {
			continue // the operation came as a whole
		}
		for _, bit := range []struct {
			bits  uint32
			since fdcall.Version
		}{{row.CloexecBits, row.CloexecSince}, {row.NonblockBits, row.NonblockSince}} {
			if bit.bits == 0 || syscalls.Compare(bit.since, row.Since) <= 0 {
				continue
			}
			if row.Op == "SYS_RECVMSG" {
				continue // in memory, and not worth a copy: see docs/kernels.md
			}
			f, ok := find(row.Name, bit.bits)
			if !ok || f.since != bit.since {
				t.Errorf("%s: the bits %#x came with Linux %s: %+v", row.ID(), bit.bits, bit.since, f)
			} else if f.op == 0 && int8(f.arg) != row.FlagsArg {
				t.Errorf("%s: the flags are argument %d, not %d", row.ID(), row.FlagsArg, f.arg)
			}
		}
	}
	for _, f := range flags() {
		if f.source == "" || f.bits == 0 || f.bits>>32 != 0 {
			t.Errorf("%+v", f)
		}
	}
}

func TestFeatures(t *testing.T) {
	seen := make(map[string]bool)
	for _, f := range features() {
		if seen[f.name] {
			t.Errorf("%s is there twice", f.name)
		}
		seen[f.name] = true
		if f.old.Errno == 0 && f.old.Bits == 0 {
			t.Errorf("%s has no answer of older kernels", f.name)
		}
		for abi, n := range f.nr {
			if n != fdcall.None && f.since[abi] == (fdcall.Version{}) {
				t.Errorf("%s on %s has no version", f.name, fdcall.ABI(abi))
			}
		}
	}
	for _, name := range []string{"openat2", "fcntl F_DUPFD_CLOEXEC", "open O_CLOEXEC", "clone CLONE_PIDFD", "socketcall SYS_ACCEPT4"} {
		if !seen[name] || !slices.Contains(Names(), name) {
			t.Errorf("%s is missing", name)
		}
	}
}

// gone tells what New takes away.
func gone(t *testing.T, o Options) map[string]unix.Errno {
	t.Helper()
	s, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	abi := offered(runtime.GOARCH)[0]
	all := make(map[string]unix.Errno)
	for _, f := range features() {
		for _, g := range s.gone {
			if f.nr[abi] != fdcall.None && g.nr[abi] == f.nr[abi] && slices.Equal(f.when, g.when) {
				all[f.name] = g.old.Errno
			}
		}
	}
	return all
}

func TestGone(t *testing.T) {
	if runtime.GOARCH != "amd64" {
		t.Skip("the versions are those of amd64")
	}
	for _, test := range []struct {
		o     Options
		gone  map[string]unix.Errno
		there []string
	}{
		{
			Options{Kernel: "2.6.22"},
			map[string]unix.Errno{
				"pipe2": unix.ENOSYS, "open O_CLOEXEC": 0, "openat O_CLOEXEC": 0, "socket SOCK_CLOEXEC": 0x16,
				"fcntl F_DUPFD_CLOEXEC": unix.EINVAL, "ioctl TIOCGPTPEER": unix.ENOTTY, "clone CLONE_PIDFD": 0,
			},
			[]string{"pipe", "eventfd", "openat", "fcntl F_DUPFD"},
		},
		{
			Options{Kernel: "2.6.26"},
			map[string]unix.Errno{"pipe2": unix.ENOSYS, "socket SOCK_CLOEXEC": unix.EINVAL, "open O_PATH": 0},
			[]string{"open O_CLOEXEC", "fcntl F_DUPFD_CLOEXEC", "timerfd_create"},
		},
		{Options{Kernel: "2.6.27"}, map[string]unix.Errno{"accept4": unix.ENOSYS}, []string{"pipe2", "socket SOCK_CLOEXEC"}},
		{
			Options{Kernel: "3.10", Without: []string{"pipe2", "open O_CLOEXEC"}, Error: "EPERM"},
			map[string]unix.Errno{"pipe2": unix.EPERM, "open O_CLOEXEC": unix.EPERM, "getrandom": unix.ENOSYS},
			[]string{"accept4"},
		},
		{
			Options{Kernel: "2.6.22", Adds: true},
			map[string]unix.Errno{"pipe2": unix.ENOSYS, "socket SOCK_CLOEXEC": unix.EINVAL, "open O_PATH": 0},
			[]string{"open O_CLOEXEC", "openat O_CLOEXEC", "recvmsg MSG_CMSG_CLOEXEC"},
		},
		{Options{Without: []string{"statx"}}, map[string]unix.Errno{"statx": unix.ENOSYS}, []string{"openat2"}},
	} {
		got := gone(t, test.o)
		for name, errno := range test.gone {
			if e, ok := got[name]; !ok || e != errno {
				t.Errorf("%+v: %s: gone %v with %v, want %v", test.o, name, ok, e, errno)
			}
		}
		for _, name := range test.there {
			if e, ok := got[name]; ok {
				t.Errorf("%+v: %s is gone with %v", test.o, name, e)
			}
		}
	}
}

func TestExtension(t *testing.T) {
	for _, test := range []struct {
		o     Options
		flags int
		names int
	}{
		{Options{Without: []string{"statx", "pipe2"}}, 0, 0},
		{Options{Without: []string{"open O_CLOEXEC"}}, 1, 0},
		{Options{Without: []string{"open O_CLOEXEC"}, Error: "EINVAL"}, 0, 0},
		{Options{Kernel: "5.4"}, 0, 3},
	} {
		s, err := New(test.o)
		if err != nil {
			t.Fatal(err)
		}
		x, needed, err := s.Extension()
		if err != nil || needed != (test.flags+test.names > 0) {
			t.Fatalf("%+v: needed %v, %v", test.o, needed, err)
		}
		var c config
		if err := json.Unmarshal(x.Config, &c); err != nil {
			t.Fatal(err)
		}
		if len(c.Flags) != test.flags || len(c.Names) != test.names || len(x.Traps) != test.flags+test.names {
			t.Errorf("%+v: %d flags, %d names, %d traps", test.o, len(c.Flags), len(c.Names), len(x.Traps))
		}
		if _, err := Open(x.Config, nil); err != nil {
			t.Error(err)
		}
		if program, err := s.Filter(0x10000000, 0x10001000); err != nil || len(program) == 0 {
			t.Errorf("%+v: %d instructions, %v", test.o, len(program), err)
		}
	}
	if _, err := Open(json.RawMessage("7"), nil); err == nil {
		t.Error("a bad configuration is accepted")
	}
}

// The filter of the oldest kernel refuses the most, and still fits.
func TestOldestFits(t *testing.T) {
	oldest := syscalls.Oldest(offered(runtime.GOARCH)[0])
	s, err := New(Options{Kernel: oldest.String()})
	if err != nil {
		t.Fatal(err)
	}
	program, err := s.Filter(0x10000000, 0x10001000)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d instructions", len(program))
}

func TestVersions(t *testing.T) {
	versions := Versions("amd64", v(6, 18, 0))
	if versions[0] != v(2, 6, 0) || versions[len(versions)-1] != v(6, 18, 0) || !slices.IsSortedFunc(versions, syscalls.Compare) {
		t.Errorf("%v", versions)
	}
	for _, want := range []fdcall.Version{v(2, 6, 27), v(3, 17, 0), v(5, 3, 0)} {
		if !slices.Contains(versions, want) {
			t.Errorf("%s is missing", want)
		}
	}
	if versions := Versions("arm64", v(4, 0, 0)); versions[0] != v(3, 7, 0) {
		t.Errorf("arm64: %v", versions)
	}
	names := NewIn("amd64", v(2, 6, 27))
	for _, want := range []string{"pipe2", "dup3", "socket SOCK_CLOEXEC", "timerfd_create TFD_NONBLOCK", "socketcall SYS_SOCKET SOCK_CLOEXEC|SOCK_NONBLOCK"} {
		if !slices.Contains(names, want) {
			t.Errorf("Linux 2.6.27 lacks %s: %q", want, names)
		}
	}
}

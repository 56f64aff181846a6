package probe

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/seed-055cd0c8/indirect/fdcall"
	"github.com/seed-055cd0c8/indirect/internal/filter"
	"github.com/seed-055cd0c8/indirect/internal/launch"
)

// filteredName is argv[0] of a process that probes under a seccomp filter.
const filteredName = "probe-filtered"

func TestMain(m *testing.M) {
	launch.Main()
	Main()
	if os.Args[0] == filteredName {
		if err := probeFiltered(os.Args[1:]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// kill stands for a filter that kills the caller.
const kill = unix.Errno(0)

// answers are what the filter of the test says to calls.
var answers = map[string]unix.Errno{
	"openat2":         unix.ENOSYS,
	"memfd_create":    unix.EPERM,
	"fanotify_init":   unix.EACCES,
	"epoll_create":    unix.EPERM,
	"signalfd4":       unix.ENOENT,
	"inotify_init1":   kill,
	"fcntl F_DUPFD":   unix.EPERM,
	"bpf BPF_OBJ_GET": unix.EPERM,
	"io_uring_setup":  unix.ENOSYS,
	"timerfd_create":  unix.EPERM,
	"close_range":     unix.ENOSYS,
}

// timerfdFlags: only the flags are refused.
const timerfdFlags = "timerfd_create"

// probeFiltered installs the filter for this process and those that it
// starts, and probes.
func probeFiltered(names []string) error {
	table := fdcall.Linux()
	var r filter.Refusals
	const killed = unix.Errno(4000)
	for name, errno := range answers {
		if errno == kill {
			errno = killed
		}
		call := filter.Refusal{Errno: errno, Nr: fdcall.Numbers{436, fdcall.None, 436, fdcall.None}} // close_range
		if row := table.ByID(name); row != nil {
			call.Nr = row.Nr
			if row.Op != "" {
				call.When = row.When
			}
		}
		if name == timerfdFlags {
			call.When = []fdcall.Cond{{Arg: 1, Mask: 0xffffffff, Not: true}}
		}
		r.Calls = append(r.Calls, call)
	}
	program, err := filter.CompileRefusals(r)
	if err != nil {
		return err
	}
	for i := range program {
		if program[i].K == unix.SECCOMP_RET_ERRNO|uint32(killed) {
			program[i].K = unix.SECCOMP_RET_KILL_PROCESS
		}
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	prog := unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]}
	_, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC, uintptr(unsafe.Pointer(&prog)))
	runtime.KeepAlive(program)
	if errno != 0 {
		return errno
	}
	report, err := Find(context.Background(), names)
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(report)
}

// Absent, blocked and present are told apart under a filter.
func TestUnderFilter(t *testing.T) {
	wants := map[string]Finding{
		"openat2":               {State: Absent},
		"io_uring_setup":        {State: Absent},
		"close_range":           {State: Absent},
		"memfd_create":          {State: Blocked},
		"fanotify_init":         {State: Blocked},
		"epoll_create":          {State: Blocked},
		"signalfd4":             {State: Blocked},
		"inotify_init1":         {State: Blocked},
		"fcntl F_DUPFD":         {State: Blocked},
		"bpf BPF_OBJ_GET":       {State: Blocked},
		"timerfd_create":        {State: Present, Cloexec: Refused, Nonblock: Refused},
		"pipe2":                 {State: Present, Cloexec: Works, Nonblock: Works},
		"socket":                {State: Present, Cloexec: Works, Nonblock: Works},
		"fcntl F_DUPFD_CLOEXEC": {State: Present, Cloexec: Always, Nonblock: None},
		"getpid":                {State: Present},
		"inotify_init":          {State: Present}, // behind the one that kills
	}
	if os.Geteuid() != 0 {
		delete(wants, "bpf BPF_OBJ_GET") // these may be denied as well
		delete(wants, "fanotify_init")
	}
	maps.DeleteFunc(wants, func(name string, _ Finding) bool {
		row := fdcall.Linux().ByID(name)
		return row != nil && row.Nr[native()] == fdcall.None
	})
	names := slices.Sorted(maps.Keys(wants))
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe")
	cmd.Args = append([]string{filteredName}, names...)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	var r Report
	if err := json.Unmarshal(out, &r); err != nil {
		t.Fatal(err)
	}
	if !r.Filtered {
		t.Error("the filter was not noticed")
	}
	if len(r.Calls) != len(names) {
		t.Errorf("%d findings, want %d", len(r.Calls), len(names))
	}
	for _, f := range r.Calls {
		want := wants[f.Name]
		if f.State != want.State || want.Cloexec != "" && (f.Cloexec != want.Cloexec || f.Nonblock != want.Nonblock) {
			t.Errorf("%+v, want %+v", f, want)
		}
	}
	missing := r.Missing([]string{"openat2", "memfd_create", "pipe2"})
	slices.Sort(missing)
	if !slices.Equal(missing, []string{"memfd_create", "openat2"}) {
		t.Errorf("missing: %q", missing)
	}
}

// Every row can be tried, but for those that are known not to.
func TestEveryRowHasATrial(t *testing.T) {
	untried := []string{"ioctl TUNGETDEVNETNS"} // it needs a network interface
	all := trials()
	rows, err := subjects(native(), nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, x := range rows {
		if _, ok := all[x.name]; ok == slices.Contains(untried, x.name) {
			t.Errorf("%s has a trial: %v", x.name, ok)
		}
	}
	for name := range all {
		if fdcall.Linux().ByID(name) == nil {
			t.Errorf("a trial of %q, which is not in the table", name)
		}
	}
}

func TestEverything(t *testing.T) {
	before := descriptors(t)
	r, err := Find(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if after := descriptors(t); after > before {
		t.Errorf("%d descriptors, %d before", after, before)
	}
	name, err := unix.BytePtrFromString(queue(os.Getpid()))
	if err != nil {
		t.Fatal(err)
	}
	if _, _, errno := unix.Syscall(unix.SYS_MQ_UNLINK, uintptr(unsafe.Pointer(name)), 0, 0); errno != unix.ENOENT && errno != unix.ENOSYS {
		t.Errorf("the message queue was left behind: %v", errno)
	}
	if len(r.Mechanisms) == 0 || len(r.Run) == 0 {
		t.Errorf("the mechanisms %v, and what will be done: %v", r.Mechanisms, r.Run)
	}
	always := map[string]bool{"open": true, "openat": true, "pipe2": true, "socket": true, "accept4": true, "epoll_create1": true, "dup3": true}
	for _, f := range r.Calls {
		if always[f.Name] && !r.Filtered && (f.State != Present || f.Cloexec != Works) {
			t.Errorf("%+v", f)
		}
		if f.State == Blocked && !r.Filtered {
			t.Errorf("%+v without a filter", f)
		}
	}
}

func descriptors(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

// A flag that the kernel does not know is refused by most calls, and ignored by open.
func TestUnknownFlags(t *testing.T) {
	e := examiner{trials: trials(), filtered: filtered()}
	table := fdcall.Linux()
	for _, test := range []struct {
		id   string
		want Flag
	}{{"openat", Ignored}, {"eventfd2", Refused}, {"pipe2", Refused}} {
		row := *table.ByID(test.id)
		row.CloexecBits, row.NonblockBits = 1<<29, 0
		f := e.examine(subject{test.id, row.Nr[native()], &row})
		if f.State != Present || f.Cloexec != test.want || f.Nonblock != None {
			t.Errorf("%+v, want the flag to be %s", f, test.want)
		}
	}
	if f := e.examine(subject{name: "nonexistent", nr: 511}); f.State != Absent {
		t.Errorf("an impossible call: %+v", f)
	}
	unknown := *table.ByID("fcntl F_DUPFD_CLOEXEC")
	e.trials["fcntl F_DUPFD_CLOEXEC"] = trial{args: func(s *scratch) [6]uint64 { return [6]uint64{s.null(), 999} }}
	if f := e.examine(subject{unknown.ID(), unknown.Nr[native()], &unknown}); f.State != Absent {
		t.Errorf("an impossible operation: %+v", f)
	}
}

// Without another process, calls are tried in this one.
func TestHere(t *testing.T) {
	e := examiner{trials: trials(), filtered: filtered()}
	for name, want := range map[string]State{"pipe2": Present, "seccomp SECCOMP_FILTER_FLAG_NEW_LISTENER": Unknown, "exit_group": Unknown, "getpid": Present} {
		chosen, err := subjects(native(), []string{name})
		if err != nil {
			t.Fatal(err)
		}
		if f := e.here(chosen[0]); f.State != want {
			t.Errorf("%+v, want %s", f, want)
		}
	}
}

func TestUnknownNames(t *testing.T) {
	for name, want := range map[string]string{"pipe3": "did you mean pipe, pipe2?", "qqqqqqqq": "none with a name like it", "fcntl F_DUPFD_CLOEXE": "fcntl F_DUPFD_CLOEXEC"} {
		if _, err := Find(t.Context(), []string{name}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", name, err, want)
		}
	}
}

func TestWrite(t *testing.T) {
	r := &Report{
		Kernel: "6.1.0", Filtered: true,
		Calls:      []Finding{{Name: "pipe2", State: Present, Cloexec: Works, Nonblock: Refused}, {Name: "dup", State: Blocked, Cloexec: None, Nonblock: None, Detail: "a|b"}},
		Mechanisms: []Mechanism{{Name: "ptrace", Works: true}, {Name: "BPF", Detail: "absent"}},
		Run:        []string{"starts"},
	}
	for format, wants := range map[string][]string{
		"table":    {"Linux 6.1.0, under a seccomp filter\n", "\nCALL   HERE     CLOEXEC  NONBLOCK  DETAIL\n", "\npipe2  present  works    refused\n", "\nBPF        no    absent\n", "\n  starts\n"},
		"markdown": {"# Linux 6.1.0", "\n| call | here | cloexec | nonblock | detail |\n| --- | --- | --- | --- | --- |\n| pipe2 | present | works | refused |  |\n", `| a\|b |`, "- starts\n"},
		"json":     {`"name": "pipe2"`, `"state": "blocked"`, `"works": true`},
	} {
		var b strings.Builder
		if err := r.Write(&b, format); err != nil {
			t.Errorf("%s: %v", format, err)
		}
		for _, want := range wants {
			if !strings.Contains(b.String(), want) {
				t.Errorf("%s lacks %q:\n%s", format, want, &b)
			}
		}
	}
	if err := r.Write(&strings.Builder{}, "xml"); err == nil || !strings.Contains(err.Error(), "table, json, markdown") {
		t.Errorf("xml: %v", err)
	}
	failing := errors.New("full")
	for _, format := range Formats() {
		if err := r.Write(writerFunc(func([]byte) (int, error) { return 0, failing }), format); !errors.Is(err, failing) {
			t.Errorf("%s: %v", format, err)
		}
	}
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

package launch

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/seed-055cd0c8/indirect/internal/launch/signals"
	"github.com/seed-055cd0c8/indirect/internal/listener"
)

// roleVariable makes the test binary play the command.
const roleVariable = "LAUNCH_TEST_ROLE"

func TestMain(m *testing.M) {
	Main()
	if role := os.Getenv(roleVariable); role != "" {
		play(role)
		return
	}
	os.Exit(m.Run())
}

func play(role string) {
	switch role {
	case "trapped":
		if _, _, errno := unix.RawSyscall(unix.SYS_PERSONALITY, 0xffffffff, 0, 0); errno != 0 {
			os.Exit(1)
		}
		os.Exit(42)
	case "nested":
		_, err := Start(Spec{Path: "/bin/true", Args: []string{"true"}, Env: Environ(), Filter: trapPersonality})
		fmt.Print(err)
	}
}

// trapPersonality traps personality(2), which nothing calls by chance.
var trapPersonality = []unix.SockFilter{
	{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: 0}, // nr
	{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jf: 1, K: unix.SYS_PERSONALITY},
	{Code: unix.BPF_RET | unix.BPF_K, K: retUserNotif},
	{Code: unix.BPF_RET | unix.BPF_K, K: 0x7fff0000}, // SECCOMP_RET_ALLOW
}

// shell is a command that runs script.
func shell(script string, args ...string) Spec {
	return Spec{
		Path: "/bin/sh", Args: append([]string{"sh", "-c", script, "sh"}, args...),
		Env: Environ(), Filter: trapPersonality,
	}
}

func start(t *testing.T, s Spec) *Process {
	t.Helper()
	p, err := Start(s)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Listener().Close() })
	return p
}

func wait(t *testing.T, p *Process) unix.WaitStatus {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	status, err := p.Wait(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return status
}

// run runs a command to its end.
func run(t *testing.T, s Spec) unix.WaitStatus {
	t.Helper()
	p := start(t, s)
	if err := p.Release(); err != nil {
		t.Fatal(err)
	}
	return wait(t, p)
}

// output lets script write to the file that is its $1 and returns what it wrote.
func output(t *testing.T, s Spec) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "out")
	s.Args = append(s.Args, file)
	if status := run(t, s); status != 0 {
		t.Fatalf("status %#x", status)
	}
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestListenerGetsTheTrappedCall(t *testing.T) {
	for _, noKillable := range []bool{false, true} {
		t.Run(fmt.Sprintf("NoWaitKillable=%v", noKillable), func(t *testing.T) {
			p := start(t, Spec{
				Path: "/proc/self/exe", Args: []string{"x"}, Env: append(Environ(), roleVariable+"=trapped"),
				Filter: trapPersonality, NoWaitKillable: noKillable,
			})
			if noKillable && p.WaitKillable() {
				t.Error("WAIT_KILLABLE_RECV was taken")
			}
			if err := p.Release(); err != nil {
				t.Fatal(err)
			}
			l := listener.New(p.Listener())
			var n listener.Notification
			for {
				err := l.Receive(&n)
				if err == nil {
					break
				}
				if !errors.Is(err, listener.ErrNothing) {
					t.Fatal(err)
				}
			}
			if n.Nr != unix.SYS_PERSONALITY || n.Args[0] != 0xffffffff || int(n.TID) != p.Pid() {
				t.Errorf("trapped %+v, want personality(0xffffffff) of thread %d", n, p.Pid())
			}
			if err := l.Continue(n.ID); err != nil {
				t.Fatal(err)
			}
			if status := wait(t, p); status.ExitStatus() != 42 {
				t.Errorf("status %#x, want exit status 42", status)
			}
			received := make(chan error, 1)
			go func() { received <- l.Receive(&n) }()
			select {
			case err := <-received:
				if !errors.Is(err, listener.ErrDone) {
					t.Errorf("without a process: %v, want %v", err, listener.ErrDone)
				}
			case <-time.After(time.Second):
				t.Log("a kernel before 6.11: it waits on")
			}
		})
	}
}

func TestCommandDoesNotRunBeforeRelease(t *testing.T) {
	file := filepath.Join(t.TempDir(), "ran")
	p := start(t, shell(`: >"$1"`, file))
	time.Sleep(50 * time.Millisecond)
	if _, err := os.Stat(file); err == nil {
		t.Error("it ran before Release")
	}
	p.Abort()
	if _, err := os.Stat(file); err == nil {
		t.Error("it ran in spite of Abort")
	}
	if err := unix.Kill(p.Pid(), 0); err != unix.ESRCH {
		t.Errorf("after Abort, kill(pid, 0) = %v, want ESRCH", err)
	}
}

func TestStatus(t *testing.T) {
	tests := []struct {
		script   string
		exit     int
		signaled unix.Signal
	}{
		{"exit 0", 0, 0},
		{"exit 3", 3, 0},
		{"exit 255", 255, 0},
		{"kill -TERM $$", -1, unix.SIGTERM},
		{"kill -KILL $$", -1, unix.SIGKILL},
		{"kill -SEGV $$", -1, unix.SIGSEGV},
	}
	for _, test := range tests {
		t.Run(test.script, func(t *testing.T) {
			status := run(t, shell(test.script))
			if status.ExitStatus() != test.exit || status.Signaled() != (test.signaled != 0) ||
				status.Signaled() && status.Signal() != test.signaled {
				t.Errorf("status %#x, want exit %d, signal %v", status, test.exit, test.signaled)
			}
		})
	}
}

func TestNextReportsStops(t *testing.T) {
	p := start(t, shell("kill -STOP $$; exit 7"))
	if err := p.Release(); err != nil {
		t.Fatal(err)
	}
	status, err := p.Next()
	if err != nil || !status.Stopped() || status.StopSignal() != syscall.SIGSTOP {
		t.Fatalf("status %#x, %v; want stopped by SIGSTOP", status, err)
	}
	if err := p.Signal(unix.SIGCONT, nil); err != nil {
		t.Fatal(err)
	}
	if status, err = p.Next(); err != nil || status.ExitStatus() != 7 {
		t.Fatalf("status %#x, %v; want exit status 7", status, err)
	}
}

func TestWaitEndsWithItsContext(t *testing.T) {
	p := start(t, shell("exec sleep 100"))
	if err := p.Release(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := p.Wait(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Wait: %v, want the context's error", err)
	}
	if err := p.Signal(unix.SIGKILL, nil); err != nil {
		t.Fatal(err)
	}
	if status := wait(t, p); status.Signal() != syscall.SIGKILL {
		t.Errorf("status %#x, want killed", status)
	}
}

func TestExecErrors(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string, mode os.FileMode) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	plain := write("plain", "text", 0o644)
	lost := write("lost", "#!/nonexistent/interpreter\n", 0o755)
	tests := []struct {
		name, path string
		errno      unix.Errno
		status     int
	}{
		{"path not found", "/nonexistent/command", unix.ENOENT, 127},
		{"name not found", "no-such-command-anywhere", unix.ENOENT, 127},
		{"empty name", "", unix.ENOENT, 127},
		{"not executable", plain, unix.EACCES, 126},
		{"not executable in PATH", "plain", unix.EACCES, 126},
		{"directory", dir, unix.EACCES, 126},
		{"below a file", plain + "/x", unix.ENOTDIR, 126},
		{"interpreter not found", lost, unix.ENOENT, 127},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			p := start(t, Spec{
				Path: test.path, Args: []string{test.path}, Filter: trapPersonality,
				Env: []string{"PATH=" + dir + ":/usr/bin"},
			})
			err := p.Release()
			var failed *ExecError
			if !errors.As(err, &failed) {
				t.Fatalf("Release: %v, want an ExecError", err)
			}
			if failed.Errno != test.errno || failed.Status() != test.status || failed.Path != test.path {
				t.Errorf("%v (errno %d, status %d), want %v, %d", failed, failed.Errno, failed.Status(), test.errno, test.status)
			}
			if err := unix.Kill(p.Pid(), 0); err != unix.ESRCH {
				t.Errorf("kill(pid, 0) = %v, want ESRCH", err)
			}
		})
	}
}

func TestTooManyArguments(t *testing.T) {
	_, err := Start(Spec{Path: "/bin/true", Args: []string{"true", strings.Repeat("x", 1<<20)}, Filter: trapPersonality})
	var failed *ExecError
	if !errors.As(err, &failed) || failed.Errno != unix.E2BIG || failed.Status() != 126 {
		t.Errorf("Start: %v, want E2BIG", err)
	}
}

func TestScriptWithoutInterpreterLine(t *testing.T) {
	dir := t.TempDir()
	script := filepath.Join(dir, "no-interpreter-line")
	if err := os.WriteFile(script, []byte("echo \"$1\" >\"$2\"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	got := output(t, Spec{Path: "no-interpreter-line", Args: []string{"other name", "hello"}, Env: []string{"PATH=/bin:" + dir}, Filter: trapPersonality})
	if got != "hello\n" {
		t.Errorf("it wrote %q", got)
	}
}

func TestCandidates(t *testing.T) {
	tests := []struct {
		name string
		env  []string
		want []string
	}{
		{"ls", []string{"PATH=/a:/b/"}, []string{"/a/ls", "/b/ls"}},
		{"ls", []string{"PATH=:/b:"}, []string{"ls", "/b/ls", "ls"}},
		{"ls", []string{"PATH="}, []string{"ls"}},
		{"ls", []string{"PATH=/a", "PATH=/b"}, []string{"/a/ls"}},
		{"ls", []string{"XPATH=/a"}, []string{"/bin/ls", "/usr/bin/ls"}},
		{"ls", []string{"PATH=/"}, []string{"/ls"}},
		{"./ls", []string{"PATH=/a"}, []string{"./ls"}},
		{"", []string{"PATH=/a"}, nil},
	}
	for _, test := range tests {
		if diff := cmp.Diff(test.want, candidates(test.name, test.env)); diff != "" {
			t.Errorf("candidates(%q, %q): %s", test.name, test.env, diff)
		}
	}
}

// Everything that a process can ask about itself is as it would be without us.
func TestNothingOfOursIsInherited(t *testing.T) {
	env := []string{"PATH=/bin:/usr/bin", "TWICE=1", "TWICE=2", "nameless", "EMPTY="}
	dir := t.TempDir()
	extra, err := os.Open("/dev/zero")
	if err != nil {
		t.Fatal(err)
	}
	defer extra.Close()
	number, err := unix.FcntlInt(extra.Fd(), unix.F_DUPFD, 7) // inheritable on purpose
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(number)
	unix.Umask(0o027)
	defer unix.Umask(0o022)

	const script = `exec >"$1"; shift; umask; pwd; ulimit -Sn; ulimit -Hn; tr '\0' '\n' </proc/$$/environ; head -c 30 /proc/$$/cmdline; echo
readlink /proc/$$/fd/%d
exec grep -E '^(SigIgn|SigBlk|SigPnd|ShdPnd|NSpgid)' /proc/self/status`
	spec := shell(fmt.Sprintf(script, number))
	spec.Env, spec.Dir, spec.Args[0] = env, dir, "a name"

	file := filepath.Join(t.TempDir(), "bare")
	pid, err := syscall.ForkExec(spec.Path, append(slices.Clone(spec.Args), file), &syscall.ProcAttr{Dir: dir, Env: env, Files: inheritedFiles()})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := syscall.Wait4(pid, nil, 0, nil); err != nil {
		t.Fatal(err)
	}
	bare, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(bare), output(t, spec)); diff != "" {
		t.Errorf("bare (-), launched (+):\n%s", diff)
	}

	want := ""
	for fd := range 1000 {
		if inherited(fd) || fd == 3 { // 3 is ls's own
			want += fmt.Sprint(fd, " ")
		}
	}
	if got := output(t, shell(`ls /proc/self/fd | sort -n | tr '\n' ' ' >"$1"`)); got != want {
		t.Errorf("the command's descriptors are %s, want %s", got, want)
	}
}

// inheritedFiles makes ForkExec hand on what we inherited.
func inheritedFiles() []uintptr {
	var files []uintptr
	for fd := range uintptr(1000) {
		if inherited(int(fd)) {
			for uintptr(len(files)) < fd {
				files = append(files, ^uintptr(0))
			}
			files = append(files, fd)
		}
	}
	return files
}

func TestSoftLimitIsRestored(t *testing.T) {
	// A shell lowers its own soft limit and starts us again.
	if os.Getenv("LAUNCH_TEST_LIMIT") == "" {
		const script = `ulimit -Sn 123; LAUNCH_TEST_LIMIT=123 exec "$0" -test.run='^TestSoftLimitIsRestored$' -test.count=1`
		exe, err := os.Executable()
		if err != nil {
			t.Fatal(err)
		}
		if out, err := exec.Command("/bin/sh", "-c", script, exe).CombinedOutput(); err != nil {
			t.Errorf("%v\n%s", err, out)
		}
		return
	}
	if got := output(t, shell(`ulimit -Sn >"$1"`)); got != "123\n" {
		t.Errorf("the command's soft limit is %q, want 123", got)
	}
}

func TestSignalState(t *testing.T) {
	want := signals.State{
		Ignored: signals.Of(unix.SIGPIPE, unix.SIGHUP, unix.SIGCHLD, unix.SIGTSTP, 40),
		Blocked: signals.Of(unix.SIGUSR1, unix.SIGPROF, signals.Last),
	}
	spec := Spec{
		Path: "grep", Args: []string{"grep", "-E", "SigIgn|SigBlk", "/proc/self/status"},
		Env: Environ(), Filter: trapPersonality, Signals: want,
	}
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer read.Close()
	// Standard output is inherited like any other descriptor.
	saved, err := unix.FcntlInt(1, unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Dup2(int(write.Fd()), 1); err != nil {
		t.Fatal(err)
	}
	status := run(t, spec)
	if err := unix.Dup2(saved, 1); err != nil {
		t.Fatal(err)
	}
	unix.Close(saved)
	write.Close()
	if status != 0 {
		t.Fatalf("status %#x", status)
	}
	b := make([]byte, 1000)
	n, err := read.Read(b)
	if err != nil {
		t.Fatal(err)
	}
	got := strings.Join(strings.Fields(string(b[:n])), " ")
	if want := fmt.Sprintf("SigBlk: %016x SigIgn: %016x", uint64(want.Blocked), uint64(want.Ignored)); got != want {
		t.Errorf("the command has %s, want %s", got, want)
	}
}

// A signal that comes before execve meets the command, neither our launcher
// nor nobody.
func TestSignalBeforeReleaseMeetsTheCommand(t *testing.T) {
	p := start(t, shell("exit 0"))
	if err := p.Signal(unix.SIGTERM, nil); err != nil {
		t.Fatal(err)
	}
	if err := p.Release(); err != nil {
		t.Fatal(err)
	}
	if status := wait(t, p); !status.Signaled() || status.Signal() != syscall.SIGTERM {
		t.Errorf("status %#x, want killed by SIGTERM", status)
	}
	spec := shell("exit 5")
	spec.Signals.Ignored = signals.Of(unix.SIGTERM)
	p = start(t, spec)
	if err := p.Signal(unix.SIGTERM, nil); err != nil {
		t.Fatal(err)
	}
	if err := p.Release(); err != nil {
		t.Fatal(err)
	}
	if status := wait(t, p); status.ExitStatus() != 5 {
		t.Errorf("status %#x, want exit status 5", status)
	}
}

func TestNestedListener(t *testing.T) {
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	spec := shell(roleVariable+`=nested "$1" >"$2"`, exe)
	got := output(t, spec)
	if want := (&FilterError{Step: StepInstall, Errno: unix.EBUSY}).Error(); got != want {
		t.Errorf("nested Start: %q, want %q", got, want)
	}
}

func TestBadFilter(t *testing.T) {
	_, err := Start(Spec{Path: "/bin/true", Args: []string{"true"}, Filter: []unix.SockFilter{{Code: 0xffff}}})
	var refused *FilterError
	if !errors.As(err, &refused) || refused.Errno != unix.EINVAL {
		t.Errorf("Start: %v, want a FilterError with EINVAL", err)
	}
}

func TestFilterErrorsNameTheKernel(t *testing.T) {
	tests := []struct {
		err  FilterError
		want string
	}{
		{FilterError{StepUserNotif, unix.EOPNOTSUPP}, "Linux 5.0"},
		{FilterError{StepAddFD, unix.EINVAL}, "Linux 5.9"},
		{FilterError{StepInstall, unix.ENOSYS}, "CONFIG_SECCOMP_FILTER"},
		{FilterError{StepInstall, unix.EPERM}, "CAP_SYS_ADMIN"},
		{FilterError{StepInstall, unix.EBUSY}, "only one"},
		{FilterError{StepInstall, unix.ENOMEM}, "cannot allocate memory"},
		{FilterError{StepSend, unix.EPIPE}, "hand over"},
	}
	for _, test := range tests {
		got := test.err.Error()
		if !strings.Contains(got, test.want) || strings.Contains(got, "\n") {
			t.Errorf("%+v: %q, want one line with %q", test.err, got, test.want)
		}
		if !errors.Is(&test.err, test.err.Errno) {
			t.Errorf("%+v does not wrap its errno", test.err)
		}
	}
}

func TestEnviron(t *testing.T) {
	b, err := json.Marshal(Environ())
	if err != nil || !strings.Contains(string(b), "PATH=") {
		t.Errorf("Environ: %s, %v", b, err)
	}
}

// refusing is a filter that lets one call fail.
func refusing(nr uint32, errno unix.Errno) []unix.SockFilter {
	return []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: 0}, // nr
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jf: 1, K: nr},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ERRNO | uint32(errno)},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW},
	}
}

// What is trapped and refused is refused.
func TestRefusals(t *testing.T) {
	s := Spec{
		Path: "/proc/self/exe", Args: []string{"x"}, Env: append(Environ(), roleVariable+"=trapped"),
		Filter: trapPersonality, Refusals: refusing(unix.SYS_PERSONALITY, unix.EPERM),
	}
	if status := run(t, s); status.ExitStatus() != 1 {
		t.Errorf("status %#x: the call was not refused", status)
	}
}

// Go's launcher raises the limit on descriptors, and must bring it back by
// means of a call that may be refused.
func TestRefusalsKeepTheLimits(t *testing.T) {
	var old unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &old); err != nil {
		t.Fatal(err)
	}
	low := unix.Rlimit{Cur: old.Max / 2, Max: old.Max}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &low); err != nil {
		t.Fatal(err)
	}
	defer unix.Setrlimit(unix.RLIMIT_NOFILE, &old)
	s := shell(`exec grep "open files" /proc/self/limits >"$1"`)
	want := output(t, s)
	s.Refusals = refusing(unix.SYS_PRLIMIT64, unix.ENOSYS)
	if got := output(t, s); got != want || !strings.Contains(want, fmt.Sprint(low.Cur)) {
		t.Errorf("the command has the limits %q, want %q with %d", got, want, low.Cur)
	}
}

func TestBadRefusals(t *testing.T) {
	s := shell("exit 0")
	s.Refusals = []unix.SockFilter{{Code: 0xffff}}
	p := start(t, s)
	err := p.Release()
	var refused *FilterError
	if !errors.As(err, &refused) || refused.Step != StepRefuse || refused.Errno != unix.EINVAL {
		t.Errorf("Release: %v, want a FilterError of the second filter", err)
	}
}

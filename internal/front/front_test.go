package front

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/seed-055cd0c8/indirect/internal/launch"
	"github.com/seed-055cd0c8/indirect/internal/launch/signals"
)

// standIn makes the test binary run its arguments behind a front.
const standIn = "FRONT_TEST_STAND_IN"

func TestMain(m *testing.M) {
	launch.Main()
	if os.Getenv(standIn) != "" {
		status, err := stand(os.Args[1:])
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			status = 125
		}
		os.Exit(status)
	}
	os.Exit(m.Run())
}

func stand(argv []string) (int, error) {
	inherited, err := signals.Inherited()
	if err != nil {
		return 0, err
	}
	f, err := Catch()
	if err != nil {
		return 0, err
	}
	allow := []unix.SockFilter{{Code: unix.BPF_RET | unix.BPF_K, K: 0x7fff0000}}
	p, err := launch.Start(launch.Spec{Path: argv[0], Args: argv, Env: os.Environ(), Filter: allow, Signals: inherited})
	if err != nil {
		return 0, err
	}
	if err := LetGo(); err != nil {
		return 0, err
	}
	if err := p.Release(); err != nil {
		return 0, err
	}
	status, err := f.Serve(p)
	if status.Signaled() {
		return 128 + int(status.Signal()), err
	}
	return status.ExitStatus(), err
}

// session is a front with a shell script as its command, in a process group
// of its own, as an interactive shell would start it.
type session struct {
	t    *testing.T
	cmd  *exec.Cmd
	out  *bufio.Reader
	file *os.File
}

func start(t *testing.T, script string) *session {
	t.Helper()
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("/proc/self/exe", "sh", "-c", script)
	cmd.Env = append(os.Environ(), standIn+"=1")
	cmd.Stdout, cmd.Stderr = write, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	write.Close()
	t.Cleanup(func() {
		_ = unix.Kill(-cmd.Process.Pid, unix.SIGKILL)
		read.Close()
	})
	_ = read.SetReadDeadline(time.Now().Add(20 * time.Second))
	return &session{t, cmd, bufio.NewReader(read), read}
}

// expect reads a line that must be want.
func (s *session) expect(want string) {
	s.t.Helper()
	if line, err := s.out.ReadString('\n'); line != want+"\n" {
		s.t.Fatalf("the command wrote %q, %v; want %q", line, err, want)
	}
}

// number reads a line with a number.
func (s *session) number() (n int) {
	s.t.Helper()
	if _, err := fmt.Fscanln(s.out, &n); err != nil {
		s.t.Fatal(err)
	}
	return n
}

// kill sends sig to the front alone.
func (s *session) kill(sig unix.Signal) {
	s.t.Helper()
	if err := unix.Kill(s.cmd.Process.Pid, sig); err != nil {
		s.t.Fatal(err)
	}
}

// end waits for the front, which must exit with status, and for the end of the
// output, which must be empty.
func (s *session) end(status int) {
	s.t.Helper()
	rest, err := io.ReadAll(s.out)
	if err != nil || len(rest) > 0 {
		s.t.Errorf("at the end the command wrote %q, %v", rest, err)
	}
	err = s.cmd.Wait()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		s.t.Fatal(err)
	}
	if got := s.cmd.ProcessState.ExitCode(); got != status {
		s.t.Errorf("the front ended with %v, want exit status %d", s.cmd.ProcessState, status)
	}
}

// traps prints the names of signals as they come. QUIT ends it.
const traps = `for s in HUP INT TERM USR1 USR2 ALRM WINCH TSTP TTIN IO PWR; do trap "echo $s" $s; done
trap 'echo QUIT; exit 9' QUIT
echo $$
while :; do sleep 0.01; done`

func TestSignalsToTheFrontReachTheCommand(t *testing.T) {
	s := start(t, traps)
	s.number()
	for _, sig := range []unix.Signal{
		unix.SIGTERM, unix.SIGHUP, unix.SIGINT, unix.SIGUSR1, unix.SIGUSR2, unix.SIGALRM,
		unix.SIGWINCH, unix.SIGTSTP, unix.SIGTTIN, unix.SIGIO, unix.SIGPWR, unix.SIGTERM,
	} {
		s.kill(sig)
		s.expect(strings.TrimPrefix(unix.SignalName(sig), "SIG"))
	}
	s.kill(unix.SIGQUIT)
	s.expect("QUIT")
	s.end(9)
}

func TestDefaultActions(t *testing.T) {
	for _, sig := range []unix.Signal{
		unix.SIGTERM, unix.SIGHUP, unix.SIGINT, unix.SIGQUIT, unix.SIGABRT, unix.SIGUSR1, unix.SIGXCPU, 40, 64,
	} {
		t.Run(fmt.Sprint(sig), func(t *testing.T) {
			s := start(t, "echo ready; exec sleep 100")
			s.expect("ready")
			s.kill(sig)
			s.end(128 + int(sig))
		})
	}
}

func TestQueuedValueIsKept(t *testing.T) {
	python, err := exec.LookPath("python3")
	if err != nil {
		t.Skip("python3 is not installed: nothing to read a signal's value with")
	}
	s := start(t, "exec "+python+` -c '
import signal
signal.pthread_sigmask(signal.SIG_BLOCK, [40])
print("ready", flush=True)
i = signal.sigwaitinfo([40])
print(i.si_signo, i.si_code, flush=True)'`)
	s.expect("ready")
	info := make([]byte, infoSize)
	copy(info, "\x28\x00\x00\x00\x00\x00\x00\x00\xff\xff\xff\xff") // signal 40, SI_QUEUE
	if _, _, errno := unix.Syscall(unix.SYS_RT_SIGQUEUEINFO, uintptr(s.cmd.Process.Pid), 40, addressOf(info)); errno != 0 {
		t.Fatal(errno)
	}
	s.expect("40 -1")
	s.end(0)
}

// The kernel sends a process group's signals to us and to the command: it must
// not see them twice.
func TestGroupSignalFromTheCommandComesOnce(t *testing.T) {
	s := start(t, `trap 'echo USR1' USR1
kill -USR1 0            # by the command itself
sh -c 'trap : USR1; kill -USR1 0; sleep 0.2' # by a child that lives on
sleep 0.2; echo end`)
	s.expect("USR1")
	s.expect("USR1")
	s.expect("end")
	s.end(0)
}

func TestIgnoredSignalsStayIgnored(t *testing.T) {
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer read.Close()
	cmd := exec.Command("sh", "-c", `trap '' HUP INT TSTP; exec "$0" grep SigIgn /proc/self/status`, "/proc/"+fmt.Sprint(os.Getpid())+"/exe")
	cmd.Env = append(os.Environ(), standIn+"=1")
	cmd.Stdout, cmd.Stderr = write, os.Stderr
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
	write.Close()
	got, err := io.ReadAll(read)
	if err != nil {
		t.Fatal(err)
	}
	if want := fmt.Sprintf("%016x", uint64(signals.Of(unix.SIGHUP, unix.SIGINT, unix.SIGTSTP))); !strings.Contains(string(got), want) {
		t.Errorf("the command has %q, want %s", got, want)
	}
}

func waitForState(t *testing.T, pid int, states string) {
	t.Helper()
	var s stat
	for range 500 {
		var err error
		if s, err = readStat(pid); err == nil && strings.IndexByte(states, s.state) >= 0 {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatalf("process %d is in state %c, want one of %s", pid, s.state, states)
}

func TestStopAndContinueTogether(t *testing.T) {
	for _, sig := range []unix.Signal{unix.SIGSTOP, unix.SIGTSTP, unix.SIGTTIN, unix.SIGTTOU} {
		t.Run(unix.SignalName(sig), func(t *testing.T) {
			s := start(t, "echo $$; trap 'echo on; exit 4' USR1; while :; do sleep 0.01; done")
			command, front := s.number(), s.cmd.Process.Pid
			for range 3 {
				if err := unix.Kill(command, sig); err != nil {
					t.Fatal(err)
				}
				var status unix.WaitStatus
				if _, err := unix.Wait4(front, &status, unix.WUNTRACED, nil); err != nil {
					t.Fatal(err)
				}
				if !status.Stopped() || status.StopSignal() != sig {
					t.Fatalf("the front: status %#x, want stopped by %v", status, sig)
				}
				waitForState(t, command, "T")
				s.kill(unix.SIGCONT) // to the front alone
				waitForState(t, command, "SR")
			}
			s.kill(unix.SIGUSR1)
			s.expect("on")
			s.end(4)
		})
	}
}

// A command that closes its standard output is the last to hold it.
func TestOutputEndsWithTheCommands(t *testing.T) {
	s := start(t, "echo text; trap 'exit 6' USR1; exec >/dev/null; while :; do sleep 0.01; done")
	s.expect("text")
	if rest, err := io.ReadAll(s.out); err != nil || len(rest) > 0 {
		t.Errorf("read %q, %v; want the end of the file", rest, err)
	}
	s.kill(unix.SIGUSR1)
	s.end(6)
}

func TestFrontDoesNotHoldTheWorkingDirectory(t *testing.T) {
	s := start(t, "trap 'exit 6' USR1; cd /tmp; echo ready; while :; do sleep 0.01; done")
	s.expect("ready")
	// The command may be faster than the front.
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		dir, err := os.Readlink(fmt.Sprintf("/proc/%d/cwd", s.cmd.Process.Pid))
		if err == nil && dir == "/" {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("the front is in %q, %v; want /", dir, err)
		}
	}
	s.kill(unix.SIGUSR1)
	s.end(6)
}

func TestParseStat(t *testing.T) {
	tests := []struct {
		line string
		want stat
		ok   bool
	}{
		{"12 (cat) R 7 12 7 0 -1", stat{'R', 7}, true},
		{"12 (a ) S 3 (b) T 8 12 7 0 -1", stat{'T', 8}, true},
		{"12 cat R 7", stat{}, false},
		{"12 (cat)", stat{}, false},
		{"12 (cat) R", stat{}, false},
		{"", stat{}, false},
	}
	for _, test := range tests {
		got, err := parseStat(test.line)
		if (err == nil) != test.ok || test.ok && got != test.want {
			t.Errorf("parseStat(%q) = %+v, %v", test.line, got, err)
		}
	}
}

func FuzzParseStat(f *testing.F) {
	f.Add("12 (cat) R 7 12 7 0 -1")
	f.Fuzz(func(t *testing.T, line string) {
		if _, err := parseStat(line); err != nil && !errors.Is(err, errStat) {
			t.Errorf("%v does not wrap errStat", err)
		}
	})
}

func TestForCommand(t *testing.T) {
	tests := []struct {
		name string
		info info
		want bool
	}{
		{"from another process", info{unix.SIGTERM, siUser, 1}, true},
		{"from outside the namespace", info{unix.SIGTERM, siUser, 0}, true},
		{"from a process that is gone", info{unix.SIGTERM, siUser, 1 << 22}, true},
		{"from the terminal", info{unix.SIGINT, 0x80, 0}, false},
		{"of a timer", info{unix.SIGALRM, -2, 0}, false},
		{"our own", info{unix.SIGPIPE, siUser, os.Getpid()}, false},
		{"to continue what runs", info{unix.SIGCONT, siUser, 1}, false},
		{"queued", info{unix.SIGUSR1, siQueue, 1}, true},
		{"to a thread", info{unix.SIGUSR1, siTkill, 1}, true},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if got := test.info.forCommand(os.Getppid()); got != test.want {
				t.Errorf("forCommand = %v, want %v", got, test.want)
			}
		})
	}
}

func executable(t *testing.T) string {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(t.TempDir(), "front")
	if err := os.Symlink(exe, link); err != nil {
		t.Fatal(err)
	}
	return link
}

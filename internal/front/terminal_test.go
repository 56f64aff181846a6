package front

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

func addressOf(b []byte) uintptr { return uintptr(unsafe.Pointer(unsafe.SliceData(b))) }

// terminal is a pseudo-terminal with an interactive bash in it, for which
// "front" is the program under test.
type terminal struct {
	t      *testing.T
	master *os.File
	mu     sync.Mutex
	text   string
}

func openTerminal(t *testing.T) *terminal {
	t.Helper()
	bash, err := exec.LookPath("bash")
	if err != nil {
		t.Skip("bash is not installed: no shell with job control")
	}
	fd, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	master := os.NewFile(uintptr(fd), "terminal")
	slave, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.IoctlSetWinsize(int(slave.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: 24, Col: 80}); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(bash, "--norc", "--noprofile", "-i")
	cmd.Env = append(os.Environ(), standIn+"=1", "PS1=[ready]", "TERM=xterm", "PATH="+filepath.Dir(executable(t))+":"+os.Getenv("PATH"))
	cmd.Stdin, cmd.Stdout, cmd.Stderr = slave, slave, slave
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	slave.Close()
	term := &terminal{t: t, master: master}
	go term.read()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		master.Close() // hangs up what is left
		if t.Failed() {
			t.Logf("the terminal showed:\n%s", term.shown())
		}
	})
	term.expect("[ready]")
	return term
}

func (t *terminal) read() {
	b := make([]byte, 4096)
	for {
		n, err := t.master.Read(b)
		t.mu.Lock()
		t.text += string(b[:n])
		t.mu.Unlock()
		if err != nil {
			return
		}
	}
}

// shown is what the terminal has shown since what was last expected.
func (t *terminal) shown() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.text
}

// expect waits until the terminal shows text, and forgets what came before.
func (t *terminal) expect(text string) {
	t.t.Helper()
	for range 1000 {
		t.mu.Lock()
		_, rest, found := strings.Cut(t.text, text)
		if found {
			t.text = rest
		}
		t.mu.Unlock()
		if found {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.t.Fatalf("the terminal does not show %q", text)
}

func (t *terminal) typeKeys(keys string) {
	t.t.Helper()
	if _, err := t.master.WriteString(keys); err != nil {
		t.t.Fatal(err)
	}
}

const (
	ctrlC = "\x03"
	ctrlZ = "\x1a"
	quit  = "\x1c"
)

func TestCtrlCReachesTheCommandOnce(t *testing.T) {
	term := openTerminal(t)
	term.typeKeys("front sh -c 'trap \"echo in\"\"terrupted\" INT; trap \"exit 3\" QUIT; echo sta\"\"rted; while :; do sleep 0.01; done'\r")
	term.expect("started")
	for range 3 {
		term.typeKeys(ctrlC)
		term.expect("interrupted")
	}
	time.Sleep(200 * time.Millisecond)
	if strings.Contains(term.shown(), "interrupted") {
		t.Error("an interrupt came twice")
	}
	term.typeKeys(quit)
	term.expect("[ready]")
	term.typeKeys("echo sta\"\"tus $?\r")
	term.expect("status 3")
}

func TestCtrlCEndsTheCommand(t *testing.T) {
	term := openTerminal(t)
	term.typeKeys("front sh -c 'echo sta\"\"rted; exec sleep 100'\r")
	term.expect("started")
	term.typeKeys(ctrlC)
	term.expect("[ready]")
	term.typeKeys("echo sta\"\"tus $?\r")
	term.expect("status 130")
}

func TestCtrlZAndForeground(t *testing.T) {
	term := openTerminal(t)
	term.typeKeys("front sh -c 'echo sta\"\"rted; read x; echo got $x; exit 8'\r")
	term.expect("started")
	for range 3 {
		term.typeKeys(ctrlZ)
		term.expect("Stopped")
		term.expect("[ready]")
		term.typeKeys("jobs\r")
		term.expect("Stopped")
		term.expect("[ready]")
		term.typeKeys("fg\r")
		term.expect("front sh")
	}
	term.typeKeys("words\r")
	term.expect("got words")
	term.expect("[ready]")
	term.typeKeys("echo sta\"\"tus $?\r")
	term.expect("status 8")
}

func TestBackground(t *testing.T) {
	term := openTerminal(t)
	// The child says that it has started: a shell that waits in vfork(2) for its
	// child's execve(2) would not stop together with that.
	term.typeKeys("front sh -c 'sh -c \"echo sta\\\"\\\"rted; exec sleep 0.5\"; echo wo\"\"ke; read x; echo got $x'\r")
	term.expect("started")
	term.typeKeys(ctrlZ)
	term.expect("Stopped")
	term.expect("[ready]")
	term.typeKeys("bg\r")
	term.expect("woke")
	// Reading from the terminal in the background stops the job.
	term.typeKeys("until jobs | grep -q Stopped; do sleep 0.1; done; echo has sto\"\"pped\r")
	term.expect("has stopped")
	term.typeKeys("fg\r")
	term.expect("front sh")
	term.typeKeys("words\n") // bash has left it in the mode for its own reading
	term.expect("got words")
	term.expect("[ready]")
}

// A program that handles Ctrl-Z itself is not stopped, and neither are we.
func TestCtrlZThatTheCommandHandles(t *testing.T) {
	term := openTerminal(t)
	term.typeKeys("front sh -c 'trap \"echo not n\"\"ow\" TSTP; trap \"exit 5\" INT; echo sta\"\"rted; while :; do read x; done'\r")
	term.expect("started")
	term.typeKeys(ctrlZ)
	term.expect("not now")
	term.typeKeys(ctrlZ)
	term.expect("not now")
	term.typeKeys(ctrlC)
	term.expect("[ready]")
	term.typeKeys("echo sta\"\"tus $?\r")
	term.expect("status 5")
}

func TestFullScreenPrograms(t *testing.T) {
	file := filepath.Join(t.TempDir(), "text")
	var text strings.Builder
	for i := range 100 {
		fmt.Fprintf(&text, "this is line %d\n", i+1)
	}
	text.WriteString("and so it ends\n")
	if err := os.WriteFile(file, []byte(text.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	tests := []struct{ program, first, end, last, quit string }{
		{"less", "this is line 20", "G", "and so it ends", "q"},
		{"vi", "this is line 20", "G", "and so it ends", ":q\r"},
	}
	for _, test := range tests {
		t.Run(test.program, func(t *testing.T) {
			if _, err := exec.LookPath(test.program); err != nil {
				t.Skip(test.program, "is not installed")
			}
			term := openTerminal(t)
			term.typeKeys("front " + test.program + " " + file + "\r")
			term.expect(test.first)
			term.typeKeys(ctrlZ)
			term.expect("Stopped")
			term.expect("[ready]")
			term.typeKeys("fg\r")
			term.expect(test.first)
			term.typeKeys(test.end)
			term.expect(test.last)
			term.typeKeys(test.quit)
			term.expect("[ready]")
			term.typeKeys("stty -a | tr ' ' '\\n' | grep -x icanon && echo coo\"\"ked\r")
			term.expect("cooked")
		})
	}
}

// A hangup ends the session's processes, and us with the command.
func TestHangup(t *testing.T) {
	term := openTerminal(t)
	file := filepath.Join(t.TempDir(), "pids")
	term.typeKeys("front sh -c 'echo $$ $PPID >" + file + "; echo sta\"\"rted; exec sleep 100'\r")
	term.expect("started")
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var command, front int
	if _, err := fmt.Sscan(string(text), &command, &front); err != nil {
		t.Fatal(err)
	}
	term.master.Close()
	for _, pid := range []int{command, front} {
		for range 500 {
			s, err := readStat(pid)
			if err != nil || s.state == 'Z' {
				pid = 0
				break
			}
			time.Sleep(10 * time.Millisecond)
		}
		if pid != 0 {
			t.Errorf("process %d is still there", pid)
		}
	}
}

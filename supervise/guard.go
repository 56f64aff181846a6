package supervise

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/seed-055cd0c8/indirect/internal/listener"
	"github.com/seed-055cd0c8/indirect/internal/tracee"
)

// guard keeps a supervisor process running: it starts one, and another when
// that one dies before the last process under the filter has ended. It holds
// the listener too, so that trapped calls wait in between instead of failing.
type guard struct {
	config   config
	listener *os.File
	ledger   *os.File
	files    []*os.File // of the extensions
	log      io.Writer

	mu      sync.Mutex
	pid     int // of the supervisor, 0 while there is none
	control *os.File
	closed  bool
	done    chan struct{} // closed when the last supervisor has ended
}

// supervisorName is argv[0] of a supervisor process: see [Main].
const supervisorName = "indirect-supervisor"

// The files that a supervisor inherits.
const (
	listenerFD = 3 + iota
	ledgerFD
	controlFD
)

// start starts the first supervisor and returns when it is ready.
func (g *guard) start() error {
	const tries = 3 // it may be killed before it is ready
	cmd, err := g.spawn()
	for i := 1; err != nil && i < tries; i++ {
		cmd, err = g.spawn()
	}
	if err != nil {
		return err
	}
	g.done = make(chan struct{})
	go g.watch(cmd)
	return nil
}

// spawn starts a supervisor and waits until it is ready.
func (g *guard) spawn() (*exec.Cmd, error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("create the supervisor's control socket: %w", err)
	}
	ours, theirs := os.NewFile(uintptr(pair[0]), "control"), os.NewFile(uintptr(pair[1]), "control")
	cmd := exec.Command("/proc/self/exe")
	cmd.Args = []string{supervisorName}
	for _, x := range g.config.Extensions {
		cmd.Args = append(cmd.Args, x.Name)
	}
	cmd.Dir = "/"
	cmd.ExtraFiles = append([]*os.File{g.listener, g.ledger, theirs}, g.files...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // out of the terminal's reach
	stdin, err1 := cmd.StdinPipe()
	stderr, err2 := cmd.StderrPipe()
	if err = errors.Join(err1, err2); err == nil {
		err = startUnhurried(cmd)
	}
	theirs.Close() // or its end would not end ours
	if err != nil {
		ours.Close()
		return nil, fmt.Errorf("start the supervisor: %w", err)
	}
	go g.relay(stderr)
	err = json.NewEncoder(stdin).Encode(g.config)
	stdin.Close()
	if err == nil {
		var ready [1]byte
		_, err = io.ReadFull(ours, ready[:])
	}
	if err != nil {
		ours.Close()
		cmd.Process.Kill()
		cmd.Wait()
		return nil, fmt.Errorf("the supervisor did not become ready: %w", err)
	}
	g.mu.Lock()
	if g.control != nil {
		g.control.Close()
	}
	g.control, g.pid = ours, cmd.Process.Pid
	g.mu.Unlock()
	return cmd, nil
}

// startUnhurried starts cmd with timers that may be late by a millisecond.
//
// A thread of the Go runtime watches over the others, and sleeps 20 µs at a time
// while any of them is in a call (sysmon in runtime/proc.go): with timers as
// exact as usual, a supervisor with little to do interrupts the program it
// serves ten thousand times a second. Slack is inherited by fork and kept by
// execve (PR_SET_TIMERSLACK(2const)).
func startUnhurried(cmd *exec.Cmd) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	usual, err := unix.PrctlRetInt(unix.PR_GET_TIMERSLACK, 0, 0, 0, 0)
	if err == nil {
		_ = unix.Prctl(unix.PR_SET_TIMERSLACK, uintptr(time.Millisecond), 0, 0, 0)
		defer func() { _ = unix.Prctl(unix.PR_SET_TIMERSLACK, uintptr(usual), 0, 0, 0) }()
	}
	return cmd.Start()
}

// relay passes on what a supervisor has to say.
func (g *guard) relay(r io.Reader) {
	for s := bufio.NewScanner(r); s.Scan(); {
		fmt.Fprintf(g.log, "indirect: supervisor: %s\n", s.Text())
	}
}

// watch replaces supervisors that die.
func (g *guard) watch(cmd *exec.Cmd) {
	defer close(g.done)
	for {
		err := cmd.Wait()
		if err == nil {
			return // nobody is left to supervise
		}
		g.mu.Lock()
		closed := g.closed
		g.pid = 0
		g.mu.Unlock()
		if closed {
			return
		}
		for {
			if cmd, err = g.spawn(); err == nil {
				break
			}
			fmt.Fprintf(g.log, "indirect: %v; trying again\n", err)
			const pause = 100 * time.Millisecond
			time.Sleep(pause)
		}
	}
}

// leave ends the guarding. The supervisor goes on by itself: it notices, and
// becomes the guard of a successor.
func (g *guard) leave() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.closed = true
	if g.control != nil {
		g.control.Close()
	}
	g.listener.Close()
}

// Main runs a supervisor process if this process was started as one, and then
// does not return. A program that uses [New] must call it first thing in main,
// with the extensions that it has, by name. It may be called several times, by
// packages that each have extensions of their own: the first call that has all
// that are needed runs the supervisor.
func Main(extensions map[string]Open) {
	if os.Args[0] != supervisorName {
		return
	}
	for _, name := range os.Args[1:] {
		if extensions[name] == nil {
			return
		}
	}
	if err := superviseMain(extensions); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

func superviseMain(extensions map[string]Open) error {
	var c config
	if err := json.NewDecoder(os.Stdin).Decode(&c); err != nil {
		return fmt.Errorf("read the supervisor's configuration: %w", err)
	}
	last := controlFD
	for _, fd := range c.Files {
		last = max(last, fd)
	}
	closeInherited(last + 1)
	for fd := listenerFD; fd <= last; fd++ {
		unix.CloseOnExec(fd)
	}
	notify := os.NewFile(listenerFD, "listener")
	shared := os.NewFile(ledgerFD, "ledger")
	// For the Go runtime's poller: unless a thread waits there, the runtime
	// starts one each time when our last worker goes back to receiving
	// (handoffp in runtime/proc.go).
	if err := unix.SetNonblock(controlFD, true); err != nil {
		return fmt.Errorf("prepare the supervisor's control socket: %w", err)
	}
	control := os.NewFile(controlFD, "control")
	led, err := openLedger(shared)
	if err != nil {
		return err
	}
	l := listener.New(notify)
	if !c.NoSyncWakeUp {
		_ = l.SyncWakeUp() // an optimisation: kernels before 6.6 lack it
	}
	_ = tracee.QuietStops() // another one
	e, err := newEngine(c, l, led)
	if err != nil {
		return err
	}
	files, err := e.load(extensions)
	if err != nil {
		return err
	}
	var left []*flight
	if led.started.Add(1) > 1 {
		left = e.recover()
	}
	if _, err := control.Write([]byte{1}); err != nil {
		return fmt.Errorf("tell the guard that the supervisor is ready: %w", err)
	}
	err = e.serve(control, left)
	switch {
	case errors.Is(err, listener.ErrDone):
		return nil
	case errors.Is(err, errStopped):
		// The front has gone; descendants of its command go on. Somebody must
		// hold the listener when a supervisor dies: from now on, that is us.
		g := &guard{config: c, listener: notify, ledger: shared, files: files, log: io.Discard}
		if err := g.start(); err != nil {
			return err
		}
		<-g.done
		return nil
	}
	return err
}

// load makes the handlers of the extensions, and returns their files.
func (e *engine) load(extensions map[string]Open) (files []*os.File, err error) {
	for i, x := range e.Extensions {
		open, ok := extensions[x.Name]
		if !ok {
			return nil, fmt.Errorf("the supervisor knows no extension %q", x.Name)
		}
		var file *os.File
		if fd := e.Files[i]; fd >= 0 {
			file = os.NewFile(uintptr(fd), x.Name)
			files = append(files, file)
		}
		h, err := open(x.Config, file)
		if err != nil {
			return nil, fmt.Errorf("start the extension %s: %w", x.Name, err)
		}
		e.extensions = append(e.extensions, loaded{x, h})
	}
	return files, nil
}

// closeInherited closes the descriptors from first on that our starter did
// not mean for us: those of the shell that started it.
func closeInherited(first int) {
	names, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return
	}
	for _, n := range names {
		var fd int
		if _, err := fmt.Sscan(n.Name(), &fd); err != nil || fd < first {
			continue
		}
		// Go's own descriptors are close-on-exec.
		if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err == nil && flags&unix.FD_CLOEXEC == 0 {
			unix.Close(fd)
		}
	}
}

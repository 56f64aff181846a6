package probe

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/seed-055cd0c8/indirect/fdcall"
)

// proberName is argv[0] of a prober.
const proberName = "indirect-prober"

// patience is how long a prober may take. Nothing that it does blocks.
const patience = 20 * time.Second

// order is what a prober reads from standard input.
type order struct{ Names []string }

// Main runs a prober if this process was started as one, and then does not
// return. A program that uses [Find] must call it first thing in main.
func Main() {
	if os.Args[0] != proberName {
		return
	}
	if err := prober(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// prober tries the calls that it is told, and writes a finding for each. It
// flushes each before it goes on: the next one may be its end.
func prober() error {
	var o order
	if err := json.NewDecoder(os.Stdin).Decode(&o); err != nil {
		return fmt.Errorf("read what to probe: %w", err)
	}
	chosen, err := subjects(native(), o.Names)
	if err != nil {
		return err
	}
	e := examiner{trials: trials(), filtered: filtered()}
	out := json.NewEncoder(os.Stdout)
	for _, x := range chosen {
		if err := out.Encode(e.apart(x)); err != nil {
			return fmt.Errorf("write a finding: %w", err)
		}
	}
	return nil
}

// apart examines a call on a thread of its own, which ends with it if the call
// has made it useless.
func (e *examiner) apart(x subject) Finding {
	found := make(chan Finding)
	go func() {
		runtime.LockOSThread()
		found <- e.examine(x)
		if !e.trials[x.name].locked {
			runtime.UnlockOSThread()
		}
	}()
	return <-found
}

// errNoProber says that a prober cannot even be started: Go needs pipe2 for that.
var errNoProber = errors.New("start a prober")

// here examines a call in this process, for want of another one.
func (e *examiner) here(x subject) Finding {
	if e.trials[x.name].locked {
		return Finding{Name: x.name, State: Unknown, Cloexec: NotTried, Nonblock: NotTried, Detail: "not tried: no process could be started for it"}
	}
	return e.apart(x)
}

func native() fdcall.ABI {
	return map[string]fdcall.ABI{"amd64": fdcall.AMD64, "386": fdcall.I386, "arm64": fdcall.ARM64}[runtime.GOARCH]
}

// find tries the calls in probers: a call that kills one is what the next one
// begins behind.
func find(ctx context.Context, names []string) ([]Finding, error) {
	chosen, err := subjects(native(), names)
	if err != nil {
		return nil, err
	}
	var all []Finding
	for len(all) < len(chosen) {
		var rest []string
		for _, x := range chosen[len(all):] {
			rest = append(rest, x.name)
		}
		found, end := probe(ctx, rest)
		all = append(all, found...)
		switch {
		case ctx.Err() != nil:
			return nil, ctx.Err()
		case len(all) == len(chosen):
		case errors.Is(end, errNoProber):
			e := examiner{trials: trials(), filtered: filtered()}
			for _, x := range chosen[len(all):] {
				all = append(all, e.here(x))
			}
		case end == nil:
			return nil, errors.New("the prober ended early")
		default:
			f := Finding{Name: chosen[len(all)].name, State: Unknown, Cloexec: NotTried, Nonblock: NotTried, Detail: end.Error()}
			var killed *exec.ExitError
			if errors.As(end, &killed) {
				if status, ok := killed.Sys().(syscall.WaitStatus); ok && status.Signaled() && status.Signal() == unix.SIGSYS {
					f.State, f.Detail = Blocked, "a seccomp filter kills the caller"
				} else if len(found) == 0 && killed.ExitCode() > 0 {
					return nil, fmt.Errorf("the prober could not begin: %w", end)
				}
			}
			all = append(all, f)
		}
	}
	return all, nil
}

// probe runs one prober, and returns what it found and how it ended.
func probe(ctx context.Context, names []string) ([]Finding, error) {
	// A message queue is the one thing that would outlive a prober that dies.
	defer func() {
		if at, err := unix.BytePtrFromString(queue(os.Getpid())); err == nil {
			unlink(at)
		}
	}()
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, "/proc/self/exe")
	cmd.Args = []string{proberName}
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errNoProber, err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errNoProber, err)
	}
	// Pdeathsig is about the thread that starts the prober.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("%w: %w", errNoProber, err)
	}
	err = json.NewEncoder(in).Encode(order{names})
	in.Close()
	var found []Finding
	for lines := bufio.NewScanner(out); err == nil && lines.Scan(); {
		var f Finding
		if err = json.Unmarshal(lines.Bytes(), &f); err == nil {
			found = append(found, f)
		}
	}
	end := cmd.Wait()
	if ctx.Err() != nil {
		end = errors.New("it does not return")
	}
	return found, errors.Join(err, end)
}

package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"sort"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/seed-055cd0c8/indirect/fdcall"
	"github.com/seed-055cd0c8/indirect/internal/oldkernel"
)

// trial runs a command again and again on simulated kernels.
type trial struct {
	ctx  context.Context
	argv []string
	said bytes.Buffer // by the last run, on standard error
}

// status runs the command with the given flags, with nothing to read and
// nowhere to write, and returns its exit status.
func (t *trial) status(flags ...string) (int, error) {
	t.said.Reset()
	args := append(append([]string{"run"}, flags...), "--")
	cmd := exec.CommandContext(t.ctx, "/proc/self/exe", append(args, t.argv...)...)
	cmd.Args[0] = os.Args[0]
	cmd.Stderr = &t.said
	cmd.Cancel = func() error { return cmd.Process.Signal(unix.SIGTERM) }
	err := cmd.Run()
	var exit *exec.ExitError
	switch {
	case t.ctx.Err() != nil:
		return 0, errors.New("interrupted")
	case err == nil:
		return 0, nil
	case errors.As(err, &exit):
		return exit.ExitCode(), nil
	}
	return 0, fmt.Errorf("run %s: %w", t.argv[0], err)
}

// lastLine is the end of what the last run said.
func (t *trial) lastLine() string {
	lines := strings.Split(strings.TrimSpace(t.said.String()), "\n")
	if last := lines[len(lines)-1]; last != "" {
		return ": " + last
	}
	return ""
}

// bisectKernel finds the oldest kernel on which the command exits 0, and what
// it lacks on the one before.
func bisectKernel(ctx context.Context, argv []string, out io.Writer) error {
	if ctx == nil {
		ctx = context.Background()
	}
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, unix.SIGTERM, unix.SIGHUP)
	defer stop()
	running, err := oldkernel.Running()
	if err != nil {
		return err
	}
	versions := oldkernel.Versions(runtime.GOARCH, running)
	t := &trial{ctx: ctx, argv: argv}
	newest := versions[len(versions)-1]
	status, err := t.status("--kernel", newest.String())
	if err != nil {
		return err
	}
	if status != 0 {
		return fmt.Errorf("the command exits %d on Linux %s already%s", status, newest, t.lastLine())
	}
	// The search for the first version that succeeds, in which an error is a
	// failure that ends it.
	oldest := sort.Search(len(versions)-1, func(i int) bool {
		if err != nil {
			return true
		}
		status, err = t.status("--kernel", versions[i].String())
		return err == nil && status == 0
	})
	if err != nil {
		return err
	}
	if oldest == 0 {
		_, err = fmt.Fprintf(out, "The command exits 0 even on Linux %s, the oldest kernel that can be simulated.\n", versions[0])
		return err
	}
	below := versions[oldest-1]
	if status, err = t.status("--kernel", below.String()); err != nil {
		return err
	}
	said := t.lastLine()
	wants, err := t.wants(versions[oldest])
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(out, "Linux %s is the oldest kernel on which the command exits 0.\nOn Linux %s it exits %d for want of %s%s\n",
		versions[oldest], below, status, wants, said)
	return err
}

// wants finds out which of the things that are new in a version the command
// cannot do without.
func (t *trial) wants(v fdcall.Version) (string, error) {
	names := oldkernel.NewIn(runtime.GOARCH, v)
	fails := func(names ...string) (bool, error) {
		status, err := t.status("--kernel", v.String(), "--without", strings.Join(names, ","))
		return status != 0, err
	}
	switch failed, err := fails(names...); {
	case err != nil:
		return "", err
	case !failed:
		return "the version that uname tells", nil
	}
	var needed []string
	for _, name := range names {
		failed, err := fails(name)
		if err != nil {
			return "", err
		}
		if failed {
			needed = append(needed, name)
		}
	}
	if needed == nil {
		return "one of " + strings.Join(names, ", ") + ": any one of them can be missing alone", nil
	}
	return strings.Join(needed, ", "), nil
}

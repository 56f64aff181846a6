package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// The bars for memory.
const (
	residentBar = 30 << 10 // KiB resident in the supervisor
	mappedBar   = 64       // KiB mapped in an image
	touchedBar  = 2        // pages touched in an image
)

// memory is what the engine takes, in itself and in the programs it serves.
type memory struct {
	NotRun string  `json:"not_run,omitempty"`
	Failed bool    `json:"failed,omitempty"`
	Served []usage `json:"served,omitempty"`
	Image  image   `json:"image"`
}

// usage is the memory of our own processes with a number of processes served.
type usage struct {
	Processes  int   `json:"processes"`
	Front      int64 `json:"front_kib"`      // VmRSS of the process that waits for the command
	Supervisor int64 `json:"supervisor_kib"` // VmRSS of its child that serves the calls
	Peak       int64 `json:"supervisor_peak_kib"`
}

// image is what one served program image has more than the same program bare.
type image struct {
	Mapped  int64 `json:"mapped_kib"`    // our mappings
	Touched int64 `json:"touched_pages"` // resident pages of them
	Patched int64 `json:"patched_pages"` // pages of program text that became private copies
}

// settle is how long the processes get to come to rest.
const settle = 300 * time.Millisecond

func measureMemory(ctx context.Context, l *lab) (*memory, error) {
	if lack := lacks([]tool{gcc}); lack != "" {
		return &memory{NotRun: lack}, nil
	}
	m := &memory{}
	var bareImage, served image
	err := l.withCrowd(ctx, l.modes[0], 1, func(_ int, member int) (err error) {
		bareImage, err = readImage(member)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("bare: %w", err)
	}
	for _, n := range []int{1, 500} {
		if err := l.withCrowd(ctx, l.modes[1], n, func(runner, member int) error {
			u, err := readUsage(runner)
			u.Processes = n
			m.Served = append(m.Served, u)
			if err == nil {
				served, err = readImage(member)
			}
			return err
		}); err != nil {
			m.NotRun, m.Failed = fmt.Sprintf("failed with %d processes: %s", n, lastLine(err.Error())), true
			return m, ctx.Err()
		}
	}
	m.Image = image{served.Mapped - bareImage.Mapped, served.Touched - bareImage.Touched, served.Patched - bareImage.Patched}
	return m, nil
}

// withCrowd runs n processes that have created descriptors and wait, and
// calls look with the process that runs them and the last of them.
func (l *lab) withCrowd(ctx context.Context, m mode, n int, look func(runner, member int) error) (err error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	cmd := start(ctx, l.dir, m.wrap(l.program("crowd", "glibc"), strconv.Itoa(n)))
	hold, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	ids, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	var said strings.Builder
	cmd.Stderr = &said
	if err := cmd.Start(); err != nil {
		return err
	}
	defer func() {
		hold.Close() // the crowd ends when its standard input does
		if e := cmd.Wait(); e != nil {
			err = errors.Join(err, fmt.Errorf("%w: %s", e, lastLine(said.String())))
		}
	}()
	var member int
	lines := bufio.NewScanner(ids)
	for range n {
		if !lines.Scan() {
			return fmt.Errorf("the crowd ended early: %w", errors.Join(lines.Err(), io.ErrUnexpectedEOF))
		}
		if member, err = strconv.Atoi(lines.Text()); err != nil {
			return fmt.Errorf("the crowd said %q: %w", lines.Text(), err)
		}
	}
	time.Sleep(settle)
	return look(cmd.Process.Pid, member)
}

// readUsage reads the resident size of the front and of its child that runs
// the same executable: the supervisor.
func readUsage(front int) (u usage, err error) {
	status, err := readStatus(front)
	if err != nil {
		return u, err
	}
	u.Front = status["VmRSS"]
	self, err := os.Readlink(exe(front))
	if err != nil {
		return u, err
	}
	all, err := filepath.Glob("/proc/[0-9]*/exe")
	if err != nil {
		return u, err
	}
	for _, e := range all {
		pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(e)))
		if target, err := os.Readlink(e); err != nil || target != self {
			continue
		}
		status, err := readStatus(pid)
		if err != nil || status["PPid"] != int64(front) {
			continue // it has ended, or serves another command
		}
		u.Supervisor, u.Peak = status["VmRSS"], status["VmHWM"]
		return u, nil
	}
	return u, errors.New("the runner has no child of its own executable: no supervisor to measure")
}

func exe(pid int) string { return fmt.Sprintf("/proc/%d/exe", pid) }

// readStatus reads the numbers of /proc/PID/status (proc_pid_status(5)).
func readStatus(pid int) (map[string]int64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return nil, err
	}
	return parseStatus(string(text)), nil
}

func parseStatus(text string) map[string]int64 {
	status := map[string]int64{}
	for line := range strings.Lines(text) {
		key, value, _ := strings.Cut(line, ":")
		if f := strings.Fields(value); len(f) > 0 {
			if n, err := strconv.ParseInt(f[0], 10, 64); err == nil {
				status[key] = n
			}
		}
	}
	return status
}

// below is where our stub is mapped: in a position-independent program nothing else is.
const below = 0x7fff8000

func readImage(pid int) (image, error) {
	f, err := os.Open(fmt.Sprintf("/proc/%d/smaps", pid))
	if err != nil {
		return image{}, err
	}
	defer f.Close()
	return parseImage(f)
}

// parseImage adds up the mappings of an smaps file that can be ours: those
// below [below] and anonymous executable ones anywhere.
func parseImage(smaps io.Reader) (i image, err error) {
	const pageKiB = 4
	var ours, text bool
	lines := bufio.NewScanner(smaps)
	for lines.Scan() {
		f := strings.Fields(lines.Text())
		if len(f) < 2 {
			continue
		}
		if from, _, ok := strings.Cut(f[0], "-"); ok && len(f) >= 5 {
			start, err := strconv.ParseUint(from, 16, 64)
			if err != nil {
				return i, fmt.Errorf("smaps: %w", err)
			}
			executable := strings.Contains(f[1], "x")
			ours = start < below || executable && len(f) == 5
			text = executable && len(f) > 5 && !ours
			continue
		}
		kib, err := strconv.ParseInt(f[1], 10, 64)
		if err != nil {
			continue // VmFlags
		}
		switch {
		case ours && f[0] == "Size:":
			i.Mapped += kib
		case ours && f[0] == "Rss:":
			i.Touched += kib / pageKiB
		case text && f[0] == "Private_Dirty:":
			i.Patched += kib / pageKiB
		}
	}
	return i, lines.Err()
}

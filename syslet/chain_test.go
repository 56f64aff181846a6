package syslet

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func one(c Chain) iter.Seq2[int, Chain] {
	return func(yield func(int, Chain) bool) { yield(7, c) }
}

// outcome is what a chain's results look like, written down.
func outcome(c Completion[int]) string {
	s := ""
	for i := range c.f.steps {
		if i > 0 {
			s += " "
		}
		n, err := c.N(i)
		switch {
		case !c.Ran(i):
			s += "-"
		case err != nil:
			s += unix.ErrnoName(err.(unix.Errno))
		default:
			s += fmt.Sprint(n)
		}
	}
	if err := c.Err(); err != nil {
		s += fmt.Sprintf(" failed at %d", c.f.failed)
	}
	return s
}

func TestActions(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "file")
	if err := os.WriteFile(path, []byte("0123456789"), 0o600); err != nil {
		t.Fatal(err)
	}
	missing := filepath.Join(dir, "missing")
	open := Step{Call: Open, Path: path}
	read := func(n int, short Action) Step {
		return Step{Call: Read, Fd: Opened(0), Data: Own(0, n), OnShort: short}
	}
	tests := []struct {
		name  string
		chain Chain
		want  string
	}{
		{"empty", Chain{}, ""},
		{"nop", Chain{{}}, "0"},
		{"whole", Chain{open, read(10, Stop), {Call: Close, Fd: Opened(0)}}, "0 10 0"},
		{"short stops", Chain{open, read(11, Stop), {Call: Nop}}, "0 10 - failed at 1"},
		{"short ignored", Chain{open, read(11, Ignore), {Call: Nop}}, "0 10 0"},
		{"short skips", Chain{open, read(11, Goto(3)), {Call: Nop}, {Call: Nop}}, "0 10 - 0"},
		{"everything ignored", Chain{open, {Call: Read, Fd: Opened(0), Data: Own(0, 11), OnError: Ignore, OnShort: Ignore, OnEnd: Ignore}, {Call: Nop}}, "0 10 0"},
		{"end stops", Chain{open, {Call: Read, Fd: Opened(0), Data: Own(0, 5), Off: 10, OnShort: Ignore}, {Call: Nop}}, "0 0 - failed at 1"},
		{"end skips", Chain{open, {Call: Read, Fd: Opened(0), Data: Own(0, 5), Off: 10, OnShort: Ignore, OnEnd: Goto(3)}, {}, {}}, "0 0 - 0"},
		{"no byte wanted", Chain{open, read(0, Stop), {Call: Nop}}, "0 0 0"},
		{"error stops", Chain{{Call: Open, Path: missing}, read(10, Stop)}, "ENOENT - failed at 0"},
		{"error ignored", Chain{{Call: Unlink, Path: missing, OnError: Ignore}, {}, {}}, "ENOENT 0 0"},
		{"error skips", Chain{{Call: Unlink, Path: missing, OnError: Goto(2)}, {}, {}}, "ENOENT - 0"},
		{"skip to the end", Chain{{Call: Unlink, Path: missing, OnError: Goto(2)}, {}}, "ENOENT -"},
		{"jump", Chain{{Call: Jump, Flags: 2}, {}, {}}, "0 - 0"},
		{"closed twice", Chain{open, {Call: Close, Fd: Opened(0)}, {Call: Close, Fd: Opened(0)}}, "0 0 EBADF failed at 2"},
		{"used after close", Chain{open, {Call: Close, Fd: Opened(0)}, read(1, Stop)}, "0 0 EBADF failed at 2"},
		{"used when not opened", Chain{{Call: Open, Path: missing, OnError: Ignore}, read(1, Stop)}, "ENOENT EBADF failed at 1"},
		{"middle fails", Chain{open, {Call: Unlink, Path: missing}, {}, {}}, "0 ENOENT - - failed at 1"},
		{"stat", Chain{{Call: Stat, Path: path, Mode: unix.STATX_SIZE}, open, {Call: Stat, Fd: Opened(1), Flags: unix.AT_EMPTY_PATH, Mode: unix.STATX_SIZE}}, "0 0 0"},
		{"directory opened by the chain", Chain{{Call: Open, Path: dir, Flags: unix.O_DIRECTORY}, {Call: Open, Fd: Opened(0), Path: "file"},
			{Call: Read, Fd: Opened(1), Data: Own(0, 4)}, {Call: Fsync, Fd: Opened(0)}, {Call: Close, Fd: Opened(0)}}, "0 0 4 0 0"},
		{"bad descriptor", Chain{{Call: Read, Fd: Number(1 << 20), Data: Own(0, 1)}}, "EBADF failed at 0"},
		{"bad flags", Chain{{}, {Call: Unlink, Path: missing, Flags: 1 << 30}, {}}, "0 EINVAL - failed at 1"},
		{"bad accept", Chain{open, {Call: Accept, Fd: Opened(0)}}, "0 ENOTSOCK failed at 1"},
		{"bad recv", Chain{open, {Call: Recv, Fd: Opened(0), Data: Own(0, 1)}, {}}, "0 ENOTSOCK - failed at 1"},
		{"mkdir, rename, unlink", Chain{{Call: Mkdir, Path: dir + "/d", Mode: 0o700}, {Call: Rename, Path: dir + "/d", Path2: dir + "/e"},
			{Call: Unlink, Path: dir + "/e", Flags: unix.AT_REMOVEDIR}}, "0 0 0"},
		{"write and read back", Chain{{Call: Open, Path: dir + "/new", Flags: unix.O_RDWR | unix.O_CREAT | unix.O_TRUNC, Mode: 0o600},
			{Call: Write, Fd: Opened(0), Data: Bytes([]byte("hello"))}, {Call: Read, Fd: Opened(0), Data: Own(10, 15)}, {Call: Fsync, Fd: Opened(0), Flags: 1}}, "0 5 5 0"},
		{"length of another step", Chain{open, read(64, Ignore), {Call: Open, Path: dir + "/copy", Flags: unix.O_WRONLY | unix.O_CREAT | unix.O_TRUNC, Mode: 0o600},
			{Call: Write, Fd: Opened(2), Data: Own(0, 64).UpTo(1)}}, "0 10 0 10"},
		{"loop until the end", Chain{open, {Call: Open, Path: dir + "/loop", Flags: unix.O_WRONLY | unix.O_CREAT | unix.O_TRUNC, Mode: 0o600},
			{Call: Read, Fd: Opened(0), Data: Own(0, 3), Off: -1, OnShort: Ignore, OnEnd: Goto(5)},
			{Call: Write, Fd: Opened(1), Data: Own(0, 3).UpTo(2), Off: -1}, {Call: Jump, Flags: 2}}, "0 0 0 1 0"},
		{"open again in a loop", Chain{open, {Call: Unlink, Path: dir + "/copy", OnError: Goto(3)}, {Call: Jump, Flags: 0}, {}}, "0 ENOENT 0 0"},
	}
	eachBackend(t, Config{Depth: 4, Buffer: 64}, func(t *testing.T, e *Engine) {
		for _, test := range tests {
			before := openFiles(t)
			n := 0
			for c, err := range Run(t.Context(), e, one(test.chain)) {
				if err != nil {
					t.Fatalf("%s: %v", test.name, err)
				}
				if c.Value != 7 {
					t.Errorf("%s: the value is %d", test.name, c.Value)
				}
				if got := outcome(c); got != test.want {
					t.Errorf("%s: %s, want %s (%v)", test.name, got, test.want, c.Err())
				}
				n++
			}
			if n != 1 {
				t.Errorf("%s: %d completions", test.name, n)
			}
			if after := openFiles(t); after != before {
				t.Errorf("%s: %d descriptors open, %d before", test.name, after, before)
			}
		}
		if b, err := os.ReadFile(dir + "/loop"); err != nil || string(b) != "0123456789" {
			t.Errorf("the loop copied %q, %v", b, err)
		}
	})
}

func openFiles(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

// TestStopped holds that nothing behind a step that failed has an effect: it is
// the kernel that has to end a link there, and it does not for every operation.
func TestStopped(t *testing.T) {
	dir := t.TempDir()
	path, missing, trace := filepath.Join(dir, "file"), filepath.Join(dir, "missing"), filepath.Join(dir, "trace")
	if err := os.WriteFile(path, []byte("0123456789"), 0o600); err != nil {
		t.Fatal(err)
	}
	r, w := pipe(t)
	unix.Close(w)
	open := Step{Call: Open, Path: path}
	steps := []Step{
		{Call: Open, Path: missing},
		{Call: Read, Fd: Number(1 << 20), Data: Own(0, 1)},
		{Call: Read, Fd: Opened(0), Data: Own(0, 20)},
		{Call: Read, Fd: Opened(0), Data: Own(0, 20), Off: 10},
		{Call: Read, Fd: Opened(0), Data: Own(0, 20), OnError: Ignore},
		{Call: Write, Fd: Opened(0), Data: Own(0, 1)},
		{Call: Fsync, Fd: Number(r)},
		{Call: Stat, Path: missing},
		{Call: Rename, Path: missing, Path2: missing},
		{Call: Unlink, Path: missing},
		{Call: Mkdir, Path: dir},
		{Call: Accept, Fd: Opened(0)},
		{Call: Recv, Fd: Opened(0), Data: Own(0, 1)},
		{Call: Send, Fd: Opened(0), Data: Own(0, 1)},
	}
	eachBackend(t, Config{Depth: 1, Buffer: 64}, func(t *testing.T, e *Engine) {
		for _, s := range steps {
			for _, chain := range []Chain{
				{open, s, {Call: Mkdir, Path: trace}},
				{open, s, {Call: Open, Path: trace, Flags: unix.O_CREAT}, {}},
			} {
				for c, err := range Run(t.Context(), e, one(chain)) {
					if err != nil || c.f.failed != 1 || c.Ran(2) {
						t.Errorf("%s: %s, %v", s.Call, outcome(c), err)
					}
				}
				if _, err := os.Lstat(trace); err == nil {
					t.Errorf("%s failed, and the next step ran", s.Call)
					os.RemoveAll(trace)
				}
			}
		}
	})
}

func TestValidate(t *testing.T) {
	open := Step{Call: Open, Path: "x"}
	tests := map[string]Chain{
		"too long":                make(Chain, MaxSteps+1),
		"too many opened":         {open, open, open, open, open},
		"no such call":            {{Call: numCalls}},
		"action behind the end":   {{OnError: Goto(2)}},
		"negative action":         {{OnError: -1}},
		"jump behind the end":     {{Call: Jump, Flags: 2}},
		"jump to itself":          {{Call: Jump, Flags: 0}},
		"opened later":            {{Call: Read, Fd: Opened(1)}, open},
		"opened by itself":        {{Call: Open, Fd: Opened(0)}},
		"opened by a read":        {{Call: Nop}, {Call: Read, Fd: Opened(0)}},
		"opened by step -1":       {{Call: Read, Fd: Opened(-1)}},
		"read of a directory":     {{Call: Read, Fd: CWD}},
		"close of a number":       {{Call: Close, Fd: Number(3)}},
		"zero byte":               {{Call: Unlink, Path: "a\x00b"}},
		"foreign memory":          {{Call: Read, Fd: Number(0), Data: Bytes(make([]byte, 1))}},
		"outside of the buffer":   {{Call: Read, Fd: Number(0), Data: Own(0, 65)}},
		"backwards":               {{Call: Read, Fd: Number(0), Data: Own(5, 4)}},
		"length of itself":        {{Call: Read, Fd: Number(0), Data: Own(0, 4).UpTo(0)}},
		"length of an open":       {open, {Call: Read, Fd: Opened(0), Data: Own(0, 4).UpTo(0)}},
		"connect of an open file": {open, {Call: Connect, Fd: Opened(0), Path: "x"}},
		"connect of a number":     {{Call: Connect, Fd: Number(3), Path: "x"}},
		"connect to nowhere":      {{Call: Socket}, {Call: Connect, Fd: Opened(0)}},
		"connect too far":         {{Call: Socket}, {Call: Connect, Fd: Opened(0), Path: strings.Repeat("x", 108)}},
		"connect to a named zone": {{Call: Socket}, {Call: Connect, Fd: Opened(0), Addr: netip.MustParseAddrPort("[fe80::1%eth0]:1")}},
		"connect without waiting": {{Call: Socket, Flags: unix.SOCK_NONBLOCK}, {Call: Connect, Fd: Opened(0), Path: "x"}},
		"negative timeout":        {{Call: Accept, Fd: Number(0), Timeout: -1}},
		"timeout of an fsync":     {{Call: Fsync, Fd: Number(0), Timeout: 1}},
		"multishot read":          {{Call: Read, Fd: Number(0), Multishot: true}},
		"multishot and timeout":   {{Call: Accept, Fd: Number(0), Multishot: true, Timeout: 1}},
		"paths too long":          {{Call: Unlink, Path: string(make([]byte, 0)) + fmt.Sprintf("%0*d", MaxPaths, 1)}},
	}
	e, err := New(Config{Depth: 1, Buffer: 64})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	for name, chain := range tests {
		t.Run(name, func(t *testing.T) {
			if err := chain.Validate(64); !errors.Is(err, ErrChain) {
				t.Errorf("Validate: %v", err)
			}
			n := 0
			for c, err := range Run(t.Context(), e, one(chain)) {
				n++
				if c.Err() != nil || c.Ran(0) || c.Own() != nil || c.Stat(0) != nil {
					t.Error("the completion that came with the error has results")
				}
				c.Take().Release()
				if !errors.Is(err, ErrChain) {
					t.Errorf("Run: %v", err)
				}
			}
			if n != 1 {
				t.Errorf("%d iterations, want one with the error", n)
			}
		})
	}
}

func TestErrors(t *testing.T) {
	eachBackend(t, Config{Depth: 1}, func(t *testing.T, e *Engine) {
		for c, err := range Run(context.Background(), e, one(Chain{{Call: Open, Path: "/no/such/file"}})) {
			if err != nil {
				t.Fatal(err)
			}
			var step *StepError
			if !errors.As(c.Err(), &step) || !errors.Is(c.Err(), fs.ErrNotExist) || step.Step != 0 {
				t.Errorf("Err is %#v", c.Err())
			}
			if got, want := c.Err().Error(), "step 0: open /no/such/file: no such file or directory"; got != want {
				t.Errorf("%q, want %q", got, want)
			}
		}
	})
}

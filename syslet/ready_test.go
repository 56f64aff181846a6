package syslet

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestReadFiles(t *testing.T) {
	dir := t.TempDir()
	want := map[string]string{}
	for i, size := range []int{0, 1, 63, 64, 65, 1000, 100_000} {
		path := filepath.Join(dir, fmt.Sprint(i))
		want[path] = strings.Repeat(string(rune('a'+i)), size)
		if err := os.WriteFile(path, []byte(want[path]), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	missing := filepath.Join(dir, "missing")
	for _, withStat := range []bool{false, true} {
		eachBackend(t, Config{Depth: 4, Buffer: 64}, func(t *testing.T, e *Engine) {
			got := map[string]string{}
			paths := append(slices.Collect(maps.Keys(want)), missing, dir)
			for f, err := range ReadFiles(t.Context(), e, slices.Values(paths), withStat) {
				switch {
				case err != nil:
					t.Fatal(err)
				case f.Path == missing:
					if !errors.Is(f.Err, fs.ErrNotExist) {
						t.Errorf("a missing file: %v", f.Err)
					}
				case f.Path == dir:
					if !errors.Is(f.Err, unix.EISDIR) {
						t.Errorf("a directory: %v", f.Err)
					}
				case f.Err != nil:
					t.Error(f.Err)
				default:
					got[f.Path] = string(f.Data)
					if withStat && (f.Stat == nil || int(f.Stat.Size) != len(f.Data)) {
						t.Errorf("%s: statx says %+v", f.Path, f.Stat)
					}
					if b := f.Take(); b != nil {
						b.Release()
					}
				}
			}
			if !maps.Equal(got, want) {
				t.Errorf("%d files read, some of them wrong", len(got))
			}
		})
	}
}

// TestCallsPerFile holds that a ring needs at most one system call for 16 files.
func TestCallsPerFile(t *testing.T) {
	if !haveRing() {
		return
	}
	paths := manyFiles(t, 2000, 100)
	e, err := New(Config{Backend: Ring, Batch: 64})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	for f, err := range ReadFiles(t.Context(), e, slices.Values(paths), false) {
		if err != nil || f.Err != nil || len(f.Data) != 100 {
			t.Fatal(err, f.Err, len(f.Data))
		}
	}
	if calls := int(e.SystemCalls()); calls*16 > len(paths) {
		t.Errorf("%d system calls for %d files", calls, len(paths))
	}
}

func TestWriteFile(t *testing.T) {
	eachBackend(t, Config{Depth: 4, Buffer: 64}, func(t *testing.T, e *Engine) {
		dir := t.TempDir()
		path := filepath.Join(dir, "file")
		for _, data := range []string{"first", "", strings.Repeat("third", 1000)} {
			if err := WriteFile(t.Context(), e, path, []byte(data), 0o640); err != nil {
				t.Fatal(err)
			}
			got, err := os.ReadFile(path)
			if err != nil || string(got) != data {
				t.Errorf("%d bytes, %v; want %d", len(got), err, len(data))
			}
			if info, err := os.Stat(path); err != nil || info.Mode().Perm()&^0o640 != 0 {
				t.Errorf("mode %v, %v", info.Mode(), err)
			}
		}
		// A directory in the way: the old stays, and nothing is left behind.
		blocked := filepath.Join(dir, "blocked")
		if err := os.MkdirAll(filepath.Join(blocked, "x"), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := WriteFile(t.Context(), e, blocked, []byte("x"), 0o600); !errors.Is(err, fs.ErrExist) && !errors.Is(err, unix.EISDIR) {
			t.Errorf("onto a directory: %v", err)
		}
		if err := WriteFile(t.Context(), e, filepath.Join(dir, "no", "file"), nil, 0o600); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("into a missing directory: %v", err)
		}
		cancelled, cancel := context.WithCancel(t.Context())
		cancel()
		if err := WriteFile(cancelled, e, path, []byte("late"), 0o600); !errors.Is(err, context.Canceled) {
			t.Errorf("cancelled: %v", err)
		}
		entries, err := os.ReadDir(dir)
		if err != nil || len(entries) != 2 {
			t.Errorf("the directory holds %v, %v", entries, err)
		}
	})
}

// TestWriteFull holds that a file that does not fit is undone: RLIMIT_FSIZE is
// the process's, so a full device stands in.
func TestWriteFull(t *testing.T) {
	eachBackend(t, Config{Depth: 1}, func(t *testing.T, e *Engine) {
		chain := Chain{{Call: Open, Path: "/dev/full", Flags: unix.O_WRONLY}, {Call: Write, Fd: Opened(0), Data: Bytes([]byte("x")), OnError: Goto(3)}, {}, {}}
		for c, err := range Run(t.Context(), e, one(chain)) {
			if got := outcome(c); err != nil || got != "0 ENOSPC - 0" {
				t.Errorf("%s, %v", got, err)
			}
		}
	})
}

func TestCopyTree(t *testing.T) {
	from := t.TempDir()
	for name, data := range map[string]string{"a": "", "b": "small", "dir/c": strings.Repeat("x", 64), "dir/sub/d": strings.Repeat("large", 10_000)} {
		path := filepath.Join(from, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(data), 0o640)); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(os.Symlink("b", from+"/link"), os.Mkdir(from+"/locked", 0o500), unix.Mkfifo(from+"/fifo", 0o600), os.Chmod(from+"/a", 0o755)); err != nil {
		t.Fatal(err)
	}
	eachBackend(t, Config{Depth: 4, Buffer: 64}, func(t *testing.T, e *Engine) {
		to := filepath.Join(t.TempDir(), "copy")
		reported := map[string]bool{}
		for c, err := range CopyTree(t.Context(), e, from, to) {
			if err != nil {
				t.Fatal(err)
			}
			if unsupported := errors.Is(c.Err, errors.ErrUnsupported); unsupported != (c.Path == "fifo") || !unsupported && c.Err != nil {
				t.Errorf("%s: %v", c.Path, c.Err)
			}
			if reported[c.Path] {
				t.Errorf("%s was reported twice", c.Path)
			}
			reported[c.Path] = true
		}
		if len(reported) != 10 {
			t.Errorf("%d reported: %v", len(reported), reported)
		}
		if got, want := listing(t, to), strings.Replace(listing(t, from), "fifo prw-------\n", "", 1); got != want {
			t.Errorf("copied:\n%swant:\n%s", got, want)
		}
		n := 0
		for _, err := range CopyTree(t.Context(), e, from, to) {
			if n++; !errors.Is(err, fs.ErrExist) {
				t.Errorf("onto an existing tree: %v", err)
			}
		}
		if n != 1 {
			t.Errorf("%d iterations", n)
		}
		for range CopyTree(t.Context(), e, from, to+"2") {
			break
		}
		within := filepath.Join(to, "within")
		for c, err := range CopyTree(t.Context(), e, to, within) {
			if err != nil || c.Err != nil {
				t.Error(c.Path, err, c.Err)
			}
		}
		if _, err := os.Stat(filepath.Join(within, "within")); err == nil {
			t.Error("the copy holds a copy of itself")
		}
	})
}

// listing is a tree with its modes and contents, written down.
func listing(t *testing.T, root string) string {
	t.Helper()
	var b strings.Builder
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == root {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		fmt.Fprintf(&b, "%s %v", strings.TrimPrefix(path, root+"/"), info.Mode())
		if info.Mode().IsRegular() {
			data, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			fmt.Fprintf(&b, " %d %.10q", len(data), data)
		}
		b.WriteByte('\n')
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestServe(t *testing.T) {
	eachBackend(t, Config{Depth: 4, Buffer: 64}, func(t *testing.T, e *Engine) {
		listener, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
		if err != nil {
			t.Fatal(err)
		}
		defer listener.Close()
		file, err := listener.File()
		if err != nil {
			t.Fatal(err)
		}
		defer file.Close()
		before := openFiles(t)
		const clients = 20
		answers := make(chan string, clients)
		for i := range clients {
			go func() {
				answers <- ask(listener.Addr().String(), fmt.Sprint("hello ", i))
			}()
		}
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		served := 0
		for conn, err := range Serve(ctx, e, int(file.Fd()), NonSequential) {
			if err != nil || conn.Err != nil {
				t.Fatal(err, conn.Err)
			}
			if flags, err := unix.FcntlInt(uintptr(conn.FD), unix.F_GETFD, 0); err != nil || flags&unix.FD_CLOEXEC == 0 {
				t.Errorf("descriptor %d: flags %#x, %v", conn.FD, flags, err)
			}
			unix.Write(conn.FD, bytes.ToUpper(conn.First))
			unix.Close(conn.FD)
			if served++; served == clients {
				break
			}
		}
		for range clients {
			if got := <-answers; !strings.HasPrefix(got, "HELLO ") {
				t.Errorf("a client was answered %q", got)
			}
		}
		if after := openFiles(t); after > before {
			t.Errorf("%d descriptors open, %d before", after, before)
		}
	})
}

func ask(address, question string) string {
	c, err := net.Dial("tcp", address)
	if err != nil {
		return err.Error()
	}
	defer c.Close()
	c.Write([]byte(question))
	answer := make([]byte, 100)
	n, err := c.Read(answer)
	if err != nil {
		return err.Error()
	}
	return string(answer[:n])
}

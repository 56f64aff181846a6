package main

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/seed-055cd0c8/indirect/syslet"
)

func tree(t *testing.T) (string, map[string][]byte) {
	t.Helper()
	dir, files := t.TempDir(), map[string][]byte{}
	for i, size := range []int{0, 1, 1000, buffer - 1, buffer, buffer + 1, 300_000} {
		path := filepath.Join(dir, fmt.Sprintf("d%d", i%2), fmt.Sprint(i))
		files[path] = []byte(strings.Repeat(string(rune('a'+i)), size))
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, files[path], 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("nowhere", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	return dir, files
}

func TestRun(t *testing.T) {
	dir, files := tree(t)
	for _, backend := range []syslet.Backend{syslet.Auto, syslet.Pool} {
		t.Run(backend.String(), func(t *testing.T) {
			var out strings.Builder
			if err := run(t.Context(), dir, backend, 2, true, &out, os.Stderr); err != nil {
				t.Fatal(err)
			}
			for path, data := range files {
				line := fmt.Sprintf("%08x  %s\n", crc32.Checksum(data, castagnoli), path)
				if !strings.Contains(out.String(), line) {
					t.Errorf("no line %q", line)
				}
			}
			for _, part := range []string{"7 files, 0.5 MB, 0 unreadable\n", "system calls a file\n", "times as fast\n"} {
				if !strings.Contains(out.String(), part) {
					t.Errorf("no %q in\n%s", part, out.String())
				}
			}
		})
	}
}

func TestRunFails(t *testing.T) {
	if err := run(t.Context(), t.TempDir(), syslet.Auto, 1, false, io.Discard, os.Stderr); err == nil {
		t.Error("an empty tree was read")
	}
	if err := run(t.Context(), "/no/such/tree", syslet.Auto, 1, false, io.Discard, os.Stderr); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a missing tree: %v", err)
	}
	dir, _ := tree(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := run(ctx, dir, syslet.Auto, 1, false, io.Discard, os.Stderr); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

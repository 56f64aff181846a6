package cli

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/seed-055cd0c8/indirect/include"
)

func TestInstallHeaders(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new", "directory")
	header, description := filepath.Join(dir, "indirect.h"), filepath.Join(dir, "pkgconfig", "indirect.pc")
	for range 2 { // the second time over the first one's files
		var out, errs bytes.Buffer
		if status := Execute([]string{"install-headers", dir}, &out, &errs); status != 0 || errs.Len() > 0 {
			t.Fatalf("status %d, %s", status, &errs)
		}
		if want := header + "\n" + description + "\n"; out.String() != want {
			t.Errorf("prints %q, want %q", &out, want)
		}
	}
	text, err := os.ReadFile(header)
	if err != nil || string(text) != include.Header() {
		t.Errorf("the header has %d bytes (%v), want %d", len(text), err, len(include.Header()))
	}
	text, err = os.ReadFile(description)
	if err != nil || !strings.Contains(string(text), "\nVersion: ") || strings.Contains(string(text), "@") {
		t.Errorf("%v, %q", err, text)
	}
	for _, name := range []string{header, description} {
		if info, err := os.Stat(name); err != nil || info.Mode() != 0o644 {
			t.Errorf("%s: %v, %v", name, info.Mode(), err)
		}
	}
	left, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil || len(left) != 2 {
		t.Errorf("the directory has %q", left)
	}
}

func TestInstallHeadersFails(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	occupied := t.TempDir()
	if err := os.Mkdir(filepath.Join(occupied, "indirect.h"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		args []string
		want string
	}{
		{nil, `indirect: install-headers takes one directory, not 0; write "indirect install-headers DIR"`},
		{[]string{"a", "b"}, `indirect: install-headers takes one directory, not 2; write "indirect install-headers DIR"`},
		{[]string{""}, "indirect: install-headers: the directory's name is empty"},
		{[]string{file}, "indirect: install-headers: mkdir " + file + ": not a directory"},
		{[]string{file + "/below"}, "indirect: install-headers: mkdir " + file + ": not a directory"},
		{[]string{occupied}, "indirect: install-headers: rename "},
		{[]string{"/proc/nowhere"}, "indirect: install-headers: mkdir /proc/nowhere: no such file or directory"},
	} {
		var out, errs bytes.Buffer
		status := Execute(append([]string{"install-headers"}, test.args...), &out, &errs)
		if status != 125 || out.Len() > 0 || !strings.HasPrefix(errs.String(), test.want) || strings.Count(errs.String(), "\n") != 1 {
			t.Errorf("%q: status %d, output %q, error %q; want %q", test.args, status, &out, &errs, test.want)
		}
	}
	if left, _ := filepath.Glob(filepath.Join(occupied, "*")); len(left) != 1 {
		t.Errorf("a failure leaves %q", left)
	}
}

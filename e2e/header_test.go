package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// Builds with include/indirect.h, in the languages at the ends of what it promises.
var (
	headerC89   = build{"c89", []string{"gcc", "-std=c89", "-pedantic", "-Wextra", "-I../include"}}
	headerMusl  = build{"c89-musl", []string{"musl-gcc", "-std=c89", "-pedantic", "-Wextra", "-static", "-I../include"}}
	headerI386  = build{"c89-i386", []string{"gcc", "-m32", "-std=c89", "-pedantic", "-Wextra", "-I../include"}}
	headerX32   = build{"c89-x32", []string{"gcc", "-mx32", "-std=c89", "-pedantic", "-Wextra", "-I../include"}}
	headerCxx20 = build{"c++20", []string{"g++", "-std=c++20", "-pedantic", "-Wextra", "-I../include", "-x", "c++"}}

	headerBuilds = []build{headerC89, headerMusl, headerI386, headerX32, headerCxx20}

	headerFaultsBuilds = []build{
		{"gnu", []string{"gcc", "-I../include"}},
		{"gnu-musl", []string{"musl-gcc", "-static", "-I../include"}},
		{"gnu-x32", []string{"gcc", "-mx32", "-I../include"}},
		{"gnu-i386", []string{"gcc", "-m32", "-I../include"}},
	}
)

// ways is what the examples print: whether there is an indirect(2), and by
// which way the descriptors of each kind got which properties.
type ways struct {
	indirect bool
	of       map[string]string // by "pipe cloexec nonblock"
}

func parseWays(t *testing.T, out string) ways {
	t.Helper()
	w := ways{of: make(map[string]string)}
	for _, line := range lines(strings.TrimSpace(out)) {
		what, how, ok := strings.Cut(line, ": ")
		switch {
		case !ok:
			t.Errorf("cannot read %q", line)
		case what == "indirect(2)":
			w.indirect = how == "yes"
		default:
			w.of[what] = how
		}
	}
	if len(w.of) < 10 {
		t.Fatalf("the example printed only\n%s", out)
	}
	return w
}

// check demands the best way that there is: native is whether a kind's own
// flags are there.
func (w ways) check(t *testing.T, native func(kind string) bool) {
	t.Helper()
	next := "fcntl"
	if w.indirect {
		next = "indirect"
	}
	for what, how := range w.of {
		words := strings.Fields(what)
		want := next
		if !slices.Contains(words, "nonseq") && words[0] != "paccept" && (len(words) == 1 || native(words[0])) {
			want = "native"
		}
		if how != want {
			t.Errorf("%s: %s, want %s", what, how, want)
		}
	}
}

func always(string) bool { return true }

// The C example finds the best way to each descriptor, and the descriptors
// have what it asked for.
func TestHeader(t *testing.T) {
	each(t, "header.c", headerBuilds, []mode{bare, nothing, cloexec, all, noPatch}, func(t *testing.T, m mode, program string) {
		r := m.run(t, program)
		r.passed(t)
		r.enforced(t)
		w := parseWays(t, r.stdout)
		if w.indirect == m.isBare() {
			t.Errorf("indirect(2): %v", w.indirect)
		}
		w.check(t, always)
	})
}

// Also where there are few numbers, an unpredictable one is not the lowest.
func TestHeaderWithFewNumbers(t *testing.T) {
	program := headerC89.compile(t, "header.c")
	few := exec.CommandContext(t.Context(), "sh", "-c", `ulimit -n 16; for i in $(seq 50); do "$0" || exit; done`, program)
	if out, err := few.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

// Wrong arguments are errors before anything has happened, with and without indirect(2).
func TestHeaderFaults(t *testing.T) {
	each(t, "headerfaults.c", headerFaultsBuilds, []mode{bare, nothing, cloexec}, selfChecking)
}

// Built with the headers of Linux 2.6.26, it has nothing of what came later,
// wherever it runs.
func TestHeaderBuiltWithOldHeaders(t *testing.T) {
	each(t, "headerold.c", []build{headerC89, headerMusl}, []mode{bare, nothing, all}, func(t *testing.T, m mode, program string) {
		r := m.run(t, program)
		r.passed(t)
		r.enforced(t)
		parseWays(t, r.stdout).check(t, func(kind string) bool {
			return slices.Contains([]string{"open", "creat", "dup", "timerfd", "memfd"}, kind)
		})
	})
}

// Built where calls without flags never were, it has all that the others have.
func TestHeaderBuiltOnNewArchitectures(t *testing.T) {
	each(t, "headernew.c", []build{headerC89, headerMusl}, []mode{bare, nothing, all}, func(t *testing.T, m mode, program string) {
		r := m.run(t, program)
		r.passed(t)
		r.enforced(t)
		parseWays(t, r.stdout).check(t, always)
	})
}

// On older kernels it takes what they have, in the same program.
func TestHeaderOnOldKernels(t *testing.T) {
	t.Parallel()
	files := []string{"open", "creat", "dup"}
	most := append([]string{"pipe", "socket", "socketpair", "epoll", "inotify", "eventfd", "signalfd", "timerfd"}, files...)
	for _, k := range []struct {
		version        string
		native, absent []string
	}{
		{"2.6.22", nil, []string{"memfd", "timerfd"}},
		{"2.6.26", files, []string{"memfd"}},
		{"2.6.27", most, []string{"memfd"}},
		{"6.1", append([]string{"accept", "memfd"}, most...), nil},
	} {
		for _, b := range runnable(headerC89, headerMusl, headerI386) {
			t.Run(k.version+"/"+b.name, func(t *testing.T) {
				t.Parallel()
				r := onKernel(k.version, "--add", "none").run(t, b.compile(t, "header.c"))
				r.passed(t)
				w := parseWays(t, r.stdout)
				if w.indirect {
					t.Error("an older kernel has indirect(2)")
				}
				for what, how := range w.of {
					if kind, _, _ := strings.Cut(what, " "); slices.Contains(k.absent, kind) {
						if how == "native" {
							t.Errorf("%s: %s, want none", what, how)
						}
						delete(w.of, what)
					}
				}
				w.check(t, func(kind string) bool { return slices.Contains(k.native, kind) })
			})
		}
	}
}

// A program takes another path on each kernel, and says which.
func TestTestability(t *testing.T) {
	t.Parallel()
	program := headerC89.compile(t, "headertestability.c")
	for _, k := range []struct {
		mode
		native string // the calls whose own flags it uses
		path   string
	}{
		{onKernel("2.6.22", "--add", "none"), "", "no flags at all (before Linux 2.6.23)"},
		{onKernel("2.6.26", "--add", "none"), "open dup", "files only (Linux 2.6.24 to 2.6.26)"},
		{onKernel("2.6.27", "--add", "none"), "open dup socket pipe", "all but accept (Linux 2.6.27)"},
		{nothing, "open dup socket pipe accept", "every call has its flag (Linux 2.6.28 and newer)"},
		{bare, "open dup socket pipe accept", "every call has its flag (Linux 2.6.28 and newer)"},
	} {
		t.Run(k.name, func(t *testing.T) {
			t.Parallel()
			r := k.run(t, program)
			r.passed(t)
			var native []string
			var path string
			for _, line := range lines(strings.TrimSpace(r.stdout)) {
				what, how, _ := strings.Cut(line, ": ")
				switch {
				case what == "path":
					path = how
				case how == "native":
					native = append(native, what)
				case how != "fcntl":
					t.Errorf("%s", line)
				}
			}
			if diff := cmp.Diff([]string{k.native, k.path}, []string{strings.Join(native, " "), path}); diff != "" {
				t.Errorf("want (-), got (+):\n%s", diff)
			}
		})
	}
}

// The example in Python calls indirect(2) without the header.
func TestHeaderPython(t *testing.T) {
	t.Parallel()
	const python = "/usr/bin/python3"
	if _, err := os.Stat(python); err != nil {
		t.Skip("no Python here: ", err)
	}
	for _, m := range []mode{bare, nothing, cloexec, noPatch} {
		t.Run(m.name, func(t *testing.T) {
			t.Parallel()
			r := m.run(t, python, "../examples/indirect-python/descriptors.py")
			r.passed(t)
			r.enforced(t)
			w := parseWays(t, r.stdout)
			if w.indirect == m.isBare() {
				t.Errorf("indirect(2): %v", w.indirect)
			}
			w.check(t, always)
		})
	}
}

// install-headers, pkg-config's file and the header fit together.
func TestInstalledHeader(t *testing.T) {
	t.Parallel()
	if !glibc.works() {
		t.Skip("gcc cannot make programs here")
	}
	dir := t.TempDir()
	if out, err := exec.Command(indirect, "install-headers", dir).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	description, err := os.ReadFile(filepath.Join(dir, "pkgconfig", "indirect.pc"))
	if err != nil || !strings.Contains(string(description), "Cflags: -I${includedir}\n") {
		t.Fatalf("%v\n%s", err, description)
	}
	program := filepath.Join(dir, "program")
	out, err := exec.Command("gcc", "-Wall", "-Wextra", "-Werror", "-I"+dir, "-o", program, "../examples/testability/testability.c").CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	bare.run(t, program).passed(t)
}

// The programs in the manual pages work as they are.
func TestManualExamples(t *testing.T) {
	t.Parallel()
	for _, page := range []struct {
		name           string
		bare, indirect string // what the program prints
	}{
		{"indirect.2", "close-on-exec: no, no\n", "close-on-exec: yes, yes\n"},
		{"nonseqfd.2", "still here\n", "still here\n"},
		{"paccept.2", "ended\n", "ended\n"},
		{"syslet_ring_wait.2", "no syslets here\n", "pending\n42: 5 bytes\n"},
		{"indirect_available.3", "native\n", "native\n"},
	} {
		t.Run(page.name, func(t *testing.T) {
			t.Parallel()
			if !glibc.works() {
				t.Skip("gcc cannot make programs here")
			}
			text, err := os.ReadFile(filepath.Join("../docs/man", page.name))
			if err != nil {
				t.Fatal(err)
			}
			_, source, found := strings.Cut(string(text), "\n.EX\n#")
			if !found {
				t.Fatal("the page has no program")
			}
			source, _, _ = strings.Cut(source, "\n.EE\n")
			source = "#" + strings.NewReplacer(`\e`, `\`, `\-`, `-`, `\&`, ``).Replace(source)
			file := filepath.Join(t.TempDir(), "example.c")
			if err := os.WriteFile(file, []byte(source+"\n"), 0o600); err != nil {
				t.Fatal(err)
			}
			program := strings.TrimSuffix(file, ".c")
			out, err := exec.Command("gcc", "-std=gnu89", "-pedantic", "-Wall", "-Wextra", "-Werror", "-I../include", "-o", program, file).CombinedOutput()
			if err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			for _, run := range []struct {
				mode
				want string
			}{{bare, page.bare}, {nothing, page.indirect}} {
				// SIGTERM is what paccept's program waits for.
				r := run.run(t, "timeout", "--preserve-status", "2", program)
				r.passed(t)
				if got := r.stdout + r.stderr; got != run.want {
					t.Errorf("%s: prints %q, want %q", run.name, got, run.want)
				}
			}
		})
	}
}

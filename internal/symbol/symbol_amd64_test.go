package symbol_test

import (
	"bytes"
	"context"
	"debug/elf"
	"encoding/hex"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/seed-055cd0c8/indirect/internal/symbol"
	"github.com/seed-055cd0c8/indirect/internal/unwind/unwindtest"
)

// built is a program, and where main is in its file.
type built struct {
	path, buildID string
	main          uint64
}

func build(t *testing.T, flags ...string) built {
	t.Helper()
	p := built{path: unwindtest.Build(t, "nested.c", append([]string{"gcc", "-O2", "-Wl,--build-id"}, flags...)...)}
	f, err := elf.Open(p.path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	note, err := f.Section(".note.gnu.build-id").Data()
	if err != nil {
		t.Fatal(err)
	}
	p.buildID = hex.EncodeToString(note[16:])
	all, err := f.Symbols()
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range all {
		if s.Name == "main" {
			for _, l := range f.Progs {
				if l.Type == elf.PT_LOAD && s.Value >= l.Vaddr && s.Value-l.Vaddr < l.Filesz {
					p.main = s.Value - l.Vaddr + l.Off
				}
			}
		}
	}
	return p
}

func (p built) module() symbol.Module { return symbol.Module{Path: p.path, BuildID: p.buildID} }

// one looks up an offset that no function was inlined at.
func one(t *testing.T, s *symbol.Symbolizer, m symbol.Module, offset uint64) symbol.Frame {
	t.Helper()
	frames := s.Frames(context.Background(), m, offset, true)
	if len(frames) == 0 {
		t.Fatal("no frame")
	}
	f := frames[len(frames)-1]
	if f.File != "" {
		f.File = filepath.Base(f.File)
	}
	return f
}

func TestWhatIsKnownDegrades(t *testing.T) {
	p := build(t, "-g")
	full := one(t, symbol.New(symbol.Options{}), p.module(), p.main)
	if full.Function != "main" || full.File != "nested.c" || full.Line == 0 {
		t.Errorf("with debug information: %+v", full)
	}
	run(t, "strip", "--strip-debug", p.path)
	named := one(t, symbol.New(symbol.Options{}), p.module(), p.main)
	if want := "main (" + p.path; named.Function != "main" || named.Line != 0 || !strings.HasPrefix(named.String(), want) {
		t.Errorf("with symbols: %+v %s", named, named)
	}
	run(t, "strip", p.path)
	bare := one(t, symbol.New(symbol.Options{}), p.module(), p.main)
	want := symbol.Frame{Module: p.path, Offset: p.main, BuildID: p.buildID}
	if diff := cmp.Diff(want, bare); diff != "" {
		t.Errorf("stripped (-want, +got):\n%s", diff)
	}
	if err := os.Remove(p.path); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, one(t, symbol.New(symbol.Options{}), p.module(), p.main)); diff != "" {
		t.Errorf("removed (-want, +got):\n%s", diff)
	}
}

func TestReplacedFilesAreNotUsed(t *testing.T) {
	p := build(t, "-g")
	m := p.module()
	m.BuildID = "00112233"
	if f := one(t, symbol.New(symbol.Options{}), m, p.main); f.Function != "" {
		t.Errorf("by another build ID: %+v", f)
	}
	m = symbol.Module{Path: p.path, Inode: 1}
	if f := one(t, symbol.New(symbol.Options{}), m, p.main); f.Function != "" {
		t.Errorf("by another inode: %+v", f)
	}
}

func TestDebugFiles(t *testing.T) {
	for _, where := range []string{"build ID", "beside", ".debug", "global"} {
		t.Run(where, func(t *testing.T) {
			p := build(t, "-g")
			dir, err := filepath.EvalSymlinks(filepath.Dir(p.path))
			if err != nil {
				t.Fatal(err)
			}
			debug := t.TempDir()
			file := map[string]string{
				"build ID": filepath.Join(debug, ".build-id", p.buildID[:2], p.buildID[2:]+".debug"),
				"beside":   filepath.Join(dir, "program.debug"),
				".debug":   filepath.Join(dir, ".debug", "program.debug"),
				"global":   filepath.Join(debug, dir, "program.debug"),
			}[where]
			if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
				t.Fatal(err)
			}
			run(t, "objcopy", "--only-keep-debug", p.path, file)
			if where == "build ID" {
				run(t, "strip", p.path)
			} else {
				run(t, "objcopy", "--strip-all", "--add-gnu-debuglink="+file, p.path)
			}
			f := one(t, symbol.New(symbol.Options{Debug: debug}), p.module(), p.main)
			if f.Function != "main" || f.Line == 0 {
				t.Errorf("%+v", f)
			}
			if where == "build ID" {
				return
			}
			// A file with another checksum belongs to another version.
			if err := os.WriteFile(file, []byte("changed"), 0o600); err != nil {
				t.Fatal(err)
			}
			if f := one(t, symbol.New(symbol.Options{Debug: debug}), p.module(), p.main); f.Function != "" {
				t.Errorf("a changed file was used: %+v", f)
			}
		})
	}
}

func TestDebuginfod(t *testing.T) {
	p := build(t, "-g")
	debug, err := os.ReadFile(p.path)
	if err != nil {
		t.Fatal(err)
	}
	run(t, "strip", p.path)
	var requests atomic.Int32
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		requests.Add(1)
		if r.URL.Path != "/buildid/"+p.buildID+"/debuginfo" {
			http.NotFound(w, r)
			return
		}
		w.Write(debug)
	}))
	defer server.Close()
	options := symbol.Options{Debuginfod: []string{"http://127.0.0.1:1/", server.URL}, Cache: t.TempDir(), Debug: t.TempDir()}
	for range 2 { // the second time from the cache
		if f := one(t, symbol.New(options), p.module(), p.main); f.Function != "main" || f.Line == 0 {
			t.Errorf("%+v", f)
		}
	}
	if n := requests.Load(); n != 1 {
		t.Errorf("%d requests, want 1", n)
	}
	other := build(t, "-DTHREAD")
	run(t, "strip", other.path)
	if f := one(t, symbol.New(options), other.module(), other.main); f.Function != "" {
		t.Errorf("what the server does not have: %+v", f)
	}
	if err := os.RemoveAll(options.Cache); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	before := requests.Load()
	if frames := symbol.New(options).Frames(ctx, p.module(), p.main, true); len(frames) != 1 || frames[0].Function != "" {
		t.Errorf("cancelled: %+v", frames)
	}
	if requests.Load() != before {
		t.Error("a cancelled context made a request")
	}
}

func TestServersAreTheUsers(t *testing.T) {
	t.Setenv("DEBUGINFOD_URLS", "")
	if got := symbol.DebuginfodServers(); len(got) != 0 {
		t.Errorf("%q", got)
	}
	t.Setenv("DEBUGINFOD_URLS", "https://a.example/ https://b.example")
	if diff := cmp.Diff([]string{"https://a.example/", "https://b.example"}, symbol.DebuginfodServers()); diff != "" {
		t.Error(diff)
	}
}

func TestStrippedGo(t *testing.T) {
	program := unwindtest.Build(t, "nested.go.txt", "go", "build", "-ldflags=-s -w")
	tid := unwindtest.Start(t, program)
	frames, _ := stack(t, tid, symbol.New(symbol.Options{}))
	var recursions int
	for _, f := range frames {
		if f.Function == "main.recurse" {
			if filepath.Base(f.File) != "nested.go" || f.Line == 0 {
				t.Errorf("%+v", f)
			}
			recursions++
		}
	}
	if recursions != 4 {
		t.Errorf("main.recurse is there %d times in %v", recursions, frames)
	}
}

func TestGoIsFoundBehindC(t *testing.T) {
	for _, flags := range [][]string{nil, {"-ldflags=-s -w", "-buildmode=pie"}} {
		program := unwindtest.Build(t, "cgo.go.txt", append([]string{"env", "CGO_ENABLED=1", "go", "build"}, flags...)...)
		frames, _ := stack(t, unwindtest.Start(t, program), symbol.New(symbol.Options{}))
		var got []string
		for _, f := range frames {
			if strings.HasPrefix(f.Function, "main.") || f.Function == "runtime.cgocall" {
				got = append(got, f.Function)
			}
		}
		want := []string{"runtime.cgocall", "main._Cfunc_wait_in_c", "main.callsC", "main.main"}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%q: frames (-want, +got):\n%s\nof %v", flags, diff, frames)
		}
	}
}

func TestModulesThatAreNoFiles(t *testing.T) {
	s := symbol.New(symbol.Options{})
	for _, path := range []string{"", "[vdso]", "/dev/zero", "/", "//anon", "/nonexistent"} {
		frames := s.Frames(context.Background(), symbol.Module{Path: path}, 0x123, false)
		if diff := cmp.Diff([]symbol.Frame{{Module: path, Offset: 0x123}}, frames); diff != "" {
			t.Errorf("%q (-want, +got):\n%s", path, diff)
		}
	}
}

// Files that are cut, or have changed bytes, cost information and no more.
func FuzzFile(f *testing.F) {
	if path, err := exec.LookPath("gcc"); err == nil {
		dir := f.TempDir()
		source, program := filepath.Join(dir, "a.c"), filepath.Join(dir, "a")
		text := "static inline __attribute__((always_inline)) int g(int x) { return x * 2; }\nint f(int x) { return g(x) + 1; }\n"
		if err := os.WriteFile(source, []byte(text), 0o600); err != nil {
			f.Fatal(err)
		}
		if exec.Command(path, "-g", "-O1", "-shared", "-nostdlib", "-o", program, source).Run() == nil {
			if b, err := os.ReadFile(program); err == nil {
				f.Add(b, uint64(0x1000))
				f.Add(bytes.Clone(b[:len(b)/2]), uint64(0x1000))
			}
		}
	}
	f.Fuzz(func(t *testing.T, b []byte, at uint64) {
		path := filepath.Join(t.TempDir(), "file")
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		s := symbol.New(symbol.Options{Debug: "/nonexistent"})
		if len(s.Frames(context.Background(), symbol.Module{Path: path}, at, true)) == 0 {
			t.Error("no frame")
		}
	})
}

package fdcall

import (
	"bufio"
	"bytes"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// kernelNumbers reads an ABI's system calls, by name, from golang.org/x/sys,
// which takes them from the kernel's own tables.
func kernelNumbers(t *testing.T, goarch string) map[string]int32 {
	t.Helper()
	dir, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "golang.org/x/sys").Output()
	if err != nil {
		t.Fatalf("find golang.org/x/sys: %v", err)
	}
	name := filepath.Join(strings.TrimSpace(string(dir)), "unix", "zsysnum_linux_"+goarch+".go")
	f, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	numbers := make(map[string]int32)
	for _, d := range f.Decls {
		g, ok := d.(*ast.GenDecl)
		if !ok || g.Tok != token.CONST {
			continue
		}
		for _, s := range g.Specs {
			s := s.(*ast.ValueSpec)
			call, ok := strings.CutPrefix(s.Names[0].Name, "SYS_")
			value, isLit := s.Values[0].(*ast.BasicLit)
			if !ok || !isLit {
				continue
			}
			n, err := strconv.ParseInt(value.Value, 0, 32)
			if err != nil {
				t.Fatalf("%s: %s: %v", name, s.Names[0].Name, err)
			}
			numbers[strings.ToLower(call)] = int32(n)
		}
	}
	if len(numbers) < 300 {
		t.Fatalf("%s: only %d system calls", name, len(numbers))
	}
	return numbers
}

// others reads the names of the calls that have no row.
func others(t *testing.T) map[string]bool {
	t.Helper()
	data, err := os.ReadFile("testdata/others.txt")
	if err != nil {
		t.Fatal(err)
	}
	names := make(map[string]bool)
	for line := range bytes.Lines(data) {
		name, _, _ := strings.Cut(string(line), "#")
		if name = strings.TrimSpace(name); name == "" {
			continue
		}
		if names[name] {
			t.Errorf("testdata/others.txt: %s is there twice", name)
		}
		names[name] = true
	}
	return names
}

// Every system call is either in the table, with its number, or known to have no row.
func TestEverySystemCallIsSorted(t *testing.T) {
	rowless := others(t)
	used := make(map[string]bool)
	for goarch, abi := range map[string]ABI{"amd64": AMD64, "386": I386, "arm64": ARM64} {
		numbers := kernelNumbers(t, goarch)
		inTable := make(map[string]bool)
		for _, c := range Linux().All() {
			inTable[c.Name] = true
			n, ok := numbers[c.Name]
			if !ok {
				n = None
			}
			if c.Nr[abi] != n {
				t.Errorf("%s has number %d on %s, the kernel says %d", c.ID(), c.Nr[abi], abi, n)
			}
		}
		for name := range numbers {
			used[name] = true
			switch {
			case inTable[name] && rowless[name]:
				t.Errorf("%s has a row, and is in testdata/others.txt", name)
			case !inTable[name] && !rowless[name]:
				t.Errorf("%s is new: give it a row, or put it into testdata/others.txt", name)
			}
		}
	}
	for name := range rowless {
		if !used[name] {
			t.Errorf("testdata/others.txt: the kernel has no call %q", name)
		}
	}
}

// The system's headers have the x32 numbers, which golang.org/x/sys has not.
func TestX32Numbers(t *testing.T) {
	headers, _ := filepath.Glob("/usr/include/*/asm/unistd_x32.h")
	headers = append(headers, "/usr/include/asm/unistd_x32.h")
	f, err := os.Open(headers[0])
	if err != nil {
		t.Skipf("needs the kernel's headers for x86: %v", err)
	}
	defer f.Close()
	numbers := make(map[string]int32)
	define := regexp.MustCompile(`^#define __NR_(\w+) \(__X32_SYSCALL_BIT \+ (\d+)\)`)
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		if m := define.FindStringSubmatch(lines.Text()); m != nil {
			n, err := strconv.ParseInt(m[2], 10, 32)
			if err != nil {
				t.Fatal(err)
			}
			numbers[m[1]] = int32(n) | 1<<30
		}
	}
	if err := lines.Err(); err != nil || len(numbers) < 300 {
		t.Fatalf("%s: %d system calls, %v", headers[0], len(numbers), err)
	}
	newest := int32(0) // the newest call that these headers know
	for _, n := range numbers {
		if n &^= 1 << 30; n < 512 {
			newest = max(newest, n)
		}
	}
	for _, c := range Linux().All() {
		n, ok := numbers[c.Name]
		if !ok {
			if c.Nr[AMD64] > newest {
				continue
			}
			n = None
		}
		if c.Nr[X32] != n {
			t.Errorf("%s has the x32 number %d, the headers say %d", c.ID(), c.Nr[X32], n)
		}
	}
}

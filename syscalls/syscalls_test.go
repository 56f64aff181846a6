package syscalls

import (
	"bufio"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/seed-055cd0c8/indirect/fdcall"
)

// constants reads an ABI's system calls, by name, from golang.org/x/sys, which
// takes them from the kernel's own tables.
func constants(t *testing.T, goarch string) map[string]int32 {
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
	ast.Inspect(f, func(n ast.Node) bool {
		s, ok := n.(*ast.ValueSpec)
		if !ok {
			return true
		}
		call, ok := strings.CutPrefix(s.Names[0].Name, "SYS_")
		if value, isLit := s.Values[0].(*ast.BasicLit); ok && isLit {
			n, err := strconv.ParseInt(value.Value, 0, 32)
			if err != nil {
				t.Fatalf("%s: %s: %v", name, s.Names[0].Name, err)
			}
			numbers[strings.ToLower(call)] = int32(n)
		}
		return true
	})
	if len(numbers) < 300 {
		t.Fatalf("%s: only %d system calls", name, len(numbers))
	}
	return numbers
}

func byName(t *testing.T) map[string]Call {
	t.Helper()
	calls := make(map[string]Call)
	for _, c := range Linux() {
		if _, twice := calls[c.Name]; twice {
			t.Errorf("%s is there twice", c.Name)
		}
		calls[c.Name] = c
	}
	return calls
}

// None is missing, none is wrong, none is invented.
func TestNumbers(t *testing.T) {
	calls := byName(t)
	for goarch, abi := range map[string]fdcall.ABI{"amd64": fdcall.AMD64, "386": fdcall.I386, "arm64": fdcall.ARM64} {
		numbers := constants(t, goarch)
		for name, n := range numbers {
			if c, ok := calls[name]; !ok {
				t.Errorf("%s, number %d on %s, is missing", name, n, abi)
			} else if c.Nr[abi] != n {
				t.Errorf("%s has number %d on %s, want %d", name, c.Nr[abi], abi, n)
			}
		}
		for name, c := range calls {
			if _, ok := numbers[name]; !ok && c.Nr[abi] != fdcall.None {
				t.Errorf("%s has number %d on %s, which does not have it", name, c.Nr[abi], abi)
			}
		}
	}
}

// The system's headers have the x32 numbers, which golang.org/x/sys has not.
func TestX32Numbers(t *testing.T) {
	headers, _ := filepath.Glob("/usr/include/*/asm/unistd_x32.h")
	if len(headers) == 0 {
		t.Skip("needs the kernel's headers for x86 (linux-libc-dev)")
	}
	f, err := os.Open(headers[0])
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	numbers := make(map[string]int32)
	newest := int32(0)
	define := regexp.MustCompile(`^#define __NR_(\w+) \(__X32_SYSCALL_BIT \+ (\d+)\)`)
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		if m := define.FindStringSubmatch(lines.Text()); m != nil {
			n, err := strconv.ParseInt(m[2], 10, 32)
			if err != nil {
				t.Fatal(err)
			}
			numbers[m[1]] = int32(n) | x32Bit
			if n < 512 {
				newest = max(newest, int32(n))
			}
		}
	}
	if err := lines.Err(); err != nil || len(numbers) < 300 {
		t.Fatalf("%s: %d system calls, %v", headers[0], len(numbers), err)
	}
	for _, c := range Linux() {
		n, ok := numbers[c.Name]
		switch {
		case !ok && c.Nr[fdcall.AMD64] > newest || c.Nr[fdcall.AMD64] == fdcall.None:
		case ok && c.Nr[fdcall.X32] != n, !ok && c.Nr[fdcall.X32] != fdcall.None:
			t.Errorf("%s has the x32 number %d, the headers say %d", c.Name, c.Nr[fdcall.X32], n)
		}
	}
}

func TestRows(t *testing.T) {
	calls := Linux()
	if !slices.IsSortedFunc(calls, func(a, b Call) int {
		switch {
		case a.Since == b.Since:
			return strings.Compare(a.Name, b.Name)
		case b.Since == fdcall.Version{}:
			return -1
		case a.Since == fdcall.Version{}:
			return 1
		}
		return Compare(a.Since, b.Since)
	}) {
		t.Error("the rows are not in order")
	}
	for _, c := range calls {
		if c.Source == "" {
			t.Errorf("%s has no source", c.Name)
		}
		for _, own := range []fdcall.Version{c.AMD64Since, c.I386Since, c.ARM64Since, c.Gone} {
			if own != (fdcall.Version{}) && Compare(own, c.Since) <= 0 {
				t.Errorf("%s came with Linux %s, and elsewhere with %s", c.Name, c.Since, own)
			}
		}
		for abi := range fdcall.ABI(len(c.Nr)) {
			if v, ok := c.On(abi); ok != (c.Nr[abi] != fdcall.None && c.Since != fdcall.Version{}) || ok && v == (fdcall.Version{}) {
				t.Errorf("%s on %s: %s, %v", c.Name, abi, v, ok)
			}
		}
	}
	var none Call
	if _, ok := none.On(99); ok {
		t.Error("an unknown ABI has calls")
	}
}

func TestOn(t *testing.T) {
	calls := byName(t)
	for _, test := range []struct {
		name string
		abi  fdcall.ABI
		want string
	}{
		{"pipe", fdcall.AMD64, "1.0"},
		{"accept4", fdcall.AMD64, "2.6.28"},
		{"accept4", fdcall.I386, "4.3"},
		{"socket", fdcall.I386, "4.3"},
		{"ppoll", fdcall.X32, "2.6.19"},
		{"ppoll", fdcall.I386, "2.6.16"},
		{"clock_gettime64", fdcall.I386, "5.1"},
		{"clock_gettime64", fdcall.AMD64, "-"},
		{"getcpu", fdcall.AMD64, "3.1"},
		{"pipe", fdcall.ARM64, "-"},
		{"statx", fdcall.ARM64, "4.11"},
		{"vserver", fdcall.AMD64, "-"},
	} {
		c := calls[test.name]
		if v, _ := c.On(test.abi); v.String() != test.want {
			t.Errorf("%s came to %s with Linux %s, want %s", test.name, test.abi, v, test.want)
		}
	}
}

// The table of package fdcall, which was made from the calls' own man pages, agrees.
func TestAgreesWithTheTableOfDescriptors(t *testing.T) {
	calls := byName(t)
	for _, row := range fdcall.Linux().All() {
		c, ok := calls[row.Name]
		if !ok {
			t.Errorf("%s is missing", row.Name)
			continue
		}
		if c.Nr != row.Nr {
			t.Errorf("%s has the numbers %d, and in the other table %d", c.Name, c.Nr, row.Nr)
		}
		// Before Linux 2.2 recvmsg could not give descriptors.
		if row.Op == "" && row.Name != "recvmsg" && c.Since != row.Since || Compare(row.Since, c.Since) < 0 {
			t.Errorf("%s came with Linux %s, and in the other table with %s", row.ID(), c.Since, row.Since)
		}
	}
}

// This kernel has the calls since Linux 5.1, which are safe to make with
// arguments that they must refuse, if it is not older than they are.
func TestKernelAgrees(t *testing.T) {
	this := running(t)
	abi := map[string]fdcall.ABI{"amd64": fdcall.AMD64, "386": fdcall.I386, "arm64": fdcall.ARM64}[runtime.GOARCH]
	for _, c := range Linux() {
		n := c.Nr[abi]
		if n < 424 || c.Gone != (fdcall.Version{}) {
			continue
		}
		const bad = ^uintptr(0)
		_, _, errno := unix.Syscall6(uintptr(n), bad, bad, bad, bad, bad, bad)
		since, ok := c.On(abi)
		younger := !ok || Compare(since, this) > 0
		if younger && errno != unix.ENOSYS {
			t.Errorf("%s, of Linux %s, says %v on Linux %s", c.Name, since, errno, this)
		}
		if !younger && errno == unix.ENOSYS {
			// Or it was configured without, or a container hides it.
			t.Logf("%s, of Linux %s, says %v on Linux %s", c.Name, since, errno, this)
		}
	}
}

// running returns this kernel's version.
func running(t *testing.T) fdcall.Version {
	t.Helper()
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		t.Fatal(err)
	}
	var fields [2]uint8
	for i, s := range strings.SplitN(unix.ByteSliceToString(u.Release[:]), ".", 3)[:2] {
		n, err := strconv.ParseUint(s, 10, 8)
		if err != nil && !errors.Is(err, strconv.ErrSyntax) {
			t.Fatal(err)
		}
		fields[i] = uint8(n)
	}
	return v(fields[0], fields[1], 0)
}

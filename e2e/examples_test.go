package e2e

import (
	"fmt"
	"net"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// example builds one of the example programs.
func example(t *testing.T, name string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if out, err := exec.Command("go", "build", "-o", path, "../examples/"+name).CombinedOutput(); err != nil {
		t.Fatalf("build %s: %v\n%s", name, err, out)
	}
	return path
}

func TestExampleHashopen(t *testing.T) {
	t.Parallel()
	r := bare.run(t, example(t, "hashopen"))
	r.passed(t)
	var said []string
	for _, line := range lines(r.stdout) {
		_, text, _ := strings.Cut(line, ": ")
		said = append(said, text)
	}
	if got := strings.Join(said, "; "); !strings.HasPrefix(got, "to be opened by what it says; and so is this one; no such file or directory") {
		t.Errorf("it printed\n%s", r.stdout)
	}
}

// The third connect fails, and no other.
func TestExampleFaultconnect(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	port := l.Addr().(*net.TCPAddr).Port
	script := fmt.Sprintf("for i in 1 2 3 4 5; do (exec 3<>/dev/tcp/127.0.0.1/%d) 2>/dev/null && echo $i; done; true", port)
	// Without these, bash looks itself up in the user database, which may
	// connect to the name service cache first.
	r := bare.run(t, example(t, "faultconnect"), "env", "SHELL=/bin/bash", "HOME=/", "bash", "-c", script)
	r.passed(t)
	if r.stdout != "1\n2\n4\n5\n" || !strings.Contains(r.stderr, "connect 3 of thread") {
		t.Errorf("connected:\n%s%s", r.stdout, r.stderr)
	}
}

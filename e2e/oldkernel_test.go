package e2e

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// onKernel is the mode in which a program runs as on an older kernel.
func onKernel(version string, more ...string) mode {
	return mode{name: version, flags: append([]string{"--kernel", version}, more...)}
}

// What the kernel says to calls and flags of different age.
func TestOldKernelAnswers(t *testing.T) {
	t.Parallel()
	type answers map[string]string
	kernels := []struct {
		version string
		differ  answers // from the version above
	}{
		{"6.1", answers{
			"uname": "6.1.0", "uname of nothing": "EFAULT", "open O_PATH": "path", "open O_CLOEXEC": "cloexec", "openat O_CLOEXEC": "cloexec",
			"openat2": "EINVAL", "fcntl F_DUPFD_CLOEXEC": "cloexec", "pipe2": "ok", "accept4": "EBADF", "statx": "EFAULT", "unknown": "ENOSYS",
			"socket": "ok", "socket SOCK_CLOEXEC": "cloexec", "recvmsg MSG_CMSG_CLOEXEC": "cloexec",
			"socketcall": "plain", "socketcall SOCK_CLOEXEC": "cloexec",
		}},
		{"5.4", answers{"uname": "5.4.0", "openat2": "ENOSYS"}},
		{"4.4.302", answers{"uname": "4.4.302", "statx": "ENOSYS"}},
		{"3.10", answers{"uname": "3.10.0"}},
		{"2.6.38", answers{"uname": "2.6.38", "open O_PATH": "plain"}},
		{"2.6.27", answers{"uname": "2.6.27", "accept4": "ENOSYS"}},
		{"2.6.26", answers{"uname": "2.6.26", "pipe2": "ENOSYS", "socket SOCK_CLOEXEC": "EINVAL", "socketcall SOCK_CLOEXEC": "EINVAL"}},
		{"2.6.22", answers{
			"uname": "2.6.22", "open O_CLOEXEC": "plain", "openat O_CLOEXEC": "plain", "fcntl F_DUPFD_CLOEXEC": "EINVAL",
			"recvmsg MSG_CMSG_CLOEXEC": "plain",
		}},
	}
	now := make(answers)
	for _, k := range kernels {
		for name, answer := range k.differ {
			now[name] = answer
		}
		want := make(answers)
		for name, answer := range now {
			want[name], want["thread: "+name] = answer, answer
		}
		for _, b := range runnable(append(amd64Builds, i386)...) {
			t.Run(k.version+"/"+b.name, func(t *testing.T) {
				t.Parallel()
				r := onKernel(k.version).run(t, b.compile(t, "oldkernel.c"))
				r.passed(t)
				r.enforced(t)
				for line := range strings.Lines(r.stdout) {
					// The name may have a colon, the answer has none.
					i := strings.LastIndex(line, ": ")
					name, answer := line[:i], strings.TrimSpace(line[i+2:])
					w := want[name]
					// i386 had its sockets by socketcall only, until Linux 4.3.
					if b.name == i386.name {
						switch {
						case strings.HasSuffix(name, "accept4") && (k.version[0] == '3' || k.version[0] == '2'):
							w = "ENOSYS"
						case name == "socket" && (k.version[0] == '3' || k.version[0] == '2'):
							w = "ENOSYS"
						}
					}
					if answer != w {
						t.Errorf("%s: %s, want %s", name, answer, w)
					}
				}
			})
		}
	}
}

// Taking away one call, with one's own choice of an error.
func TestWithout(t *testing.T) {
	t.Parallel()
	program := glibc.compile(t, "oldkernel.c")
	m := mode{name: "without", flags: []string{"--without", "openat2,statx,open O_PATH", "--without-error", "EPERM"}}
	r := m.run(t, program)
	r.passed(t)
	for _, want := range []string{"openat2: EPERM", "statx: EPERM", "open O_PATH: EPERM", "thread: statx: EPERM", "open O_CLOEXEC: cloexec", "pipe2: ok"} {
		if !strings.Contains(r.stdout, "\n"+want+"\n") {
			t.Errorf("the output lacks %q:\n%s", want, r.stdout)
		}
	}
}

// Descriptors get their flags on an older kernel too: by calls that it does
// not have, which our own code may make.
func TestAddOnOldKernel(t *testing.T) {
	t.Parallel()
	for _, b := range runnable(glibc, musl, i386) {
		for _, version := range []string{"2.6.22", "2.6.26"} {
			t.Run(b.name+"/"+version, func(t *testing.T) {
				t.Parallel()
				m := onKernel(version, "--add", "cloexec")
				m.expect = "cloexec"
				r := m.run(t, b.compile(t, "oldkerneladd.c"))
				r.passed(t)
				r.enforced(t)
			})
		}
	}
}

// Ordinary programs do their ordinary work on kernels that are in use.
func TestProgramsOnOldKernels(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "served") }))
	t.Cleanup(server.Close)
	goProgram := filepath.Join(t.TempDir(), "gonet")
	build := exec.Command("go", "build", "-o", goProgram, "./testdata/oldkernel")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the Go program: %v\n%s", err, out)
	}
	const python = `
import os, socket, subprocess, tempfile, threading
print(subprocess.check_output(["echo", "child"]).decode().strip(), len(os.urandom(4)))
t = threading.Thread(target=lambda: None); t.start(); t.join()
with tempfile.TemporaryFile() as f: f.write(b"x")
s = socket.create_server(("127.0.0.1", 0)); c = socket.create_connection(s.getsockname()); a, _ = s.accept()
assert not a.get_inheritable() and not os.get_inheritable(s.fileno())
a.send(b"sent"); print(c.recv(4).decode())
`
	const coreutils = `cd "$1" && mkdir d && echo x >d/a && cp d/a d/b && mv d/b d/c && ln d/c d/e && touch d/f &&
sort d/* | wc -l && ls -l d | wc -l && stat d/a >d/s && df . >/dev/null && date +%Y >/dev/null && timeout 5 sleep 0.01 &&
cat d/a | tr x y && rm -r d`
	for _, p := range []struct {
		name, needs string
		argv        []string
		want        string // a pattern
	}{
		{name: "Go", argv: []string{goProgram}, want: `^received, child\n$`},
		{name: "CPython", needs: "/usr/bin/python3", argv: []string{"/usr/bin/python3", "-c", python}, want: `^child 4\nsent\n$`},
		{name: "dash", needs: "/bin/dash", argv: []string{"/bin/dash", "-c", "x=$(echo a | cat); echo \"$x\" 3</dev/null; cat <<E\nhere\nE\n/bin/true & wait"}, want: `^a\nhere\n$`},
		{name: "coreutils", needs: "/usr/bin/stat", argv: []string{"/bin/sh", "-c", coreutils, "sh", "DIR"}, want: `^3\n5\ny\n$`},
		{name: "openssh", needs: "/usr/bin/ssh-keygen", argv: []string{"/bin/sh", "-c", `ssh-keygen -q -t ed25519 -N "" -f "$1/key" && ssh-keygen -l -f "$1/key.pub" && ssh -V 2>&1`, "sh", "DIR"}, want: `ED25519[^$]*OpenSSH`},
		{name: "curl", needs: "/usr/bin/curl", argv: []string{"/usr/bin/curl", "-sS", "--noproxy", "*", server.URL}, want: `^served$`},
	} {
		for _, version := range []string{"3.10", "4.4", "4.18", "5.4"} {
			t.Run(p.name+"/"+version, func(t *testing.T) {
				t.Parallel()
				if p.needs != "" {
					if _, err := os.Stat(p.needs); err != nil {
						t.Skipf("needs %s (Debian: python3, dash, coreutils, openssh-client, curl)", p.needs)
					}
				}
				argv := append([]string{}, p.argv...)
				for i := range argv {
					if argv[i] == "DIR" {
						argv[i] = t.TempDir()
					}
				}
				r := onKernel(version).run(t, argv...)
				r.passed(t)
				r.enforced(t)
				if !regexp.MustCompile(p.want).MatchString(r.stdout) {
					t.Errorf("%q, want %s\n%s", r.stdout, p.want, tail(r.stderr))
				}
			})
		}
	}
}

// The Go runtime needs what Linux 2.6.27 brought, and says so.
func TestGoNeedsEpollCreate1(t *testing.T) {
	t.Parallel()
	program := filepath.Join(t.TempDir(), "timer")
	source := program + ".go"
	const text = "package main\n\nimport (\n\t\"os\"\n\t\"time\"\n)\n\nfunc main() {\n\ttime.AfterFunc(time.Hour, func() {})\n\tprintln(\"started\")\n\tos.Exit(0)\n}\n"
	if err := os.WriteFile(source, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	build := exec.Command("go", "build", "-o", program, source)
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the Go program: %v\n%s", err, out)
	}
	if r := onKernel("2.6.26").run(t, program); r.status == 0 || !strings.Contains(r.stderr, "epollcreate failed with 38") {
		t.Errorf("on Linux 2.6.26: status %d\n%s", r.status, tail(r.stderr))
	}
	if r := onKernel("2.6.27").run(t, program); r.status != 0 {
		t.Errorf("on Linux 2.6.27: status %d\n%s", r.status, tail(r.stderr))
	}

	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	out, err := exec.CommandContext(ctx, indirect, "run", "--bisect-kernel", "--", program).CombinedOutput()
	for _, want := range []string{"Linux 2.6.27 is the oldest kernel", "On Linux 2.6.25 it exits 2", "epoll_create1"} {
		if err != nil || !bytes.Contains(out, []byte(want)) {
			t.Errorf("the search for the oldest kernel says, with %v:\n%s\nwant %q", err, out, want)
		}
	}
}

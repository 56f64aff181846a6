// Package guest runs test programs on another kernel than this one, in a
// machine that QEMU emulates: for what this kernel cannot do (run i386 or x32
// programs), and for what only an older one does.
//
// The machine has no disk and no network. Its files are those that it is given;
// the program that it starts is its first process's only child, and what that
// writes is its console.
package guest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"github.com/cavaliergopher/cpio"
)

// ErrMissing says that QEMU or a kernel for it is not installed.
var ErrMissing = errors.New("no emulated machine can be started")

// KernelsVar names the environment variable that holds the directory where
// Debian's linux-image packages are unpacked. Without it, the system's own
// kernels are used.
const KernelsVar = "INDIRECT_TEST_KERNELS"

const emulator = "qemu-system-x86_64"

// Machine is what a machine is made of.
type Machine struct {
	Kernel string            // the file of a kernel: see [Kernel]
	Files  map[string]string // path in the machine: path here, of a file
	// Modules are kernel modules to load first, in this order: see [Module].
	Modules []string
	Argv    []string // what it runs: a path in the machine, and arguments
	Env     []string
}

// Kernel finds a kernel for 64-bit PCs whose version begins with the given
// one, with everything that Debian's general configuration has.
func Kernel(version string) (string, error) {
	if _, err := exec.LookPath(emulator); err != nil {
		return "", fmt.Errorf("%w: %w (Debian: qemu-system-x86)", ErrMissing, err)
	}
	pattern := filepath.Join(os.Getenv(KernelsVar), "/boot", "vmlinuz-"+version+".*-amd64")
	all, err := filepath.Glob(pattern)
	if err != nil {
		return "", fmt.Errorf("look for kernels: %w", err)
	}
	for _, k := range all {
		if !strings.Contains(k, "cloud") && !strings.Contains(k, "-rt-") {
			return k, nil
		}
	}
	return "", fmt.Errorf("%w: no kernel %s (Debian: linux-image-amd64; %s names another directory than /)", ErrMissing, pattern, KernelsVar)
}

// Module finds a module of a kernel by its place below lib/modules/VERSION/kernel.
func Module(kernel, name string) (string, error) {
	boot, version, _ := strings.Cut(kernel, "/vmlinuz-")
	file := filepath.Join(filepath.Dir(boot), "lib/modules", version, "kernel", name)
	if _, err := os.Stat(file); err != nil {
		return "", fmt.Errorf("%w: %w", ErrMissing, err)
	}
	return file, nil
}

// BuildTests builds the tests of the package in the current directory as a
// program for a machine, which has no libraries.
func BuildTests(ctx context.Context, file string) error {
	build := exec.CommandContext(ctx, "go", "test", "-c", "-o", file, ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("build the tests for a machine: %w\n%s", err, out)
	}
	return nil
}

// insideVar is set in the environment of tests in a machine.
const insideVar = "INDIRECT_TEST_IN_MACHINE"

// Inside reports whether this process is a test in a machine: see [Tests].
func Inside() bool { return os.Getenv(insideVar) != "" }

// Tests returns a machine with the kernel that runs those tests of the package
// in the current directory that match run. Their program is built in dir.
func Tests(ctx context.Context, kernel, dir, run string) (Machine, error) {
	const inside = "/package.test"
	program := filepath.Join(dir, inside)
	return Machine{
		Kernel: kernel, Files: map[string]string{inside: program}, Env: []string{insideVar + "=1"},
		Argv: []string{inside, "-test.v", "-test.run=" + run},
	}, BuildTests(ctx, program)
}

// Run starts the machine, waits until its program has ended, and returns what
// the console showed and the program's exit status.
func (m Machine) Run(ctx context.Context) (console string, status int, err error) {
	dir, err := os.MkdirTemp("", "machine-")
	if err != nil {
		return "", 0, fmt.Errorf("make a directory for the machine's files: %w", err)
	}
	defer os.RemoveAll(dir)
	archive := filepath.Join(dir, "initramfs")
	if err := m.pack(archive); err != nil {
		return "", 0, err
	}
	cmd := exec.CommandContext(ctx, emulator,
		// Without SMAP: QEMU 7.2 lets iretq, also a program's, read the stack with
		// the kernel's rights, and SMAP is there to forbid that.
		"-machine", "q35", "-cpu", "max,smap=off", "-accel", "tcg,thread=multi", "-smp", "2", "-m", "2048",
		"-nodefaults", "-no-user-config", "-no-reboot", "-display", "none", "-serial", "stdio",
		"-kernel", m.Kernel, "-initrd", archive,
		// x32 is built into Debian's kernels, and off.
		"-append", "console=ttyS0 quiet panic=-1 mitigations=off syscall.x32=y")
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err = cmd.Run()
	console = strings.ReplaceAll(out.String(), "\r\n", "\n")
	if ctx.Err() != nil {
		err = ctx.Err()
	}
	if err != nil {
		return console, 0, fmt.Errorf("emulate a machine: %w", err)
	}
	ended := regexp.MustCompile(`(?m)^` + endMark + `(\d+)$`).FindStringSubmatchIndex(console)
	if ended == nil {
		return console, 0, errors.New("the machine stopped before its program ended")
	}
	status, err = strconv.Atoi(console[ended[2]:ended[3]])
	return console[:ended[0]], status, err
}

// endMark begins the line that tells the program's exit status.
const endMark = "the program has ended with status "

// pack writes the machine's files.
func (m Machine) pack(name string) error {
	f, err := os.Create(name)
	if err != nil {
		return fmt.Errorf("create the machine's files: %w", err)
	}
	defer f.Close()
	w := cpio.NewWriter(f)
	made := make(map[string]bool)
	for inside, here := range m.Files {
		if err := add(w, made, inside, here); err != nil {
			return fmt.Errorf("bring %s to the machine: %w", here, err)
		}
	}
	var modules []string
	for _, here := range m.Modules {
		inside := filepath.Join("/modules", filepath.Base(here))
		modules = append(modules, inside)
		if err := add(w, made, inside, here); err != nil {
			return fmt.Errorf("bring %s to the machine: %w", here, err)
		}
	}
	for _, f := range []struct {
		name string
		mode cpio.FileMode
		text string
	}{
		{modulesFile, cpio.TypeReg | 0o644, strings.Join(modules, "\n")},
		{"init", cpio.TypeSymlink | 0o777, m.Argv[0]},
		{argvFile, cpio.TypeReg | 0o644, strings.Join(m.Argv, "\n")},
		{envFile, cpio.TypeReg | 0o644, strings.Join(m.Env, "\n")},
	} {
		if err := put(w, f.name, f.mode, int64(len(f.text)), strings.NewReader(f.text)); err != nil {
			return fmt.Errorf("write the machine's file %s: %w", f.name, err)
		}
	}
	if err := w.Close(); err != nil {
		return fmt.Errorf("write the machine's files: %w", err)
	}
	return f.Close()
}

const (
	argvFile    = "argv"
	envFile     = "env"
	modulesFile = "modules.list"
)

// add puts a file into the archive, behind the directories that it is in.
func add(w *cpio.Writer, made map[string]bool, inside, here string) error {
	name := strings.TrimPrefix(filepath.Clean(inside), "/")
	for i, c := range name {
		if parent := name[:i]; c == '/' && !made[parent] {
			made[parent] = true
			if err := w.WriteHeader(&cpio.Header{Name: parent, Mode: cpio.TypeDir | 0o755}); err != nil {
				return err
			}
		}
	}
	f, err := os.Open(here)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	return put(w, name, cpio.TypeReg|cpio.FileMode(info.Mode().Perm()), info.Size(), f)
}

// put writes one member of the archive.
func put(w *cpio.Writer, name string, mode cpio.FileMode, size int64, content io.Reader) error {
	if err := w.WriteHeader(&cpio.Header{Name: name, Mode: mode, Size: size}); err != nil {
		return err
	}
	_, err := io.Copy(w, content)
	return err
}

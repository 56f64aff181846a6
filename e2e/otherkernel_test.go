package e2e

import (
	"context"
	"errors"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/seed-055cd0c8/indirect/internal/guest"
)

// TestOtherKernel runs the tests of programs of every ABI on an older kernel,
// Linux 6.1, that runs all three of them.
func TestOtherKernel(t *testing.T) {
	if carried {
		return // this is that kernel
	}
	kernel, err := guest.Kernel("6.1")
	if errors.Is(err, guest.ErrMissing) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	const dir = "/e2e"
	tests := filepath.Join(t.TempDir(), "e2e.test")
	if err := guest.BuildTests(t.Context(), tests); err != nil {
		t.Fatal(err)
	}
	files := map[string]string{dir + "/e2e.test": tests, dir + "/indirect": indirect}
	for _, tool := range []string{"/bin/sh", "/bin/true"} {
		files[tool] = tool
		for _, library := range libraries(t, tool) {
			files[library] = library
		}
	}
	for _, part := range []struct {
		builds  []build
		sources []string
	}{
		{abiBuilds, []string{"kinds.c", "indirect.c", "timerfd.c", "paccept.c", "syslet.c", "leaksocket.c", "oldkernel.c", "oldkerneladd.c"}},
		{amd64Builds, []string{"gate.c"}},
		{headerBuilds, []string{"header.c"}},
		{headerFaultsBuilds, []string{"headerfaults.c"}},
	} {
		for _, b := range part.builds {
			for _, source := range append(part.sources, probeSource) {
				program := b.compile(t, source)
				files[dir+"/"+filepath.Base(program)] = program
			}
			for _, library := range libraries(t, b.path(probeSource)) {
				files[library] = library
			}
		}
	}
	// Of the amd64 builds, one is enough: this machine's own kernel runs them all.
	wanted := []string{
		"TestKinds|TestIndirectBare|TestIndirect|TestTimerfd|TestPacceptSignals|TestSyslet|TestGate|TestAuditI386|" +
			"TestHeader|TestHeaderFaults|TestHeaderOnOldKernels|TestOldKernelAnswers|TestAddOnOldKernel",
		"musl|((c89|gnu)-)?(i386|x32)|[0-9.]+", // or the kernel's version
		"bare|(none|cloexec)(300,1)?|all|no-patch|moved|[0-9.]+|(c89-)?(i386|x32)",
	}
	for i := range wanted {
		wanted[i] = "^(" + wanted[i] + ")$"
	}
	m := guest.Machine{
		Kernel: kernel, Files: files,
		Argv: []string{dir + "/e2e.test", "-test.v", "-test.parallel=4", "-test.timeout=8m", "-test.run=" + strings.Join(wanted, "/")},
		Env:  []string{"PATH=/bin", "HOME=/", "INDIRECT=" + dir + "/indirect", programsVar + "=" + dir, "OLD_KERNEL=1"},
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	console, status, err := m.Run(ctx)
	if err != nil || status != 0 || strings.Contains(console, "--- SKIP") {
		t.Fatalf("status %d, %v\n%s", status, err, failures(console))
	}
	for _, abi := range []string{"i386", "x32"} {
		for _, test := range []string{"TestKinds/" + abi + "/all", "TestIndirect/" + abi + "/cloexec", "TestSyslet/" + abi + "/cloexec300,1", "TestHeader/c89-" + abi + "/none", "TestHeaderFaults/gnu-" + abi + "/cloexec"} {
			if !strings.Contains(console, "--- PASS: "+test+" (") {
				t.Errorf("%s was not run", test)
			}
		}
	}
	if !strings.Contains(console, "--- PASS: TestGate/musl/moved (") {
		t.Error("TestGate was not run")
	}
}

// failures is what a verbose test run says of those tests that failed.
func failures(console string) string {
	var kept []string
	for _, line := range strings.SplitAfter(console, "\n") {
		if word, _, _ := strings.Cut(strings.TrimSpace(line), " "); word != "===" && !strings.Contains(line, "--- PASS") {
			kept = append(kept, line)
		}
	}
	return tail(strings.Join(kept, ""))
}

// libraries are the files that a program is linked with when it starts.
func libraries(t *testing.T, program string) []string {
	t.Helper()
	// The loader of a program that this kernel cannot run tells nothing.
	loaders := map[string]string{
		"/lib64/ld-linux-x86-64.so.2": "/lib/x86_64-linux-gnu", "/lib/ld-linux.so.2": "/lib32", "/libx32/ld-linux-x32.so.2": "/libx32",
	}
	out, err := exec.Command("readelf", "-ld", program).Output()
	if err != nil {
		t.Fatalf("readelf %s: %v", program, err)
	}
	loader := regexp.MustCompile(`interpreter: (\S+)\]`).FindStringSubmatch(string(out))
	if loader == nil {
		return nil // static
	}
	// The last one is what the C library looks for when a thread is cancelled.
	all := []string{loader[1], filepath.Join(loaders[loader[1]], "libgcc_s.so.1")}
	for _, needed := range regexp.MustCompile(`\(NEEDED\).*\[(.+)\]`).FindAllStringSubmatch(string(out), -1) {
		all = append(all, filepath.Join(loaders[loader[1]], needed[1]))
	}
	return all
}

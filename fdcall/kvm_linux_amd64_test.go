package fdcall

import (
	"context"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/seed-055cd0c8/indirect/internal/guest"
)

// TestMain lets the tests be a machine's only program.
func TestMain(m *testing.M) {
	guest.Main()
	os.Exit(m.Run())
}

// TestKVM makes KVM's calls where they can be made: few machines that are
// virtual themselves have KVM, but the emulated one has a processor for it.
func TestKVM(t *testing.T) {
	if guest.Inside() {
		return
	}
	t.Parallel()
	m, err := kvmMachine(t)
	if errors.Is(err, guest.ErrMissing) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	console, status, err := m.Run(ctx)
	if err != nil || status != 0 {
		t.Errorf("status %d, %v\n%s", status, err, console)
	}
	for _, call := range []string{"CREATE_VM", "CREATE_VCPU", "CREATE_DEVICE", "GET_STATS_FD"} { // that Linux 6.1 has
		if !strings.Contains(console, "--- PASS: TestKernelAgrees/ioctl_KVM_"+call+" (") {
			t.Errorf("KVM_%s was not made\n%s", call, console)
		}
	}
	if strings.Contains(console, "/dev/kvm: no such file") {
		t.Errorf("the machine has no KVM\n%s", console)
	}
}

func kvmMachine(t *testing.T) (guest.Machine, error) {
	kernel, err := guest.Kernel("6.1")
	if err != nil {
		return guest.Machine{}, err
	}
	var modules []string
	for _, name := range []string{"virt/lib/irqbypass.ko", "arch/x86/kvm/kvm.ko", "drivers/crypto/ccp/ccp.ko", "arch/x86/kvm/kvm-amd.ko"} {
		module, err := guest.Module(kernel, name)
		if err != nil {
			return guest.Machine{}, err
		}
		modules = append(modules, module)
	}
	m, err := guest.Tests(t.Context(), kernel, t.TempDir(), "^TestKernelAgrees$/^ioctl_KVM")
	m.Modules = modules
	return m, err
}

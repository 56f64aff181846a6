package image

import (
	"slices"
	"testing"

	"github.com/seed-055cd0c8/indirect/fdcall"
	"github.com/seed-055cd0c8/indirect/syscalls"
)

func TestKinds(t *testing.T) {
	const x32 = 1 << 30
	for _, tt := range []struct {
		abi  fdcall.ABI
		name string
		nr   int32
		want Kind
	}{
		{fdcall.AMD64, "read", 0, Read},
		{fdcall.AMD64, "open", 2, MayBlock},
		{fdcall.AMD64, "clone", 56, Refused},
		{fdcall.AMD64, "recvmsg", 47, Flags2},
		{fdcall.X32, "recvmsg", 519 | x32, Flags2},
		{fdcall.X32, "read", 0 | x32, Read},
		{fdcall.I386, "read", 3, Read},
		{fdcall.I386, "pread64", 180, Pread},
		{fdcall.I386, "sigreturn", 119, Refused},
		{fdcall.I386, "sigprocmask", 126, Direct},
		{fdcall.I386, "getuid32", 199, Direct},
		{fdcall.I386, "clock_gettime64", 403, Direct},
		{fdcall.I386, "recvmmsg_time64", 417, Flags3},
		{fdcall.I386, "socketcall", 102, MayBlock},
		{fdcall.I386, "futex_time64", 422, MayBlock},
		{fdcall.ARM64, "read", 63, Read},
	} {
		if got := Kinds(tt.abi)[tt.nr]; got != tt.want {
			t.Errorf("%s on %v is of kind %d, want %d", tt.name, tt.abi, got, tt.want)
		}
	}
}

// Each name is a call's, and has one kind.
func TestKindsAreOfCalls(t *testing.T) {
	names := syscalls.Names()
	of := make(map[string]Kind)
	for kind, calls := range kindsOf {
		for _, name := range calls {
			if !slices.Contains(names, name) {
				t.Errorf("Linux has no call %s", name)
			}
			if other, twice := of[name]; twice {
				t.Errorf("%s is of the kinds %d and %d", name, kind, other)
			}
			of[name] = kind
		}
	}
}

func TestOnDescriptor(t *testing.T) {
	for kind, want := range map[Kind]bool{
		MayBlock: false, Direct: false, Refused: false, Alike: false,
		Flags2: true, Flags3: true, Read: true, Pread: true, Write: true, Pwrite: true, Accept: true,
	} {
		if got := kind.OnDescriptor(); got != want {
			t.Errorf("kind %d: %v, want %v", kind, got, want)
		}
	}
}

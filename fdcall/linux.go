package fdcall

import "slices"

// Bits of the kernel's interface, equal on every ABI of the table.
const (
	oCloexec  = 0o2000000
	oNonblock = 0o4000
	low32     = 0xffffffff
	sign32    = 0x80000000
)

// linux returns the rows.
func linux() []Call {
	return slices.Concat(
		opening(),
		mounting(),
		pipes(),
		duplicating(),
		sockets(),
		socketcall(),
		events(),
		processes(),
		bpf(),
		ioctls(),
	)
}

// equals is the condition that the low half of argument arg, which is an int
// or unsigned int in the kernel, is value.
func equals(arg uint8, value uint32) Cond {
	return Cond{Arg: arg, Mask: low32, Value: uint64(value)}
}

func v(major, minor, patch uint8) Version { return Version{major, minor, patch} }

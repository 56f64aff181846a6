package fdcall

// Bits of the kernel's interface, equal on every ABI of the table.
const (
	oCloexec       = 0o2000000
	oNonblock      = 0o4000
	fDupfd         = 0
	fDupfdCloexec  = 1030
	msgCmsgCloexec = 0x40000000
	low32          = 0xffffffff
)

// linux returns the rows.
func linux() []Call {
	return []Call{
		{
			Name: "open", Nr: nr(2, 5, None), FlagsArg: 1, CloexecBits: oCloexec, NonblockBits: oNonblock,
			Class: HasFlags, Cancels: true, Since: Version{1, 0, 0}, CloexecSince: Version{2, 6, 23}, NonblockSince: Version{1, 0, 0},
			Source: "open(2)", Note: "unknown flag bits are ignored, so a refusal cannot be probed",
		},
		{
			Name: "creat", Nr: nr(85, 8, None), FlagsArg: NoFlags, Class: Alternative, Cancels: true,
			Upgrade: &Upgrade{To: "open", Args: []Operand{Arg(0), Const(0o1101), Arg(1)}},
			Since:   Version{1, 0, 0}, Source: "open(2)", Note: "open with O_CREAT|O_WRONLY|O_TRUNC",
		},
		{
			Name: "pipe", Nr: nr(22, 42, None), Gives: Pair, FlagsArg: NoFlags, Class: NewCall,
			Upgrade: &Upgrade{To: "pipe2", Args: []Operand{Arg(0)}},
			Since:   Version{1, 0, 0}, Source: "pipe(2)",
		},
		{
			Name: "pipe2", Nr: nr(293, 331, 59), Gives: Pair, FlagsArg: 1, CloexecBits: oCloexec, NonblockBits: oNonblock,
			Class: HasFlags, Since: Version{2, 6, 27}, CloexecSince: Version{2, 6, 27}, NonblockSince: Version{2, 6, 27}, Source: "pipe(2)",
		},
		{
			Name: "dup", Nr: nr(32, 41, 23), Shares: true, FlagsArg: NoFlags, Class: Alternative,
			Upgrade: &Upgrade{To: "fcntl F_DUPFD_CLOEXEC", Args: []Operand{Arg(0), Const(fDupfdCloexec)}},
			Since:   Version{1, 0, 0}, Source: "dup(2)",
		},
		{
			Name: "fcntl", Op: "F_DUPFD", Nr: nr(72, 55, 25), Shares: true, FlagsArg: NoFlags, Class: Alternative,
			When:    []Cond{{Arg: 1, Mask: low32, Value: fDupfd}},
			Upgrade: &Upgrade{To: "fcntl F_DUPFD_CLOEXEC", Args: []Operand{Arg(0), Const(fDupfdCloexec), Arg(2)}},
			Since:   Version{1, 0, 0}, Source: "fcntl(2)",
		},
		{
			Name: "fcntl", Op: "F_DUPFD_CLOEXEC", Nr: nr(72, 55, 25), Shares: true, FlagsArg: NoFlags, Class: Always,
			When:  []Cond{{Arg: 1, Mask: low32, Value: fDupfdCloexec}},
			Since: Version{2, 6, 24}, Source: "fcntl(2)",
		},
	}
}

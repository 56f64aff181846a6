package fdcall

func pipes() []Call {
	return []Call{
		{
			Name: "pipe", Nr: nr(22, 42, None), Gives: Pair, FlagsArg: NoFlags, Class: NewCall,
			Upgrade: &Upgrade{To: "pipe2", Args: []Operand{Arg(0)}},
			Since:   v(1, 0, 0), Source: "pipe(2)",
		},
		{
			Name: "pipe2", Nr: nr(293, 331, 59), Gives: Pair, FlagsArg: 1, CloexecBits: oCloexec, NonblockBits: oNonblock,
			Class: HasFlags, Since: v(2, 6, 27), CloexecSince: v(2, 6, 27), NonblockSince: v(2, 6, 27), Source: "pipe(2)",
		},
	}
}

// duplicating has the calls that give a second number to an open file description.
func duplicating() []Call {
	return []Call{
		{
			Name: "dup", Nr: nr(32, 41, 23), Shares: true, FlagsArg: NoFlags, Class: Alternative,
			Upgrade: &Upgrade{To: "fcntl F_DUPFD_CLOEXEC", Args: []Operand{Arg(0), Const(fDupfdCloexec)}, Errno: Errno{Theirs: einval, Ours: emfile}},
			Since:   v(1, 0, 0), Source: "dup(2)", Note: "where RLIMIT_NOFILE is 0, fcntl fails with EINVAL, and dup with EMFILE",
		},
		{
			Name: "dup2", Nr: nr(33, 63, None), Gives: Exact, GivesArg: 1, Shares: true, FlagsArg: NoFlags, Class: ByChoice,
			Since: v(1, 0, 0), Source: "dup(2)", Note: "clears close-on-exec of its target; with equal arguments it changes nothing, where dup3 fails with EINVAL",
		},
		{
			Name: "dup3", Nr: nr(292, 330, 24), Gives: Exact, GivesArg: 1, Shares: true, FlagsArg: 2, CloexecBits: oCloexec, Class: ByChoice,
			Since: v(2, 6, 27), CloexecSince: v(2, 6, 27), Source: "dup(2)",
		},
		{
			Name: "fcntl", Op: "F_DUPFD", Nr: nr(72, 55, 25), Shares: true, FlagsArg: NoFlags, Class: Alternative,
			When:    []Cond{equals(1, fDupfd)},
			Upgrade: &Upgrade{To: "fcntl F_DUPFD_CLOEXEC", Args: []Operand{Arg(0), Const(fDupfdCloexec), Arg(2)}},
			Since:   v(1, 0, 0), Source: "fcntl(2)", Note: "argument 2 is the lowest number that will do",
		},
		{
			Name: "fcntl", Op: "F_DUPFD_CLOEXEC", Nr: nr(72, 55, 25), Shares: true, FlagsArg: NoFlags, Class: Always,
			When:  []Cond{equals(1, fDupfdCloexec)},
			Since: v(2, 6, 24), Source: "fcntl(2)",
		},
		{
			Name: "fcntl64", Op: "F_DUPFD", Nr: nr(None, 221, None), Shares: true, FlagsArg: NoFlags, Class: Alternative,
			When:    []Cond{equals(1, fDupfd)},
			Upgrade: &Upgrade{To: "fcntl64 F_DUPFD_CLOEXEC", Args: []Operand{Arg(0), Const(fDupfdCloexec), Arg(2)}},
			Since:   v(2, 4, 0), Source: "fcntl(2)", Note: "i386's fcntl with 64-bit file offsets",
		},
		{
			Name: "fcntl64", Op: "F_DUPFD_CLOEXEC", Nr: nr(None, 221, None), Shares: true, FlagsArg: NoFlags, Class: Always,
			When:  []Cond{equals(1, fDupfdCloexec)},
			Since: v(2, 6, 24), Source: "fcntl(2)", Note: "i386's fcntl with 64-bit file offsets",
		},
	}
}

const (
	fDupfd        = 0
	fDupfdCloexec = 1030
)

// Error numbers, equal on every ABI of the table.
const (
	einval = 22
	emfile = 24
)

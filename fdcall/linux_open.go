package fdcall

// opening has the calls that open a file by name or handle, or make one that has no name.
func opening() []Call {
	return []Call{
		{
			Name: "open", Nr: nr(2, 5, None), FlagsArg: 1, CloexecBits: oCloexec, NonblockBits: oNonblock,
			Class: HasFlags, Cancels: true,
			Since: v(1, 0, 0), CloexecSince: v(2, 6, 23), NonblockSince: v(1, 0, 0),
			Source: "open(2)", Note: "unknown flag bits are ignored, so that a refusal cannot be probed for",
		},
		{
			Name: "creat", Nr: nr(85, 8, None), FlagsArg: NoFlags, Class: Alternative, Cancels: true,
			Upgrade: &Upgrade{To: "open", Args: []Operand{Arg(0), Const(oCreatWronlyTrunc | oLargefile), Arg(1)}},
			Since:   v(1, 0, 0), Source: "open(2)", Note: "open with O_CREAT|O_WRONLY|O_TRUNC",
		},
		{
			Name: "openat", Nr: nr(257, 295, 56), FlagsArg: 2, CloexecBits: oCloexec, NonblockBits: oNonblock,
			Class: HasFlags, Cancels: true,
			Since: v(2, 6, 16), CloexecSince: v(2, 6, 23), NonblockSince: v(2, 6, 16),
			Source: "open(2)", Note: "unknown flag bits are ignored, so that a refusal cannot be probed for",
		},
		{
			Name: "openat2", Nr: all(437), FlagsArg: 2, Indirect: true, CloexecBits: oCloexec, NonblockBits: oNonblock,
			Class: HasFlags, Cancels: true,
			Since: v(5, 6, 0), CloexecSince: v(5, 6, 0), NonblockSince: v(5, 6, 0),
			Source: "openat2(2)", Note: "the flags are in struct open_how, in memory that other threads can write: run the call on a copy",
		},
		{
			Name: "open_by_handle_at", Nr: nr(304, 342, 265), FlagsArg: 2, CloexecBits: oCloexec, NonblockBits: oNonblock,
			Class: HasFlags, Cancels: true,
			Since: v(2, 6, 39), CloexecSince: v(2, 6, 39), NonblockSince: v(2, 6, 39),
			Source: "open_by_handle_at(2)",
		},
		{
			Name: "mq_open", Nr: nr(240, 277, 180), FlagsArg: 1, NonblockBits: oNonblock, Class: Always,
			Since: v(2, 6, 6), NonblockSince: v(2, 6, 6),
			Source: "mq_overview(7), ipc/mqueue.c",
		},
		{
			Name: "memfd_create", Nr: nr(319, 356, 279), FlagsArg: 1, CloexecBits: mfdCloexec,
			Class: HasFlags, Since: v(3, 17, 0), CloexecSince: v(3, 17, 0),
			Source: "memfd_create(2)",
		},
		{
			Name: "memfd_secret", Nr: all(447), FlagsArg: 0, CloexecBits: oCloexec,
			Class: HasFlags, Since: v(5, 14, 0), CloexecSince: v(5, 14, 0),
			Source: "memfd_secret(2)", Note: "fails with ENOSYS where the kernel was booted without secretmem",
		},
	}
}

// mounting has the calls that give a descriptor of a mount or of one being made.
func mounting() []Call {
	return []Call{
		{
			Name: "open_tree", Nr: all(428), FlagsArg: 2, CloexecBits: oCloexec, Leaves: Nonblock,
			Class: HasFlags, Since: v(5, 2, 0), CloexecSince: v(5, 2, 0),
			Source: "open_tree(2)", Note: "gives an O_PATH descriptor, which has no status flags",
		},
		{
			Name: "open_tree_attr", Nr: all(467), FlagsArg: 2, CloexecBits: oCloexec, Leaves: Nonblock,
			Class: HasFlags, Since: v(6, 15, 0), CloexecSince: v(6, 15, 0),
			Source: "fs/namespace.c", Note: "gives an O_PATH descriptor, which has no status flags",
		},
		{
			Name: "fsopen", Nr: all(430), FlagsArg: 1, CloexecBits: fsopenCloexec,
			Class: HasFlags, Since: v(5, 2, 0), CloexecSince: v(5, 2, 0), Source: "fsopen(2)",
		},
		{
			Name: "fsmount", Nr: all(432), FlagsArg: 1, CloexecBits: fsmountCloexec, Leaves: Nonblock,
			Class: HasFlags, Since: v(5, 2, 0), CloexecSince: v(5, 2, 0),
			Source: "fsmount(2)", Note: "gives an O_PATH descriptor, which has no status flags",
		},
		{
			Name: "fspick", Nr: all(433), FlagsArg: 2, CloexecBits: fspickCloexec,
			Class: HasFlags, Since: v(5, 2, 0), CloexecSince: v(5, 2, 0), Source: "fspick(2)",
		},
	}
}

const (
	oCreatWronlyTrunc = 0o1101
	oLargefile        = 0o100000 // creat(2) forces it on 64-bit kernels, a 32-bit open(2) does not
	mfdCloexec        = 1
	fsopenCloexec     = 1
	fsmountCloexec    = 1
	fspickCloexec     = 1
)

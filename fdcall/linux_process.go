package fdcall

// processes has the calls that give a descriptor of a process, and of what confines one.
func processes() []Call {
	return []Call{
		{
			Name: "pidfd_open", Nr: all(434), FlagsArg: 1, NonblockBits: oNonblock, Class: Always,
			Since: v(5, 3, 0), NonblockSince: v(5, 10, 0), Source: "pidfd_open(2)",
		},
		{
			Name: "pidfd_getfd", Nr: all(438), Shares: true, FlagsArg: NoFlags, Class: Always,
			Since: v(5, 6, 0), Source: "pidfd_getfd(2)",
		},
		{
			Name: "clone", Op: "CLONE_PIDFD", Nr: nr(56, 120, 220), Gives: Memory, GivesArg: 2, FlagsArg: NoFlags, Class: Always,
			When:  []Cond{{Arg: 0, Mask: clonePidfd, Value: clonePidfd}},
			Since: v(5, 2, 0), Source: "clone(2)", Note: "the descriptor is the parent's",
		},
		{
			Name: "clone3", Nr: all(435), Gives: Memory, GivesArg: 0, FlagsArg: NoFlags, Class: Always,
			Since: v(5, 3, 0), Source: "clone(2)", Note: "gives a descriptor only if struct clone_args, in memory, has CLONE_PIDFD: where its pidfd member points",
		},
		{
			Name: "landlock_create_ruleset", Nr: all(444), FlagsArg: NoFlags, Leaves: Nonblock, Class: Always,
			When:  []Cond{equals(2, 0)},
			Since: v(5, 13, 0), Source: "landlock_create_ruleset(2)", Note: "with flags in argument 2 the result is a number that is no descriptor",
		},
		{
			// The new filter may forbid whatever moving the descriptor takes.
			Name: "seccomp", Op: "SECCOMP_FILTER_FLAG_NEW_LISTENER", Nr: nr(317, 354, 277), FlagsArg: NoFlags, Leaves: Nonblock | Nonseq, Class: Always,
			When:  []Cond{equals(0, seccompSetModeFilter), {Arg: 1, Mask: seccompNewListener, Value: seccompNewListener}},
			Since: v(5, 0, 0), Source: "seccomp(2)",
		},
	}
}

// bpf has the commands of bpf(2) that give a descriptor.
func bpf() []Call {
	var rows []Call
	for _, c := range []struct {
		op    string
		cmd   uint32
		since Version
	}{
		{"BPF_MAP_CREATE", 0, v(3, 18, 0)},
		{"BPF_PROG_LOAD", 5, v(3, 18, 0)},
		{"BPF_OBJ_GET", 7, v(4, 4, 0)},
		{"BPF_PROG_GET_FD_BY_ID", 13, v(4, 13, 0)},
		{"BPF_MAP_GET_FD_BY_ID", 14, v(4, 13, 0)},
		{"BPF_RAW_TRACEPOINT_OPEN", 17, v(4, 17, 0)},
		{"BPF_BTF_LOAD", 18, v(4, 18, 0)},
		{"BPF_BTF_GET_FD_BY_ID", 19, v(4, 18, 0)},
		{"BPF_LINK_CREATE", 28, v(5, 7, 0)},
		{"BPF_LINK_GET_FD_BY_ID", 30, v(5, 8, 0)},
		{"BPF_ENABLE_STATS", 32, v(5, 8, 0)},
		{"BPF_ITER_CREATE", 33, v(5, 8, 0)},
		{"BPF_TOKEN_CREATE", 36, v(6, 9, 0)},
	} {
		rows = append(rows, Call{
			Name: "bpf", Op: c.op, Nr: nr(321, 357, 280), When: []Cond{equals(0, c.cmd)},
			FlagsArg: NoFlags, Leaves: Nonblock | Nonseq, Class: Always,
			Since: c.since, Source: "bpf(2), kernel/bpf/syscall.c",
		})
	}
	return rows
}

const (
	clonePidfd           = 0x1000
	seccompSetModeFilter = 1
	seccompNewListener   = 8
)

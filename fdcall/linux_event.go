package fdcall

// events has the calls whose descriptors report events.
func events() []Call {
	return []Call{
		{
			Name: "epoll_create", Nr: nr(213, 254, None), FlagsArg: NoFlags, Class: NewCall,
			// A size of zero or less is EINVAL, and has no equal in epoll_create1.
			When:    []Cond{{Arg: 0, Mask: sign32}, {Arg: 0, Mask: low32, Not: true}},
			Upgrade: &Upgrade{To: "epoll_create1"},
			Since:   v(2, 6, 0), Source: "epoll_create(2)",
		},
		{
			Name: "epoll_create1", Nr: nr(291, 329, 20), FlagsArg: 0, CloexecBits: oCloexec,
			Class: HasFlags, Since: v(2, 6, 27), CloexecSince: v(2, 6, 27), Source: "epoll_create(2)",
		},
		{
			Name: "eventfd", Nr: nr(284, 323, None), FlagsArg: NoFlags, Class: NewCall,
			Upgrade: &Upgrade{To: "eventfd2", Args: []Operand{Arg(0)}},
			Since:   v(2, 6, 22), Source: "eventfd(2)", Note: "the C library's eventfd had a flags argument from the start: programs saw no new call",
		},
		{
			Name: "eventfd2", Nr: nr(290, 328, 19), FlagsArg: 1, CloexecBits: oCloexec, NonblockBits: oNonblock,
			Class: HasFlags, Since: v(2, 6, 27), CloexecSince: v(2, 6, 27), NonblockSince: v(2, 6, 27), Source: "eventfd(2)",
		},
		{
			Name: "signalfd", Nr: nr(282, 321, None), FlagsArg: NoFlags, Class: NewCall,
			When:    []Cond{equals(0, newSignalfd)},
			Upgrade: &Upgrade{To: "signalfd4", Args: []Operand{Arg(0), Arg(1), Arg(2)}},
			Since:   v(2, 6, 22), Source: "signalfd(2)", Note: "the C library's signalfd had a flags argument from the start: programs saw no new call",
		},
		{
			Name: "signalfd4", Nr: nr(289, 327, 74), FlagsArg: 3, CloexecBits: oCloexec, NonblockBits: oNonblock,
			When:  []Cond{equals(0, newSignalfd)},
			Class: HasFlags, Since: v(2, 6, 27), CloexecSince: v(2, 6, 27), NonblockSince: v(2, 6, 27), Source: "signalfd(2)",
			Note: "flags are ignored where argument 0 is an existing descriptor",
		},
		{
			Name: "timerfd_create", Nr: nr(283, 322, 85), FlagsArg: 1, CloexecBits: oCloexec, NonblockBits: oNonblock,
			Class: HasFlags, Since: v(2, 6, 25), CloexecSince: v(2, 6, 27), NonblockSince: v(2, 6, 27), Source: "timerfd_create(2)",
		},
		{
			Name: "inotify_init", Nr: nr(253, 291, None), FlagsArg: NoFlags, Class: NewCall,
			Upgrade: &Upgrade{To: "inotify_init1"},
			Since:   v(2, 6, 13), Source: "inotify_init(2)",
		},
		{
			Name: "inotify_init1", Nr: nr(294, 332, 26), FlagsArg: 0, CloexecBits: oCloexec, NonblockBits: oNonblock,
			Class: HasFlags, Since: v(2, 6, 27), CloexecSince: v(2, 6, 27), NonblockSince: v(2, 6, 27), Source: "inotify_init(2)",
		},
		{
			Name: "fanotify_init", Nr: nr(300, 338, 262), FlagsArg: 0, CloexecBits: fanCloexec, NonblockBits: fanNonblock,
			Class: HasFlags, Since: v(2, 6, 37), CloexecSince: v(2, 6, 37), NonblockSince: v(2, 6, 37), Source: "fanotify_init(2)",
			Note: "O_CLOEXEC in argument 1 is for the descriptors that reading the group gives",
		},
		{
			Name: "userfaultfd", Nr: nr(323, 374, 282), FlagsArg: 0, CloexecBits: oCloexec, NonblockBits: oNonblock,
			Class: HasFlags, Since: v(4, 3, 0), CloexecSince: v(4, 3, 0), NonblockSince: v(4, 3, 0), Source: "userfaultfd(2)",
		},
		{
			Name: "perf_event_open", Nr: nr(298, 336, 241), FlagsArg: 4, CloexecBits: perfFlagCloexec,
			Class: HasFlags, Since: v(2, 6, 31), CloexecSince: v(3, 14, 0), Source: "perf_event_open(2)",
		},
		{
			Name: "io_uring_setup", Nr: all(425), FlagsArg: NoFlags, Class: Always,
			Since: v(5, 1, 0), Source: "io_uring_setup(2), io_uring/io_uring.c",
			Note: "the operations submitted to a ring create descriptors that no filter of system calls sees",
		},
	}
}

const (
	newSignalfd     = low32 // -1: make a new descriptor
	fanCloexec      = 1
	fanNonblock     = 2
	perfFlagCloexec = 8
)

package fdcall

import (
	"math/bits"
	"testing"

	"golang.org/x/sys/unix"
)

// Every row is complete, and what it names exists.
func TestRows(t *testing.T) {
	table := Linux()
	seen := make(map[string]bool)
	rows := table.All()
	for i := range rows {
		c := &rows[i]
		t.Run(c.ID(), func(t *testing.T) {
			check := func(ok bool, what string) {
				t.Helper()
				if !ok {
					t.Error(what)
				}
			}
			check(!seen[c.ID()], "the ID is there twice")
			seen[c.ID()] = true
			check(table.ByID(c.ID()) == c, "ByID does not find it")
			check(c.Name != "" && c.Source != "", "no name or source")
			check(c.Since != Version{}, "no version")
			check(int(c.Class) < len(classes), "unknown class")
			check(c.Nr != Numbers{None, None, None, None}, "no number")
			check((c.Nr[X32] == None) == (c.Nr[AMD64] == None), "x32 and amd64 differ in whether they have the call")
			check(c.FlagsArg >= NoFlags && c.FlagsArg < 6, "flags argument out of range")
			check(c.GivesArg >= 0 && c.GivesArg < 6, "result argument out of range")
			check(c.Gives != Ret || c.GivesArg == 0, "a return value has no argument")
			check(bits.OnesCount32(c.CloexecBits) <= 1 && bits.OnesCount32(c.NonblockBits) <= 1, "more than one bit")
			check(c.CloexecBits == 0 || c.CloexecBits != c.NonblockBits, "one bit for two properties")
			check(!c.Indirect || c.FlagsArg >= 0 && c.FlagsArg < 5, "no argument for the size of the structure")

			// Bits have an argument and a version.
			check(c.FlagsArg != NoFlags || c.CloexecBits|c.NonblockBits == 0, "bits without an argument")
			check(c.FlagsArg == NoFlags || c.CloexecBits|c.NonblockBits != 0, "a flags argument without bits")
			check((c.CloexecBits == 0) == (c.CloexecSince == Version{}), "close-on-exec bit and version disagree")
			check((c.NonblockBits == 0) == (c.NonblockSince == Version{}), "non-blocking bit and version disagree")
			check(!older(c.CloexecSince, c.Since), "close-on-exec is older than the call")
			check(!older(c.NonblockSince, c.Since), "non-blocking is older than the call")

			// The class agrees with the rest.
			switch c.Class {
			case HasFlags, Overloads:
				check(c.CloexecBits != 0, "the class says that there is a close-on-exec bit")
				check(c.Upgrade == nil || c.Block, "a call with flags needs no other")
			case Alternative, NewCall:
				check(c.CloexecBits == 0 && c.Upgrade != nil, "the class says that another call has the bit")
			case ByChoice:
				check(c.Gives == Exact && c.Upgrade == nil, "the class says that the number is the caller's")
			case Always, Never:
				check(c.CloexecBits == 0 && c.Upgrade == nil, "the class says that the caller has no say")
			}
			check(!c.Block || c.Upgrade != nil, "no direct call for the arguments in memory")

			for _, w := range c.When {
				check(w.Arg < 6, "condition on an argument that does not exist")
				check(w.Value&^w.Mask == 0, "condition that can never be met")
				check(w.Mask>>32 == 0, "condition on the upper half, which the kernel ignores")
			}
			if u := c.Upgrade; u != nil {
				to := table.ByID(u.To)
				if to == nil {
					t.Fatalf("runs %q instead, which is not in the table", u.To)
				}
				check(len(u.Args) <= 6, "more than six arguments")
				for _, o := range u.Args {
					check(o.From >= -1 && o.From < 6, "argument out of range")
				}
				check(to.Upgrade == nil, "runs a call instead that is itself run as another")
				check(to.Gives == c.Gives && to.GivesArg == c.GivesArg && to.Shares == c.Shares && to.Leaves == c.Leaves,
					"the other call gives something else")
				check(to.Cancels == c.Cancels, "the other call is not a cancellation point alike")
				for a, n := range c.Nr {
					check(n == None || to.Nr[a] != None, "the other call does not exist on "+ABI(a).String())
				}
			}
		})
	}
}

// An operation of a multiplexed call has conditions, and no two rows of a
// number can be meant by the same arguments.
func TestRowsOfOneNumberAreDisjoint(t *testing.T) {
	table := Linux()
	for a := range table.nr {
		for n, rows := range table.nr[a] {
			for i, c := range rows {
				for _, d := range rows[i+1:] {
					if !disjoint(c, d) {
						t.Errorf("%s number %d can be both %s and %s", ABI(a), n, c.ID(), d.ID())
					}
				}
			}
		}
	}
}

// disjoint reports whether some argument cannot be both c's and d's.
func disjoint(c, d *Call) bool {
	for _, x := range c.When {
		for _, y := range d.When {
			if x.Arg == y.Arg && !x.Not && !y.Not && (x.Value^y.Value)&x.Mask&y.Mask != 0 {
				return true
			}
		}
	}
	return false
}

func older(a, b Version) bool {
	if a == (Version{}) {
		return false
	}
	for _, d := range []int{int(a.Major) - int(b.Major), int(a.Minor) - int(b.Minor), int(a.Patch) - int(b.Patch)} {
		if d != 0 {
			return d < 0
		}
	}
	return false
}

// The package has no imports of the kernel's constants, because its rows are
// for every ABI on any system: here they meet the kernel's.
func TestConstants(t *testing.T) {
	table := Linux()
	for id, want := range map[string]uint32{
		"open": unix.O_CLOEXEC, "openat": unix.O_CLOEXEC, "openat2": unix.O_CLOEXEC, "open_by_handle_at": unix.O_CLOEXEC,
		"memfd_create": unix.MFD_CLOEXEC, "memfd_secret": unix.O_CLOEXEC,
		"open_tree": unix.OPEN_TREE_CLOEXEC, "open_tree_attr": unix.OPEN_TREE_CLOEXEC,
		"fsopen": unix.FSOPEN_CLOEXEC, "fsmount": unix.FSMOUNT_CLOEXEC, "fspick": unix.FSPICK_CLOEXEC,
		"pipe2": unix.O_CLOEXEC, "dup3": unix.O_CLOEXEC,
		"socket": unix.SOCK_CLOEXEC, "socketpair": unix.SOCK_CLOEXEC, "accept4": unix.SOCK_CLOEXEC,
		"recvmsg": unix.MSG_CMSG_CLOEXEC, "recvmmsg": unix.MSG_CMSG_CLOEXEC, "recvmmsg_time64": unix.MSG_CMSG_CLOEXEC,
		"epoll_create1": unix.EPOLL_CLOEXEC, "eventfd2": unix.EFD_CLOEXEC, "signalfd4": unix.SFD_CLOEXEC,
		"timerfd_create": unix.TFD_CLOEXEC, "inotify_init1": unix.IN_CLOEXEC, "fanotify_init": unix.FAN_CLOEXEC,
		"userfaultfd": unix.O_CLOEXEC, "perf_event_open": unix.PERF_FLAG_FD_CLOEXEC,
		"ioctl TIOCGPTPEER": unix.O_CLOEXEC, "ioctl USERFAULTFD_IOC_NEW": unix.O_CLOEXEC,
		"socketcall SYS_SOCKET": unix.SOCK_CLOEXEC, "socketcall SYS_SOCKETPAIR": unix.SOCK_CLOEXEC, "socketcall SYS_ACCEPT4": unix.SOCK_CLOEXEC,
		"socketcall SYS_RECVMSG": unix.MSG_CMSG_CLOEXEC, "socketcall SYS_RECVMMSG": unix.MSG_CMSG_CLOEXEC,
	} {
		if c := table.ByID(id); c == nil || c.CloexecBits != want {
			t.Errorf("%s: close-on-exec is %#x in the kernel's headers, the row is %+v", id, want, c)
		}
	}
	for id, want := range map[string]uint32{
		"open": unix.O_NONBLOCK, "openat": unix.O_NONBLOCK, "openat2": unix.O_NONBLOCK, "open_by_handle_at": unix.O_NONBLOCK,
		"mq_open": unix.O_NONBLOCK, "pipe2": unix.O_NONBLOCK,
		"socket": unix.SOCK_NONBLOCK, "socketpair": unix.SOCK_NONBLOCK, "accept4": unix.SOCK_NONBLOCK,
		"eventfd2": unix.EFD_NONBLOCK, "signalfd4": unix.SFD_NONBLOCK, "timerfd_create": unix.TFD_NONBLOCK,
		"inotify_init1": unix.IN_NONBLOCK, "fanotify_init": unix.FAN_NONBLOCK, "userfaultfd": unix.O_NONBLOCK,
		"pidfd_open": unix.PIDFD_NONBLOCK, "ioctl TIOCGPTPEER": unix.O_NONBLOCK, "ioctl USERFAULTFD_IOC_NEW": unix.O_NONBLOCK,
		"socketcall SYS_SOCKET": unix.SOCK_NONBLOCK, "socketcall SYS_SOCKETPAIR": unix.SOCK_NONBLOCK, "socketcall SYS_ACCEPT4": unix.SOCK_NONBLOCK,
	} {
		if c := table.ByID(id); c == nil || c.NonblockBits != want {
			t.Errorf("%s: non-blocking is %#x in the kernel's headers, the row is %+v", id, want, c)
		}
	}
	for id, want := range map[string]Cond{
		"fcntl F_DUPFD":                               equals(1, unix.F_DUPFD),
		"fcntl F_DUPFD_CLOEXEC":                       equals(1, unix.F_DUPFD_CLOEXEC),
		"clone CLONE_PIDFD":                           {Arg: 0, Mask: unix.CLONE_PIDFD, Value: unix.CLONE_PIDFD},
		"seccomp SECCOMP_FILTER_FLAG_NEW_LISTENER":    equals(0, unix.SECCOMP_SET_MODE_FILTER),
		"bpf BPF_MAP_CREATE":                          equals(0, unix.BPF_MAP_CREATE),
		"bpf BPF_PROG_LOAD":                           equals(0, unix.BPF_PROG_LOAD),
		"bpf BPF_OBJ_GET":                             equals(0, unix.BPF_OBJ_GET),
		"bpf BPF_PROG_GET_FD_BY_ID":                   equals(0, unix.BPF_PROG_GET_FD_BY_ID),
		"bpf BPF_MAP_GET_FD_BY_ID":                    equals(0, unix.BPF_MAP_GET_FD_BY_ID),
		"bpf BPF_RAW_TRACEPOINT_OPEN":                 equals(0, unix.BPF_RAW_TRACEPOINT_OPEN),
		"bpf BPF_BTF_LOAD":                            equals(0, unix.BPF_BTF_LOAD),
		"bpf BPF_BTF_GET_FD_BY_ID":                    equals(0, unix.BPF_BTF_GET_FD_BY_ID),
		"bpf BPF_LINK_CREATE":                         equals(0, unix.BPF_LINK_CREATE),
		"bpf BPF_LINK_GET_FD_BY_ID":                   equals(0, unix.BPF_LINK_GET_FD_BY_ID),
		"bpf BPF_ENABLE_STATS":                        equals(0, unix.BPF_ENABLE_STATS),
		"bpf BPF_ITER_CREATE":                         equals(0, unix.BPF_ITER_CREATE),
		"ioctl TIOCGPTPEER":                           equals(1, unix.TIOCGPTPEER),
		"ioctl NS_GET_USERNS":                         equals(1, unix.NS_GET_USERNS),
		"ioctl NS_GET_PARENT":                         equals(1, unix.NS_GET_PARENT),
		"ioctl TUNGETDEVNETNS":                        equals(1, unix.TUNGETDEVNETNS),
		"ioctl SIOCGSKNS":                             equals(1, unix.SIOCGSKNS),
		"ioctl PIDFD_GET_CGROUP_NAMESPACE":            equals(1, unix.PIDFD_GET_CGROUP_NAMESPACE),
		"ioctl PIDFD_GET_IPC_NAMESPACE":               equals(1, unix.PIDFD_GET_IPC_NAMESPACE),
		"ioctl PIDFD_GET_MNT_NAMESPACE":               equals(1, unix.PIDFD_GET_MNT_NAMESPACE),
		"ioctl PIDFD_GET_NET_NAMESPACE":               equals(1, unix.PIDFD_GET_NET_NAMESPACE),
		"ioctl PIDFD_GET_PID_NAMESPACE":               equals(1, unix.PIDFD_GET_PID_NAMESPACE),
		"ioctl PIDFD_GET_PID_FOR_CHILDREN_NAMESPACE":  equals(1, unix.PIDFD_GET_PID_FOR_CHILDREN_NAMESPACE),
		"ioctl PIDFD_GET_TIME_NAMESPACE":              equals(1, unix.PIDFD_GET_TIME_NAMESPACE),
		"ioctl PIDFD_GET_TIME_FOR_CHILDREN_NAMESPACE": equals(1, unix.PIDFD_GET_TIME_FOR_CHILDREN_NAMESPACE),
		"ioctl PIDFD_GET_USER_NAMESPACE":              equals(1, unix.PIDFD_GET_USER_NAMESPACE),
		"ioctl PIDFD_GET_UTS_NAMESPACE":               equals(1, unix.PIDFD_GET_UTS_NAMESPACE),
		"getsockopt SO_PEERPIDFD":                     equals(1, unix.SOL_SOCKET),
	} {
		if c := table.ByID(id); c == nil || c.When[0] != want {
			t.Errorf("%s: the kernel's headers say %+v, the row is %+v", id, want, c)
		}
	}
	if got, want := table.ByID("getsockopt SO_PEERPIDFD").When[1], equals(2, unix.SO_PEERPIDFD); got != want {
		t.Errorf("SO_PEERPIDFD: %+v, want %+v", got, want)
	}
	listener := table.ByID("seccomp SECCOMP_FILTER_FLAG_NEW_LISTENER").When[1]
	if listener.Mask != unix.SECCOMP_FILTER_FLAG_NEW_LISTENER || listener.Arg != 1 {
		t.Errorf("SECCOMP_FILTER_FLAG_NEW_LISTENER: %+v", listener)
	}
	if oCreatWronlyTrunc != unix.O_CREAT|unix.O_WRONLY|unix.O_TRUNC {
		t.Errorf("creat is open with %#o", oCreatWronlyTrunc)
	}
}

func TestLookup(t *testing.T) {
	const upper = 0xdead << 32 // the kernel ignores it
	table := Linux()
	for _, tt := range []struct {
		name string
		abi  ABI
		nr   int32
		args [6]uint64
		want string
	}{
		{"plain", AMD64, 257, [6]uint64{}, "openat"},
		{"operation", AMD64, 72, [6]uint64{3, 0}, "fcntl F_DUPFD"},
		{"operation with a dirty upper half", AMD64, 72, [6]uint64{3, upper | 1030}, "fcntl F_DUPFD_CLOEXEC"},
		{"operation that creates nothing", AMD64, 72, [6]uint64{3, 1}, ""},
		{"other ABI", I386, 221, [6]uint64{3, 0}, "fcntl64 F_DUPFD"},
		{"i386 block", I386, 102, [6]uint64{5, 0xffff0000}, "socketcall SYS_ACCEPT"},
		{"i386 block that creates nothing", I386, 102, [6]uint64{4, 0xffff0000}, ""},
		{"x32 own number", X32, 1<<30 | 519, [6]uint64{}, "recvmsg"},
		{"x32 common number", X32, 1<<30 | 2, [6]uint64{}, "open"},
		{"x32 without its bit", X32, 2, [6]uint64{}, ""},
		{"x32 does not have amd64's own", X32, 1<<30 | 47, [6]uint64{}, ""},
		{"epoll size 1", AMD64, 213, [6]uint64{1}, "epoll_create"},
		{"epoll size 0", AMD64, 213, [6]uint64{upper}, ""},
		{"epoll size -1", AMD64, 213, [6]uint64{0xffffffff}, ""},
		{"new signalfd", AMD64, 282, [6]uint64{0xffffffff}, "signalfd"},
		{"new signalfd, 64 bits", AMD64, 289, [6]uint64{^uint64(0)}, "signalfd4"},
		{"old signalfd", AMD64, 289, [6]uint64{7}, ""},
		{"clone without a pidfd", AMD64, 56, [6]uint64{0x11}, ""},
		{"clone with a pidfd", AMD64, 56, [6]uint64{0x1011}, "clone CLONE_PIDFD"},
		{"seccomp without a listener", AMD64, 317, [6]uint64{1, 1}, ""},
		{"seccomp with a listener", AMD64, 317, [6]uint64{1, 9}, "seccomp SECCOMP_FILTER_FLAG_NEW_LISTENER"},
		{"landlock version", AMD64, 444, [6]uint64{0, 0, 1}, ""},
		{"unknown number", AMD64, 100000, [6]uint64{}, ""},
		{"no number", ARM64, None, [6]uint64{}, ""},
		{"unknown ABI", 99, 2, [6]uint64{}, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := ""
			if c := table.Lookup(tt.abi, tt.nr, &tt.args); c != nil {
				got = c.ID()
			}
			if got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

func TestPlan(t *testing.T) {
	table := Linux()
	for _, tt := range []struct {
		id    string
		want  Want
		to    string
		flags uint32 // in argument at, or in the structure
		at    int
		after Want
	}{
		{"creat", Cloexec | Nonblock, "open", oCloexec | oNonblock | oCreatWronlyTrunc | oLargefile, 1, 0},
		{"dup", Cloexec, "fcntl F_DUPFD_CLOEXEC", fDupfdCloexec, 1, 0},
		{"dup", Cloexec | Nonblock | Nonseq, "fcntl F_DUPFD_CLOEXEC", fDupfdCloexec, 1, Nonseq},
		{"openat2", Cloexec, "openat2", oCloexec, -1, 0},
		{"memfd_create", Cloexec | Nonblock, "memfd_create", 1, 1, Nonblock},
		{"epoll_create", Cloexec | Nonblock, "epoll_create1", oCloexec, 0, Nonblock},
		{"mq_open", Cloexec | Nonblock, "mq_open", oNonblock, 1, 0},
		{"socket", Nonseq, "socket", oCloexec, 1, Nonseq}, // not inheritable at its first number
		{"ioctl KVM_CREATE_GUEST_MEMFD", Cloexec, "ioctl KVM_CREATE_GUEST_MEMFD", 0, 0, Cloexec},
		{"socketcall SYS_ACCEPT", Cloexec, "accept4", oCloexec, 3, 0},
	} {
		p, ok := table.Plan(table.ByID(tt.id), tt.want)
		if !ok || p.To.ID() != tt.to || p.After != tt.after {
			t.Errorf("%s with %v: %+v, %t", tt.id, tt.want.words(), p, ok)
			continue
		}
		if tt.at < 0 {
			if p.FlagWord != tt.flags || p.Args != identity {
				t.Errorf("%s: flag word %#x, arguments %+v", tt.id, p.FlagWord, p.Args)
			}
		} else if p.Args[tt.at].Bits != tt.flags || p.FlagWord != 0 {
			t.Errorf("%s: bits %#x, want %#x", tt.id, p.Args[tt.at].Bits, tt.flags)
		}
	}
	for id, w := range map[string]Want{
		"dup2": Cloexec | Nonblock | Nonseq, "dup3": Cloexec, "clone3": Cloexec | Nonseq, "fcntl F_DUPFD_CLOEXEC": Cloexec,
		"dup": Nonblock, "open_tree": Nonblock, "bpf BPF_PROG_LOAD": Cloexec | Nonblock | Nonseq, "open": 0,
	} {
		if p, ok := table.Plan(table.ByID(id), w); ok {
			t.Errorf("%s with %v: %+v, want nothing to do", id, w.words(), p)
		}
	}
	lost := New([]Call{{Name: "creat", Nr: nr(85, 8, None), FlagsArg: NoFlags, Upgrade: &Upgrade{To: "open"}}})
	if p, ok := lost.Plan(lost.ByID("creat"), Cloexec); ok {
		t.Errorf("a plan with a call that is not in the table: %+v", p)
	}
}

func FuzzLookupAndPlan(f *testing.F) {
	table := Linux()
	for _, c := range table.All() {
		for a, n := range c.Nr {
			f.Add(uint8(a), n, uint64(1), uint64(1030), uint64(0), uint64(3), uint8(Cloexec|Nonblock|Nonseq))
		}
	}
	f.Fuzz(func(t *testing.T, abi uint8, number int32, a0, a1, a2, a3 uint64, want uint8) {
		args := [6]uint64{a0, a1, a2, a3, a0, a1}
		c := table.Lookup(ABI(abi), number, &args)
		if c == nil {
			return
		}
		if c.Nr[abi] != number || !c.Matches(&args) {
			t.Fatalf("found %s for %s number %d", c.ID(), ABI(abi), number)
		}
		w := Want(want)
		p, ok := table.Plan(c, w)
		if !ok {
			return
		}
		if p.To == nil || p.After&^c.Applicable(w) != 0 {
			t.Fatalf("%s with %v: %+v", c.ID(), w.words(), p)
		}
		for i, o := range p.Args {
			if got := o.Apply(&args); o.From >= 0 && got&args[o.From] != args[o.From] {
				t.Fatalf("%s: argument %d lost bits: %#x", c.ID(), i, got)
			}
		}
	})
}

package fdcall

// Added is a call that Linux does not have: one of those that were proposed in
// 2007 and 2008 to create descriptors with flags. Programs under "indirect
// run" can make it.
type Added struct {
	Name string
	Nr   int32 // the same on every ABI; on x32 with bit 30
	// Former has the numbers that the call had in its time, which are now
	// another call's: a call with one of them is this one if it meets Formerly,
	// conditions under which the other call fails whatever else it is given.
	Former   Numbers
	Formerly []Cond

	// Runs is the [Call.ID] of the call that does the work, with Args. It is
	// empty if the call is no variant of one other call.
	Runs string
	Args []Operand
	// FlagsArg is the argument (an int) with the descriptor's properties:
	// O_CLOEXEC, O_NONBLOCK and ONonseqfd, of which those in Accepts are
	// accepted; others fail with EINVAL.
	FlagsArg int8
	Accepts  uint32
	Gives    Want // what the descriptor gets unasked
	// MaskArg is the argument that points to the signal mask for the wait, its
	// size in the next one; zero if there is none.
	MaskArg int8

	Usage  string // the prototype
	Source string
}

// The numbers of the added calls.
const (
	NrIndirect = 2007 + iota
	NrSysletRingWait
	NrSocket4
	NrSocketpair5
	NrPaccept
	NrEpollCreate2
	NrNonseqfd
	NrSocket2
	endAdded
)

// ONonseqfd asks for a non-sequential number where O_CLOEXEC and O_NONBLOCK ask
// for their properties. Torvalds named bit 30 for a descriptor space of its own
// in 2007 (https://lwn.net/Articles/236843/); no architecture has an O_ flag there.
const ONonseqfd = 1 << 30

// Asks returns the properties that the bits O_CLOEXEC, O_NONBLOCK and
// ONonseqfd of flags ask for.
func Asks(flags uint32) (w Want) {
	for _, f := range []struct {
		bit  uint32
		want Want
	}{{oCloexec, Cloexec}, {oNonblock, Nonblock}, {ONonseqfd, Nonseq}} {
		if flags&f.bit != 0 {
			w |= f.want
		}
	}
	return w
}

// AddedCalls returns the added calls in the order of their numbers.
func AddedCalls() []Added {
	const (
		oAll = oCloexec | oNonblock | ONonseqfd

		// Descriptors are below fs.nr_open, whose default this is: a larger
		// number that is no negative int can only be an address.
		nrOpen = 1 << 20
		page   = 0xfff
	)
	address := []Cond{
		{Arg: 0, Mask: ^uint64(nrOpen - 1), Value: 0, Not: true},
		{Arg: 0, Mask: ^uint64(page), Value: low32 &^ page, Not: true},
		{Arg: 0, Mask: ^uint64(page), Value: ^uint64(page), Not: true},
	}
	return []Added{
		{
			Name: "indirect", Nr: NrIndirect, FlagsArg: 3,
			Usage:  "indirect(const struct indirect_registers *regs, const void *params, size_t paramslen, int flags)",
			Source: "Drepper, https://lwn.net/Articles/259475/",
			// timerfd_settime, which reads its argument 2 first: nothing can be
			// mapped below the first page's end.
			Former: nr(286, 325, None),
			Formerly: append([]Cond{
				{Arg: 2, Mask: ^uint64(page), Value: 0},
				equals(3, 0),
			}, address...),
		},
		{
			Name: "syslet_ring_wait", Nr: NrSysletRingWait, FlagsArg: NoFlags,
			Usage:    "syslet_ring_wait(const struct syslet_ring *ring, unsigned long idx)",
			Source:   "Brown, linux-kernel, December 2007",
			Former:   nr(287, 326, None), // timerfd_gettime
			Formerly: address,
		},
		{
			Name: "socket4", Nr: NrSocket4, Runs: "socket", Args: []Operand{Arg(0), Arg(1), Arg(2)}, FlagsArg: 3, Accepts: oAll,
			Usage: "socket4(int domain, int type, int protocol, int flags)", Source: "Drepper, https://lwn.net/Articles/282211/",
			Former: noNumbers,
		},
		{
			Name: "socketpair5", Nr: NrSocketpair5, Runs: "socketpair", Args: []Operand{Arg(0), Arg(1), Arg(2), Arg(3)}, FlagsArg: 4, Accepts: oAll,
			Usage: "socketpair5(int domain, int type, int protocol, int sv[2], int flags)", Source: "Drepper, https://lwn.net/Articles/282211/",
			Former: noNumbers,
		},
		{
			Name: "paccept", Nr: NrPaccept, Runs: "accept", Args: []Operand{Arg(0), Arg(1), Arg(2)}, FlagsArg: 5, Accepts: oAll, MaskArg: 3,
			Usage:  "paccept(int fd, struct sockaddr *addr, socklen_t *addrlen, const sigset_t *mask, size_t masksize, int flags)",
			Source: "net/socket.c of Linux 2.6.27-rc1", Former: noNumbers,
		},
		{
			Name: "epoll_create2", Nr: NrEpollCreate2, Runs: "epoll_create", Args: []Operand{Arg(0)}, FlagsArg: 1, Accepts: oCloexec | ONonseqfd,
			Usage: "epoll_create2(int size, int flags)", Source: "fs/eventpoll.c of Linux 2.6.27-rc1", Former: noNumbers,
		},
		{
			Name: "nonseqfd", Nr: NrNonseqfd, Runs: "dup", Args: []Operand{Arg(0)}, FlagsArg: 1, Accepts: oCloexec, Gives: Nonseq,
			Usage: "nonseqfd(int fd, int flags)", Source: "Libenzi, linux-kernel, June 2007", Former: noNumbers,
		},
		{
			Name: "socket2", Nr: NrSocket2, Runs: "socket", Args: []Operand{Arg(0), Arg(1), Arg(2)}, FlagsArg: 3, Accepts: oAll,
			Usage: "socket2(int domain, int type, int protocol, int flags)", Source: "Libenzi, linux-kernel, June 2007", Former: noNumbers,
		},
	}
}

var noNumbers = nr(None, None, None)

// Number is the call's own number on an ABI, as a program passes it.
func (a *Added) Number(abi ABI) int32 {
	if abi == X32 {
		return a.Nr | x32Bit
	}
	return a.Nr
}

// Matches reports whether a program that makes call number n with args makes
// this call, and whether by a number that is otherwise another call's.
func (a *Added) Matches(abi ABI, n int32, args *[6]uint64) (ok, former bool) {
	switch {
	case n == a.Number(abi):
		return true, false
	case n == None || n != a.Former[abi]:
		return false, false
	}
	for _, w := range a.Formerly {
		if !w.Met(args) {
			return false, true
		}
	}
	return true, true
}

// CanIndirect reports whether the call can be made through indirect(2): all
// can but those that return twice, on a stack that the caller must not have
// touched in between.
func (c *Call) CanIndirect() bool { return c.Name != "clone" && c.Name != "clone3" }

// PlanAsked is like [Table.Plan] for a program that asks for properties itself,
// through indirect(2): these hold whatever the row says about what programs
// want that do not ask. Only where there is no descriptor to give them to, no
// number to choose or nothing that could block do they mean nothing.
func (t *Table) PlanAsked(c *Call, add, asked Want) (Plan, bool) {
	asked &^= c.Leaves
	switch {
	case c.Gives == Memory:
		asked = 0
	case c.Gives == Exact:
		asked &^= Nonseq
	case c.Class == Always:
		asked &^= Cloexec
	}
	return t.plan(c, c.Applicable(add)|asked)
}

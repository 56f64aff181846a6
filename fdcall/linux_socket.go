package fdcall

// sockets has the direct calls, which i386 has had only since Linux 4.3.
func sockets() []Call {
	return []Call{
		{
			Name: "socket", Nr: nr(41, 359, 198), FlagsArg: 1, CloexecBits: oCloexec, NonblockBits: oNonblock,
			Class: Overloads, Since: v(2, 0, 0), CloexecSince: v(2, 6, 27), NonblockSince: v(2, 6, 27),
			Source: "socket(2)", Note: "the flags are upper bits of the type",
		},
		{
			Name: "socketpair", Nr: nr(53, 360, 199), Gives: Pair, GivesArg: 3, FlagsArg: 1, CloexecBits: oCloexec, NonblockBits: oNonblock,
			Class: Overloads, Since: v(2, 0, 0), CloexecSince: v(2, 6, 27), NonblockSince: v(2, 6, 27),
			Source: "socketpair(2)", Note: "the flags are upper bits of the type",
		},
		{
			Name: "accept", Nr: nr(43, None, 202), FlagsArg: NoFlags, Class: NewCall, Cancels: true,
			Upgrade: &Upgrade{To: "accept4", Args: []Operand{Arg(0), Arg(1), Arg(2)}},
			Since:   v(2, 0, 0), Source: "accept(2)", Note: "the new socket has none of the listening one's flags",
		},
		{
			Name: "accept4", Nr: nr(288, 364, 242), FlagsArg: 3, CloexecBits: oCloexec, NonblockBits: oNonblock,
			Class: HasFlags, Cancels: true,
			Since: v(2, 6, 28), CloexecSince: v(2, 6, 28), NonblockSince: v(2, 6, 28), Source: "accept(2)",
		},
		{
			Name: "recvmsg", Nr: nr(47, 372, 212).x32(519), Gives: Control, GivesArg: 1, Shares: true, FlagsArg: 2, CloexecBits: msgCmsgCloexec,
			Class: HasFlags, Cancels: true, Since: v(2, 2, 0), CloexecSince: v(2, 6, 23),
			Source: "recvmsg(2), unix(7)", Note: "up to 253 descriptors in a message's SCM_RIGHTS; the descriptor in SCM_PIDFD is always close-on-exec",
		},
		{
			Name: "recvmmsg", Nr: nr(299, 337, 243).x32(537), Gives: Controls, GivesArg: 1, Shares: true, FlagsArg: 3, CloexecBits: msgCmsgCloexec,
			Class: HasFlags, Cancels: true, Since: v(2, 6, 33), CloexecSince: v(2, 6, 33),
			Source: "recvmmsg(2)",
		},
		{
			Name: "recvmmsg_time64", Nr: nr(None, 417, None), Gives: Controls, GivesArg: 1, Shares: true, FlagsArg: 3, CloexecBits: msgCmsgCloexec,
			Class: HasFlags, Cancels: true, Since: v(5, 1, 0), CloexecSince: v(5, 1, 0),
			Source: "net/socket.c", Note: "recvmmsg with a 64-bit timeout",
		},
		{
			Name: "getsockopt", Op: "SO_PEERPIDFD", Nr: nr(55, 365, 209).x32(542), Gives: Memory, GivesArg: 3, FlagsArg: NoFlags, Class: Always,
			When:  []Cond{equals(1, solSocket), equals(2, soPeerpidfd)},
			Since: v(6, 5, 0), Source: "unix(7), net/core/sock.c",
		},
	}
}

// socketcall has the operations of the call that was i386's only way to
// sockets before Linux 4.3.
func socketcall() []Call {
	rows := []Call{
		{
			Op: "SYS_SOCKET", When: []Cond{equals(0, 1)}, FlagsArg: 1, CloexecBits: oCloexec, NonblockBits: oNonblock, Class: Overloads,
			Upgrade: &Upgrade{To: "socket", Args: []Operand{Arg(0), Arg(1), Arg(2)}},
			Since:   v(1, 0, 0), CloexecSince: v(2, 6, 27), NonblockSince: v(2, 6, 27),
		},
		{
			Op: "SYS_ACCEPT", When: []Cond{equals(0, 5)}, FlagsArg: NoFlags, Class: NewCall, Cancels: true,
			Upgrade: &Upgrade{To: "accept4", Args: []Operand{Arg(0), Arg(1), Arg(2)}},
			Since:   v(1, 0, 0),
		},
		{
			Op: "SYS_SOCKETPAIR", When: []Cond{equals(0, 8)}, Gives: Pair, GivesArg: 3, FlagsArg: 1, CloexecBits: oCloexec, NonblockBits: oNonblock, Class: Overloads,
			Upgrade: &Upgrade{To: "socketpair", Args: []Operand{Arg(0), Arg(1), Arg(2), Arg(3)}},
			Since:   v(1, 0, 0), CloexecSince: v(2, 6, 27), NonblockSince: v(2, 6, 27),
		},
		{
			Op: "SYS_RECVMSG", When: []Cond{equals(0, 17)}, Gives: Control, GivesArg: 1, Shares: true, FlagsArg: 2, CloexecBits: msgCmsgCloexec, Class: HasFlags, Cancels: true,
			Upgrade: &Upgrade{To: "recvmsg", Args: []Operand{Arg(0), Arg(1), Arg(2)}},
			Since:   v(2, 0, 0), CloexecSince: v(2, 6, 23),
		},
		{
			Op: "SYS_ACCEPT4", When: []Cond{equals(0, 18)}, FlagsArg: 3, CloexecBits: oCloexec, NonblockBits: oNonblock, Class: HasFlags, Cancels: true,
			Upgrade: &Upgrade{To: "accept4", Args: []Operand{Arg(0), Arg(1), Arg(2), Arg(3)}},
			Since:   v(2, 6, 28), CloexecSince: v(2, 6, 28), NonblockSince: v(2, 6, 28),
		},
		{
			Op: "SYS_RECVMMSG", When: []Cond{equals(0, 19)}, Gives: Controls, GivesArg: 1, Shares: true, FlagsArg: 3, CloexecBits: msgCmsgCloexec, Class: HasFlags, Cancels: true,
			Upgrade: &Upgrade{To: "recvmmsg", Args: []Operand{Arg(0), Arg(1), Arg(2), Arg(3), Arg(4)}},
			Since:   v(2, 6, 33), CloexecSince: v(2, 6, 33),
		},
	}
	for i := range rows {
		c := &rows[i]
		c.Name, c.Nr, c.Block = "socketcall", nr(None, 102, None), true
		c.Source = "socketcall(2)"
		c.Note = "the arguments are in memory that other threads can write: run the direct call, which i386 has since Linux 4.3, on a copy"
	}
	return rows
}

const (
	msgCmsgCloexec = 0x40000000
	solSocket      = 1
	soPeerpidfd    = 77
)

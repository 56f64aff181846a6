package fdcall

// ioctls has the requests that give a descriptor and whose numbers belong to
// one driver alone. A bit OR-ed into another driver's argument would be
// harm: a request whose number is shared is not here.
func ioctls() []Call {
	rows := []Call{
		{
			Op: "TIOCGPTPEER", When: []Cond{equals(1, 0x5441)}, FlagsArg: 2, CloexecBits: oCloexec, NonblockBits: oNonblock, Class: HasFlags,
			Since: v(4, 13, 0), CloexecSince: v(4, 13, 0), NonblockSince: v(4, 13, 0), Source: "ioctl_tty(2)",
		},
		{
			Op: "USERFAULTFD_IOC_NEW", When: []Cond{equals(1, 0xaa00)}, FlagsArg: 2, CloexecBits: oCloexec, NonblockBits: oNonblock, Class: HasFlags,
			Since: v(6, 1, 0), CloexecSince: v(6, 1, 0), NonblockSince: v(6, 1, 0), Source: "userfaultfd(2), fs/userfaultfd.c",
			Note: "on /dev/userfaultfd",
		},
		{
			Op: "KVM_CREATE_GUEST_MEMFD", When: []Cond{equals(1, 0xc040aed4)}, FlagsArg: NoFlags, Leaves: Nonblock, Class: Never,
			Since: v(6, 8, 0), Source: "virt/kvm/guest_memfd.c",
		},
		{
			Op: "KVM_CREATE_DEVICE", When: []Cond{equals(1, 0xc00caee0)}, Gives: Memory, GivesArg: 2, FlagsArg: NoFlags, Class: Always,
			Since: v(3, 10, 0), Source: "virt/kvm/kvm_main.c", Note: "the descriptor is in the second word of struct kvm_create_device; close-on-exec since Linux 3.12",
		},
	}
	for _, c := range []struct {
		op     string
		cmd    uint32
		since  Version
		source string
		note   string
	}{
		{"KVM_CREATE_VM", 0xae01, v(2, 6, 20), "virt/kvm/kvm_main.c", "close-on-exec since Linux 3.12"},
		{"KVM_CREATE_VCPU", 0xae41, v(2, 6, 20), "virt/kvm/kvm_main.c", "close-on-exec since Linux 3.12"},
		{"KVM_GET_STATS_FD", 0xaece, v(5, 14, 0), "virt/kvm/kvm_main.c", ""},
		{"NS_GET_USERNS", 0xb701, v(4, 9, 0), "ioctl_ns(2)", ""},
		{"NS_GET_PARENT", 0xb702, v(4, 9, 0), "ioctl_ns(2)", ""},
		{"NS_MNT_GET_NEXT", 0x8010b70b, v(6, 12, 0), "fs/nsfs.c", ""},
		{"NS_MNT_GET_PREV", 0x8010b70c, v(6, 12, 0), "fs/nsfs.c", ""},
		{"SIOCGSKNS", 0x894c, v(4, 10, 0), "net/socket.c", ""},
		{"TUNGETDEVNETNS", 0x54e3, v(5, 7, 0), "drivers/net/tun.c", ""},
		{"PIDFD_GET_CGROUP_NAMESPACE", 0xff01, v(6, 11, 0), "fs/pidfs.c", ""},
		{"PIDFD_GET_IPC_NAMESPACE", 0xff02, v(6, 11, 0), "fs/pidfs.c", ""},
		{"PIDFD_GET_MNT_NAMESPACE", 0xff03, v(6, 11, 0), "fs/pidfs.c", ""},
		{"PIDFD_GET_NET_NAMESPACE", 0xff04, v(6, 11, 0), "fs/pidfs.c", ""},
		{"PIDFD_GET_PID_NAMESPACE", 0xff05, v(6, 11, 0), "fs/pidfs.c", ""},
		{"PIDFD_GET_PID_FOR_CHILDREN_NAMESPACE", 0xff06, v(6, 11, 0), "fs/pidfs.c", ""},
		{"PIDFD_GET_TIME_NAMESPACE", 0xff07, v(6, 11, 0), "fs/pidfs.c", ""},
		{"PIDFD_GET_TIME_FOR_CHILDREN_NAMESPACE", 0xff08, v(6, 11, 0), "fs/pidfs.c", ""},
		{"PIDFD_GET_USER_NAMESPACE", 0xff09, v(6, 11, 0), "fs/pidfs.c", ""},
		{"PIDFD_GET_UTS_NAMESPACE", 0xff0a, v(6, 11, 0), "fs/pidfs.c", ""},
	} {
		rows = append(rows, Call{
			Op: c.op, When: []Cond{equals(1, c.cmd)},
			FlagsArg: NoFlags, Leaves: Nonblock | Nonseq, Class: Always,
			Since: c.since, Source: c.source, Note: c.note,
		})
	}
	for i := range rows {
		rows[i].Name, rows[i].Nr = "ioctl", nr(16, 54, 29).x32(514)
	}
	return rows
}

package syscalls

// unused has the numbers that are set aside for calls that Linux never got.
func unused() []Call {
	return []Call{
		{Name: "afs_syscall", Nr: nr(183, 137, none), Source: manual},
		{Name: "arch_specific_syscall", Nr: nr(none, none, 244), Source: manual},
		{Name: "break", Nr: nr(none, 17, none), Source: manual},
		{Name: "epoll_ctl_old", Nr: noX32(nr(214, none, none)), Source: manual},
		{Name: "epoll_wait_old", Nr: noX32(nr(215, none, none)), Source: manual},
		{Name: "ftime", Nr: nr(none, 35, none), Source: manual},
		{Name: "getpmsg", Nr: nr(181, 188, none), Source: manual},
		{Name: "gtty", Nr: nr(none, 32, none), Source: manual},
		{Name: "idle", Nr: nr(none, 112, none), Source: manual},
		{Name: "lock", Nr: nr(none, 53, none), Source: manual},
		{Name: "mpx", Nr: nr(none, 56, none), Source: manual},
		{Name: "prof", Nr: nr(none, 44, none), Source: manual},
		{Name: "profil", Nr: nr(none, 98, none), Source: manual},
		{Name: "putpmsg", Nr: nr(182, 189, none), Source: manual},
		{Name: "security", Nr: nr(185, none, none), Source: manual},
		{Name: "stty", Nr: nr(none, 31, none), Source: manual},
		{Name: "tuxcall", Nr: nr(184, none, none), Source: manual},
		{Name: "ulimit", Nr: nr(none, 58, none), Source: manual},
		{Name: "vserver", Nr: noX32(nr(236, 273, none)), Source: manual},
	}
}

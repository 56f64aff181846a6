package image

import (
	"strings"

	"github.com/seed-055cd0c8/indirect/fdcall"
	"github.com/seed-055cd0c8/indirect/syscalls"
)

// Kind is what a syslet does with a call: see stub_amd64.s.
type Kind uint8

const (
	MayBlock Kind = iota // handed to a helper thread
	Direct               // does not block, or is about the thread that makes it
	Refused              // returns twice, or not to where it was made
	Flags2               // a non-blocking attempt with MSG_DONTWAIT in argument 2
	Flags3               // the same in argument 3
	Read                 // one by preadv2 with RWF_NOWAIT
	Pread
	Write
	Pwrite
	Alike  // may block, and is the same call in whichever thread: nothing that is a thread's own matters to it, or is changed
	Accept // may block, but not on a non-blocking descriptor
)

// OnDescriptor reports whether calls of the kind do not block if the descriptor
// at their first argument is non-blocking.
func (k Kind) OnDescriptor() bool { return k >= Flags2 && k <= Pwrite || k == Accept }

// kindsOf has the calls of each kind. What is said of a call holds for its
// variants: with 32 or 64 for wider numbers, or _time64, behind its name.
var kindsOf = map[Kind][]string{
	Refused: {"clone", "clone3", "vfork", "fork", "rt_sigreturn", "sigreturn"},
	Flags2:  {"recvmsg", "sendmsg"},
	Flags3:  {"recvfrom", "sendto", "recvmmsg", "sendmmsg"},
	Read:    {"read"},
	Pread:   {"pread64"},
	Write:   {"write"},
	Pwrite:  {"pwrite64"},
	Accept:  {"accept", "accept4", "connect"},
	Alike:   {"close", "fsync", "fdatasync", "poll", "epoll_wait"},
	Direct: {
		// About the process or the thread, and answered at once.
		"getpid", "gettid", "getppid", "getpgid", "getpgrp", "setpgid",
		"getsid", "setsid", "getuid", "geteuid", "getgid", "getegid",
		"getresuid", "getresgid", "getgroups", "setuid", "setgid", "setreuid",
		"setregid", "setresuid", "setresgid", "setgroups", "setfsuid", "setfsgid",
		"capget", "capset", "prctl", "arch_prctl", "personality", "umask",
		"getrlimit", "ugetrlimit", "setrlimit", "prlimit64", "getrusage", "times", "uname", "olduname", "oldolduname",
		"getpriority", "setpriority", "nice", "sysinfo", "getcpu", "unshare",
		"sched_yield", "sched_getaffinity", "sched_setaffinity", "sched_getparam",
		"sched_setparam", "sched_getscheduler", "sched_setscheduler", "sched_getattr",
		"sched_setattr", "sched_get_priority_max", "sched_get_priority_min",
		"set_tid_address", "set_robust_list", "get_robust_list", "rseq", "set_thread_area", "get_thread_area", "modify_ldt",
		"exit", "exit_group", "execve", "execveat", "seccomp",
		// Signals.
		"rt_sigaction", "rt_sigprocmask", "rt_sigpending", "sigaction", "sigprocmask", "sigpending", "signal", "sgetmask", "ssetmask", "sigaltstack", "kill",
		"tkill", "tgkill", "rt_sigqueueinfo", "rt_tgsigqueueinfo", "pidfd_send_signal",
		// Time.
		"time", "gettimeofday", "clock_gettime", "clock_getres", "clock_settime",
		"alarm", "getitimer", "setitimer", "timer_create", "timer_settime",
		"timer_gettime", "timer_getoverrun", "timer_delete", "timerfd_create",
		"timerfd_gettime", "timerfd_settime",
		// Descriptors, without waiting for what is behind them.
		"dup", "pipe", "pipe2", "socket", "socketpair", "bind", "listen",
		"getsockname", "getpeername", "getsockopt", "setsockopt", "shutdown",
		"epoll_create", "epoll_create1", "epoll_ctl", "eventfd", "eventfd2",
		"signalfd", "signalfd4", "inotify_init", "inotify_init1", "memfd_create",
		"pidfd_open", "pidfd_getfd", "lseek", "_llseek", "io_uring_setup",
		// Memory.
		"brk", "mmap", "mmap2", "munmap", "mremap", "mprotect", "membarrier",
	},
}

// Kinds returns the kinds of an ABI's calls by their numbers. Those that are
// not in it may block.
func Kinds(abi fdcall.ABI) map[int32]Kind {
	byName := make(map[string]Kind)
	for kind, calls := range kindsOf {
		for _, name := range calls {
			byName[name] = kind
		}
	}
	all := make(map[int32]Kind)
	for _, c := range syscalls.Linux() {
		kind, ok := byName[c.Name]
		for _, suffix := range []string{"_time64", "64", "32"} {
			if short, cut := strings.CutSuffix(c.Name, suffix); cut && !ok {
				kind, ok = byName[short]
			}
		}
		if nr := c.Nr[abi]; ok && nr != fdcall.None {
			all[nr] = kind
		}
	}
	return all
}

// kinds returns the stub's table of kinds by call number.
func kinds() []byte {
	b := make([]byte, numbers)
	for nr, kind := range Kinds(fdcall.AMD64) {
		b[nr] = byte(kind)
	}
	return b
}

package image

import "golang.org/x/sys/unix"

// What a syslet does with a call: see stub_amd64.s. Calls without a kind may
// block, and are handed to a helper thread.
const (
	kindDirect  = 1 + iota // does not block, or is about the thread that makes it
	kindRefused            // returns twice, or not to where it was made
	kindFlags2             // a non-blocking attempt with MSG_DONTWAIT in argument 2
	kindFlags3             // the same in argument 3
	kindRead               // one by preadv2 with RWF_NOWAIT
	kindPread
	kindWrite
	kindPwrite
	kindAlike  // may block, and is the same call in whichever thread: nothing that is a thread's own matters to it, or is changed
	kindAccept // may block, but not on a non-blocking descriptor
)

// kindsOf has the calls of each kind.
var kindsOf = map[byte][]int{
	kindRefused: {unix.SYS_CLONE, unix.SYS_CLONE3, unix.SYS_VFORK, unix.SYS_FORK, unix.SYS_RT_SIGRETURN},
	kindFlags2:  {unix.SYS_RECVMSG, unix.SYS_SENDMSG},
	kindFlags3:  {unix.SYS_RECVFROM, unix.SYS_SENDTO, unix.SYS_RECVMMSG, unix.SYS_SENDMMSG},
	kindRead:    {unix.SYS_READ},
	kindPread:   {unix.SYS_PREAD64},
	kindWrite:   {unix.SYS_WRITE},
	kindPwrite:  {unix.SYS_PWRITE64},
	kindAccept:  {unix.SYS_ACCEPT, unix.SYS_ACCEPT4, unix.SYS_CONNECT},
	kindAlike:   {unix.SYS_CLOSE, unix.SYS_FSYNC, unix.SYS_FDATASYNC, unix.SYS_POLL, unix.SYS_EPOLL_WAIT},
	kindDirect: {
		// About the process or the thread, and answered at once.
		unix.SYS_GETPID, unix.SYS_GETTID, unix.SYS_GETPPID, unix.SYS_GETPGID, unix.SYS_GETPGRP, unix.SYS_SETPGID,
		unix.SYS_GETSID, unix.SYS_SETSID, unix.SYS_GETUID, unix.SYS_GETEUID, unix.SYS_GETGID, unix.SYS_GETEGID,
		unix.SYS_GETRESUID, unix.SYS_GETRESGID, unix.SYS_GETGROUPS, unix.SYS_SETUID, unix.SYS_SETGID, unix.SYS_SETREUID,
		unix.SYS_SETREGID, unix.SYS_SETRESUID, unix.SYS_SETRESGID, unix.SYS_SETGROUPS, unix.SYS_SETFSUID, unix.SYS_SETFSGID,
		unix.SYS_CAPGET, unix.SYS_CAPSET, unix.SYS_PRCTL, unix.SYS_ARCH_PRCTL, unix.SYS_PERSONALITY, unix.SYS_UMASK,
		unix.SYS_GETRLIMIT, unix.SYS_SETRLIMIT, unix.SYS_PRLIMIT64, unix.SYS_GETRUSAGE, unix.SYS_TIMES, unix.SYS_UNAME,
		unix.SYS_GETPRIORITY, unix.SYS_SETPRIORITY, unix.SYS_SYSINFO, unix.SYS_GETCPU, unix.SYS_UNSHARE,
		unix.SYS_SCHED_YIELD, unix.SYS_SCHED_GETAFFINITY, unix.SYS_SCHED_SETAFFINITY, unix.SYS_SCHED_GETPARAM,
		unix.SYS_SCHED_SETPARAM, unix.SYS_SCHED_GETSCHEDULER, unix.SYS_SCHED_SETSCHEDULER, unix.SYS_SCHED_GETATTR,
		unix.SYS_SCHED_SETATTR, unix.SYS_SCHED_GET_PRIORITY_MAX, unix.SYS_SCHED_GET_PRIORITY_MIN,
		unix.SYS_SET_TID_ADDRESS, unix.SYS_SET_ROBUST_LIST, unix.SYS_GET_ROBUST_LIST, unix.SYS_RSEQ,
		unix.SYS_EXIT, unix.SYS_EXIT_GROUP, unix.SYS_EXECVE, unix.SYS_EXECVEAT, unix.SYS_SECCOMP,
		// Signals.
		unix.SYS_RT_SIGACTION, unix.SYS_RT_SIGPROCMASK, unix.SYS_RT_SIGPENDING, unix.SYS_SIGALTSTACK, unix.SYS_KILL,
		unix.SYS_TKILL, unix.SYS_TGKILL, unix.SYS_RT_SIGQUEUEINFO, unix.SYS_RT_TGSIGQUEUEINFO, unix.SYS_PIDFD_SEND_SIGNAL,
		// Time.
		unix.SYS_TIME, unix.SYS_GETTIMEOFDAY, unix.SYS_CLOCK_GETTIME, unix.SYS_CLOCK_GETRES, unix.SYS_CLOCK_SETTIME,
		unix.SYS_ALARM, unix.SYS_GETITIMER, unix.SYS_SETITIMER, unix.SYS_TIMER_CREATE, unix.SYS_TIMER_SETTIME,
		unix.SYS_TIMER_GETTIME, unix.SYS_TIMER_GETOVERRUN, unix.SYS_TIMER_DELETE, unix.SYS_TIMERFD_CREATE,
		unix.SYS_TIMERFD_GETTIME, unix.SYS_TIMERFD_SETTIME,
		// Descriptors, without waiting for what is behind them.
		unix.SYS_DUP, unix.SYS_PIPE, unix.SYS_PIPE2, unix.SYS_SOCKET, unix.SYS_SOCKETPAIR, unix.SYS_BIND, unix.SYS_LISTEN,
		unix.SYS_GETSOCKNAME, unix.SYS_GETPEERNAME, unix.SYS_GETSOCKOPT, unix.SYS_SETSOCKOPT, unix.SYS_SHUTDOWN,
		unix.SYS_EPOLL_CREATE, unix.SYS_EPOLL_CREATE1, unix.SYS_EPOLL_CTL, unix.SYS_EVENTFD, unix.SYS_EVENTFD2,
		unix.SYS_SIGNALFD, unix.SYS_SIGNALFD4, unix.SYS_INOTIFY_INIT, unix.SYS_INOTIFY_INIT1, unix.SYS_MEMFD_CREATE,
		unix.SYS_PIDFD_OPEN, unix.SYS_PIDFD_GETFD, unix.SYS_LSEEK, unix.SYS_IO_URING_SETUP,
		// Memory.
		unix.SYS_BRK, unix.SYS_MMAP, unix.SYS_MUNMAP, unix.SYS_MREMAP, unix.SYS_MPROTECT, unix.SYS_MEMBARRIER,
	},
}

// kinds returns the table by call number.
func kinds() []byte {
	b := make([]byte, numbers)
	for kind, calls := range kindsOf {
		for _, nr := range calls {
			b[nr] = kind
		}
	}
	return b
}

/*
 * indirect.h: descriptors with properties from birth
 *
 * Every function here creates descriptors that are close-on-exec, non-blocking
 * or non-sequential, and takes the best way that there is to do it:
 *
 *   1. native:   the kernel's own flag. Atomic.
 *   2. indirect: indirect(2), which runs a call that has no such flag with
 *                extra parameters. Atomic. Programs under "indirect run" have it.
 *   3. fcntl:    create the descriptor, then set its properties. Another
 *                thread can fork and execute in between.
 *
 * The pattern: test for an interface when you build, and when you run
 *
 * A program is built on one system and runs on others, older and newer ones.
 * So an interface is used widely only if a developer can test for it at both
 * times:
 *
 *   - at build time with #ifdef: the system's headers have the flag or the
 *     call's number, or they do not, and then nothing about it is compiled;
 *   - at run time with one call: the kernel does it, or says that it does not
 *     know it (ENOSYS for a call, EINVAL for a flag; a kernel that ignores
 *     flags, as open(2) does, shows it in the result). The answer is kept, and
 *     what has failed is not tried again;
 *   - the slow path comes last, and runs only where the test has failed.
 *
 * All of it in one function:
 *
 *       static int new_pipe(int fds[2])
 *       {
 *       #ifdef SYS_pipe2                                 (at build time)
 *               static int absent;
 *               if (!absent) {
 *                       if (syscall(SYS_pipe2, fds, O_CLOEXEC) == 0)
 *                               return 0;
 *                       if (errno != ENOSYS)
 *                               return -1;
 *                       absent = 1;                      (at run time, once)
 *               }
 *       #endif
 *               if (pipe(fds) != 0)                      (the slow path, last)
 *                       return -1;
 *               fcntl(fds[0], F_SETFD, FD_CLOEXEC);
 *               fcntl(fds[1], F_SETFD, FD_CLOEXEC);
 *               return 0;
 *       }
 *
 * The functions below are that for all calls. The slow path is the one that
 * is never run on a developer's machine: "indirect run --kernel 2.6.26" runs it.
 *
 * Language: C89 to C23 and C++98 to C++20, with GCC, Clang or what accepts
 * their attributes and asm names. No feature macro is needed, no library but
 * the C library. All functions are static: what is known of the kernel is kept
 * once in each file that includes the header. It is a few words that any
 * thread may write, all with the same value.
 *
 * Manual pages: indirect(2), nonseqfd(2), paccept(2), socket4(2),
 * syslet_ring_wait(2), indirect_available(3).
 *
 * https://github.com/seed-055cd0c8/indirect, Apache-2.0
 */
#ifndef INDIRECT_H
#define INDIRECT_H

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stddef.h>
#include <sys/resource.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#if defined(__GNUC__) || defined(__clang__) || defined(__TINYC__)
#define INDIRECT_FUNCTION static __inline__ __attribute__((__unused__))
#define INDIRECT_VARIABLE static __attribute__((__unused__))
#else
#error "indirect.h needs asm names and attributes as GCC and Clang have them"
#endif

/* What every thread may write, and all write alike. */
#if defined(__clang__) || __GNUC__ > 4 || (__GNUC__ == 4 && __GNUC_MINOR__ >= 7)
#define INDIRECT_LOAD(p) __atomic_load_n(p, __ATOMIC_RELAXED)
#define INDIRECT_STORE(p, v) __atomic_store_n(p, v, __ATOMIC_RELAXED)
#else
#define INDIRECT_LOAD(p) (*(volatile signed char *)(p))
#define INDIRECT_STORE(p, v) (*(volatile signed char *)(p) = (v))
#endif

/*
 * Numbers. They are the same on every architecture; x32 adds its bit 30.
 */
#if defined(__x86_64__) && defined(__ILP32__)
#define INDIRECT_NR(n) (0x40000000 + (n))
#else
#define INDIRECT_NR(n) (n)
#endif

#define INDIRECT_NR_indirect INDIRECT_NR(2007)
#define INDIRECT_NR_syslet_ring_wait INDIRECT_NR(2008)
#define INDIRECT_NR_socket4 INDIRECT_NR(2009)
#define INDIRECT_NR_socketpair5 INDIRECT_NR(2010)
#define INDIRECT_NR_paccept INDIRECT_NR(2011)
#define INDIRECT_NR_epoll_create2 INDIRECT_NR(2012)
#define INDIRECT_NR_nonseqfd INDIRECT_NR(2013)
#define INDIRECT_NR_socket2 INDIRECT_NR(2014)

/*
 * Properties. O_NONSEQFD: an unpredictable number instead of the lowest free
 * one. Torvalds named bit 30 in 2007 for descriptors that are not sequential;
 * no architecture has another O_ flag there.
 */
#ifndef O_NONSEQFD
#define O_NONSEQFD 0x40000000
#endif
#ifndef O_CLOEXEC /* hidden in strict C89, or older than Linux 2.6.23 */
#if defined(__sparc__)
#define O_CLOEXEC 0x400000
#elif defined(__alpha__) || defined(__hppa__)
#define O_CLOEXEC 010000000
#else
#define O_CLOEXEC 02000000
#endif
#endif

/*
 * Structures.
 */
typedef unsigned int indirect_u64 __attribute__((__mode__(__DI__))); /* C89 has no long long */
#if defined(__x86_64__) && defined(__ILP32__)
typedef indirect_u64 indirect_register;
#else
typedef unsigned long indirect_register;
#endif

/* A system call: 7 words of 64 bits, on 32-bit architectures of 32. */
struct indirect_registers {
	indirect_register nr;     /* SYS_... */
	indirect_register arg[6]; /* in the order of the system call */
};

/* Syslets: calls that go on in the background when they block. */
struct syslet_frame {
	indirect_u64 ip;
	indirect_u64 sp;
};

struct syslet_args {
	indirect_u64 completion_ring_ptr;
	indirect_u64 caller_data;
	struct syslet_frame frame;
};

struct syslet_completion {
	indirect_u64 status;
	indirect_u64 caller_data;
};

/* The head of a ring, aligned to 8 bytes. Its elements follow it. */
struct syslet_ring {
	unsigned int kernel_head;
	unsigned int user_tail;
	unsigned int elements; /* a power of two */
	unsigned int wait_group;
};

#define SYSLET_RING_SIZE(elements) (sizeof(struct syslet_ring) + (elements) * sizeof(struct syslet_completion))
#define SYSLET_RING_COMPLETION(ring, i) \
	((struct syslet_completion *)((ring) + 1) + ((i) & ((ring)->elements - 1)))

#ifndef ESYSLETPENDING
#define ESYSLETPENDING 132
#endif

/* The extra parameters: shorter ones are filled up with zeros. */
union indirect_params {
	struct {
		int flags; /* O_CLOEXEC, O_NONBLOCK, O_NONSEQFD */
	} file_flags;
	struct syslet_args syslet;
};

/*
 * The calls themselves, without a way round where they are missing: all of
 * them fail with ENOSYS then.
 */

/* syscall(2), whose declaration strict C89 hides. */
#ifdef __cplusplus
extern "C"
#endif
long indirect_syscall_(long number, ...) __asm__("syscall");

/* Make the call in regs with the parameters in params: see indirect(2). */
INDIRECT_FUNCTION long indirect(const struct indirect_registers *regs, const void *params, size_t paramslen, int flags)
{
	return indirect_syscall_(INDIRECT_NR_indirect, regs, params, paramslen, (long)flags);
}

/* Wait until ring's kernel_head is not idx: see syslet_ring_wait(2). */
INDIRECT_FUNCTION int syslet_ring_wait(struct syslet_ring *ring, unsigned long idx)
{
	return (int)indirect_syscall_(INDIRECT_NR_syslet_ring_wait, ring, idx);
}

/*
 * What there is, and what was used.
 */

enum indirect_rung {
	INDIRECT_RUNG_UNKNOWN, /* not tried yet */
	INDIRECT_RUNG_NATIVE,
	INDIRECT_RUNG_INDIRECT,
	INDIRECT_RUNG_FCNTL
};

/* A function of this header that has a ladder. */
enum indirect_kind {
	INDIRECT_OPEN, /* indirect_open, indirect_creat */
	INDIRECT_PIPE,
	INDIRECT_DUP, /* indirect_dup, nonseqfd */
	INDIRECT_SOCKET,
	INDIRECT_SOCKETPAIR,
	INDIRECT_ACCEPT,
	INDIRECT_PACCEPT,
	INDIRECT_EPOLL,
	INDIRECT_INOTIFY,
	INDIRECT_EVENTFD,
	INDIRECT_SIGNALFD,
	INDIRECT_TIMERFD,
	INDIRECT_MEMFD,
	INDIRECT_KINDS_
};

enum indirect_answer_ { INDIRECT_UNASKED_, INDIRECT_YES_, INDIRECT_NO_ };

/* What the kernel said of its own flags, by kind, and of indirect(2). */
INDIRECT_VARIABLE signed char indirect_native_[INDIRECT_KINDS_];
INDIRECT_VARIABLE signed char indirect_offered_;

/*
 * Whether indirect(2) and its family are there: 1 or 0. The first use makes
 * one system call, which does nothing. errno is kept.
 */
INDIRECT_FUNCTION int indirect_available(void)
{
	signed char offered = INDIRECT_LOAD(&indirect_offered_);
	if (offered == INDIRECT_UNASKED_) {
		int saved = errno;
		/* Where there is no indirect(2), nobody looks at the address. */
		offered = indirect(NULL, NULL, 0, 0) == -1 && errno == EFAULT ? INDIRECT_YES_ : INDIRECT_NO_;
		INDIRECT_STORE(&indirect_offered_, offered);
		errno = saved;
	}
	return offered == INDIRECT_YES_;
}

/*
 * The way by which functions of a kind give the properties in flags (a set of
 * O_CLOEXEC, O_NONBLOCK and O_NONSEQFD). Known after the first success.
 */
INDIRECT_FUNCTION enum indirect_rung indirect_rung(enum indirect_kind kind, int flags)
{
	signed char native = INDIRECT_LOAD(&indirect_native_[kind]);
	if (flags == 0 && kind != INDIRECT_PACCEPT)
		return INDIRECT_RUNG_NATIVE;
	if (!(flags & O_NONSEQFD) && native != INDIRECT_NO_)
		return native == INDIRECT_YES_ ? INDIRECT_RUNG_NATIVE : INDIRECT_RUNG_UNKNOWN;
	return indirect_available() ? INDIRECT_RUNG_INDIRECT : INDIRECT_RUNG_FCNTL;
}

/* "unknown", "native", "indirect" or "fcntl". */
INDIRECT_FUNCTION const char *indirect_rung_name(enum indirect_rung rung)
{
	switch (rung) {
	case INDIRECT_RUNG_NATIVE: return "native";
	case INDIRECT_RUNG_INDIRECT: return "indirect";
	case INDIRECT_RUNG_FCNTL: return "fcntl";
	default: return "unknown";
	}
}

/*
 * The ladder.
 */

#define INDIRECT_REG_(x) ((indirect_register)(unsigned long)(x))

INDIRECT_FUNCTION struct indirect_registers indirect_call_(long nr, indirect_register a, indirect_register b,
							   indirect_register c, indirect_register d)
{
	struct indirect_registers r;
	r.nr = INDIRECT_REG_(nr);
	r.arg[0] = a;
	r.arg[1] = b;
	r.arg[2] = c;
	r.arg[3] = d;
	r.arg[4] = r.arg[5] = 0;
	return r;
}

/* There is no such call in the headers that this is built with. */
INDIRECT_FUNCTION struct indirect_registers indirect_none_(void)
{
	return indirect_call_(-1, 0, 0, 0, 0);
}

INDIRECT_FUNCTION int indirect_make_(const struct indirect_registers *r)
{
	return (int)indirect_syscall_((long)r->nr, r->arg[0], r->arg[1], r->arg[2], r->arg[3]);
}

INDIRECT_FUNCTION int indirect_fail_(int error)
{
	errno = error;
	return -1;
}

/* close, with errno kept. */
INDIRECT_FUNCTION void indirect_close_(int fd)
{
	int saved = errno;
	(void)close(fd);
	errno = saved;
}

/* Something that other programs do not guess. */
INDIRECT_FUNCTION unsigned long indirect_random_(void)
{
	unsigned long r = 0;
	struct timeval now;
#ifdef SYS_getrandom
	int saved = errno;
	if (indirect_syscall_(SYS_getrandom, &r, sizeof r, 0L) == (long)sizeof r)
		return r;
	errno = saved;
#endif
	(void)gettimeofday(&now, NULL);
	r = (unsigned long)now.tv_usec * 2654435761UL + (unsigned long)now.tv_sec;
	r ^= (unsigned long)getpid() * 40503UL ^ (unsigned long)(size_t)&now >> 4;
	return r ^ r >> 15;
}

#ifndef F_DUPFD_CLOEXEC
#define F_DUPFD_CLOEXEC 1030
#endif

/* A copy of fd with a number of at least least. */
INDIRECT_FUNCTION int indirect_copy_(int fd, int least, int cloexec)
{
	int copy;
	if (cloexec) {
		copy = fcntl(fd, F_DUPFD_CLOEXEC, least);
		if (copy >= 0 || errno != EINVAL) /* before Linux 2.6.24 */
			return copy;
	}
	copy = fcntl(fd, F_DUPFD, least);
	if (copy >= 0 && cloexec && fcntl(copy, F_SETFD, FD_CLOEXEC) != 0) {
		indirect_close_(copy);
		return -1;
	}
	return copy;
}

/*
 * A copy of fd with an unpredictable number in the upper half of the limit on
 * descriptors, where it is not the lowest free one.
 */
INDIRECT_FUNCTION int indirect_scatter_(int fd, int cloexec)
{
	struct rlimit limit;
	unsigned long numbers = 1UL << 20; /* the default of fs.nr_open */
	int attempts, copy;
	if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < numbers)
		numbers = (unsigned long)limit.rlim_cur;
	for (attempts = 0; attempts < 8 && numbers >= 8; attempts++) {
		unsigned long half = numbers / 2;
		copy = indirect_copy_(fd, (int)(half + indirect_random_() % (numbers - half)), cloexec);
		if (copy >= 0)
			return copy;
		if (errno == EINVAL) { /* beyond a limit that getrlimit could not tell */
			numbers /= 2;
			attempts = 0;
		} else if (errno != EMFILE) {
			return -1;
		}
	}
	return indirect_copy_(fd, 0, cloexec); /* nearly all numbers are taken */
}

/*
 * Give a new descriptor its properties: the slow path. The descriptor may
 * change its number. It is closed if that fails.
 */
INDIRECT_FUNCTION int indirect_give_(int fd, int flags)
{
	int status, moved;
	if ((flags & O_NONBLOCK) && ((status = fcntl(fd, F_GETFL)) == -1 || fcntl(fd, F_SETFL, status | O_NONBLOCK) == -1))
		goto failed;
	if (flags & O_NONSEQFD) {
		moved = indirect_scatter_(fd, flags & O_CLOEXEC);
		if (moved >= 0) {
			indirect_close_(fd);
			return moved;
		}
		if (errno != EMFILE)
			goto failed;
		/* No other number is free: it keeps its own. */
	}
	if ((flags & O_CLOEXEC) && fcntl(fd, F_SETFD, FD_CLOEXEC) == -1)
		goto failed;
	return fd;
failed:
	indirect_close_(fd);
	return -1;
}

/* Whether an error may mean that the kernel does not know a flag or a call. */
INDIRECT_FUNCTION int indirect_refused_(enum indirect_kind kind, int error)
{
	switch (error) {
	case ENOSYS:
	case EINVAL:
		return 1;
	case EPERM: /* seccomp filters; but accept(2) may have lost a connection */
		return kind != INDIRECT_ACCEPT;
	}
	return 0;
}

/*
 * Create a descriptor, or a pair of them where plain puts two numbers into
 * pair: by the call native, which carries flags by itself, or by plain, which
 * does not.
 */
INDIRECT_FUNCTION int indirect_create_(enum indirect_kind kind, const struct indirect_registers *native,
				       const struct indirect_registers *plain, int flags, int *pair)
{
	int result, refused = 0;
	if (flags == 0)
		return indirect_make_(plain);
	if (!(flags & O_NONSEQFD) && INDIRECT_LOAD(&indirect_native_[kind]) != INDIRECT_NO_) {
		if (native->nr == INDIRECT_REG_(-1)) {
			INDIRECT_STORE(&indirect_native_[kind], INDIRECT_NO_);
		} else {
			result = indirect_make_(native);
			if (result >= 0) {
				INDIRECT_STORE(&indirect_native_[kind], INDIRECT_YES_);
				return result;
			}
			if (INDIRECT_LOAD(&indirect_native_[kind]) == INDIRECT_YES_ || !indirect_refused_(kind, errno))
				return -1;
			refused = 1; /* or it is another error: the plain call tells */
		}
	}
	if (indirect_available()) {
		result = (int)indirect(plain, &flags, sizeof flags, 0);
		if (result >= 0 && refused)
			INDIRECT_STORE(&indirect_native_[kind], INDIRECT_NO_);
		if (result >= 0 || errno != ENOSYS) /* the supervisor may have died */
			return result;
	}
	result = indirect_make_(plain);
	if (result < 0)
		return -1;
	if (refused)
		INDIRECT_STORE(&indirect_native_[kind], INDIRECT_NO_);
	if (pair == NULL)
		return indirect_give_(result, flags);
	if ((pair[0] = indirect_give_(pair[0], flags)) < 0) {
		indirect_close_(pair[1]);
		return -1;
	}
	if ((pair[1] = indirect_give_(pair[1], flags)) < 0) {
		indirect_close_(pair[0]);
		return -1;
	}
	return 0;
}

#define INDIRECT_ALL_ (O_CLOEXEC | O_NONBLOCK | O_NONSEQFD)

/*
 * Files
 */

/* open(2); O_CLOEXEC, O_NONBLOCK and O_NONSEQFD are among oflags. */
INDIRECT_FUNCTION int indirect_open(const char *path, int oflags, unsigned int mode)
{
	struct indirect_registers plain;
	int flags = oflags & (O_CLOEXEC | O_NONSEQFD), kept = oflags & ~flags, fd, is;
#ifdef __O_LARGEFILE
	if (sizeof(off_t) > sizeof(long))
		kept |= __O_LARGEFILE;
#elif defined(O_LARGEFILE)
	if (sizeof(off_t) > sizeof(long))
		kept |= O_LARGEFILE;
#endif
#ifdef SYS_open
	plain = indirect_call_(SYS_open, INDIRECT_REG_(path), INDIRECT_REG_(kept), mode, 0);
#else
	plain = indirect_call_(SYS_openat, INDIRECT_REG_(-100), INDIRECT_REG_(path), INDIRECT_REG_(kept), mode);
#endif
	if (flags == 0)
		return indirect_make_(&plain);
	if (flags == O_CLOEXEC && INDIRECT_LOAD(&indirect_native_[INDIRECT_OPEN]) != INDIRECT_NO_) {
#ifdef SYS_open
		plain.arg[1] |= O_CLOEXEC;
#else
		plain.arg[2] |= O_CLOEXEC;
#endif
		fd = indirect_make_(&plain);
		if (fd < 0 || INDIRECT_LOAD(&indirect_native_[INDIRECT_OPEN]) == INDIRECT_YES_)
			return fd;
		/* A kernel that does not know the flag ignores it. */
		if ((is = fcntl(fd, F_GETFD)) == -1) {
			indirect_close_(fd);
			return -1;
		}
		INDIRECT_STORE(&indirect_native_[INDIRECT_OPEN], (is & FD_CLOEXEC) ? INDIRECT_YES_ : INDIRECT_NO_);
		return (is & FD_CLOEXEC) ? fd : indirect_give_(fd, flags);
	}
	if (indirect_available())
		return (int)indirect(&plain, &flags, sizeof flags, 0);
	fd = indirect_make_(&plain);
	return fd < 0 ? -1 : indirect_give_(fd, flags);
}

/* creat(2) */
INDIRECT_FUNCTION int indirect_creat(const char *path, unsigned int mode, int flags)
{
	if (flags & ~INDIRECT_ALL_)
		return indirect_fail_(EINVAL);
	return indirect_open(path, O_CREAT | O_WRONLY | O_TRUNC | flags, mode);
}

/* memfd_create(2); mflags are its own flags but MFD_CLOEXEC. */
INDIRECT_FUNCTION int indirect_memfd_create(const char *name, unsigned int mflags, int flags)
{
#ifdef SYS_memfd_create
	struct indirect_registers native, plain;
	const unsigned int mfd_cloexec = 1;
	if ((flags & ~(O_CLOEXEC | O_NONSEQFD)) || (mflags & mfd_cloexec))
		return indirect_fail_(EINVAL);
	plain = indirect_call_(SYS_memfd_create, INDIRECT_REG_(name), mflags, 0, 0);
	native = plain;
	native.arg[1] |= mfd_cloexec;
	return indirect_create_(INDIRECT_MEMFD, &native, &plain, flags, NULL);
#else
	(void)name, (void)mflags, (void)flags;
	return indirect_fail_(ENOSYS);
#endif
}

/*
 * Pipes and copies
 */

/* pipe(2) */
INDIRECT_FUNCTION int indirect_pipe(int fds[2], int flags)
{
	struct indirect_registers native, plain;
	int pair[2];
	if (flags & ~INDIRECT_ALL_)
		return indirect_fail_(EINVAL);
#ifdef SYS_pipe2
	native = indirect_call_(SYS_pipe2, INDIRECT_REG_(pair), INDIRECT_REG_(flags), 0, 0);
#else
	native = indirect_none_();
#endif
#ifdef SYS_pipe
	plain = indirect_call_(SYS_pipe, INDIRECT_REG_(pair), 0, 0, 0);
#else
	plain = indirect_call_(SYS_pipe2, INDIRECT_REG_(pair), 0, 0, 0);
#endif
	if (indirect_create_(INDIRECT_PIPE, &native, &plain, flags, pair) < 0)
		return -1;
	fds[0] = pair[0];
	fds[1] = pair[1];
	return 0;
}

/* dup(2). O_NONBLOCK is EINVAL: a copy shares it with the original. */
INDIRECT_FUNCTION int indirect_dup(int fd, int flags)
{
	struct indirect_registers native, plain;
	if (flags & ~(O_CLOEXEC | O_NONSEQFD))
		return indirect_fail_(EINVAL);
	native = indirect_call_(SYS_fcntl, INDIRECT_REG_(fd), F_DUPFD_CLOEXEC, 0, 0);
	plain = indirect_call_(SYS_dup, INDIRECT_REG_(fd), 0, 0, 0);
	return indirect_create_(INDIRECT_DUP, &native, &plain, flags, NULL);
}

/* A copy of fd with an unpredictable number: see nonseqfd(2). */
INDIRECT_FUNCTION int nonseqfd(int fd, int flags)
{
	if (flags & ~O_CLOEXEC)
		return indirect_fail_(EINVAL);
	if (indirect_available())
		return (int)indirect_syscall_(INDIRECT_NR_nonseqfd, (long)fd, (long)flags);
	return indirect_scatter_(fd, flags & O_CLOEXEC);
}

/*
 * Sockets. socketcall(2), where there is one, works on every kernel; the calls
 * of their own came to i386 only with Linux 4.3.
 */
#ifdef SYS_socketcall
#define INDIRECT_SOCKETCALL_(block, op, nr, a, b, c, d)                                             \
	((block)[0] = (unsigned long)(a), (block)[1] = (unsigned long)(b), (block)[2] = (unsigned long)(c), \
	 (block)[3] = (unsigned long)(d), indirect_call_(SYS_socketcall, op, INDIRECT_REG_(block), 0, 0))
#else
#define INDIRECT_SOCKETCALL_(block, op, nr, a, b, c, d) \
	((void)(block), indirect_call_(nr, INDIRECT_REG_(a), INDIRECT_REG_(b), INDIRECT_REG_(c), INDIRECT_REG_(d)))
#endif

/* socket(2) */
INDIRECT_FUNCTION int indirect_socket(int domain, int type, int protocol, int flags)
{
	struct indirect_registers native, plain;
	unsigned long with[4], without[4];
	if (flags & ~INDIRECT_ALL_)
		return indirect_fail_(EINVAL);
	plain = INDIRECT_SOCKETCALL_(without, 1, SYS_socket, domain, type, protocol, 0);
#ifdef SOCK_CLOEXEC
	native = INDIRECT_SOCKETCALL_(with, 1, SYS_socket, domain, type | flags, protocol, 0);
#else
	(void)with;
	native = indirect_none_();
#endif
	return indirect_create_(INDIRECT_SOCKET, &native, &plain, flags, NULL);
}

/* socketpair(2) */
INDIRECT_FUNCTION int indirect_socketpair(int domain, int type, int protocol, int sv[2], int flags)
{
	struct indirect_registers native, plain;
	unsigned long with[4], without[4];
	int pair[2];
	if (flags & ~INDIRECT_ALL_)
		return indirect_fail_(EINVAL);
	plain = INDIRECT_SOCKETCALL_(without, 8, SYS_socketpair, domain, type, protocol, pair);
#ifdef SOCK_CLOEXEC
	native = INDIRECT_SOCKETCALL_(with, 8, SYS_socketpair, domain, type | flags, protocol, pair);
#else
	(void)with;
	native = indirect_none_();
#endif
	if (indirect_create_(INDIRECT_SOCKETPAIR, &native, &plain, flags, pair) < 0)
		return -1;
	sv[0] = pair[0];
	sv[1] = pair[1];
	return 0;
}

/* accept(2) */
INDIRECT_FUNCTION int indirect_accept(int fd, struct sockaddr *addr, socklen_t *addrlen, int flags)
{
	struct indirect_registers native, plain;
	unsigned long with[4], without[4];
	if (flags & ~INDIRECT_ALL_)
		return indirect_fail_(EINVAL);
	plain = INDIRECT_SOCKETCALL_(without, 5, SYS_accept, fd, addr, addrlen, 0);
#if defined(SYS_accept4) || defined(SYS_socketcall)
	native = INDIRECT_SOCKETCALL_(with, 18, SYS_accept4, fd, addr, addrlen, flags);
#else
	(void)with;
	native = indirect_none_();
#endif
	return indirect_create_(INDIRECT_ACCEPT, &native, &plain, flags, NULL);
}

/* The kernel's sigset_t is shorter than the C library's. */
#ifdef __mips__
#define INDIRECT_SIGSET_SIZE 16
#else
#define INDIRECT_SIGSET_SIZE 8
#endif

/* accept with a signal mask for the wait: see paccept(2). */
INDIRECT_FUNCTION int paccept(int fd, struct sockaddr *addr, socklen_t *addrlen, const sigset_t *sigmask, int flags)
{
	struct pollfd wait;
	int listening = 0, status;
	socklen_t size = sizeof listening;
	if (flags & ~INDIRECT_ALL_)
		return indirect_fail_(EINVAL);
	if (sigmask == NULL)
		return indirect_accept(fd, addr, addrlen, flags);
	INDIRECT_STORE(&indirect_native_[INDIRECT_PACCEPT], INDIRECT_NO_);
	if (indirect_available())
		return (int)indirect_syscall_(INDIRECT_NR_paccept, (long)fd, addr, addrlen, sigmask, (long)INDIRECT_SIGSET_SIZE,
					      (long)flags);
#ifdef SYS_ppoll
	status = fcntl(fd, F_GETFL);
	if (status != -1 && !(status & O_NONBLOCK) &&
	    getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listening, &size) == 0 && listening) {
		wait.fd = fd;
		wait.events = POLLIN;
		wait.revents = 0;
		if (indirect_syscall_(SYS_ppoll, &wait, 1L, (void *)0, sigmask, (long)INDIRECT_SIGSET_SIZE) == -1)
			return -1;
	}
	return indirect_accept(fd, addr, addrlen, flags);
#else
	(void)wait, (void)listening, (void)status, (void)size;
	return indirect_fail_(ENOSYS);
#endif
}

/* The names of 2007 and 2008: see socket4(2). */
INDIRECT_FUNCTION int socket4(int domain, int type, int protocol, int flags)
{
	return indirect_socket(domain, type, protocol, flags);
}

INDIRECT_FUNCTION int socket2(int domain, int type, int protocol, int flags)
{
	return indirect_socket(domain, type, protocol, flags);
}

INDIRECT_FUNCTION int socketpair5(int domain, int type, int protocol, int sv[2], int flags)
{
	return indirect_socketpair(domain, type, protocol, sv, flags);
}

/*
 * Events
 */

/* epoll_create(2). O_NONBLOCK is EINVAL: nothing blocks. */
INDIRECT_FUNCTION int indirect_epoll_create(int size, int flags)
{
	struct indirect_registers native, plain;
	if (size <= 0 || (flags & ~(O_CLOEXEC | O_NONSEQFD)))
		return indirect_fail_(EINVAL);
#ifdef SYS_epoll_create1
	native = indirect_call_(SYS_epoll_create1, INDIRECT_REG_(flags), 0, 0, 0);
#else
	native = indirect_none_();
#endif
#ifdef SYS_epoll_create
	plain = indirect_call_(SYS_epoll_create, INDIRECT_REG_(size), 0, 0, 0);
#else
	plain = indirect_call_(SYS_epoll_create1, 0, 0, 0, 0);
#endif
	return indirect_create_(INDIRECT_EPOLL, &native, &plain, flags, NULL);
}

INDIRECT_FUNCTION int epoll_create2(int size, int flags)
{
	return indirect_epoll_create(size, flags);
}

/* inotify_init(2) */
INDIRECT_FUNCTION int indirect_inotify_init(int flags)
{
	struct indirect_registers native, plain;
	if (flags & ~INDIRECT_ALL_)
		return indirect_fail_(EINVAL);
#ifdef SYS_inotify_init1
	native = indirect_call_(SYS_inotify_init1, INDIRECT_REG_(flags), 0, 0, 0);
#else
	native = indirect_none_();
#endif
#ifdef SYS_inotify_init
	plain = indirect_call_(SYS_inotify_init, 0, 0, 0, 0);
#else
	plain = indirect_call_(SYS_inotify_init1, 0, 0, 0, 0);
#endif
	return indirect_create_(INDIRECT_INOTIFY, &native, &plain, flags, NULL);
}

/* eventfd(2); EFD_SEMAPHORE (Linux 2.6.30) can be among flags. */
INDIRECT_FUNCTION int indirect_eventfd(unsigned int initval, int flags)
{
	struct indirect_registers native, plain;
	const int semaphore = flags & 1;
	if (flags & ~(INDIRECT_ALL_ | 1))
		return indirect_fail_(EINVAL);
#ifdef SYS_eventfd2
	native = indirect_call_(SYS_eventfd2, initval, INDIRECT_REG_(flags), 0, 0);
	plain = indirect_call_(SYS_eventfd2, initval, INDIRECT_REG_(semaphore), 0, 0);
#else
	if (semaphore)
		return indirect_fail_(EINVAL);
	native = indirect_none_();
#endif
#ifdef SYS_eventfd
	if (!semaphore)
		plain = indirect_call_(SYS_eventfd, initval, 0, 0, 0);
#endif
	return indirect_create_(INDIRECT_EVENTFD, &native, &plain, flags & ~1, NULL);
}

/* signalfd(2). As with the kernel's, flags are for a new descriptor (fd -1) only. */
INDIRECT_FUNCTION int indirect_signalfd(int fd, const sigset_t *mask, int flags)
{
	struct indirect_registers native, plain;
	if (flags & ~INDIRECT_ALL_)
		return indirect_fail_(EINVAL);
#ifdef SYS_signalfd4
	native = indirect_call_(SYS_signalfd4, INDIRECT_REG_(fd), INDIRECT_REG_(mask), INDIRECT_SIGSET_SIZE, INDIRECT_REG_(flags));
#else
	native = indirect_none_();
#endif
#ifdef SYS_signalfd
	plain = indirect_call_(SYS_signalfd, INDIRECT_REG_(fd), INDIRECT_REG_(mask), INDIRECT_SIGSET_SIZE, 0);
#else
	plain = indirect_call_(SYS_signalfd4, INDIRECT_REG_(fd), INDIRECT_REG_(mask), INDIRECT_SIGSET_SIZE, 0);
#endif
	return indirect_create_(INDIRECT_SIGNALFD, &native, &plain, fd == -1 ? flags : 0, NULL);
}

/* timerfd_create(2) */
INDIRECT_FUNCTION int indirect_timerfd_create(int clockid, int flags)
{
#ifdef SYS_timerfd_create
	struct indirect_registers native, plain;
	if (flags & ~INDIRECT_ALL_)
		return indirect_fail_(EINVAL);
	native = indirect_call_(SYS_timerfd_create, INDIRECT_REG_(clockid), INDIRECT_REG_(flags), 0, 0);
	plain = indirect_call_(SYS_timerfd_create, INDIRECT_REG_(clockid), 0, 0, 0);
	return indirect_create_(INDIRECT_TIMERFD, &native, &plain, flags, NULL);
#else
	(void)clockid, (void)flags;
	return indirect_fail_(ENOSYS);
#endif
}

#endif

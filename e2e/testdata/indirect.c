// Makes indirect(2) and the calls of its family, with every set of properties.
#include "check.h"
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <sys/mman.h>
#include <sys/signalfd.h>
#include <sys/timerfd.h>

#define O_NONSEQFD 0x40000000
enum { INDIRECT = ADDED_BIT + 2007, SOCKET4 = ADDED_BIT + 2009, SOCKETPAIR5, PACCEPT, EPOLL_CREATE2, NONSEQFD, SOCKET2 };

#ifdef __i386__
#define FORMER 325
#else
#define FORMER (ADDED_BIT + 286)
#endif

#ifdef __x86_64__
typedef unsigned long long word;
#else
typedef unsigned long word;
#endif

struct registers {
	word nr, arg[6];
};

static int number;

static int indirect(int flags, long nr, unsigned long a, unsigned long b, unsigned long c, unsigned long d)
{
	struct registers r = {nr, {a, b, c, d}};
	return syscall(number, &r, &flags, sizeof flags, 0);
}

static int asked(int flags)
{
	return (flags & O_CLOEXEC ? ASKED_CLOEXEC : 0) | (flags & O_NONBLOCK ? ASKED_NONBLOCK : 0) |
	       (flags & O_NONSEQFD ? ASKED_NONSEQ : 0);
}

static const int every[] = {0, O_CLOEXEC, O_NONBLOCK, O_CLOEXEC | O_NONBLOCK, O_NONSEQFD, O_NONSEQFD | O_CLOEXEC,
	O_NONSEQFD | O_NONBLOCK, O_NONSEQFD | O_NONBLOCK | O_CLOEXEC};

static int listener(struct sockaddr_in *a)
{
	int l = socket(AF_INET, SOCK_STREAM, 0), on = 1;
	socklen_t len = sizeof *a;
	memset(a, 0, sizeof *a);
	a->sin_family = AF_INET;
	a->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	setsockopt(l, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
	REQUIRE(bind(l, (struct sockaddr *)a, sizeof *a) == 0 && listen(l, 100) == 0);
	REQUIRE(getsockname(l, (struct sockaddr *)a, &len) == 0);
	fcntl(l, F_SETFL, fcntl(l, F_GETFL) & ~O_NONBLOCK);
	return l;
}

static int dial(const struct sockaddr_in *a)
{
	int s = socket(AF_INET, SOCK_STREAM, 0);
	fcntl(s, F_SETFL, 0);
	REQUIRE(connect(s, (const struct sockaddr *)a, sizeof *a) == 0);
	return s;
}

static void both(int how, int low, const int pair[2])
{
	born(__FILE__, __LINE__, "first of a pair", low, pair[0], how);
	born(__FILE__, __LINE__, "second of a pair", -1, pair[1], how);
	CHECK(pair[0] != pair[1]);
	CHECK(write(pair[1], "x", 1) == 1);
	char c = 0;
	CHECK(read(pair[0], &c, 1) == 1 && c == 'x');
	close(pair[0]);
	close(pair[1]);
}

static void kinds(int flags)
{
	int how = asked(flags), unblocked = (how & ~ASKED_NONBLOCK) | NO_NONBLOCK, pair[2], low;
	char path[64];
	snprintf(path, sizeof path, "/tmp/indirect-e2e-%d", getpid());
	sigset_t none;
	sigemptyset(&none);

	BORN(how, indirect(flags, SYS_open, (long)"/dev/null", O_RDWR, 0, 0));
	BORN(how | ASKED_CLOEXEC, indirect(flags, SYS_open, (long)"/dev/null", O_RDWR | O_CLOEXEC, 0, 0));
	BORN(how, indirect(flags, SYS_openat, AT_FDCWD, (long)"/dev/null", O_RDWR, 0));
	BORN(how, indirect(flags, SYS_creat, (long)path, 0640, 0, 0));
	struct stat st;
	CHECK(stat(path, &st) == 0 && (st.st_mode & 0777) == 0640);
	unlink(path);
	BORN(how, indirect(flags, SYS_socket, AF_UNIX, SOCK_STREAM, 0, 0));
	BORN(how, indirect(flags, SYS_eventfd, 0, 0, 0, 0));
	BORN(how, indirect(flags, SYS_eventfd2, 0, 0, 0, 0));
	BORN(how, indirect(flags, SYS_signalfd, -1, (long)&none, 8, 0));
	BORN(how, indirect(flags, SYS_timerfd_create, CLOCK_MONOTONIC, 0, 0, 0));
	BORN(how, indirect(flags, SYS_inotify_init, 0, 0, 0, 0));
	BORN(how & ~ASKED_NONBLOCK, indirect(flags & ~O_NONBLOCK, SYS_epoll_create, 1, 0, 0, 0));
	BORN(how & ~ASKED_NONBLOCK, indirect(flags & ~O_NONBLOCK, SYS_memfd_create, (long)"m", 0, 0, 0));
	CHECK(indirect(flags, SYS_epoll_create, 0, 0, 0, 0) == -1 && errno == EINVAL);

	low = lowest_free();
	CHECK(indirect(flags, SYS_pipe, (long)pair, 0, 0, 0) == 0);
	both(how, low, pair);
	low = lowest_free();
	CHECK(indirect(flags, SYS_socketpair, AF_UNIX, SOCK_STREAM, 0, (long)pair) == 0);
	both(how, low, pair);
	int *heap = malloc(8);
	low = lowest_free();
	CHECK(indirect(flags, SYS_pipe, (long)heap, 0, 0, 0) == 0);
	both(how, low, heap);
	free(heap);

	REQUIRE(pipe(pair) == 0);
	fcntl(pair[0], F_SETFL, 0);
	BORN(unblocked, indirect(flags & ~O_NONBLOCK, SYS_dup, pair[0], 0, 0, 0));
	BORN(unblocked, indirect(flags & ~O_NONBLOCK, SYS_fcntl, pair[0], F_DUPFD, 0, 0));
	BORN((unblocked & ~ASKED_NONSEQ) | ASKED_CLOEXEC | IN_PLACE, indirect(flags & ~O_NONBLOCK & ~O_NONSEQFD, SYS_dup3, pair[0], lowest_free(), O_CLOEXEC, 0));
	// Not creating anything, the call is made as it is.
	CHECK(indirect(flags, SYS_fcntl, pair[0], F_GETFD, 0, 0) == fcntl(pair[0], F_GETFD));
	// A shared open file description changes only if the program itself asks.
	int copy = indirect(O_NONBLOCK, SYS_dup, pair[0], 0, 0, 0);
	CHECK(fcntl(pair[0], F_GETFL) & O_NONBLOCK);
	close(copy);
	close(pair[0]);
	close(pair[1]);

#ifdef SYS_accept
	struct sockaddr_in a, peer;
	socklen_t len = sizeof peer;
	int l = listener(&a), s = dial(&a);
	BORN(how, indirect(flags, SYS_accept, l, (long)&peer, (long)&len, 0));
	CHECK(len == sizeof peer && peer.sin_family == AF_INET);
	close(s);
	close(l);
#endif
#ifdef SYS_socketcall
	long socket[] = {AF_UNIX, SOCK_STREAM, 0}, pairargs[] = {AF_UNIX, SOCK_STREAM, 0, (long)pair};
	BORN(how, indirect(flags, SYS_socketcall, 1, (long)socket, 0, 0));
	low = lowest_free();
	CHECK(indirect(flags, SYS_socketcall, 8, (long)pairargs, 0, 0) == 0);
	both(how, low, pair);
	struct sockaddr_in a, peer;
	int l = listener(&a), s = dial(&a);
	socklen_t len = sizeof peer;
	long acceptargs[] = {l, (long)&peer, (long)&len}, listenargs[] = {l, 1};
	BORN(how, indirect(flags, SYS_socketcall, 5, (long)acceptargs, 0, 0));
	CHECK(indirect(flags, SYS_socketcall, 4, (long)listenargs, 0, 0) == 0);
	CHECK(indirect(flags, SYS_socketcall, 1, 16, 0, 0) == -1 && errno == EFAULT);
	close(s);
	close(l);
#endif
	// SCM_RIGHTS.
	REQUIRE(socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0);
	fcntl(pair[0], F_SETFL, 0);
	fcntl(pair[1], F_SETFL, 0);
	CHECK(send_fds(pair[0], 0, 3) == 1);
	char byte, control[CMSG_SPACE(3 * sizeof(int))];
	struct iovec io = {&byte, 1};
	struct msghdr m = {.msg_iov = &io, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
	CHECK(indirect(flags & ~O_NONBLOCK, SYS_recvmsg, pair[1], (long)&m, 0, 0) == 1);
	struct cmsghdr *c = CMSG_FIRSTHDR(&m);
	CHECK(c && c->cmsg_type == SCM_RIGHTS && c->cmsg_len == CMSG_LEN(3 * sizeof(int)));
	for (int i = 0; c && i < 3; i++) {
		int fd = ((int *)CMSG_DATA(c))[i];
		born(__FILE__, __LINE__, "received", -1, fd, unblocked);
		close(fd);
	}
	close(pair[0]);
	close(pair[1]);
}

#define FAILS(want, call)                                       \
	do {                                                    \
		errno = 0;                                      \
		CHECK((call) == -1 && errno == want);           \
	} while (0)

// The order of the checks, with what has several faults.
static void faults(void)
{
	struct registers good = {SYS_socket, {AF_UNIX, SOCK_STREAM}}, unlisted = {SYS_getpid}, none = {1 << 20};
	struct registers *bad = (void *)16;
	int flags = O_CLOEXEC, low = lowest_free();
	int own = number == INDIRECT;
	if (own) {
		FAILS(EINVAL, syscall(number, bad, &flags, 4, 1));
		FAILS(EFAULT, syscall(number, bad, &flags, 4, 0));
		FAILS(EFAULT, syscall(number, NULL, (void *)16, 5000, 0));
		FAILS(EINVAL, syscall(number, &good, &flags, -1L, 0));
		FAILS(EINVAL, syscall(number, &good, (void *)16, 5000, 0));
	}
	FAILS(EINVAL, syscall(number, &unlisted, &flags, 4, 0));
	FAILS(EINVAL, syscall(number, &none, &flags, 4, 0));
	FAILS(EINVAL, syscall(number, &unlisted, (void *)16, 4, 0));
	FAILS(EINVAL, syscall(number, &good, &flags, 33, 0));
	FAILS(EFAULT, syscall(number, &good, (void *)16, 4, 0));
	FAILS(EFAULT, syscall(number, &good, (void *)16, 1, 0));
	struct registers clone = {SYS_clone, {SIGCHLD}}, nested = {number};
	FAILS(EINVAL, syscall(number, &clone, &flags, 4, 0));
	FAILS(EINVAL, syscall(number, &nested, &flags, 4, 0));
#ifdef __x86_64__
	struct registers wide = {SYS_socket | 1ULL << 32, {AF_UNIX, SOCK_STREAM}};
	FAILS(EINVAL, syscall(number, &wide, &flags, 4, 0));
#endif
	struct registers wrong = {SYS_socket, {9999, SOCK_STREAM}};
	FAILS(EAFNOSUPPORT, syscall(number, &wrong, &flags, 4, 0));
	struct registers closed = {SYS_dup, {-1}};
	FAILS(EBADF, syscall(number, &closed, &flags, 4, 0));

	// Half of the call is on a page that is not there.
	char *two = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	munmap(two + 4096, 4096);
	struct registers *cut = (void *)(two + 4096 - sizeof good / 2);
	cut->nr = SYS_socket;
	if (own)
		FAILS(EFAULT, syscall(number, cut, &flags, 4, 0));
	struct registers *end = (void *)(two + 4096 - sizeof good);
	*end = good;
	int *endflags = (void *)(two + 4092);
	FAILS(EFAULT, syscall(number, &good, (char *)endflags + 1, 4, 0));
	CHECK(lowest_free() == low);

	// No fault at all: elsewhere than on the stack, and with less than all flags.
	BORN(ASKED_CLOEXEC, syscall(number, end, &flags, 4, 0));
	BORN(0, syscall(number, end, (void *)16, 0, 0));
	memset(two, 0xff, 4096);
	*end = good;
	unsigned char parts[4] = {0, 0, 0x08, 0x40}; // O_CLOEXEC | O_NONSEQFD
	memcpy(two, parts, 4);
	BORN(0, syscall(number, &good, two, 1, 0));
	BORN(0, syscall(number, &good, two, 2, 0));
	BORN(ASKED_CLOEXEC, syscall(number, &good, two, 3, 0));
	BORN(ASKED_CLOEXEC | ASKED_NONSEQ, syscall(number, &good, two, 4, 0));
	int unknown = O_CLOEXEC | 0x20000000 | O_APPEND;
	BORN(ASKED_CLOEXEC, syscall(number, &good, &unknown, 4, 0));
	munmap(two, 4096);
}

// A standard stream is one only to a program that does not say otherwise.
static void streams(void)
{
	close(0);
	CHECK(indirect(0, SYS_open, (long)"/dev/null", O_RDWR, 0, 0) == 0 && !is_cloexec(0));
	close(0);
	CHECK(indirect(O_CLOEXEC, SYS_open, (long)"/dev/null", O_RDWR, 0, 0) == 0 && is_cloexec(0));
	close(0);
	CHECK(indirect(O_NONSEQFD, SYS_open, (long)"/dev/null", O_RDWR, 0, 0) > 2);
	CHECK(fcntl(0, F_GETFD) == -1);
	CHECK(syscall(NONSEQFD, 1, 0) > 2);
}

static void family(int flags)
{
	int how = asked(flags), pair[2], low;
	BORN(how, syscall(SOCKET4, AF_UNIX, SOCK_STREAM, 0, flags));
	BORN(how, syscall(SOCKET2, AF_UNIX, SOCK_DGRAM, 0, flags));
	BORN(how | ASKED_CLOEXEC, syscall(SOCKET4, AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, flags));
	low = lowest_free();
	CHECK(syscall(SOCKETPAIR5, AF_UNIX, SOCK_STREAM, 0, pair, flags) == 0);
	both(how, low, pair);
	struct sockaddr_in a, peer;
	socklen_t len = sizeof peer;
	int l = listener(&a), s = dial(&a);
	BORN(how, syscall(PACCEPT, l, &peer, &len, NULL, 12345, flags));
	CHECK(len == sizeof peer && peer.sin_family == AF_INET);
	close(s);
	sigset_t mask;
	sigfillset(&mask);
	s = dial(&a);
	BORN(how, syscall(PACCEPT, l, NULL, NULL, &mask, 8, flags));
	close(s);
	close(l);
	if (!(flags & O_NONBLOCK)) {
		BORN(how, syscall(EPOLL_CREATE2, 1, flags));
		if (!(flags & O_NONSEQFD))
			BORN(how | ASKED_NONSEQ | NO_NONBLOCK, syscall(NONSEQFD, 1, flags));
	}
}

static void refused(void)
{
	int low = lowest_free(), pair[2] = {-7, -7};
	struct sockaddr_in a;
	sigset_t mask;
	sigemptyset(&mask);
	int l = listener(&a);
	FAILS(EINVAL, syscall(SOCKET4, AF_UNIX, SOCK_STREAM, 0, 1));
	FAILS(EINVAL, syscall(SOCKET2, AF_UNIX, SOCK_STREAM, 0, O_APPEND));
	FAILS(EINVAL, syscall(SOCKETPAIR5, AF_UNIX, SOCK_STREAM, 0, pair, 1 << 29));
	FAILS(EFAULT, syscall(SOCKETPAIR5, AF_UNIX, SOCK_STREAM, 0, 16, 0));
	CHECK(pair[0] == -7 && pair[1] == -7);
	FAILS(EINVAL, syscall(EPOLL_CREATE2, 0, 0));
	FAILS(EINVAL, syscall(EPOLL_CREATE2, -1, O_CLOEXEC));
	FAILS(EINVAL, syscall(EPOLL_CREATE2, 1, O_NONBLOCK));
	FAILS(EINVAL, syscall(NONSEQFD, 1, O_NONBLOCK));
	FAILS(EBADF, syscall(NONSEQFD, 9999, 0));
	FAILS(EINVAL, syscall(PACCEPT, l, NULL, NULL, NULL, 8, 2));
	FAILS(EINVAL, syscall(PACCEPT, l, NULL, NULL, &mask, 4, 0));
	FAILS(EFAULT, syscall(PACCEPT, l, NULL, NULL, (void *)16, 8, 0));
	FAILS(EBADF, syscall(PACCEPT, -1, NULL, NULL, &mask, 8, 0));
	FAILS(ENOTSOCK, syscall(PACCEPT, 1, NULL, NULL, &mask, 8, 0));
	int d = socket(AF_INET, SOCK_DGRAM, 0);
	FAILS(EOPNOTSUPP, syscall(PACCEPT, d, NULL, NULL, &mask, 8, 0));
	close(d);
	fcntl(l, F_SETFL, O_NONBLOCK);
	FAILS(EAGAIN, syscall(PACCEPT, l, NULL, NULL, &mask, 8, 0));
	close(l);
	CHECK(lowest_free() == low || expected("nonseq"));
}

static volatile sig_atomic_t handled;
static void handler(int sig) { (void)sig, handled++; }

static void *later(void *thread)
{
	usleep(100000);
	pthread_kill(*(pthread_t *)thread, SIGUSR1);
	return NULL;
}

// Drepper's test: a signal that is blocked outside ends the wait.
static void mask(void)
{
	struct sigaction sa = {.sa_handler = handler};
	sigset_t block, unblock;
	sigaction(SIGUSR1, &sa, NULL);
	sigemptyset(&block);
	sigaddset(&block, SIGUSR1);
	pthread_sigmask(SIG_BLOCK, &block, NULL);
	pthread_sigmask(SIG_BLOCK, NULL, &unblock);
	sigdelset(&unblock, SIGUSR1);
	struct sockaddr_in a;
	int l = listener(&a);
	raise(SIGUSR1);
	CHECK(handled == 0);
	FAILS(EINTR, syscall(PACCEPT, l, NULL, NULL, &unblock, 8, O_CLOEXEC));
	CHECK(handled == 1);
	pthread_t self = pthread_self(), t;
	pthread_create(&t, NULL, later, &self);
	FAILS(EINTR, syscall(PACCEPT, l, NULL, NULL, &unblock, 8, O_CLOEXEC));
	pthread_join(t, NULL);
	CHECK(handled == 2);
	sigset_t after;
	pthread_sigmask(SIG_BLOCK, NULL, &after);
	CHECK(sigismember(&after, SIGUSR1));
	close(l);
}

int main(void)
{
	number = INDIRECT;
	struct registers r = {SYS_socket, {AF_UNIX, SOCK_STREAM}};
	if (getenv("EXPECT_ENOSYS")) {
		for (int n = INDIRECT; n <= SOCKET2; n++)
			FAILS(ENOSYS, syscall(n, &r, NULL, 0, 0));
		return done();
	}
	// The first call of all, and the first of a process that has a stub.
	BORN(0, syscall(INDIRECT, &r, NULL, 0, 0));
	CHECK(succeeds(streams));
	for (int round = 0; round < 2; round++) {
		number = round ? FORMER : INDIRECT;
		for (unsigned i = 0; i < sizeof every / sizeof *every; i++)
			kinds(every[i]);
		faults();
	}
	number = INDIRECT;
	for (unsigned i = 0; i < sizeof every / sizeof *every; i++)
		family(every[i]);
	refused();
	mask();
	for (int i = 0; i < 1000; i++) {
		int fd = indirect(O_CLOEXEC | O_NONSEQFD, SYS_open, (long)"/dev/null", O_RDWR, 0, 0);
		CHECK(is_cloexec(fd));
		close(fd);
	}
	return done();
}

// What the functions of indirect.h refuse, and that errors come before anything has happened.
#include "check.h"
#include <indirect.h>
#include <netinet/in.h>
#include <pthread.h>

#define FAILS(want, call)                            \
	do {                                         \
		errno = 0;                           \
		CHECK((call) == -1 && errno == want); \
	} while (0)

static int tcp(struct sockaddr_in *a)
{
	int l = indirect_socket(AF_INET, SOCK_STREAM, 0, O_CLOEXEC);
	socklen_t len = sizeof *a;
	memset(a, 0, sizeof *a);
	a->sin_family = AF_INET;
	a->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	REQUIRE(bind(l, (struct sockaddr *)a, len) == 0 && listen(l, 10) == 0 && getsockname(l, (struct sockaddr *)a, &len) == 0);
	return l;
}

static void flags(void)
{
	int pair[2] = {-7, -7};
	sigset_t none;
	sigemptyset(&none);
	struct sockaddr_in a;
	int l = tcp(&a), s = socket(AF_INET, SOCK_STREAM, 0);
	REQUIRE(connect(s, (struct sockaddr *)&a, sizeof a) == 0);
	int low = lowest_free();
	for (int bit = 0; bit < 32; bit++) {
		int flag = 1u << bit, three = O_CLOEXEC | O_NONBLOCK | O_NONSEQFD, two = O_CLOEXEC | O_NONSEQFD;
		if (!(flag & three)) {
			FAILS(EINVAL, indirect_pipe(pair, flag));
			FAILS(EINVAL, indirect_socket(AF_UNIX, SOCK_STREAM, 0, flag | O_CLOEXEC));
			FAILS(EINVAL, socket4(AF_UNIX, SOCK_STREAM, 0, flag));
			FAILS(EINVAL, socket2(AF_UNIX, SOCK_STREAM, 0, flag));
			FAILS(EINVAL, indirect_socketpair(AF_UNIX, SOCK_STREAM, 0, pair, flag));
			FAILS(EINVAL, socketpair5(AF_UNIX, SOCK_STREAM, 0, pair, flag | O_NONSEQFD));
			FAILS(EINVAL, indirect_accept(l, NULL, NULL, flag));
			FAILS(EINVAL, paccept(l, NULL, NULL, NULL, flag));
			FAILS(EINVAL, paccept(l, NULL, NULL, &none, flag));
			FAILS(EINVAL, indirect_inotify_init(flag));
			FAILS(EINVAL, indirect_signalfd(-1, &none, flag));
			FAILS(EINVAL, indirect_timerfd_create(CLOCK_MONOTONIC, flag));
			FAILS(EINVAL, indirect_creat("/dev/null", 0, flag));
			if (flag != 1) // EFD_SEMAPHORE
				FAILS(EINVAL, indirect_eventfd(0, flag));
		}
		if (!(flag & two)) {
			FAILS(EINVAL, indirect_dup(0, flag));
			FAILS(EINVAL, indirect_epoll_create(1, flag));
			FAILS(EINVAL, epoll_create2(1, flag));
			FAILS(EINVAL, indirect_memfd_create("m", 0, flag));
		}
		if (flag != O_CLOEXEC)
			FAILS(EINVAL, nonseqfd(0, flag));
	}
	CHECK(pair[0] == -7 && pair[1] == -7);
	CHECK(lowest_free() == low);
	close(indirect_accept(l, NULL, NULL, O_CLOEXEC)); // the connection is still there
	close(s);
	close(l);
}

static void errors(void)
{
	static const int every[] = {0, O_CLOEXEC, O_NONSEQFD, O_NONSEQFD | O_CLOEXEC};
	int sv[2], low = lowest_free(), file = open("/dev/null", O_RDWR | O_CLOEXEC);
	sigset_t none;
	sigemptyset(&none);
	for (unsigned i = 0; i < sizeof every / sizeof *every; i++) {
		int f = every[i];
		FAILS(ENOENT, indirect_open("/nowhere/at/all", O_RDONLY | f, 0));
		FAILS(EFAULT, indirect_open((char *)16, O_RDONLY | f, 0));
		FAILS(ENOENT, indirect_creat("/nowhere/at/all", 0600, f));
		FAILS(EBADF, indirect_dup(9999, f));
		FAILS(EBADF, indirect_accept(9999, NULL, NULL, f));
		FAILS(ENOTSOCK, indirect_accept(file, NULL, NULL, f));
		FAILS(EBADF, paccept(9999, NULL, NULL, &none, f));
		FAILS(ENOTSOCK, paccept(file, NULL, NULL, &none, f));
		FAILS(EAFNOSUPPORT, indirect_socket(9999, SOCK_STREAM, 0, f));
		FAILS(EINVAL, indirect_socket(AF_UNIX, 15, 0, f));
		FAILS(EOPNOTSUPP, indirect_socketpair(AF_INET, SOCK_STREAM, 0, sv, f));
		FAILS(EFAULT, indirect_signalfd(-1, (sigset_t *)16, f));
		FAILS(EINVAL, indirect_timerfd_create(99, f));
		FAILS(EINVAL, indirect_epoll_create(0, f));
		FAILS(EFAULT, indirect_memfd_create((char *)16, 0, f));
		FAILS(EINVAL, indirect_memfd_create("m", 1, f));
	}
	FAILS(EBADF, nonseqfd(9999, 0));
	FAILS(EBADF, nonseqfd(-1, O_CLOEXEC));
	int d = socket(AF_INET, SOCK_DGRAM, 0);
	FAILS(EOPNOTSUPP, paccept(d, NULL, NULL, &none, 0));
	close(d);
	close(file);
	CHECK(lowest_free() == low);

	// What works has told the header what this kernel has: no guess after an error.
	CHECK(indirect_rung(INDIRECT_PIPE, O_CLOEXEC) == INDIRECT_RUNG_UNKNOWN);
	REQUIRE(indirect_pipe(sv, O_CLOEXEC) == 0);
	CHECK(indirect_rung(INDIRECT_PIPE, O_CLOEXEC) == INDIRECT_RUNG_NATIVE);
	close(sv[0]);
	close(sv[1]);
}

static void events(void)
{
	sigset_t usr1;
	uint64_t count = 0;
	sigemptyset(&usr1);
	sigaddset(&usr1, SIGUSR1);
	int fd = indirect_signalfd(-1, &usr1, O_NONBLOCK);
	REQUIRE(fd >= 0);
	fcntl(fd, F_SETFD, 0);
	CHECK(indirect_signalfd(fd, &usr1, O_CLOEXEC | O_NONSEQFD) == fd && !is_cloexec(fd));
	close(fd);
	for (int i = 0; i < 2; i++) {
		fd = indirect_eventfd(3, 1 | O_NONBLOCK | (i ? O_NONSEQFD : O_CLOEXEC));
		CHECK(read(fd, &count, 8) == 8 && count == 1); // EFD_SEMAPHORE
		close(fd);
		fd = indirect_eventfd(3, O_NONBLOCK | (i ? O_NONSEQFD : O_CLOEXEC));
		CHECK(read(fd, &count, 8) == 8 && count == 3);
		CHECK(read(fd, &count, 8) == -1 && errno == EAGAIN);
		close(fd);
	}
}

static volatile sig_atomic_t handled;
static void handler(int sig) { (void)sig, handled++; }

static void *later(void *thread)
{
	usleep(50000);
	pthread_kill(*(pthread_t *)thread, SIGUSR1);
	return NULL;
}

static void masks(void)
{
	struct sigaction sa = {.sa_handler = handler};
	struct sockaddr_in a;
	sigset_t block, unblock, after;
	int l = tcp(&a);
	fcntl(l, F_SETFL, 0);
	sigaction(SIGUSR1, &sa, NULL);
	sigemptyset(&block);
	sigaddset(&block, SIGUSR1);
	pthread_sigmask(SIG_BLOCK, &block, NULL);
	pthread_sigmask(SIG_BLOCK, NULL, &unblock);
	sigdelset(&unblock, SIGUSR1);
	raise(SIGUSR1);
	CHECK(handled == 0);
	FAILS(EINTR, paccept(l, NULL, NULL, &unblock, O_CLOEXEC));
	CHECK(handled == 1);
	pthread_t self = pthread_self(), t;
	pthread_create(&t, NULL, later, &self);
	FAILS(EINTR, paccept(l, NULL, NULL, &unblock, O_NONSEQFD));
	pthread_join(t, NULL);
	CHECK(handled == 2);
	pthread_sigmask(SIG_BLOCK, NULL, &after);
	CHECK(sigismember(&after, SIGUSR1));
	struct sockaddr_in peer;
	socklen_t len = sizeof peer;
	int s = socket(AF_INET, SOCK_STREAM, 0);
	fcntl(s, F_SETFL, 0);
	REQUIRE(connect(s, (struct sockaddr *)&a, sizeof a) == 0);
	BORN(ASKED_CLOEXEC, paccept(l, (struct sockaddr *)&peer, &len, &unblock, O_CLOEXEC));
	CHECK(len == sizeof peer && peer.sin_family == AF_INET);
	fcntl(l, F_SETFL, O_NONBLOCK);
	FAILS(EAGAIN, paccept(l, NULL, NULL, &unblock, 0));
	close(s);
	close(l);
}

// Where no other number is free, a descriptor keeps the lowest one.
static void scarce(void)
{
	struct rlimit limit;
	for (int numbers = 4; numbers < 12; numbers++) {
		REQUIRE(getrlimit(RLIMIT_NOFILE, &limit) == 0);
		limit.rlim_cur = numbers;
		REQUIRE(setrlimit(RLIMIT_NOFILE, &limit) == 0);
		for (int i = 0; i < 2; i++) {
			int fd = indirect_open("/dev/null", O_RDONLY | O_NONSEQFD | (i ? O_CLOEXEC : 0), 0);
			CHECK(fd > 2 && fd < numbers && !is_cloexec(fd) == !(i || expected("cloexec")));
			close(fd);
		}
		int fd = nonseqfd(1, 0);
		CHECK(fd > 2 && fd < numbers);
		close(fd);
	}
}

static volatile int interrupted;

static void *send_signals(void *thread)
{
	unsigned seed = 1;
	for (int i = 0; i < 1000; i++) {
		pthread_kill(*(pthread_t *)thread, SIGUSR1);
		for (double start = now(); interrupted <= i;)
			if (now() - start > 10) {
				dprintf(2, "signal %d: handled %d, but %d waits ended\n", i, handled, interrupted);
				_exit(1);
			}
		for (volatile int pause = rand_r(&seed) % 300; pause > 0; pause--)
			;
	}
	return NULL;
}

// Signals at every moment: each ends one wait, or stays pending.
static void storm(void)
{
	struct sockaddr_in a;
	sigset_t unblock;
	pthread_t self = pthread_self(), t;
	int l = tcp(&a), before = handled;
	fcntl(l, F_SETFL, 0);
	pthread_sigmask(SIG_BLOCK, NULL, &unblock); // masks has blocked SIGUSR1
	sigdelset(&unblock, SIGUSR1);
	REQUIRE(pthread_create(&t, NULL, send_signals, &self) == 0);
	while (interrupted < 1000) {
		FAILS(EINTR, paccept(l, NULL, NULL, &unblock, O_CLOEXEC));
		interrupted++;
		CHECK(handled == before + interrupted);
	}
	pthread_join(t, NULL);
	close(l);
}

int main(void)
{
	errors();
	flags();
	events();
	masks();
	storm();
	CHECK(succeeds(scarce));
	errno = 7;
	indirect_offered_ = 0;
	CHECK(indirect_available() == indirect_available() && errno == 7);
	CHECK(indirect(NULL, NULL, 0, 0) == -1 && errno == (indirect_available() ? EFAULT : ENOSYS));
	return done();
}

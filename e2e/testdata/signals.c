// Eight threads make flagless calls under a storm of signals whose handler
// lacks SA_RESTART, and makes such calls itself: none of these calls can
// block, so that none fails. One exception is the kernel's: a call that traps
// can be interrupted until the supervisor has received it (seccomp_do_user_
// notification in kernel/seccomp.c), which takes microseconds, or longer where
// all processors are busy. It is made again, and each signal accounts for one
// such call at most.
#include "check.h"
#include <pthread.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>

enum { THREADS = 8 };

static double end;
static unsigned long handled, made, interrupted;

// again reports whether a call is to be made again, because it was interrupted.
static int again(int result)
{
	if (result != -1 || errno != EINTR)
		return 0;
	__atomic_add_fetch(&interrupted, 1, __ATOMIC_RELAXED);
	return 1;
}

static void handler(int sig)
{
	(void)sig;
	int e = errno;
	int fd;
	while (again(fd = open("/dev/null", O_RDONLY)))
		;
	CHECK(fd >= 0);
	CHECK(!is_cloexec(fd) == !expected("cloexec"));
	CHECK(close(fd) == 0);
	__atomic_add_fetch(&handled, 1, __ATOMIC_RELAXED);
	errno = e;
}

#define GOOD(call)                                                 \
	do {                                                       \
		int fd_;                                           \
		while (again(fd_ = (call)))                        \
			;                                          \
		CHECK(fd_ > 2);                                    \
		CHECK(!is_cloexec(fd_) == !expected("cloexec"));   \
		CHECK(close(fd_) == 0);                            \
	} while (0)

static void *maker(void *unused)
{
	(void)unused;
	int s[2], null;
	while (again(null = open("/dev/null", O_RDWR)) || again(socketpair(AF_UNIX, SOCK_DGRAM, 0, s)))
		;
	while (now() < end) {
		GOOD(open("/dev/null", O_RDONLY));
		GOOD(socket(AF_UNIX, SOCK_STREAM, 0));
		GOOD(dup(null));
		GOOD(fcntl(null, F_DUPFD, 10));
		GOOD(eventfd(0, 0));
		GOOD(epoll_create(1));
		GOOD(syscall(SYS_openat, AT_FDCWD, "/dev/null", O_RDONLY));
		int p[2] = {-1, -1};
		while (again(pipe(p)))
			CHECK(p[0] == -1 && p[1] == -1);
		CHECK(is_cloexec(p[0]) == is_cloexec(p[1]) && !is_cloexec(p[0]) == !expected("cloexec"));
		CHECK(write(p[1], "a", 1) == 1);
		char c = 0;
		CHECK(read(p[0], &c, 1) == 1 && c == 'a');
		CHECK(close(p[0]) == 0 && close(p[1]) == 0);
		while (send_fds(s[0], null, 2) == -1)
			REQUIRE(errno == EINTR);
		char control[CMSG_SPACE(16 * sizeof(int))];
		struct iovec io = {&c, 1};
		struct msghdr m = {.msg_iov = &io, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
		while (again(recvmsg(s[1], &m, 0)))
			;
		int fds[2];
		memcpy(fds, CMSG_DATA(CMSG_FIRSTHDR(&m)), sizeof fds);
		for (int i = 0; i < 2; i++) {
			CHECK(!is_cloexec(fds[i]) == !expected("cloexec"));
			CHECK(close(fds[i]) == 0);
		}
		__atomic_add_fetch(&made, 10, __ATOMIC_RELAXED);
	}
	return NULL;
}

int main(int argc, char **argv)
{
	double seconds = argc > 1 ? atof(argv[1]) : 2;
	struct sigaction action = {.sa_handler = handler};
	sigaction(SIGUSR1, &action, NULL);
	end = now() + seconds;
	pthread_t threads[THREADS];
	for (int i = 0; i < THREADS; i++)
		REQUIRE(pthread_create(&threads[i], NULL, maker, NULL) == 0);
	for (int i = 0; now() < end; i++) {
		pthread_kill(threads[i % THREADS], SIGUSR1);
		struct timespec pause = {0, 500000};
		nanosleep(&pause, NULL);
	}
	for (int i = 0; i < THREADS; i++)
		pthread_join(threads[i], NULL);
	CHECK(handled > 0 && made > 0);
	CHECK(interrupted <= (expected("cloexec") ? handled : 0));
	dprintf(2, "%lu calls, %lu signals, %lu interrupted\n", made, handled, interrupted);
	return done();
}

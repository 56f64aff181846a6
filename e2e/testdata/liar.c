// Calls with bad arguments. It prints what each gives: whatever runs it, the
// output must be the same. With an argument, another thread takes away the
// memory that calls are given.
#include "check.h"
#include <pthread.h>
#include <sys/mman.h>

#ifndef SYS_openat2
#define SYS_openat2 437
#endif

static void *readonly, *nowhere, *edge;
static long page;

static void say(const char *call, long result)
{
	int e = errno;
	if (result < 0)
		printf("%s: errno %d\n", call, e);
	else
		printf("%s: %s\n", call, result == 0 ? "0" : "a number");
	if (result > 2)
		close(result);
}

#define SAY(call)                \
	do {                     \
		errno = 0;       \
		say(#call, call); \
	} while (0)

static void pointers(void)
{
	void *bad[] = {NULL, (void *)1, (void *)-1L, (void *)-4096L, (void *)0xffff800000000000UL, (void *)0x7fffffffe000UL, readonly, nowhere, edge, (char *)edge - 4, (char *)edge - 1};
	for (unsigned i = 0; i < sizeof bad / sizeof bad[0]; i++) {
		void *b = bad[i];
		printf("pointer %u\n", i);
		SAY(syscall(SYS_open, b, O_RDONLY));
		SAY(syscall(SYS_open, b, O_RDONLY | O_CLOEXEC));
		SAY(syscall(SYS_openat, AT_FDCWD, b, O_RDONLY));
		SAY(syscall(SYS_creat, b, 0600));
		SAY(syscall(SYS_openat2, AT_FDCWD, "/dev/null", b, 24));
		SAY(syscall(SYS_openat2, AT_FDCWD, b, b, 24));
		SAY(syscall(SYS_pipe, b));
		SAY(syscall(SYS_pipe2, b, 0));
		SAY(syscall(SYS_pipe2, b, O_CLOEXEC));
		SAY(syscall(SYS_socketpair, AF_UNIX, SOCK_STREAM, 0, b));
		SAY(syscall(SYS_accept, 0, b, b));
		SAY(syscall(SYS_accept, -1, b, b));
		SAY(syscall(SYS_accept4, 0, b, b, 0));
		int s[2];
		REQUIRE(socketpair(AF_UNIX, SOCK_DGRAM, 0, s) == 0);
		REQUIRE(send_fds(s[0], s[0], 2) == 1);
		SAY(syscall(SYS_recvmsg, s[1], b, MSG_DONTWAIT));
		struct iovec io = {b, 1};
		struct msghdr m = {.msg_iov = &io, .msg_iovlen = 1, .msg_control = b, .msg_controllen = 64};
		SAY(syscall(SYS_recvmsg, s[1], &m, MSG_DONTWAIT));
		if (recv(s[1], (char[1]){0}, 1, MSG_DONTWAIT) == 1) // was not taken
			REQUIRE(send_fds(s[0], s[0], 2) == 1);
		else
			REQUIRE(send_fds(s[0], s[0], 2) == 1);
		char c;
		io.iov_base = &c;
		SAY(syscall(SYS_recvmsg, s[1], &m, MSG_DONTWAIT));
		printf("control %zu, flags %x\n", (size_t)m.msg_controllen, m.msg_flags & ~MSG_CMSG_CLOEXEC);
		SAY(syscall(SYS_recvmmsg, s[1], b, 1, MSG_DONTWAIT, NULL));
		SAY(syscall(SYS_recvmmsg, s[1], b, 1, MSG_DONTWAIT, b));
		close(s[0]);
		close(s[1]);
		SAY(syscall(SYS_signalfd, -1, b, 8));
		SAY(syscall(SYS_signalfd4, -1, b, 8, 0));
		SAY(syscall(SYS_memfd_create, b, 0));
		SAY(syscall(SYS_getsockopt, 0, SOL_SOCKET, 77, b, b));
		SAY(syscall(SYS_name_to_handle_at, AT_FDCWD, "/", b, b, 0));
		SAY(syscall(SYS_open_by_handle_at, AT_FDCWD, b, O_RDONLY));
		SAY(syscall(SYS_mq_open, b, O_RDONLY, 0, NULL));
		SAY(syscall(SYS_perf_event_open, b, 0, -1, -1, 0));
		SAY(syscall(SYS_rt_sigaction, 32, b, NULL, 8));
		SAY(syscall(SYS_rt_sigaction, 33, NULL, b, 8));
	}
}

static void numbers(void)
{
	const long bad[] = {-1, -2, -100, 0x7fffffff, -0x80000000L, 0x100000000L, 0x100000001L, -0x100000000L, 1 << 20, 3, 999999};
	int high = dup2(0, 100); // the same number in every run
	struct {
		uint64_t flags, mode, resolve, more;
	} how = {0};
	for (unsigned i = 0; i < sizeof bad / sizeof bad[0]; i++) {
		long b = bad[i];
		if (b == 3)
			b = high;
		printf("number %ld\n", bad[i]);
		SAY(syscall(SYS_dup, b));
		SAY(syscall(SYS_fcntl, b, F_DUPFD, 0));
		SAY(syscall(SYS_fcntl, high, F_DUPFD, b == high ? 0 : b));
		SAY(syscall(SYS_fcntl, high, F_DUPFD_CLOEXEC, b == high ? 0 : b));
		if (b != high && b != 0x100000001L && b != 0x100000000L && b != -0x100000000L) {
			SAY(syscall(SYS_dup2, high, b));
			SAY(syscall(SYS_dup3, high, b, 0));
		}
		SAY(syscall(SYS_openat, b, "x-does-not-exist", O_RDONLY));
		SAY(syscall(SYS_openat2, AT_FDCWD, "/dev/null", &how, b));
		SAY(syscall(SYS_accept, b, NULL, NULL));
		SAY(syscall(SYS_accept4, b, NULL, NULL, 0));
		SAY(syscall(SYS_recvmsg, b, NULL, 0));
		SAY(syscall(SYS_socket, b, SOCK_STREAM, 0));
		SAY(syscall(SYS_socket, AF_UNIX, b, 0));
		SAY(syscall(SYS_socket, AF_UNIX, SOCK_STREAM, b));
		SAY(syscall(SYS_epoll_create, b));
		SAY(syscall(SYS_eventfd, b));
		SAY(syscall(SYS_timerfd_create, b, 0));
		SAY(syscall(SYS_signalfd, b, &how, 8));
		SAY(syscall(SYS_signalfd, -1, &how, b));
		SAY(syscall(SYS_signalfd4, b, &how, 8, 0));
		SAY(syscall(SYS_signalfd4, -1, &how, b, 0));
	}
	close(high);
}

static void flags(void)
{
	const long bad[] = {1, 2, 4, 0x10, 0x40, 0x80, 0x100, 0x1000, 0x10000, 0x100000, 0x1000000, 0x10000000, 0x40000000, 0x80000000L, 0x7fffffff, -1, 0x100000000L, 0xfffffffff0000000L};
	int p[2];
	sigset_t none;
	sigemptyset(&none);
	for (unsigned i = 0; i < sizeof bad / sizeof bad[0]; i++) {
		long b = bad[i];
		struct {
			uint64_t flags, mode, resolve, more;
		} how = {.flags = b};
		printf("flags %lx\n", b);
		if (!(b & O_CREAT)) {
			SAY(syscall(SYS_open, "/dev/null", b));
			SAY(syscall(SYS_openat, AT_FDCWD, "/dev/null", b));
		}
		SAY(syscall(SYS_openat2, AT_FDCWD, "/dev/null", &how, 24));
		SAY(syscall(SYS_openat2, AT_FDCWD, "/dev/null", &how, 32));
		how.more = 1;
		SAY(syscall(SYS_openat2, AT_FDCWD, "/dev/null", &how, 32));
		how.more = 0;
		SAY(syscall(SYS_pipe2, p, b));
		SAY(syscall(SYS_socket, AF_UNIX, b, 0));
		SAY(syscall(SYS_socket, AF_UNIX, SOCK_STREAM | b, 0));
		SAY(syscall(SYS_socketpair, AF_UNIX, SOCK_STREAM | b, 0, p));
		SAY(syscall(SYS_accept4, 0, NULL, NULL, b));
		SAY(syscall(SYS_epoll_create1, b));
		SAY(syscall(SYS_eventfd2, 0, b));
		SAY(syscall(SYS_signalfd4, -1, &none, 8, b));
		SAY(syscall(SYS_timerfd_create, 0, b));
		SAY(syscall(SYS_inotify_init1, b));
		SAY(syscall(SYS_memfd_create, "x", b & ~4)); // no huge pages
		SAY(syscall(SYS_dup3, 0, 50, b));
		SAY(syscall(SYS_fanotify_init, b, 0));
		SAY(syscall(SYS_userfaultfd, b));
		SAY(syscall(434, getpid(), b)); // pidfd_open
		SAY(syscall(428, AT_FDCWD, "/", b & ~1)); // open_tree
		SAY(syscall(430, "tmpfs", b)); // fsopen
		for (int fd = 3; fd < 100; fd++)
			close(fd);
	}
}

static int stop;

// flips takes a page away and gives it back.
static void *flips(void *page_)
{
	while (!__atomic_load_n(&stop, __ATOMIC_RELAXED)) {
		mprotect(page_, page, PROT_NONE);
		mprotect(page_, page, PROT_READ | PROT_WRITE);
	}
	return NULL;
}

// vanishing memory gives EFAULT or success, and never anything else.
static void vanishing(void)
{
	char *p = mmap(NULL, page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	pthread_t thread;
	REQUIRE(pthread_create(&thread, NULL, flips, p) == 0);
	long limit = 0;
	for (int i = 0; i < 2000; i++) {
		long r = syscall(SYS_pipe, p);
		CHECK(r == 0 || errno == EFAULT);
		r = syscall(SYS_openat2, AT_FDCWD, "/dev/null", p, 24);
		CHECK(r >= 0 || errno == EFAULT || errno == EINVAL);
		r = syscall(SYS_open, p, O_RDONLY);
		CHECK(r >= 0 || errno == EFAULT || errno == ENOENT);
		if (++limit % 100 == 0)
			syscall(436, 3, ~0U, 0); // close_range
	}
	__atomic_store_n(&stop, 1, __ATOMIC_RELAXED);
	pthread_join(thread, NULL);
}

int main(int argc, char **argv)
{
	page = sysconf(_SC_PAGESIZE);
	close(0);
	REQUIRE(open("/dev/null", O_RDONLY) == 0);
	readonly = mmap(NULL, page, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	nowhere = mmap(NULL, page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	char *two = mmap(NULL, 2 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	munmap(two + page, page);
	edge = two + page;
	if (argc > 1)
		vanishing();
	for (int i = 0; i < 2 && argc == 1; i++) {
		pointers();
		numbers();
		flags();
	}
	return done();
}

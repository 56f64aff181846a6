// Flagless calls on several threads and in short-lived processes, each
// checked, until standard input ends.
#include "check.h"
#include <poll.h>
#include <pthread.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>

static int over;
static unsigned long made, bare_;

#define GOOD(call)                                       \
	do {                                             \
		int fd_ = (call);                        \
		CHECK(fd_ > 2);                          \
		flagged(fd_);                            \
		CHECK(close(fd_) == 0);                  \
	} while (0)

// flagged counts descriptors without the expected flag: it is for others to
// say whether there may be any.
static void flagged(int fd)
{
	__atomic_add_fetch(&made, 1, __ATOMIC_RELAXED);
	if (!is_cloexec(fd))
		__atomic_add_fetch(&bare_, 1, __ATOMIC_RELAXED);
}

static void round_of_calls(void)
{
	GOOD(open("/dev/null", O_RDONLY));
	GOOD(dup(2));
	GOOD(eventfd(0, 0));
	GOOD(epoll_create(1));
	int s[2] = {-1, -1};
	CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, s) == 0);
	flagged(s[0]);
	flagged(s[1]);
	char c = 0;
	CHECK(write(s[0], "q", 1) == 1 && read(s[1], &c, 1) == 1 && c == 'q');
	CHECK(close(s[0]) == 0 && close(s[1]) == 0);
}

static void *works(void *unused)
{
	while (!__atomic_load_n(&over, __ATOMIC_RELAXED))
		round_of_calls();
	return unused;
}

int main(int argc, char **argv)
{
	if (argc > 1) { // a fresh image
		for (int i = 0; i < 5; i++)
			round_of_calls();
		_exit(failures ? 1 : bare_ ? 2 : 0);
	}
	pthread_t threads[3];
	for (int i = 0; i < 3; i++)
		REQUIRE(pthread_create(&threads[i], NULL, works, NULL) == 0);
	unsigned long programs = 0, unflagged = 0;
	struct pollfd input = {.fd = 0, .events = POLLIN};
	while (poll(&input, 1, 0) == 0) {
		pid_t pid = vfork();
		if (pid == 0) {
			execl("/proc/self/exe", "load", "once", NULL);
			_exit(9);
		}
		int status;
		REQUIRE(waitpid(pid, &status, 0) == pid);
		CHECK(WIFEXITED(status) && (WEXITSTATUS(status) == 0 || WEXITSTATUS(status) == 2));
		unflagged += WIFEXITED(status) && WEXITSTATUS(status) == 2;
		programs++;
	}
	__atomic_store_n(&over, 1, __ATOMIC_RELAXED);
	for (int i = 0; i < 3; i++)
		pthread_join(threads[i], NULL);
	printf("%lu %lu %lu %lu\n", made, bare_, programs, unflagged);
	return done();
}

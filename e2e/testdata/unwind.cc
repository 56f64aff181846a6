// Cancellation of a thread that is blocked in accept, or about to be, runs C++
// destructors: many times, or with an argument until standard input ends.
#include "check.h"
#include <poll.h>
#include <pthread.h>

static int listener, destroyed;

struct Witness {
	~Witness() { __atomic_add_fetch(&destroyed, 1, __ATOMIC_SEQ_CST); }
};

static void *waits(void *unused)
{
	Witness witness;
	accept(listener, NULL, NULL);
	failed(__FILE__, __LINE__, "accept returned");
	return unused;
}

static void cancel_after(int microseconds)
{
	pthread_t thread;
	pthread_create(&thread, NULL, waits, NULL);
	busy(microseconds);
	pthread_cancel(thread);
	pthread_join(thread, NULL);
	_exit(destroyed != 1);
}

// first_cancellation cancels the first thread of a process's life after some
// time; if self is not NULL, in a new image, in which nothing was called before.
static void first_cancellation(const char *self, int microseconds)
{
	pid_t child = fork();
	if (child == 0 && self == NULL)
		cancel_after(microseconds);
	if (child == 0) {
		char fd[16], after[16];
		snprintf(fd, sizeof fd, "%d", listener);
		snprintf(after, sizeof after, "%d", microseconds);
		execl(self, self, fd, after, NULL);
		_exit(2);
	}
	int status;
	REQUIRE(waitpid(child, &status, 0) == child);
	CHECK(status == 0);
}

int main(int argc, char **argv)
{
	if (argc > 2) {
		listener = atoi(argv[1]);
		cancel_after(atoi(argv[2]));
	}
	struct sockaddr_un name = {};
	name.sun_family = AF_UNIX;
	listener = socket(AF_UNIX, SOCK_STREAM, 0);
	REQUIRE(bind(listener, (struct sockaddr *)&name, sizeof(sa_family_t)) == 0);
	REQUIRE(listen(listener, 10) == 0);
	REQUIRE(fcntl(listener, F_SETFD, 0) == 0);
	struct pollfd input = {.fd = 0, .events = POLLIN};
	for (int i = 0; argc > 1 ? poll(&input, 1, 0) == 0 : i < 500; i++)
		first_cancellation(i % 2 ? argv[0] : NULL, i % 250 * 4);
	for (int i = 0; i < 10; i++) {
		pthread_t thread;
		REQUIRE(pthread_create(&thread, NULL, waits, NULL) == 0);
		usleep(20000);
		REQUIRE(pthread_cancel(thread) == 0);
		REQUIRE(pthread_join(thread, NULL) == 0);
		CHECK(destroyed == i + 1);
	}
	return done();
}

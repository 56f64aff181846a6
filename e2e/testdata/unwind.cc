// Cancellation of a thread that is blocked in accept, or about to be, runs C++
// destructors.
#include "check.h"
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

// first_cancellation cancels the first thread of a process's life after some time.
static void first_cancellation(int microseconds)
{
	pid_t child = fork();
	if (child == 0) {
		pthread_t thread;
		pthread_create(&thread, NULL, waits, NULL);
		busy(microseconds);
		pthread_cancel(thread);
		pthread_join(thread, NULL);
		_exit(destroyed != 1);
	}
	int status;
	REQUIRE(waitpid(child, &status, 0) == child);
	CHECK(status == 0);
}

int main()
{
	struct sockaddr_un name = {};
	name.sun_family = AF_UNIX;
	listener = socket(AF_UNIX, SOCK_STREAM, 0);
	REQUIRE(bind(listener, (struct sockaddr *)&name, sizeof(sa_family_t)) == 0);
	REQUIRE(listen(listener, 10) == 0);
	for (int i = 0; i < 500; i++)
		first_cancellation(i % 250 * 4);
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

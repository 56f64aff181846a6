// Threads and processes that are created right after a program image's first
// calls may run on all of the processors that their creator may.
#include "check.h"
#include <pthread.h>
#include <sched.h>

static cpu_set_t all;

static void all_processors(const char *whose)
{
	cpu_set_t now;
	REQUIRE(sched_getaffinity(0, sizeof now, &now) == 0);
	if (!CPU_EQUAL(&now, &all))
		failed(__FILE__, __LINE__, whose);
}

static void *thread(void *whose)
{
	all_processors(whose);
	return NULL;
}

// image makes calls and creates a thread, or a process, at once.
static int image(int calls, int threads)
{
	for (int i = 0; i < calls; i++)
		open("/dev/null", O_RDONLY);
	if (threads) {
		pthread_t t;
		REQUIRE(pthread_create(&t, NULL, thread, "a new thread's processors") == 0);
		REQUIRE(pthread_join(t, NULL) == 0);
	} else {
		int status;
		pid_t child = fork();
		if (child == 0) {
			all_processors("a new process's processors");
			_exit(done());
		}
		REQUIRE(waitpid(child, &status, 0) == child);
		CHECK(status == 0);
	}
	all_processors("one's own processors");
	return done();
}

int main(int argc, char **argv)
{
	REQUIRE(sched_getaffinity(0, sizeof all, &all) == 0);
	if (argc > 1)
		return image(argv[1][0] - '0', argv[1][1] == 't');
	for (int i = 0; i < 400; i++) {
		const char *what[] = {"1t", "1p", "2t", "2p"};
		int status;
		pid_t child = vfork();
		if (child == 0) {
			execl(argv[0], argv[0], what[i % 4], NULL);
			_exit(9);
		}
		REQUIRE(waitpid(child, &status, 0) == child);
		CHECK(status == 0);
		all_processors("the first process's processors");
	}
	return done();
}

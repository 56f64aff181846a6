// Processes and threads that die, stop and go on in the middle of calls.
#include "check.h"
#include <pthread.h>

static void calls(void)
{
	int p[2], fd = open("/dev/null", O_RDONLY);
	CHECK(fd > 2);
	CHECK(!is_cloexec(fd) == !expected("cloexec"));
	CHECK(pipe(p) == 0);
	CHECK(!is_cloexec(p[0]) == !expected("cloexec"));
	int d = dup(fd), s = socket(AF_UNIX, SOCK_STREAM, 0);
	CHECK(d > 2 && s > 2);
	CHECK(!is_cloexec(d) == !expected("cloexec"));
	CHECK(!is_cloexec(s) == !expected("cloexec"));
	CHECK(close(p[0]) == 0 && close(p[1]) == 0 && close(fd) == 0 && close(d) == 0 && close(s) == 0);
}

static void *calls_for_ever(void *unused)
{
	for (;;)
		calls();
	return unused;
}

static void pause_us(long us)
{
	struct timespec t = {us / 1000000, us % 1000000 * 1000};
	nanosleep(&t, NULL);
}

// killed children must end as killed, and nothing of theirs may disturb others.
static void killed(int count)
{
	enum { AT_ONCE = 4 };
	for (int i = 0; i < count; i += AT_ONCE) {
		pid_t pid[AT_ONCE];
		for (int k = 0; k < AT_ONCE; k++) {
			REQUIRE((pid[k] = fork()) != -1);
			if (pid[k] == 0) {
				pthread_t thread;
				if (k == 1)
					pthread_create(&thread, NULL, calls_for_ever, NULL);
				if (k == 2) {
					char *argv[] = {"death", "for ever", NULL};
					execv("/proc/self/exe", argv);
				}
				calls_for_ever(NULL);
			}
		}
		pause_us(random() % 5000);
		for (int k = 0; k < AT_ONCE; k++) {
			pause_us(random() % 500);
			CHECK(kill(pid[k], SIGKILL) == 0);
		}
		for (int k = 0; k < AT_ONCE; k++) {
			int status;
			REQUIRE(waitpid(pid[k], &status, 0) == pid[k]);
			CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
		}
		calls();
	}
}

// stopped children must stop when they are told to, and go on.
static void stopped(int count)
{
	pid_t pid = fork();
	REQUIRE(pid != -1);
	if (pid == 0) {
		pthread_t thread;
		pthread_create(&thread, NULL, calls_for_ever, NULL);
		calls_for_ever(NULL);
	}
	for (int i = 0; i < count; i++) {
		int status;
		pause_us(random() % 3000);
		CHECK(kill(pid, SIGSTOP) == 0);
		REQUIRE(waitpid(pid, &status, WUNTRACED) == pid);
		CHECK(WIFSTOPPED(status) && WSTOPSIG(status) == SIGSTOP);
		REQUIRE(WIFSTOPPED(status));
		CHECK(kill(pid, SIGCONT) == 0);
		REQUIRE(waitpid(pid, &status, WCONTINUED) == pid);
		CHECK(WIFCONTINUED(status));
	}
	CHECK(kill(pid, SIGKILL) == 0);
	int status;
	REQUIRE(waitpid(pid, &status, 0) == pid);
	CHECK(WIFSIGNALED(status));
}

static void *calls_and_exits(void *unused)
{
	calls();
	return unused;
}

static void threads(int count)
{
	for (int i = 0; i < count; i++) {
		pthread_t t[8];
		for (int k = 0; k < 8; k++)
			REQUIRE(pthread_create(&t[k], NULL, calls_and_exits, NULL) == 0);
		calls();
		for (int k = 0; k < 8; k++)
			REQUIRE(pthread_join(t[k], NULL) == 0);
	}
}

// exiting processes end with their own status while other threads make calls.
static void exiting(int count)
{
	for (int i = 0; i < count; i++) {
		pid_t pid = fork();
		REQUIRE(pid != -1);
		if (pid == 0) {
			pthread_t thread;
			for (int k = 0; k < 4; k++)
				pthread_create(&thread, NULL, calls_for_ever, NULL);
			pause_us(random() % 3000);
			_exit(42 + done());
		}
		int status;
		REQUIRE(waitpid(pid, &status, 0) == pid);
		CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 42);
	}
}

int main(int argc, char **argv)
{
	if (argc > 1 && strcmp(argv[1], "for ever") == 0)
		calls_for_ever(NULL);
	signal(SIGALRM, SIG_DFL);
	srandom(getpid());
	calls();
	killed(500);
	stopped(100);
	threads(30);
	exiting(50);
	return done();
}

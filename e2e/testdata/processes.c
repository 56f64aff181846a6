// Every way to make a process and to become another program. The program runs
// itself again with a number as its argument: it then looks at its descriptors.
#include "check.h"
#include <pthread.h>
#include <sched.h>
#include <spawn.h>
#include <sys/prctl.h>

extern char **environ;
static char self[512];

// look is what a new program finds: with keep, that descriptor must be there;
// everything else from 3 up must not be, if descriptors are close-on-exec.
static int look(int keep)
{
	for (int fd = 3; fd < 1024; fd++) {
		int open_ = fcntl(fd, F_GETFD) != -1;
		if (fd == keep)
			CHECK(open_);
		else if (expected("cloexec"))
			CHECK(!open_);
	}
	// And it is served itself.
	int fd = open("/dev/null", O_RDONLY);
	CHECK(fd > 2);
	CHECK(!is_cloexec(fd) == !expected("cloexec"));
	return done();
}

static void no_flags_here(void)
{
	for (int i = 0; i < 3; i++) {
		int fd = open("/dev/null", O_RDONLY), p[2];
		CHECK(fd > 2);
		CHECK(!is_cloexec(fd) == !expected("cloexec"));
		CHECK(pipe(p) == 0);
		CHECK(!is_cloexec(p[0]) == !expected("cloexec"));
		CHECK(!is_cloexec(p[1]) == !expected("cloexec"));
		close(p[0]);
		close(p[1]);
		close(fd);
	}
}

static void await(pid_t pid)
{
	int status = -1;
	CHECK(pid > 0);
	CHECK(waitpid(pid, &status, 0) == pid);
	if (status != 0)
		dprintf(2, "child: wait status %#x\n", status);
	CHECK(status == 0);
}

static void become(const char *keep)
{
	char *argv[] = {self, (char *)keep, NULL};
	execv(self, argv);
	failed(__FILE__, __LINE__, "execv");
	_exit(1);
}

static void forks(void)
{
	CHECK(succeeds(no_flags_here));
	int fd = open("/dev/null", O_RDONLY);
	fflush(NULL);
	pid_t pid = fork();
	if (pid == 0)
		become("-1");
	await(pid);
	pid = fork();
	if (pid == 0) {
		dup2(fd, 9);
		become("9");
	}
	await(pid);
	close(fd);
}

static void vforks(void)
{
	int fd = open("/dev/null", O_RDONLY);
	char *argv[] = {self, "-1", NULL};
	for (int i = 0; i < 3; i++) {
		pid_t pid = vfork();
		if (pid == 0) {
			int mine = open("/dev/null", O_RDONLY); // in the parent's memory
			if (mine < 3)
				_exit(9);
			execv(self, argv);
			_exit(8);
		}
		await(pid);
	}
	close(fd);
}

static void spawns(void)
{
	char *argv[] = {self, "-1", NULL}, *keeps[] = {self, "7", NULL};
	int fd = open("/dev/null", O_RDONLY);
	for (int i = 0; i < 2; i++) {
		pid_t pid;
		CHECK(posix_spawn(&pid, self, NULL, NULL, argv, environ) == 0);
		await(pid);
		posix_spawn_file_actions_t actions;
		posix_spawn_file_actions_init(&actions);
		posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
		posix_spawn_file_actions_addopen(&actions, 8, "/dev/null", O_WRONLY, 0);
		posix_spawn_file_actions_adddup2(&actions, 8, 7);
		posix_spawn_file_actions_addclose(&actions, 8);
		CHECK(posix_spawn(&pid, self, &actions, NULL, keeps, environ) == 0);
		await(pid);
		posix_spawn_file_actions_destroy(&actions);
	}
	close(fd);
}

static int in_clone(void *unused)
{
	(void)unused;
	no_flags_here();
	int fd = open("/dev/null", O_RDONLY);
	CHECK(fcntl(fd, F_DUPFD, 60) >= 60);
	close(fd);
	return 0;
}

static void clones(void)
{
	static char stack[256 << 10] __attribute__((aligned(16)));
	int ways[] = {0, CLONE_FILES, CLONE_VM, CLONE_VM | CLONE_FILES, CLONE_VM | CLONE_FILES | CLONE_FS | CLONE_VFORK};
	for (int i = 0; i < 5; i++) {
		if (ways[i] & CLONE_FILES)
			CHECK(expected("nonseq") || fcntl(60, F_GETFD) == -1);
		await(clone(in_clone, stack + sizeof stack, ways[i] | SIGCHLD, NULL));
		if ((ways[i] & CLONE_FILES) && !expected("nonseq")) {
			CHECK(fcntl(60, F_GETFD) != -1);
			CHECK(!is_cloexec(60) == !expected("cloexec"));
			close(60);
		}
	}
}

static int stop;

static void *makes_calls(void *unused)
{
	while (!__atomic_load_n(&stop, __ATOMIC_RELAXED)) {
		int fd = open("/dev/null", O_RDONLY), p[2];
		CHECK(fd > 2);
		CHECK(!is_cloexec(fd) == !expected("cloexec"));
		CHECK(pipe(p) == 0);
		close(p[0]);
		close(p[1]);
		close(fd);
	}
	return unused;
}

static void *execs(void *unused)
{
	struct timespec t = {0, 3000000};
	nanosleep(&t, NULL);
	become("-1");
	return unused;
}

// exec_from_thread replaces the program from a thread that is not the first,
// while others are in calls.
static void exec_from_thread(void)
{
	for (int i = 0; i < 10; i++) {
		fflush(NULL);
		pid_t pid = fork();
		if (pid == 0) {
			pthread_t thread;
			for (int k = 0; k < 4; k++)
				pthread_create(&thread, NULL, makes_calls, NULL);
			pthread_create(&thread, NULL, execs, NULL);
			makes_calls(NULL);
		}
		await(pid);
	}
}

static void fork_from_threads(void)
{
	pthread_t threads[4];
	for (int k = 0; k < 4; k++)
		REQUIRE(pthread_create(&threads[k], NULL, makes_calls, NULL) == 0);
	for (int i = 0; i < 30; i++) {
		fflush(NULL);
		pid_t pid = fork();
		if (pid == 0)
			become("-1");
		await(pid);
	}
	stop = 1;
	for (int k = 0; k < 4; k++)
		pthread_join(threads[k], NULL);
	stop = 0;
}

// orphan is a child whose parent has died.
static void orphan(void)
{
	int report[2];
	REQUIRE(pipe(report) == 0);
	fflush(NULL);
	pid_t pid = fork();
	if (pid == 0) {
		pid_t middle = getpid();
		if (fork() != 0)
			_exit(0);
		while (getppid() == middle)
			sched_yield();
		no_flags_here();
		char ok = !done();
		if (write(report[1], &ok, 1) != 1)
			_exit(1);
		_exit(0);
	}
	await(pid);
	close(report[1]);
	char ok = 0;
	CHECK(read(report[0], &ok, 1) == 1 && ok);
	close(report[0]);
}

int main(int argc, char **argv)
{
	if (argc > 1)
		return look(atoi(argv[1]));
	REQUIRE(readlink("/proc/self/exe", self, sizeof self - 1) > 0);
	for (int fd = 3; fd < 1024; fd++)
		close(fd); // what our starter let us inherit
	no_flags_here();
	const struct {
		const char *name;
		void (*run)(void);
	} parts[] = {
		{"forks", forks}, {"vforks", vforks}, {"spawns", spawns}, {"clones", clones},
		{"fork from threads", fork_from_threads}, {"exec from thread", exec_from_thread}, {"orphan", orphan},
	};
	for (unsigned i = 0; i < sizeof parts / sizeof parts[0]; i++) {
		dprintf(2, "%s\n", parts[i].name); // where it hangs, if it does
		parts[i].run();
	}
	return done();
}

// Traces its child, which makes flagless calls, in the manner of strace: the
// tracer sees the calls that the child makes, and its stops are its own.
#include "check.h"
#include <sys/ptrace.h>

static int child(void)
{
	ptrace(PTRACE_TRACEME, 0, NULL, NULL);
	raise(SIGSTOP);
	for (int i = 0; i < 5; i++) {
		int fd = open("/dev/null", O_RDONLY), p[2];
		if (fd < 3 || pipe(p) != 0)
			return 1;
		close(p[0]);
		close(p[1]);
		close(fd);
	}
	return 7;
}

int main(int argc, char **argv)
{
	int by_calls = argc > 1; // stop at system calls
	pid_t pid = fork();
	REQUIRE(pid != -1);
	if (pid == 0)
		_exit(child());
	int status, stops = 0;
	REQUIRE(waitpid(pid, &status, 0) == pid);
	REQUIRE(WIFSTOPPED(status) && WSTOPSIG(status) == SIGSTOP);
	REQUIRE(ptrace(PTRACE_SETOPTIONS, pid, NULL, (void *)PTRACE_O_TRACESYSGOOD) == 0);
	for (;;) {
		REQUIRE(ptrace(by_calls ? PTRACE_SYSCALL : PTRACE_CONT, pid, NULL, NULL) == 0);
		REQUIRE(waitpid(pid, &status, 0) == pid);
		if (!WIFSTOPPED(status))
			break;
		CHECK(by_calls && WSTOPSIG(status) == (SIGTRAP | 0x80));
		stops++;
	}
	CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 7);
	// Five rounds of five calls, an entry and an exit each, and exit_group.
	CHECK(!by_calls || stops >= 51);
	// The tracer itself is served.
	int fd = open("/dev/null", O_RDONLY);
	CHECK(!is_cloexec(fd) == !expected("cloexec"));
	return done();
}

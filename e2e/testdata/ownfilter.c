// A program with a seccomp filter of its own. The argument: "errno" refuses
// one call, "list" allows only what it lists, "kill" kills for anything else,
// "strict" is the strict mode, in a child process.
#include "check.h"
#include <stddef.h>
#include <sys/prctl.h>

struct instruction {
	uint16_t code;
	uint8_t jt, jf;
	uint32_t k;
};
struct program {
	unsigned short length;
	struct instruction *code;
};
enum { LOAD = 0x20, EQUAL = 0x15, RETURN = 0x06 };
#define ALLOW 0x7fff0000u
#define ERRNO 0x00050000u
#define KILL_PROCESS 0x80000000u
#define SECCOMP 22 // PR_SET_SECCOMP

static void install(struct instruction *code, int length)
{
	struct program p = {length, code};
	REQUIRE(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
	REQUIRE(prctl(SECCOMP, 2, &p) == 0);
}

static void calls(void)
{
	for (int i = 0; i < 3; i++) {
		int p[2], fd = open("/dev/null", O_RDONLY);
		CHECK(fd > 2);
		CHECK(!is_cloexec(fd) == !expected("cloexec"));
		CHECK(pipe(p) == 0);
		CHECK(!is_cloexec(p[0]) == !expected("cloexec"));
		int d = dup(fd);
		CHECK(d > 2);
		CHECK(!is_cloexec(d) == !expected("cloexec"));
		CHECK(close(d) == 0 && close(p[0]) == 0 && close(p[1]) == 0 && close(fd) == 0);
	}
}

static void refuses_one(void)
{
	calls();
	struct instruction code[] = {
		{LOAD, 0, 0, 0},
		{EQUAL, 0, 1, SYS_socket},
		{RETURN, 0, 0, ERRNO | EPROTONOSUPPORT},
		{EQUAL, 0, 1, SYS_getppid},
		{RETURN, 0, 0, ERRNO | ENOTTY},
		{RETURN, 0, 0, ALLOW},
	};
	install(code, sizeof code / sizeof code[0]);
	calls();
	for (int i = 0; i < 3; i++) {
		CHECK(socket(AF_UNIX, SOCK_STREAM, 0) == -1 && errno == EPROTONOSUPPORT);
		CHECK(syscall(SYS_getppid) == -1 && errno == ENOTTY);
	}
	CHECK(succeeds(calls));
}

// A list made for this program alone: it does not know what we add.
static void allows_listed(unsigned otherwise)
{
	static const int listed[] = {
#ifdef SYS_open
		SYS_open, SYS_pipe,
#endif
		SYS_openat, SYS_pipe2, SYS_dup, SYS_fcntl, SYS_close, SYS_write, SYS_exit_group, SYS_exit,
		SYS_fstat, SYS_rt_sigreturn, SYS_restart_syscall,
	};
	enum { N = sizeof listed / sizeof listed[0] };
	struct instruction code[2 * N + 2] = {{LOAD, 0, 0, 0}};
	for (int i = 0; i < N; i++) {
		code[1 + 2 * i] = (struct instruction){EQUAL, 0, 1, listed[i]};
		code[2 + 2 * i] = (struct instruction){RETURN, 0, 0, ALLOW};
	}
	code[2 * N + 1] = (struct instruction){RETURN, 0, 0, otherwise};
	if (getenv("WARM"))
		calls();
	install(code, 2 * N + 2);
	calls();
}

static void strict(void)
{
	int fd = open("/dev/null", O_RDONLY);
	CHECK(!is_cloexec(fd) == !expected("cloexec"));
	fflush(NULL);
	pid_t pid = fork();
	if (pid == 0) {
		// The kernel has no way from a filter, as one has under indirect run,
		// to the strict mode (kernel/seccomp.c's seccomp_may_assign_mode).
		if (prctl(SECCOMP, 1) == -1)
			syscall(SYS_exit, errno == EINVAL ? 22 : 2);
		char c;
		if (read(fd, &c, 1) != 0)
			syscall(SYS_exit, 3);
		open("/dev/null", O_RDONLY);
		syscall(SYS_exit, 4);
	}
	int status;
	REQUIRE(waitpid(pid, &status, 0) == pid);
	if (expected("cloexec"))
		CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 22);
	else
		CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
}

int main(int argc, char **argv)
{
	REQUIRE(argc == 2);
	if (strcmp(argv[1], "errno") == 0)
		refuses_one();
	else if (strcmp(argv[1], "list") == 0)
		allows_listed(ERRNO | EPERM);
	else if (strcmp(argv[1], "kill") == 0)
		allows_listed(KILL_PROCESS);
	else
		strict();
	return done();
}

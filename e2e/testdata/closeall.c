// Closes every descriptor from 3 up, in two ways, and goes on.
#include "check.h"

#ifndef SYS_close_range
#define SYS_close_range 436
#endif

static void calls(void)
{
	int p[2], fd = open("/dev/null", O_RDONLY);
	CHECK(fd > 2 && (expected("nonseq") || fd == 3));
	CHECK(!is_cloexec(fd) == !expected("cloexec"));
	CHECK(pipe(p) == 0);
	CHECK(!is_cloexec(p[0]) == !expected("cloexec"));
	CHECK(!is_cloexec(p[1]) == !expected("cloexec"));
	int s = socket(AF_UNIX, SOCK_STREAM, 0);
	CHECK(s > 2);
	CHECK(!is_cloexec(s) == !expected("cloexec"));
}

int main(void)
{
	calls();
	for (int i = 0; i < 3; i++) {
		REQUIRE(syscall(SYS_close_range, 3, ~0U, 0) == 0);
		calls();
		struct rlimit limit;
		REQUIRE(getrlimit(RLIMIT_NOFILE, &limit) == 0);
		for (int fd = 3; fd < (int)limit.rlim_cur && fd < 70000; fd++)
			close(fd);
		calls();
	}
	// Nothing of ours was among them.
	REQUIRE(syscall(SYS_close_range, 3, ~0U, 0) == 0);
	for (int fd = 3; fd < 70000; fd++)
		CHECK(fcntl(fd, F_GETFD) == -1);
	return done();
}

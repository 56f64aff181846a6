// On an older kernel, descriptors get flags by calls that the program itself
// does not have. All calls are made from one place.
#include "check.h"
#include <sys/eventfd.h>

static void fresh(long fd)
{
	CHECK(fd > 2);
	CHECK(!expected("cloexec") == !is_cloexec(fd));
	close(fd);
}

int main(void)
{
	for (int i = 0; i < 5; i++) {
		int pair[2];
		fresh(syscall(SYS_open, "/dev/null", O_RDONLY));
		CHECK(syscall(SYS_pipe, pair) == 0);
		fresh(pair[0]);
		fresh(pair[1]);
		fresh(syscall(SYS_dup, 1));
		fresh(syscall(SYS_socket, AF_UNIX, SOCK_STREAM, 0));
		fresh(syscall(SYS_eventfd, 0));
		fresh(syscall(SYS_fcntl, 1, F_DUPFD, 3));
#ifdef __i386__
		unsigned long block[] = {AF_UNIX, SOCK_STREAM, 0};
		fresh(syscall(SYS_socketcall, 1, block));
		CHECK(syscall(SYS_statx, AT_FDCWD, ".", 0, 0, NULL) == -1 && errno == ENOSYS);
#else
		CHECK(syscall(SYS_pipe2, pair, 0) == -1 && errno == ENOSYS);
		CHECK(syscall(SYS_eventfd2, 0, O_CLOEXEC) == -1 && errno == ENOSYS);
		CHECK(syscall(SYS_socket, AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0) == -1 && errno == EINVAL);
#endif
	}
	return done();
}

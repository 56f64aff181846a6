// Prints what the kernel says to calls and flags of different age.
#include "check.h"
#include <pthread.h>
#include <sys/utsname.h>

#ifndef SYS_openat2
#define SYS_openat2 437
#endif
#ifndef SYS_statx
#error "these headers are older than Linux 4.11"
#endif

static const char *said(long result)
{
	if (result >= 0)
		return "ok";
	switch (errno) {
	case ENOSYS: return "ENOSYS";
	case EINVAL: return "EINVAL";
	case EBADF: return "EBADF";
	case EPERM: return "EPERM";
	case EFAULT: return "EFAULT";
	}
	return strerror(errno);
}

static const char *flagged(long fd)
{
	if (fd < 0)
		return said(fd);
	const char *s = is_cloexec(fd) ? "cloexec" : "plain";
	close(fd);
	return s;
}

static const char *received(void)
{
	int pair[2], fd = -1;
	char byte = 0;
	union {
		struct cmsghdr header;
		char room[CMSG_SPACE(sizeof fd)];
	} control = {.header = {.cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS, .cmsg_len = CMSG_LEN(sizeof fd)}};
	struct iovec iov = {&byte, 1};
	struct msghdr message = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
	REQUIRE(socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0);
	memcpy(CMSG_DATA(&control.header), &pair[0], sizeof fd);
	REQUIRE(sendmsg(pair[0], &message, 0) == 1);
	memset(&control, 0, sizeof control);
	message.msg_controllen = sizeof control;
	REQUIRE(syscall(SYS_recvmsg, pair[1], &message, MSG_CMSG_CLOEXEC) == 1);
	memcpy(&fd, CMSG_DATA(&control.header), sizeof fd);
	close(pair[0]);
	close(pair[1]);
	return flagged(fd);
}

static void *ask(void *thread)
{
	int pair[2];
	long fd = syscall(SYS_open, ".", O_PATH);
	printf("%sopen O_PATH: %s\n", (char *)thread, fd < 0 ? said(fd) : syscall(SYS_fcntl, fd, F_GETFL) & O_PATH ? "path" : "plain");
	close(fd);
	printf("%sopen O_CLOEXEC: %s\n", (char *)thread, flagged(syscall(SYS_open, "/dev/null", O_CLOEXEC)));
	printf("%sopenat O_CLOEXEC: %s\n", (char *)thread, flagged(syscall(SYS_openat, AT_FDCWD, "/dev/null", O_CLOEXEC)));
	printf("%sopenat2: %s\n", (char *)thread, said(syscall(SYS_openat2, AT_FDCWD, ".", NULL, 0)));
	printf("%sfcntl F_DUPFD_CLOEXEC: %s\n", (char *)thread, flagged(syscall(SYS_fcntl, 0, F_DUPFD_CLOEXEC, 0)));
	printf("%spipe2: %s\n", (char *)thread, said(syscall(SYS_pipe2, pair, 0)));
	printf("%saccept4: %s\n", (char *)thread, said(syscall(SYS_accept4, -1, NULL, NULL, 0)));
	printf("%sstatx: %s\n", (char *)thread, said(syscall(SYS_statx, AT_FDCWD, (void *)16, 0, 0, NULL)));
	printf("%sunknown: %s\n", (char *)thread, said(syscall(500)));
	return NULL;
}

#ifdef __i386__
static long socket_by_call(long type)
{
	unsigned long block[] = {AF_UNIX, type, 0};
	return syscall(SYS_socketcall, 1, block);
}
#endif

int main(void)
{
	struct utsname name;
	REQUIRE(uname(&name) == 0);
	printf("uname: %s\n", name.release);
	REQUIRE(strcmp(name.sysname, "Linux") == 0 && name.machine[0]);
	printf("uname of nothing: %s\n", said(syscall(SYS_uname, (void *)16)));
	ask("");
	pthread_t t;
	REQUIRE(pthread_create(&t, NULL, ask, "thread: ") == 0);
	REQUIRE(pthread_join(t, NULL) == 0);
#ifdef __i386__
	printf("socketcall: %s\n", flagged(socket_by_call(SOCK_STREAM)));
	printf("socketcall SOCK_CLOEXEC: %s\n", flagged(socket_by_call(SOCK_STREAM | SOCK_CLOEXEC)));
	printf("socket: %s\n", said(syscall(SYS_socket, AF_UNIX, SOCK_STREAM, 0)));
	char old[5 * 65], oldest[5 * 9];
	REQUIRE(syscall(SYS_olduname, old) == 0 && syscall(SYS_oldolduname, oldest) == 0);
	REQUIRE(strcmp(old + 2 * 65, name.release) == 0);
	REQUIRE(strncmp(oldest + 2 * 9, name.release, 8) == 0);
#else
	printf("socket: %s\n", said(syscall(SYS_socket, AF_UNIX, SOCK_STREAM, 0)));
	printf("socket SOCK_CLOEXEC: %s\n", flagged(syscall(SYS_socket, AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)));
	printf("recvmsg MSG_CMSG_CLOEXEC: %s\n", received());
#endif
	fflush(stdout);
	return done();
}

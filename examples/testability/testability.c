/*
 * A program that works on every kernel, and tells which way it takes there:
 * how it opens, copies and makes descriptors that are close-on-exec, and
 * which kernel it therefore seems to be on.
 *
 *     cc -I../../include testability.c -o testability
 *     for kernel in 2.6.22 2.6.26 2.6.27 6.1; do
 *             indirect run --add none --kernel $kernel -- ./testability
 *     done
 *
 * indirect.h has the pattern: #ifdef at build time, one call at run time, the
 * slow path last.
 */
#include <indirect.h>
#include <stdio.h>
#include <string.h>
#include <sys/un.h>

static int accept_one(int flags)
{
	struct sockaddr_un address;
	socklen_t length = sizeof(sa_family_t);
	int listener, client, accepted = -1;
	memset(&address, 0, sizeof address);
	address.sun_family = AF_UNIX;
	listener = indirect_socket(AF_UNIX, SOCK_STREAM, 0, O_CLOEXEC);
	client = indirect_socket(AF_UNIX, SOCK_STREAM, 0, O_CLOEXEC);
	if (bind(listener, (struct sockaddr *)&address, length) == 0 && listen(listener, 1) == 0) {
		length = sizeof address; /* the kernel has chosen an address */
		if (getsockname(listener, (struct sockaddr *)&address, &length) == 0 &&
		    connect(client, (struct sockaddr *)&address, length) == 0)
			accepted = indirect_accept(listener, NULL, NULL, flags);
	}
	close(client);
	close(listener);
	return accepted;
}

static int failed;

static void tell(const char *what, enum indirect_kind kind, int fd)
{
	if (fd == -1 || !(fcntl(fd, F_GETFD) & FD_CLOEXEC)) {
		printf("%s: %s\n", what, fd == -1 ? strerror(errno) : "not close-on-exec");
		failed = 1;
		return;
	}
	printf("%s: %s\n", what, indirect_rung_name(indirect_rung(kind, O_CLOEXEC)));
	close(fd);
}

static int native(enum indirect_kind kind)
{
	return indirect_rung(kind, O_CLOEXEC) == INDIRECT_RUNG_NATIVE;
}

int main(void)
{
	int fds[2] = {-1, -1};
	tell("open", INDIRECT_OPEN, indirect_open("/dev/null", O_RDONLY | O_CLOEXEC, 0));
	tell("dup", INDIRECT_DUP, indirect_dup(0, O_CLOEXEC));
	tell("socket", INDIRECT_SOCKET, indirect_socket(AF_UNIX, SOCK_STREAM, 0, O_CLOEXEC));
	tell("pipe", INDIRECT_PIPE, indirect_pipe(fds, O_CLOEXEC) == 0 ? fds[0] : -1);
	close(fds[1]);
	tell("accept", INDIRECT_ACCEPT, accept_one(O_CLOEXEC));
	if (native(INDIRECT_ACCEPT))
		puts("path: every call has its flag (Linux 2.6.28 and newer)");
	else if (native(INDIRECT_PIPE) && native(INDIRECT_SOCKET))
		puts("path: all but accept (Linux 2.6.27)");
	else if (native(INDIRECT_OPEN) && native(INDIRECT_DUP))
		puts("path: files only (Linux 2.6.24 to 2.6.26)");
	else
		puts("path: no flags at all (before Linux 2.6.23)");
	return failed;
}

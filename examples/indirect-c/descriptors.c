/*
 * Creates a descriptor of each kind with each set of properties, and prints by
 * which way it got them: native, indirect or fcntl (see indirect.h).
 *
 *     cc -I../../include descriptors.c -o descriptors
 *     ./descriptors
 *     indirect run --add none -- ./descriptors
 *     indirect run --add none --kernel 2.6.26 -- ./descriptors
 *
 * It exits with status 1 if a descriptor lacks what it was created with.
 */
#include <indirect.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

static int listener = -1, exit_status;

static int make_open(int flags, int fds[2])
{
	return fds[0] = indirect_open("/dev/null", O_RDWR | flags, 0);
}

static int make_creat(int flags, int fds[2])
{
	return fds[0] = indirect_creat("/dev/null", 0600, flags);
}

static int make_pipe(int flags, int fds[2]) { return indirect_pipe(fds, flags); }
static int make_dup(int flags, int fds[2]) { return fds[0] = indirect_dup(1, flags); }
static int make_nonseqfd(int flags, int fds[2]) { return fds[0] = nonseqfd(1, flags & ~O_NONSEQFD); }

static int make_socket(int flags, int fds[2])
{
	return fds[0] = indirect_socket(AF_UNIX, SOCK_STREAM, 0, flags);
}

static int make_socketpair(int flags, int fds[2])
{
	return indirect_socketpair(AF_UNIX, SOCK_STREAM, 0, fds, flags);
}

/* Connects to a socket of ours, whose address the kernel has chosen. */
static int connection(void)
{
	struct sockaddr_un address;
	socklen_t length = sizeof(sa_family_t);
	int client = indirect_socket(AF_UNIX, SOCK_STREAM, 0, O_CLOEXEC);
	if (listener == -1) {
		listener = indirect_socket(AF_UNIX, SOCK_STREAM, 0, O_CLOEXEC);
		memset(&address, 0, sizeof address);
		address.sun_family = AF_UNIX;
		if (bind(listener, (struct sockaddr *)&address, length) != 0 || listen(listener, 8) != 0)
			perror("listen");
	}
	length = sizeof address;
	getsockname(listener, (struct sockaddr *)&address, &length);
	if (connect(client, (struct sockaddr *)&address, length) != 0)
		perror("connect");
	return client;
}

static int make_accept(int flags, int fds[2])
{
	int client = connection();
	fds[0] = indirect_accept(listener, NULL, NULL, flags);
	close(client);
	return fds[0];
}

static int make_paccept(int flags, int fds[2])
{
	int client = connection();
	sigset_t none;
	memset(&none, 0, sizeof none);
	fds[0] = paccept(listener, NULL, NULL, &none, flags);
	close(client);
	return fds[0];
}

static int make_epoll(int flags, int fds[2]) { return fds[0] = indirect_epoll_create(1, flags); }
static int make_inotify(int flags, int fds[2]) { return fds[0] = indirect_inotify_init(flags); }
static int make_eventfd(int flags, int fds[2]) { return fds[0] = indirect_eventfd(0, flags); }

static int make_signalfd(int flags, int fds[2])
{
	sigset_t none;
	memset(&none, 0, sizeof none);
	return fds[0] = indirect_signalfd(-1, &none, flags);
}

static int make_timerfd(int flags, int fds[2])
{
	const int monotonic = 1;
	return fds[0] = indirect_timerfd_create(monotonic, flags);
}

static int make_memfd(int flags, int fds[2]) { return fds[0] = indirect_memfd_create("example", 0, flags); }

static const struct {
	const char *name;
	enum indirect_kind kind;
	int (*make)(int flags, int fds[2]);
	int accepts, gives; /* properties: those that can be asked for, and those that are always there */
} all[] = {
	{"open", INDIRECT_OPEN, make_open, O_CLOEXEC | O_NONBLOCK | O_NONSEQFD, 0},
	{"creat", INDIRECT_OPEN, make_creat, O_CLOEXEC | O_NONBLOCK | O_NONSEQFD, 0},
	{"pipe", INDIRECT_PIPE, make_pipe, O_CLOEXEC | O_NONBLOCK | O_NONSEQFD, 0},
	{"dup", INDIRECT_DUP, make_dup, O_CLOEXEC | O_NONSEQFD, 0},
	{"nonseqfd", INDIRECT_DUP, make_nonseqfd, O_CLOEXEC, O_NONSEQFD},
	{"socket", INDIRECT_SOCKET, make_socket, O_CLOEXEC | O_NONBLOCK | O_NONSEQFD, 0},
	{"socketpair", INDIRECT_SOCKETPAIR, make_socketpair, O_CLOEXEC | O_NONBLOCK | O_NONSEQFD, 0},
	{"accept", INDIRECT_ACCEPT, make_accept, O_CLOEXEC | O_NONBLOCK | O_NONSEQFD, 0},
	{"paccept", INDIRECT_PACCEPT, make_paccept, O_CLOEXEC | O_NONBLOCK | O_NONSEQFD, 0},
	{"epoll", INDIRECT_EPOLL, make_epoll, O_CLOEXEC | O_NONSEQFD, 0},
	{"inotify", INDIRECT_INOTIFY, make_inotify, O_CLOEXEC | O_NONBLOCK | O_NONSEQFD, 0},
	{"eventfd", INDIRECT_EVENTFD, make_eventfd, O_CLOEXEC | O_NONBLOCK | O_NONSEQFD, 0},
	{"signalfd", INDIRECT_SIGNALFD, make_signalfd, O_CLOEXEC | O_NONBLOCK | O_NONSEQFD, 0},
	{"timerfd", INDIRECT_TIMERFD, make_timerfd, O_CLOEXEC | O_NONBLOCK | O_NONSEQFD, 0},
	{"memfd", INDIRECT_MEMFD, make_memfd, O_CLOEXEC | O_NONSEQFD, 0}
};

static int lowest_free(void)
{
	int fd = 0;
	while (fcntl(fd, F_GETFD) != -1)
		fd++;
	return fd;
}

/* Under "indirect run --add ..." a descriptor may have more than it asks for. */
static void check(const char *name, int fd, int lowest, int flags)
{
	int missing = flags;
	if (fcntl(fd, F_GETFD) & FD_CLOEXEC)
		missing &= ~O_CLOEXEC;
	if (fcntl(fd, F_GETFL) & O_NONBLOCK)
		missing &= ~O_NONBLOCK;
	if (fd != lowest)
		missing &= ~O_NONSEQFD;
	if (missing == 0)
		return;
	printf("%s: descriptor %d lacks %#x of %#x\n", name, fd, (unsigned)missing, (unsigned)flags);
	exit_status = 1;
}

int main(void)
{
	static const int sets[] = {0, O_CLOEXEC, O_NONBLOCK, O_NONBLOCK | O_CLOEXEC, O_NONSEQFD, O_NONSEQFD | O_CLOEXEC,
				   O_NONSEQFD | O_NONBLOCK, O_NONSEQFD | O_NONBLOCK | O_CLOEXEC};
	unsigned i, j;
	printf("indirect(2): %s\n", indirect_available() ? "yes" : "no");
	for (i = 0; i < sizeof all / sizeof *all; i++)
		for (j = 0; j < sizeof sets / sizeof *sets; j++) {
			int fds[2] = {-1, -1}, flags = sets[j] | all[i].gives, lowest = lowest_free();
			if (sets[j] & ~all[i].accepts)
				continue;
			printf("%s%s%s%s: ", all[i].name, flags & O_CLOEXEC ? " cloexec" : "",
			       flags & O_NONBLOCK ? " nonblock" : "", flags & O_NONSEQFD ? " nonseq" : "");
			if (all[i].make(sets[j], fds) < 0) {
				puts(strerror(errno));
				if (errno != ENOSYS) /* this kernel has none */
					exit_status = 1;
				continue;
			}
			puts(indirect_rung_name(indirect_rung(all[i].kind, flags)));
			check(all[i].name, fds[0], lowest, flags);
			close(fds[0]);
			if (fds[1] != -1) {
				check(all[i].name, fds[1], lowest, flags);
				close(fds[1]);
			}
		}
	return exit_status;
}

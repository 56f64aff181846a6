// Makes every descriptor-creating call, through the C library and directly,
// without flags and with them.
#include "check.h"
#include <dirent.h>
#include <poll.h>
#include <pty.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/signalfd.h>
#include <sys/timerfd.h>

#ifndef SYS_openat2
#define SYS_openat2 437
#endif
#ifndef SYS_pidfd_open
#define SYS_pidfd_open 434
#endif
#ifndef TIOCGPTPEER
#define TIOCGPTPEER 0x5441
#endif

struct how {
	uint64_t flags, mode, resolve;
};

static char path[64];

static void files(void)
{
	BORN(0, open("/dev/null", O_RDWR));
	BORN(ASKED_CLOEXEC, open("/dev/null", O_RDWR | O_CLOEXEC));
	BORN(ASKED_NONBLOCK, open("/dev/null", O_RDONLY | O_NONBLOCK));
	BORN(ASKED_CLOEXEC | ASKED_NONBLOCK, open("/dev/null", O_RDONLY | O_NONBLOCK | O_CLOEXEC));
	BORN(NO_NONBLOCK, open("/", O_PATH));
	BORN(0, open("/", O_DIRECTORY));
	BORN(0, open(path, O_CREAT | O_EXCL | O_RDWR | O_APPEND, 0640));
	struct stat st;
	CHECK(stat(path, &st) == 0 && (st.st_mode & 0777) == 0640);
	BORN(0, openat(AT_FDCWD, "/dev/null", O_WRONLY));
	BORN(ASKED_CLOEXEC, openat(AT_FDCWD, "/dev/null", O_WRONLY | O_CLOEXEC));
	int dir = open("/dev", O_PATH);
	BORN(0, openat(dir, "null", O_WRONLY));
	close(dir);
	unlink(path);
	BORN(0, creat(path, 0604));
	CHECK(stat(path, &st) == 0 && (st.st_mode & 0777) == 0604);
	unlink(path);
	BORN(0, syscall(SYS_openat, AT_FDCWD, "/dev/null", O_RDONLY));
#ifdef SYS_open
	BORN(0, syscall(SYS_open, "/dev/null", O_RDONLY));
	BORN(ASKED_CLOEXEC, syscall(SYS_open, "/dev/null", O_RDONLY | O_CLOEXEC));
	BORN(0, syscall(SYS_creat, path, 0600));
	unlink(path);
#endif
	struct how how = {.flags = O_RDWR}, pathonly = {.flags = O_PATH}, asked = {.flags = O_RDWR | O_CLOEXEC};
	BORN(0, syscall(SYS_openat2, AT_FDCWD, "/dev/null", &how, sizeof how));
	BORN(NO_NONBLOCK, syscall(SYS_openat2, AT_FDCWD, "/", &pathonly, sizeof how));
	BORN(ASKED_CLOEXEC, syscall(SYS_openat2, AT_FDCWD, "/dev/null", &asked, sizeof how));
	CHECK(how.flags == O_RDWR && how.mode == 0 && how.resolve == 0);

	int low = lowest_free();
	FILE *f = fopen("/dev/null", "r");
	REQUIRE(f != NULL);
	born(__FILE__, __LINE__, "fopen", low, fileno(f), 0);
	fclose(f);
	f = fopen("/dev/null", "re");
	REQUIRE(f != NULL);
	born(__FILE__, __LINE__, "fopen e", low, fileno(f), ASKED_CLOEXEC);
	fclose(f);
	DIR *d = opendir("/");
	REQUIRE(d != NULL);
	CHECK(is_cloexec(dirfd(d)));
	int entries = 0;
	while (readdir(d) != NULL)
		entries++;
	CHECK(entries > 2);
	closedir(d);
	char name[] = "/tmp/indirect-e2e-XXXXXX";
	BORN(0, mkstemp(name));
	unlink(name);
	char again[] = "/tmp/indirect-e2e-XXXXXX";
	BORN(ASKED_CLOEXEC, mkostemp(again, O_CLOEXEC));
	unlink(again);
	low = lowest_free();
	f = tmpfile();
	REQUIRE(f != NULL);
	born(__FILE__, __LINE__, "tmpfile", low, fileno(f), 0);
	fclose(f);
	low = lowest_free();
	f = popen("exit 3", "r");
	REQUIRE(f != NULL);
	CHECK(!is_cloexec(fileno(f))); // the C library clears the flag itself
	int status = pclose(f);
	CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 3);
	MAYBE(0, posix_openpt(O_RDWR | O_NOCTTY));
	int terminal = posix_openpt(O_RDWR | O_NOCTTY);
	if (terminal >= 0 && unlockpt(terminal) == 0)
		MAYBE(0, ioctl(terminal, TIOCGPTPEER, O_RDWR | O_NOCTTY));
	close(terminal);
}

static void pair(const char *what, int line, int result, const int low, int p[2], int how)
{
	CHECK(result == 0);
	CHECK(p[0] != p[1]);
	born(__FILE__, line, what, expected("nonseq") ? low : p[0] < p[1] ? low : -2, p[0], how);
	born(__FILE__, line, what, -1, p[1], how);
}

#define PAIR(how, call)                                            \
	do {                                                       \
		int p[3] = {-7, -7, -7}, low_ = lowest_free();     \
		int r_ = (call);                                   \
		pair(#call, __LINE__, r_, low_, p, how);           \
		CHECK(p[2] == -7);                                 \
		CHECK(write(p[1], "a", 1) == 1);                   \
		char c_ = 0;                                       \
		CHECK(read(p[0], &c_, 1) == 1 && c_ == 'a');       \
		close(p[0]);                                       \
		close(p[1]);                                       \
	} while (0)

static void pipes(void)
{
	PAIR(0, pipe(p));
	PAIR(0, pipe2(p, 0));
	PAIR(ASKED_CLOEXEC, pipe2(p, O_CLOEXEC));
	PAIR(ASKED_NONBLOCK, pipe2(p, O_NONBLOCK));
	PAIR(ASKED_NONBLOCK | ASKED_CLOEXEC, pipe2(p, O_NONBLOCK | O_CLOEXEC));
	PAIR(0, socketpair(AF_UNIX, SOCK_STREAM, 0, p));
	PAIR(ASKED_CLOEXEC, socketpair(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0, p));
	PAIR(ASKED_NONBLOCK, socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK, 0, p));
#ifdef SYS_pipe
	PAIR(0, syscall(SYS_pipe, p));
#endif
	PAIR(0, syscall(SYS_pipe2, p, 0));
#ifdef SYS_socketpair
	PAIR(0, syscall(SYS_socketpair, AF_UNIX, SOCK_STREAM, 0, p));
#endif
}

static void duplicates(void)
{
	int fd = open("/dev/null", O_RDWR | O_CLOEXEC);
	BORN(NO_NONBLOCK | (fcntl(fd, F_GETFL) & O_NONBLOCK ? ASKED_NONBLOCK : 0), dup(fd));
	int shared = NO_NONBLOCK | (fcntl(fd, F_GETFL) & O_NONBLOCK ? ASKED_NONBLOCK : 0);
	BORN(shared, fcntl(fd, F_DUPFD, 0));
	BORN(shared | ASKED_CLOEXEC, fcntl(fd, F_DUPFD_CLOEXEC, 0));
	BORN(shared, syscall(SYS_dup, fd));
	BORN(shared, syscall(SYS_fcntl, fd, F_DUPFD, 0));
	int high = fcntl(fd, F_DUPFD, 77);
	CHECK(high >= 77);
	CHECK(expected("nonseq") || high == 77);
	CHECK(!is_cloexec(high) == !expected("cloexec"));
	close(high);
	CHECK(dup2(fd, 50) == 50 && !is_cloexec(50));
	CHECK(dup2(50, 50) == 50 && !is_cloexec(50));
	CHECK(dup2(fd, fd) == fd && is_cloexec(fd));
	CHECK(dup3(fd, 50, 0) == 50 && !is_cloexec(50));
	CHECK(dup3(fd, 50, O_CLOEXEC) == 50 && is_cloexec(50));
	CHECK(dup2(fd, 50) == 50 && !is_cloexec(50));
#ifdef SYS_dup2
	CHECK(syscall(SYS_dup2, fd, 50) == 50 && !is_cloexec(50));
#endif
	CHECK(syscall(SYS_dup3, fd, 50, 0) == 50 && !is_cloexec(50));
	close(50);
	close(fd);
}

static void sockets(void)
{
	BORN(0, socket(AF_UNIX, SOCK_STREAM, 0));
	BORN(0, socket(AF_INET, SOCK_DGRAM, 0));
	BORN(ASKED_CLOEXEC, socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
	BORN(ASKED_NONBLOCK, socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0));
#ifdef SYS_socket
	BORN(0, syscall(SYS_socket, AF_UNIX, SOCK_STREAM, 0));
#endif
	int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	struct sockaddr_un name = {.sun_family = AF_UNIX};
	socklen_t length = sizeof name;
	CHECK(bind(listener, (struct sockaddr *)&name, sizeof(sa_family_t)) == 0); // autobind
	CHECK(getsockname(listener, (struct sockaddr *)&name, &length) == 0);
	CHECK(listen(listener, 100) == 0);
	for (int i = 0; i < 8; i++) {
		int client = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
		CHECK(connect(client, (struct sockaddr *)&name, length) == 0);
		struct sockaddr_un peer;
		socklen_t n = sizeof peer;
		switch (i) {
		case 0:
			BORN(0, accept(listener, NULL, NULL));
			break;
		case 1:
			BORN(0, accept(listener, (struct sockaddr *)&peer, &n));
			CHECK(n == sizeof(sa_family_t) && peer.sun_family == AF_UNIX);
			break;
		case 2:
			BORN(0, accept4(listener, NULL, NULL, 0));
			break;
		case 3:
			BORN(ASKED_CLOEXEC, accept4(listener, NULL, NULL, SOCK_CLOEXEC));
			break;
		case 4:
			BORN(ASKED_NONBLOCK, accept4(listener, NULL, NULL, SOCK_NONBLOCK));
			break;
		case 5:
			BORN(ASKED_NONBLOCK | ASKED_CLOEXEC, accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC));
			break;
		case 6:
#ifdef SYS_accept
			BORN(0, syscall(SYS_accept, listener, NULL, NULL));
			break;
#endif
		case 7:
#ifdef SYS_accept4
			BORN(0, syscall(SYS_accept4, listener, NULL, NULL, 0));
#endif
			break;
		}
		close(client);
	}
	close(listener);
}

// received checks the descriptors of a control buffer and returns their number.
static int received(int line, struct msghdr *m, int how)
{
	int count = 0;
	for (struct cmsghdr *c = CMSG_FIRSTHDR(m); c != NULL; c = CMSG_NXTHDR(m, c)) {
		CHECK(c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS);
		int n = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
		for (int i = 0; i < n; i++, count++) {
			int fd;
			memcpy(&fd, CMSG_DATA(c) + i * sizeof(int), sizeof fd);
			born(__FILE__, line, "SCM_RIGHTS", -1, fd, how);
			struct stat st;
			CHECK(fstat(fd, &st) == 0 && S_ISCHR(st.st_mode));
			close(fd);
		}
	}
	return count;
}

static void messages(void)
{
	int s[2], fd = open("/dev/null", O_RDWR | O_CLOEXEC);
	CHECK(socketpair(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0, s) == 0);
	int shared = NO_NONBLOCK | (fcntl(fd, F_GETFL) & O_NONBLOCK ? ASKED_NONBLOCK : 0);
	char byte, control[2][CMSG_SPACE(16 * sizeof(int))];
	for (int n = 0; n <= 12; n += 3) {
		struct iovec io = {&byte, 1};
		struct msghdr m = {.msg_iov = &io, .msg_iovlen = 1, .msg_control = control[0], .msg_controllen = sizeof control[0]};
		if (n == 0)
			CHECK(send(s[0], "x", 1, 0) == 1);
		else
			CHECK(send_fds(s[0], fd, n) == 1);
		CHECK(recvmsg(s[1], &m, n == 6 ? MSG_CMSG_CLOEXEC : 0) == 1);
		CHECK(!(m.msg_flags & MSG_CTRUNC) && byte == 'x');
		CHECK(received(__LINE__, &m, shared | (n == 6 ? ASKED_CLOEXEC : 0)) == n);
		printf("recvmsg: flags %x, control %zu\n", m.msg_flags & ~MSG_CMSG_CLOEXEC, (size_t)m.msg_controllen);
	}
	// Room for one descriptor of three, and for none.
	for (int room = 0; room <= 1; room++) {
		struct iovec io = {&byte, 1};
		struct msghdr m = {.msg_iov = &io, .msg_iovlen = 1, .msg_control = control[0], .msg_controllen = room ? CMSG_LEN(sizeof(int)) : 0};
		CHECK(send_fds(s[0], fd, 3) == 1);
		CHECK(recvmsg(s[1], &m, 0) == 1);
		CHECK(m.msg_flags & MSG_CTRUNC);
		CHECK(received(__LINE__, &m, shared) == room);
	}
	// MSG_PEEK installs descriptors too.
	for (int i = 0; i < 2; i++) {
		struct iovec io = {&byte, 1};
		struct msghdr m = {.msg_iov = &io, .msg_iovlen = 1, .msg_control = control[0], .msg_controllen = sizeof control[0]};
		if (i == 0)
			CHECK(send_fds(s[0], fd, 2) == 1);
		CHECK(recvmsg(s[1], &m, i == 0 ? MSG_PEEK : 0) == 1);
		CHECK(received(__LINE__, &m, shared) == 2);
	}
	struct iovec io[2] = {{&byte, 1}, {&byte, 1}};
	struct mmsghdr v[2] = {0};
	for (int i = 0; i < 2; i++) {
		v[i].msg_hdr = (struct msghdr){.msg_iov = &io[i], .msg_iovlen = 1, .msg_control = control[i], .msg_controllen = sizeof control[i]};
		CHECK(send_fds(s[0], fd, 2 + i) == 1);
	}
	CHECK(recvmmsg(s[1], v, 2, 0, NULL) == 2);
	for (int i = 0; i < 2; i++) {
		CHECK(v[i].msg_len == 1);
		CHECK(received(__LINE__, &v[i].msg_hdr, shared) == 2 + i);
	}
	close(s[0]);
	close(s[1]);
	close(fd);
}

static void events(void)
{
	sigset_t set;
	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	BORN(0, epoll_create(1));
	BORN(0, epoll_create1(0));
	BORN(ASKED_CLOEXEC, epoll_create1(EPOLL_CLOEXEC));
	BORN(0, eventfd(3, 0));
	BORN(ASKED_CLOEXEC, eventfd(3, EFD_CLOEXEC));
	BORN(ASKED_NONBLOCK, eventfd(3, EFD_NONBLOCK | EFD_SEMAPHORE));
	BORN(0, signalfd(-1, &set, 0));
	BORN(ASKED_CLOEXEC, signalfd(-1, &set, SFD_CLOEXEC));
	BORN(0, timerfd_create(CLOCK_MONOTONIC, 0));
	BORN(ASKED_CLOEXEC, timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC));
	BORN(0, inotify_init());
	BORN(0, inotify_init1(0));
	BORN(ASKED_NONBLOCK, inotify_init1(IN_NONBLOCK));
	BORN(0, memfd_create("a", 0));
	BORN(ASKED_CLOEXEC, memfd_create("a", MFD_CLOEXEC));
#ifdef SYS_eventfd
	int e = syscall(SYS_eventfd, 7);
	born(__FILE__, __LINE__, "SYS_eventfd", -1, e, 0);
	uint64_t value = 0;
	CHECK(read(e, &value, 8) == 8 && value == 7);
	close(e);
	BORN(0, syscall(SYS_inotify_init));
	BORN(0, syscall(SYS_epoll_create, 5));
	BORN(0, syscall(SYS_signalfd, -1, &set, 8));
#endif
	// An existing descriptor gets another mask and keeps its flags.
	int fd = signalfd(-1, &set, SFD_CLOEXEC);
	fcntl(fd, F_SETFD, 0);
	CHECK(signalfd(fd, &set, 0) == fd && !is_cloexec(fd));
	close(fd);
	MAYBE(ASKED_CLOEXEC, syscall(SYS_pidfd_open, getpid(), 0));
	MAYBE(0, syscall(SYS_userfaultfd, 1)); // UFFD_USER_MODE_ONLY
	MAYBE(NO_NONBLOCK, syscall(428, AT_FDCWD, "/", 0)); // open_tree
	MAYBE(0, syscall(430, "tmpfs", 0)); // fsopen
}

// What opens where a standard stream was is one.
static void standard_input(void)
{
	close(0);
	CHECK(open("/dev/null", O_RDWR) == 0 && !is_cloexec(0));
	close(0);
	CHECK(open("/dev/null", O_RDWR | O_CLOEXEC) == 0 && is_cloexec(0));
	CHECK(fcntl(0, F_SETFD, 0) == 0);
	int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
	close(0);
	CHECK(dup(fd) == 0 && !is_cloexec(0));
	close(0);
	CHECK(fcntl(fd, F_DUPFD, 0) == 0 && !is_cloexec(0));
	close(0);
	CHECK(socket(AF_UNIX, SOCK_STREAM, 0) == 0 && !is_cloexec(0));
	close(0);
	CHECK(eventfd(0, 0) == 0 && !is_cloexec(0));
	close(0);
	CHECK(epoll_create(1) == 0 && !is_cloexec(0));
	int p[2];
	close(0);
	CHECK(pipe(p) == 0 && p[0] == 0 && !is_cloexec(0));
	CHECK(p[1] > 2 && !is_cloexec(p[1]) == !expected("cloexec"));
	close(0);
	close(1);
	CHECK(pipe(p) == 0 && p[0] == 0 && p[1] == 1 && !is_cloexec(0) && !is_cloexec(1));
	close(0);
	close(1);
	CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, p) == 0 && p[0] == 0 && p[1] == 1 && !is_cloexec(0) && !is_cloexec(1));
}

static void standard_message(void)
{
	int s[2];
	CHECK(socketpair(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0, s) == 0);
	CHECK(send_fds(s[0], s[0], 2) == 1);
	char byte, control[CMSG_SPACE(16 * sizeof(int))];
	struct iovec io = {&byte, 1};
	struct msghdr m = {.msg_iov = &io, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
	close(0);
	CHECK(recvmsg(s[1], &m, 0) == 1);
	int fds[2];
	memcpy(fds, CMSG_DATA(CMSG_FIRSTHDR(&m)), sizeof fds);
	CHECK(fds[0] == 0 && !is_cloexec(0));
	CHECK(fds[1] > 2 && !is_cloexec(fds[1]) == !expected("cloexec"));
}

int main(void)
{
	snprintf(path, sizeof path, "/tmp/indirect-e2e-kinds-%d", getpid());
	// Every site is used more than once: trapped, patched, and once more.
	for (int i = 0; i < 3; i++) {
		files();
		pipes();
		duplicates();
		sockets();
		messages();
		events();
		CHECK(succeeds(standard_input));
		CHECK(succeeds(standard_message));
	}
	return done();
}

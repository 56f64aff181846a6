// What the test programs share. A program checks itself: it exits with status
// 1 if a check failed. The environment variable EXPECT lists what is to be
// added to each new descriptor: nothing, or some of "cloexec nonblock nonseq".
#ifndef CHECK_H
#define CHECK_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

// What x32 adds to each call's number.
#if defined(__x86_64__) && defined(__ILP32__)
#define ADDED_BIT 0x40000000
#else
#define ADDED_BIT 0
#endif

static int failures;

static void failed(const char *file, int line, const char *what)
{
	int e = errno;
	if (__atomic_add_fetch(&failures, 1, __ATOMIC_SEQ_CST) <= 20)
		dprintf(2, "%s:%d: %s (errno %d, %s)\n", file, line, what, e, strerror(e));
	errno = e;
}

#define CHECK(cond)                                       \
	do {                                              \
		if (!(cond))                              \
			failed(__FILE__, __LINE__, #cond); \
	} while (0)

// REQUIRE is a CHECK without which it makes no sense to go on.
#define REQUIRE(cond)                                     \
	do {                                              \
		if (!(cond)) {                            \
			failed(__FILE__, __LINE__, #cond); \
			_exit(1);                         \
		}                                         \
	} while (0)

// busy passes time without giving up the processor.
static inline void busy(int microseconds)
{
	struct timespec from, now;
	clock_gettime(CLOCK_MONOTONIC, &from);
	do
		clock_gettime(CLOCK_MONOTONIC, &now);
	while ((now.tv_sec - from.tv_sec) * 1000000L + (now.tv_nsec - from.tv_nsec) / 1000 < microseconds);
}

static inline int done(void) { return failures != 0; }

static inline int expected(const char *property)
{
	const char *e = getenv("EXPECT");
	return e != NULL && strstr(e, property) != NULL;
}

static inline int is_cloexec(int fd) { return fcntl(fd, F_GETFD) & FD_CLOEXEC; }

// lowest_free is the number that the kernel would give to the next descriptor.
static inline int lowest_free(void)
{
	int fd = 0;
	while (fcntl(fd, F_GETFD) != -1)
		fd++;
	return fd;
}

// What a call asks for itself, and what does not apply to it.
enum {
	ASKED_CLOEXEC = 1,
	ASKED_NONBLOCK = 2,
	NO_NONBLOCK = 4, // the open file description is shared, or has no status flags
	INHERITED = 8,   // a number of the caller's choice, or a standard stream
	IN_PLACE = 16,   // never moved
	ASKED_NONSEQ = 32,
};

// born checks a new descriptor. low is what lowest_free said before the call.
static inline void born(const char *file, int line, const char *what, int low, int fd, int how)
{
	if (fd < 0) {
		failed(file, line, what);
		return;
	}
	int cloexec = (how & ASKED_CLOEXEC) || (expected("cloexec") && !(how & INHERITED));
	int nonblock = (how & ASKED_NONBLOCK) || (expected("nonblock") && !(how & NO_NONBLOCK));
	int moved = (how & ASKED_NONSEQ) || (expected("nonseq") && !(how & (INHERITED | IN_PLACE)));
	char text[300];
	if (!is_cloexec(fd) != !cloexec) {
		snprintf(text, sizeof text, "%s: descriptor %d close-on-exec: %d, want %d", what, fd, !!is_cloexec(fd), cloexec);
		failed(file, line, text);
	}
	int status = fcntl(fd, F_GETFL);
	if (fd > 2 && !(status & O_PATH) && !(status & O_NONBLOCK) != !nonblock) {
		snprintf(text, sizeof text, "%s: descriptor %d non-blocking: %d, want %d", what, fd, !!(status & O_NONBLOCK), nonblock);
		failed(file, line, text);
	}
	if (low >= 0 && (fd != low) != moved) {
		snprintf(text, sizeof text, "%s: descriptor %d, lowest free %d, want moved: %d", what, fd, low, moved);
		failed(file, line, text);
	}
	// TIOCGPTPEER leaves O_CLOEXEC among the status flags (fs/open.c's dentry_open).
	printf("%s: status flags %o\n", what, status & ~(O_NONBLOCK | O_CLOEXEC));
	fcntl(fd, F_SETFD, 0);
	if (is_cloexec(fd))
		failed(file, line, "fcntl(F_SETFD, 0) is respected");
}

// BORN makes a call that returns a new descriptor, checks and closes it.
#define BORN(how, call)                                                \
	do {                                                           \
		int low_ = lowest_free();                              \
		int fd_ = (call);                                      \
		born(__FILE__, __LINE__, #call, low_, fd_, how);       \
		close(fd_);                                            \
	} while (0)

// MAYBE is BORN for a call that this kernel or user may not have. Its error is printed.
#define MAYBE(how, call)                                                   \
	do {                                                               \
		int low_ = lowest_free();                                  \
		int fd_ = (call);                                          \
		if (fd_ < 0)                                               \
			printf("%s: errno %d\n", #call, errno);            \
		else                                                       \
			born(__FILE__, __LINE__, #call, low_, fd_, how);   \
		close(fd_);                                                \
	} while (0)

// succeeds runs fn in a child process and reports whether that exited with status 0.
static inline int succeeds(void (*fn)(void))
{
	fflush(NULL);
	pid_t pid = fork();
	REQUIRE(pid != -1);
	if (pid == 0) {
		failures = 0;
		fn();
		fflush(NULL);
		_exit(done());
	}
	int status;
	while (waitpid(pid, &status, 0) == -1)
		REQUIRE(errno == EINTR);
	if (status != 0)
		dprintf(2, "child: wait status %#x\n", status);
	return status == 0;
}

static inline double now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec + t.tv_nsec / 1e9;
}

// send_fds sends n copies of fd in one message.
static inline ssize_t send_fds(int sock, int fd, int n)
{
	union {
		struct cmsghdr header;
		char space[CMSG_SPACE(16 * sizeof(int))];
	} control;
	char byte = 'x';
	struct iovec io = {&byte, 1};
	struct msghdr m = {.msg_iov = &io, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = CMSG_SPACE(n * sizeof(int))};
	memset(&control, 0, sizeof control);
	control.header.cmsg_level = SOL_SOCKET;
	control.header.cmsg_type = SCM_RIGHTS;
	control.header.cmsg_len = CMSG_LEN(n * sizeof(int));
	for (int i = 0; i < n; i++)
		memcpy(CMSG_DATA(&control.header) + i * sizeof(int), &fd, sizeof(int));
	return sendmsg(sock, &m, 0);
}

#endif

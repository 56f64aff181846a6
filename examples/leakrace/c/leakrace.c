// The race that close-on-exec flags at creation were invented for: threads
// create descriptors and set FD_CLOEXEC afterwards, other threads fork and
// exec in between.
//
//   leakrace race DIR SECONDS CHECKER   run the race; DIR is an empty directory
//   leakrace check COUNTERS             be the program that is executed: count
//                                       what was inherited, by kind
//
// Standard output is for a program to read, one record a line:
//   progress MILLISECONDS PROGRAMS LEAKED
//   absent KIND REASON
//   kind KIND CREATED FAILED LEAKED
//   spawn HOW PROGRAMS LEAKY FAILED
//   seconds SECONDS
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum {
	CREATORS = 3,
	// Every descriptor number is below this (RLIMIT_NOFILE), so that the
	// checker can look at all of them in a few microseconds.
	DESCRIPTORS = 128,
	MAX_PROGRAMS = 2000000,
	MAX_SECONDS = 300,
	LEAKY_EXIT = 1,
	BROKEN_EXIT = 2,
};

static void die(const char *what)
{
	fprintf(stderr, "leakrace: %s: %s\n", what, strerror(errno));
	exit(BROKEN_EXIT);
}

static int must(int result, const char *what)
{
	if (result < 0)
		die(what);
	return result;
}

// creator is one thread that creates descriptors.
struct creator {
	pthread_t thread;
	int raw; // use syscall(2), and the older number where there are two
	int listener[2]; // AF_UNIX: SOCK_STREAM, SOCK_SEQPACKET
	int post[2];     // a socket pair over which descriptors are passed
	_Atomic uint64_t *created, *failed; // by kind
};

static char *directory;
static int directory_fd;

// path_of is the file whose name tells the checker which call opened it.
static const char *path_of(const char *kind)
{
	static _Thread_local char path[512];
	snprintf(path, sizeof path, "%s/%s", directory, kind);
	return path;
}

static int one(int fd[2], int result)
{
	fd[0] = result;
	return result < 0 ? -1 : 1;
}

static int both(int result)
{
	return result < 0 ? -1 : 2;
}

// Each of the following creates one or two descriptors without close-on-exec
// and returns how many, or -1 with errno set.

static int make_open(struct creator *c, int fd[2])
{
#ifdef SYS_open
	if (c->raw)
		return one(fd, syscall(SYS_open, path_of("open"), O_RDONLY));
#endif
	return one(fd, open(path_of("open"), O_RDONLY));
}

static int make_creat(struct creator *c, int fd[2])
{
#ifdef SYS_creat
	if (c->raw)
		return one(fd, syscall(SYS_creat, path_of("creat"), 0600));
#endif
	return one(fd, creat(path_of("creat"), 0600));
}

static int make_openat(struct creator *c, int fd[2])
{
	if (c->raw)
		return one(fd, syscall(SYS_openat, directory_fd, "openat", O_RDWR, 0));
	return one(fd, openat(directory_fd, "openat", O_RDWR));
}

static int make_openat2(struct creator *c, int fd[2])
{
	struct { uint64_t flags, mode, resolve; } how = { O_RDONLY, 0, 0 };
	(void)c;
	return one(fd, syscall(437, directory_fd, "openat2", &how, sizeof how));
}

static int make_open_tree(struct creator *c, int fd[2])
{
	(void)c;
	return one(fd, syscall(428, directory_fd, "open_tree", 0));
}

static int source_dup, source_dupfd, source_recvmsg, source_recvmmsg;

static int make_dup(struct creator *c, int fd[2])
{
	if (c->raw)
		return one(fd, syscall(SYS_dup, source_dup));
	return one(fd, dup(source_dup));
}

static int make_dupfd(struct creator *c, int fd[2])
{
	if (c->raw)
		return one(fd, syscall(SYS_fcntl, source_dupfd, F_DUPFD, 3));
	return one(fd, fcntl(source_dupfd, F_DUPFD, 3));
}

static int make_pipe(struct creator *c, int fd[2])
{
#ifdef SYS_pipe
	if (c->raw)
		return both(syscall(SYS_pipe, fd));
#endif
	return both(pipe(fd));
}

// O_NONBLOCK tells the checker that it was pipe2 and not pipe.
static int make_pipe2(struct creator *c, int fd[2])
{
	if (c->raw)
		return both(syscall(SYS_pipe2, fd, O_NONBLOCK));
	return both(pipe2(fd, O_NONBLOCK));
}

static int make_socket(struct creator *c, int fd[2])
{
	if (c->raw)
		return one(fd, syscall(SYS_socket, AF_INET, SOCK_DGRAM, 0));
	return one(fd, socket(AF_INET, SOCK_DGRAM, 0));
}

static int make_socketpair(struct creator *c, int fd[2])
{
	if (c->raw)
		return both(syscall(SYS_socketpair, AF_UNIX, SOCK_DGRAM, 0, fd));
	return both(socketpair(AF_UNIX, SOCK_DGRAM, 0, fd));
}

// client connects to one of the creator's own listeners.
static int client(int listener, int type)
{
	struct sockaddr_un to;
	socklen_t size = sizeof to;
	int fd = socket(AF_UNIX, type | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -1;
	if (getsockname(listener, (struct sockaddr *)&to, &size) < 0 ||
	    connect(fd, (struct sockaddr *)&to, size) < 0) {
		close(fd);
		return -1;
	}
	return fd;
}

static int make_accept(struct creator *c, int fd[2])
{
	int near = client(c->listener[0], SOCK_STREAM);
	if (near < 0)
		return -1;
#ifdef SYS_accept
	fd[0] = c->raw ? (int)syscall(SYS_accept, c->listener[0], NULL, NULL)
		       : accept(c->listener[0], NULL, NULL);
#else
	fd[0] = accept(c->listener[0], NULL, NULL);
#endif
	close(near);
	return one(fd, fd[0]);
}

static int make_accept4(struct creator *c, int fd[2])
{
	int near = client(c->listener[1], SOCK_SEQPACKET);
	if (near < 0)
		return -1;
	fd[0] = c->raw ? (int)syscall(SYS_accept4, c->listener[1], NULL, NULL, 0)
		       : accept4(c->listener[1], NULL, NULL, 0);
	close(near);
	return one(fd, fd[0]);
}

union control {
	char bytes[CMSG_SPACE(sizeof(int))];
	struct cmsghdr align;
};

// receive passes the descriptor source through the creator's socket pair.
static int receive(struct creator *c, int fd[2], int source, int many)
{
	char byte = 0;
	struct iovec iov = { &byte, 1 };
	union control room = { .bytes = { 0 } };
	struct mmsghdr m = { .msg_hdr = {
		.msg_iov = &iov, .msg_iovlen = 1,
		.msg_control = room.bytes, .msg_controllen = sizeof room.bytes,
	} };
	struct cmsghdr *h = CMSG_FIRSTHDR(&m.msg_hdr);
	h->cmsg_level = SOL_SOCKET;
	h->cmsg_type = SCM_RIGHTS;
	h->cmsg_len = CMSG_LEN(sizeof source);
	memcpy(CMSG_DATA(h), &source, sizeof source);
	if (sendmsg(c->post[0], &m.msg_hdr, 0) < 0)
		return -1;
	memset(&room, 0, sizeof room);
	long got;
	if (many)
		got = c->raw ? syscall(SYS_recvmmsg, c->post[1], &m, 1, 0, NULL)
			     : recvmmsg(c->post[1], &m, 1, 0, NULL);
	else
		got = c->raw ? syscall(SYS_recvmsg, c->post[1], &m.msg_hdr, 0)
			     : recvmsg(c->post[1], &m.msg_hdr, 0);
	h = CMSG_FIRSTHDR(&m.msg_hdr);
	if (got < 0)
		return -1;
	if (h == NULL || h->cmsg_type != SCM_RIGHTS) {
		errno = EPROTO;
		return -1;
	}
	memcpy(fd, CMSG_DATA(h), sizeof(int));
	return 1;
}

static int make_recvmsg(struct creator *c, int fd[2])
{
	return receive(c, fd, source_recvmsg, 0);
}

static int make_recvmmsg(struct creator *c, int fd[2])
{
	return receive(c, fd, source_recvmmsg, 1);
}

static int make_epoll(struct creator *c, int fd[2])
{
	return one(fd, c->raw ? epoll_create1(0) : epoll_create(1));
}

static int make_eventfd(struct creator *c, int fd[2])
{
#ifdef SYS_eventfd
	if (c->raw)
		return one(fd, syscall(SYS_eventfd, 0));
#endif
	return one(fd, eventfd(0, 0));
}

static int make_signalfd(struct creator *c, int fd[2])
{
	sigset_t set;
	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
#ifdef SYS_signalfd
	if (c->raw)
		return one(fd, syscall(SYS_signalfd, -1, &set, 8));
#endif
	return one(fd, signalfd(-1, &set, 0));
}

static int make_timerfd(struct creator *c, int fd[2])
{
	if (c->raw)
		return one(fd, syscall(SYS_timerfd_create, CLOCK_MONOTONIC, 0));
	return one(fd, timerfd_create(CLOCK_MONOTONIC, 0));
}

static int make_inotify(struct creator *c, int fd[2])
{
	return one(fd, c->raw ? inotify_init1(0) : inotify_init());
}

static int make_memfd(struct creator *c, int fd[2])
{
	if (c->raw)
		return one(fd, syscall(SYS_memfd_create, "memfd_create", 0));
	return one(fd, memfd_create("memfd_create", 0));
}

static int make_userfaultfd(struct creator *c, int fd[2])
{
	(void)c;
	return one(fd, syscall(SYS_userfaultfd, 1)); // UFFD_USER_MODE_ONLY needs no privilege
}

static int make_fanotify(struct creator *c, int fd[2])
{
	(void)c;
	return one(fd, syscall(SYS_fanotify_init, 0x200, 0)); // FAN_REPORT_FID: unprivileged since 5.13
}

static int make_fsopen(struct creator *c, int fd[2])
{
	(void)c;
	return one(fd, syscall(430, "tmpfs", 0));
}

// kind is one sort of descriptor that the checker can tell from the others:
// by what /proc/self/fd says, and for sockets by their domain and type.
static const struct kind {
	const char *name;
	int (*make)(struct creator *, int fd[2]);
	const char *link;
	int domain, type;
} kinds[] = {
	{ "open", make_open, "open", 0, 0 },
	{ "creat", make_creat, "creat", 0, 0 },
	{ "openat", make_openat, "openat", 0, 0 },
	{ "openat2", make_openat2, "openat2", 0, 0 },
	{ "open_tree", make_open_tree, "open_tree", 0, 0 },
	{ "dup", make_dup, "dup", 0, 0 },
	{ "fcntl_F_DUPFD", make_dupfd, "F_DUPFD", 0, 0 },
	{ "pipe", make_pipe, "pipe:", 0, 0 },
	{ "pipe2", make_pipe2, "pipe2:", 0, 0 },
	{ "socket", make_socket, NULL, AF_INET, SOCK_DGRAM },
	{ "socketpair", make_socketpair, NULL, AF_UNIX, SOCK_DGRAM },
	{ "accept", make_accept, NULL, AF_UNIX, SOCK_STREAM },
	{ "accept4", make_accept4, NULL, AF_UNIX, SOCK_SEQPACKET },
	{ "recvmsg", make_recvmsg, "recvmsg", 0, 0 },
	{ "recvmmsg", make_recvmmsg, "recvmmsg", 0, 0 },
	{ "epoll_create", make_epoll, "anon_inode:[eventpoll]", 0, 0 },
	{ "eventfd", make_eventfd, "anon_inode:[eventfd]", 0, 0 },
	{ "signalfd", make_signalfd, "anon_inode:[signalfd]", 0, 0 },
	{ "timerfd_create", make_timerfd, "anon_inode:[timerfd]", 0, 0 },
	{ "inotify_init", make_inotify, "anon_inode:inotify", 0, 0 },
	{ "memfd_create", make_memfd, "memfd_create", 0, 0 },
	{ "userfaultfd", make_userfaultfd, "anon_inode:[userfaultfd]", 0, 0 },
	{ "fanotify_init", make_fanotify, "anon_inode:[fanotify]", 0, 0 },
	{ "fsopen", make_fsopen, "anon_inode:[fscontext]", 0, 0 },
};

enum { KINDS = sizeof kinds / sizeof *kinds };

// counters is the file that all checkers add to; the last one is for
// descriptors that are of no kind.
struct counters {
	_Atomic uint64_t leaked[KINDS + 1];
};

static struct counters *map_counters(const char *path, int create)
{
	int fd = must(open(path, O_RDWR | O_CLOEXEC | (create ? O_CREAT | O_EXCL : 0), 0600), path);
	if (create)
		must(ftruncate(fd, sizeof(struct counters)), path);
	void *m = mmap(NULL, sizeof(struct counters), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (m == MAP_FAILED)
		die(path);
	close(fd);
	return m;
}

// ---- the checker

static int socket_option(int fd, int option)
{
	int v = -1;
	socklen_t size = sizeof v;
	getsockopt(fd, SOL_SOCKET, option, &v, &size);
	return v;
}

static int kind_of(int fd)
{
	char at[32], link[512];
	snprintf(at, sizeof at, "/proc/self/fd/%d", fd);
	ssize_t n = readlink(at, link, sizeof link - 1);
	link[n > 0 ? n : 0] = 0;

	char *name = link;
	if (strncmp(link, "/memfd:", 7) == 0)
		name = link + 7;
	else if (link[0] == '/')
		name = strrchr(link, '/') + 1;
	else if (strncmp(link, "pipe:", 5) == 0)
		strcpy(link, fcntl(fd, F_GETFL) & O_NONBLOCK ? "pipe2:" : "pipe:");
	char *deleted = strstr(name, " (deleted)");
	if (deleted)
		*deleted = 0;

	int domain = -1, type = -1;
	if (strncmp(link, "socket:", 7) == 0) {
		domain = socket_option(fd, SO_DOMAIN);
		type = socket_option(fd, SO_TYPE);
	}
	for (int k = 0; k < KINDS; k++)
		if (kinds[k].link ? strcmp(name, kinds[k].link) == 0
				  : kinds[k].domain == domain && kinds[k].type == type)
			return k;
	return KINDS;
}

static int check(const char *path)
{
	unsigned char leaked[DESCRIPTORS];
	int n = 0;
	for (int fd = 3; fd < DESCRIPTORS; fd++)
		if (fcntl(fd, F_GETFD) >= 0)
			leaked[n++] = fd;
	if (n == 0)
		return 0;
	struct counters *c = map_counters(path, 0);
	for (int i = 0; i < n; i++)
		c->leaked[kind_of(leaked[i])]++;
	return LEAKY_EXIT;
}

// ---- the race

static atomic_int stop;
static int absent[KINDS];

static int unix_listener(int type)
{
	// Binding the family alone gives an abstract address (unix(7), autobind).
	struct sockaddr_un any = { .sun_family = AF_UNIX };
	int fd = must(socket(AF_UNIX, type | SOCK_CLOEXEC, 0), "socket");
	must(bind(fd, (struct sockaddr *)&any, sizeof(sa_family_t)), "bind");
	must(listen(fd, 16), "listen");
	return fd;
}

static void prepare(struct creator *c)
{
	c->listener[0] = unix_listener(SOCK_STREAM);
	c->listener[1] = unix_listener(SOCK_SEQPACKET);
	must(socketpair(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0, c->post), "socketpair");
	c->created = calloc(KINDS, sizeof *c->created);
	c->failed = calloc(KINDS, sizeof *c->failed);
	if (!c->created || !c->failed)
		die("memory");
}

static void *create(void *arg)
{
	struct creator *c = arg;
	for (; !stop; c->raw = !c->raw)
		for (int k = 0; k < KINDS && !stop; k++) {
			int fd[2];
			if (absent[k])
				continue;
			int n = kinds[k].make(c, fd);
			if (n < 0) {
				c->failed[k]++;
				continue;
			}
			for (int i = 0; i < n; i++) // the window closes here
				fcntl(fd[i], F_SETFD, FD_CLOEXEC);
			c->created[k] += n;
			for (int i = 0; i < n; i++)
				close(fd[i]);
		}
	return NULL;
}

// spawner is one thread that starts the checker again and again.
struct spawner {
	const char *name;
	pid_t (*start)(char **argv);
	char **argv;
	pthread_t thread;
	_Atomic uint64_t programs, leaky, failed;
};

static char *no_environment[] = { NULL };

static pid_t start_posix_spawn(char **argv)
{
	pid_t pid;
	int e = posix_spawn(&pid, argv[0], NULL, NULL, argv, no_environment);
	return e == 0 ? pid : -1;
}

static pid_t start_fork(char **argv)
{
	pid_t pid = fork();
	if (pid == 0) {
		execve(argv[0], argv, no_environment);
		_exit(BROKEN_EXIT);
	}
	return pid;
}

static pid_t start_vfork(char **argv)
{
	pid_t pid = vfork();
	if (pid == 0) {
		execve(argv[0], argv, no_environment);
		_exit(BROKEN_EXIT);
	}
	return pid;
}

static void *spawn(void *arg)
{
	struct spawner *s = arg;
	while (!stop && s->programs < MAX_PROGRAMS) {
		int status;
		pid_t pid = s->start(s->argv);
		if (pid < 0) {
			s->failed++;
			sched_yield();
			continue;
		}
		while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
			;
		s->programs++;
		if (WIFEXITED(status) && WEXITSTATUS(status) == LEAKY_EXIT)
			s->leaky++;
		else if (status != 0)
			s->failed++;
	}
	return NULL;
}

static int source(const char *name)
{
	return must(open(path_of(name), O_RDONLY | O_CLOEXEC), name);
}

static double now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec + t.tv_nsec / 1e9;
}

static int race(char *dir, double seconds, char *checker)
{
	struct rlimit limit;
	syscall(436, 3, ~0u, 0); // close_range: start with the standard streams only
	must(getrlimit(RLIMIT_NOFILE, &limit), "getrlimit");
	limit.rlim_cur = DESCRIPTORS;
	must(setrlimit(RLIMIT_NOFILE, &limit), "setrlimit");
	alarm((unsigned)seconds + 30); // whatever happens, an end

	directory = dir;
	directory_fd = must(open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC), dir);
	for (int k = 0; k < KINDS; k++)
		if (kinds[k].link && !strchr(kinds[k].link, ':'))
			close(must(open(path_of(kinds[k].link), O_RDWR | O_CREAT | O_CLOEXEC, 0600), "file"));
	source_dup = source("dup");
	source_dupfd = source("F_DUPFD");
	source_recvmsg = source("recvmsg");
	source_recvmmsg = source("recvmmsg");
	char *counters_path = strdup(path_of("counters"));
	struct counters *counters = map_counters(counters_path, 1);

	static struct creator creators[CREATORS];
	for (int i = 0; i < CREATORS; i++) {
		prepare(&creators[i]);
		creators[i].raw = i & 1;
	}
	for (int k = 0; k < KINDS; k++) {
		int fd[2], n = kinds[k].make(&creators[0], fd);
		if (n < 0) {
			absent[k] = 1;
			printf("absent %s %s\n", kinds[k].name, strerror(errno));
		}
		for (int i = 0; i < n; i++)
			close(fd[i]);
	}

	char *argv[] = { checker, "check", counters_path, NULL };
	static struct spawner spawners[] = {
		{ .name = "posix_spawn", .start = start_posix_spawn },
		{ .name = "fork", .start = start_fork },
		{ .name = "vfork", .start = start_vfork },
	};
	enum { SPAWNERS = sizeof spawners / sizeof *spawners };

	double start = now(), end = start + seconds, t;
	for (int i = 0; i < CREATORS; i++)
		if ((errno = pthread_create(&creators[i].thread, NULL, create, &creators[i])))
			die("thread");
	for (int i = 0; i < SPAWNERS; i++) {
		spawners[i].argv = argv;
		if ((errno = pthread_create(&spawners[i].thread, NULL, spawn, &spawners[i])))
			die("thread");
	}
	while ((t = now()) < end) {
		uint64_t programs = 0, leaked = 0;
		for (int i = 0; i < SPAWNERS; i++)
			programs += spawners[i].programs;
		for (int k = 0; k <= KINDS; k++)
			leaked += counters->leaked[k];
		printf("progress %d %lu %lu\n", (int)((t - start) * 1000), programs, leaked);
		fflush(stdout);
		usleep(end - t > 0.1 ? 100000 : (useconds_t)((end - t) * 1e6));
	}
	stop = 1;
	for (int i = 0; i < SPAWNERS; i++)
		pthread_join(spawners[i].thread, NULL);
	for (int i = 0; i < CREATORS; i++)
		pthread_join(creators[i].thread, NULL);
	t = now();

	for (int k = 0; k <= KINDS; k++) {
		uint64_t created = 0, failed = 0;
		for (int i = 0; k < KINDS && i < CREATORS; i++) {
			created += creators[i].created[k];
			failed += creators[i].failed[k];
		}
		if (k < KINDS && absent[k])
			continue;
		printf("kind %s %lu %lu %lu\n", k < KINDS ? kinds[k].name : "other",
		       created, failed, counters->leaked[k]);
	}
	for (int i = 0; i < SPAWNERS; i++)
		printf("spawn %s %lu %lu %lu\n", spawners[i].name,
		       spawners[i].programs, spawners[i].leaky, spawners[i].failed);
	printf("seconds %.3f\n", t - start);
	return 0;
}

int main(int argc, char **argv)
{
	if (argc == 3 && strcmp(argv[1], "check") == 0)
		return check(argv[2]);
	if (argc == 5 && strcmp(argv[1], "race") == 0) {
		double seconds = atof(argv[3]);
		if (seconds > 0 && seconds <= MAX_SECONDS)
			return race(argv[2], seconds, argv[4]);
	}
	fprintf(stderr, "usage: leakrace race DIR SECONDS CHECKER | leakrace check COUNTERS\n");
	return BROKEN_EXIT;
}

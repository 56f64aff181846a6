// One loop of system calls, timed from the inside.
//
//   micro LOOP THREADS COUNT [PROGRAM]
//
// runs COUNT iterations of LOOP, spread over THREADS threads, and prints the
// nanoseconds that one iteration takes in its thread. One iteration runs
// before the clock starts: what happens once per program is not measured.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { MAX_THREADS = 64, BATCH = 256 };

static const char *program;
static char *no_environment[] = { NULL };

static void die(const char *what)
{
	fprintf(stderr, "micro: %s: %s\n", what, strerror(errno));
	exit(1);
}

static double now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1e9 + t.tv_nsec;
}

static void closed(int fd)
{
	if (fd < 0 || close(fd) < 0)
		die("create and close a descriptor");
}

static void loop_open(long n)
{
	while (n-- > 0)
		closed(open("/dev/null", O_RDONLY));
}

static void loop_open_cloexec(long n)
{
	while (n-- > 0)
		closed(open("/dev/null", O_RDONLY | O_CLOEXEC));
}

static void loop_socket(long n)
{
	while (n-- > 0)
		closed(socket(AF_UNIX, SOCK_STREAM, 0));
}

// What a program that asks for properties calls: indirect(2) and paccept(2)
// where they are, otherwise Linux's own calls with flags.
enum { INDIRECT = 2007, PACCEPT = 2011 };

static int available(void)
{
	static int known = -1;
	if (known < 0)
		known = syscall(INDIRECT, NULL, NULL, 0, 0) == 0 || errno != ENOSYS;
	return known;
}

static void loop_asking_socket(long n)
{
	struct { unsigned long nr, arg[6]; } call = { SYS_socket, { AF_UNIX, SOCK_STREAM } };
	int flags = O_CLOEXEC;
	while (n-- > 0)
		closed(available() ? syscall(INDIRECT, &call, &flags, sizeof flags, 0)
				   : socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
}

static int plain_accept(int s) { return accept(s, NULL, NULL); }

static int asking_accept(int s)
{
	static sigset_t mask;
	return available() ? syscall(PACCEPT, s, NULL, NULL, &mask, 8, SOCK_CLOEXEC)
			   : accept4(s, NULL, NULL, SOCK_CLOEXEC);
}

static void loop_pipe(long n)
{
	int p[2];
	while (n-- > 0) {
		if (pipe(p) < 0)
			die("pipe");
		closed(p[0]);
		closed(p[1]);
	}
}

static void loop_getppid(long n)
{
	while (n-- > 0)
		syscall(SYS_getppid);
}

static void reap(pid_t pid)
{
	int status;
	if (pid < 0 || waitpid(pid, &status, 0) != pid || status != 0)
		die(program);
}

static void loop_fork(long n)
{
	char *argv[] = { (char *)program, NULL };
	while (n-- > 0) {
		pid_t pid = fork();
		if (pid == 0) {
			execve(program, argv, no_environment);
			_exit(127);
		}
		reap(pid);
	}
}

static void loop_vfork(long n)
{
	char *argv[] = { (char *)program, NULL };
	while (n-- > 0) {
		pid_t pid = vfork();
		if (pid == 0) {
			execve(program, argv, no_environment);
			_exit(127);
		}
		reap(pid);
	}
}

static void loop_posix_spawn(long n)
{
	char *argv[] = { (char *)program, NULL };
	while (n-- > 0) {
		pid_t pid = -1;
		if ((errno = posix_spawn(&pid, program, NULL, NULL, argv, no_environment)))
			die(program);
		reap(pid);
	}
}

// ---- accept: a second thread connects, batch by batch, so that accept always
// finds a connection and the time is accept's own.

static struct { pthread_barrier_t full, empty; struct sockaddr_in to; long batches; } dialled;

static void *dial(void *unused)
{
	static int fd[BATCH];
	for (long b = 0; b < dialled.batches; b++) {
		for (int i = 0; i < BATCH; i++) {
			fd[i] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
			if (connect(fd[i], (struct sockaddr *)&dialled.to, sizeof dialled.to) < 0)
				die("connect");
		}
		pthread_barrier_wait(&dialled.full);
		pthread_barrier_wait(&dialled.empty);
		for (int i = 0; i < BATCH; i++)
			close(fd[i]);
	}
	return unused;
}

static double time_accept(long n, int (*take)(int))
{
	struct linger reset = { 1, 0 }; // leave no connection in TIME_WAIT
	socklen_t size = sizeof dialled.to;
	int s = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	dialled.to.sin_family = AF_INET;
	dialled.to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	dialled.batches = (n + BATCH - 1) / BATCH + 1; // the first is not timed
	if (s < 0 || setsockopt(s, SOL_SOCKET, SO_LINGER, &reset, sizeof reset) < 0 ||
	    bind(s, (struct sockaddr *)&dialled.to, size) < 0 ||
	    getsockname(s, (struct sockaddr *)&dialled.to, &size) < 0 || listen(s, 2 * BATCH) < 0)
		die("listen on 127.0.0.1");
	pthread_barrier_init(&dialled.full, NULL, 2);
	pthread_barrier_init(&dialled.empty, NULL, 2);
	pthread_t t;
	if ((errno = pthread_create(&t, NULL, dial, NULL)))
		die("thread");
	double spent = 0;
	for (long b = 0; b < dialled.batches; b++) {
		pthread_barrier_wait(&dialled.full);
		double start = now();
		for (int i = 0; i < BATCH; i++)
			closed(take(s));
		if (b > 0)
			spent += now() - start;
		pthread_barrier_wait(&dialled.empty);
	}
	pthread_join(t, NULL);
	return spent / ((dialled.batches - 1) * BATCH);
}

// ---- the other loops

static const struct { const char *name; void (*run)(long); } loops[] = {
	{ "open", loop_open },
	{ "open-cloexec", loop_open_cloexec },
	{ "socket", loop_socket },
	{ "asking-socket", loop_asking_socket },
	{ "pipe", loop_pipe },
	{ "getppid", loop_getppid },
	{ "fork", loop_fork },
	{ "vfork", loop_vfork },
	{ "posix_spawn", loop_posix_spawn },
};

static struct { pthread_barrier_t start; void (*run)(long); long n; } shared;

static void *thread(void *unused)
{
	pthread_barrier_wait(&shared.start);
	shared.run(shared.n);
	return unused;
}

static double time_loop(void (*run)(long), long threads, long n)
{
	pthread_t t[MAX_THREADS];
	run(10); // under indirect run, the first calls have the call sites found and patched
	shared.run = run;
	shared.n = n / threads;
	if (threads == 1) {
		double start = now();
		run(shared.n);
		return (now() - start) / shared.n;
	}
	pthread_barrier_init(&shared.start, NULL, threads + 1);
	for (long i = 0; i < threads; i++)
		if ((errno = pthread_create(&t[i], NULL, thread, NULL)))
			die("thread");
	pthread_barrier_wait(&shared.start);
	double start = now();
	for (long i = 0; i < threads; i++)
		pthread_join(t[i], NULL);
	return (now() - start) / shared.n;
}

int main(int argc, char **argv)
{
	long threads = argc > 3 ? atol(argv[2]) : 0, n = argc > 3 ? atol(argv[3]) : 0;
	if (threads < 1 || threads > MAX_THREADS || n < threads) {
		fprintf(stderr, "usage: micro LOOP THREADS COUNT [PROGRAM]\n");
		return 2;
	}
	program = argc > 4 ? argv[4] : "/bin/true";
	double ns = -1;
	if (strcmp(argv[1], "accept") == 0)
		ns = time_accept(n, plain_accept);
	if (strcmp(argv[1], "paccept") == 0)
		ns = time_accept(n, asking_accept);
	for (unsigned i = 0; i < sizeof loops / sizeof *loops; i++)
		if (strcmp(argv[1], loops[i].name) == 0)
			ns = time_loop(loops[i].run, threads, n);
	if (ns < 0) {
		fprintf(stderr, "micro: no loop %s\n", argv[1]);
		return 2;
	}
	printf("%.3f\n", ns);
	return 0;
}

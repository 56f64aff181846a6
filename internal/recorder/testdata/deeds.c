// Does to descriptors what its argument says, and executes "true NAME", where
// NAME tells the test which execution it was. The numbers are from 20 on:
// whoever starts us may have left others open.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

static void check(int ok, const char *what) {
	if (!ok) {
		fprintf(stderr, "%s: %s\n", what, strerror(errno));
		exit(1);
	}
}

static void fill(void) {
	for (int fd; (fd = open("/dev/null", O_RDONLY | O_CLOEXEC)) < 20;) {
		check(fd >= 0, "open /dev/null");
		if (fd == 19) {
			break;
		}
	}
}

static void run(const char *name) {
	execlp("true", "true", name, NULL);
	_exit(127);
}

static void fork_and_run(const char *name) {
	pid_t child = fork();
	if (child == 0) {
		run(name);
	}
	check(waitpid(child, NULL, 0) == child, "wait");
}

static void spawn(const char *name) {
	char *argv[] = {"true", (char *)name, NULL};
	pid_t child;
	check(posix_spawnp(&child, "true", NULL, NULL, argv, environ) == 0, "posix_spawn");
	check(waitpid(child, NULL, 0) == child, "wait");
}

static void kinds(void) {
	int p[2], s[2];
	check(open("/etc/hostname", O_RDONLY) == 20, "open");
	check(pipe(p) == 0 && p[0] == 21, "pipe");
	check(socket(AF_INET, SOCK_STREAM, 0) == 23, "socket");
	check(socketpair(AF_UNIX, SOCK_DGRAM, 0, s) == 0, "socketpair");
	check(epoll_create1(0) == 26, "epoll_create1");
	check(eventfd(0, 0) == 27, "eventfd");
	check(dup(20) == 28, "dup");
	check(fcntl(20, F_DUPFD, 50) == 50, "F_DUPFD");
	check(open("/etc/hostname", O_RDONLY | O_CLOEXEC) == 29, "open");
	check(memfd_create("secret", 0) == 30, "memfd_create");
	fork_and_run("all");
}

static void failing(void) {
	check(open("/etc/hostname", O_RDONLY) == 20, "open");
	check(open("/no/such/file", O_RDONLY) < 0, "open");
	close(20);
	check(open("/no/such/file", O_RDONLY) < 0, "open");
	check(open("/etc/passwd", O_RDONLY | O_CLOEXEC) == 20, "open"); // not inheritable
	check(open("/etc/passwd", O_RDONLY) == 21, "open");
	execl("/no/such/program", "program", NULL);
	execl("/etc/hostname", "hostname", NULL);
	fork_and_run("after");
}

static void choice(void) {
	check(open("/etc/hostname", O_RDONLY | O_CLOEXEC) == 20, "open");
	check(dup2(20, 30) == 30, "dup2");
	check(dup2(20, 20) == 20, "dup2"); // changes nothing
	check(dup2(199, 31) < 0, "dup2");
	check(dup3(20, 32, 0) == 32, "dup3");
	check(open("/etc/passwd", O_RDONLY | O_CLOEXEC) == 21, "open");
	check(fcntl(21, F_SETFD, 0) == 0, "F_SETFD");
	check(open("/etc/group", O_RDONLY | O_CLOEXEC) == 22, "open");
	check(ioctl(22, FIONCLEX) == 0, "FIONCLEX");
	fork_and_run("chosen");
}

static void flags(void) {
	check(open("/etc/hostname", O_RDONLY) == 20, "open");
	check(fcntl(20, F_SETFD, FD_CLOEXEC) == 0, "F_SETFD");
	check(open("/etc/passwd", O_RDONLY) == 21, "open");
	check(ioctl(21, FIOCLEX) == 0, "FIOCLEX");
	check(open("/etc/group", O_RDONLY) == 22, "open");
	check(close_range(22, 22, 4) == 0, "close_range");
	check(open("/etc/hosts", O_RDONLY | O_CLOEXEC) == 23, "open");
	check(fcntl(23, F_SETFD, FD_CLOEXEC) == 0, "F_SETFD"); // it has it already
	fork_and_run("flagged");
}

// starts: one descriptor, every way to start a program.
static void starts(void) {
	check(open("/etc/hostname", O_RDONLY) == 20, "open");
	fork_and_run("fork");
	pid_t child = vfork();
	if (child == 0) {
		execlp("true", "true", "vfork", NULL);
		_exit(127);
	}
	check(waitpid(child, NULL, 0) == child, "wait");
	spawn("posix_spawn");
	check(system("exec true system") == 0, "system");
	run("exec");
}

// forks: each child has what its parent had when it was forked.
static void forks(void) {
	int gate[2];
	check(pipe2(gate, O_CLOEXEC) == 0, "pipe2"); // 20, 21
	check(open("/etc/hostname", O_RDONLY) == 22, "open");
	pid_t child = fork();
	if (child == 0) {
		char c;
		close(gate[1]);
		check(read(gate[0], &c, 1) == 0, "read");
		check(open("/etc/group", O_RDONLY) == 21, "open");
		run("child");
	}
	close(22);
	check(open("/etc/passwd", O_RDONLY) == 22, "open");
	close(gate[0]);
	fork_and_run("parent");
	close(gate[1]);
	check(waitpid(child, NULL, 0) == child, "wait");
}

// daemon: the parent of the process that executes is gone.
static void daemonise(void) {
	int gate[2];
	check(pipe2(gate, O_CLOEXEC) == 0, "pipe2"); // 20, 21
	check(open("/etc/hostname", O_RDONLY) == 22, "open");
	pid_t parent = fork();
	if (parent == 0) {
		if (fork() != 0) {
			_exit(0);
		}
		while (getppid() == parent) {
			sched_yield();
		}
		run("daemon");
	}
	check(waitpid(parent, NULL, 0) == parent, "wait");
	close(gate[1]);
	char c;
	check(read(gate[0], &c, 1) == 0, "read"); // until the daemon has executed
	usleep(100000);
}

static void receive(void) {
	int s[2];
	check(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, s) == 0, "socketpair"); // 20, 21
	int sent[2] = {open("/etc/hostname", O_RDONLY | O_CLOEXEC), open("/etc/passwd", O_RDONLY | O_CLOEXEC)}; // 22, 23
	char control[CMSG_SPACE(sizeof sent)] = {0}, byte = 0;
	struct iovec io = {&byte, 1};
	struct msghdr m = {.msg_iov = &io, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
	struct cmsghdr *c = CMSG_FIRSTHDR(&m);
	c->cmsg_level = SOL_SOCKET;
	c->cmsg_type = SCM_RIGHTS;
	c->cmsg_len = CMSG_LEN(sizeof sent);
	memcpy(CMSG_DATA(c), sent, sizeof sent);
	check(sendmsg(s[0], &m, 0) == 1, "sendmsg");
	m.msg_controllen = sizeof control;
	check(recvmsg(s[1], &m, 0) == 1, "recvmsg"); // 24, 25
	fork_and_run("received");
}

static void standard(void) {
	close(0);
	check(open("/etc/hostname", O_RDONLY) == 0, "open");
	fork_and_run("standard");
}

static int opened = -1;

static void *opener(void *path) {
	opened = open(path, O_RDONLY);
	return NULL;
}

static void *runner(void *name) {
	run(name);
	return NULL;
}

static void threads(void) {
	pthread_t t;
	check(pthread_create(&t, NULL, opener, "/etc/hostname") == 0, "thread");
	pthread_join(t, NULL);
	check(opened == 20, "open");
	fork_and_run("threads");
	check(pthread_create(&t, NULL, runner, "exec from a thread") == 0, "thread");
	pthread_join(t, NULL);
}

static void again(void) {
	check(open("/etc/hostname", O_RDONLY) == 20, "open");
	execl("/proc/self/exe", "deeds", "pass", NULL);
}

static void pass(void) { run("passed on"); }

static const struct {
	const char *name;
	void (*deed)(void);
} deeds[] = {
	{"kinds", kinds}, {"failing", failing}, {"choice", choice}, {"flags", flags}, {"starts", starts}, {"forks", forks},
	{"daemon", daemonise}, {"receive", receive}, {"standard", standard}, {"threads", threads},
	{"again", again}, {"pass", pass},
};

int main(int argc, char **argv) {
	check(argc == 2, "one argument");
	if (strcmp(argv[1], "pass") != 0) {
		fill();
	}
	for (size_t i = 0; i < sizeof deeds / sizeof deeds[0]; i++) {
		if (strcmp(argv[1], deeds[i].name) == 0) {
			deeds[i].deed();
			return 0;
		}
	}
	return 2;
}

// A race: a thread opens a file and makes it close-on-exec afterwards. Until it
// has done so, the other thread's child inherits the file.
#include <fcntl.h>
#include <pthread.h>
#include <spawn.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

static atomic_int opened, forked;

static void *spawner(void *unused) {
	char *argv[] = {"true", NULL};
	pid_t child;
	while (!opened) {
	}
	if (posix_spawnp(&child, "true", NULL, NULL, argv, environ) == 0) {
		waitpid(child, NULL, 0);
	}
	forked = 1;
	return unused;
}

static int open_private(const char *path) {
	int fd = open(path, O_RDONLY);
	opened = 1;
	while (!forked) { // in real programs nobody waits: it is a matter of luck
	}
	fcntl(fd, F_SETFD, FD_CLOEXEC);
	return fd;
}

int main(void) {
	pthread_t thread;
	if (pthread_create(&thread, NULL, spawner, NULL) != 0) {
		return 1;
	}
	int fd = open_private("/etc/hostname");
	pthread_join(thread, NULL);
	return close(fd);
}

// A leak: a configuration file is opened without O_CLOEXEC and stays open when
// another program is executed, which can read it.
#include <fcntl.h>
#include <spawn.h>
#include <stdio.h>
#include <sys/wait.h>

extern char **environ;

static int open_secret(const char *path) {
	return open(path, O_RDONLY);
}

int main(void) {
	int fd = open_secret("/etc/hostname");
	if (fd < 0) {
		perror("open");
		return 1;
	}
	char *argv[] = {"true", NULL};
	pid_t child;
	if (posix_spawnp(&child, "true", NULL, NULL, argv, environ) != 0) {
		return 1;
	}
	return waitpid(child, NULL, 0) != child;
}

// Descriptors that are handed on with intent: one is placed at a number by
// dup2, the number of the other is in the child's arguments.
#include <fcntl.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

int main(void) {
	int input = open("/etc/hostname", O_RDONLY | O_CLOEXEC);
	int status[2];
	if (input < 0 || dup2(input, 9) < 0 || pipe(status) < 0) {
		perror("deliberate");
		return 1;
	}
	fcntl(status[0], F_SETFD, FD_CLOEXEC);
	pid_t child = fork();
	if (child == 0) {
		char option[32];
		snprintf(option, sizeof option, "--status-fd=%d", status[1]);
		execlp("true", "true", option, NULL);
		_exit(127);
	}
	return waitpid(child, NULL, 0) != child;
}

// Many processes that have each created a descriptor and then wait.
//
//   crowd COUNT
//
// starts COUNT programs. Each creates descriptors without flags, prints its
// process ID on a line of its own and waits until standard input ends.
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

static int member(void)
{
	char line[16];
	int p[2];
	if (open("/dev/null", O_RDONLY) < 0 || pipe(p) < 0 || socket(AF_UNIX, SOCK_STREAM, 0) < 0)
		return 1;
	int n = snprintf(line, sizeof line, "%d\n", (int)getpid());
	if (write(1, line, n) != n)
		return 1;
	while (read(0, line, sizeof line) > 0)
		;
	return 0;
}

int main(int argc, char **argv)
{
	int count = argc > 1 ? atoi(argv[1]) : 0, status, failed = 0;
	if (count == 0)
		return member();
	for (int i = 0; i < count; i++) {
		pid_t pid = fork();
		if (pid == 0) {
			execl(argv[0], argv[0], (char *)NULL);
			_exit(127);
		}
		if (pid < 0) {
			perror("crowd: fork");
			failed = 1;
			break;
		}
	}
	while (wait(&status) > 0)
		failed |= status != 0;
	return failed;
}

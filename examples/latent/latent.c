// A leak that waits for an exec: a file is opened without O_CLOEXEC and never
// closed. As long as the program executes no other, nothing happens.
#include <fcntl.h>
#include <stdio.h>

int main(void) {
	if (open("/etc/hostname", O_RDONLY) < 0) {
		perror("open");
		return 1;
	}
	return 0;
}

// Makes a few calls, tells whether they had their flag, and answers 7.
#include "check.h"

__attribute__((noinline)) int answer(int n) { return n + 2; }

int main(void)
{
	int fd = open("/dev/null", O_RDONLY), p[2];
	REQUIRE(fd > 2 && pipe2(p, 0) == 0);
	printf("flags: %d %d\n", is_cloexec(fd), is_cloexec(p[0]));
	fflush(stdout);
	return answer(5);
}

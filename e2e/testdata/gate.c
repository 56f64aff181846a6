// Calls through int $0x80 from a 64-bit program: i386's numbers and i386's
// 32-bit pointers.
#include "check.h"
#include <sys/mman.h>

static long call(long nr, long a, long b, long c)
{
	long r = nr;
	__asm__ volatile("int $0x80" : "+a"(r) : "b"(a), "c"(b), "d"(c) : "memory", "r8", "r9", "r10", "r11");
	return (int)r;
}

int main(void)
{
	char *low = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
	REQUIRE(low != MAP_FAILED);
	int *pair = (int *)(low + 64);
	uint32_t *block = (uint32_t *)(low + 128);
	strcpy(low, "/dev/null");
	for (int i = 0; i < 3; i++) {
		BORN(0, call(5, (long)low, O_RDWR, 0));		       // open
		BORN(ASKED_CLOEXEC, call(5, (long)low, O_RDWR | O_CLOEXEC, 0));
		BORN(0, call(295, AT_FDCWD, (long)low, O_RDONLY)); // openat
		BORN(NO_NONBLOCK, call(41, 2, 0, 0));			       // dup
		BORN(NO_NONBLOCK, call(55, 2, F_DUPFD, 0));		       // fcntl
		BORN(NO_NONBLOCK, call(221, 2, F_DUPFD, 0));	       // fcntl64
		BORN(0, call(359, AF_UNIX, SOCK_STREAM, 0));       // socket
		BORN(0, call(254, 1, 0, 0));		       // epoll_create
		BORN(0, call(323, 3, 0, 0));		       // eventfd
		memset(block, 0xff, 64); // what is behind the arguments means nothing
		block[0] = AF_UNIX;
		block[1] = SOCK_STREAM;
		block[2] = 0;
		BORN(0, call(102, 1, (long)block, 0)); // socketcall SYS_SOCKET
		block[1] = SOCK_STREAM | SOCK_CLOEXEC;
		BORN(ASKED_CLOEXEC, call(102, 1, (long)block, 0));
		CHECK(call(42, (long)pair, 0, 0) == 0); // pipe
		for (int k = 0; k < 2; k++) {
			CHECK(!is_cloexec(pair[k]) == !expected("cloexec"));
			close(pair[k]);
		}
		// A listening socket, and SYS_ACCEPT with rubbish behind its arguments.
		struct sockaddr_un name = {.sun_family = AF_UNIX};
		socklen_t length = sizeof name;
		int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), client = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
		CHECK(bind(listener, (struct sockaddr *)&name, sizeof(sa_family_t)) == 0);
		CHECK(getsockname(listener, (struct sockaddr *)&name, &length) == 0 && listen(listener, 5) == 0);
		fcntl(client, F_SETFL, 0);
		CHECK(connect(client, (struct sockaddr *)&name, length) == 0);
		fcntl(listener, F_SETFL, 0);
		memset(block, 0xff, 64);
		block[0] = listener;
		block[1] = block[2] = 0;
		BORN(0, call(102, 5, (long)block, 0));
		close(listener);
		close(client);
		// Bad arguments.
		CHECK(call(5, 1, 0, 0) == -EFAULT);
		CHECK(call(42, 1, 0, 0) == -EFAULT);
		CHECK(call(102, 1, 1, 0) == -EFAULT);
		CHECK(call(102, 0, (long)block, 0) == -EINVAL);
		CHECK(call(102, 99, (long)block, 0) == -EINVAL);
		CHECK(call(41, -1, 0, 0) == -EBADF);
		// Native calls beside them.
		BORN(0, open("/dev/null", O_RDONLY));
	}
	return done();
}

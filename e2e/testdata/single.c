// Makes one flagless call, in the way that the argument names. What it does
// before and after are calls that trap nothing.
#include "check.h"
#include <sys/time.h>

static volatile int handled;

static void handler(int sig) { (void)sig, handled++; }

// call makes a call with every register set, and checks that they are kept.
static long call(long nr, long a, long b, long c, long d, long e, long f)
{
	long result, di = a, si = b, dx = c, flags = 0;
	register long r10 __asm__("r10") = d;
	register long r8 __asm__("r8") = e;
	register long r9 __asm__("r9") = f;
	register long rbx __asm__("rbx") = 0x1234;
	// What is in the red zone stays, too.
	__asm__ volatile("movq $0x5678,-128(%%rsp)\n\tmovq $0x9abc,-8(%%rsp)\n\t"
			 "syscall\n\t"
			 "xorq $0x5678,-128(%%rsp)\n\txorq $0x9abc,-8(%%rsp)\n\t"
			 "movq -128(%%rsp),%%rcx\n\torq -8(%%rsp),%%rcx\n\tmovq %%rcx,%[flags]"
			 : "=a"(result), "+D"(di), "+S"(si), "+d"(dx), "+r"(r10), "+r"(r8), "+r"(r9), "+r"(rbx), [flags] "=&r"(flags)
			 : "0"(nr)
			 : "rcx", "r11", "memory", "cc");
	CHECK(di == a && si == b && dx == c && r10 == d && r8 == e && r9 == f && rbx == 0x1234 && flags == 0);
	return result;
}

static void alarmed(int flags)
{
	struct sigaction action = {.sa_handler = handler, .sa_flags = flags};
	sigaction(SIGALRM, &action, NULL);
	struct itimerval soon = {.it_value.tv_usec = 100000};
	setitimer(ITIMER_REAL, &soon, NULL);
}

int main(int argc, char **argv)
{
	const char *what = argc > 1 ? argv[1] : "", *path = argc > 2 ? argv[2] : "/dev/null";
	int wanted = strcmp(getenv("EXPECT") ? getenv("EXPECT") : "", "") != 0;
	long fd;
	if (strcmp(what, "open") == 0) {
		fd = call(SYS_open, (long)path, O_RDWR, 0, 4, 5, 6);
		CHECK(fd == 3 && is_cloexec(fd) == wanted);
	} else if (strcmp(what, "creat") == 0) {
		fd = call(SYS_creat, (long)path, 0600, 3, 4, 5, 6);
		CHECK(fd == 3 && is_cloexec(fd) == wanted);
	} else if (strcmp(what, "stream") == 0) {
		close(0);
		CHECK(call(SYS_openat, AT_FDCWD, (long)path, O_RDONLY, 4, 5, 6) == 0);
		CHECK(!is_cloexec(0));
	} else if (strcmp(what, "error") == 0) {
		CHECK(call(SYS_open, (long)"/nowhere/at all", O_RDWR, 3, 4, 5, 6) == -ENOENT);
		CHECK(handled == 0);
	} else if (strcmp(what, "restart") == 0) { // a FIFO that opens when there is a writer
		if (fork() == 0) {
			struct timespec later = {0, 300000000};
			nanosleep(&later, NULL);
			_exit(open(path, O_WRONLY | O_CLOEXEC) < 0);
		}
		alarmed(SA_RESTART);
		fd = call(SYS_open, (long)path, O_RDONLY, 3, 4, 5, 6);
		CHECK(fd == 3 && is_cloexec(fd) == wanted && handled == 1);
	} else if (strcmp(what, "interrupt") == 0) {
		alarmed(0);
		CHECK(call(SYS_open, (long)path, O_RDONLY, 3, 4, 5, 6) == -EINTR);
		CHECK(handled == 1);
	} else {
		CHECK(!"a known argument");
	}
	return done();
}

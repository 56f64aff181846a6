// What the kernel answers to timerfd_settime and timerfd_gettime, whose
// numbers were indirect's and syslet_ring_wait's, printed for a comparison.
#include "check.h"
#include <sys/timerfd.h>

static uint64_t state = 88172645463325252ull;

static uint64_t next(void)
{
	state ^= state << 13;
	state ^= state >> 7;
	return state ^= state << 17;
}

#define PICK(array) (array)[next() % (sizeof(array) / sizeof *(array))]

int main(void)
{
	int fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC), other = open("/dev/null", O_RDONLY);
	static struct itimerspec good = {{0, 0}, {1000, 0}}, bad = {{0, 2000000000}, {1000, 0}}, out;
	// Descriptors, and what looks like none: but no address of ours. The
	// numbers are stable, so that two runs print the same.
	const long fds[] = {fd, fd, fd, fd, other, 0, 77, -1, -2, -4096, 1 << 19, 1 << 20, 1 << 21, 0x7ffff000, 0x10000, 4096};
	const long flags[] = {0, 0, 0, TFD_TIMER_ABSTIME, 2, 4, -1, 1 << 20};
	const long values[] = {0, 1, 4, 28, 32, 33, 56, 4095, 4096, -1, (long)&good, (long)&good, (long)&good, (long)&bad};
	const long olds[] = {0, 0, 0, (long)&out, (long)&out, 16, 4, -1};
	for (int i = 0; i < 20000; i++) {
		unsigned which = next();
		size_t ai = next() % (sizeof fds / sizeof *fds);
		long a = fds[ai], b = PICK(flags), c = PICK(values), d = PICK(olds);
		const char *name;
		long r;
		if (which & 1) {
			name = "settime";
			r = syscall(SYS_timerfd_settime, a, b, c, d);
		} else {
			name = "gettime";
			r = syscall(SYS_timerfd_gettime, a, c, b, d);
		}
		printf("%d %s %zu %ld: %ld %d\n", i, name, ai, b, r, r < 0 ? errno : 0);
	}
	// And as programs use it.
	struct itimerspec soon = {{0, 0}, {0, 1000000}};
	uint64_t expirations = 0;
	fcntl(fd, F_SETFL, 0);
	CHECK(timerfd_settime(fd, 0, &soon, &out) == 0);
	CHECK(timerfd_gettime(fd, &out) == 0 && out.it_value.tv_nsec <= 1000000);
	CHECK(read(fd, &expirations, sizeof expirations) == sizeof expirations && expirations == 1);
	return done();
}

// Descriptors with unpredictable numbers.
#include "check.h"
#include <pthread.h>

static int compare(const void *a, const void *b) { return *(const int *)a - *(const int *)b; }

static int soft_limit(void)
{
	struct rlimit limit;
	REQUIRE(getrlimit(RLIMIT_NOFILE, &limit) == 0);
	return limit.rlim_cur > 65536 ? 65536 : limit.rlim_cur;
}

// distribution demands numbers that are all over the place: with n of them,
// each quarter of their range has its share, and they do not count upwards.
static void distribution(void)
{
	enum { N = 4000 };
	static int fds[N];
	int soft = soft_limit(), rising = 0, distinct = 0, quarter[4] = {0}, low = soft / 2;
	for (int i = 0; i < N; i++) {
		fds[i] = open("/dev/null", O_RDONLY);
		REQUIRE(fds[i] > 2);
		CHECK(fds[i] < soft);
		close(fds[i]);
		if (i > 0 && fds[i] > fds[i - 1])
			rising++;
		if (fds[i] >= low)
			quarter[(fds[i] - low) * 4L / (soft - low)]++;
	}
	CHECK(rising > N * 4 / 10 && rising < N * 6 / 10);
	for (int i = 0; i < 4; i++)
		CHECK(quarter[i] > N / 6 && quarter[i] < N / 3);
	qsort(fds, N, sizeof *fds, compare);
	for (int i = 1; i < N; i++)
		distinct += fds[i] != fds[i - 1];
	CHECK(distinct > N / 2 || soft < 2 * N);
}

static void *collects(void *result)
{
	int *fds = result;
	for (int i = 0; i < 300; i += 3) {
		fds[i] = open("/dev/null", O_RDONLY);
		CHECK(pipe(&fds[i + 1]) == 0);
	}
	return NULL;
}

// collisions: descriptors that are open at the same time have different
// numbers, and each is what it was when it was made.
static void collisions(void)
{
	enum { THREADS = 4, N = 300 };
	static int fds[THREADS * N];
	pthread_t threads[THREADS];
	for (int i = 0; i < THREADS; i++)
		REQUIRE(pthread_create(&threads[i], NULL, collects, fds + i * N) == 0);
	for (int i = 0; i < THREADS; i++)
		pthread_join(threads[i], NULL);
	for (int i = 0; i < THREADS * N; i++) {
		struct stat st;
		CHECK(fds[i] > 2 && fds[i] < soft_limit());
		CHECK(fstat(fds[i], &st) == 0);
		CHECK(i % 3 == 0 ? S_ISCHR(st.st_mode) : S_ISFIFO(st.st_mode));
	}
	qsort(fds, THREADS * N, sizeof *fds, compare);
	for (int i = 1; i < THREADS * N; i++)
		CHECK(fds[i] != fds[i - 1]);
	for (int i = 0; i < THREADS * N; i++)
		CHECK(close(fds[i]) == 0);
	// Nothing is left: neither at the first numbers nor elsewhere.
	for (int fd = 3; fd < soft_limit(); fd++)
		CHECK(fcntl(fd, F_GETFD) == -1);
}

// exhaustion fills a small table up to its limit: every number is used.
static void exhaustion(void)
{
	for (int limit = 4; limit <= 64; limit *= 2) {
		struct rlimit old, small;
		REQUIRE(getrlimit(RLIMIT_NOFILE, &old) == 0);
		small = old;
		small.rlim_cur = limit;
		REQUIRE(setrlimit(RLIMIT_NOFILE, &small) == 0);
		int opened = 0, fd;
		while ((fd = open("/dev/null", O_RDONLY)) != -1) {
			CHECK(fd < limit);
			opened++;
		}
		CHECK(errno == EMFILE);
		CHECK(opened == limit - 3);
		int p[2] = {-5, -5};
		CHECK(pipe(p) == -1 && errno == EMFILE);
		CHECK(dup(0) == -1 && errno == EMFILE);
		close(3);
		CHECK(pipe(p) == -1 && errno == EMFILE);
		CHECK(dup(0) == 3);
		for (fd = 3; fd < limit; fd++)
			close(fd);
		REQUIRE(setrlimit(RLIMIT_NOFILE, &old) == 0);
	}
}

static void messages(void)
{
	int s[2], null = open("/dev/null", O_RDWR);
	REQUIRE(socketpair(AF_UNIX, SOCK_DGRAM, 0, s) == 0);
	for (int i = 0; i < 50; i++) {
		char byte, control[CMSG_SPACE(8 * sizeof(int))];
		struct iovec io = {&byte, 1};
		struct msghdr m = {.msg_iov = &io, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
		CHECK(send_fds(s[0], null, 8) == 1);
		CHECK(recvmsg(s[1], &m, 0) == 1);
		int fds[8];
		memcpy(fds, CMSG_DATA(CMSG_FIRSTHDR(&m)), sizeof fds);
		for (int k = 0; k < 8; k++) {
			struct stat st;
			CHECK(fds[k] > 20 && fstat(fds[k], &st) == 0 && S_ISCHR(st.st_mode));
			CHECK(!is_cloexec(fds[k]) == !expected("cloexec"));
		}
		for (int k = 0; k < 8; k++)
			CHECK(close(fds[k]) == 0);
	}
	close(s[0]);
	close(s[1]);
	close(null);
}

int main(void)
{
	for (int fd = 3; fd < 1024; fd++)
		close(fd);
	distribution();
	collisions();
	exhaustion();
	messages();
	return done();
}

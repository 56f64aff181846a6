// Cancels threads that are blocked in calls that create descriptors. The first
// cancellation of the process's life finds threads that wait already.
#include "check.h"
#include <pthread.h>

static int listener, sock[2];
static char fifo[64];
static int cleaned;

static void cleanup(void *buffer)
{
	CHECK(strcmp(buffer, "on the stack") == 0);
	__atomic_add_fetch(&cleaned, 1, __ATOMIC_SEQ_CST);
}

static void *in_accept(void *unused)
{
	char buffer[16] = "on the stack";
	pthread_cleanup_push(cleanup, buffer);
	accept(listener, NULL, NULL);
	failed(__FILE__, __LINE__, "accept returned");
	pthread_cleanup_pop(0);
	return unused;
}

static void *in_recvmsg(void *unused)
{
	char buffer[16] = "on the stack", c, control[CMSG_SPACE(4 * sizeof(int))];
	struct iovec io = {&c, 1};
	struct msghdr m = {.msg_iov = &io, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
	pthread_cleanup_push(cleanup, buffer);
	recvmsg(sock[0], &m, 0);
	failed(__FILE__, __LINE__, "recvmsg returned");
	pthread_cleanup_pop(0);
	return unused;
}

static void *in_open(void *unused)
{
	char buffer[16] = "on the stack";
	pthread_cleanup_push(cleanup, buffer);
	open(fifo, O_RDONLY);
	failed(__FILE__, __LINE__, "open returned");
	pthread_cleanup_pop(0);
	return unused;
}

// disabled must not be cancelled before it has what it waits for.
static void *disabled(void *unused)
{
	pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, NULL);
	int fd = accept(listener, NULL, NULL);
	CHECK(fd > 2);
	CHECK(!is_cloexec(fd) == !expected("cloexec"));
	close(fd);
	return unused;
}

static struct sockaddr_un name = {.sun_family = AF_UNIX};
static socklen_t length = sizeof name;

// warm_up lets the call sites be patched before the first cancellation.
static void warm_up(void)
{
	for (int i = 0; i < 3; i++) {
		int client = socket(AF_UNIX, SOCK_STREAM, 0);
		CHECK(connect(client, (struct sockaddr *)&name, length) == 0);
		int fd = accept(listener, NULL, NULL);
		CHECK(!is_cloexec(fd) == !expected("cloexec"));
		close(fd);
		close(client);
		close(open("/dev/null", O_RDONLY));
		CHECK(send_fds(sock[1], 2, 1) == 1);
		char c, control[CMSG_SPACE(4 * sizeof(int))];
		struct iovec io = {&c, 1};
		struct msghdr m = {.msg_iov = &io, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
		CHECK(recvmsg(sock[0], &m, 0) == 1);
		memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&m)), sizeof fd);
		CHECK(!is_cloexec(fd) == !expected("cloexec"));
		close(fd);
	}
}

static void sleep_ms(int ms)
{
	struct timespec t = {0, ms * 1000000L};
	nanosleep(&t, NULL);
}

// first_cancellation cancels the first thread of a process's life after some time.
static void first_cancellation(void *(*body)(void *), int microseconds)
{
	pid_t child = fork();
	if (child == 0) {
		alarm(10);
		pthread_t thread;
		pthread_create(&thread, NULL, body, NULL);
		busy(microseconds);
		pthread_cancel(thread);
		pthread_join(thread, NULL);
		_exit(cleaned != 1);
	}
	int status;
	REQUIRE(waitpid(child, &status, 0) == child);
	CHECK(status == 0);
}

static pthread_barrier_t both;

static void *canceller(void *victim)
{
	pthread_barrier_wait(&both);
	CHECK(pthread_cancel(*(pthread_t *)victim) == 0);
	return NULL;
}

// rivals has two threads cancel others at the same time, which are the first
// ones of their process to do so.
static void rivals(void)
{
	pid_t pid = fork();
	REQUIRE(pid >= 0);
	if (pid != 0) {
		int status;
		REQUIRE(waitpid(pid, &status, 0) == pid);
		CHECK(status == 0);
		return;
	}
	alarm(60);
	failures = 0;
	pthread_t victims[2], cancellers[2];
	REQUIRE(pthread_barrier_init(&both, NULL, 2) == 0);
	for (int i = 0; i < 2; i++)
		REQUIRE(pthread_create(&victims[i], NULL, i ? in_recvmsg : in_accept, NULL) == 0);
	for (int i = 0; i < 2; i++)
		REQUIRE(pthread_create(&cancellers[i], NULL, canceller, &victims[i]) == 0);
	for (int i = 0; i < 2; i++) {
		void *result = NULL;
		REQUIRE(pthread_join(cancellers[i], NULL) == 0 && pthread_join(victims[i], &result) == 0);
		CHECK(result == PTHREAD_CANCELED);
	}
	_exit(done());
}

int main(int argc, char **argv)
{
	int rounds = argc > 1 ? atoi(argv[1]) : 50;
	snprintf(fifo, sizeof fifo, "/tmp/indirect-e2e-fifo-%d", getpid());
	REQUIRE(mkfifo(fifo, 0600) == 0);
	REQUIRE(socketpair(AF_UNIX, SOCK_DGRAM, 0, sock) == 0);
	listener = socket(AF_UNIX, SOCK_STREAM, 0);
	REQUIRE(bind(listener, (struct sockaddr *)&name, sizeof(sa_family_t)) == 0);
	REQUIRE(getsockname(listener, (struct sockaddr *)&name, &length) == 0);
	REQUIRE(listen(listener, 10) == 0);
	if (argc > 2)
		warm_up();
	void *(*const bodies[])(void *) = {in_accept, in_recvmsg, in_open};
	for (int i = 0; i < 4 * rounds; i++)
		first_cancellation(bodies[i % 3], i * 1000 / (4 * rounds));
	for (int i = 0; i < 2 * rounds; i++)
		rivals();
	for (int i = 0; i < rounds; i++) {
		pthread_t threads[3];
		for (int k = 0; k < 3; k++)
			REQUIRE(pthread_create(&threads[k], NULL, bodies[k], NULL) == 0);
		sleep_ms(i == 0 ? 100 : i % 4); // asleep, under way, or not yet begun
		for (int k = 0; k < 3; k++)
			REQUIRE(pthread_cancel(threads[k]) == 0);
		for (int k = 0; k < 3; k++) {
			void *result = NULL;
			REQUIRE(pthread_join(threads[k], &result) == 0);
			CHECK(result == PTHREAD_CANCELED);
		}
		int fd = open("/dev/null", O_RDONLY);
		CHECK(fd > 2);
		CHECK(!is_cloexec(fd) == !expected("cloexec"));
		close(fd);
	}
	// A thread may be cancelled before it has pushed its handler, but the ones
	// of the first round were asleep.
	CHECK(cleaned >= 3);
	pthread_t thread;
	REQUIRE(pthread_create(&thread, NULL, disabled, NULL) == 0);
	sleep_ms(20);
	pthread_cancel(thread);
	sleep_ms(20);
	int client = socket(AF_UNIX, SOCK_STREAM, 0);
	CHECK(connect(client, (struct sockaddr *)&name, length) == 0);
	REQUIRE(pthread_join(thread, NULL) == 0);
	warm_up();
	unlink(fifo);
	return done();
}

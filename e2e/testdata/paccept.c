// Signals at every moment of paccept's wait: each ends one wait, or stays pending.
#include "check.h"
#include <netinet/in.h>
#include <pthread.h>
#include <sched.h>

enum { PACCEPT = ADDED_BIT + 2011 };

static volatile int handled, interrupted, accepted, connected, stop;
static struct sockaddr_in address;
static pthread_t acceptor, dialler;

static void handler(int sig) { (void)sig, handled++; }

static void *send_signals(void *count)
{
	unsigned seed = 1;
	for (int i = 0; i < *(int *)count; i++) {
		pthread_kill(acceptor, SIGUSR1);
		for (double start = now(); interrupted <= i;) {
			if (now() - start > 10) {
				dprintf(2, "signal %d: handled %d, but %d waits ended\n", i, handled, interrupted);
				_exit(1);
			}
			sched_yield();
		}
		for (int pause = rand_r(&seed) % 300; pause > 0; pause--)
			__asm__ volatile("" ::: "memory");
	}
	stop = 1;
	pthread_join(dialler, NULL);
	pthread_kill(acceptor, SIGUSR1); // the last one
	return NULL;
}

static void *dial(void *unused)
{
	while (!stop) {
		int s = socket(AF_INET, SOCK_STREAM, 0);
		struct linger reset = {1, 0};
		setsockopt(s, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
		CHECK(connect(s, (struct sockaddr *)&address, sizeof address) == 0);
		int want = ++connected;
		for (double start = now(); accepted < want && now() - start < 10;)
			usleep(200);
		CHECK(accepted >= want);
		close(s);
	}
	return unused;
}

int main(int argc, char **argv)
{
	int count = argc > 1 ? atoi(argv[1]) : 1000;
	struct sigaction sa = {.sa_handler = handler};
	sigset_t block, inside;
	socklen_t len = sizeof address;
	sigaction(SIGUSR1, &sa, NULL);
	sigemptyset(&block);
	sigaddset(&block, SIGUSR1);
	pthread_sigmask(SIG_BLOCK, &block, &inside);
	acceptor = pthread_self();
	int l = socket(AF_INET, SOCK_STREAM, 0);
	address.sin_family = AF_INET;
	address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	REQUIRE(bind(l, (struct sockaddr *)&address, len) == 0 && listen(l, 10) == 0 && getsockname(l, (struct sockaddr *)&address, &len) == 0);
	pthread_t sender;
	REQUIRE(pthread_create(&dialler, NULL, dial, NULL) == 0 && pthread_create(&sender, NULL, send_signals, &count) == 0);
	while (interrupted <= count) {
		int before = handled, fd = syscall(PACCEPT, l, NULL, NULL, &inside, 8, SOCK_CLOEXEC);
		if (fd >= 0) {
			CHECK(is_cloexec(fd));
			close(fd);
			accepted++;
			CHECK(handled == before);
		} else {
			CHECK(errno == EINTR);
			CHECK(handled == before + 1);
			interrupted++;
		}
	}
	pthread_join(sender, NULL);
	CHECK(handled == count + 1 && accepted == connected && accepted > 0);
	return done();
}

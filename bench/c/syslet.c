// What a program pays for a call that goes on by itself: with syslets where
// they are, otherwise with threads of its own.
//
//   syslet round COUNT        one call at a time is handed over and waited for
//   syslet read COUNT FILE    COUNT reads of 4 KiB at random places of FILE, 32 outstanding
//
// prints nanoseconds a call.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { FUTEX_WAIT = 0, FUTEX_WAKE = 1, FUTEX_PRIVATE_FLAG = 128 };
enum { INDIRECT = 2007, RING_WAIT = 2008, ESYSLETPENDING = 132, DEPTH = 32, BLOCK = 4096 };

static void die(const char *what)
{
	fprintf(stderr, "syslet: %s: %s\n", what, strerror(errno));
	exit(1);
}

static double now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1e9 + t.tv_nsec;
}

struct call {
	uint64_t nr, arg[6];
};

// ---- syslets

static struct {
	uint32_t head, tail, elements, group;
	struct { int64_t status; uint64_t data; } comp[DEPTH];
} ring = { .elements = DEPTH };

void leave(void);
__asm__(".text\n.globl leave\nleave:\n\tmov $60, %eax\n\txor %edi, %edi\n\tsyscall\n");

static long submit(struct call *c, uint64_t data)
{
	static char stack[64];
	struct { uint64_t ring, data, ip, sp; } s = { (uint64_t)&ring, data, (uint64_t)leave, (uint64_t)(stack + sizeof stack) };
	long r = syscall(INDIRECT, c, &s, sizeof s, 0);
	return r == -1 ? -errno : r;
}

static int64_t completed(uint64_t *data)
{
	while (__atomic_load_n(&ring.head, __ATOMIC_ACQUIRE) == ring.tail)
		syscall(RING_WAIT, &ring, (unsigned long)ring.tail);
	int at = ring.tail++ % DEPTH;
	*data = ring.comp[at].data;
	return ring.comp[at].status;
}

// ---- threads: each waits for its call by a futex, and reports by another one

static struct worker {
	uint32_t go;
	struct call call;
	int64_t status;
} workers[DEPTH];
static uint32_t done, taken;
static uint32_t order[DEPTH];
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static void futex(uint32_t *at, int op, uint32_t value)
{
	syscall(SYS_futex, at, op | FUTEX_PRIVATE_FLAG, value, NULL, NULL, 0);
}

static void *work(void *arg)
{
	struct worker *w = arg;
	for (;;) {
		while (__atomic_load_n(&w->go, __ATOMIC_ACQUIRE) == 0)
			futex(&w->go, FUTEX_WAIT, 0);
		__atomic_store_n(&w->go, 0, __ATOMIC_RELAXED);
		struct call *c = &w->call;
		long r = syscall(c->nr, c->arg[0], c->arg[1], c->arg[2], c->arg[3]);
		w->status = r == -1 ? -errno : r;
		pthread_mutex_lock(&lock);
		order[done % DEPTH] = w - workers;
		__atomic_store_n(&done, done + 1, __ATOMIC_RELEASE);
		pthread_mutex_unlock(&lock);
		futex(&done, FUTEX_WAKE, 1);
	}
	return NULL;
}

static void hand_over(int worker, struct call *c)
{
	workers[worker].call = *c;
	__atomic_store_n(&workers[worker].go, 1, __ATOMIC_RELEASE);
	futex(&workers[worker].go, FUTEX_WAKE, 1);
}

static int64_t reported(uint64_t *worker)
{
	uint32_t seen;
	while ((seen = __atomic_load_n(&done, __ATOMIC_ACQUIRE)) == taken)
		futex(&done, FUTEX_WAIT, seen);
	*worker = order[taken++ % DEPTH];
	return workers[*worker].status;
}

// ---- either

static int syslets;

// start returns the call's result, or -ESYSLETPENDING if it goes on by itself.
static long start(struct call *c, int slot)
{
	if (syslets)
		return submit(c, slot);
	hand_over(slot, c);
	return -ESYSLETPENDING;
}

static int64_t next(uint64_t *slot) { return syslets ? completed(slot) : reported(slot); }

static double rounds(long n)
{
	struct call c = { SYS_close, { -1 } };
	uint64_t slot;
	double begin = now();
	for (long i = 0; i < n; i++)
		if (start(&c, 0) != -ESYSLETPENDING || next(&slot) != -EBADF)
			die("a call that does not go on by itself");
	return (now() - begin) / n;
}

static double reads(long n, const char *name)
{
	static char buffer[DEPTH][BLOCK];
	struct stat st;
	int fd = open(name, O_RDONLY | O_CLOEXEC);
	if (fd < 0 || fstat(fd, &st) < 0 || st.st_size < BLOCK)
		die(name);
	fdatasync(fd);
	posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
	posix_fadvise(fd, 0, 0, POSIX_FADV_RANDOM);
	uint64_t state = 88172645463325252ull, slot;
	int idle[DEPTH], idles = DEPTH;
	for (int i = 0; i < DEPTH; i++)
		idle[i] = i;
	double begin = now();
	for (long started = 0, ended = 0; ended < n;) {
		if (started < n && idles > 0) {
			state ^= state << 13, state ^= state >> 7, state ^= state << 17;
			int s = idle[--idles];
			struct call c = { SYS_pread64, { fd, (uint64_t)buffer[s], BLOCK, state % (st.st_size / BLOCK) * BLOCK } };
			long r = start(&c, s);
			started++;
			if (r == -ESYSLETPENDING)
				continue;
			if (r != BLOCK)
				die("read");
			slot = s;
		} else if (next(&slot) != BLOCK) {
			die("read");
		}
		idle[idles++] = slot;
		ended++;
	}
	return (now() - begin) / n;
}

int main(int argc, char **argv)
{
	if (argc < 3) {
		fprintf(stderr, "usage: syslet round COUNT | syslet read COUNT FILE\n");
		return 2;
	}
	syslets = syscall(INDIRECT, NULL, NULL, 0, 0) == 0 || errno != ENOSYS;
	int pool = argc > 3 ? DEPTH : 1;
	for (int i = 0; !syslets && i < pool; i++) {
		pthread_t t;
		if ((errno = pthread_create(&t, NULL, work, &workers[i])))
			die("thread");
	}
	long n = atol(argv[2]);
	printf("%.1f\n", argc > 3 ? reads(n, argv[3]) : rounds(n));
	return 0;
}

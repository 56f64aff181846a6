// Syslets: calls that go on by themselves while the program continues.
#include "check.h"
#include <dirent.h>
#include <netinet/in.h>
#include <pthread.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/timerfd.h>
#include <sys/prctl.h>
#include <sys/sysmacros.h>
#include <sys/uio.h>

enum { INDIRECT = 2007 + ADDED_BIT, RING_WAIT = 2008 + ADDED_BIT, ESYSLETPENDING = 132 };

#ifdef __i386__
enum { FORMER = 325, FORMER_WAIT = 326 };
#define SYS_accept SYS_accept4
#define word uint32_t
#else
enum { FORMER = 286 + ADDED_BIT, FORMER_WAIT = 287 + ADDED_BIT };
#define word uint64_t
#endif

struct registers {
	word nr, arg[6];
};
// The upper half of a position, where that is an argument of its own.
#define HIGH(at) (sizeof(word) == 4 ? (int64_t)(at) >> 32 : 0)
#define POINTER(p) ((uint64_t)(uintptr_t)(p))
struct syslet_args {
	uint64_t ring, data, ip, sp;
};
struct completion {
	int64_t status;
	uint64_t data;
};
struct ring {
	uint32_t head, tail, elements, group;
	struct completion comp[];
};

static int number = INDIRECT;

static struct ring *new_ring(uint32_t elements)
{
	struct ring *r = aligned_alloc(64, sizeof *r + elements * sizeof(struct completion));
	memset(r, 0, sizeof *r + elements * sizeof(struct completion));
	r->elements = elements;
	return r;
}

// Where a helper thread enters the program: it ends itself, on whatever stack.
void leave(void);
#ifdef __i386__
__asm__(".text\n.globl leave\nleave:\n\tmov $1, %eax\n\txor %ebx, %ebx\n\tint $0x80\n");
#else
__asm__(".text\n.globl leave\nleave:\n\tmov $60, %eax\n\txor %edi, %edi\n\tsyscall\n");
#endif

static char stack[64]; // leave uses none of it

static long submit(struct ring *ring, uint64_t data, long nr, unsigned long a, unsigned long b, unsigned long c, int64_t d)
{
	struct registers r = {nr, {a, b, c, d, HIGH(d)}};
	struct syslet_args s = {POINTER(ring), data, POINTER(leave), POINTER(stack + sizeof stack)};
	long result = syscall(number, &r, &s, sizeof s, 0);
	return result == -1 ? -errno : result;
}

static long ring_wait(struct ring *ring, unsigned long idx)
{
	long r = syscall(number == INDIRECT ? RING_WAIT : FORMER_WAIT, ring, idx);
	return r == -1 ? -errno : r;
}

// next waits for the completion that follows those that were taken.
static struct completion next(struct ring *r)
{
	while (__atomic_load_n(&r->head, __ATOMIC_ACQUIRE) == r->tail)
		CHECK(ring_wait(r, r->tail) == 0);
	struct completion c = r->comp[r->tail & (r->elements - 1)];
	r->tail++;
	return c;
}

#define FAILS(want, call)                              \
	do {                                           \
		errno = 0;                             \
		CHECK((call) == -1 && errno == want);  \
	} while (0)

static void rules(void)
{
	struct ring *good = new_ring(4), *none = new_ring(4), *three = new_ring(4), *torn;
	none->elements = 0;
	three->elements = 3;
	struct registers r = {SYS_getpid, {0}};
	struct syslet_args s = {POINTER(good), 1, POINTER(leave), POINTER(stack + sizeof stack)}, bad;
	CHECK(syscall(number, &r, &s, sizeof s, 0) == getpid());
	if (number == INDIRECT)
		FAILS(EINVAL, syscall(number, &r, &s, sizeof s, 1));
	FAILS(EINVAL, syscall(number, &r, &s, sizeof s + 1, 0));
	FAILS(EFAULT, syscall(number, &r, (void *)16, sizeof s, 0));
	if (number == INDIRECT)
		FAILS(EFAULT, syscall(number, (void *)16, &s, sizeof s, 0));
	bad = s, bad.ip = 0;
	FAILS(EINVAL, syscall(number, &r, &bad, sizeof bad, 0));
	bad = s, bad.sp = 0;
	FAILS(EINVAL, syscall(number, &r, &bad, sizeof bad, 0));
	FAILS(EINVAL, syscall(number, &r, &s, 24, 0)); // without sp
	bad = s, bad.ring = POINTER(none);
	FAILS(EINVAL, syscall(number, &r, &bad, sizeof bad, 0));
	bad = s, bad.ring = POINTER(three);
	FAILS(EINVAL, syscall(number, &r, &bad, sizeof bad, 0));
	bad = s, bad.ring = 16;
	FAILS(EFAULT, syscall(number, &r, &bad, sizeof bad, 0));
	torn = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	munmap((char *)torn + 4096, 4096);
	bad = s, bad.ring = POINTER(torn) + 4096 - 8;
	FAILS(EFAULT, syscall(number, &r, &bad, sizeof bad, 0));
	// Without a ring it is a plain call, from the white list.
	bad = s, bad.ring = 0;
	FAILS(EINVAL, syscall(number, &r, &bad, sizeof bad, 0));
	r.nr = SYS_open, r.arg[0] = POINTER("/dev/null");
	BORN(0, syscall(number, &r, &bad, sizeof bad, 0));
	// No number is refused but those that return twice.
	r.nr = SYS_clone;
	FAILS(EINVAL, syscall(number, &r, &s, sizeof s, 0));
	CHECK(good->head == 0);
	// What blocks, or may: pending, even if it then fails.
	CHECK(submit(good, 7, 1000 + ADDED_BIT, 0, 0, 0, 0) == -ESYSLETPENDING);
	struct completion c = next(good);
	CHECK(c.status == -ENOSYS && c.data == 7);
	CHECK(submit(good, 8, SYS_open, (long)"/nowhere/at/all", 0, 0, 0) == -ESYSLETPENDING);
	c = next(good);
	CHECK(c.status == -ENOENT && c.data == 8);
	CHECK(submit(good, 9, SYS_close, -1, 0, 0, 0) == -ESYSLETPENDING);
	c = next(good);
	CHECK(c.status == -EBADF && c.data == 9);
	// The status is an int.
	CHECK(submit(good, 10, SYS_poll, 0, 0, 1, 0) == -ESYSLETPENDING);
	c = next(good);
	CHECK(c.status == 0 && c.data == 10);
	// ring_wait
	CHECK(good->head == 4 && ring_wait(good, 0) == 0);
	if (number == INDIRECT)
		FAILS(EFAULT, syscall(RING_WAIT, 16, 0));
#ifdef __LP64__
	CHECK(ring_wait(good, 1UL << 32 | 4) == 0);
	if (number == INDIRECT)
		FAILS(EFAULT, syscall(RING_WAIT, 16, 1UL << 32));
#endif
	munmap(torn, 4096);
	free(good), free(none), free(three);
}

// A descriptor that a syslet creates gets what every descriptor gets.
static void properties(void)
{
	struct ring *r = new_ring(2);
	int low = lowest_free();
	CHECK(submit(r, 1, SYS_open, (long)"/dev/null", O_RDONLY, 0, 0) == -ESYSLETPENDING);
	int fd = next(r).status;
	born(__FILE__, __LINE__, "opened by a syslet", low, fd, 0);
	close(fd);
	int pair[2];
	low = lowest_free();
	CHECK(submit(r, 1, SYS_pipe, (long)pair, 0, 0, 0) == 0);
	born(__FILE__, __LINE__, "piped by a syslet", low, pair[0], 0);
	close(pair[0]), close(pair[1]);
	free(r);
}

// Can the kernel try to read a pipe, and any file, without waiting?
static int sure;

// told is what the program learns of a call at once, or if that is not sure to
// be so, by its completion.
static long told(struct ring *r, long result)
{
	return !sure && result == -ESYSLETPENDING ? next(r).status : result;
}

static void attempts(void)
{
	struct ring *r = new_ring(8);
	char b[16];
	int p[2], s[2];
	REQUIRE(pipe(p) == 0 && socketpair(AF_UNIX, SOCK_STREAM, 0, s) == 0);
	for (int i = 0; i < 2; i++)
		fcntl(p[i], F_SETFL, 0), fcntl(s[i], F_SETFL, 0);
	CHECK(told(r, submit(r, 1, SYS_write, p[1], (long)"one", 3, 0)) == 3);
	CHECK(told(r, submit(r, 1, SYS_read, p[0], (long)b, sizeof b, 0)) == 3);
	uint32_t head = r->head;
	CHECK(!sure || head == 0);
	CHECK(submit(r, 1, SYS_sendto, s[1], (long)"two!", 4, 0) == 4);
	CHECK(submit(r, 1, SYS_recvfrom, s[0], (long)b, sizeof b, 0) == 4);
	CHECK(submit(r, 1, SYS_recvfrom, p[0], (long)b, sizeof b, 0) == -ENOTSOCK);
	CHECK(submit(r, 1, SYS_read, -1, (long)b, sizeof b, 0) == -EBADF);
	CHECK(r->head == head);
	CHECK(submit(r, 2, SYS_read, p[0], (long)b, sizeof b, 0) == -ESYSLETPENDING);
	CHECK(submit(r, 3, SYS_recvfrom, s[0], (long)b, sizeof b, 0) == -ESYSLETPENDING);
	usleep(20000);
	CHECK(r->head == head);
	CHECK(write(s[1], "three", 5) == 5);
	struct completion c = next(r);
	CHECK(c.status == 5 && c.data == 3);
	CHECK(write(p[1], "four44", 6) == 6);
	c = next(r);
	CHECK(c.status == 6 && c.data == 2);
	head = r->head;
	fcntl(p[0], F_SETFL, O_NONBLOCK), fcntl(s[0], F_SETFL, O_NONBLOCK);
	CHECK(submit(r, 4, SYS_read, p[0], (long)b, sizeof b, 0) == -EAGAIN);
	CHECK(submit(r, 5, SYS_recvfrom, s[0], (long)b, sizeof b, 0) == -EAGAIN);
	struct sockaddr_un name = {.sun_family = AF_UNIX};
	int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);
	REQUIRE(bind(listener, (struct sockaddr *)&name, sizeof name.sun_family) == 0 && listen(listener, 1) == 0);
	CHECK(submit(r, 6, SYS_accept, listener, 0, 0, 0) == -EAGAIN);
	close(listener);
	int timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK);
	CHECK(submit(r, 7, SYS_read, timer, (long)b, 8, 0) == -EAGAIN);
	close(timer);
	CHECK(r->head == head);
	close(p[0]), close(p[1]), close(s[0]), close(s[1]);
	free(r);
}

// The head goes round at 2^32.
static void wraps(void)
{
	struct ring *r = new_ring(4);
	r->head = r->tail = (uint32_t)-3;
	for (int i = 0; i < 10; i++) {
		CHECK(submit(r, i, SYS_close, -1, 0, 0, 0) == -ESYSLETPENDING);
		struct completion c = next(r);
		CHECK(c.status == -EBADF && c.data == (uint64_t)i);
	}
	CHECK(r->head == 7);
	free(r);
}

static int threads(void)
{
	char line[200];
	int n = -1;
	FILE *f = fopen("/proc/self/status", "re");
	while (f && fgets(line, sizeof line, f))
		if (sscanf(line, "Threads: %d", &n) == 1)
			break;
	if (f)
		fclose(f);
	return n;
}

// Nothing is left behind, by helpers that are used again and by others.
static void many(int count)
{
	struct ring *r = new_ring(64);
	struct rusage before, after;
	int pending = 0;
	for (int i = 0; i < count; i++) {
		if (i == count / 10)
			getrusage(RUSAGE_SELF, &before);
		if (pending == 32) {
			next(r);
			pending--;
		}
		CHECK(submit(r, i, i & 1 ? SYS_close : SYS_fchdir, -1, 0, 0, 0) == -ESYSLETPENDING);
		pending++;
	}
	while (pending-- > 0)
		CHECK(next(r).status == -EBADF);
	getrusage(RUSAGE_SELF, &after);
	CHECK(after.ru_maxrss - before.ru_maxrss < 1024);
	for (int i = 0; i < 1000 && threads() > 1; i++)
		usleep(1000);
	CHECK(threads() == 1);
	free(r);
}

// Many submitters on one ring.
static struct ring *common;
enum { SUBMITTERS = 64, EACH = 50 };
static int each = EACH;

static void *submitter(void *number_)
{
	long n = (long)number_;
	for (int i = 0; i < each; i++) {
		long result = submit(common, n * EACH + i, SYS_close, -1, 0, 0, 0);
		CHECK(result == -ESYSLETPENDING);
	}
	return NULL;
}

static void crowd(void)
{
	pthread_t t[SUBMITTERS];
	static char seen[SUBMITTERS * EACH];
	common = new_ring(4096);
	for (long i = 0; i < SUBMITTERS; i++)
		REQUIRE(pthread_create(&t[i], NULL, submitter, (void *)i) == 0);
	for (int i = 0; i < SUBMITTERS * each; i++) {
		struct completion c = next(common);
		REQUIRE(c.data < sizeof seen);
		CHECK(c.status == -EBADF && !seen[c.data]++);
	}
	for (int i = 0; i < SUBMITTERS; i++)
		pthread_join(t[i], NULL);
	free(common);
}

// A child of fork has none of its parent's syslets, and can have its own.
static void forks(void)
{
	struct ring *r = new_ring(4);
	int p[2];
	char c;
	REQUIRE(pipe(p) == 0);
	fcntl(p[0], F_SETFL, 0);
	CHECK(submit(r, 5, SYS_read, p[0], (long)&c, 1, 0) == -ESYSLETPENDING);
	pid_t pid = fork();
	if (pid == 0) {
		failures = 0;
		CHECK(threads() == 1);
		for (int i = 0; i < 100; i++) {
			CHECK(submit(r, i, SYS_close, -1, 0, 0, 0) == -ESYSLETPENDING);
			CHECK(next(r).data == (uint64_t)i);
		}
		_exit(done());
	}
	int status;
	CHECK(waitpid(pid, &status, 0) == pid && status == 0);
	CHECK(r->head == 0 && write(p[1], "x", 1) == 1);
	struct completion e = next(r);
	CHECK(e.status == 1 && e.data == 5 && c == 'x');
	// And one that ends with a syslet pending ends.
	pid = fork();
	if (pid == 0) {
		submit(r, 6, SYS_read, p[0], (long)&c, 1, 0);
		_exit(7);
	}
	CHECK(waitpid(pid, &status, 0) == pid && WEXITSTATUS(status) == 7);
	pid = fork();
	if (pid == 0) {
		submit(r, 6, SYS_read, p[0], (long)&c, 1, 0);
		execl("/bin/true", "true", (char *)NULL);
	}
	CHECK(waitpid(pid, &status, 0) == pid && status == 0);
	close(p[0]), close(p[1]);
	free(r);
}

// The helper enters the program with its registers, thread pointer and mask.
static volatile uint64_t entered[8];
void enter(void);
#ifdef __i386__
#define SELF(p) __asm__ volatile("mov %%gs:0, %0" : "=r"(p))
__asm__(".text\n.globl enter\nenter:\n" // edi points to entered
	"\tmov %eax, (%edi)\n\tmov %esp, 8(%edi)\n\tmov %ebx, 16(%edi)\n\tmov %ebp, 24(%edi)\n"
	"\tpush %eax\n\tmov %gs:0, %eax\n\tmov %eax, 32(%edi)\n\tpop %eax\n"
	"\tmovl $1, 56(%edi)\n"
	"\tmov $1, %eax\n\txor %ebx, %ebx\n\tint $0x80\n");

static long enters(struct registers *call, struct syslet_args *s)
{
	long result;
	memset((void *)entered, 0, sizeof entered);
	__asm__ volatile("push %%ebp\n\tmov $0x2222, %%ebp\n\tint $0x80\n\tpop %%ebp"
			 : "=a"(result)
			 : "a"(number), "b"(call), "c"(s), "d"(sizeof *s), "S"(0), "D"(entered)
			 : "memory");
	return result;
}
#else
#define SELF(p) __asm__ volatile("mov %%fs:0, %0" : "=r"(p))
__asm__(".text\n.globl enter\nenter:\n"
	"\tlea entered(%rip), %rcx\n"
	"\tmov %rax, (%rcx)\n\tmov %rsp, 8(%rcx)\n\tmov %rdi, 16(%rcx)\n\tmov %rbp, 24(%rcx)\n\tmov %r12, 40(%rcx)\n\tmov %rbx, 48(%rcx)\n"
	"\tpush %rax\n\tmov %fs:0, %rax\n\tmov %rax, 32(%rcx)\n\tpop %rax\n"
	"\tmovl $1, 56(%rcx)\n"
	"\tmov $60, %eax\n\txor %edi, %edi\n\tsyscall\n");

static long enters(struct registers *call, struct syslet_args *s)
{
	long result;
	register long r10 __asm__("r10") = 0;
	memset((void *)entered, 0, sizeof entered);
	__asm__ volatile("push %%rbx\n\tpush %%rbp\n\tpush %%r12\n\t"
			 "mov $0x1111, %%ebx\n\tmov $0x2222, %%ebp\n\tmov $0x3333, %%r12d\n\tsyscall\n\t"
			 "pop %%r12\n\tpop %%rbp\n\tpop %%rbx"
			 : "=a"(result)
			 : "a"((long)number), "D"(call), "S"(s), "d"(sizeof *s), "r"(r10)
			 : "rcx", "r11", "memory");
	return result;
}
#endif

// arrives waits until a helper has entered.
static void arrives(void)
{
	for (double start = now(); !entered[7] && now() - start < 10;)
		sched_yield();
	CHECK(entered[7] == 1);
}

static void registers(void)
{
	static char entry[4096];
	struct ring *r = new_ring(2);
	struct registers call = {SYS_close, {(word)-1}};
	struct syslet_args s = {POINTER(r), 3, POINTER(enter), POINTER(entry + 4000)};
	uint64_t here = 0;
#ifdef __i386__
	uint32_t self;
#else
	uint64_t self;
#endif
	SELF(self);
	here = self;
	CHECK(enters(&call, &s) == -ESYSLETPENDING);
	next(r);
	arrives();
	CHECK(entered[0] == 0 && entered[1] == s.sp && entered[2] == POINTER(&call) && entered[3] == 0x2222 && entered[4] == here);
	if (sizeof(word) == 8)
		CHECK(entered[5] == 0x3333 && entered[6] == 0x1111);
	free(r);
}

// A ring that has gone: the helper is told.
static void lost(void)
{
	static char entry[4096];
	struct ring *r = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	int p[2];
	char c;
	REQUIRE(pipe(p) == 0);
	fcntl(p[0], F_SETFL, 0);
	for (int how = 0; how < 2; how++) {
		r->elements = 2;
		struct registers call = {SYS_read, {p[0], POINTER(&c), 1}};
		struct syslet_args s = {POINTER(r), 3, POINTER(enter), POINTER(entry + 4000)};
		CHECK(enters(&call, &s) == -ESYSLETPENDING);
		if (how == 0)
			r->elements = 6;
		else
			munmap(r, 4096);
		CHECK(write(p[1], "x", 1) == 1);
		arrives();
		CHECK((int32_t)entered[0] == (how == 0 ? -EINVAL : -EFAULT));
	}
	close(p[0]), close(p[1]);
}

// Signals go to the program's threads, not to helpers; a wait for the ring
// ends with EINTR, or goes on.
static volatile sig_atomic_t handled;
static pthread_t main_thread;
static volatile int elsewhere;
static void handler(int sig)
{
	(void)sig;
	handled++;
	if (!pthread_equal(pthread_self(), main_thread))
		elsewhere++;
}

static volatile int enough;

static void *signals_later(void *unused)
{
	while (!enough) {
		usleep(1000);
		pthread_kill(main_thread, SIGUSR1);
	}
	return unused;
}

static void signals(void)
{
	struct ring *r = new_ring(4);
	int p[2];
	char c;
	pthread_t t;
	main_thread = pthread_self();
	REQUIRE(pipe(p) == 0);
	fcntl(p[0], F_SETFL, 0);
	struct sigaction sa = {.sa_handler = handler};
	sigaction(SIGUSR1, &sa, NULL);
	CHECK(submit(r, 1, SYS_read, p[0], (long)&c, 1, 0) == -ESYSLETPENDING);
	REQUIRE(pthread_create(&t, NULL, signals_later, NULL) == 0);
	int interrupted = 0;
	while (handled < 50) {
		long w = ring_wait(r, 0);
		CHECK(w == -EINTR);
		interrupted += w == -EINTR;
	}
	enough = 1;
	pthread_join(t, NULL);
	CHECK(interrupted > 0 && elsewhere == 0);
	CHECK(write(p[1], "x", 1) == 1);
	CHECK(next(r).status == 1);
	close(p[0]), close(p[1]);
	free(r);
}

// Reads at a place: what is cached, and the end of the file, are told at once,
// wherever the call's description lies.
static void places(void)
{
	struct description {
		struct registers call;
		struct syslet_args syslet;
	} *elsewhere = malloc(sizeof *elsewhere), here;
	struct ring *r = new_ring(4);
	char path[] = "/tmp/indirect-e2e-XXXXXX", b[3 * 4096];
	int fd = mkstemp(path);
	REQUIRE(fd >= 0);
	unlink(path);
	memset(b, 'x', sizeof b);
	REQUIRE(write(fd, b, 5000) == 5000);
	const struct { long count; int64_t at; long want; } reads[] = {
		{100, 0, 100}, {4096, 4, 4096}, {904, 4096, 904}, {0, 0, 0}, {0, 9000, 0}, {10, 5000, 0}, {4096, 1 << 20, 0}, {10, INT64_MAX - 20, 0},
	};
	for (size_t i = 0; i < sizeof reads / sizeof *reads; i++) {
		here.call = (struct registers){SYS_pread64, {fd, POINTER(b), reads[i].count, reads[i].at, HIGH(reads[i].at)}};
		here.syslet = (struct syslet_args){POINTER(r), i, POINTER(leave), POINTER(stack + sizeof stack)};
		*elsewhere = here;
		for (int j = 0; j < 2; j++) {
			struct description *d = j ? elsewhere : &here;
			errno = 0;
			long n = syscall(number, &d->call, &d->syslet, sizeof d->syslet, 0);
			CHECK(told(r, n == -1 ? -errno : n) == reads[i].want);
		}
	}
	CHECK(!sure || r->head == 0);
	// These may be pending, with the same result.
	const struct { long count; int64_t at; long want; } others[] = {{sizeof b, 0, 5000}, {4096, 4096, 904}, {10, -1, -EINVAL}, {-1, 0, -EFAULT}};
	for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
		long n = submit(r, i, SYS_pread64, fd, (long)b, others[i].count, others[i].at);
		if (n == -ESYSLETPENDING)
			n = next(r).status;
		CHECK(n == others[i].want || (sizeof(long) == 4 && others[i].count == -1)); // it is no size that cannot be
	}
	close(fd);
	free(elsewhere), free(r);
}

// Helpers that only read a file are used again. Nobody notices.
static int uncached(const char *content, size_t size)
{
	char path[] = "/tmp/indirect-e2e-XXXXXX";
	int fd = mkstemp(path);
	REQUIRE(fd >= 0);
	fcntl(fd, F_SETFL, 0);
	unlink(path);
	for (size_t at = 0; at < size; at += 4096)
		REQUIRE(write(fd, content, 4096) == 4096);
	fdatasync(fd);
	posix_fadvise(fd, 0, 0, POSIX_FADV_RANDOM);
	return fd;
}

static long read_uncached(struct ring *r, int fd, char *b, long at)
{
	posix_fadvise(fd, at, 4096, POSIX_FADV_DONTNEED);
	memset(b, 0, 4096);
	long n = submit(r, 1, SYS_pread64, fd, (long)b, 4096, at);
	return n == -ESYSLETPENDING ? next(r).status : n;
}

enum { PAGES = 100, READERS = 8 };
static char ones[4096], twos[4096];

// One thread's descriptors are not another's.
static void *unshared(void *arg)
{
	struct ring *r = arg;
	char b[4096];
	int fd = uncached(ones, PAGES * 4096), other = uncached(twos, PAGES * 4096);
	for (int i = 0; i < 20; i++)
		CHECK(read_uncached(r, fd, b, i * 4096) == 4096 && b[7] == '1');
	REQUIRE(unshare(CLONE_FILES) == 0 && dup2(other, fd) == fd);
	for (int i = 0; i < 20; i++)
		CHECK(read_uncached(r, fd, b, i * 4096) == 4096 && b[7] == '2');
	return NULL;
}

static void *reader(void *arg)
{
	char b[4096];
	struct ring *r = new_ring(2);
	for (int i = 0; i < PAGES; i++)
		CHECK(read_uncached(r, *(int *)arg, b, i * 4096) == 4096 && b[9] == '1');
	free(r);
	return NULL;
}

static void spares(void)
{
	static char seen[4 << 20];
	struct ring *r = new_ring(4);
	char b[4096];
	int status, again = 0, before, pending = 0;
	memset(ones, '1', sizeof ones), memset(twos, '2', sizeof twos);
	int fd = uncached(ones, PAGES * 4096);
	for (int i = 0; i < PAGES; i++) {
		before = r->head;
		CHECK(read_uncached(r, fd, b, i * 4096) == 4096 && b[4095] == '1');
		pending += (int)r->head != before;
		DIR *tasks = opendir("/proc/self/task");
		for (struct dirent *e; (e = readdir(tasks));)
			if (atoi(e->d_name) != getpid())
				again += seen[atoi(e->d_name) % sizeof seen]++ > 0;
		closedir(tasks);
	}
	printf("%d of %d reads pending, %d times by a thread that was there\n", pending, PAGES, again);
	struct stat st;
	REQUIRE(fstat(fd, &st) == 0);
	CHECK(again > 0 || pending < PAGES || major(st.st_dev) == 0);
	// Other continuations are still entered.
	static char entry[4096];
	struct registers call = {SYS_pread64, {fd, POINTER(b), 4096, 0}};
	struct syslet_args s = {POINTER(r), 3, POINTER(enter), POINTER(entry + 4000)};
	posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
	if (enters(&call, &s) == -ESYSLETPENDING) {
		CHECK(next(r).status == 4096);
		arrives();
		CHECK(entered[1] == s.sp);
	}
	// fork, exec, and the end of the last thread
	for (int how = 0; how < 4; how++) {
		read_uncached(r, fd, b, 0);
		pid_t pid = fork();
		if (pid == 0) {
			failures = 0;
			CHECK(threads() == 1);
			CHECK(read_uncached(r, fd, b, 4096) == 4096 && b[5] == '1');
			if (how == 0)
				_exit(5);
			if (how == 1)
				execl("/bin/sh", "sh", "-c", "exit 5", (char *)NULL);
			if (how == 2)
				syscall(SYS_exit, 5);
			// A filter of its own holds for its syslets.
			struct {
				uint16_t code;
				uint8_t jt, jf;
				uint32_t k;
			} code[] = {
				{0x20, 0, 0, 0}, {0x15, 0, 1, SYS_pread64}, {0x06, 0, 0, 0x00050000 | ENOTTY}, {0x06, 0, 0, 0x7fff0000},
			};
			struct {
				unsigned short length;
				void *code;
			} program = {4, code};
			read_uncached(r, fd, b, 4096);
			REQUIRE(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 && prctl(PR_SET_SECCOMP, 2, &program) == 0);
			before = r->head;
			long n = read_uncached(r, fd, b, 4096);
			CHECK((int)r->head == before || n == -ENOTTY);
			_exit(done() ? 6 : 5);
		}
		double start = now();
		// The status is that of the thread that ends last.
		CHECK(waitpid(pid, &status, 0) == pid && WIFEXITED(status) && (WEXITSTATUS(status) == 5 || how == 2));
		CHECK(now() - start < 30);
	}
	pthread_t t[READERS];
	for (int i = 0; i < READERS; i++)
		REQUIRE(pthread_create(&t[i], NULL, reader, &fd) == 0);
	for (int i = 0; i < READERS; i++)
		pthread_join(t[i], NULL);
	REQUIRE(pthread_create(&t[0], NULL, unshared, r) == 0);
	pthread_join(t[0], NULL);
	for (int i = 0; i < 1000 && threads() > 1; i++)
		usleep(1000);
	CHECK(threads() == 1);
	close(fd);
	free(r);
}

// A file read with 64 reads outstanding, each byte checked.
static void file(size_t size)
{
	enum { OUTSTANDING = 64, BLOCK = 64 << 10 };
	char path[] = "/tmp/indirect-e2e-XXXXXX";
	int fd = mkstemp(path);
	REQUIRE(fd >= 0);
	fcntl(fd, F_SETFL, 0);
	unlink(path);
	uint32_t *block = malloc(BLOCK);
	for (size_t at = 0; at < size; at += BLOCK) {
		for (size_t i = 0; i < BLOCK / 4; i++)
			block[i] = (at / 4 + i) * 2654435761u;
		REQUIRE(write(fd, block, BLOCK) == BLOCK);
	}
	fdatasync(fd);
	posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
	struct ring *r = new_ring(OUTSTANDING);
	uint32_t *buffer[OUTSTANDING];
	size_t where[OUTSTANDING], at = 0, read = 0, pending = 0, count = 0, direct = 0;
	int idle[OUTSTANDING], idles = OUTSTANDING;
	for (int i = 0; i < OUTSTANDING; i++)
		buffer[i] = malloc(BLOCK), idle[i] = i;
	while (read < size) {
		int slot;
		long n;
		if (at < size && idles > 0) {
			slot = idle[--idles];
			where[slot] = at;
			at += BLOCK;
			n = submit(r, slot, SYS_pread64, fd, (long)buffer[slot], BLOCK, where[slot]);
			if (n == -ESYSLETPENDING) {
				pending++, count++;
				continue;
			}
			direct++;
		} else {
			struct completion c = next(r);
			slot = c.data, n = c.status, pending--;
		}
		REQUIRE(n == BLOCK);
		for (size_t i = 0; i < BLOCK / 4; i++)
			if (buffer[slot][i] != (uint32_t)((where[slot] / 4 + i) * 2654435761u)) {
				CHECK(!"a wrong byte");
				_exit(1);
			}
		read += n;
		idle[idles++] = slot;
	}
	printf("%zu blocks: %zu at once, %zu pending\n", size / BLOCK, direct, count);
	CHECK(pending == 0);
	for (int i = 0; i < OUTSTANDING; i++)
		free(buffer[i]);
	free(block), free(r);
	close(fd);
}

static void *waits(void *unused)
{
	pause();
	return unused;
}

// cancels makes the process one that cancels threads.
static void cancels(void)
{
	pthread_t thread;
	REQUIRE(pthread_create(&thread, NULL, waits, NULL) == 0);
	REQUIRE(pthread_cancel(thread) == 0 && pthread_join(thread, NULL) == 0);
}

int main(int argc, char **argv)
{
	sure = getenv("OLD_KERNEL") == NULL;
	int count = argc > 1 ? atoi(argv[1]) : 20000;
	if (count < 1000)
		each = 3;
	size_t megabytes = argc > 2 ? atoi(argv[2]) : 64;
	for (int round = 0; round < 2; round++) {
		number = round ? FORMER : INDIRECT;
		rules();
		properties();
		attempts();
		places();
		wraps();
	}
	number = INDIRECT;
	registers();
	lost();
	many(count);
	crowd();
	forks();
	signals();
	spares();
	file(megabytes << 20);
	cancels();
	properties();
	attempts();
	many(count < 1000 ? count : 1000);
	return done();
}

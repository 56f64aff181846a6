// Little room: of address space, of stack, of descriptors. It prints what
// calls give: whatever runs it, the output must be the same, unless it says
// otherwise. The first argument: "full", "as", "stack", or a limit for descriptors.
#include "check.h"
#include <pthread.h>
#include <sys/mman.h>

#ifndef MAP_FIXED_NOREPLACE
#define MAP_FIXED_NOREPLACE 0x100000
#endif

static void calls(void)
{
	for (int i = 0; i < 3; i++) {
		int p[2], fd = open("/dev/null", O_RDONLY);
		CHECK(fd > 2);
		CHECK(!is_cloexec(fd) == !expected("cloexec"));
		CHECK(pipe(p) == 0);
		CHECK(!is_cloexec(p[0]) == !expected("cloexec"));
		CHECK(!is_cloexec(p[1]) == !expected("cloexec"));
		int s = socket(AF_UNIX, SOCK_STREAM, 0);
		CHECK(!is_cloexec(s) == !expected("cloexec"));
		int d = dup(s);
		CHECK(!is_cloexec(d) == !expected("cloexec"));
		CHECK(close(fd) == 0 && close(p[0]) == 0 && close(p[1]) == 0 && close(s) == 0 && close(d) == 0);
	}
}

// full takes all of the low addresses: there is no room for what we map there.
static void full(void)
{
	unsigned long at = 0x10000, top = 0x80000000ul;
	for (unsigned long size = 0x10000000; size >= 4096; size /= 2)
		for (unsigned long a = at; a + size <= top; a += size)
			syscall(SYS_mmap, a, size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE | MAP_NORESERVE, -1, 0);
	calls();
	CHECK(succeeds(calls));
}

// as leaves no address space to map anything.
static void as(void)
{
	unsigned long pages = 0;
	int fd = open("/proc/self/statm", O_RDONLY | O_CLOEXEC);
	char text[100] = "";
	REQUIRE(read(fd, text, sizeof text - 1) > 0);
	close(fd);
	pages = strtoul(text, NULL, 10);
	struct rlimit limit = {(pages + 4) * 4096, RLIM_INFINITY};
	REQUIRE(setrlimit(RLIMIT_AS, &limit) == 0);
	calls();
}

static int fds[5];

static void calls_on_little_stack(void)
{
	fds[0] = syscall(SYS_openat, AT_FDCWD, "/dev/null", O_RDONLY);
	fds[1] = syscall(SYS_dup, fds[0]);
	fds[2] = syscall(SYS_epoll_create1, 0);
	fds[3] = syscall(SYS_socket, AF_UNIX, SOCK_STREAM, 0);
	fds[4] = syscall(SYS_eventfd2, 0, 0);
}

// on_stack calls fn on the stack that ends at top.
static void on_stack(char *top, void (*fn)(void))
{
	__asm__ volatile("mov %%rsp, %%rbx; mov %0, %%rsp; call *%1; mov %%rbx, %%rsp"
			 : "+r"(top), "+r"(fn)
			 :
			 : "rbx", "rax", "rcx", "rdx", "rsi", "rdi", "r8", "r9", "r10", "r11", "memory", "cc");
}

// stack makes calls with the stack pointer close to the end of its stack,
// below which there is nothing.
static void stack(void)
{
	syscall(SYS_getppid); // the dynamic linker's work takes stack
	// What is injected takes up to 448 bytes below the stack pointer; a signal
	// handler takes more than that.
	for (int room = 2048; room >= 512; room -= 64) {
		char *pages = mmap(NULL, 2 * 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		REQUIRE(pages != MAP_FAILED && mprotect(pages + 4096, 4096, PROT_READ | PROT_WRITE) == 0);
		dprintf(2, "%d bytes of stack\n", room); // where it dies, if it does
		on_stack(pages + 4096 + room, calls_on_little_stack);
		for (int i = 0; i < 5; i++) {
			CHECK(fds[i] > 2);
			CHECK(!is_cloexec(fds[i]) == !expected("cloexec"));
			CHECK(close(fds[i]) == 0);
		}
		munmap(pages, 2 * 4096);
	}
}

#define SAY(call)                                                                            \
	do {                                                                                 \
		errno = 0;                                                                   \
		int r_ = (call), e_ = errno;                                                 \
		printf("%d: %s: %s, errno %d\n", limit, #call, r_ < 0 ? "failed" : "done", e_); \
	} while (0)

// files makes calls under tiny limits until each has failed.
static void files(int limit)
{
	int s[2], p[2];
	REQUIRE(socketpair(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0, s) == 0);
	REQUIRE(send_fds(s[0], s[0], 3) == 1);
	REQUIRE(dup2(s[1], 0) == 0); // keeps a socket with a message in it
	close(s[0]);
	close(s[1]);
	fflush(NULL);
	struct rlimit r = {limit, limit};
	REQUIRE(setrlimit(RLIMIT_NOFILE, &r) == 0);
	for (int round = 0; round < 12; round++) {
		SAY(open("/dev/null", O_RDONLY));
		SAY(dup(2));
		SAY(fcntl(2, F_DUPFD, 0));
		SAY(fcntl(2, F_DUPFD, 3));
		SAY(fcntl(2, F_DUPFD, 5));
		SAY(fcntl(2, F_DUPFD_CLOEXEC, 0));
		SAY(pipe(p));
		SAY(pipe2(p, O_CLOEXEC));
		SAY(socket(AF_UNIX, SOCK_STREAM, 0));
		SAY(socketpair(AF_UNIX, SOCK_STREAM, 0, p));
		SAY(syscall(SYS_epoll_create1, 0));
		SAY(syscall(SYS_eventfd2, 0, 0));
		SAY(dup2(2, 4));
	}
	char byte, control[CMSG_SPACE(4 * sizeof(int))];
	struct iovec io = {&byte, 1};
	struct msghdr m = {.msg_iov = &io, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
	SAY(recvmsg(0, &m, 0));
	printf("flags %x, control %zu\n", m.msg_flags & ~MSG_CMSG_CLOEXEC, (size_t)m.msg_controllen);
}

int main(int argc, char **argv)
{
	REQUIRE(argc > 1);
	for (int fd = 3; fd < 256; fd++)
		close(fd);
	if (argc > 2 && strcmp(argv[2], "warm") == 0)
		calls(); // what is needed is there before room gets short
	if (strcmp(argv[1], "full") == 0)
		full();
	else if (strcmp(argv[1], "as") == 0)
		as();
	else if (strcmp(argv[1], "stack") == 0)
		stack();
	else
		files(atoi(argv[1]));
	return done();
}

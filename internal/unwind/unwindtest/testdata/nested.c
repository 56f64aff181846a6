/* Waits some calls deep; -DSIGNAL in a signal handler, -DALTSTACK on its own
   stack, -DTHREAD in a thread, -DALLOCA with frames of varying size. */
#define _GNU_SOURCE
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

volatile int depth = 5;

static void wait_here(void)
{
	char byte;
	printf("%d\n", (int)syscall(SYS_gettid));
	fflush(stdout);
	while (read(0, &byte, 1) >= 0)
		;
}

static inline __attribute__((always_inline)) void inlined_twice(int x)
{
	if (x >= 0)
		wait_here();
	depth++;
}

static inline __attribute__((always_inline)) void inlined(int x)
{
	inlined_twice(x * depth);
	depth++;
}

__attribute__((noinline)) void leaf(int x)
{
	inlined(x);
	depth++;
}

__attribute__((noinline)) int recurse(int n)
{
#ifdef ALLOCA
	volatile char *room = __builtin_alloca(n * 100 + depth);
	room[n] = 1;
#endif
	if (n == 0)
		leaf(n);
	else
		recurse(n - 1);
	return depth++;
}

static int compare(const void *a, const void *b)
{
	recurse(depth);
	return *(const int *)a - *(const int *)b;
}

static void on_signal(int signal)
{
	recurse(2);
	depth = signal;
}

static void *thread(void *unused)
{
	int a[] = { 2, 1 };
	qsort(a, 2, sizeof *a, compare);
	return unused;
}

int main(void)
{
#if defined SIGNAL
	struct sigaction action;
	memset(&action, 0, sizeof action);
	action.sa_handler = on_signal;
#ifdef ALTSTACK
	stack_t stack = { .ss_sp = malloc(1 << 16), .ss_size = 1 << 16 };
	sigaltstack(&stack, 0);
	action.sa_flags = SA_ONSTACK;
#endif
#ifdef SIGINFO
	action.sa_flags |= SA_SIGINFO;
#endif
	sigaction(SIGUSR1, &action, 0);
	raise(SIGUSR1);
#elif defined THREAD
	pthread_t t;
	pthread_create(&t, 0, thread, 0);
	pthread_join(t, 0);
#else
	(void)on_signal;
	thread(0);
#endif
	return depth;
}

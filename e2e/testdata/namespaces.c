// Descriptor-creating calls inside namespaces and a changed root directory.
// The arguments: the namespaces to unshare (user, pid, mount, net, ipc, uts), and
// "chroot=DIRECTORY" with a copy of this program in it, to be run there.
#include "check.h"
#include <sched.h>

static void calls(void)
{
	for (int i = 0; i < 3; i++) {
		int p[2], fd = open("/", O_RDONLY);
		CHECK(fd > 2);
		CHECK(!is_cloexec(fd) == !expected("cloexec"));
		CHECK(pipe(p) == 0);
		CHECK(!is_cloexec(p[0]) == !expected("cloexec"));
		CHECK(!is_cloexec(p[1]) == !expected("cloexec"));
		int s = socket(AF_UNIX, SOCK_STREAM, 0);
		CHECK(s > 2);
		CHECK(!is_cloexec(s) == !expected("cloexec"));
		int d = dup(fd);
		CHECK(d > 2);
		CHECK(!is_cloexec(d) == !expected("cloexec"));
		CHECK(close(d) == 0 && close(s) == 0 && close(p[0]) == 0 && close(p[1]) == 0 && close(fd) == 0);
	}
}

int main(int argc, char **argv)
{
	const struct {
		const char *name;
		int flag;
	} kinds[] = {{"user", CLONE_NEWUSER}, {"pid", CLONE_NEWPID}, {"mount", CLONE_NEWNS}, {"net", CLONE_NEWNET}, {"ipc", CLONE_NEWIPC}, {"uts", CLONE_NEWUTS}};
	calls();
	for (int i = 1; i < argc; i++)
		for (unsigned k = 0; k < sizeof kinds / sizeof kinds[0]; k++)
			if (strcmp(argv[i], kinds[k].name) == 0)
				REQUIRE(unshare(kinds[k].flag) == 0);
	calls();
	CHECK(succeeds(calls)); // the first process of a PID namespace
	for (int i = 1; i < argc; i++) {
		if (strncmp(argv[i], "chroot=", 7) != 0)
			continue;
		REQUIRE(chroot(argv[i] + 7) == 0 && chdir("/") == 0);
		calls();
		CHECK(succeeds(calls));
		char *inside[] = {"/program", NULL};
		execv(inside[0], inside);
		failed(__FILE__, __LINE__, "execv in the new root directory");
	}
	return done();
}

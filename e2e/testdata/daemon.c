// Becomes a daemon: its first process returns at once. The daemon writes its
// process ID to a file, waits for another file to appear, makes flagless
// calls, and writes how that went to a third.
#include "check.h"

static void report(const char *directory, const char *name, const char *text)
{
	char from[512], to[512];
	snprintf(from, sizeof from, "%s/.%s", directory, name);
	snprintf(to, sizeof to, "%s/%s", directory, name);
	FILE *f = fopen(from, "w");
	REQUIRE(f != NULL);
	fputs(text, f);
	fclose(f);
	REQUIRE(rename(from, to) == 0);
}

int main(int argc, char **argv)
{
	REQUIRE(argc > 1);
	const char *directory = argv[1];
	if (fork() != 0)
		_exit(0);
	setsid();
	if (fork() != 0)
		_exit(0);
	for (int fd = 0; fd < 3; fd++)
		close(fd);
	CHECK(open("/dev/null", O_RDWR) == 0);
	CHECK(dup(0) == 1 && dup(0) == 2);
	CHECK(!is_cloexec(0) && !is_cloexec(1) && !is_cloexec(2));
	char text[64], go[512];
	snprintf(text, sizeof text, "%d", getpid());
	report(directory, "pid", text);
	snprintf(go, sizeof go, "%s/go", directory);
	for (double end = now() + 50; access(go, F_OK) != 0 && now() < end;)
		usleep(10000);
	for (int i = 0; i < 100; i++) {
		int p[2], fd = open("/dev/null", O_RDONLY);
		CHECK(fd > 2);
		CHECK(!is_cloexec(fd) == !expected("cloexec"));
		CHECK(pipe(p) == 0);
		CHECK(!is_cloexec(p[0]) == !expected("cloexec"));
		CHECK(dup(fd) > 2 && socket(AF_UNIX, SOCK_STREAM, 0) > 2);
		int s = socket(AF_UNIX, SOCK_STREAM, 0);
		CHECK(!is_cloexec(s) == !expected("cloexec"));
		// A new program needs a new image.
		if (i == 50) {
			int status = system("exec 3</dev/null; read x <&3; exit 5");
			CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 5);
		}
		for (int k = 3; k < 200; k++)
			close(k);
	}
	snprintf(text, sizeof text, "%d failures", failures);
	report(directory, "result", text);
	return done();
}

// Started with some of the standard streams closed: what is opened in their
// place is inherited. The argument names those that are closed at start: "012".
#include "check.h"

int main(int argc, char **argv)
{
	REQUIRE(argc == 2);
	for (int fd = 0; fd < 3; fd++) {
		if (strchr(argv[1], '0' + fd) == NULL) {
			CHECK(fcntl(fd, F_GETFD) == 0);
			continue;
		}
		// The Go runtime opens /dev/null in the place of a standard stream
		// that the command indirect is started without; nothing else may.
		struct stat st, null;
		CHECK(stat("/dev/null", &null) == 0);
		CHECK(fstat(fd, &st) == -1 || (expected("cloexec") && st.st_rdev == null.st_rdev));
		close(fd);
	}
	for (int fd = 3; fd < 100; fd++)
		CHECK(fcntl(fd, F_GETFD) == -1);
	for (const char *p = argv[1]; *p != '\0'; p++) {
		int fd = open("/dev/null", O_RDWR);
		CHECK(fd == *p - '0');
		CHECK(!is_cloexec(fd));
	}
	int report = open("/dev/null", O_RDWR);
	CHECK(report > 2);
	CHECK(!is_cloexec(report) == !expected("cloexec"));
	return done();
}

// Started with some of the standard streams closed: what is opened in their
// place is inherited. The argument names those that are closed at start: "012".
#include "check.h"

int main(int argc, char **argv)
{
	REQUIRE(argc == 2);
	int report = -1;
	for (int fd = 0; fd < 3; fd++) {
		int closed = strchr(argv[1], '0' + fd) != NULL;
		// The C library must not have opened anything there, nor we.
		CHECK((fcntl(fd, F_GETFD) == -1) == closed);
	}
	for (int fd = 3; fd < 100; fd++)
		CHECK(fcntl(fd, F_GETFD) == -1);
	for (const char *p = argv[1]; *p != '\0'; p++) {
		int fd = open("/dev/null", O_RDWR);
		CHECK(fd == *p - '0');
		CHECK(!is_cloexec(fd));
	}
	report = open("/dev/null", O_RDWR);
	CHECK(report > 2);
	CHECK(!is_cloexec(report) == !expected("cloexec"));
	return done();
}

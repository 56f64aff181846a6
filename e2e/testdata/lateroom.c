// A thread blocks in accept, made at a call site that cannot lead anywhere yet:
// where our image goes there is a mapping of the program's. When that is gone,
// another thread's call has the site diverted, and only then the first returns.
#include "check.h"
#include <netinet/in.h>
#include <pthread.h>
#include <sys/mman.h>

enum { IMAGE_SIZE = 0x10000, MANY = 32 };

static int listen_at(struct sockaddr_in *address)
{
	socklen_t length = sizeof *address;
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	*address = (struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	REQUIRE(bind(fd, (struct sockaddr *)address, sizeof *address) == 0);
	REQUIRE(listen(fd, 100) == 0);
	REQUIRE(getsockname(fd, (struct sockaddr *)address, &length) == 0);
	return fd;
}

static void connect_to(const struct sockaddr_in *address)
{
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	REQUIRE(connect(fd, (const struct sockaddr *)address, sizeof *address) == 0);
}

static void *accepts(void *listener)
{
	for (int i = 0; i < 3; i++) {
		int fd = accept((int)(intptr_t)listener, NULL, NULL);
		born(__FILE__, __LINE__, "accept", -1, fd, 0);
		CHECK((fd > MANY) == expected("nonseq"));
	}
	return NULL;
}

// image_base finds the image of this process, if it has one.
static unsigned long image_base(void)
{
	char line[300];
	FILE *maps = fopen("/proc/self/maps", "re");
	REQUIRE(maps != NULL);
	while (fgets(line, sizeof line, maps) != NULL) {
		unsigned long from, to, inode;
		if (sscanf(line, "%lx-%lx r-xp %*s %*s %lu", &from, &to, &inode) == 3 && to - from == IMAGE_SIZE && to <= UINT32_MAX && inode == 0)
			return from;
	}
	fclose(maps);
	return 0;
}

int main(int argc, char **argv)
{
	if (argc == 1) {
		for (int i = 0; i < 3; i++)
			close(dup(2));
		char base[20];
		snprintf(base, sizeof base, "%lx", image_base());
		execl(argv[0], argv[0], base, NULL);
		_exit(2);
	}
	unsigned long base = strtoul(argv[1], NULL, 16);
	CHECK(!base == !getenv("EXPECT")[0]);
	void *taken = mmap((void *)base, IMAGE_SIZE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | (base ? MAP_FIXED_NOREPLACE : 0), -1, 0);
	REQUIRE(taken != MAP_FAILED);

	pthread_t blocked, other;
	struct sockaddr_in one, two;
	int first = listen_at(&one), second = listen_at(&two);
	REQUIRE(pthread_create(&blocked, NULL, accepts, (void *)(intptr_t)first) == 0);
	usleep(100000);
	REQUIRE(munmap(taken, IMAGE_SIZE) == 0);
	for (int i = 0; i < 3; i++)
		connect_to(&two);
	REQUIRE(pthread_create(&other, NULL, accepts, (void *)(intptr_t)second) == 0);
	REQUIRE(pthread_join(other, NULL) == 0);
	CHECK(image_base() == base);
	for (int i = 0; i < 3; i++)
		connect_to(&one);
	REQUIRE(pthread_join(blocked, NULL) == 0);
	return done();
}

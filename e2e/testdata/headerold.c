/* The C example, built where the system's headers are older than Linux 2.6.27. */
#include <sys/socket.h>
#include <sys/syscall.h>
#undef SYS_pipe2
#undef SYS_accept4
#undef SYS_epoll_create1
#undef SYS_inotify_init1
#undef SYS_eventfd2
#undef SYS_signalfd4
#undef SOCK_CLOEXEC
#include "../../examples/indirect-c/descriptors.c"

/* The C example, built where there are no calls without flags: as on arm64. */
#include <sys/syscall.h>
#undef SYS_open
#undef SYS_creat
#undef SYS_pipe
#undef SYS_epoll_create
#undef SYS_inotify_init
#undef SYS_eventfd
#undef SYS_signalfd
#include "../../examples/indirect-c/descriptors.c"

package fd

import "golang.org/x/sys/unix"

// largeFile lets files of more than 2 GiB be opened, as os does.
const largeFile = unix.O_LARGEFILE

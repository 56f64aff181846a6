//go:build linux && (amd64 || arm64 || 386)

package fd

import (
	"fmt"
	"net"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// File hands a descriptor over to an [os.File], which closes it. It is nil if
// fd is negative.
func File(fd int, name string) *os.File { return os.NewFile(uintptr(fd), name) }

// Conn hands the descriptor of a connected socket over to a [net.Conn], which
// closes it. If that fails, the descriptor is still the caller's.
func Conn(fd int) (net.Conn, error) { return handOver(fd, net.FileConn) }

// Listener hands the descriptor of a listening socket over, as [Conn].
func Listener(fd int) (net.Listener, error) { return handOver(fd, net.FileListener) }

// PacketConn hands the descriptor of a datagram socket over, as [Conn].
func PacketConn(fd int) (net.PacketConn, error) { return handOver(fd, net.FilePacketConn) }

// handOver gives use a copy, because an [os.File] cannot be told to forget its
// descriptor if use fails.
func handOver[T any](fd int, use func(*os.File) (T, error)) (T, error) {
	var none T
	twin, err := Dup(fd, 0)
	if err != nil {
		return none, fmt.Errorf("hand over descriptor %d: %w", fd, err)
	}
	f := File(twin, strconv.Itoa(fd))
	defer f.Close()
	v, err := use(f)
	if err != nil {
		return none, fmt.Errorf("hand over descriptor %d: %w", fd, err)
	}
	unix.Close(fd)
	return v, nil
}

// Leak is an open descriptor above 2 that an executed program would inherit.
type Leak struct {
	FD   int
	What string // as [os.Readlink] of /proc/self/fd tells: a path, "socket:[1234]"
}

// Leaks lists the process's inheritable descriptors above 2. Other threads may
// open and close descriptors meanwhile.
func Leaks() ([]Leak, error) {
	const dir = "/proc/self/fd"
	names, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("list the open descriptors: %w", err)
	}
	var leaks []Leak
	for _, n := range names {
		fd, err := strconv.Atoi(n.Name())
		if err != nil || fd <= 2 {
			continue
		}
		flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
		if err != nil || flags&unix.FD_CLOEXEC != 0 {
			continue // closed meanwhile, or as it should be
		}
		what, err := os.Readlink(dir + "/" + n.Name())
		if err != nil {
			what = "unknown"
		}
		leaks = append(leaks, Leak{fd, what})
	}
	return leaks, nil
}

package recorder

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

func TestSocketDetail(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	client, err := net.Dial("tcp", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	name := filepath.Join(t.TempDir(), "s")
	local, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: name, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer local.Close()
	descriptor := func(f func() (*os.File, error)) int {
		file, err := f()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { file.Close() })
		return int(file.Fd())
	}
	plain := func(domain, kind, protocol int) int {
		fd, err := unix.Socket(domain, kind|unix.SOCK_CLOEXEC, protocol)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { unix.Close(fd) })
		return fd
	}
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(pair[0])
	defer unix.Close(pair[1])
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	for want, fd := range map[string]int{
		fmt.Sprintf("MPTCP %s listening", listener.Addr()):                   descriptor(listener.(*net.TCPListener).File),
		fmt.Sprintf("TCP %s to %s", client.LocalAddr(), client.RemoteAddr()): descriptor(client.(*net.TCPConn).File),
		"Unix datagram " + name: descriptor(local.File),
		"Unix seqpacket":        pair[0],
		"UDP":                   plain(unix.AF_INET6, unix.SOCK_DGRAM, 0),
		"netlink route":         plain(unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_ROUTE),
		"":                      int(null.Fd()),
	} {
		if got := socketDetail(os.Getpid(), fd); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
	if got := socketDetail(os.Getpid(), 1<<20); got != "" {
		t.Errorf("a descriptor that is not open is %q", got)
	}
}

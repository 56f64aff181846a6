package recorder

import (
	"fmt"
	"net/netip"
	"strings"

	"golang.org/x/sys/unix"
)

// socketDetail tells a socket's protocol and addresses ("TCP 127.0.0.1:80
// listening"), "" if fd of the process is no socket that we may look at. We hold
// it for a moment by a descriptor of our own (pidfd_getfd(2), Linux 5.6).
func socketDetail(pid, fd int) string {
	process, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return ""
	}
	defer unix.Close(process)
	socket, err := unix.PidfdGetfd(process, fd, 0)
	if err != nil {
		return ""
	}
	defer unix.Close(socket)
	return describe(socket)
}

// protocols are the names of sockets' families, types and protocols (0: any).
var protocols = []struct {
	domain, kind, protocol int
	name                   string
}{
	{unix.AF_INET, unix.SOCK_STREAM, unix.IPPROTO_TCP, "TCP"},
	{unix.AF_INET6, unix.SOCK_STREAM, unix.IPPROTO_TCP, "TCP"},
	{unix.AF_INET, unix.SOCK_STREAM, unix.IPPROTO_MPTCP, "MPTCP"},
	{unix.AF_INET6, unix.SOCK_STREAM, unix.IPPROTO_MPTCP, "MPTCP"},
	{unix.AF_INET, unix.SOCK_DGRAM, unix.IPPROTO_UDP, "UDP"},
	{unix.AF_INET6, unix.SOCK_DGRAM, unix.IPPROTO_UDP, "UDP"},
	{unix.AF_INET, 0, unix.IPPROTO_SCTP, "SCTP"},
	{unix.AF_INET6, 0, unix.IPPROTO_SCTP, "SCTP"},
	{unix.AF_INET, unix.SOCK_RAW, 0, "raw IP"},
	{unix.AF_INET6, unix.SOCK_RAW, 0, "raw IP"},
	{unix.AF_UNIX, unix.SOCK_STREAM, 0, "Unix stream"},
	{unix.AF_UNIX, unix.SOCK_DGRAM, 0, "Unix datagram"},
	{unix.AF_UNIX, unix.SOCK_SEQPACKET, 0, "Unix seqpacket"},
	{unix.AF_NETLINK, 0, unix.NETLINK_ROUTE, "netlink route"},
	{unix.AF_NETLINK, 0, unix.NETLINK_KOBJECT_UEVENT, "netlink uevent"},
	{unix.AF_NETLINK, 0, unix.NETLINK_AUDIT, "netlink audit"},
	{unix.AF_PACKET, 0, 0, "packet"},
	{unix.AF_VSOCK, 0, 0, "vsock"},
}

// describe tells what a socket of our own is, "" for what is no socket.
func describe(socket int) string {
	option := func(name int) int {
		v, err := unix.GetsockoptInt(socket, unix.SOL_SOCKET, name)
		if err != nil {
			return -1
		}
		return v
	}
	domain, kind, protocol := option(unix.SO_DOMAIN), option(unix.SO_TYPE), option(unix.SO_PROTOCOL)
	if domain < 0 {
		return ""
	}
	name := fmt.Sprintf("family %d type %d protocol %d", domain, kind, protocol)
	for _, p := range protocols {
		if p.domain == domain && (p.kind == 0 || p.kind == kind) && (p.protocol == 0 && domain != unix.AF_NETLINK || p.protocol == protocol) {
			name = p.name
			break
		}
	}
	words := []string{name}
	if local, err := unix.Getsockname(socket); err == nil {
		if a := address(local); a != "" {
			words = append(words, a)
		}
	}
	if option(unix.SO_ACCEPTCONN) == 1 {
		words = append(words, "listening")
	} else if peer, err := unix.Getpeername(socket); err == nil {
		if a := address(peer); a != "" {
			words = append(words, "to", a)
		}
	}
	return strings.Join(words, " ")
}

// address writes an address for people, "" for none.
func address(a unix.Sockaddr) string {
	switch a := a.(type) {
	case *unix.SockaddrInet4:
		if ip := netip.AddrFrom4(a.Addr); a.Port != 0 || !ip.IsUnspecified() {
			return netip.AddrPortFrom(ip, uint16(a.Port)).String()
		}
	case *unix.SockaddrInet6:
		if ip := netip.AddrFrom16(a.Addr); a.Port != 0 || !ip.IsUnspecified() {
			return netip.AddrPortFrom(ip, uint16(a.Port)).String()
		}
	case *unix.SockaddrUnix:
		if a.Name != "@" { // an abstract name of no letters: there is none
			return a.Name
		}
	}
	return ""
}

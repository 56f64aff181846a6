package syslet

import (
	"encoding/binary"
	"strconv"

	"golang.org/x/sys/unix"
)

// sockaddrSize is enough for each address that a [Connect] can have: struct
// sockaddr_un, 110 bytes.
const sockaddrSize = 112

// unixPathSize is the size of sun_path in struct sockaddr_un (unix(7)).
const unixPathSize = 108

// hasAddress tells whether a step says where to connect to.
func (s *Step) hasAddress() bool {
	if s.Addr.IsValid() {
		_, err := s.scope()
		return err == nil
	}
	return s.Path != "" && len(s.Path) < unixPathSize
}

// scope is the number of the interface that a link-local address is meant on.
func (s *Step) scope() (uint32, error) {
	zone := s.Addr.Addr().Zone()
	if zone == "" {
		return 0, nil
	}
	n, err := strconv.ParseUint(zone, 10, 32)
	return uint32(n), err
}

// putAddress writes the address of a [Connect] as the kernel reads it (ip(7),
// ipv6(7), unix(7)), and returns its length, at most sockaddrSize.
func (s *Step) putAddress(b []byte) int {
	ip, native := s.Addr.Addr(), binary.NativeEndian
	switch {
	case !s.Addr.IsValid():
		native.PutUint16(b, unix.AF_UNIX)
		n := 2 + copy(b[2:], s.Path)
		if s.Path[0] == '@' {
			b[2] = 0
			return n
		}
		b[n] = 0
		return n + 1
	case ip.Is4():
		native.PutUint16(b, unix.AF_INET)
		binary.BigEndian.PutUint16(b[2:], s.Addr.Port())
		as4 := ip.As4()
		copy(b[4:], as4[:])
		clear(b[8:16])
		return 16
	}
	native.PutUint16(b, unix.AF_INET6)
	binary.BigEndian.PutUint16(b[2:], s.Addr.Port())
	clear(b[4:8]) // no flow label
	as16 := ip.As16()
	copy(b[8:], as16[:])
	scope, _ := s.scope() // Validate has looked
	native.PutUint32(b[24:], scope)
	return 28
}

package audit

import (
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/seed-055cd0c8/indirect/internal/recorder"
)

// meaning is how an argument is written.
type meaning uint8

const (
	number meaning = iota
	directory
	fileName
	openFlags
	creationFlags // of calls that open nothing by name
	octal
	domain
	socketType
	hexadecimal
	skipped // pointers to where the call writes
)

// parameter is a call's parameter, as its manual page calls it.
type parameter struct {
	name string
	meaning
}

// parameters are those of the calls that make descriptors inheritable, by the
// call's ID. Calls that are not here are written with their name alone.
var parameters = map[string][]parameter{
	"open":              {{"pathname", fileName}, {"flags", openFlags}, {"mode", octal}},
	"creat":             {{"pathname", fileName}, {"mode", octal}},
	"openat":            {{"dirfd", directory}, {"pathname", fileName}, {"flags", openFlags}, {"mode", octal}},
	"openat2":           {{"dirfd", directory}, {"pathname", fileName}},
	"memfd_create":      {{"name", fileName}, {"flags", hexadecimal}},
	"pipe2":             {{"pipefd", skipped}, {"flags", creationFlags}},
	"dup":               {{"oldfd", number}},
	"dup2":              {{"oldfd", number}, {"newfd", number}},
	"dup3":              {{"oldfd", number}, {"newfd", number}, {"flags", creationFlags}},
	"fcntl F_DUPFD":     {{"fd", number}, {"op", skipped}, {"arg", number}},
	"fcntl64 F_DUPFD":   {{"fd", number}, {"op", skipped}, {"arg", number}},
	"fcntl":             {{"fd", number}, {"op", skipped}, {"flags", number}},
	"fcntl64":           {{"fd", number}, {"op", skipped}, {"flags", number}},
	"ioctl":             {{"fd", number}, {"op", hexadecimal}},
	"socket":            {{"domain", domain}, {"type", socketType}, {"protocol", number}},
	"socketpair":        {{"domain", domain}, {"type", socketType}, {"protocol", number}},
	"accept":            {{"sockfd", number}},
	"accept4":           {{"sockfd", number}, {"addr", skipped}, {"addrlen", skipped}, {"flags", socketType}},
	"recvmsg":           {{"sockfd", number}, {"msg", skipped}, {"flags", hexadecimal}},
	"recvmmsg":          {{"sockfd", number}, {"msgvec", skipped}, {"vlen", number}, {"flags", hexadecimal}},
	"epoll_create":      {{"size", number}},
	"epoll_create1":     {{"flags", creationFlags}},
	"eventfd":           {{"initval", number}},
	"eventfd2":          {{"initval", number}, {"flags", creationFlags}},
	"signalfd4":         {{"fd", number}, {"mask", skipped}, {"size", skipped}, {"flags", creationFlags}},
	"timerfd_create":    {{"clockid", number}, {"flags", creationFlags}},
	"inotify_init1":     {{"flags", creationFlags}},
	"open_by_handle_at": {{"mount_fd", number}, {"handle", skipped}, {"flags", openFlags}},
}

// arguments writes a call's arguments for people.
func arguments(c *recorder.Creation) []Argument {
	var all []Argument
	for i, p := range parameters[c.Call] {
		v := c.Args[i]
		var text string
		switch p.meaning {
		case skipped:
			continue
		case number:
			text = strconv.Itoa(int(int32(v)))
		case directory:
			if text = strconv.Itoa(int(int32(v))); int32(v) == unix.AT_FDCWD {
				text = "AT_FDCWD"
			}
		case fileName:
			text = c.Path
		case openFlags:
			text = openFlagNames(v)
		case creationFlags:
			if text = fmt.Sprintf("%#x", uint32(v)); uint32(v) == unix.O_NONBLOCK {
				text = "O_NONBLOCK"
			}
		case octal:
			if c.Call != "creat" && c.Args[i-1]&(unix.O_CREAT|unix.O_TMPFILE&^unix.O_DIRECTORY) == 0 {
				continue
			}
			text = fmt.Sprintf("%#o", v&0o7777)
		case domain:
			text = name(domains, v)
		case socketType:
			text = socketTypeNames(v, p.name == "flags")
		case hexadecimal:
			text = fmt.Sprintf("%#x", uint32(v))
		}
		all = append(all, Argument{Name: p.name, Value: text})
	}
	return all
}

// bit is a flag's value with its name.
type bit struct {
	value uint64
	name  string
}

// openBits are in the order in which manual pages use them. Those that contain
// others come first.
var openBits = []bit{
	{unix.O_CREAT, "O_CREAT"}, {unix.O_EXCL, "O_EXCL"}, {unix.O_TRUNC, "O_TRUNC"}, {unix.O_APPEND, "O_APPEND"},
	{unix.O_NONBLOCK, "O_NONBLOCK"}, {unix.O_SYNC, "O_SYNC"}, {unix.O_DSYNC, "O_DSYNC"}, {unix.O_TMPFILE, "O_TMPFILE"},
	{unix.O_DIRECTORY, "O_DIRECTORY"}, {unix.O_NOCTTY, "O_NOCTTY"}, {unix.O_NOFOLLOW, "O_NOFOLLOW"}, {unix.O_CLOEXEC, "O_CLOEXEC"},
	{unix.O_PATH, "O_PATH"}, {unix.O_DIRECT, "O_DIRECT"}, {unix.O_NOATIME, "O_NOATIME"}, {0o100000, "O_LARGEFILE"},
}

func openFlagNames(v uint64) string {
	v = uint64(uint32(v))
	names := []string{[]string{"O_RDONLY", "O_WRONLY", "O_RDWR", "3"}[v&unix.O_ACCMODE]}
	v &^= unix.O_ACCMODE
	for _, b := range openBits {
		if v&b.value == b.value {
			names, v = append(names, b.name), v&^b.value
		}
	}
	if v != 0 {
		names = append(names, fmt.Sprintf("%#x", v))
	}
	return strings.Join(names, "|")
}

var domains = []bit{{unix.AF_UNIX, "AF_UNIX"}, {unix.AF_INET, "AF_INET"}, {unix.AF_INET6, "AF_INET6"}, {unix.AF_NETLINK, "AF_NETLINK"}, {unix.AF_PACKET, "AF_PACKET"}}

var socketTypes = []bit{{unix.SOCK_STREAM, "SOCK_STREAM"}, {unix.SOCK_DGRAM, "SOCK_DGRAM"}, {unix.SOCK_RAW, "SOCK_RAW"}, {unix.SOCK_SEQPACKET, "SOCK_SEQPACKET"}}

func name(among []bit, v uint64) string {
	for _, b := range among {
		if b.value == uint64(uint32(v)) {
			return b.name
		}
	}
	return strconv.Itoa(int(int32(v)))
}

func socketTypeNames(v uint64, flagsOnly bool) string {
	var names []string
	if !flagsOnly {
		names = append(names, name(socketTypes, v&0xf))
	}
	if v&unix.SOCK_NONBLOCK != 0 {
		names = append(names, "SOCK_NONBLOCK")
	}
	if rest := uint64(uint32(v)) &^ (0xf | unix.SOCK_NONBLOCK); rest != 0 || len(names) == 0 {
		names = append(names, fmt.Sprintf("%#x", rest))
	}
	return strings.Join(names, "|")
}

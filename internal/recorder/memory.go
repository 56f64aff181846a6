package recorder

import (
	"bytes"
	"encoding/binary"
	"io"

	"golang.org/x/sys/unix"

	"github.com/seed-055cd0c8/indirect/fdcall"
	"github.com/seed-055cd0c8/indirect/internal/tracee"
	"github.com/seed-055cd0c8/indirect/supervise"
)

// readBlock reads the arguments of the call that an operation of
// socketcall(2) stands for (see [fdcall.Call.Block]).
func readBlock(ev *supervise.Event, c *call) bool {
	words := 0
	for _, o := range c.row.Upgrade.Args {
		words = max(words, int(o.From)+1)
	}
	b := make([]byte, 4*words)
	if ev.Read(uint64(uint32(ev.Args[1])), b) != nil {
		return false
	}
	var block [6]uint64
	for i := range words {
		block[i] = uint64(binary.LittleEndian.Uint32(b[4*i:]))
	}
	for i, o := range c.row.Upgrade.Args {
		c.args[i] = o.Apply(&block)
	}
	return true
}

// asksForFlag reports whether a call asks for close-on-exec after all, where
// no register tells.
func asksForFlag(ev *supervise.Event, row *fdcall.Call, c *call) bool {
	switch {
	case row.CloexecBits == 0 || row.FlagsArg == fdcall.NoFlags:
		return false
	case row.Indirect:
		var flags [8]byte
		return ev.Read(c.args[row.FlagsArg], flags[:]) == nil && binary.LittleEndian.Uint64(flags[:])&uint64(row.CloexecBits) != 0
	}
	return c.args[row.FlagsArg]&uint64(row.CloexecBits) == uint64(row.CloexecBits)
}

// controls reports whether a message has room for descriptors.
func controls(ev *supervise.Event, msghdr uint64) bool {
	l := layoutOf(ev.ABI)
	b := make([]byte, l.word)
	return ev.Read(msghdr+l.controllen, b) == nil && l.integer(b) >= l.cmsghdr
}

// pathArguments are the calls that name a file, and which argument does. The
// table of calls knows no such thing: it is about descriptors.
var pathArguments = map[string]int{
	"open": 0, "creat": 0, "openat": 1, "openat2": 1, "memfd_create": 0, "open_tree": 1, "open_tree_attr": 1, "fspick": 1,
}

// readPath reads the file name among a call's arguments.
func readPath(ev *supervise.Event, c *call) string {
	at, ok := pathArguments[c.name]
	if !ok {
		return ""
	}
	path, err := ev.String(c.args[at], unix.PathMax)
	if err != nil {
		return ""
	}
	return path
}

// missing reports whether an open fails for want of its file, as most do of a
// compiler that looks for headers: it is not worth reading the stack.
func missing(tid int, c *call) bool {
	dir, flags := unix.AT_FDCWD, c.args[1]
	switch c.name {
	case "open":
	case "openat":
		dir, flags = int(int32(c.args[0])), c.args[2]
	default:
		return false
	}
	if c.path == "" || flags&unix.O_CREAT != 0 {
		return false
	}
	return unix.Access(inside(tid, dir, c.path), unix.F_OK) == unix.ENOENT
}

// layout is how an ABI lays out the structures of recvmsg(2).
type layout struct {
	word                uint64 // size of a long and a pointer
	control, controllen uint64 // offsets in struct msghdr
	mmsghdr, cmsghdr    uint64 // sizes
}

func layoutOf(abi fdcall.ABI) layout {
	if abi == fdcall.AMD64 || abi == fdcall.ARM64 {
		return layout{word: 8, control: 32, controllen: 40, mmsghdr: 64, cmsghdr: 16}
	}
	return layout{word: 4, control: 16, controllen: 20, mmsghdr: 32, cmsghdr: 12}
}

// integer reads a long.
func (l layout) integer(b []byte) uint64 {
	if l.word == 8 {
		return binary.LittleEndian.Uint64(b)
	}
	return uint64(binary.LittleEndian.Uint32(b))
}

// given lists the descriptors that a successful call has given.
func given(m io.ReaderAt, abi fdcall.ABI, c *call, result int64) []int {
	at := c.args[c.row.GivesArg]
	switch c.row.Gives {
	case fdcall.Ret:
		return []int{int(result)}
	case fdcall.Exact:
		return []int{int(int32(at))}
	case fdcall.Pair:
		return readInts(m, at, 2)
	case fdcall.Control:
		return received(m, abi, at)
	case fdcall.Controls:
		var all []int
		const mostMessages = 1024 // UIO_MAXIOV
		for i := range min(uint64(result), mostMessages) {
			all = append(all, received(m, abi, at+i*layoutOf(abi).mmsghdr)...)
		}
		return all
	}
	return nil
}

func readInts(m io.ReaderAt, at uint64, n int) []int {
	b := make([]byte, 4*n)
	if _, err := m.ReadAt(b, int64(at)); err != nil {
		return nil
	}
	all := make([]int, n)
	for i := range all {
		all[i] = int(int32(binary.LittleEndian.Uint32(b[4*i:])))
	}
	return all
}

// received lists the descriptors in the control messages of a msghdr (cmsg(3), unix(7)).
func received(m io.ReaderAt, abi fdcall.ABI, msghdr uint64) (all []int) {
	l := layoutOf(abi)
	head := make([]byte, 2*l.word)
	if _, err := m.ReadAt(head, int64(msghdr+l.control)); err != nil {
		return nil
	}
	const largest = 1 << 16 // more than the kernel ever writes: 253 descriptors a message
	at, length := l.integer(head), min(l.integer(head[l.word:]), largest)
	for end := at + length; at+l.cmsghdr <= end; {
		b := make([]byte, l.cmsghdr)
		if _, err := m.ReadAt(b, int64(at)); err != nil {
			return all
		}
		size := l.integer(b)
		if size < l.cmsghdr || size > end-at {
			return all
		}
		level, kind := binary.LittleEndian.Uint32(b[l.word:]), binary.LittleEndian.Uint32(b[l.word+4:])
		if level == unix.SOL_SOCKET && kind == unix.SCM_RIGHTS {
			all = append(all, readInts(m, at+l.cmsghdr, int(size-l.cmsghdr)/4)...)
		}
		at += (size + l.word - 1) &^ (l.word - 1)
	}
	return all
}

// readStrings reads an array of pointers to strings that ends with a null
// pointer, as execve(2) takes them: most strings at most, each as long as
// maxArgumentSize. What was cut ends with an ellipsis.
func readStrings(ev *supervise.Event, array uint64, most int) []string {
	l := layoutOf(ev.ABI)
	var addresses []uint64
	for more := true; more; {
		b := make([]byte, 64*l.word)
		b = b[:tracee.Peek(ev.TID, array+l.word*uint64(len(addresses)), b)]
		more = len(b) == cap(b)
		for ; uint64(len(b)) >= l.word; b = b[l.word:] {
			address := l.integer(b)
			if address == 0 || len(addresses) == most {
				more = false
				break
			}
			addresses = append(addresses, address)
		}
	}
	all := make([]string, 0, len(addresses))
	// The strings usually lie close together: one read gets many of them.
	var window []byte
	var start uint64
	for _, address := range addresses {
		if i := address - start; address < start || i >= uint64(len(window)) || bytes.IndexByte(window[i:], 0) < 0 {
			start, window = address, make([]byte, maxArgumentSize)
			window = window[:tracee.Peek(ev.TID, address, window)]
		}
		s := window[address-start:]
		if end := bytes.IndexByte(s, 0); end >= 0 {
			all = append(all, string(s[:end]))
		} else {
			all = append(all, string(s)+"…")
		}
	}
	if len(addresses) == most {
		all = append(all, "…")
	}
	if !ev.Valid() {
		return nil
	}
	return all
}

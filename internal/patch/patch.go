// Package patch plans how the two-byte SYSCALL instructions of an x86-64 ELF
// file are diverted, in a process that has the file mapped, to code elsewhere:
// a thunk whose address is below 2 GiB.
//
// A call site is too short for any jump but one over at most 127 bytes. It
// becomes such a jump, into bytes of the file that no control flow enters, and
// those hold the way to the thunk:
//
//	mov $thunk, %ecx
//	jmp *%rcx
//
// The kernel overwrites RCX and R11 in each system call (System V ABI for
// AMD64, A.2.1), so the program does not mind that the thunk finds its own
// address in RCX.
//
// Two kinds of bytes count as never entered:
//
//   - Padding between two functions that .eh_frame or symbols describe: whole
//     NOP or INT3 instructions behind a function that does not go on into
//     them, and that nothing jumps to. NOPs within a function do not count:
//     they align loops, and are executed.
//   - What is mapped behind an executable segment because mappings consist of
//     whole pages.
//
// Where there is no padding in reach, the instruction in front of the call may
// be long enough for a jump and fit to be executed elsewhere ([Moved]).
//
// The package computes; it changes no process. Addresses are those of the
// file's program headers. The plan holds for a mapping that shows the file's
// bytes as PT_LOAD says (offset Off+i at address Vaddr+i, plus one bias for
// the whole file), in whole pages: the bytes between the end of an executable
// segment and the end of its last page are used too. Whoever applies a route
// compares each [Write.Old] with the memory first.
//
// A plan depends on the file's bytes alone: not on the order in which routes
// are asked for, nor on who asks. Two processes that plan the same file agree.
package patch

import (
	"errors"
	"fmt"
	"io"
)

// File is the plan of one executable file. It is safe for concurrent use.
type File struct {
	segments []segment
	routes   map[uint64]*Route
	inFront  map[uint64]*Route
}

// Route is a way from one call site to its thunk.
type Route struct {
	// Writes are the changes, in the order in which they must become visible.
	// Between any two of them every thread that reaches the site still makes
	// its call, once. The last one makes the diversion live.
	Writes []Write
	Kind   Kind
	// Entry is where a thread that is stopped in front of its call, at the
	// site, has to go on so that it is diverted: at the site itself, but for
	// [InFront].
	Entry uint64
}

// Write is one change of a [Route]. Old and New have the same length.
type Write struct {
	Addr  uint64 // as in the file's program headers
	Old   []byte // what must be there before
	New   []byte
	Thunk int // offset in New of the thunk's address, 4 bytes, little endian; -1: none
	// Atomic says that the bytes lie in one aligned word of 8 bytes and that
	// one store of that word is a correct change while other threads run.
	Atomic bool
	// Live says that control flow can reach the bytes before the route is
	// complete. If the write is not also Atomic, no other thread of the
	// address space may run during it.
	Live bool
}

// Kind says how a route gets from its site to its thunk.
type Kind int

const (
	Near    Kind = iota + 1 // a jump to the way to the thunk
	Far                     // a jump to a jump to it
	TwoHops                 // two jumps over short distances, then Near or Far
	Moved                   // the instruction in front of the site makes room for a jump
	InFront                 // as Moved, but the site keeps its SYSCALL
)

// String returns the kind's name.
func (k Kind) String() string {
	switch k {
	case Near:
		return "near"
	case Far:
		return "far"
	case TwoHops:
		return "two hops"
	case Moved:
		return "moved"
	case InFront:
		return "in front"
	}
	return fmt.Sprintf("Kind(%d)", int(k))
}

// ErrNoRoute says that there is no safe way to divert a call site.
var ErrNoRoute = errors.New("no room near the call site")

// Open plans the file of size bytes behind r, which it does not keep. Any file
// but an x86-64 ELF executable or shared object is an error, as is one that is
// damaged or has more than 128 MiB of code.
func Open(r io.ReaderAt, size int64) (*File, error) {
	image, err := readELF(r, size)
	if err != nil {
		return nil, fmt.Errorf("plan call sites: %w", err)
	}
	routes, inFront := plan(image)
	for i := range image.segments {
		image.segments[i].code = nil // no longer needed
	}
	return &File{image.segments, routes, inFront}, nil
}

// Route returns how to divert the SYSCALL instruction at the address site, or
// [ErrNoRoute]. The caller knows that there is an instruction: bytes within
// another one may look the same, and have a route too.
func (f *File) Route(site uint64) (*Route, error) {
	if r, ok := f.routes[site]; ok {
		return r, nil
	}
	return nil, fmt.Errorf("divert the call at %#x: %w", site, ErrNoRoute)
}

// RouteInFront returns a second way for a site whose two bytes do not lie in one
// word, so that [File.Route] cannot be used while other threads run: it changes
// only the instruction in front of the site, with one store. A thread that
// stands at the site at that moment makes its call undiverted; when it traps,
// it goes on at [Route.Entry]. Both routes of a site can be applied to the same
// process. The error is [ErrNoRoute] if there is no such way, or no need.
func (f *File) RouteInFront(site uint64) (*Route, error) {
	if r, ok := f.inFront[site]; ok {
		return r, nil
	}
	return nil, fmt.Errorf("divert the call at %#x in front of it: %w", site, ErrNoRoute)
}

// Address returns the address, by the program headers, of the byte at offset
// in the file; false if no segment loads it as code.
func (f *File) Address(offset uint64) (uint64, bool) {
	for i := range f.segments {
		s := &f.segments[i]
		// Mappings begin at page boundaries, in front of the segment's bytes.
		if first := s.offset &^ (pageSize - 1); offset >= first && offset < s.offset+s.filesz {
			return s.vaddr - s.offset + offset, true
		}
	}
	return 0, false
}

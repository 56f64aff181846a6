package recorder

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// Entry is a line of the log. One of its pointers is set.
type Entry struct {
	Program  *Program  `json:",omitempty"`
	Module   *Module   `json:",omitempty"`
	Stack    *Stack    `json:",omitempty"`
	Creation *Creation `json:",omitempty"`
	Race     *Race     `json:",omitempty"`
	Exec     *Exec     `json:",omitempty"`
	Failed   *Failed   `json:",omitempty"`
	Latent   *Latent   `json:",omitempty"`
	Exit     *Exit     `json:",omitempty"`
	Lost     *Lost     `json:",omitempty"`
}

// Times are nanoseconds of CLOCK_MONOTONIC.

// Program is a program that a process runs: what a fork or an execve makes. A
// second one with the same ID corrects the first.
type Program struct {
	ID         uint64
	Parent     uint64 // the program that forked or executed it; 0: none that is known
	PID        int
	Executable string   // the file; for a script, its interpreter
	Argv       []string // cut where it is long
	Started    int64
}

// Creation is a call that made a descriptor inheritable, or the arrival of one
// from outside.
type Creation struct {
	ID      uint64
	Origin  Origin
	Program uint64
	TID     int
	Time    int64 // when the call was made
	Call    string
	Args    [6]uint64
	Path    string `json:",omitempty"` // the file name among the arguments
	FD      int
	Object  Object
	Stack   uint64 // 0: unknown
	Threads bool   // the process had more than one
}

// Origin says how a descriptor came to be inheritable.
type Origin string

// The origins.
const (
	Created   Origin = "created"   // by a call without the flag
	Placed    Origin = "placed"    // at a number that the program chose, as all of a shell's are
	Cleared   Origin = "cleared"   // by taking the flag away
	Inherited Origin = "inherited" // from outside
)

// Object is what a descriptor refers to.
type Object struct {
	Link   string // as /proc/PID/fd shows it
	Ino    uint64
	Detail string `json:",omitempty"` // of a socket: see socketDetail
}

// Race is a descriptor that was made close-on-exec after its creation.
type Race struct {
	Creation uint64
	TID      int
	Time     int64 // when the flag was about to be set
	Stack    uint64
	Threads  bool // the process had more than one
	Forked   bool // another thread forked in between
}

// Exec is an execve, which succeeded if no Failed follows.
type Exec struct {
	From, To uint64 // programs
	TID      int
	Time     int64
	Stack    uint64   // 0: unknown, or nothing was handed on
	Env      []string `json:",omitempty"` // the variables that mention a number that is handed on
	Handed   []Handed `json:",omitempty"`
}

// Failed says that an execve did not make its program.
type Failed struct{ Program uint64 }

// Handed is a descriptor above the standard streams that an Exec left open.
type Handed struct {
	FD       int
	Creation uint64 // 0: nothing is known of where it comes from
	Object   Object
}

// Latent is a descriptor that was open and inheritable when its process ended,
// and that no program had received.
type Latent struct {
	Creation uint64
	Time     int64
}

// Exit is the end of a process.
type Exit struct {
	Program uint64
	Time    int64
}

// Lost tells how many entries there was no room for, in the supervisor's life so far.
type Lost struct{ Count uint64 }

// log writes entries to a file that outlives the supervisor.
type log struct {
	resumed bool // another supervisor has written before us

	mu   sync.Mutex
	file *os.File
	size int64
	next uint64 // ID
	lost uint64
}

// maxLog bounds the log's size in bytes. It is in memory.
const maxLog = 256 << 20

// newLog makes a file for the log, for the extension's File.
func newLog() (*os.File, error) {
	fd, err := unix.MemfdCreate("audit", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("create the audit's log: %w", err)
	}
	file := os.NewFile(uintptr(fd), "audit")
	// Whoever reads it must not move the place where the supervisor writes.
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_SETFL, unix.O_APPEND); err != nil {
		file.Close()
		return nil, fmt.Errorf("create the audit's log: %w", err)
	}
	return file, nil
}

// openLog continues the log.
func openLog(file *os.File) (*log, error) {
	if file == nil {
		return nil, errors.New("the audit has no log file")
	}
	info, err := file.Stat()
	if err != nil {
		return nil, fmt.Errorf("continue the audit's log: %w", err)
	}
	size := info.Size()
	l := &log{file: file, size: size, resumed: size > 0}
	// Every ID has cost more than one byte of log: ours are new.
	l.next = uint64(size) + 1
	if l.resumed { // our predecessor may have died in the middle of a line
		l.bytes([]byte("\n"))
	}
	return l, nil
}

func (l *log) id() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.next++
	return l.next
}

func (l *log) write(e Entry) {
	b, err := json.Marshal(e)
	if err != nil {
		l.dropped()
		return
	}
	l.bytes(append(b, '\n'))
}

func (l *log) bytes(b []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.size+int64(len(b)) > maxLog {
		l.lose()
		return
	}
	n, err := l.file.Write(b)
	l.size += int64(n)
	if err != nil {
		l.lose()
	}
}

// dropped counts something that there was no room for.
func (l *log) dropped() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lose()
}

// lose tells of losses in steps that grow: that must take room, too.
func (l *log) lose() {
	if l.lost++; l.lost&(l.lost-1) == 0 {
		b, err := json.Marshal(Entry{Lost: &Lost{l.lost}})
		if err == nil {
			_, _ = l.file.Write(append(b, '\n'))
		}
	}
}

// maxEntry bounds one entry's size in bytes.
const maxEntry = 8 << 20

// readLog calls f with each entry of a log, from its start. Lines that a dying
// supervisor left unfinished are passed over. It returns f's error, or the file's.
// The supervisor may be writing meanwhile.
func readLog(file io.ReaderAt, f func(Entry) error) error {
	s := bufio.NewScanner(io.NewSectionReader(file, 0, maxLog))
	s.Buffer(nil, maxEntry)
	for s.Scan() {
		var e Entry
		if len(bytes.TrimSpace(s.Bytes())) == 0 || json.Unmarshal(s.Bytes(), &e) != nil {
			continue
		}
		if err := f(e); err != nil {
			return err
		}
	}
	if err := s.Err(); err != nil {
		return fmt.Errorf("read the audit's log: %w", err)
	}
	return nil
}

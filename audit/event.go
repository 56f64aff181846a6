package audit

// Event is something that happened in the programs that are watched. One of
// its pointers is set. What an event refers to by ID (a program, a stack, a
// creation) comes before it in the stream; an ID is used once, and never 0.
//
// Times are nanoseconds of CLOCK_MONOTONIC. Strings come from the programs and
// can hold anything.
type Event struct {
	Program  *Program  `json:",omitempty"`
	Stack    *Stack    `json:",omitempty"`
	Creation *Creation `json:",omitempty"`
	Race     *Race     `json:",omitempty"`
	Exec     *Exec     `json:",omitempty"`
	Latent   *Latent   `json:",omitempty"`
	Exit     *Exit     `json:",omitempty"`
	Lost     *Lost     `json:",omitempty"`
}

// Program is a program that a process runs: what a fork or an execve makes.
type Program struct {
	ID         uint64
	Parent     uint64 `json:",omitempty"` // the program that forked or executed it; 0: none that is known
	PID        int
	Executable string   `json:",omitempty"` // the file, as /proc/PID/exe shows it; for a script, its interpreter
	Argv       []string `json:",omitempty"`
	Started    int64
}

// Stack is where a call was made from.
type Stack struct {
	ID     uint64
	Frames []Frame // the innermost first
}

// Frame is one function of a stack. What is not known is left empty.
type Frame struct {
	Function string `json:",omitempty"` // demangled
	File     string `json:",omitempty"` // of the source
	Line     int    `json:",omitempty"` // from 1
	Module   string `json:",omitempty"` // the file that the code is in
	Offset   uint64 `json:",omitempty"` // of the instruction in Module's file; its address if there is no file
	BuildID  string `json:",omitempty"` // of Module, in hexadecimal
	Inlined  bool   `json:",omitempty"` // the next frame has the function inlined
	Guessed  bool   `json:",omitempty"` // found without unwind information: it may be wrong
}

// Creation is a call that made a descriptor inheritable, or the arrival of a
// descriptor from outside. It need not be told before another event refers to
// it, so that calls that lead to nothing cost nothing.
type Creation struct {
	ID      uint64
	Origin  Origin
	Program uint64
	TID     int
	Time    int64      // when the call was about to be made
	Call    string     `json:",omitempty"` // the fdcall.Call's ID, such as "fcntl F_DUPFD"; for Cleared the call's name
	Args    []Argument `json:",omitempty"`
	FD      int
	Object  Object
	Stack   uint64 `json:",omitempty"` // 0: unknown
	Threads bool   `json:",omitempty"` // the process had more than one
}

// Argument is an argument of a call, as text.
type Argument struct{ Name, Value string }

// Origin says how a descriptor came to be inheritable.
type Origin string

// The origins.
const (
	Created   Origin = "created"   // by a call without the flag, at a number that the kernel chose
	Placed    Origin = "placed"    // at a number that the program chose (dup2, and all that shells do)
	Cleared   Origin = "cleared"   // by taking the flag away (F_SETFD, FIONCLEX)
	Inherited Origin = "inherited" // from outside, before the audit
)

// Object is what a descriptor refers to.
type Object struct {
	Link   string `json:",omitempty"` // as /proc/PID/fd shows it: a path, "socket:[1]", "anon_inode:[eventpoll]"
	Ino    uint64 `json:",omitempty"` // 0: unknown
	Detail string `json:",omitempty"` // a socket's protocol and addresses: "TCP 127.0.0.1:80 listening"
}

// Race is a descriptor that was made close-on-exec after its creation.
type Race struct {
	Creation uint64
	TID      int
	Time     int64  // when the flag was about to be set
	Stack    uint64 `json:",omitempty"` // of the call that set it; 0: unknown
	Threads  bool   `json:",omitempty"` // the process had more than one
	Forked   bool   `json:",omitempty"` // another thread forked in between
}

// Exec is an execve that succeeded.
type Exec struct {
	From, To uint64 // programs
	TID      int
	Time     int64
	Stack    uint64   `json:",omitempty"` // 0: unknown
	Env      []string `json:",omitempty"` // of To: the variables that mention a number that is handed on, at least
	Handed   []Handed `json:",omitempty"`
}

// Handed is a descriptor above the standard streams that an Exec left open.
type Handed struct {
	FD int
	// Creation is the last call that can have made the descriptor at this
	// number inheritable, 0 if that is not known for certain.
	Creation uint64 `json:",omitempty"`
	Object   Object // at that moment
}

// Latent is a descriptor that was open and inheritable when its process ended,
// and that no program had received.
type Latent struct {
	Creation uint64
	Time     int64
}

// Exit is the end of a process.
type Exit struct {
	Program uint64 // the last that it ran
	Time    int64
}

// Lost tells how many events the recorder could not keep, in all so far.
type Lost struct{ Count uint64 }

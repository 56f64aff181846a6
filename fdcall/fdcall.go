// Package fdcall is the table of the Linux system calls that can hand their
// caller a new file descriptor, and of what it takes to have that descriptor
// born with close-on-exec, non-blocking or a non-sequential number.
//
// One row says everything about a call (or about one operation of a
// multiplexed call such as fcntl). The seccomp filter, the in-process stub,
// the probes and the printed categorisation are all derived from the rows, so
// that a new system call is one new row. The package imports nothing else of
// this module.
package fdcall

//go:generate go test -run ^TestDocumentation$ . -update

// ABI is a system call interface: an instruction set with its own numbering.
type ABI uint8

// The ABIs that the table has numbers for.
const (
	AMD64 ABI = iota
	I386
	ARM64
	X32 // amd64 instructions with 32-bit pointers; numbers carry bit 30
	numABIs
)

// String returns the name that the kernel's documentation uses.
func (a ABI) String() string {
	if a >= numABIs {
		return "unknown ABI"
	}
	return [numABIs]string{"amd64", "i386", "arm64", "x32"}[a]
}

// None is the number of a call on an ABI that does not have it.
const None = -1

// Numbers holds a call's number on each [ABI], [None] where it is absent. The
// x32 numbers have bit 30 set, as a program passes them.
type Numbers [numABIs]int32

// nr builds Numbers. The x32 number is the amd64 one with bit 30 set unless
// the row says otherwise (see [Numbers.x32]).
func nr(amd64, i386, arm64 int32) Numbers {
	x := int32(None)
	if amd64 != None {
		x = amd64 | x32Bit
	}
	return Numbers{AMD64: amd64, I386: i386, ARM64: arm64, X32: x}
}

// all builds Numbers for a call added since Linux 5.1, which has one number everywhere.
func all(n int32) Numbers { return nr(n, n, n) }

// x32 gives n an x32 number of its own (512 and up in the kernel's
// arch/x86/entry/syscalls/syscall_64.tbl).
func (n Numbers) x32(own int32) Numbers {
	n[X32] = own | x32Bit
	return n
}

const x32Bit = 1 << 30

// Version is a kernel release, such as 2.6.27.
type Version struct{ Major, Minor, Patch uint8 }

// Want is a set of properties for a new descriptor.
type Want uint8

// The properties.
const (
	Cloexec  Want = 1 << iota // FD_CLOEXEC: closed by execve
	Nonblock                  // O_NONBLOCK on the new open file description
	Nonseq                    // an unpredictable number instead of the lowest free one
)

// Gives tells where a call puts the descriptors that it creates.
type Gives uint8

// Where descriptors appear.
const (
	Ret      Gives = iota // the return value
	Pair                  // two int in the memory that argument GivesArg points to
	Control               // SCM_RIGHTS control messages of the msghdr at GivesArg
	Controls              // the same, for each mmsghdr of the vector at GivesArg
	Exact                 // the number is the caller's choice (dup2): never flagged, never moved
	Memory                // an int in memory, as with CLONE_PIDFD
)

// Class says what a call needed in 2008 to learn close-on-exec, in the manner
// of Michael Kerrisk's sorting (https://lwn.net/Articles/282213/), extended to
// the calls that came later.
type Class uint8

// The classes.
const (
	Overloads   Class = iota // an existing argument was overloaded (socket's type)
	HasFlags                 // has had a flags argument from the start, or memory that holds one
	Alternative              // another call already did the job (dup: fcntl; creat: open)
	NewCall                  // a new call was needed (pipe: pipe2)
	ByChoice                 // the caller chooses the number: inheriting it is the purpose (dup2)
	Always                   // close-on-exec whatever the caller says
	Never                    // no way to ask for close-on-exec at creation
)

// Cond is a test of one argument: arg&Mask == Value, or its negation.
type Cond struct {
	Arg         uint8 // 0 to 5
	Mask, Value uint64
	Not         bool
}

// Met reports whether args satisfy c.
func (c Cond) Met(args *[6]uint64) bool {
	return (args[c.Arg]&c.Mask == c.Value) != c.Not
}

// Operand is one argument of a rewritten call: the original argument From (or
// zero if From is negative), with Bits OR-ed in.
type Operand struct {
	From int8
	Bits uint32
}

// Arg is the original argument i, unchanged.
func Arg(i int8) Operand { return Operand{From: i} }

// Const is the constant v.
func Const(v uint32) Operand { return Operand{From: -1, Bits: v} }

// Apply returns the operand's value for a call with the given arguments.
func (o Operand) Apply(args *[6]uint64) uint64 {
	v := uint64(o.Bits)
	if o.From >= 0 {
		v |= args[o.From]
	}
	return v
}

// Upgrade names the call that does a flagless call's work and can carry flags.
type Upgrade struct {
	To   string    // the [Call.ID] of the other row
	Args []Operand // its arguments; those left out are zero
	// Errno is an error of the other call that the flagless one reports
	// differently; zero if there is none.
	Errno Errno
}

// Errno is a pair of error numbers (errno(3)).
type Errno struct {
	Theirs uint8 // what the other call says
	Ours   uint8 // what the flagless call says then
}

// NoFlags as [Call.FlagsArg] says that no argument carries flags.
const NoFlags = -1

// Call is a row of the table.
type Call struct {
	Name string  // as in the kernel: "openat"
	Op   string  // the operation of a multiplexed call: "F_DUPFD"; else empty
	Nr   Numbers // by ABI
	// When restricts the row to calls whose arguments meet all conditions.
	When []Cond

	Gives    Gives
	GivesArg int8 // for Pair, Control, Controls and Memory: the pointer argument; for Exact: the number
	// Shares marks a new number for an open file description that others may
	// hold too (dup, SCM_RIGHTS): its status flags are not the caller's to change.
	Shares bool
	// Leaves are properties that this call's descriptors are never given:
	// they mean nothing there (O_NONBLOCK where nothing blocks), or watching
	// every ioctl and bpf for a descriptor that is close-on-exec anyway would
	// cost more than an unpredictable number brings.
	Leaves Want

	// FlagsArg is the argument (0 to 5) that carries flags, or NoFlags.
	FlagsArg int8
	// Indirect says that FlagsArg points to a structure whose first 64-bit
	// word holds the flags (openat2's struct open_how); the next argument is
	// the structure's size.
	Indirect bool
	// Block says that the six arguments are not in registers but in an array
	// of 32-bit words that argument 1 points to (i386's socketcall). When is
	// about the registers; everything else in the row is about the array.
	Block bool
	// CloexecBits and NonblockBits are the bits for FlagsArg, zero if the call has none.
	CloexecBits, NonblockBits uint32

	Upgrade *Upgrade // for a call without flags of its own
	Class   Class
	// Cancels says that the call can block and is a thread cancellation point.
	Cancels bool

	Since                       Version // the kernel that brought the call
	CloexecSince, NonblockSince Version // the kernel that brought each bit; zero if the call has none
	Source                      string  // where the facts come from: man page or kernel file
	Note                        string  // what else a reader should know
}

// ID is the row's unique name: "openat", "fcntl F_DUPFD".
func (c *Call) ID() string {
	if c.Op == "" {
		return c.Name
	}
	return c.Name + " " + c.Op
}

// Matches reports whether a call with the given arguments is this row's.
func (c *Call) Matches(args *[6]uint64) bool {
	for _, w := range c.When {
		if !w.Met(args) {
			return false
		}
	}
	return true
}

// Plan says how to run a flagless call so that its descriptors have the
// wanted properties: run To with Args, then do what is left. The original
// arguments that Args names are those in the array if the call's Block is set.
type Plan struct {
	To   *Call
	Args [6]Operand
	// FlagWord, if not zero, is to be OR-ed into the flags word of the
	// structure that To's FlagsArg points to (Call.Indirect), in a copy.
	FlagWord uint32
	// After are the properties that the call cannot give: to be set on each
	// new descriptor before the program sees it.
	After Want
	// Errno is what to make of an error of To.
	Errno Errno
}

// Applicable returns the part of w that means anything for the call's
// descriptors: nothing where the caller chose the number, no O_NONBLOCK on an
// open file description that others hold, and nothing that the row leaves.
func (c *Call) Applicable(w Want) Want {
	switch {
	case c.Gives == Exact || c.Gives == Memory:
		return 0
	case c.Shares:
		w &^= Nonblock
	}
	w &^= c.Leaves
	if c.Class == Always {
		w &^= Cloexec
	}
	return w
}

// identity passes every argument on.
var identity = [6]Operand{Arg(0), Arg(1), Arg(2), Arg(3), Arg(4), Arg(5)}

// Carries returns the bits that the flags argument must have for the call to
// give the properties in w by itself, and the properties for which there are no bits.
func (c *Call) Carries(w Want) (flags uint32, missing Want) {
	if w&Cloexec != 0 {
		if flags |= c.CloexecBits; c.CloexecBits == 0 {
			missing |= Cloexec
		}
	}
	if w&Nonblock != 0 {
		if flags |= c.NonblockBits; c.NonblockBits == 0 {
			missing |= Nonblock
		}
	}
	return flags, missing | w&Nonseq
}

// Plan returns how to give the properties in w to the descriptors of the call
// c. The second result is false if there is nothing to do.
func (t *Table) Plan(c *Call, w Want) (Plan, bool) { return t.plan(c, c.Applicable(w)) }

// plan is how to give exactly the properties in w.
func (t *Table) plan(c *Call, w Want) (Plan, bool) {
	if w == 0 {
		return Plan{}, false
	}
	// A descriptor that will be moved must not be inheritable at its first
	// number: it is created close-on-exec whatever the final wish is.
	create := w
	if w&Nonseq != 0 {
		create |= c.Applicable(Cloexec)
	}
	p := Plan{To: c, Args: identity}
	if c.Upgrade != nil {
		to := t.ByID(c.Upgrade.To)
		if to == nil {
			return Plan{}, false // not a table that passes the walk in table_test.go
		}
		if to.Class != Always || create&Cloexec != 0 {
			p.To, p.Args, p.Errno = to, [6]Operand{}, c.Upgrade.Errno
			for i := range p.Args {
				p.Args[i] = Const(0)
			}
			copy(p.Args[:], c.Upgrade.Args)
		}
	}
	flags, missing := p.To.Carries(create)
	if p.To.Class == Always {
		missing &^= Cloexec
	}
	p.After = missing & w
	switch {
	case flags == 0:
	case p.To.Indirect:
		p.FlagWord = flags
	default:
		p.Args[p.To.FlagsArg].Bits |= flags
	}
	return p, true
}

// Table is a set of rows with its indexes.
type Table struct {
	rows []Call
	id   map[string]*Call
	nr   [numABIs]map[int32][]*Call
}

// New indexes rows.
func New(rows []Call) *Table {
	t := &Table{rows: rows, id: make(map[string]*Call, len(rows))}
	for a := range t.nr {
		t.nr[a] = make(map[int32][]*Call)
	}
	for i := range rows {
		c := &rows[i]
		t.id[c.ID()] = c
		for a, n := range c.Nr {
			if n != None {
				t.nr[a][n] = append(t.nr[a][n], c)
			}
		}
	}
	return t
}

// Linux returns the table of Linux's descriptor-creating calls.
func Linux() *Table { return New(linux()) }

// All returns every row, in the table's order. The rows must not be changed.
func (t *Table) All() []Call { return t.rows }

// ByID returns the row with the given [Call.ID], or nil.
func (t *Table) ByID(id string) *Call { return t.id[id] }

// ByNumber returns the rows for a number: several for a multiplexed call.
func (t *Table) ByNumber(a ABI, n int32) []*Call {
	if a >= numABIs {
		return nil
	}
	return t.nr[a][n]
}

// Lookup returns the row of the call with the given number and arguments, or nil.
func (t *Table) Lookup(a ABI, n int32, args *[6]uint64) *Call {
	for _, c := range t.ByNumber(a, n) {
		if c.Matches(args) {
			return c
		}
	}
	return nil
}

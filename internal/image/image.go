// Package image builds what is injected into a process: one 64 KiB mapping
// that holds the stub (the machine code that runs flagless calls with their
// flags), the rows that it interprets, and a thunk for each diverted call site.
//
// The package knows the table of calls and which properties are wanted; it
// touches no process. The mapping is at the same address in every process of
// a run, below 2 GiB, so that a trampoline needs only a 32-bit address and the
// seccomp filter can recognise the stub's own calls by instruction pointer.
//
//	base + 0x1000  the stub's entry; what comes before is written when a
//	               program first makes an added call
//	base + 0x1c00  index: one byte for each call number, 0 or 1 + its first row
//	base + 0x1e00  header
//	base + 0x1e40  rows
//	base + 0x2b40  the stub's own thunks, by which it runs calls for added ones
//	base + 0x2bc0  family: the added calls that are variants of another
//	base + 0x2cc0  thunks
//	base + 0x4600  kinds: for syslets, which calls may block
//	base + 0x4800  sets: for each set of properties that indirect(2) can ask
//	               for, an index and rows; written when they are first asked for
package image

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/seed-055cd0c8/indirect/fdcall"
)

// Size is the length of the mapping in bytes.
const Size = 64 << 10

// FilledAt and Filled are where and how many bytes of the mapping are written
// when it is made: the stub, the rows and the first thunks lie in these two pages.
const (
	FilledAt = entryAt
	Filled   = 2 * 4096
)

// Mapped is the number of the call by which the stub tells the supervisor of
// the arena that it has mapped for the process's syslets, at argument 0.
const Mapped = 2015

// StubSize is the length of the part of the mapping that holds the stub.
const StubSize = indexAt

const (
	entryAt        = 0x1000
	indexAt        = 0x1c00
	headerAt       = 0x1e00
	rowsAt         = 0x1e40
	maxRows        = 52
	ownThunkAt     = rowsAt + maxRows*rowSize
	triedThunkAt   = ownThunkAt + thunkSize
	helperThunkAt  = triedThunkAt + thunkSize
	carriedThunkAt = helperThunkAt + thunkSize
	familyAt       = carriedThunkAt + thunkSize
	thunksAt       = familyAt + families*familySize
	kindsAt        = setsAt - numbers
	setsAt         = Size - sets*setSize
	rowSize        = 64
	thunkSize      = 32
	familySize     = 32
	families       = 8
	numbers        = 512
	sets           = 8 // subsets of three properties
	maxSetRows     = 84
	setSize        = numbers + maxSetRows*rowSize
)

// MaxThunks is how many call sites one image can divert.
const MaxThunks = (kindsAt - thunksAt) / thunkSize

// HeaderAt is the offset of the [Header].
const HeaderAt = headerAt

// Header is the state of one image. It lives in the process's memory, where
// fork copies it and exec drops it together with the image that it describes.
// Like all such memory it is input: the process may have changed it.
type Header struct {
	Magic  uint64 // the run's own
	Thunks uint32 // how many are in use
	Flags  Flags
	Owner  uint32 // thread group that was last seen to own the image
	Sets   uint32 // bit w is set if the rows for asked properties w are there
	Arena  uint64 // where the process keeps its syslets, or 0
}

// HeaderSize is the length of a [Header] in memory.
const HeaderSize = 32

// Flags are facts about an image.
type Flags uint32

// Cancels says that the program has begun to cancel threads: its cancellation points are run in place.
const Cancels Flags = 1 << 0

// Known says that the call sites that had trapped in other processes have been
// diverted in this image.
const Known Flags = 1 << 1

// OwnFilters says that a thread of the program has installed a seccomp filter:
// threads that were made before may lack it, and are not used for another's calls.
const OwnFilters Flags = 1 << 2

// Cleared says, in an image with [Cancels], that no thread is in it any more.
const Cleared Flags = 1 << 3

// Marshal returns the header's bytes.
func (h *Header) Marshal() []byte {
	b := make([]byte, 0, HeaderSize)
	b = binary.LittleEndian.AppendUint64(b, h.Magic)
	b = binary.LittleEndian.AppendUint32(b, h.Thunks)
	b = binary.LittleEndian.AppendUint32(b, uint32(h.Flags))
	b = binary.LittleEndian.AppendUint32(b, h.Owner)
	b = binary.LittleEndian.AppendUint32(b, h.Sets)
	return binary.LittleEndian.AppendUint64(b, h.Arena)
}

// ParseHeader reads a header out of a process's memory. It reports false if
// the bytes are not a header of the run that magic stands for.
func ParseHeader(b []byte, magic uint64) (Header, bool) {
	if len(b) < HeaderSize {
		return Header{}, false
	}
	h := Header{
		Magic:  binary.LittleEndian.Uint64(b),
		Thunks: binary.LittleEndian.Uint32(b[8:]),
		Flags:  Flags(binary.LittleEndian.Uint32(b[12:])),
		Owner:  binary.LittleEndian.Uint32(b[16:]),
		Sets:   binary.LittleEndian.Uint32(b[20:]),
		Arena:  binary.LittleEndian.Uint64(b[24:]),
	}
	return h, h.Magic == magic && h.Thunks <= MaxThunks
}

// ChooseBase returns a random multiple of 64 KiB where the mapping shall be:
// above 256 MiB, clear of programs linked at low addresses, and below
// 0x7fff8000, where AddressSanitizer's shadow begins.
func ChooseBase() (uint32, error) {
	const low, high = 0x10000000, 0x7fff0000
	var b [4]byte
	if _, err := rand.Read(b[:]); err != nil {
		return 0, fmt.Errorf("choose the image's address: %w", err)
	}
	slots := uint32((high - low) / Size)
	return low + binary.LittleEndian.Uint32(b[:])%slots*Size, nil
}

// row is the form of a plan that the stub interprets: see stub_amd64.s.
type row struct {
	Next     uint8 // 1 + the next row of the same number, or 0
	Gives    uint8
	Pointer  uint8 // the argument that points to the results
	FlagsArg uint8 // where the program's own flags are, or none
	After    uint8
	Word     uint8 // 1: the flags are the first word of the structure at argument 2
	Theirs   uint8 // an errno of the other call, or 0
	Ours     uint8 // what it becomes
	Nr       uint32
	Asked    uint32 // the close-on-exec bit in the program's own flags
	From     [6]uint8
	_        [2]uint8
	Bits     [6]uint32
	Cond     [2]cond
}

type cond struct {
	Arg, Kind uint8
	_         [2]uint8
	Value     uint32
}

const (
	condNone  = iota
	condEqual // the low 32 bits are Value
	condOther // the low 32 bits are not Value
	condSign  // bit 31 is Value
)

const (
	afterCloexec  = 1 << iota
	afterNonblock // set O_NONBLOCK on the result
	afterNonseq   // move the result to a random number
	keepCloexec   // a moved result shall be close-on-exec
	askedAlways   // the call's results are close-on-exec without asking
	afterErrno    // look at errors
	anyNumber     // a result of 0, 1 or 2 is no standard stream
)

const (
	fromNothing  = 9 // a word of the frame that holds zero
	flagsNowhere = 0xff
)

// Code is the content of an image.
type Code struct {
	first [Filled]byte // from FilledAt
	rest  []byte       // what ends there: see [Code.Rest]
}

// at is the place in the first pages of an offset in the image.
func (c *Code) at(offset uint32) []byte { return c.first[offset-FilledAt:] }

// Rest returns the parts of the image that only added calls need, by offset.
func (c *Code) Rest() map[uint32][]byte {
	return map[uint32][]byte{entryAt - uint32(len(c.rest)): c.rest, kindsAt: kinds()}
}

// Build compiles the table's amd64 calls, with the properties that want names
// for each, into the content of images at base.
func Build(t *fdcall.Table, want func(*fdcall.Call) fdcall.Want, base uint32) (*Code, error) {
	stub, entry, err := stubText()
	if err != nil {
		return nil, err
	}
	if entry > entryAt || len(stub)-entry > indexAt-entryAt {
		return nil, fmt.Errorf("the stub has %d bytes before its entry and %d after it: the image has no room for them", entry, len(stub)-entry)
	}
	code := new(Code)
	code.rest = stub[:entry]
	copy(code.at(entryAt), stub[entry:])
	index, rows, err := compileRows(t, maxRows, func(c *fdcall.Call) (row, bool, error) {
		p, ok := t.Plan(c, want(c))
		if !ok {
			return row{}, false, nil
		}
		r, err := compile(c, p, c.Applicable(want(c)))
		return r, true, err
	})
	if err != nil {
		return nil, err
	}
	copy(code.at(indexAt), index)
	copy(code.at(rowsAt), rows)
	for _, own := range []struct {
		at     uint32
		leadTo []byte
	}{{ownThunkAt, afterNested}, {triedThunkAt, afterAttempt}, {helperThunkAt, afterHelper}, {carriedThunkAt, afterCarried}} {
		to, err := place(own.leadTo)
		if err != nil {
			return nil, err
		}
		copy(code.at(own.at), thunk(own.at, uint64(base+to)))
	}
	for _, a := range fdcall.AddedCalls() {
		if a.Runs != "" {
			b, err := family(t, &a)
			if err != nil {
				return nil, fmt.Errorf("compile %s for the stub: %w", a.Name, err)
			}
			copy(code.at(familyAt+uint32(a.Nr-fdcall.NrIndirect)*familySize), b)
		}
	}
	return code, nil
}

// family translates an added call that is a variant of another one.
func family(t *fdcall.Table, a *fdcall.Added) ([]byte, error) {
	runs := t.ByID(a.Runs)
	f := struct {
		From     [6]uint8
		FlagsArg uint8
		Gives    uint8
		Nr       uint32
		Refuses  uint32
		MaskArg  uint8
		_        [familySize - 17]uint8
	}{
		FlagsArg: uint8(a.FlagsArg), Gives: uint8(a.Gives), Nr: uint32(runs.Nr[fdcall.AMD64]), Refuses: ^a.Accepts, MaskArg: uint8(a.MaskArg),
	}
	const most = 4
	if len(a.Args) > most {
		return nil, fmt.Errorf("%d arguments, the stub passes on %d", len(a.Args), most)
	}
	for i := range f.From {
		f.From[i] = fromNothing
	}
	for i, o := range a.Args {
		if o.From < 0 || o.Bits != 0 {
			return nil, errors.New("the stub only passes on arguments")
		}
		f.From[i] = uint8(o.From)
	}
	var b bytes.Buffer
	err := binary.Write(&b, binary.LittleEndian, f)
	return b.Bytes(), err
}

// BuildSet compiles the table's amd64 calls for programs that ask for the
// properties in asked through indirect(2), beside what want names: the index
// and the rows, for [SetAt]. Calls that the stub must not run are left to the
// supervisor.
func BuildSet(t *fdcall.Table, want func(*fdcall.Call) fdcall.Want, leave func(*fdcall.Call) bool, asked fdcall.Want) ([]byte, error) {
	index, rows, err := compileRows(t, maxSetRows, func(c *fdcall.Call) (row, bool, error) {
		p, ok := t.PlanAsked(c, want(c), asked)
		if !ok || !c.CanIndirect() || leave(c) {
			return row{}, false, nil
		}
		r, err := compile(c, p, c.Applicable(want(c))|asked)
		if asked&fdcall.Cloexec != 0 {
			r.After |= askedAlways
		}
		if asked&fdcall.Nonseq != 0 {
			r.After |= anyNumber
		}
		return r, true, err
	})
	if err != nil {
		return nil, err
	}
	calls := t.All()
	for i := range calls {
		c := &calls[i]
		n := c.Nr[fdcall.AMD64]
		switch {
		case n == fdcall.None, n >= numbers, index[n] != 0, !c.CanIndirect():
		case leave(c):
			index[n] = left
		default:
			index[n] = unchanged
		}
	}
	return append(index, rows...), nil
}

// In the index of a set.
const (
	unchanged = 0xff // a call that needs no row
	left      = 0xfe // a call for the supervisor
)

// SetAt returns the offset in the image of the rows for the properties asked.
func SetAt(asked fdcall.Want) uint32 { return setsAt + uint32(asked)*setSize }

// compileRows makes rows for the table's amd64 calls, and their index.
func compileRows(t *fdcall.Table, most int, compile func(*fdcall.Call) (row, bool, error)) (index, rows []byte, err error) {
	index = make([]byte, numbers)
	var all []row
	last := make(map[int32]int) // call number to its last row
	calls := t.All()
	for i := range calls {
		c := &calls[i]
		n := c.Nr[fdcall.AMD64]
		if n == fdcall.None || n >= numbers {
			continue
		}
		r, ok, err := compile(c)
		switch {
		case err != nil:
			return nil, nil, fmt.Errorf("compile %s for the stub: %w", c.ID(), err)
		case !ok:
			continue
		}
		all = append(all, r)
		if before, ok := last[n]; ok {
			all[before].Next = uint8(len(all))
		} else {
			index[n] = uint8(len(all))
		}
		last[n] = len(all) - 1
	}
	if len(all) > most {
		return nil, nil, fmt.Errorf("%d rows, the image has room for %d", len(all), most)
	}
	var b bytes.Buffer
	if err := binary.Write(&b, binary.LittleEndian, all); err != nil {
		return nil, nil, fmt.Errorf("encode rows: %w", err)
	}
	return index, b.Bytes(), nil
}

// compile translates one plan.
func compile(c *fdcall.Call, p fdcall.Plan, want fdcall.Want) (row, error) {
	r := row{
		Gives:    uint8(c.Gives),
		Pointer:  uint8(c.GivesArg),
		FlagsArg: flagsNowhere,
		Nr:       uint32(p.To.Nr[fdcall.AMD64]),
		Asked:    c.CloexecBits,
		Theirs:   p.Errno.Theirs,
		Ours:     p.Errno.Ours,
	}
	if c.FlagsArg != fdcall.NoFlags {
		r.FlagsArg = uint8(c.FlagsArg)
	}
	if c.Gives == fdcall.Exact {
		r.Gives = uint8(fdcall.Ret) // returned as well
	}
	for i, a := range p.Args {
		r.Bits[i] = a.Bits
		if r.From[i] = fromNothing; a.From >= 0 {
			r.From[i] = uint8(a.From)
		}
	}
	if p.To.Indirect {
		if p.To.FlagsArg != 2 {
			return row{}, errors.New("the stub expects the structure at argument 2 and its size at argument 3")
		}
		r.Word, r.Bits[2] = 1, p.FlagWord
	}
	for _, f := range []struct {
		set bool
		bit uint8
	}{
		{p.After&fdcall.Cloexec != 0, afterCloexec},
		{p.After&fdcall.Nonblock != 0, afterNonblock},
		{p.After&fdcall.Nonseq != 0, afterNonseq},
		{want&fdcall.Cloexec != 0, keepCloexec},
		{c.Class == fdcall.Always, askedAlways},
		{p.Errno.Theirs != 0, afterErrno},
	} {
		if f.set {
			r.After |= f.bit
		}
	}
	if len(c.When) > len(r.Cond) {
		return row{}, fmt.Errorf("%d conditions, the stub has room for %d", len(c.When), len(r.Cond))
	}
	for i, w := range c.When {
		k := cond{Arg: w.Arg, Value: uint32(w.Value)}
		switch {
		case w.Mask == 0xffffffff && w.Not:
			k.Kind = condOther
		case w.Mask == 0xffffffff:
			k.Kind = condEqual
		case w.Mask == 0x80000000:
			k.Kind, k.Value = condSign, uint32(w.Value>>31)
			if w.Not {
				k.Value ^= 1
			}
		default:
			return row{}, fmt.Errorf("the stub cannot test argument %d under mask %#x", w.Arg, w.Mask)
		}
		r.Cond[i] = k
	}
	return r, nil
}

// AppendTo appends the content of an image with the header h and its thunks to
// b, from [FilledAt] on, but without the header's mark: it is written last, and
// makes the image one.
func (c *Code) AppendTo(b []byte, h Header, thunks []byte) []byte {
	h.Magic = 0
	all := append(b, c.first[:]...)
	all = append(all, make([]byte, max(0, thunksAt-FilledAt+len(thunks)-Filled))...)
	b = all[len(b):]
	copy(b[headerAt-FilledAt:], h.Marshal())
	copy(b[thunksAt-FilledAt:], thunks)
	return all
}

// ThunkAddress returns where thunk i of the image at base is.
func ThunkAddress(base uint32, i int) uint32 { return base + thunksAt + uint32(i)*thunkSize }

// OwnThunk returns where the image's own thunk is: the one that a [Frame] names
// whose call the stub runs for an added one. The frame of the added call is then
// the next one, at [NestedSize].
func OwnThunk(base uint32) uint64 { return uint64(base) + ownThunkAt }

// ArenaSize is the size of the arena in bytes.
const ArenaSize = 4 << 20

// NestedSize is how far above the frame of a call that is run for an added call
// the added call's own frame is.
const NestedSize = 80

// Thunk returns the bytes of thunk i in an image, for a call site whose
// following instruction is at ret.
func Thunk(i int, ret uint64) []byte { return thunk(thunksAt+uint32(i)*thunkSize, ret) }

// thunk returns the bytes of a thunk at an offset in the image.
func thunk(at uint32, ret uint64) []byte {
	b := make([]byte, 0, thunkSize)
	b = append(b, 0xe9) // jmp stub
	b = binary.LittleEndian.AppendUint32(b, entryAt-(at+5))
	b = append(b, 0x0f, 0x05)              // syscall
	b = append(b, 0xff, 0x25, 11, 0, 0, 0) // jmp *11(%rip)
	b = append(b, make([]byte, thunkReturnAt-len(b))...)
	return binary.LittleEndian.AppendUint64(b, ret)
}

const (
	thunkRouteAt  = 16 // a byte of ours: see [Unroutable]
	thunkReturnAt = 24
)

// UnroutableAt is the offset of a thunk's byte that is not 0 if its call site
// cannot be diverted.
const UnroutableAt = thunkRouteAt

// Unroutable reports whether a thunk is marked so.
func Unroutable(thunk []byte) bool { return thunk[thunkRouteAt] != 0 }

// FindThunk returns the thunk that goes back to ret among the bytes of the
// thunks in use, as read from the process.
func FindThunk(thunks []byte, ret uint64) (int, bool) {
	for i := 0; (i+1)*thunkSize <= len(thunks); i++ {
		if binary.LittleEndian.Uint64(thunks[i*thunkSize+thunkReturnAt:]) == ret {
			return i, true
		}
	}
	return 0, false
}

// ThunksLen is the length in bytes of n thunks.
func ThunksLen(n uint32) int { return int(n) * thunkSize }

// Landing returns the code that a process without an image runs to map one.
func Landing() ([]byte, error) { return landingText() }

// Single returns the code by which a process without an image makes one call,
// whose flags have been added; it takes a [LandingFrame] from the stack, whose
// Site is the address behind the program's call.
func Single() ([]byte, error) { return singleText() }

// LandingTold returns the offset, in what [Landing] returns, behind the call by
// which a process says that it has mapped its image, where nothing was: the program's
// own call, so that a seccomp filter of its own lets it pass. A positive result
// is the address at which to go on.
func LandingTold() (int, error) {
	code, err := Landing()
	if err != nil {
		return 0, err
	}
	syscall := []byte{0x0f, 0x05}
	mmap := bytes.Index(code, syscall) + len(syscall)
	return mmap + bytes.Index(code[mmap:], syscall) + len(syscall), nil
}

// LandingFrame is what [Landing] and [Single] take from the stack, from the
// lowest address on.
type LandingFrame struct {
	DI, SI, DX, R10, R8, R9, AX uint64

	Site uint64 // where to go on: the call that was trapped
	Mask uint64 // the program's signal mask
}

// LandingFrameSize is the length of a [LandingFrame]; it lies directly below
// the 128 bytes of the program's red zone.
const LandingFrameSize = 72

// Marshal returns the frame's bytes.
func (f *LandingFrame) Marshal() []byte {
	b := make([]byte, 0, LandingFrameSize)
	for _, v := range []uint64{f.DI, f.SI, f.DX, f.R10, f.R8, f.R9, f.AX, f.Site, f.Mask} {
		b = binary.LittleEndian.AppendUint64(b, v)
	}
	return b
}

// ParseLandingFrame reads a frame of LandingFrameSize bytes.
func ParseLandingFrame(b []byte) LandingFrame {
	word := func(i int) uint64 { return binary.LittleEndian.Uint64(b[8*i:]) }
	return LandingFrame{
		DI: word(0), SI: word(1), DX: word(2), R10: word(3), R8: word(4), R9: word(5), AX: word(6),
		Site: word(7), Mask: word(8),
	}
}

// LandingEnd is Landing's last instruction, before which it has taken its frame
// from the stack.
var LandingEnd = [...]byte{0xff, 0xe1} // jmp *%rcx

// Frame is what the stub keeps on the stack while a call runs: see the
// F_ constants in stub_amd64.s.
type Frame struct {
	Args  [6]uint64
	Nr    uint64
	Thunk uint64
	BX    uint64
}

// FrameSize is how far below the program's stack pointer the stub's is.
const FrameSize = 208

// FrameHead is the length of the part of the frame that [ParseFrame] reads.
const FrameHead = 72

// Carried is a syslet of a program that speaks another ABI than the stub, whose
// thread is sent to [SysletAt] with it on its stack.
type Carried struct {
	Call               [7]uint64 // the number and the arguments
	Ring, Data, IP, SP uint64    // struct syslet_args
	I386               bool      // the call is made by int $0x80
	Standard           bool      // a result of 0, 1 or 2 is a standard stream
	// Registers are those to go on with: struct user_regs_struct, from r15 to ss.
	// In the place of orig_ax, which is no register, is the signal mask.
	Registers [CarriedRegisters]uint64
}

// How the call of a Carried is to be made.
const (
	carried        = 1 << iota // at all
	byInt80                    // by int $0x80
	standardStream             // and looked at for a standard stream
)

// CarriedRegisters is how many words the registers of a [Carried] have.
const CarriedRegisters = 21

// CarriedSize is the length of what [Carried.Marshal] returns.
const CarriedSize = FrameSize + 8*CarriedRegisters

// Marshal returns what is to lie at the thread's stack pointer, for an image at
// base.
func (c *Carried) Marshal(base uint32) []byte {
	manner := uint64(carried)
	if c.I386 {
		manner |= byInt80
	}
	if c.Standard {
		manner |= standardStream
	}
	f := Frame{Thunk: uint64(base) + carriedThunkAt}
	b := make([]byte, 0, CarriedSize)
	put := func(words ...uint64) {
		for _, w := range words {
			b = binary.LittleEndian.AppendUint64(b, w)
		}
	}
	put(f.Args[:]...)
	put(f.Nr, f.Thunk, f.BX, 0)
	put(c.Call[:]...)
	put(c.Ring, c.Data, c.IP, c.SP, manner)
	b = append(b, make([]byte, FrameSize-len(b))...)
	put(c.Registers[:]...)
	return b
}

// SysletAt returns the offset in the image at which a thread begins that brings
// a [Carried], with base in rcx.
func SysletAt() (uint32, error) { return place(takesSyslet) }

// ParseFrame reads a frame from a thread's stack.
func ParseFrame(b []byte) (Frame, bool) {
	var f Frame
	if len(b) < FrameHead {
		return f, false
	}
	for i, p := range []*uint64{&f.Args[0], &f.Args[1], &f.Args[2], &f.Args[3], &f.Args[4], &f.Args[5], &f.Nr, &f.Thunk, &f.BX} {
		*p = binary.LittleEndian.Uint64(b[8*i:])
	}
	return f, true
}

// Places in the stub that others must know, by their code: see stub_amd64.s.
var (
	issue        = []byte{0x8b, 0x43, 0x08, 0x0f, 0x05}                   // mov 8(%rbx),%eax; syscall: where it makes the program's call
	afterNested  = []byte{0x48, 0x8d, 0x64, 0x24, 0x80}                   // lea -128(%rsp),%rsp
	afterAttempt = []byte{0x48, 0x81, 0xec, 0x80, 0x00, 0x00, 0x00}       // sub $128,%rsp
	afterHelper  = []byte{0x48, 0x8d, 0x9c, 0x24, 0x00, 0xfc, 0xff, 0xff} // lea -1024(%rsp),%rbx
	afterCarried = []byte{0x48, 0x89, 0x44, 0x24, 0x50, 0x48, 0x89, 0xe3} // mov %rax,80(%rsp); mov %rsp,%rbx
	takesSyslet  = []byte{0x4c, 0x8b, 0x99, 0x18, 0x1e, 0x00, 0x00}       // mov 0x1e18(%rcx),%r11
)

// Issued returns the offset in the image of the instruction that follows the
// program's own call in the stub.
func Issued() (uint32, error) {
	at, err := place(issue)
	return at + uint32(len(issue)), err
}

// place returns the offset in the image of the one place in the stub that has
// the given code.
func place(code []byte) (uint32, error) {
	stub, entry, err := stubText()
	if err != nil {
		return 0, err
	}
	at := bytes.Index(stub, code)
	if at < 0 || bytes.Contains(stub[at+1:], code) {
		return 0, fmt.Errorf("the stub has not one place with the code % x", code)
	}
	return uint32(entryAt - entry + at), nil
}

// ThunkIndex returns which thunk of the image at base begins at address.
func ThunkIndex(base uint32, address uint64) (int, bool) {
	at := address - uint64(base) - thunksAt
	return int(at / thunkSize), address >= uint64(base)+thunksAt && at%thunkSize == 0 && at/thunkSize < MaxThunks
}

// PlainReturn is the offset in a thunk of the instruction after its own call.
const PlainReturn = 7

// ReturnOf returns where a thunk goes back to.
func ReturnOf(thunk []byte) uint64 {
	return binary.LittleEndian.Uint64(thunk[thunkReturnAt:])
}

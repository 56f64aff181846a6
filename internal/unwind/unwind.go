// Package unwind finds the callers of a stopped thread: the return addresses
// on its stack, by the call frame information of the code it runs.
//
// The rules come, in this order, from .eh_frame (System V ABI for AMD64,
// 3.7; LSB Core, 10.6), from the table that Go programs carry for their own
// tracebacks, and from .debug_frame (DWARF 5, 6.4). Code without any of them
// is passed by frame pointers, or by the first word on the stack that can be a
// return address; what was found so is marked as a guess.
//
// Programs, their files and their memory are input: whatever they contain, an
// unwinding ends, allocates a bounded amount and does not panic.
package unwind

import (
	"errors"
	"fmt"
	"io"

	"github.com/seed-055cd0c8/indirect/internal/tracee"
)

// Why a stack may be incomplete.
var (
	// ErrRegisters says that the next frame depends on a register that was not
	// given. It cannot happen if all registers are.
	ErrRegisters = errors.New("the stack depends on a register that is not known")
	// ErrLost says that nothing tells where the next frame is.
	ErrLost = errors.New("no rule leads to the next frame")
)

// Arch is an instruction set with its registers.
type Arch uint8

// The instruction sets whose stacks can be read.
const (
	AMD64 Arch = iota
	I386
)

// word is the size of a register on the stack, in bytes.
func (a Arch) word() int {
	if a == I386 {
		return 4
	}
	return 8
}

// Registers by DWARF's numbers (System V ABI for AMD64, figure 3.36; for
// Intel386, table 2.14).
const (
	amd64RBP, amd64RSP, amd64RIP = 6, 7, 16
	i386ESP, i386EBP, i386EIP    = 4, 5, 8
	registers                    = 17
)

func (a Arch) sp() int {
	if a == I386 {
		return i386ESP
	}
	return amd64RSP
}

func (a Arch) fp() int {
	if a == I386 {
		return i386EBP
	}
	return amd64RBP
}

func (a Arch) pc() int {
	if a == I386 {
		return i386EIP
	}
	return amd64RIP
}

// Regs are registers, of which some may be unknown.
type Regs struct {
	Arch  Arch
	known uint32
	r     [registers]uint64
}

// At are registers of which only the program counter and the stack pointer are
// known. Most stacks can be read with no more, and the others fail with
// [ErrRegisters].
func At(arch Arch, pc, sp uint64) Regs {
	r := Regs{Arch: arch}
	r.SetPC(pc)
	r.SetSP(sp)
	return r
}

func (r *Regs) set(i int, v uint64) { r.r[i], r.known = v, r.known|1<<i }

// get returns register i by DWARF's number.
func (r *Regs) get(i uint64) (uint64, error) {
	if i >= registers || r.known&(1<<i) == 0 {
		return 0, ErrRegisters
	}
	return r.r[i], nil
}

// PC is the program counter.
func (r *Regs) PC() uint64 { return r.r[r.Arch.pc()] }

// SP is the stack pointer.
func (r *Regs) SP() uint64 { return r.r[r.Arch.sp()] }

// SetPC changes the program counter.
func (r *Regs) SetPC(v uint64) { r.set(r.Arch.pc(), v) }

// SetSP changes the stack pointer.
func (r *Regs) SetSP(v uint64) { r.set(r.Arch.sp(), v) }

// Frame is an activation of a function.
type Frame struct {
	PC uint64
	// At is the address of the word on the stack that PC was found in: a return
	// address, or what a signal has saved. It is 0 for the innermost frame. As
	// long as the stack pointer, the innermost PC and all these words are the
	// same, so is the stack, but for frames that are guesses.
	At uint64
	// Exact says that PC is the instruction that runs next: the innermost
	// frame's, or one that a signal interrupted. Otherwise it is a return
	// address, and the call is the instruction before.
	Exact   bool
	Guessed bool
	// Mapping is where PC is, nil if nowhere.
	Mapping *tracee.Mapping
}

// Offset is where PC is in the file of Mapping. Without a mapping it is PC.
func (f *Frame) Offset() uint64 {
	if f.Mapping == nil {
		return f.PC
	}
	return f.PC - f.Mapping.Start + f.Mapping.Offset
}

// Options say how to unwind. The zero value is usable.
type Options struct {
	// Special unwinds a frame of code that has no rules of its own, such as
	// code that was injected. It changes the registers to those of the caller
	// at the instruction that runs next there, and returns the address of the
	// word that the new PC was found in, 0 for none. It returns false, with the
	// registers as they were, for any other code.
	Special func(r *Regs, memory io.ReaderAt) (at uint64, ok bool)
	// Modules is how many files' tables are kept. 0 stands for 256.
	Modules int
}

// Unwinder unwinds stacks, and keeps what it has learned of files. It may be
// used by many goroutines at once. It holds no file open.
type Unwinder struct {
	special func(*Regs, io.ReaderAt) (uint64, bool)
	modules modules
}

// New returns an unwinder.
func New(o Options) *Unwinder {
	const manyFiles = 256
	if o.Modules <= 0 {
		o.Modules = manyFiles
	}
	return &Unwinder{special: o.Special, modules: modules{most: o.Modules, known: make(map[identity]*module)}}
}

// Stack returns the frames of a thread, the innermost first, at most depth of
// them. If it ends before the outermost frame, the error says why; the frames
// up to there are valid. The thread must not run meanwhile.
func (u *Unwinder) Stack(s *Space, p Process, regs Regs, depth int) ([]Frame, error) {
	w := newWindow(p, regs.Arch.word())
	defer w.release()
	st := state{u: u, space: s, memory: w, regs: regs}
	frames := make([]Frame, 0, min(depth, 64))
	frame := Frame{PC: regs.PC(), Exact: true, Mapping: st.mapping(regs.PC())}
	for len(frames) < depth {
		frames = append(frames, frame)
		next, err := st.step(&frame)
		// What a signal handler returns to was not called.
		frames[len(frames)-1].Exact = frame.Exact
		if errors.Is(err, errOutermost) {
			return frames, nil
		}
		if err != nil {
			return frames, fmt.Errorf("unwind from %#x: %w", frame.PC, err)
		}
		frame = next
	}
	return frames, nil
}

// errOutermost says that a frame has no caller.
var errOutermost = errors.New("outermost frame")

// state is one unwinding.
type state struct {
	u        *Unwinder
	space    *Space
	memory   *window
	regs     Regs
	reloaded bool
	guesses  int
}

// mapping finds where an address is, also if it was mapped since the space was read.
func (st *state) mapping(pc uint64) *tracee.Mapping {
	if r := st.region(pc); r != nil {
		return &r.Mapping
	}
	return nil
}

func (st *state) region(pc uint64) *region {
	r := st.space.find(pc)
	if r == nil && !st.reloaded && pc != 0 {
		st.reloaded = true
		st.space.reload(st.memory.source)
		r = st.space.find(pc)
	}
	return r
}

// step changes the registers to those of the caller of f, and returns its frame.
func (st *state) step(f *Frame) (Frame, error) {
	before := st.regs
	if st.u.special != nil {
		if at, ok := st.u.special(&st.regs, st.memory); ok {
			return st.arrive(f, &before, at, true, false)
		}
	}
	lookup := f.PC
	if !f.Exact {
		lookup-- // a call may be the last instruction of its function
	}
	r := st.region(lookup)
	if r == nil {
		return st.guess(f)
	}
	row, vaddr, err := st.rules(r, lookup)
	if err != nil {
		if st.signalFrame(f.PC) {
			at, err := st.restoreSignalFrame()
			if err != nil {
				return Frame{}, err
			}
			f.Exact = true
			return st.arrive(f, &before, at, true, false)
		}
		return st.guess(f)
	}
	at, err := row.apply(&st.regs, st.memory, lookup-vaddr)
	if err != nil {
		st.regs = before
		return Frame{}, err
	}
	f.Exact = f.Exact || row.signal
	return st.arrive(f, &before, at, row.signal, f.Guessed)
}

// rules finds the rules for an address in a region, and what the linker thinks
// that the address is.
func (st *state) rules(r *region, pc uint64) (*row, uint64, error) {
	m := r.read(&st.u.modules, st.memory.source)
	if m == nil {
		return nil, 0, errNoRules
	}
	vaddr, ok := m.vaddr(pc - r.Start + r.Offset)
	if !ok {
		return nil, 0, errNoRules
	}
	row, err := m.row(vaddr, func() (file, error) { return r.open(st.memory.source) })
	return row, vaddr, err
}

// arrive returns the frame that the registers now stand for.
func (st *state) arrive(from *Frame, before *Regs, at uint64, exact, guessed bool) (Frame, error) {
	pc := st.regs.PC()
	switch {
	case pc == 0:
		return Frame{}, errOutermost
	case pc == before.PC() && st.regs.SP() == before.SP():
		return Frame{}, fmt.Errorf("%w: a frame is its own caller", ErrLost)
	}
	lookup := pc
	if !exact {
		lookup--
	}
	return Frame{PC: pc, At: at, Exact: exact, Guessed: guessed, Mapping: st.mapping(lookup)}, nil
}

package unwind

import (
	"bytes"
	"fmt"
)

// Bounds of guessing.
const (
	maxGuesses   = 64       // in one stack
	scannedWords = 128      // above the stack pointer
	largestFrame = 16 << 20 // bytes
)

// guess passes a frame that no rules describe: the frame pointer's chain, or
// else the first word on the stack that can be a return address.
func (st *state) guess(f *Frame) (Frame, error) {
	if st.guesses++; st.guesses > maxGuesses {
		return Frame{}, fmt.Errorf("%w: too many frames without rules", ErrLost)
	}
	before := st.regs
	word := uint64(st.memory.word)
	arch, sp := st.regs.Arch, st.regs.SP()
	take := func(at uint64) (Frame, error) {
		pc, err := st.memory.at(at)
		if err != nil {
			return Frame{}, err
		}
		st.regs.SetSP(at + word)
		st.regs.SetPC(pc)
		return st.arrive(f, &before, at, false, true)
	}
	// A function that is entered, or has not made a frame, has its return
	// address on top of the stack.
	if f.Exact && st.returns(sp) {
		return take(sp)
	}
	if fp, err := st.regs.get(uint64(arch.fp())); err == nil && fp >= sp && fp-sp < largestFrame && fp%word == 0 {
		if saved, err := st.memory.at(fp); err == nil && (saved > fp || saved == 0) && st.returns(fp+word) {
			st.regs.set(arch.fp(), saved)
			return take(fp + word)
		}
	}
	for at := sp &^ (word - 1); at < sp+scannedWords*word; at += word {
		if st.returns(at) {
			return take(at)
		}
	}
	return Frame{}, ErrLost
}

// returns reports whether the word at an address of the stack can be a return
// address: it follows a call.
func (st *state) returns(at uint64) bool {
	pc, err := st.memory.at(at)
	if err != nil || pc < 16 {
		return false
	}
	r := st.space.find(pc - 1)
	if r == nil {
		return false
	}
	const longestCall = 7
	var b [longestCall]byte
	if n, _ := st.memory.ReadAt(b[:], int64(pc-longestCall)); n < longestCall {
		return false
	}
	return endsWithCall(b[:])
}

// endsWithCall reports whether the last bytes of code can be a call (Intel
// SDM volume 2, CALL): e8 rel32, or ff /2 with its operand.
func endsWithCall(b []byte) bool {
	n := len(b)
	if n >= 5 && b[n-5] == 0xe8 {
		return true
	}
	for size := 2; size <= 7 && size <= n; size++ {
		if b[n-size] != 0xff || b[n-size+1]>>3&7 != 2 {
			continue
		}
		modrm := b[n-size+1]
		mod, rm := modrm>>6, modrm&7
		want := 2
		switch {
		case mod == 3:
		case rm == 4: // SIB
			want++
			if size >= 3 && mod == 0 && b[n-size+2]&7 == 5 {
				want += 4
			}
		case mod == 0 && rm == 5:
			want += 4
		}
		switch mod {
		case 1:
			want++
		case 2:
			want += 4
		}
		if want == size {
			return true
		}
	}
	return false
}

// signalFrame reports whether pc is where a signal handler returns to, in code
// without rules: musl's and Go's.
func (st *state) signalFrame(pc uint64) bool {
	if st.regs.Arch != AMD64 {
		return false
	}
	var b [9]byte
	n, _ := st.memory.ReadAt(b[:], int64(pc))
	return bytes.HasPrefix(b[:n], []byte("\x48\xc7\xc0\x0f\x00\x00\x00\x0f\x05")) || // mov $15,%rax; syscall
		bytes.HasPrefix(b[:n], []byte("\xb8\x0f\x00\x00\x00\x0f\x05")) // mov $15,%eax; syscall
}

// restoreSignalFrame does what rt_sigreturn(2) would: the stack pointer is at
// a ucontext (arch/x86/include/uapi/asm/sigcontext.h). It returns where the
// program counter was.
func (st *state) restoreSignalFrame() (uint64, error) {
	const general = 40 // r8, ...
	context := st.regs.SP() + general
	next := st.regs
	for i, r := range [...]int{8, 9, 10, 11, 12, 13, 14, 15, 5, 4, amd64RBP, 3, 1, 0, 2, amd64RSP, amd64RIP} {
		v, err := st.memory.at(context + uint64(8*i))
		if err != nil {
			return 0, err
		}
		next.set(r, v)
	}
	st.regs = next
	const pc = 16 * 8
	return context + pc, nil
}

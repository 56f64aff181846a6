package oldkernel

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/seed-055cd0c8/indirect/fdcall"
	"github.com/seed-055cd0c8/indirect/supervise"
	"github.com/seed-055cd0c8/indirect/syscalls"
)

// config is what the supervisor is told.
type config struct {
	Release string
	Names   []utsname
	Flags   []youngFlag
}

// utsname is a call that tells the kernel's release, and where it puts it in
// the structure that argument 0 points to.
type utsname struct {
	Nr           fdcall.Numbers
	Offset, Size uint64
}

// youngFlag is a flag that the older kernel does not know.
type youngFlag struct {
	Nr   fdcall.Numbers
	When []fdcall.Cond
	Old  old
}

// utsnames returns the calls that tell the release: struct new_utsname,
// old_utsname and oldold_utsname of include/uapi/linux/utsname.h.
func utsnames() []utsname {
	var all []utsname
	for _, c := range syscalls.Linux() {
		switch c.Name {
		case "uname", "olduname":
			all = append(all, utsname{Nr: c.Nr, Offset: 2 * 65, Size: 65})
		case "oldolduname":
			all = append(all, utsname{Nr: c.Nr, Offset: 2 * 9, Size: 9})
		}
	}
	return all
}

// Open makes the supervisor's handler.
func Open(raw json.RawMessage, _ *os.File) (supervise.Handler, error) {
	var h handler
	if err := json.Unmarshal(raw, &h); err != nil {
		return nil, fmt.Errorf("read the older kernel's answers: %w", err)
	}
	return &h, nil
}

// handler gives the answers that a filter cannot.
type handler config

// Handle implements [supervise.Handler].
func (h *handler) Handle(ev *supervise.Event) supervise.Decision {
	for _, u := range h.Names {
		if u.Nr[ev.ABI] == ev.Nr {
			return supervise.Continue().Watch(ev, nil, func(a *supervise.Attached, result int64) int64 {
				return h.rename(a, ev.Args[0]+u.Offset, u.Size, result)
			})
		}
	}
	args, dropped := ev.Args, false
	for _, f := range h.Flags {
		c := fdcall.Call{When: f.When}
		if f.Nr[ev.ABI] != ev.Nr || !c.Matches(&ev.Args) {
			continue
		}
		if f.Old.Block {
			if f.inBlock(ev) {
				return supervise.Fail(f.Old.Errno)
			}
			continue
		}
		args[f.Old.Arg] &^= f.Old.Bits
		dropped = true
	}
	if dropped {
		return supervise.Run(ev.Nr, args)
	}
	return supervise.Continue()
}

// rename writes the older kernel's release over that of this one.
func (h *handler) rename(a *supervise.Attached, address, size uint64, result int64) int64 {
	if result != 0 {
		return result
	}
	name := make([]byte, size)
	copy(name[:size-1], h.Release)
	if err := a.Write(address, name); err != nil {
		return -int64(unix.EFAULT)
	}
	return result
}

// inBlock reports whether the flag is set in the arguments of socketcall(2).
func (f *youngFlag) inBlock(ev *supervise.Event) bool {
	word := make([]byte, 4)
	if ev.Read(uint64(uint32(ev.Args[1]))+4*uint64(f.Old.Arg), word) != nil {
		return false // the kernel says why
	}
	return uint64(binary.LittleEndian.Uint32(word))&f.Old.Bits != 0
}

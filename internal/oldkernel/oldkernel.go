// Package oldkernel lets programs run as on an older kernel: system calls,
// operations and flags that it did not have give the answers that it gave.
//
// What was refused is refused by a seccomp filter, at native speed. Flags that
// the old kernel ignored, and uname(2), take the supervisor: see [Open].
package oldkernel

import (
	"encoding/json"
	"fmt"
	"runtime"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/seed-055cd0c8/indirect/fdcall"
	"github.com/seed-055cd0c8/indirect/internal/filter"
	"github.com/seed-055cd0c8/indirect/supervise"
	"github.com/seed-055cd0c8/indirect/syscalls"
)

// Options say which kernel to simulate.
type Options struct {
	// Kernel is a version, not newer than the running one; empty: the running one.
	Kernel string
	// Without names what to take away besides: calls ("openat2"), operations
	// ("fcntl F_DUPFD_CLOEXEC") or flags ("open O_PATH").
	Without []string
	// Adds says that descriptors are given flags that the program did not ask
	// for. What that takes then stays where our own calls are made by the
	// program's instructions (on all ABIs but the native one), and so does
	// close-on-exec where the older kernel ignored it.
	Adds bool
	// Error is the name of the error that what Without names gives. Empty:
	// what kernels said before they had it, for calls ENOSYS.
	Error string
}

// Simulation is what an older kernel does differently.
type Simulation struct {
	release string // for uname; empty: the running kernel's
	unknown uint32
	gone    []removal
}

// removal is a feature that is taken away, on some ABIs.
type removal struct {
	nr   fdcall.Numbers
	when []fdcall.Cond
	old  old
}

// New returns what the options ask for. The errors of bad options name the
// nearest good ones.
func New(o Options) (*Simulation, error) {
	s := new(Simulation)
	all := features()
	named, err := s.without(all, o)
	if err != nil {
		return nil, err
	}
	s.gone = named
	if o.Kernel != "" {
		if err := s.age(all, o.Kernel); err != nil {
			return nil, err
		}
	}
	if o.Adds {
		s.keepWhatAddingTakes()
	}
	return s, nil
}

// age takes away what is younger than the kernel.
func (s *Simulation) age(all []feature, kernel string) error {
	v, release, err := parse(kernel)
	if err != nil {
		return fmt.Errorf("--kernel: %w", err)
	}
	running, err := Running()
	if err != nil {
		return err
	}
	native := offered(runtime.GOARCH)[0]
	switch oldest := syscalls.Oldest(native); {
	case syscalls.Compare(v, running) > 0:
		return fmt.Errorf("--kernel: Linux %s is newer than this kernel, %s, which cannot give what it lacks", kernel, running)
	case syscalls.Compare(v, oldest) < 0:
		return fmt.Errorf("--kernel: Linux %s could not run %s programs; the oldest one is %s", kernel, native, oldest)
	}
	s.release = release
	for _, f := range all {
		if r, ok := f.before(v); ok {
			s.gone = append(s.gone, r)
		}
		for _, n := range f.nr {
			if n < firstOwnX32 {
				s.unknown = max(s.unknown, uint32(n+1))
			}
		}
	}
	return nil
}

// firstOwnX32 is where x32 begins to have numbers of its own; and bit 30 makes
// all its numbers large.
const firstOwnX32 = 512

// keepWhatAddingTakes brings back what [Options].Adds says.
func (s *Simulation) keepWhatAddingTakes() {
	native := offered(runtime.GOARCH)[0]
	table := fdcall.Linux()
	for i := range s.gone {
		g := &s.gone[i]
		if g.old.Errno == 0 && g.old.Bits&(unix.O_CLOEXEC|unix.MSG_CMSG_CLOEXEC) != 0 {
			g.nr = fdcall.Numbers{fdcall.None, fdcall.None, fdcall.None, fdcall.None}
		}
		for abi, n := range g.nr {
			if fdcall.ABI(abi) != native && table.ByNumber(fdcall.ABI(abi), n) != nil {
				g.nr[abi] = fdcall.None
			}
		}
	}
	s.gone = slices.DeleteFunc(s.gone, func(r removal) bool {
		return !slices.ContainsFunc(r.nr[:], func(n int32) bool { return n != fdcall.None })
	})
}

// before returns what of the feature a kernel lacks. The second result is
// false if it has it all.
func (f *feature) before(v fdcall.Version) (removal, bool) {
	r := removal{nr: f.nr, when: f.when, old: f.old}
	lacks := false
	for abi := range r.nr {
		if syscalls.Compare(f.since[abi], v) <= 0 {
			r.nr[abi] = fdcall.None
		}
		lacks = lacks || r.nr[abi] != fdcall.None
	}
	return r, lacks
}

// without returns what the options name.
func (s *Simulation) without(all []feature, o Options) ([]removal, error) {
	var errno unix.Errno
	if o.Error != "" {
		if len(o.Without) == 0 {
			return nil, fmt.Errorf("--without-error says what the calls of --without answer; write --without too")
		}
		var err error
		if errno, err = parseErrno(o.Error); err != nil {
			return nil, fmt.Errorf("--without-error: %w", err)
		}
	}
	var known []string
	for _, f := range all {
		known = append(known, f.name)
	}
	var named []removal
	for _, name := range o.Without {
		i := slices.Index(known, name)
		switch {
		case i < 0:
			return nil, fmt.Errorf("--without: %w", unknown("system call, operation or flag", name, known))
		case name == "execve":
			return nil, fmt.Errorf("--without: the command is started by execve, which cannot be taken away")
		}
		r := removal{nr: all[i].nr, when: all[i].when, old: all[i].old}
		if errno != 0 {
			r.old.Errno = errno
		}
		named = append(named, r)
	}
	return named, nil
}

// unknown is the error for a name that is none.
func unknown(what, name string, known []string) error {
	if near := fdcall.Nearest(name, known); len(near) > 0 {
		return fmt.Errorf("no %s %q; did you mean %s?", what, name, strings.Join(near, ", "))
	}
	return fmt.Errorf("no %s %q, and none with a name like it", what, name)
}

// parseErrno returns the error number of a name such as EPERM.
func parseErrno(name string) (unix.Errno, error) {
	const most = 133 // EHWPOISON
	var known []string
	for n := unix.Errno(1); n <= most; n++ {
		if s := unix.ErrnoName(n); s == name {
			return n, nil
		} else if s != "" {
			known = append(known, s)
		}
	}
	err := unknown("error", name, known)
	return 0, fmt.Errorf("%w; containers give EPERM, older kernels ENOSYS", err)
}

// Filter returns the program that refuses what is gone, to be installed on top
// of the supervisor's, except for native calls from the addresses between lo
// and hi.
func (s *Simulation) Filter(lo, hi uint64) ([]unix.SockFilter, error) {
	r := filter.Refusals{Unknown: s.unknown, Spared: filter.Range{Lo: lo, Hi: hi}}
	for _, g := range s.gone {
		if g.old.Errno != 0 && !g.old.Block {
			r.Calls = append(r.Calls, filter.Refusal{Nr: g.nr, When: g.when, Errno: g.old.Errno})
		}
	}
	program, err := filter.CompileRefusals(r)
	if err != nil {
		return nil, fmt.Errorf("compile the filter of the older kernel: %w", err)
	}
	return program, nil
}

// ExtensionName is the key of [Open] for the supervisor.
const ExtensionName = "oldkernel"

// Extension returns what the supervisor has to do. The second result is false
// if the filter does it all.
func (s *Simulation) Extension() (supervise.Extension, bool, error) {
	c := config{Release: s.release}
	x := supervise.Extension{Name: ExtensionName}
	if s.release != "" {
		c.Names = utsnames()
		for _, u := range c.Names {
			x.Traps = append(x.Traps, supervise.Trap{Nr: u.Nr})
		}
	}
	for _, g := range s.gone {
		if g.old.Errno == 0 || g.old.Block {
			c.Flags = append(c.Flags, youngFlag{Nr: g.nr, When: g.when, Old: g.old})
			x.Traps = append(x.Traps, supervise.Trap{Nr: g.nr, When: g.when})
		}
	}
	var err error
	if x.Config, err = json.Marshal(c); err != nil {
		return x, false, fmt.Errorf("encode the older kernel's answers: %w", err)
	}
	return x, len(x.Traps) > 0, nil
}

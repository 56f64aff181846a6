// Package policy says which properties are added to the descriptors of which
// program: close-on-exec for everything but the shells, unless the user says
// otherwise. docs/policy.md describes the file that users write.
//
// A policy is a cascade of rules. For one program they are, most specific
// first: the rule for its path, the rule for its base name, the exemption of
// shells, and the general rule. Each rule may speak about single calls and
// about all calls; what it leaves unsaid is decided by the next one.
package policy

import (
	"fmt"
	"path"
	"strings"

	"github.com/seed-055cd0c8/indirect/fdcall"
)

// Policy says what to add to the descriptors of every program. The zero Policy
// adds nothing. It may be read by several goroutines at once, but not while a
// method that changes it runs.
type Policy struct {
	exemptShells bool
	general      rule
	programs     map[string]rule // by base name or by absolute path
}

// New returns a policy that adds w to every program's descriptors, shells exempt.
func New(w fdcall.Want) *Policy {
	return &Policy{exemptShells: true, general: ruleForAll(w)}
}

// Exempt exempts programs, named by the base name or the absolute path of
// their executable. It replaces rules that the policy has for the same names.
// If one of the names can never match a program, the error says why and
// nothing is changed.
func (p *Policy) Exempt(names ...string) error {
	for _, name := range names {
		if err := checkMatch(name); err != nil {
			return fmt.Errorf("exempt %q: %w", name, err)
		}
	}
	for _, name := range names {
		p.set(name, ruleForAll(0))
	}
	return nil
}

// ExemptShells says whether shells are exempt where no rule names them.
func (p *Policy) ExemptShells(yes bool) { p.exemptShells = yes }

func (p *Policy) set(match string, r rule) {
	if p.programs == nil {
		p.programs = make(map[string]rule)
	}
	p.programs[match] = r
}

// deleted is what the kernel adds to the name of an unlinked file
// (fs/d_path.c), as when a package manager has replaced a running program.
const deleted = " (deleted)"

// Program returns what the policy says about the program whose executable is
// exe: an absolute path as /proc/PID/exe shows it, with or without
// " (deleted)" behind it.
func (p *Policy) Program(exe string) Program {
	exe = strings.TrimSuffix(exe, deleted)
	base := path.Base(exe)
	cascade := make([]rule, 0, 5)
	for _, match := range []string{exe, base} {
		if r, ok := p.programs[match]; ok {
			cascade = append(cascade, r)
		}
		if exe == base {
			break
		}
	}
	if p.exemptShells && isShell(base) {
		cascade = append(cascade, ruleForAll(0))
	}
	if r, ok := handOver[base]; ok {
		cascade = append(cascade, r)
	}
	return Program{append(cascade, p.general)}
}

// Union returns what the policy adds to the call in at least one program: a
// filter that serves all programs must trap the call if it lacks any of it.
func (p *Policy) Union(c *fdcall.Call) fdcall.Want {
	w := Program{[]rule{p.general}}.Want(c)
	for match := range p.programs {
		w |= p.Program(match).Want(c)
	}
	return w
}

// Program is what a policy says about one program.
type Program struct {
	cascade []rule // the most specific first
}

// Want returns what to add to the descriptors of call c: only properties that
// mean something for c, and 0 if the program is exempt.
func (pr Program) Want(c *fdcall.Call) fdcall.Want {
	id := c.ID()
	for _, r := range pr.cascade {
		if w, ok := r.Calls[id]; ok {
			return c.Applicable(fdcall.Want(w))
		}
		if r.Add != nil {
			return c.Applicable(fdcall.Want(*r.Add))
		}
	}
	return 0
}

// Exempt reports whether nothing is added for any call.
func (pr Program) Exempt() bool {
	decided := make(map[string]bool)
	for _, r := range pr.cascade {
		for id, w := range r.Calls {
			if w != 0 && !decided[id] {
				return false
			}
			decided[id] = true
		}
		if r.Add != nil {
			return *r.Add == 0
		}
	}
	return true
}

// rule is what one level of the cascade says.
type rule struct {
	Add   *want           `json:"add,omitempty"`   // for all calls; nil: unsaid
	Calls map[string]want `json:"calls,omitempty"` // for single calls, by fdcall's Call.ID
}

// ruleForAll is the rule that adds w to all calls.
func ruleForAll(w fdcall.Want) rule {
	add := want(w)
	return rule{Add: &add}
}

// adds reports whether the rule adds anything to any call.
func (r rule) adds() bool { return !Program{[]rule{r}}.Exempt() }

// checkMatch returns why no program can have the given base name or path.
func checkMatch(s string) error {
	switch {
	case s == "":
		return fmt.Errorf("a program needs a name; write a base name such as nginx, or an absolute path")
	case strings.ContainsRune(s, 0):
		return fmt.Errorf("no file name contains a zero byte; remove it")
	case strings.HasSuffix(s, deleted):
		return fmt.Errorf("%q is not part of a program's name; leave it out", strings.TrimSpace(deleted))
	case s == "/" || s == "." || s == "..":
		return fmt.Errorf("this is a directory; write a base name such as nginx, or an absolute path")
	case strings.HasSuffix(s, "/"):
		return fmt.Errorf("this is a directory; write the path of a program in it")
	case !strings.Contains(s, "/"):
		return nil
	case !path.IsAbs(s):
		return fmt.Errorf("a relative path never matches; write the base name %q or the absolute path", path.Base(s))
	case path.Clean(s) != s:
		return fmt.Errorf("the path is not clean and never matches; write %q", path.Clean(s))
	}
	return nil
}

package fdcall

import (
	"fmt"
	"slices"
	"strings"
)

// classes names the classes, in order, and says what each means.
var classes = [...]struct{ name, meaning string }{
	Overloads:   {"overloads-argument", "flags came as new bits of an argument that was there: programs need no new call"},
	HasFlags:    {"has-flags", "a flags argument, or flags in memory, that only needed new bits or had them from the start"},
	Alternative: {"alternative", "no flags, but another call already did the same and could carry them"},
	NewCall:     {"new-call", "no flags, so that a new system call had to be made"},
	ByChoice:    {"caller-chooses", "the caller chooses the number: to inherit the descriptor is the purpose"},
	Always:      {"always-cloexec", "close-on-exec whatever the caller says"},
	Never:       {"never-cloexec", "no way to ask for close-on-exec when the descriptor is made"},
}

// String returns the class's name as [ParseClass] takes it.
func (c Class) String() string {
	if int(c) >= len(classes) {
		return "unknown-class"
	}
	return classes[c].name
}

// Meaning returns what the class says of its calls, as one line without a full stop.
func (c Class) Meaning() string {
	if int(c) >= len(classes) {
		return ""
	}
	return classes[c].meaning
}

// Classes returns all classes, in order.
func Classes() []Class {
	all := make([]Class, len(classes))
	for i := range all {
		all[i] = Class(i)
	}
	return all
}

// ParseClass returns the class that has the given name, such as "new-call".
// The error names all classes.
func ParseClass(name string) (Class, error) {
	var known []string
	for _, c := range Classes() {
		if c.String() == name {
			return c, nil
		}
		known = append(known, c.String())
	}
	return 0, fmt.Errorf("no category %q; the categories are %s", name, strings.Join(known, ", "))
}

// Select returns the rows of the named category whose [Call.Name] or
// [Call.ID] is among names, in the table's order. An empty category stands for
// all, and so does an empty list of names. An unknown category or name is an
// error that says which known ones are like it.
func (t *Table) Select(category string, names ...string) ([]*Call, error) {
	class, anyClass := Class(0), category == ""
	if !anyClass {
		var err error
		if class, err = ParseClass(category); err != nil {
			return nil, err
		}
	}
	var known []string
	for i := range t.rows {
		known = append(known, t.rows[i].Name, t.rows[i].ID())
	}
	for _, name := range names {
		if slices.Contains(known, name) {
			continue
		}
		if near := Nearest(name, known); len(near) > 0 {
			return nil, fmt.Errorf("no call %q in the table; did you mean %s?", name, strings.Join(near, ", "))
		}
		return nil, fmt.Errorf("no call %q in the table, and none with a name like it", name)
	}
	var calls []*Call
	for i := range t.rows {
		c := &t.rows[i]
		if (anyClass || c.Class == class) &&
			(len(names) == 0 || slices.Contains(names, c.Name) || slices.Contains(names, c.ID())) {
			calls = append(calls, c)
		}
	}
	return calls, nil
}

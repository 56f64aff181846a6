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

// String returns the class's name as [Table.Select] takes it.
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

// Selection is a part of what there is to print.
type Selection struct {
	Calls []*Call
	Added []Added
}

// The category of the calls that we add, beside the classes of Linux's own.
const (
	AddedCategory = "added"
	AddedMeaning  = "no kernel has it: programs under indirect run do"
)

// Categories returns the names that [Table.Select] takes.
func Categories() []string {
	var names []string
	for _, c := range Classes() {
		names = append(names, c.String())
	}
	return append(names, AddedCategory)
}

// Select returns the rows of the named category whose [Call.Name] or
// [Call.ID] is among names, in the table's order, and the added calls. An
// empty category stands for all, and so does an empty list of names. An
// unknown category or name is an error that says which known ones are like it.
func (t *Table) Select(category string, names ...string) (s Selection, err error) {
	if category != "" && !slices.Contains(Categories(), category) {
		return s, fmt.Errorf("no category %q; the categories are %s", category, strings.Join(Categories(), ", "))
	}
	added := AddedCalls()
	var known []string
	for i := range t.rows {
		known = append(known, t.rows[i].Name, t.rows[i].ID())
	}
	for i := range added {
		known = append(known, added[i].Name)
	}
	for _, name := range names {
		if slices.Contains(known, name) {
			continue
		}
		if near := Nearest(name, known); len(near) > 0 {
			return s, fmt.Errorf("no call %q in the table; did you mean %s?", name, strings.Join(near, ", "))
		}
		return s, fmt.Errorf("no call %q in the table, and none with a name like it", name)
	}
	chosen := func(in string, as ...string) bool {
		return (category == "" || category == in) &&
			(len(names) == 0 || slices.ContainsFunc(as, func(name string) bool { return slices.Contains(names, name) }))
	}
	for i := range t.rows {
		if c := &t.rows[i]; chosen(c.Class.String(), c.Name, c.ID()) {
			s.Calls = append(s.Calls, c)
		}
	}
	for _, a := range added {
		if chosen(AddedCategory, a.Name) {
			s.Added = append(s.Added, a)
		}
	}
	return s, nil
}

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
		if near := nearest(name, known); len(near) > 0 {
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

// nearest returns up to three of the known names that are most like name,
// best first: those that a third of the letters would have to change for at most.
func nearest(name string, known []string) []string {
	type candidate struct {
		name     string
		distance int
	}
	var candidates []candidate
	for _, k := range slices.Compact(slices.Sorted(slices.Values(known))) {
		d := distance(name, k)
		if d <= max(1, len(k)/3) {
			candidates = append(candidates, candidate{k, d})
		}
	}
	slices.SortStableFunc(candidates, func(a, b candidate) int { return a.distance - b.distance })
	var near []string
	for _, c := range candidates[:min(3, len(candidates))] {
		near = append(near, c.name)
	}
	return near
}

// distance is the number of letters to insert, delete or replace (Levenshtein)
// to make a into b, without regard to case.
func distance(a, b string) int {
	a, b = strings.ToLower(a), strings.ToLower(b)
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			replace := diagonal
			if a[i] != b[j] {
				replace++
			}
			diagonal = row[j+1]
			row[j+1] = min(replace, row[j]+1, diagonal+1)
		}
	}
	return row[len(b)]
}

package fdcall

import (
	"cmp"
	"slices"
	"strings"
)

// Nearest returns at most three of the known names that s may be meant to be,
// the likeliest first.
func Nearest(s string, known []string) []string {
	type candidate struct {
		name     string
		distance int
	}
	s = strings.ToLower(s)
	var found []candidate
	for _, name := range slices.Compact(slices.Sorted(slices.Values(known))) {
		lower := strings.ToLower(name)
		d := distance(s, lower)
		if len(s) >= 3 && strings.Contains(lower, s) {
			d = min(d, 1)
		}
		if d <= max(1, len(s)/3) {
			found = append(found, candidate{name, d})
		}
	}
	slices.SortStableFunc(found, func(a, b candidate) int { return cmp.Compare(a.distance, b.distance) })
	var names []string
	for _, c := range found[:min(3, len(found))] {
		names = append(names, c.name)
	}
	return names
}

// distance is the Levenshtein distance of a and b in bytes.
func distance(a, b string) int {
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
			row[j+1] = min(replace, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}

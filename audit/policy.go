package audit

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"regexp"
	"slices"
	"strings"
	"unicode"

	"github.com/seed-055cd0c8/indirect/fdcall"
	"github.com/seed-055cd0c8/indirect/policy"
)

// WritePolicy writes the policy under which "indirect run" adds close-on-exec
// to the descriptors that leaked or raced, and to no others: to the calls that
// made them, in the programs that made them. Where the same call of the same
// program also makes descriptors that are handed on deliberately, the call is
// left alone, since the program would break. The second result are findings
// that the policy does not mend, for this reason or because no policy can
// speak about the program or the call; the file has a comment on each.
func WritePolicy(w io.Writer, r *Report) (unmended []Finding, err error) {
	calls := fdcall.Linux()
	spared := make(map[place]bool)
	for _, f := range r.Of(KindDeliberate) {
		spared[placeOf(&f)] = true
	}
	mended := make(map[string]map[string][]Finding) // by program and call
	var left []string
	for _, f := range r.Of(KindLeak, KindRace) {
		p, why := placeOf(&f), ""
		row := calls.ByID(p.call)
		switch {
		case row == nil || row.Applicable(fdcall.Cloexec) == 0:
			why = "a policy cannot add close-on-exec to this call"
		case spared[p]:
			why = "other descriptors of this call are handed on deliberately"
		case !speakable(p.program):
			why = "a policy cannot name this program"
		}
		if why != "" {
			unmended = append(unmended, f)
			left = append(left, fmt.Sprintf("# Not mended: %s in %s: %s.\n#   created at %s\n", comment(p.call), comment(p.program), why, comment(f.Site())))
			continue
		}
		if mended[p.program] == nil {
			mended[p.program] = make(map[string][]Finding)
		}
		mended[p.program][p.call] = append(mended[p.program][p.call], f)
	}
	var b strings.Builder
	b.WriteString("# Mends what \"indirect audit\" found in\n#   " + comment(strings.Join(r.Command, " ")) + "\n")
	b.WriteString("# and leaves everything else alone. To use it:\n#   indirect run --policy FILE -- COMMAND\n")
	for _, text := range left {
		b.WriteString(text)
	}
	fmt.Fprintf(&b, "version: %d\nadd: []\n", policy.Version)
	if len(mended) > 0 {
		b.WriteString("programs:\n")
	}
	for _, program := range slices.Sorted(maps.Keys(mended)) {
		fmt.Fprintf(&b, "  - match: %s\n    calls:\n", scalar(program))
		for _, call := range slices.Sorted(maps.Keys(mended[program])) {
			fmt.Fprintf(&b, "      %s: [cloexec]\n", scalar(call))
			for _, f := range mended[program][call] {
				fmt.Fprintf(&b, "        # %s at %s\n", f.Kind, comment(f.Site()))
			}
		}
	}
	if _, err := policy.Parse("policy", []byte(b.String()), calls); err != nil {
		return unmended, fmt.Errorf("write a policy: it would not be understood: %w", err)
	}
	if _, err := io.WriteString(w, b.String()); err != nil {
		return unmended, fmt.Errorf("write a policy: %w", err)
	}
	return unmended, nil
}

// place is what a policy can speak about: a call of a program.
type place struct{ program, call string }

func placeOf(f *Finding) place {
	return place{strings.TrimSuffix(f.Creator.Executable, " (deleted)"), f.Creation.Call}
}

// speakable reports whether a policy can have a rule for the program.
func speakable(program string) bool {
	return strings.HasPrefix(program, "/") && printable(program) == program &&
		new(policy.Policy).Exempt(program) == nil
}

// plain are the scalars that YAML takes for strings without quotes.
var plain = regexp.MustCompile(`^[/a-zA-Z][-+_./a-zA-Z0-9]*( [A-Z_0-9]+)?$`)

// scalar is a string in YAML, which understands those of JSON.
func scalar(s string) string {
	if plain.MatchString(s) {
		return s
	}
	quoted, err := json.Marshal(s)
	if err != nil {
		return `""` // no string fails
	}
	return string(quoted)
}

// comment makes text from a program fit for one line of a comment.
func comment(s string) string { return printable(clip(s, 200)) }

func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, strings.ToValidUTF8(s, "?"))
}

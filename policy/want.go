package policy

import (
	"fmt"
	"strings"

	"github.com/seed-055cd0c8/indirect/fdcall"
)

// words are the names of the properties, in the order in which they are printed.
var words = []struct {
	word string
	want fdcall.Want
}{
	{"cloexec", fdcall.Cloexec},
	{"nonblock", fdcall.Nonblock},
	{"nonseq", fdcall.Nonseq},
}

const none = "none"

// ParseWant reads a set of properties: words out of cloexec, nonblock and
// nonseq with commas between them, or "none". The error names the known words.
func ParseWant(s string) (fdcall.Want, error) {
	if s == none {
		return 0, nil
	}
	var w fdcall.Want
	for word := range strings.SplitSeq(s, ",") {
		one, err := parseWord(word)
		if err != nil {
			return 0, fmt.Errorf("%w; or %q alone", err, none)
		}
		if w&one != 0 {
			return 0, fmt.Errorf("%q is there twice; write it once", word)
		}
		w |= one
	}
	return w, nil
}

// FormatWant is the inverse of [ParseWant].
func FormatWant(w fdcall.Want) string {
	var set []string
	for _, known := range words {
		if w&known.want != 0 {
			set = append(set, known.word)
		}
	}
	if set == nil {
		return none
	}
	return strings.Join(set, ",")
}

func parseWord(s string) (fdcall.Want, error) {
	var known []string
	for _, k := range words {
		if s == k.word {
			return k.want, nil
		}
		known = append(known, k.word)
	}
	return 0, fmt.Errorf("unknown property %q; the known ones are %s", s, strings.Join(known, ", "))
}

// want is a [fdcall.Want] that is words in JSON.
type want fdcall.Want

// MarshalText implements [encoding.TextMarshaler].
func (w want) MarshalText() ([]byte, error) { return []byte(FormatWant(fdcall.Want(w))), nil }

// UnmarshalText implements [encoding.TextUnmarshaler].
func (w *want) UnmarshalText(text []byte) error {
	parsed, err := ParseWant(string(text))
	*w = want(parsed)
	return err
}

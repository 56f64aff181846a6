package audit

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// suspect is a leak that suppressions are tried on.
func suspect() Finding {
	return Finding{
		Kind: KindLeak, Count: 1,
		Creation: Creation{ID: 1, Origin: Created, Call: "openat", FD: 5, Object: Object{Link: "/var/lib/x/data"}},
		Creator:  Program{ID: 1, Executable: "/usr/bin/a"},
		Stack: []Frame{
			{Function: "__open64", Module: "/usr/lib/libc.so.6"}, {Function: "ns::open(char const*)", Module: "/usr/lib/libx.so.1"},
			{Module: "/usr/lib/libx.so.1", Offset: 5}, {Function: "main", Module: "/usr/bin/a"},
		},
		Receipt: &Receipt{Program: Program{ID: 2, Executable: "/usr/bin/b"}},
	}
}

func TestSuppressions(t *testing.T) {
	f := suspect()
	tests := []struct {
		text string
		want bool
	}{
		{"call:openat", true},
		{"call:open*", true},
		{"call:open", false},
		{"call:*", true},
		{"path:/var/*", true},
		{"path:data", false},
		{"path:*data", true},
		{"exec:/usr/bin/b", true},
		{"exec:b", true},
		{"exec:bin/b", false},
		{"exec:a", false},
		{"fun:main", true}, // alone, at any place of the stack
		{"fun:mai", false},
		{"fun:ns::open(*)", true},
		{"obj:libx.so*", true},
		{"obj:/usr/lib/libx.so.*", true},
		{"obj:*/libx*", true},
		{"obj:liby*", false},
		{"# call:openat\n\n", false},
		{"  call: openat  \r\n", true},
		{"{\nname\ncall:openat\n}", true},
		{"{\nname\nleak\ncall:openat\n}", true},
		{"{\nname\nraces\ncall:openat\n}", false},
		{"{\nname\ncall:openat\nexec:c\n}", false},
		{"{\nname\ncall:openat\nexec:b\npath:/var*\n}", true},
		{"{\nname\nfun:main\n}", false}, // in a block, the innermost first
		{"{\nname\nfun:__open*\n}", true},
		{"{\nname\nfun:__open*\nfun:main\n}", false},
		{"{\nname\nfun:__open*\n...\nfun:main\n}", true},
		{"{\nname\n...\nfun:main\n}", true},
		{"{\nname\n...\nfun:main\n...\n}", true},
		{"{\nname\n...\nfun:main\nfun:*\n}", false},
		{"{\nname\n...\nobj:libx*\nobj:libx*\nfun:main\n}", true},
		{"{\nname\n...\nobj:libx*\nobj:libx*\nobj:libx*\n}", false},
	}
	for _, test := range tests {
		s, err := ParseSuppressions("test", []byte(test.text))
		if err != nil {
			t.Errorf("%q: %v", test.text, err)
			continue
		}
		if _, got := s.match(&f); got != test.want {
			t.Errorf("%q matches: %v", test.text, got)
		}
	}
}

func TestSuppressionErrors(t *testing.T) {
	tests := map[string][]string{
		"openat":                              {`f:1: "openat" is no pattern; write call:, fun:, obj:, path: or exec: and what it is to match`},
		"\nsrc:x":                             {`f:2: unknown pattern "src:"; the known ones are call:, fun:, obj:, path: and exec:`},
		"call:":                               {"f:1: nothing behind call: to match"},
		"}":                                   {`f:1: "}" is no pattern; write call:, fun:, obj:, path: or exec: and what it is to match`},
		"leak":                                {`f:1: "leak" is no pattern; write call:, fun:, obj:, path: or exec: and what it is to match`},
		"{\nname\ncall:a":                     {"f:1: this { has no }"},
		"{\n}":                                {"f:2: the suppression has no name; write one in its first line"},
		"{\nname\nleak\n...\n}":               {`f:5: "name" has no pattern and would suppress everything; remove it or add one such as call:openat`},
		"{\nname\n{\ncall:a\n}":               {"f:3: { within the suppression that begins at line 1; end that with }"},
		"{\nname\ncall:a\ncall:b\nleak\nrace": {"f:4: call: is there already; make another suppression", "f:6: the suppression has a kind already: leak", "f:1: this { has no }"},
	}
	for text, want := range tests {
		_, err := ParseSuppressions("f", []byte(text))
		if err == nil {
			t.Errorf("%q is no mistake", text)
			continue
		}
		if diff := cmp.Diff(want, strings.Split(err.Error(), "\n")); diff != "" {
			t.Errorf("%q (-want +got):\n%s", text, diff)
		}
	}
}

// TestSuppressedFindings leaves them out, and counts them.
func TestSuppressedFindings(t *testing.T) {
	s, err := ParseSuppressions("f", []byte("{\n  upstream bug 17\n  exec:b\n}\n"))
	if err != nil {
		t.Fatal(err)
	}
	r := Classify(slices.Values(run(Creation{ID: 1, Origin: Created, FD: 5}, []string{"b"}, nil, Handed{FD: 5, Creation: 1})), Options{Suppressions: s})
	if len(r.Findings) != 0 || len(r.Counts) != 0 || r.Suppressed["upstream bug 17"] != 1 {
		t.Errorf("%v, counts %v, suppressed %v", told(r), r.Counts, r.Suppressed)
	}
}

// TestWriteSuppressions suppresses each finding by what is written for it.
func TestWriteSuppressions(t *testing.T) {
	strange := suspect()
	strange.Stack[1].Function = " a\nb\x1b\xff}\u202e "
	strange.Stack[2].Module = ""
	bare := suspect()
	bare.Stack = nil
	raced := suspect()
	raced.Kind, raced.Receipt = KindRace, nil
	for _, f := range []Finding{suspect(), strange, bare, raced} {
		var b strings.Builder
		if err := WriteSuppressions(&b, []Finding{f}); err != nil {
			t.Fatal(err)
		}
		s, err := ParseSuppressions("written", []byte(b.String()))
		if err != nil {
			t.Errorf("%v\n%s", err, b.String())
			continue
		}
		if _, ok := s.match(&f); !ok {
			t.Errorf("this does not match its finding:\n%s", b.String())
		}
		f.Creation.Call = "socket"
		if _, ok := s.match(&f); ok {
			t.Errorf("this matches another finding:\n%s", b.String())
		}
	}
}

// TestPatternsTakeTime tries patterns that take for ever if every wildcard is
// tried again.
func TestPatternsTakeTime(t *testing.T) {
	p := pattern(strings.Repeat("*a", 2000) + "b")
	if p.matches(strings.Repeat("a", 20_000)) {
		t.Error("matches")
	}
}

func FuzzSuppressions(f *testing.F) {
	f.Add([]byte("{\nname\nleak\ncall:a*\n...\nfun:main\nobj:*x\n}\npath:/a\n# end"))
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := ParseSuppressions("f", data)
		if err != nil {
			if !strings.HasPrefix(err.Error(), "f:") {
				t.Errorf("an error without a line: %v", err)
			}
			return
		}
		finding := suspect()
		s.match(&finding)
	})
}

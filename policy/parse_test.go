package policy

import (
	"encoding/json"
	"errors"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/seed-055cd0c8/indirect/fdcall"
)

func TestParseDefaults(t *testing.T) {
	for _, text := range []string{
		"version: 1",
		"version: 1\nadd: [cloexec]\nexempt_shells: true\nexempt: []\ncalls: {}\nprograms: []",
		"# a comment\n---\n{version: 1}\n...\n",
	} {
		p := mustParse(t, text)
		for _, exe := range []string{"/bin/cat", "/bin/bash"} {
			for i := range table.All() {
				c := &table.All()[i]
				if got, want := p.Program(exe).Want(c), New(fdcall.Cloexec).Program(exe).Want(c); got != want {
					t.Errorf("%q: %s in %s: %s, want %s", text, c.ID(), exe, FormatWant(got), FormatWant(want))
				}
			}
		}
	}
}

func TestParseTakesTheTextOfNames(t *testing.T) {
	p := mustParse(t, "version: 1\nexempt: [true, 7z, 10, yes, \"null\", a b, ä]\nexempt_shells: false")
	for _, base := range []string{"true", "7z", "10", "yes", "null", "a b", "ä"} {
		if !p.Program("/bin/" + base).Exempt() {
			t.Errorf("%s is not exempt", base)
		}
	}
	if p.Program("/bin/sh").Exempt() {
		t.Error("sh is exempt")
	}
}

func TestParseErrors(t *testing.T) {
	for _, tt := range []struct {
		name, text string
		want       []string // without the file's name
	}{
		{"empty", "", []string{`1: the file is empty; it needs at least "version: 1"`}},
		{"comment only", "# nothing\n", []string{`1: the file is empty; it needs at least "version: 1"`}},
		{"null", "~", []string{`1: expected keys and values, such as "key: value"`}},
		{"list", "- version", []string{`1: expected keys and values, such as "key: value"`}},
		{"no version", "add: []", []string{`1: the version is missing; write "version: 1"`}},
		{"other version", "add: [x]\nversion: 2", []string{`2: this program reads version 1 only; write "version: 1"`}},
		{"version as text", `version: "1"`, []string{`1: this program reads version 1 only; write "version: 1"`}},
		{"version as list", "version: [1]", []string{`1: this program reads version 1 only; write "version: 1"`}},
		{"not YAML", "version: 1\nadd: [cloexec\nexempt: [", []string{`1: not YAML, here or further down: did not find expected ',' or ']'`}},
		{"not UTF-8", "version: 1\nexempt: [\xff]", []string{`1: not YAML, here or further down: invalid leading UTF-8 octet`}},
		{"second document", "version: 1\n---\nversion: 1", []string{`2: a second document begins here; a policy is one document`}},
		{"broken second document", "version: 1\n---\n[", []string{`3: not YAML, here or further down: did not find expected node content`}},

		{"unknown key", "version: 1\nprogram: []\nfrobnicate: 1", []string{
			`2: unknown key "program"; did you mean programs?`,
			`3: unknown key "frobnicate"; did you mean add, calls, exempt, exempt_shells, programs, version?`,
		}},
		{"merge key", "version: 1\n<<: {add: []}", []string{`2: unknown key "<<"; did you mean add, calls, exempt, exempt_shells, programs, version?`}},
		{"duplicate key", "version: 1\nadd: []\nadd: []", []string{`3: "add" is there already at line 2; remove one of the two`}},
		{"duplicate version", "version: 1\nversion: 2", []string{`2: "version" is there already at line 1; remove one of the two`}},
		{"key that is a list", "version: 1\n[a]: b", []string{`2: expected a word as the key`}},
		{"tag", "version: 1\nadd: !!set [cloexec]", []string{`2: tags such as !!set are not allowed here; remove it`}},
		{"alias", "version: 1\nadd: &a []\ncalls:\n  open: *a", []string{`4: aliases such as *a are not allowed here; write the value out`}},

		{"word instead of list", "version: 1\nadd: cloexec", []string{`2: expected a list of properties, such as [cloexec], or [] for none`}},
		{"null instead of list", "version: 1\nadd:\nexempt:\nprograms:", []string{
			`2: expected a list of properties, such as [cloexec], or [] for none`,
			`3: expected a list of names, such as [sshd, /usr/sbin/nginx]`,
			`4: expected a list of rules, each with match and with add or calls`,
		}},
		{"unknown property", "version: 1\nadd: [none]", []string{`2: unknown property "none"; the known ones are cloexec, nonblock, nonseq`}},
		{"property twice", "version: 1\nadd: [cloexec, cloexec]", []string{`2: "cloexec" is there twice; write it once`}},
		{"property that is a list", "version: 1\nadd: [[cloexec]]", []string{`2: expected a property`}},
		{"not a boolean", "version: 1\nexempt_shells: yes", []string{`2: expected true or false`}},

		{"unknown call", "version: 1\ncalls:\n  opem: []\n  F_DUPFD: []\n  frobnicate: []", []string{
			`3: unknown call "opem"; did you mean open?`,
			`4: unknown call "F_DUPFD"; did you mean fcntl F_DUPFD, fcntl F_DUPFD_CLOEXEC, fcntl64 F_DUPFD?`,
			`5: unknown call "frobnicate"; no known one is like it; remove it`,
		}},
		{"duplicate call", "version: 1\ncalls:\n  open: []\n  open: []", []string{`4: "open" is there already at line 3; remove one of the two`}},
		{"useless for a call", "version: 1\ncalls:\n  dup: [cloexec, nonblock]\n  fcntl F_DUPFD_CLOEXEC: [cloexec, nonseq]\n  fcntl: [nonblock]", []string{
			`3: nonblock means nothing for dup; remove it`,
			`4: cloexec means nothing for fcntl F_DUPFD_CLOEXEC; remove it`,
			`5: nonblock means nothing for fcntl; remove it`,
		}},

		{"names that never match", "version: 1\nexempt:\n- \"\"\n-\n- sbin/x\n- ./x\n- //x\n- /a/../x\n- /x/\n- /\n- ..\n- x (deleted)\n- \"a\\0\"\n- [x]", []string{
			`3: "": a program needs a name; write a base name such as nginx, or an absolute path`,
			`4: expected a program's base name or absolute path`,
			`5: "sbin/x": a relative path never matches; write the base name "x" or the absolute path`,
			`6: "./x": a relative path never matches; write the base name "x" or the absolute path`,
			`7: "//x": the path is not clean and never matches; write "/x"`,
			`8: "/a/../x": the path is not clean and never matches; write "/x"`,
			`9: "/x/": this is a directory; write the path of a program in it`,
			`10: "/": this is a directory; write a base name such as nginx, or an absolute path`,
			`11: "..": this is a directory; write a base name such as nginx, or an absolute path`,
			`12: "x (deleted)": "(deleted)" is not part of a program's name; leave it out`,
			`13: "a\x00": no file name contains a zero byte; remove it`,
			`14: expected a program's base name or absolute path`,
		}},
		{"duplicate programs", "version: 1\nprograms:\n- {match: /a, add: []}\n- {match: /a, add: []}\n- {match: b, add: []}\nexempt: [b, c, c]", []string{
			`4: "/a" already has a rule at line 3; make one rule of the two`,
			`6: "b" already has a rule at line 5; make one rule of the two`,
			`6: "c" already has a rule at line 6; make one rule of the two`,
		}},
		{"incomplete rules", "version: 1\nprograms:\n- add: []\n- match: a\n- {match: b, calls: {}}\n- nginx\n- {mach: c, calls: {open: [x]}}", []string{
			`3: the rule has no match; write the program's base name or absolute path there`,
			`4: the rule says nothing; give it add or calls (add: [] exempts the program)`,
			`5: the rule says nothing; give it add or calls (add: [] exempts the program)`,
			`6: expected keys and values, such as "key: value"`,
			`7: unknown key "mach"; did you mean match?`,
			`7: unknown property "x"; the known ones are cloexec, nonblock, nonseq`,
			`7: the rule has no match; write the program's base name or absolute path there`,
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p, err := Parse("f.yaml", []byte(tt.text), table)
			if p != nil || err == nil {
				t.Fatalf("accepted: %+v", p)
			}
			want := "f.yaml:" + strings.Join(tt.want, "\nf.yaml:")
			if d := cmp.Diff(want, err.Error()); d != "" {
				t.Error(d)
			}
			var first *Error
			if !errors.As(err, &first) || first.Name != "f.yaml" || first.Line < 1 {
				t.Errorf("not an *Error: %#v", err)
			}
		})
	}
}

func TestNearest(t *testing.T) {
	known := []string{"open", "openat", "openat2", "pipe", "pipe2", "fcntl", "fcntl F_DUPFD"}
	for s, want := range map[string][]string{
		"opne": nil, "opena": {"open", "openat", "openat2"}, "PIPE": {"pipe", "pipe2"}, "fcntl F_DUPDF": {"fcntl F_DUPFD"},
		"dupfd": {"fcntl F_DUPFD"}, "x": nil, "": nil,
	} {
		if got := fdcall.Nearest(s, known); !slices.Equal(got, want) {
			t.Errorf("%q: %q, want %q", s, got, want)
		}
	}
}

// blocks returns the fenced blocks of a language in the documentation.
func blocks(t testing.TB, language string) []string {
	t.Helper()
	doc, err := os.ReadFile("../docs/policy.md")
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for _, m := range regexp.MustCompile("(?ms)^```"+language+"\n(.*?)^```$").FindAllStringSubmatch(string(doc), -1) {
		found = append(found, m[1])
	}
	return found
}

// TestDocumentation checks that the examples parse, and that the last one has
// exactly the errors that the page shows.
func TestDocumentation(t *testing.T) {
	examples, shown := blocks(t, "yaml"), blocks(t, "console")
	if len(examples) != 5 || len(shown) != 1 {
		t.Fatalf("%d examples and %d lists of errors, want 5 and 1", len(examples), len(shown))
	}
	wrong := len(examples) - 1
	for _, text := range examples[:wrong] {
		mustParse(t, text)
	}
	_, err := Parse("policy.yaml", []byte(examples[wrong]), table)
	if err == nil {
		t.Fatal("the wrong example is accepted")
	}
	if d := cmp.Diff(strings.TrimSpace(shown[0]), err.Error()); d != "" {
		t.Error(d)
	}
}

// TestSchema checks that the schema knows exactly the keys and words that Parse knows.
func TestSchema(t *testing.T) {
	data, err := os.ReadFile("../docs/policy.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	type object struct {
		Properties map[string]json.RawMessage
	}
	var schema struct {
		object
		Defs struct {
			Properties struct{ Items struct{ Enum []string } }
			Match      struct{ Pattern string }
		} `json:"$defs"`
	}
	var programs struct{ Items object }
	var version struct{ Const int }
	if err := json.Unmarshal(data, &schema); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(schema.Properties["programs"], &programs); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(schema.Properties["version"], &version); err != nil {
		t.Fatal(err)
	}
	if version.Const != Version {
		t.Errorf("the schema is for version %d", version.Const)
	}
	var known []string
	for _, w := range words {
		known = append(known, w.word)
	}
	if d := cmp.Diff(known, schema.Defs.Properties.Items.Enum); d != "" {
		t.Errorf("words: %s", d)
	}

	for _, tt := range []struct {
		text       string
		properties map[string]json.RawMessage
	}{
		{"version: 1\nfrobnicate: 0", schema.Properties},
		{"version: 1\nprograms: [{match: a, add: [], frobnicate: 0}]", programs.Items.Properties},
	} {
		_, err := Parse("f", []byte(tt.text), table)
		keys := strings.Join(slices.Sorted(maps.Keys(tt.properties)), ", ")
		if err == nil || !strings.HasSuffix(err.Error(), `unknown key "frobnicate"; did you mean `+keys+"?") {
			t.Errorf("the schema has the keys %s; Parse says: %v", keys, err)
		}
	}

	pattern := regexp.MustCompile(schema.Defs.Match.Pattern)
	for match, want := range map[string]bool{
		"nginx": true, "/usr/sbin/nginx": true, "a b": true,
		"": false, "sbin/nginx": false, "/": false, "//x": false, "/x/": false,
	} {
		if got := pattern.MatchString(match); got != want || (checkMatch(match) == nil) != want {
			t.Errorf("%q: the schema's pattern says %t, checkMatch %v", match, got, checkMatch(match))
		}
	}
}

// FuzzParse checks that Parse survives any file, names a line that exists for
// every mistake, and that what it accepts survives the way to another process.
func FuzzParse(f *testing.F) {
	for _, text := range blocks(f, "yaml") {
		f.Add([]byte(text))
	}
	for _, text := range []string{
		"", "version: 1\n---\n{", "version: 1\nadd: &a [*a]", "version: 1\n? [a]\n: b", "\xff\xfev\x00", "{version: 1, calls: {fcntl: [nonseq], fcntl F_DUPFD: []}}",
		"version: 1\nexempt: [!!binary aGk=, \"a\\0b\", '/x (deleted)', /a/./b]",
	} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		p, err := Parse("f", data, table)
		if err != nil {
			joined, ok := err.(interface{ Unwrap() []error })
			if p != nil || !ok {
				t.Fatalf("%v, %#v", p, err)
			}
			for _, e := range joined.Unwrap() {
				var mistake *Error
				if !errors.As(e, &mistake) || mistake.Line < 1 || mistake.Line > len(data)+1 {
					t.Errorf("%#v", e)
				}
			}
			return
		}
		text, err := json.Marshal(p)
		if err != nil {
			t.Fatal(err)
		}
		var got Policy
		if err := json.Unmarshal(text, &got); err != nil {
			t.Fatal(err)
		}
		for i := range table.All() {
			c := &table.All()[i]
			var union fdcall.Want
			for match := range p.programs {
				w := p.Program(match).Want(c)
				if union |= w; w != got.Program(match).Want(c) || w != c.Applicable(w) || w != 0 && p.Program(match).Exempt() {
					t.Errorf("%s in %q: %s", c.ID(), match, FormatWant(w))
				}
			}
			if union &^= p.Union(c); union != 0 || p.Union(c) != got.Union(c) {
				t.Errorf("%s: the union lacks %s", c.ID(), FormatWant(union))
			}
		}
	})
}

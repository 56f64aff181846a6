package policy

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/seed-055cd0c8/indirect/fdcall"
)

// Version is the version of the policy file's format that [Parse] reads.
const Version = 1

// Error is one mistake in a policy file.
type Error struct {
	Name string // of the file
	Line int    // from 1
	Text string // what is wrong and what to do
}

// Error returns name:line: text.
func (e *Error) Error() string { return fmt.Sprintf("%s:%d: %s", e.Name, e.Line, e.Text) }

// Parse reads a policy file, whose format docs/policy.md describes. The name
// is for error messages, the table gives the known calls. The error joins one
// [*Error] for each mistake, in the order of the lines.
func Parse(name string, data []byte, t *fdcall.Table) (*Policy, error) {
	ps := &parser{table: t}
	p := ps.file(data)
	if len(ps.mistakes) == 0 {
		return p, nil
	}
	slices.SortStableFunc(ps.mistakes, func(a, b *Error) int { return cmp.Compare(a.Line, b.Line) })
	all := make([]error, len(ps.mistakes))
	for i, e := range ps.mistakes {
		e.Name = name
		all[i] = e
	}
	return nil, errors.Join(all...)
}

// parser collects mistakes instead of stopping at the first.
type parser struct {
	table    *fdcall.Table
	mistakes []*Error
}

func (ps *parser) mistake(line int, format string, args ...any) {
	ps.mistakes = append(ps.mistakes, &Error{Line: line, Text: fmt.Sprintf(format, args...)})
}

// yamlError is the form of the YAML library's own messages. Their line is that
// of the mistake, the one before it, or that where the broken part begins.
var yamlError = regexp.MustCompile(`^(?:yaml: )?(?:line (\d+): )?(.*)$`)

func (ps *parser) syntax(err error) {
	line, text := 1, err.Error()
	if m := yamlError.FindStringSubmatch(text); m != nil {
		if n, err := strconv.Atoi(m[1]); err == nil {
			line = n
		}
		text = m[2]
	}
	ps.mistake(line, "not YAML, here or further down: %s", text)
}

// file reads the document. What it returns is of use only if there are no mistakes.
func (ps *parser) file(data []byte) *Policy {
	d := yaml.NewDecoder(bytes.NewReader(data))
	var doc, next yaml.Node
	if err := d.Decode(&doc); errors.Is(err, io.EOF) {
		ps.mistake(1, "the file is empty; it needs at least %q", fmt.Sprintf("version: %d", Version))
		return nil
	} else if err != nil {
		ps.syntax(err)
		return nil
	}
	if err := d.Decode(&next); err == nil {
		ps.mistake(next.Line, "a second document begins here; a policy is one document")
	} else if !errors.Is(err, io.EOF) {
		ps.syntax(err)
	}

	root := doc.Content[0]
	if !ps.version(root) {
		return nil
	}
	p := New(fdcall.Cloexec)
	lines := make(map[string]int) // where each program was named
	ps.mapping(root, map[string]func(*yaml.Node){
		"version":       func(*yaml.Node) {},
		"add":           func(n *yaml.Node) { p.general.Add = ps.flags(n) },
		"calls":         func(n *yaml.Node) { p.general.Calls = ps.calls(n) },
		"exempt_shells": func(n *yaml.Node) { p.exemptShells = ps.boolean(n) },
		"exempt": func(n *yaml.Node) {
			ps.sequence(n, "names, such as [sshd, /usr/sbin/nginx]", func(n *yaml.Node) {
				if match, ok := ps.match(n, lines); ok {
					p.set(match, ruleForAll(0))
				}
			})
		},
		"programs": func(n *yaml.Node) {
			ps.sequence(n, "rules, each with match and with add or calls", func(n *yaml.Node) {
				ps.program(n, p, lines)
			})
		},
	})
	return p
}

// version reports whether the file has a version that Parse knows: with
// another one, every other key may mean something else.
func (ps *parser) version(root *yaml.Node) bool {
	if root.Kind != yaml.MappingNode {
		return true // mapping will say so
	}
	for i := 0; i < len(root.Content); i += 2 {
		if key, value := root.Content[i], root.Content[i+1]; key.Value == "version" {
			if value.Kind == yaml.ScalarNode && value.Tag == "!!int" && value.Value == strconv.Itoa(Version) {
				return true
			}
			ps.mistake(value.Line, "this program reads version %d only; write %q", Version, fmt.Sprintf("version: %d", Version))
			return false
		}
	}
	ps.mistake(1, "the version is missing; write %q", fmt.Sprintf("version: %d", Version))
	return true
}

// program reads one rule of the list of programs.
func (ps *parser) program(n *yaml.Node, p *Policy, lines map[string]int) {
	var (
		r       rule
		match   string
		ok      bool
		matched bool
		said    bool
	)
	if !ps.mapping(n, map[string]func(*yaml.Node){
		"match": func(n *yaml.Node) { matched = true; match, ok = ps.match(n, lines) },
		"add":   func(n *yaml.Node) { said = true; r.Add = ps.flags(n) },
		"calls": func(n *yaml.Node) { said = said || !isEmptyMapping(n); r.Calls = ps.calls(n) },
	}) {
		return
	}
	if !matched {
		ps.mistake(n.Line, "the rule has no match; write the program's base name or absolute path there")
	}
	if !said {
		ps.mistake(n.Line, "the rule says nothing; give it add or calls (add: [] exempts the program)")
	}
	if ok {
		p.set(match, r)
	}
}

func isEmptyMapping(n *yaml.Node) bool { return n.Kind == yaml.MappingNode && len(n.Content) == 0 }

// match reads the name of a program that no other rule has.
func (ps *parser) match(n *yaml.Node, lines map[string]int) (string, bool) {
	match, ok := ps.scalar(n, "a program's base name or absolute path")
	if !ok {
		return "", false
	}
	if err := checkMatch(match); err != nil {
		ps.mistake(n.Line, "%q: %v", match, err)
		return "", false
	}
	if line, twice := lines[match]; twice {
		ps.mistake(n.Line, "%q already has a rule at line %d; make one rule of the two", match, line)
		return "", false
	}
	lines[match] = n.Line
	return match, true
}

// calls reads properties by call.
func (ps *parser) calls(n *yaml.Node) map[string]want {
	calls := make(map[string]want)
	byName := make(map[string]want)
	ps.pairs(n, func(key, value *yaml.Node) {
		rows := ps.rows(key.Value)
		if rows == nil {
			ps.unknown(key, "call", ps.known())
			return
		}
		add := ps.flags(value)
		if add == nil {
			return
		}
		var useful fdcall.Want
		for _, c := range rows {
			useful |= c.Applicable(fdcall.Want(*add))
		}
		if useless := fdcall.Want(*add) &^ useful; useless != 0 {
			ps.mistake(value.Line, "%s means nothing for %s; remove it", FormatWant(useless), key.Value)
			return
		}
		if rows[0].Name != key.Value {
			calls[key.Value] = *add
			return
		}
		for _, c := range rows {
			byName[c.ID()] = *add
		}
	})
	// An operation's own line beats that of all the call's operations.
	maps.Copy(byName, calls)
	return byName
}

// rows returns the row of an operation's ID, or all rows of a call's name.
func (ps *parser) rows(name string) []*fdcall.Call {
	if c := ps.table.ByID(name); c != nil && c.Op != "" {
		return []*fdcall.Call{c}
	}
	var rows []*fdcall.Call
	all := ps.table.All()
	for i := range all {
		if all[i].Name == name {
			rows = append(rows, &all[i])
		}
	}
	return rows
}

// known returns all names that rows accepts, sorted.
func (ps *parser) known() []string {
	names := make(map[string]bool)
	for _, c := range ps.table.All() {
		names[c.Name], names[c.ID()] = true, true
	}
	return slices.Sorted(maps.Keys(names))
}

// flags reads a list of properties, nil if there is a mistake.
func (ps *parser) flags(n *yaml.Node) *want {
	var w fdcall.Want
	before := len(ps.mistakes)
	ps.sequence(n, "properties, such as [cloexec], or [] for none", func(n *yaml.Node) {
		word, ok := ps.scalar(n, "a property")
		if !ok {
			return
		}
		one, err := parseWord(word)
		switch {
		case err != nil:
			ps.mistake(n.Line, "%v", err)
		case w&one != 0:
			ps.mistake(n.Line, "%q is there twice; write it once", word)
		}
		w |= one
	})
	if len(ps.mistakes) > before {
		return nil
	}
	return (*want)(&w)
}

func (ps *parser) boolean(n *yaml.Node) bool {
	if !ps.plain(n) {
		return false
	}
	if n.Kind != yaml.ScalarNode || n.Tag != "!!bool" {
		ps.mistake(n.Line, "expected true or false")
		return false
	}
	return strings.EqualFold(n.Value, "true")
}

// scalar reads one word. Its text counts, not its YAML type: true, 7z and 1
// are fine names for programs.
func (ps *parser) scalar(n *yaml.Node, what string) (string, bool) {
	if !ps.plain(n) {
		return "", false
	}
	if n.Kind != yaml.ScalarNode || n.Tag == "!!null" {
		ps.mistake(n.Line, "expected %s", what)
		return "", false
	}
	return n.Value, true
}

func (ps *parser) sequence(n *yaml.Node, what string, item func(*yaml.Node)) {
	if !ps.plain(n) {
		return
	}
	if n.Kind != yaml.SequenceNode {
		ps.mistake(n.Line, "expected a list of %s", what)
		return
	}
	for _, c := range n.Content {
		item(c)
	}
}

// mapping hands each value to the function for its key. It reports whether n
// is a mapping at all.
func (ps *parser) mapping(n *yaml.Node, keys map[string]func(*yaml.Node)) bool {
	return ps.pairs(n, func(key, value *yaml.Node) {
		if read, ok := keys[key.Value]; ok {
			read(value)
		} else {
			ps.unknown(key, "key", slices.Sorted(maps.Keys(keys)))
		}
	})
}

// pairs calls each for every key that occurs for the first time.
func (ps *parser) pairs(n *yaml.Node, each func(key, value *yaml.Node)) bool {
	if !ps.plain(n) {
		return false
	}
	if n.Kind != yaml.MappingNode {
		ps.mistake(n.Line, "expected keys and values, such as %q", "key: value")
		return false
	}
	lines := make(map[string]int)
	for i := 0; i < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		if _, ok := ps.scalar(key, "a word as the key"); !ok {
			continue
		}
		if line, twice := lines[key.Value]; twice {
			ps.mistake(key.Line, "%q is there already at line %d; remove one of the two", key.Value, line)
			continue
		}
		lines[key.Value] = key.Line
		each(key, value)
	}
	return true
}

// plain refuses the parts of YAML that a policy has no use for, so that a line
// means what stands on it.
func (ps *parser) plain(n *yaml.Node) bool {
	switch {
	case n.Kind == yaml.AliasNode:
		ps.mistake(n.Line, "aliases such as *%s are not allowed here; write the value out", n.Value)
		return false
	case n.Style&yaml.TaggedStyle != 0:
		ps.mistake(n.Line, "tags such as %s are not allowed here; remove it", n.Tag)
		return false
	}
	return true
}

func (ps *parser) unknown(n *yaml.Node, what string, known []string) {
	near := fdcall.Nearest(n.Value, known)
	if near == nil && what == "key" {
		near = known
	}
	hint := "no known one is like it; remove it"
	if near != nil {
		hint = "did you mean " + strings.Join(near, ", ") + "?"
	}
	ps.mistake(n.Line, "unknown %s %q; %s", what, n.Value, hint)
}

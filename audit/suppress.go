package audit

import (
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"
	"unicode"
)

// Suppressions are findings that the user does not want to see. They may be
// used by several goroutines at once.
type Suppressions struct{ all []suppression }

// suppression suppresses the findings that all of its patterns match.
type suppression struct {
	name             string
	kind             Kind // "": all
	call, path, exec pattern
	stack            []framePattern
	anywhere         bool // the stack's only pattern may match any frame
}

// framePattern matches one frame, or any number of them.
type framePattern struct {
	function, module pattern
	any              bool
}

// pattern is text in which * stands for any characters. An empty one matches
// everything.
type pattern string

// ParseSuppressions reads a file of suppressions, whose format docs/audit.md
// describes. The name is for error messages. The error joins one for each
// mistake, each with the name and the line.
func ParseSuppressions(name string, data []byte) (*Suppressions, error) {
	p := suppressionParser{name: name}
	for i, line := range strings.Split(string(data), "\n") {
		p.line(i+1, strings.TrimSpace(line))
	}
	if p.block != nil {
		p.mistake(p.begin, "this { has no }")
	}
	if len(p.mistakes) > 0 {
		return nil, errors.Join(p.mistakes...)
	}
	return &Suppressions{p.all}, nil
}

type suppressionParser struct {
	name     string
	all      []suppression
	mistakes []error
	block    *suppression // nil outside of blocks
	begin    int          // the block's first line
	named    bool         // the block has its name
}

func (p *suppressionParser) mistake(line int, format string, args ...any) {
	p.mistakes = append(p.mistakes, fmt.Errorf("%s:%d: %s", p.name, line, fmt.Sprintf(format, args...)))
}

func (p *suppressionParser) line(n int, line string) {
	switch {
	case line == "" || strings.HasPrefix(line, "#"):
	case p.block == nil && line == "{":
		p.block, p.begin, p.named = new(suppression), n, false
	case p.block == nil:
		s := suppression{name: line, anywhere: true}
		if p.pattern(n, line, &s) {
			p.all = append(p.all, s)
		}
	case line == "{":
		p.mistake(n, "{ within the suppression that begins at line %d; end that with }", p.begin)
	case line == "}":
		if !p.named {
			p.mistake(n, "the suppression has no name; write one in its first line")
		} else if p.block.empty() {
			p.mistake(n, "%q has no pattern and would suppress everything; remove it or add one such as call:openat", clip(p.block.name, 80))
		}
		p.all = append(p.all, *p.block)
		p.block = nil
	case !p.named:
		p.block.name, p.named = line, true
	default:
		p.pattern(n, line, p.block)
	}
}

// empty reports whether the suppression would match everything.
func (s *suppression) empty() bool {
	return s.call == "" && s.path == "" && s.exec == "" &&
		!slices.ContainsFunc(s.stack, func(f framePattern) bool { return !f.any })
}

// pattern reads one line with a pattern, or the name of a kind.
func (p *suppressionParser) pattern(n int, line string, s *suppression) bool {
	if line == "..." && p.block != nil {
		s.stack = append(s.stack, framePattern{any: true})
		return true
	}
	what, text, ok := strings.Cut(line, ":")
	if !ok {
		if chosen, err := ParseKinds(line); p.block != nil && err == nil && len(chosen) == 1 {
			if s.kind != "" {
				p.mistake(n, "the suppression has a kind already: %s", s.kind)
			}
			s.kind = chosen[0]
			return true
		}
		p.mistake(n, "%q is no pattern; write call:, fun:, obj:, path: or exec: and what it is to match", clip(line, 80))
		return false
	}
	if text = strings.TrimSpace(text); text == "" {
		p.mistake(n, "nothing behind %s: to match", clip(what, 80))
		return false
	}
	once := func(old *pattern) bool {
		if *old != "" {
			p.mistake(n, "%s: is there already; make another suppression", what)
			return false
		}
		*old = pattern(text)
		return true
	}
	switch what {
	case "call":
		return once(&s.call)
	case "path":
		return once(&s.path)
	case "exec":
		return once(&s.exec)
	case "fun":
		s.stack = append(s.stack, framePattern{function: pattern(text)})
	case "obj":
		s.stack = append(s.stack, framePattern{module: pattern(text)})
	default:
		p.mistake(n, "unknown pattern %q; the known ones are call:, fun:, obj:, path: and exec:", clip(what, 80)+":")
		return false
	}
	return true
}

// match returns the name of the first suppression that matches f.
func (s *Suppressions) match(f *Finding) (string, bool) {
	if s == nil {
		return "", false
	}
	for i := range s.all {
		if s.all[i].matches(f) {
			return s.all[i].name, true
		}
	}
	return "", false
}

func (s *suppression) matches(f *Finding) bool {
	if s.kind != "" && s.kind != f.Kind || !s.call.matches(f.Creation.Call) || !s.path.matches(f.Creation.Object.Link) {
		return false
	}
	if s.exec != "" && (f.Receipt == nil || !s.exec.matchesFile(f.Receipt.Program.Executable)) {
		return false
	}
	if s.anywhere && len(s.stack) == 1 {
		return slices.ContainsFunc(f.Stack, s.stack[0].matches)
	}
	// The innermost frames, in order. Frames behind the last pattern do not matter.
	const some = true
	return sequence(len(s.stack), len(f.Stack), some,
		func(i int) bool { return s.stack[i].any },
		func(i, j int) bool { return s.stack[i].matches(f.Stack[j]) })
}

func (p framePattern) matches(f Frame) bool {
	return p.function.matches(f.Function) && p.module.matchesFile(f.Module)
}

func (p pattern) matches(s string) bool {
	if p == "" {
		return true
	}
	const all = false
	return sequence(len(p), len(s), all,
		func(i int) bool { return p[i] == '*' },
		func(i, j int) bool { return p[i] == s[j] })
}

// matchesFile matches a file's path, or its base name if the pattern has no slash.
func (p pattern) matchesFile(s string) bool {
	return p.matches(s) || p != "" && s != "" && !strings.Contains(string(p), "/") && p.matches(path.Base(s))
}

// sequence matches patterns, some of which stand for any number of elements,
// against a sequence; with prefix, elements may be left at the end. It takes
// at most patterns*elements steps: only the last wildcard is ever tried again.
func sequence(patterns, elements int, prefix bool, wild func(int) bool, equal func(i, j int) bool) bool {
	i, j := 0, 0
	last, from := -1, 0 // the last wildcard, and where what follows it was tried
	for {
		switch {
		case i < patterns && wild(i):
			last, from = i, j
			i++
		case i == patterns && (prefix || j == elements):
			return true
		case i < patterns && j < elements && equal(i, j):
			i++
			j++
		case last >= 0 && from < elements:
			from++
			i, j = last+1, from
		default:
			return false
		}
	}
}

// WriteSuppressions writes suppressions that match the findings.
func WriteSuppressions(w io.Writer, findings []Finding) error {
	var b strings.Builder
	for i := range findings {
		findings[i].suppression(&b)
	}
	if _, err := io.WriteString(w, b.String()); err != nil {
		return fmt.Errorf("write suppressions: %w", err)
	}
	return nil
}

// generatedFrames bounds the frames of a suppression that is written.
const generatedFrames = 24

func (f *Finding) suppression(b *strings.Builder) {
	fmt.Fprintf(b, "{\n   <insert a name here>\n   %s\n", f.Kind)
	line := func(what, text string) {
		if text != "" {
			fmt.Fprintf(b, "   %s:%s\n", what, literal(text))
		}
	}
	line("call", f.Creation.Call)
	if f.Receipt != nil {
		line("exec", f.Receipt.Program.Executable)
	}
	for _, frame := range f.Stack[:min(len(f.Stack), generatedFrames)] {
		switch {
		case frame.Function != "":
			line("fun", frame.Function)
		case frame.Module != "":
			line("obj", frame.Module)
		default:
			b.WriteString("   ...\n")
		}
	}
	if len(f.Stack) == 0 {
		line("path", f.Creation.Object.Link)
	}
	b.WriteString("}\n")
}

// literal makes a pattern of text that comes from a program.
func literal(s string) string {
	s = strings.ToValidUTF8(s, "*")
	s = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return '*'
		}
		return r
	}, s)
	if strings.HasPrefix(s, " ") {
		s = "*" + s[1:]
	}
	if strings.HasSuffix(s, " ") {
		s = s[:len(s)-1] + "*"
	}
	return s
}

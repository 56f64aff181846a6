package audit

import (
	"slices"
	"unicode/utf8"
)

// Bounds of what is kept of the programs' own strings. They are in bytes, or
// in elements.
const (
	maxText      = 4 << 10
	maxLine      = 16 << 10 // a whole command line
	maxFrames    = 256
	maxArguments = 16 // of a call
)

// clip cuts s to at most n bytes and a mark, between characters.
func clip(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n] + "…"
}

func bounded(p Program) Program {
	p.Executable = clip(p.Executable, maxText)
	argv, left := make([]string, 0, min(len(p.Argv), 64)), maxLine
	for i, a := range p.Argv {
		if left <= 0 {
			argv = append(argv, "…")
			break
		}
		argv = append(argv, clip(a, min(maxText, left)))
		left -= len(argv[i]) + 1
	}
	p.Argv = argv
	return p
}

func boundedObject(o Object) Object {
	o.Link, o.Detail = clip(o.Link, maxText), clip(o.Detail, maxText)
	return o
}

func boundedArguments(args []Argument) []Argument {
	args = slices.Clone(args[:min(len(args), maxArguments)])
	for i := range args {
		args[i].Name, args[i].Value = clip(args[i].Name, maxText), clip(args[i].Value, maxText)
	}
	return args
}

func boundedFrames(frames []Frame) []Frame {
	frames = slices.Clone(frames[:min(len(frames), maxFrames)])
	for i := range frames {
		f := &frames[i]
		for _, s := range []*string{&f.Function, &f.File, &f.Module, &f.BuildID} {
			*s = clip(*s, maxText)
		}
	}
	return frames
}

package report

import (
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/seed-055cd0c8/indirect/audit"
)

// maxShown bounds what is shown of one string, in bytes.
const maxShown = 1000

// printable shows text that comes from a program on one line: what is not
// printable becomes \x1b, \n or \u202e.
func printable(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); {
		if b.Len() >= maxShown {
			b.WriteString("…")
			break
		}
		r, size := utf8.DecodeRuneInString(s[i:])
		switch {
		case r == utf8.RuneError && size == 1:
			fmt.Fprintf(&b, `\x%02x`, s[i])
		case unicode.IsPrint(r):
			b.WriteRune(r)
		default:
			b.WriteString(strings.Trim(strconv.QuoteRune(r), "'"))
		}
		i += size
	}
	return b.String()
}

// commandLine shows arguments as one would type them.
func commandLine(argv []string) string {
	words := make([]string, len(argv))
	for i, a := range argv {
		safe := func(r rune) bool {
			return unicode.IsLetter(r) || unicode.IsDigit(r) || strings.ContainsRune("-_=+,./:@%", r)
		}
		if a == "" || strings.ContainsFunc(a, func(r rune) bool { return !safe(r) }) {
			a = "'" + strings.ReplaceAll(a, "'", `'\''`) + "'"
		}
		words[i] = a
	}
	return printable(strings.Join(words, " "))
}

// count is "1 leak" or "2 leaks".
func count(n int, k audit.Kind) string {
	name := k.Plural()
	if n == 1 {
		name = string(k)
	}
	return fmt.Sprintf("%d %s", n, name)
}

// times is " (3 times)", or nothing for once.
func times(n int) string {
	if n == 1 {
		return ""
	}
	return fmt.Sprintf(" (%d times)", n)
}

// program names a program by its file.
func program(p *audit.Program) string {
	switch {
	case p.Executable != "":
		return printable(p.Executable)
	case len(p.Argv) > 0:
		return printable(p.Argv[0])
	}
	return "an unknown program"
}

// process names a process and what it runs.
func process(p *audit.Program) string {
	if p.ID == 0 {
		return "an unknown process"
	}
	s := fmt.Sprintf("process %d, %s", p.PID, program(p))
	if len(p.Argv) > 0 {
		s += ": " + commandLine(p.Argv)
	}
	return s
}

// object says what a descriptor is.
func object(o *audit.Object) string {
	switch {
	case o.Link == "":
		return "unknown"
	case o.Detail != "":
		return printable(o.Link + " " + o.Detail)
	}
	return printable(o.Link)
}

// call shows the creating call with its arguments.
func call(c *audit.Creation) string {
	if c.Call == "" {
		return "an unknown call"
	}
	if len(c.Args) == 0 {
		return printable(c.Call)
	}
	args := make([]string, len(c.Args))
	for i, a := range c.Args {
		args[i] = a.Name + "=" + a.Value
	}
	return printable(c.Call) + "(" + printable(strings.Join(args, ", ")) + ")"
}

// frame shows a frame, and what is special about it.
func frame(f *audit.Frame) string {
	s := printable(f.String())
	if f.Inlined {
		s += " [inlined]"
	}
	if f.Guessed {
		s += " [guessed]"
	}
	return s
}

// microseconds shows a window's length, in no more digits than it deserves.
func microseconds(d time.Duration) string {
	us := float64(d) / float64(time.Microsecond)
	if us >= 100 {
		return strconv.FormatFloat(us, 'f', 0, 64) + " µs"
	}
	return strconv.FormatFloat(us, 'g', 3, 64) + " µs"
}

// headline says in a sentence, without a full stop, what was found.
func headline(f *audit.Finding) string {
	fd := fmt.Sprintf("descriptor %d", f.Creation.FD)
	switch f.Kind {
	case audit.KindLeak:
		return fmt.Sprintf("%s leaked to %s", fd, program(&f.Receipt.Program))
	case audit.KindRace:
		s := fmt.Sprintf("%s was inheritable for %s before it became close-on-exec", fd, microseconds(f.Window.Length))
		switch {
		case f.Window.Forked:
			return s + "; another thread forked in the meantime"
		case f.Window.Threads:
			return s + "; other threads could have forked"
		}
		return s + "; there was no other thread"
	case audit.KindLatent:
		return fmt.Sprintf("%s would have reached every program that was executed", fd)
	case audit.KindDeliberate:
		return fmt.Sprintf("%s was handed to %s on purpose: %s", fd, program(&f.Receipt.Program), printable(f.Reason))
	}
	return fmt.Sprintf("%s reached %s: %s", fd, program(&f.Receipt.Program), printable(f.Reason))
}

// meanings says what each kind is, as a sentence without a full stop.
var meanings = map[audit.Kind]struct{ short, long string }{
	audit.KindLeak: {
		"A descriptor reached a program that it was not meant for",
		"The descriptor was created without close-on-exec and was still open when another program was executed, which received it. Create it with the flag (O_CLOEXEC, SOCK_CLOEXEC, pipe2, accept4, F_DUPFD_CLOEXEC), or close it in the child before the exec.",
	},
	audit.KindRace: {
		"A descriptor was made close-on-exec too late",
		"The descriptor was created without close-on-exec and given the flag by a second call. A program that another thread executes in between receives the descriptor. Create it with the flag (O_CLOEXEC, SOCK_CLOEXEC, pipe2, accept4, F_DUPFD_CLOEXEC).",
	},
	audit.KindLatent: {
		"A descriptor would reach any program that is executed",
		"The descriptor was created without close-on-exec and stayed open until the process ended. No program was executed in this run. Create it with the flag, so that it stays so.",
	},
	audit.KindDeliberate: {
		"A descriptor was handed to a program on purpose",
		"The program chose the descriptor's number, took close-on-exec away from it, or told the receiving program its number.",
	},
	audit.KindInherited: {
		"A descriptor came from outside",
		"The descriptor was open before the audit began, or it is not known for certain where it was created.",
	},
}

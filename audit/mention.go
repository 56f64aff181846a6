package audit

import (
	"strconv"
	"strings"
	"unicode"
)

// inArguments finds the argument by which a program is told the number of a
// descriptor: --status-fd 5, -d5, /dev/fd/63, 5:6. The first argument is the
// program's name. In the text of a script, a number alone does not count.
func inArguments(argv []string, fd int) (string, bool) {
	number := strconv.Itoa(fd)
	for i, arg := range argv {
		if i == 0 || !strings.Contains(arg, number) {
			continue
		}
		words := strings.FieldsFunc(arg, unicode.IsSpace)
		for j, word := range words {
			alone := word == number
			if alone && len(words) > 1 && (j == 0 || !announces(words[j-1])) {
				continue
			}
			if mentions(word, fd) {
				if len(words) == 1 && alone && announces(argv[i-1]) && i > 1 {
					word = argv[i-1] + " " + word
				}
				return word, true
			}
		}
	}
	return "", false
}

// announces reports whether a word is like --status-fd, so that a number may follow.
func announces(word string) bool {
	return strings.HasPrefix(word, "-") || strings.HasSuffix(strings.ToLower(word), "fd")
}

// mentions reports whether a word has the number fd as a part of its own: not
// as a part of a longer number, a name, a version or a file's path.
func mentions(word string, fd int) bool {
	number := strconv.Itoa(fd)
	for from := 0; ; {
		i := strings.Index(word[from:], number)
		if i < 0 {
			return false
		}
		i += from
		if stands(word[:i], word[i+len(number):]) {
			return true
		}
		from = i + len(number)
	}
}

// stands reports whether what is before and behind a number lets it be a
// descriptor's.
func stands(before, behind string) bool {
	if behind != "" {
		switch c := behind[0]; {
		case c >= '0' && c <= '9', isLetter(c), c == '_', c >= 0x80:
			return false
		case c == '.' && len(behind) > 1 && behind[1] >= '0' && behind[1] <= '9':
			return false // a version
		}
	}
	if before == "" {
		return true
	}
	lower := strings.ToLower(before)
	if strings.HasSuffix(lower, "fd/") || strings.HasSuffix(lower, "fd") || strings.HasSuffix(lower, "fds") {
		return true // /dev/fd/5, fd5
	}
	switch c := before[len(before)-1]; {
	case c >= '0' && c <= '9', c == '_', c == '.', c == '/', c == '-', c >= 0x80:
		return false
	case isLetter(c):
		return len(before) == 2 && before[0] == '-' // -d5
	}
	return true
}

func isLetter(c byte) bool { return c|0x20 >= 'a' && c|0x20 <= 'z' }

// firstListened is the number of the first descriptor that LISTEN_FDS counts
// (sd_listen_fds(3)).
const firstListened = 3

// inEnvironment finds the variable by which a program is told the number of a
// descriptor. Numbers are in many variables, so that it must be in one whose
// name speaks of descriptors, or in words that do.
func inEnvironment(env []string, fd int) (string, bool) {
	for _, v := range env {
		name, value, ok := strings.Cut(v, "=")
		if !ok {
			continue
		}
		switch name {
		case "LISTEN_FDS":
			n, err := strconv.Atoi(value)
			if err == nil && fd >= firstListened && fd-firstListened < n {
				return v, true
			}
			continue
		case "MAKEFLAGS", "MFLAGS", "CARGO_MAKEFLAGS":
			for word := range strings.FieldsSeq(value) {
				if rest, ok := jobserver(word); ok && mentions(rest, fd) {
					return name + "=" + word, true
				}
			}
			continue
		}
		for word := range strings.FieldsSeq(value) {
			if speaksOfDescriptors(name) && mentions(word, fd) || strings.Contains(strings.ToLower(word), "fd") && mentions(word, fd) {
				return name + "=" + word, true
			}
		}
	}
	return "", false
}

// jobserver is the value of make's option that names its pipe ("POSIX
// Jobserver" in the manual of GNU make).
func jobserver(word string) (string, bool) {
	for _, option := range []string{"--jobserver-auth=", "--jobserver-fds="} {
		if rest, ok := strings.CutPrefix(word, option); ok {
			return rest, true
		}
	}
	return "", false
}

// descriptorNames are parts of the names of variables that hold descriptors:
// NODE_CHANNEL_FD, WAYLAND_SOCKET, SERVER_STARTER_PORT. nginx uses its own name
// when it replaces its executable.
var descriptorNames = []string{"FD", "SOCK", "PIPE", "CHANNEL", "HANDLE", "DESCRIPTOR", "LISTEN", "STARTER", "NGINX"}

func speaksOfDescriptors(name string) bool {
	name = strings.ToUpper(name)
	for _, part := range descriptorNames {
		if strings.Contains(name, part) {
			return true
		}
	}
	return false
}

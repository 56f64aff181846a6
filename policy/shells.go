package policy

import "regexp"

// shells place redirections at numbers on purpose (3<file, <(command)) and
// rely on their children inheriting them.
var shells = map[string]bool{
	"sh": true, "bash": true, "dash": true, "zsh": true, "ksh": true, "mksh": true,
	"ash": true, "fish": true, "tcsh": true, "csh": true, "yash": true,
	"busybox": true, "rc": true, "es": true, "posh": true,
}

// shellName matches the names that distributions give to shells: bash,
// bash5, ksh93, zsh-5.9, bash-static, zsh5-static, busybox.static.
var shellName = regexp.MustCompile(`^([a-z]+)((-?)[0-9]+(?:\.[0-9]+)*[a-z]?)?(?:[-.]static)?$`)

// isShell reports whether an executable's base name is that of a shell. The
// two-letter names need the dash before a version: es6 and rc2 are rather
// something else.
func isShell(base string) bool {
	m := shellName.FindStringSubmatch(base)
	return m != nil && shells[m[1]] && (len(m[1]) > 2 || m[2] == "" || m[3] == "-")
}

// handOver are programs that create descriptors without the flag on purpose,
// to pass them by number to a helper of their own. OpenJDK's ProcessBuilder
// gives the ends of pipes to jspawnhelper
// (src/java.base/unix/native/libjava/ProcessImpl_md.c).
var handOver = map[string]rule{
	"java": {Calls: map[string]want{"pipe": 0, "pipe2": 0}},
}

# For the suites that are shell scripts: the prefix in "$@" becomes `under`, which every checked command starts with.
set -u
prefix=("$@")
under() { timeout "${LIMIT:-120}" "${prefix[@]}" "$@"; }

# check NAME COMMAND [ARG...]: one test; the result is the exit status and a sum of what the command printed.
check() {
	local name=$1 status
	shift
	"$@" >"$name.out" 2>"$name.err" </dev/null
	status=$?
	echo "$name: exit $status, output $(md5sum <"$name.out" | cut -c1-8) $(grep -v '^indirect: ' "$name.err" | md5sum | cut -c1-8)"
}

# status NAME COMMAND [ARG...]: the same without the output, for what prints times and numbers of processes.
status() {
	local name=$1
	shift
	"$@" >"$name.out" 2>"$name.err" </dev/null
	echo "$name: exit $?"
}

suite=$(cd "$(dirname "${BASH_SOURCE[1]}")/.." && pwd)

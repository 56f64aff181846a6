package front

import (
	"errors"
	"fmt"
	"os"
	"strings"
)

// stat is the part of /proc/PID/stat that we need (proc_pid_stat(5)).
type stat struct {
	state  byte
	parent int
}

var errStat = errors.New("unexpected text")

func readStat(pid int) (stat, error) {
	name := fmt.Sprintf("/proc/%d/stat", pid)
	b, err := os.ReadFile(name)
	if err != nil {
		return stat{}, fmt.Errorf("look at process %d: %w", pid, err)
	}
	s, err := parseStat(string(b))
	if err != nil {
		return stat{}, fmt.Errorf("read %s: %w", name, err)
	}
	return s, nil
}

// parseStat reads a line of /proc/PID/stat. The second field, the program's
// name in parentheses, may itself hold spaces and parentheses.
func parseStat(line string) (stat, error) {
	i := strings.LastIndexByte(line, ')')
	if i < 0 {
		return stat{}, errStat
	}
	var s stat
	if _, err := fmt.Sscanf(line[i+1:], " %c %d", &s.state, &s.parent); err != nil {
		return stat{}, fmt.Errorf("%w: %w", errStat, err)
	}
	return s, nil
}

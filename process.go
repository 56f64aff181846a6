package indirect

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/seed-055cd0c8/indirect/internal/launch"
	"github.com/seed-055cd0c8/indirect/internal/remote"
	"github.com/seed-055cd0c8/indirect/internal/session"
	"github.com/seed-055cd0c8/indirect/supervise"
)

// Our helper processes are this program again, under other names: they begin
// and end here, before main.
func init() {
	launch.Main()
	supervise.Main(map[string]supervise.Open{remote.Name: remote.Open})
	if os.Args[0] == frontName {
		os.Exit(runFront(os.Args[1:]))
	}
}

// ourFailure is the exit status that stands for none of the program's.
const ourFailure = 125

// runFront is the main function of a front.
func runFront(args []string) int {
	const fixed = 3
	if len(args) < fixed {
		return ourFailure
	}
	number, err := strconv.Atoi(args[0])
	calls, err1 := strconv.Atoi(args[1])
	if err = errors.Join(err, err1); err != nil {
		return ourFailure
	}
	unix.CloseOnExec(number)
	control := os.NewFile(uintptr(number), "control")
	var o order
	if err := json.NewDecoder(control).Decode(&o); err != nil {
		return ourFailure
	}
	options := supervise.Options{Policy: o.Policy}
	for i, traps := range o.Traps {
		options.Extensions = append(options.Extensions, supervise.Extension{
			Name: remote.Name, Config: json.RawMessage(strconv.Itoa(i)), Traps: traps, File: os.NewFile(uintptr(calls), "calls"),
		})
	}
	if calls >= 0 {
		unix.CloseOnExec(calls)
	}
	var r result
	var status unix.WaitStatus
	status, r.Summary, err = session.Run(options, args[2:], nil)
	code := session.ExitStatus(status)
	if err != nil {
		r.Error = strings.ReplaceAll(fmt.Sprint(err), "\n", "; ")
		code = ourFailure
		var exec *launch.ExecError
		if errors.As(err, &exec) {
			code = exec.Status()
		}
	}
	if err := json.NewEncoder(control).Encode(r); err != nil {
		fmt.Fprintln(os.Stderr, "indirect: tell what was done:", err)
	}
	return code
}

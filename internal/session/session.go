// Package session runs one command under supervision, from its start to its
// end: it puts the parts together that package launch, front and supervise are.
package session

import (
	"golang.org/x/sys/unix"

	"github.com/seed-055cd0c8/indirect/internal/front"
	"github.com/seed-055cd0c8/indirect/internal/launch"
	"github.com/seed-055cd0c8/indirect/internal/launch/signals"
	"github.com/seed-055cd0c8/indirect/supervise"
)

// Run runs argv in our place: with our standard streams, directory and
// environment, and with our signals handed on. It returns how the command
// ended. Prepare, which may be nil, can add to how the command is started.
//
// It changes the process's signal handling for good, and should be all that
// the process does.
func Run(o supervise.Options, argv []string, prepare func(*supervise.Supervision, *launch.Spec) error) (unix.WaitStatus, supervise.Summary, error) {
	fail := func(err error) (unix.WaitStatus, supervise.Summary, error) { return 0, supervise.Summary{}, err }
	inherited, err := signals.Inherited()
	if err != nil {
		return fail(err)
	}
	fr, err := front.Catch()
	if err != nil {
		return fail(err)
	}
	s, err := supervise.New(o)
	if err != nil {
		return fail(err)
	}
	spec := launch.Spec{Path: argv[0], Args: argv, Env: launch.Environ(), Filter: s.Filter(), Signals: inherited}
	if prepare != nil {
		if err := prepare(s, &spec); err != nil {
			return fail(err)
		}
	}
	command, err := launch.Start(spec)
	if err != nil {
		return fail(err)
	}
	if err := s.Start(command.Listener()); err != nil {
		command.Abort()
		return fail(err)
	}
	defer s.Close()
	if err := front.LetGo(); err != nil {
		command.Abort()
		return fail(err)
	}
	if err := command.Release(); err != nil {
		return fail(err)
	}
	status, err := fr.Serve(command)
	if err != nil {
		return fail(err)
	}
	return status, s.Summary(), nil
}

// ExitStatus is what a shell reports for a wait status: 128 and the number of
// the signal that ended the command, or its exit status.
func ExitStatus(status unix.WaitStatus) int {
	if status.Signaled() {
		return 128 + int(status.Signal())
	}
	return status.ExitStatus()
}

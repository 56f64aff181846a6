package launch

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// ExecError says that the command could not be executed.
type ExecError struct {
	Path  string
	Errno unix.Errno
}

func (e *ExecError) Error() string {
	if e.Errno == unix.ENOENT {
		return fmt.Sprintf("%s: not found (or the interpreter that it names is not)", e.Path)
	}
	return fmt.Sprintf("%s: cannot be executed: %v", e.Path, e.Errno)
}

// Unwrap returns the error of execve(2).
func (e *ExecError) Unwrap() error { return e.Errno }

// Status is the exit status that shells use: 127 for a command that was not
// found, 126 for one that cannot be executed.
func (e *ExecError) Status() int {
	if e.Errno == unix.ENOENT {
		return 127
	}
	return 126
}

// Step is a part of the filter's installation.
type Step uint32

// The steps.
const (
	StepInstall    Step = iota // seccomp(SECCOMP_SET_MODE_FILTER)
	StepUserNotif              // asking for SECCOMP_RET_USER_NOTIF
	StepNoNewPrivs             // prctl(PR_SET_NO_NEW_PRIVS)
	StepAddFD                  // asking the listener for SECCOMP_IOCTL_NOTIF_ADDFD
	StepSend                   // handing over the listener
	StepRefuse                 // installing the second filter
)

// FilterError says that the filter could not be installed, and why.
type FilterError struct {
	Step  Step
	Errno unix.Errno
}

func (e *FilterError) Error() string {
	const elsewhere = "; commands that run no program, such as \"indirect calls\", still work"
	switch {
	case e.Step == StepUserNotif:
		return "the kernel lacks seccomp user notification (Linux 5.0): use Linux 5.9 or later" + elsewhere
	case e.Step == StepAddFD:
		return "the kernel's seccomp user notification is too old: it lacks SECCOMP_IOCTL_NOTIF_ADDFD (Linux 5.9)" +
			" or SECCOMP_USER_NOTIF_FLAG_CONTINUE (Linux 5.5): use Linux 5.9 or later" + elsewhere
	case e.Step == StepSend:
		return fmt.Sprintf("the launcher could not hand over the listener: %v", e.Errno)
	case e.Step == StepRefuse:
		return fmt.Sprintf("install the seccomp filter that refuses calls: %v", e.Errno)
	case e.Errno == unix.EBUSY:
		return "a seccomp listener is already there, and the kernel allows only one:" +
			" we run inside another \"indirect run\" or a container manager that uses seccomp notifications; start the command outside of it"
	case e.Errno == unix.ENOSYS:
		return "the kernel has no seccomp filters (CONFIG_SECCOMP_FILTER), or the container hides seccomp(2)" + elsewhere
	case e.Errno == unix.EACCES || e.Errno == unix.EPERM:
		return "not permitted to install a seccomp filter: allow seccomp(2) in the container's profile, or run with CAP_SYS_ADMIN" + elsewhere
	case e.Errno == unix.EINVAL:
		return "the kernel does not take the seccomp filter or its flags (SECCOMP_FILTER_FLAG_NEW_LISTENER is Linux 5.0): use Linux 5.9 or later" + elsewhere
	}
	return fmt.Sprintf("install the seccomp filter: %v", e.Errno)
}

// Unwrap returns the kernel's error.
func (e *FilterError) Unwrap() error { return e.Errno }

package session

import (
	"testing"

	"golang.org/x/sys/unix"
)

func TestExitStatus(t *testing.T) {
	tests := []struct {
		status unix.WaitStatus
		want   int
	}{
		{0, 0},
		{7 << 8, 7},
		{unix.WaitStatus(unix.SIGTERM), 143},
		{unix.WaitStatus(unix.SIGSEGV) | 0x80, 139}, // with a core dump
	}
	for _, test := range tests {
		if got := ExitStatus(test.status); got != test.want {
			t.Errorf("ExitStatus(%#x) = %d, want %d", test.status, got, test.want)
		}
	}
}

package syslet

import (
	"errors"
	"testing"

	"golang.org/x/sys/unix"
)

// eachBackend runs a test on the pool and, where this kernel has it, on the
// ring in both its ways: the results have to be the same.
func eachBackend(t *testing.T, c Config, test func(t *testing.T, e *Engine)) {
	t.Helper()
	run := func(name string, c Config) {
		t.Run(name, func(t *testing.T) {
			e, err := New(c)
			if errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EPERM) {
				t.Logf("no io_uring here: %v", err)
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			test(t, e)
			if err := e.Close(); err != nil {
				t.Errorf("Close: %v", err)
			}
		})
	}
	c.Backend = Pool
	run("pool", c)
	c.Backend = Ring
	run("ring", c)
}

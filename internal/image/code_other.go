//go:build !amd64

package image

import (
	"errors"
	"fmt"
	"runtime"
)

// A new architecture is a stub_ARCH.s and a code_ARCH.go.
var errNoStub = fmt.Errorf("there is no stub for %s yet: %w", runtime.GOARCH, errors.ErrUnsupported)

func stubText() ([]byte, int, error) { return nil, 0, errNoStub }
func landingText() ([]byte, error)   { return nil, errNoStub }
func singleText() ([]byte, error)    { return nil, errNoStub }

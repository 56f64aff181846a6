package supervise

import (
	"testing"

	"github.com/seed-055cd0c8/indirect/fdcall"
	"github.com/seed-055cd0c8/indirect/internal/image"
)

// Programs that want the same share their code, and no others do.
func TestCodeFor(t *testing.T) {
	e := &engine{table: fdcall.Linux(), codes: make(map[string]*image.Code)}
	e.Base = 0x20000000
	all := func(*fdcall.Call) fdcall.Want { return fdcall.Cloexec }
	butPipe := func(c *fdcall.Call) fdcall.Want {
		if c.Name == "pipe" {
			return 0
		}
		return fdcall.Cloexec
	}
	var codes []*image.Code
	for _, want := range []func(*fdcall.Call) fdcall.Want{all, all, butPipe, all} {
		code, err := e.codeFor(want)
		if err != nil {
			t.Fatal(err)
		}
		codes = append(codes, code)
	}
	if codes[0] != codes[1] || codes[0] != codes[3] {
		t.Error("the same wishes, and different code")
	}
	if codes[0] == codes[2] {
		t.Error("different wishes, and the same code")
	}
}

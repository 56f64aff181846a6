package image

import (
	"github.com/seed-055cd0c8/indirect/fdcall"
	"testing"
)

func TestBuild(t *testing.T) {
	tab := fdcall.Linux()
	for w := fdcall.Want(0); w < 8; w++ {
		c, err := Build(tab, func(*fdcall.Call) fdcall.Want { return w })
		if err != nil {
			t.Fatal(w, err)
		}
		_ = c
	}
	s, _ := text(stubAddress())
	l, _ := Landing()
	t.Log(len(s), len(l))
}

package filter

import (
	"testing"

	"golang.org/x/net/bpf"
)

// TestJumpsOfAnyLength tries distances on both sides of what a conditional
// jump can skip, to both outcomes, and of three tests that share their relays.
func TestJumpsOfAnyLength(t *testing.T) {
	for distance := range 600 {
		for between := range 4 {
			var p program
			ends := []point{p.ret(10), p.ret(11), p.ret(12)}
			filler := func(n int) {
				for range n {
					p.emit(bpf.LoadAbsolute{Off: dataNr, Size: 4})
				}
			}
			filler(distance)
			two := p.load(dataNr, p.branch(bpf.JumpEqual, 2, ends[2], ends[0]))
			filler(between)
			p.load(dataNr, ends[0]) // not reached: what is above it must not fall into it
			one := p.load(dataNr, p.branch(bpf.JumpEqual, 1, ends[1], two))
			filler(between)
			p.load(dataNr, p.branch(bpf.JumpGreaterOrEqual, 3, ends[1], one))
			assembled, err := p.assemble()
			if err != nil {
				t.Fatal(err)
			}
			m := loaded(t, assembled)
			for nr, want := range []uint32{10, 11, 12, 11} {
				if got := m.decide(t, call{nr: uint32(nr)}); got != want {
					t.Fatalf("distance %d, %d: number %d leads to %d, want %d", distance, between, nr, got, want)
				}
			}
		}
	}
}

package patch

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"os"
	"slices"
	"testing"
	"time"
)

// FuzzOpen changes files at a few places: whatever is in them, the plan is one
// that holds, or there is none.
func FuzzOpen(f *testing.F) {
	for _, sections := range []bool{false, true} {
		for _, frames := range []bool{false, true} {
			b, _ := smallELF(sections, frames)
			f.Add(b)
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		start := time.Now()
		plan, err := Open(bytes.NewReader(b), int64(len(b)))
		if err != nil {
			return
		}
		checkRoutes(t, plan, b)
		for site := range plan.routes {
			if _, err := plan.Route(site); err != nil {
				t.Error(err)
			}
		}
		plan.Address(uint64(len(b)))
		if d := time.Since(start); d > 5*time.Second {
			t.Errorf("%d bytes took %v", len(b), d)
		}
	})
}

// TestDamagedFiles changes real files at random places.
func TestDamagedFiles(t *testing.T) {
	for _, path := range []string{
		build(t, "musl-gcc", "-static", "-Os"),
		build(t, "musl-gcc", "-Os", "-s"),
		build(t, "gcc"),
	} {
		file, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		random := rand.New(rand.NewPCG(1, 2))
		for range 200 {
			b := bytes.Clone(file)
			for range 1 + random.IntN(30) {
				// Half of the changes hit headers.
				at := random.IntN(len(b))
				if random.IntN(2) == 0 {
					at = random.IntN(0x300)
				}
				b[at] = byte(random.Uint32())
			}
			if plan, err := Open(bytes.NewReader(b), int64(len(b))); err == nil {
				checkRoutes(t, plan, b)
			}
		}
	}
}

// FuzzFrames feeds the reader of .eh_frame alone.
func FuzzFrames(f *testing.F) {
	f.Add([]byte{
		20, 0, 0, 0, 0, 0, 0, 0, 1, 'z', 'R', 0, 1, 0x78, 16, 1, 0x1b, 12, 7, 8, 0x90, 1, 0, 0,
		16, 0, 0, 0, 28, 0, 0, 0, 0, 16, 0, 0, 32, 0, 0, 0, 0, 0, 0, 0,
	}, uint64(0x2000))
	f.Fuzz(func(t *testing.T, b []byte, address uint64) {
		for _, fn := range parseFrames(b, address) {
			if fn.end <= fn.start {
				t.Errorf("empty function %+v", fn)
			}
		}
	})
}

// FuzzDecode checks that no byte sequence is read beyond its end.
func FuzzDecode(f *testing.F) {
	f.Add([]byte{0x62, 0xf1, 0x7c, 0x48, 0x10, 0x44, 0x24, 1})
	f.Fuzz(func(t *testing.T, b []byte) {
		in, ok := decode(b, 0x1000)
		if ok && (in.size < 1 || in.size > len(b) || in.size > maxInstruction) {
			t.Errorf("% x: %+v", b, in)
		}
	})
}

func TestParseFrames(t *testing.T) {
	const address = 0x2000
	le := binary.LittleEndian
	entry := func(body ...byte) []byte { return append(le.AppendUint32(nil, uint32(len(body))), body...) }
	cie := func(augmentation string, data ...byte) []byte {
		b := append([]byte{0, 0, 0, 0, 1}, augmentation...)
		b = append(b, 0, 1, 0x78, 16)
		return entry(append(b, data...)...)
	}
	for name, test := range map[string]struct {
		cie  []byte
		fde  []byte // pointers
		want func(at uint64) function
	}{
		"relative, 4 bytes": {cie("zR", 1, 0x1b), []byte{0, 0x10, 0, 0, 0x20, 0, 0, 0},
			func(at uint64) function { return function{at + 0x1000, at + 0x1020} }},
		"relative, backwards": {cie("zR", 1, 0x1b), []byte{0, 0xf0, 0xff, 0xff, 0x20, 0, 0, 0},
			func(at uint64) function { return function{at - 0x1000, at - 0x1000 + 0x20} }},
		"personality and signal": {cie("zPLRS", 7, 0x9b, 1, 2, 3, 4, 0x1b, 0x1b), []byte{0, 0x10, 0, 0, 0x20, 0, 0, 0},
			func(at uint64) function { return function{at + 0x1000, at + 0x1020} }},
		"absolute": {cie(""), []byte{0, 0x10, 0x40, 0, 0, 0, 0, 0, 0x20, 0, 0, 0, 0, 0, 0, 0},
			func(uint64) function { return function{0x401000, 0x401020} }},
		"absolute, 2 bytes": {cie("zR", 1, 0x02), []byte{0, 0x10, 0x20, 0},
			func(uint64) function { return function{0x1000, 0x1020} }},
		"empty range":          {cie("zR", 1, 0x1b), []byte{0, 0x10, 0, 0, 0, 0, 0, 0}, nil},
		"indirect":             {cie("zR", 1, 0x9b), []byte{0, 0x10, 0, 0, 0x20, 0, 0, 0}, nil},
		"unknown augmentation": {cie("zX", 1, 0x1b), []byte{0, 0x10, 0, 0, 0x20, 0, 0, 0}, nil},
		"cut off":              {cie("zR", 1, 0x1b), []byte{0, 0x10, 0, 0}, nil},
		"wraps":                {cie(""), bytes.Repeat([]byte{0xff}, 16), nil},
	} {
		t.Run(name, func(t *testing.T) {
			b := slices.Concat([]byte{0, 0, 0, 0}, test.cie) // a terminator is passed over
			at := uint64(address + len(b) + 8)
			b = append(b, entry(append(le.AppendUint32(nil, uint32(len(b))), test.fde...)...)...)
			var want []function
			if test.want != nil {
				want = append(want, test.want(at))
			}
			if got := parseFrames(b, address); !slices.Equal(got, want) {
				t.Errorf("%x, want %x", got, want)
			}
		})
	}
}

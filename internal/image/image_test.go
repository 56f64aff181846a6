package image

import (
	"encoding/binary"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/seed-055cd0c8/indirect/fdcall"
)

func TestBuildEveryWish(t *testing.T) {
	table := fdcall.Linux()
	for w := range fdcall.Cloexec | fdcall.Nonblock | fdcall.Nonseq + 1 {
		code, err := Build(table, func(*fdcall.Call) fdcall.Want { return w }, 0x10000000)
		if err != nil {
			t.Fatalf("want %d: %v", w, err)
		}
		for n, first := range code.at(indexAt)[:numbers] {
			var planned bool
			for _, c := range table.ByNumber(fdcall.AMD64, int32(n)) {
				_, ok := table.Plan(c, w)
				planned = planned || ok
			}
			if planned != (first != 0) {
				t.Errorf("want %d: call %d: planned %v, first row %d", w, n, planned, first)
			}
		}
	}
}

func TestBuildEverySet(t *testing.T) {
	table := fdcall.Linux()
	const most = fdcall.Cloexec | fdcall.Nonblock | fdcall.Nonseq
	for add := range most + 1 {
		for asked := range most + 1 {
			b, err := BuildSet(table, func(*fdcall.Call) fdcall.Want { return add }, func(*fdcall.Call) bool { return false }, asked)
			if err != nil {
				t.Fatalf("add %d, asked %d: %v", add, asked, err)
			}
			if len(b) > setSize || int(SetAt(asked))+len(b) > Size {
				t.Errorf("add %d, asked %d: %d bytes at %#x", add, asked, len(b), SetAt(asked))
			}
			for n, first := range b[:numbers] {
				var listed, planned bool
				for _, c := range table.ByNumber(fdcall.AMD64, int32(n)) {
					_, ok := table.PlanAsked(c, add, asked)
					listed = listed || c.CanIndirect()
					planned = planned || ok && c.CanIndirect()
				}
				want := planned && first > 0 && first <= maxSetRows || listed && !planned && first == unchanged || !listed && first == 0
				if !want {
					t.Errorf("add %d, asked %d: call %d: listed %v, planned %v, first row %d", add, asked, n, listed, planned, first)
				}
			}
		}
	}
}

func TestHeaderRoundTrip(t *testing.T) {
	h := Header{Magic: 0x1122334455667788, Thunks: 7, Flags: Cancels, Owner: 4711, Sets: 1 << 5}
	got, ok := ParseHeader(h.Marshal(), h.Magic)
	if !ok || got != h {
		t.Errorf("got %+v, %v", got, ok)
	}
	for name, bad := range map[string]func(*Header){
		"another run's": func(h *Header) { h.Magic++ },
		"impossible":    func(h *Header) { h.Thunks = MaxThunks + 1 },
	} {
		h := h
		bad(&h)
		if _, ok := ParseHeader(h.Marshal(), 0x1122334455667788); ok {
			t.Errorf("%s header accepted", name)
		}
	}
	if _, ok := ParseHeader(h.Marshal()[:HeaderSize-1], h.Magic); ok {
		t.Error("short header accepted")
	}
}

func TestThunk(t *testing.T) {
	const base = 0x10000000
	var all []byte
	for i := range MaxThunks {
		thunk := Thunk(i, uint64(0x7f0000000000+i))
		// jmp rel32 must lead to the image's first byte.
		address := ThunkAddress(base, i)
		if to := address + 5 + binary.LittleEndian.Uint32(thunk[1:]); thunk[0] != 0xe9 || to != base+entryAt {
			t.Fatalf("thunk %d jumps to %#x", i, to)
		}
		if got, ok := ThunkIndex(base, uint64(address)); !ok || got != i {
			t.Fatalf("thunk %d is found at %d, %v", i, got, ok)
		}
		all = append(all, thunk...)
	}
	if end := ThunkAddress(base, MaxThunks-1) + thunkSize; end > base+Size {
		t.Errorf("the last thunk ends at %#x", end)
	}
	if i, ok := FindThunk(all, 0x7f0000000003); !ok || i != 3 {
		t.Errorf("found thunk %d, %v", i, ok)
	}
	if _, ok := FindThunk(all, 1); ok {
		t.Error("found a thunk that is not there")
	}
	if _, ok := ThunkIndex(base, base+8); ok {
		t.Error("the stub is no thunk")
	}
}

func TestFrame(t *testing.T) {
	var b []byte
	for i := range uint64(FrameHead / 8) {
		b = binary.LittleEndian.AppendUint64(b, i)
	}
	got, ok := ParseFrame(b)
	want := Frame{Args: [6]uint64{0, 1, 2, 3, 4, 5}, Nr: 6, Thunk: 7, BX: 8}
	if diff := cmp.Diff(want, got); !ok || diff != "" {
		t.Errorf("frame (-want +got):\n%s", diff)
	}
}

func TestChooseBase(t *testing.T) {
	for range 1000 {
		base, err := ChooseBase()
		if err != nil {
			t.Fatal(err)
		}
		if base%Size != 0 || base < 0x10000000 || base > 0x7fff8000-Size {
			t.Fatalf("base %#x", base)
		}
	}
}

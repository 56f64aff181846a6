package fdcall

import (
	"testing"

	"pgregory.net/rapid"
)

// TestAddedCalls walks the added calls: their numbers are free, and what they
// run is there.
func TestAddedCalls(t *testing.T) {
	table := Linux()
	added := AddedCalls()
	if len(added) != endAdded-NrIndirect {
		t.Errorf("%d added calls for %d numbers", len(added), endAdded-NrIndirect)
	}
	for i, a := range added {
		if int(a.Nr) != NrIndirect+i {
			t.Errorf("%s has number %d, want %d", a.Name, a.Nr, NrIndirect+i)
		}
		for abi := range numABIs {
			if rows := table.ByNumber(abi, a.Number(abi)); rows != nil {
				t.Errorf("%s: %s has that number on %s", a.Name, rows[0].ID(), abi)
			}
			if n := a.Former[abi]; n != None && len(a.Formerly) == 0 {
				t.Errorf("%s takes all of call %d on %s", a.Name, n, abi)
			}
		}
		if a.Usage == "" || a.Source == "" {
			t.Errorf("%s: usage %q, source %q", a.Name, a.Usage, a.Source)
		}
		if a.Runs == "" {
			continue
		}
		runs := table.ByID(a.Runs)
		if runs == nil {
			t.Fatalf("%s runs %s, which is not in the table", a.Name, a.Runs)
		}
		if a.Accepts&^(oCloexec|oNonblock|ONonseqfd) != 0 {
			t.Errorf("%s accepts %#x", a.Name, a.Accepts)
		}
		for w := range Cloexec | Nonblock | Nonseq + 1 {
			asked := Asks(a.Accepts)&w | a.Gives
			if p, ok := table.PlanAsked(runs, 0, asked); ok != (asked != 0) {
				t.Errorf("%s, asked for %d: %v, %v", a.Name, asked, p, ok)
			}
		}
	}
}

// TestAsks: each bit asks for its property, and no other bit for any.
func TestAsks(t *testing.T) {
	for bit := range 32 {
		want := map[uint32]Want{oCloexec: Cloexec, oNonblock: Nonblock, ONonseqfd: Nonseq}[1<<bit]
		if got := Asks(1 << bit); got != want {
			t.Errorf("bit %d asks for %d, want %d", bit, got, want)
		}
	}
	if got := Asks(^uint32(0)); got != Cloexec|Nonblock|Nonseq {
		t.Errorf("all bits ask for %d", got)
	}
}

// TestFormerNumbers: a former number is the added call's only with what looks
// like an address, and never with what timerfd_settime could succeed with.
func TestFormerNumbers(t *testing.T) {
	indirect, wait := &AddedCalls()[0], &AddedCalls()[1]
	const stack, page = 0x7ffe12345678, 4096
	for _, tt := range []struct {
		call   *Added
		nr     int32
		args   [6]uint64
		ok     bool
		former bool
	}{
		{indirect, NrIndirect, [6]uint64{}, true, false},
		{indirect, 286, [6]uint64{stack, stack, 4, 0}, true, true},
		{indirect, 286, [6]uint64{0x400000, 0, 0, 0}, true, true},
		{indirect, 286, [6]uint64{stack, stack, 4, 1}, false, true},
		{indirect, 286, [6]uint64{stack, stack, page, 0}, false, true},
		{indirect, 286, [6]uint64{stack, 0, 1 << 32, 0}, false, true},
		{indirect, 286, [6]uint64{7, 0, 0, 0}, false, true},
		{indirect, 286, [6]uint64{1<<20 - 1, 0, 0, 0}, false, true},
		{indirect, 286, [6]uint64{0xffffffff, 0, 0, 0}, false, true},
		{indirect, 286, [6]uint64{^uint64(0), 0, 0, 0}, false, true},
		{indirect, 287, [6]uint64{stack}, false, false},
		{wait, 287, [6]uint64{stack, 17}, true, true},
		{wait, 287, [6]uint64{7, stack}, false, true},
		{wait, 287, [6]uint64{0xffffffff, stack}, false, true},
	} {
		if ok, former := tt.call.Matches(AMD64, tt.nr, &tt.args); ok != tt.ok || ok && former != tt.former {
			t.Errorf("%s as %d%x: %v, %v", tt.call.Name, tt.nr, tt.args, ok, former)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		var args [6]uint64
		for i := range args {
			args[i] = rapid.Uint64().Draw(t, "argument")
		}
		readable := args[2] >= page // what timerfd_settime reads first
		if ok, _ := indirect.Matches(AMD64, 286, &args); ok && readable {
			t.Fatalf("timerfd_settime%x may succeed", args)
		}
	})
}

// TestPlanAsked: what a program asks for is planned for, whatever is added.
func TestPlanAsked(t *testing.T) {
	table := Linux()
	for i := range table.All() {
		c := &table.All()[i]
		for add := range Cloexec | Nonblock | Nonseq + 1 {
			if plan, ok := table.PlanAsked(c, add, 0); ok {
				plain, _ := table.Plan(c, add)
				if plan != plain {
					t.Errorf("%s, %d added, nothing asked: %v, want %v", c.ID(), add, plan, plain)
				}
			}
			for asked := range Cloexec | Nonblock | Nonseq + 1 {
				plan, ok := table.PlanAsked(c, add, asked)
				if !ok {
					continue
				}
				if asked&Cloexec == 0 && add&Cloexec == 0 && asked&Nonseq == 0 && add&Nonseq == 0 &&
					c.Class != Always && plan.To.Class == Always {
					t.Errorf("%s, %d added, %d asked: %s is close-on-exec", c.ID(), add, asked, plan.To.ID())
				}
				if asked&Nonseq != 0 && c.Gives != Memory && c.Gives != Exact && c.Leaves&Nonseq == 0 && plan.After&Nonseq == 0 {
					t.Errorf("%s, %d asked: the number stays", c.ID(), asked)
				}
			}
		}
	}
}

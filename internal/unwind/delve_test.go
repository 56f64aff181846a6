package unwind

import (
	"debug/elf"
	"encoding/binary"
	"errors"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/go-delve/delve/pkg/dwarf/frame"
)

// TestRulesAreThoseOfDelve computes the rules of libraries' functions, at a few
// addresses of each, and compares where they find the frame with what Delve's
// reader makes of the same bytes. It has no DW_CFA_restore, so that other
// registers than the frame's own are not compared.
func TestRulesAreThoseOfDelve(t *testing.T) {
	for _, name := range []string{"libc.so.6", "libstdc++.so.6", "libm.so.6"} {
		t.Run(name, func(t *testing.T) {
			out, err := exec.Command("gcc", "-print-file-name="+name).Output()
			if err != nil {
				t.Skipf("gcc is needed: %v", err)
			}
			path := strings.TrimSpace(string(out))
			f, err := os.Open(path)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			file, err := elf.NewFile(f)
			if err != nil {
				t.Fatal(err)
			}
			section := file.Section(".eh_frame")
			frames, err := section.Data()
			if err != nil {
				t.Fatal(err)
			}
			theirs, err := frame.Parse(frames, binary.LittleEndian, 0, 8, section.Addr)
			if err != nil {
				t.Fatal(err)
			}
			ours, err := readModule(f)
			if err != nil {
				t.Fatal(err)
			}
			compared := 0
			for _, function := range theirs {
				// The first instructions change the most.
				for offset := uint64(0); offset < function.End()-function.Begin(); offset += 1 + offset/2 {
					pc := function.Begin() + offset
					their, err := function.EstablishFrame(pc)
					if err != nil {
						t.Fatalf("%#x: Delve: %v", pc, err)
					}
					want := their.CFA
					got, err := ours.find(f, pc)
					switch {
					case errors.Is(err, errNoRules):
						t.Fatalf("%#x: no rules", pc)
					case err != nil:
						t.Fatalf("%#x: %v", pc, err)
					case want.Rule == frame.RuleExpression || want.Rule == frame.RuleValExpression:
						if got.cfa.kind != isValue || string(got.cfa.code) != string(want.Expression) {
							t.Errorf("%#x: the frame is %+v, Delve has %+v", pc, got.cfa, want)
						}
					case got.cfa.kind != plusOffset || uint64(got.cfa.reg) != want.Reg || got.cfa.offset != want.Offset:
						t.Errorf("%#x: the frame is %+v, Delve has %+v", pc, got.cfa, want)
					}
					compared++
				}
			}
			if t.Logf("%d places compared", compared); compared == 0 {
				t.Error("Delve's reader found no functions")
			}
		})
	}
}

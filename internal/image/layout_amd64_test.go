package image

import (
	"os"
	"regexp"
	"strconv"
	"testing"
	"unsafe"

	"github.com/seed-055cd0c8/indirect/fdcall"
)

// TestAssemblyAgrees compares the stub's constants with the Go structures
// that they stand for.
func TestAssemblyAgrees(t *testing.T) {
	source, err := os.ReadFile("stub_amd64.s")
	if err != nil {
		t.Fatal(err)
	}
	defined := make(map[string]uint64)
	for _, m := range regexp.MustCompile(`(?m)^#define (\w+) (0x[0-9a-f]+|\d+)\b`).FindAllStringSubmatch(string(source), -1) {
		if defined[m[1]], err = strconv.ParseUint(m[2], 0, 64); err != nil {
			t.Fatal(err)
		}
	}
	var r row
	var f Frame
	for name, want := range map[string]uint64{
		"INDEX": indexAt, "HEADER": headerAt, "NUMBERS": numbers, "ROWS": rowsAt, "ROWSHIFT": 6,
		"ROW_NEXT": uint64(unsafe.Offsetof(r.Next)), "ROW_GIVES": uint64(unsafe.Offsetof(r.Gives)),
		"ROW_POINTER": uint64(unsafe.Offsetof(r.Pointer)), "ROW_FLAGSARG": uint64(unsafe.Offsetof(r.FlagsArg)),
		"ROW_AFTER": uint64(unsafe.Offsetof(r.After)), "ROW_WORD": uint64(unsafe.Offsetof(r.Word)),
		"ROW_NR": uint64(unsafe.Offsetof(r.Nr)), "ROW_ASKED": uint64(unsafe.Offsetof(r.Asked)),
		"ROW_FROM": uint64(unsafe.Offsetof(r.From)), "ROW_BITS": uint64(unsafe.Offsetof(r.Bits)),
		"ROW_COND0": uint64(unsafe.Offsetof(r.Cond)), "ROW_COND1": uint64(unsafe.Offsetof(r.Cond)) + uint64(unsafe.Sizeof(cond{})),
		"AFTER_CLOEXEC": afterCloexec, "AFTER_NONBLOCK": afterNonblock, "AFTER_NONSEQ": afterNonseq,
		"AFTER_ERRNO": afterErrno, "ROW_THEIRS": uint64(unsafe.Offsetof(r.Theirs)), "ROW_OURS": uint64(unsafe.Offsetof(r.Ours)),
		"KEEP_CLOEXEC": keepCloexec, "ASKED_ALWAYS": askedAlways, "ANY_NUMBER": anyNumber,
		"OWNTHUNK": ownThunkAt, "FAMILY": familyAt, "FAMILYSHIFT": 5, "SETS": setsAt, "SETSIZE": setSize, "UNCHANGED": unchanged, "LEFT": left,
		"NESTED": NestedSize, "ADDED": fdcall.NrIndirect, "ADDEDS": families, "FORMER_INDIRECT": 286, "FORMER_WAIT": 287,
		"ENTRY": entryAt, "TRIEDTHUNK": triedThunkAt, "HELPERTHUNK": helperThunkAt, "CARRIEDTHUNK": carriedThunkAt, "KINDS": kindsAt, "ARENASIZE": ArenaSize,
		"KIND_DIRECT": uint64(Direct), "KIND_REFUSED": uint64(Refused), "KIND_FLAGS2": uint64(Flags2), "KIND_FLAGS3": uint64(Flags3),
		"KIND_READ": uint64(Read), "KIND_PREAD": uint64(Pread), "KIND_WRITE": uint64(Write), "KIND_PWRITE": uint64(Pwrite), "KIND_ALIKE": uint64(Alike), "KIND_ACCEPT": uint64(Accept),
		"CARRIED": carried, "I386CALL": byInt80, "STANDARD": standardStream, "C_WORDS": CarriedRegisters, "F_CALL": 8 * (fromNothing + 1),
		"OWNFILTERS": uint64(OwnFilters), "SPARES": 64, "SLOTSIZE": 1 << defined["SLOTSHIFT"],
		"THUNK_PLAIN": PlainReturn - 2, "THUNK_RETURN": thunkReturnAt,
		"FRAME":  FrameSize,
		"F_ARGS": uint64(unsafe.Offsetof(f.Args)), "F_NR": uint64(unsafe.Offsetof(f.Nr)),
		"F_THUNK": uint64(unsafe.Offsetof(f.Thunk)), "F_RBX": uint64(unsafe.Offsetof(f.BX)),
		"F_ZERO": 8 * fromNothing,
	} {
		if got, ok := defined[name]; !ok || got != want {
			t.Errorf("%s is %#x in the assembly, %#x in Go", name, got, want)
		}
	}
	if got := uint64(unsafe.Sizeof(r)); got != rowSize || got != 1<<defined["ROWSHIFT"] {
		t.Errorf("a row has %d bytes", got)
	}
}

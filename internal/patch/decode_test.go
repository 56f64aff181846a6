package patch

import (
	"bufio"
	"encoding/hex"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// listing is one instruction of objdump's.
type listing struct {
	address uint64
	code    []byte
	text    string
}

// disassemble returns what objdump makes of the code of a file.
func disassemble(t testing.TB, path string) []listing {
	t.Helper()
	out, err := exec.Command("objdump", "-d", "--insn-width=16", path).Output()
	if err != nil {
		t.Skipf("objdump (binutils) is needed: %v", err)
	}
	var list []listing
	scanner := bufio.NewScanner(strings.NewReader(string(out)))
	for scanner.Scan() {
		fields := strings.SplitN(scanner.Text(), "\t", 3)
		if len(fields) < 3 {
			continue
		}
		address, err := strconv.ParseUint(strings.TrimSuffix(strings.TrimSpace(fields[0]), ":"), 16, 64)
		if err != nil {
			continue
		}
		code, err := hex.DecodeString(strings.ReplaceAll(fields[1], " ", ""))
		if err != nil {
			continue
		}
		list = append(list, listing{address, code, strings.TrimSpace(fields[2])})
	}
	return list
}

// TestDecodeAgreesWithObjdump compares lengths and targets, instruction by
// instruction.
func TestDecodeAgreesWithObjdump(t *testing.T) {
	target := regexp.MustCompile(`^(?:bnd |notrack |data16 |rex\.W |,p[tn] )*(j\w+|call|loop\w*)(?:,p[nt])? +([0-9a-f]+)\b`)
	for _, path := range []string{
		"/lib/x86_64-linux-gnu/libc.so.6", "/lib64/ld-linux-x86-64.so.2", "/lib/x86_64-linux-gnu/libm.so.6",
		"/lib/x86_64-linux-gnu/libstdc++.so.6", "/lib/x86_64-linux-musl/libc.so", "/usr/bin/perl",
	} {
		t.Run(path, func(t *testing.T) {
			bad := 0
			for _, l := range disassemble(t, present(t, path)) {
				if strings.Contains(l.text, "(bad)") {
					continue
				}
				in, ok := decode(append(l.code[:len(l.code):len(l.code)], make([]byte, maxInstruction)...), l.address)
				size := len(l.code)
				if l.code[0] == 0x9b {
					size = 1 // objdump joins FWAIT with what follows
				}
				var to uint64
				if m := target.FindStringSubmatch(l.text); m != nil {
					to, _ = strconv.ParseUint(m[2], 16, 64)
				}
				if !ok || in.size != size || in.target != to {
					t.Errorf("%#x: % x %s: %+v, %v", l.address, l.code, l.text, in, ok)
					if bad++; bad > 20 {
						t.FailNow()
					}
				}
			}
		})
	}
}

// Bytes of data or of the middle of an instruction must not look like one that
// no processor executes: it would count as a jump to anywhere.
func TestUndefinedIsNoInstruction(t *testing.T) {
	tests := []struct {
		code string
		ok   bool
		flow flow
	}{
		{"ffe3", true, computed}, // jmp *%rbx
		{"ff2b", true, computed}, // ljmp *(%rbx)
		{"ffd3", true, call},     // call *%rbx
		{"ff1b", true, call},     // lcall *(%rbx)
		{"ffeb", false, 0},       // ljmp *%rbx
		{"ffdb", false, 0},       // lcall *%rbx
		{"ffff", false, 0},
		{"ff3b", false, 0},
	}
	for _, tt := range tests {
		code, err := hex.DecodeString(tt.code)
		if err != nil {
			t.Fatal(err)
		}
		if in, ok := decode(code, 0); ok != tt.ok || in.flow != tt.flow {
			t.Errorf("%s: %+v, %v; want flow %v, %v", tt.code, in, ok, tt.flow, tt.ok)
		}
	}
}

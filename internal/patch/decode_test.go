package patch

import (
	"bufio"
	"encoding/hex"
	"os/exec"
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

func TestDecodeAgreesWithObjdump(t *testing.T) {
	for _, path := range []string{"/lib/x86_64-linux-gnu/libc.so.6", "/lib64/ld-linux-x86-64.so.2", "/lib/x86_64-linux-gnu/libm.so.6", "/lib/x86_64-linux-musl/libc.so", "/usr/bin/python3", "/usr/bin/perl", "/usr/local/go/bin/go"} {
		t.Run(path, func(t *testing.T) {
			list := disassemble(t, path)
			wrong, unknown := 0, 0
			for i, l := range list {
				if strings.Contains(l.text, "(bad)") {
					continue
				}
				in, ok := decode(append(l.code[:len(l.code):len(l.code)], make([]byte, 15)...), l.address)
				if !ok {
					if unknown++; unknown < 20 {
						t.Logf("%#x: %x %s: unknown", l.address, l.code, l.text)
					}
					continue
				}
				if in.size != len(l.code) {
					if i+1 < len(list) && in.size == len(l.code)+len(list[i+1].code) {
						continue // objdump prints a prefix or fwait on a line of its own
					}
					if wrong++; wrong < 20 {
						t.Logf("%#x: %x %s: %d bytes", l.address, l.code, l.text, in.size)
					}
				}
			}
			t.Logf("%d instructions, %d unknown, %d wrong", len(list), unknown, wrong)
		})
	}
}

package include

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/seed-055cd0c8/indirect/fdcall"
)

// user is a source file of somebody who includes the header.
const user = `#include "indirect.h"
#include "indirect.h"
int main(void) { return indirect_available() + INDIRECT_NR_indirect - 2007; }
`

// The header compiles in every language that it promises, without a word from
// the compiler.
func TestLanguages(t *testing.T) {
	c := []string{"c89", "gnu89", "c99", "c11", "gnu17", "c2x"}
	cxx := []string{"c++98", "c++11", "c++14", "c++17", "c++20"}
	for _, compiler := range []struct {
		name      string
		argv      []string
		standards []string
		needed    bool
	}{
		{"gcc", []string{"gcc"}, c, true},
		{"gcc i386", []string{"gcc", "-m32"}, c, true},
		{"musl-gcc", []string{"musl-gcc"}, c, true},
		{"g++", []string{"g++", "-x", "c++"}, cxx, true},
		{"g++ i386", []string{"g++", "-m32", "-x", "c++"}, cxx, true},
		{"clang", []string{"clang"}, c, false},
		{"clang++", []string{"clang++", "-x", "c++"}, cxx, false},
	} {
		if _, err := exec.LookPath(compiler.argv[0]); err != nil && !compiler.needed {
			t.Logf("not tried with %s: %v", compiler.name, err)
			continue
		}
		t.Run(compiler.name, func(t *testing.T) {
			t.Parallel()
			if _, err := exec.LookPath(compiler.argv[0]); err != nil {
				t.Skip(err)
			}
			source := filepath.Join(t.TempDir(), "user.c")
			if err := os.WriteFile(source, []byte(user), 0o600); err != nil {
				t.Fatal(err)
			}
			for _, standard := range compiler.standards {
				for _, level := range []string{"-O0", "-O2"} {
					args := append(compiler.argv[1:], "-std="+standard, level, "-pedantic", "-Wall", "-Wextra", "-Wshadow", "-Wundef",
						"-Wcast-qual", "-Wconversion", "-Werror", "-I.", "-c", "-o", os.DevNull, source)
					if out, err := exec.Command(compiler.argv[0], args...).CombinedOutput(); err != nil {
						t.Errorf("%s %s: %v\n%s", standard, level, err, out)
					}
				}
			}
		})
	}
}

// layouts asserts what other languages are told about the structures.
const layouts = `#include <stddef.h>
#include "indirect.h"
#define IS(name, expression, value) typedef char name[(expression) == (value) ? 1 : -1]
IS(registers, sizeof(struct indirect_registers), 7 * sizeof(long));
IS(args, offsetof(struct indirect_registers, arg), sizeof(long));
IS(params, sizeof(union indirect_params), 32);
IS(flags, sizeof(((union indirect_params *)0)->file_flags), 4);
IS(frame, sizeof(struct syslet_frame), 16);
IS(syslet, sizeof(struct syslet_args), 32);
IS(caller, offsetof(struct syslet_args, caller_data), 8);
IS(frameat, offsetof(struct syslet_args, frame), 16);
IS(completion, sizeof(struct syslet_completion), 16);
IS(ring, sizeof(struct syslet_ring), 16);
IS(tail, offsetof(struct syslet_ring, user_tail), 4);
IS(elements, offsetof(struct syslet_ring, elements), 8);
IS(group, offsetof(struct syslet_ring, wait_group), 12);
IS(whole, SYSLET_RING_SIZE(8), 16 + 8 * 16);
`

func TestLayouts(t *testing.T) {
	for _, argv := range [][]string{{"gcc", "-x", "c"}, {"gcc", "-m32", "-x", "c"}, {"g++", "-x", "c++"}, {"musl-gcc", "-x", "c"}} {
		t.Run(strings.Join(argv, " "), func(t *testing.T) {
			if _, err := exec.LookPath(argv[0]); err != nil {
				t.Skip(err)
			}
			cmd := exec.Command(argv[0], append(argv[1:], "-Wall", "-Werror", "-Wno-unused-local-typedefs", "-I.", "-fsyntax-only", "-")...)
			cmd.Stdin = strings.NewReader(layouts)
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Errorf("%v\n%s", err, out)
			}
		})
	}
}

// The header's numbers are the table's.
func TestNumbers(t *testing.T) {
	for _, call := range fdcall.AddedCalls() {
		want := "#define INDIRECT_NR_" + call.Name + " INDIRECT_NR("
		_, rest, found := strings.Cut(header, want)
		number, _, _ := strings.Cut(rest, ")")
		if !found || number != strconv.Itoa(int(call.Nr)) {
			t.Errorf("%s is %q in the header, want %d", call.Name, number, call.Nr)
		}
	}
	if !strings.Contains(header, "#define O_NONSEQFD 0x40000000\n") || fdcall.ONonseqfd != 0x40000000 {
		t.Error("O_NONSEQFD differs")
	}
}

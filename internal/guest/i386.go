package guest

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// RunsI386 reports whether this kernel runs i386 programs: whether it was built
// with them, started with them, and not in a machine that has no place for them.
func RunsI386() (bool, error) {
	dir, err := os.MkdirTemp("", "i386-")
	if err != nil {
		return false, fmt.Errorf("make a directory for an i386 program: %w", err)
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "program")
	if err := os.WriteFile(path, i386Program(), 0o700); err != nil {
		return false, fmt.Errorf("write an i386 program: %w", err)
	}
	return exec.Command(path).Run() == nil, nil
}

// i386Program is a program that ends with status 0.
func i386Program() []byte {
	const base, headers = 0x08048000, 52 + 32
	code := []byte{
		0xb8, 1, 0, 0, 0, // mov $SYS_exit,%eax
		0x31, 0xdb, // xor %ebx,%ebx
		0xcd, 0x80, // int $0x80
	}
	var b bytes.Buffer
	for _, part := range []any{
		elf.Header32{
			Ident: [16]byte{0x7f, 'E', 'L', 'F', byte(elf.ELFCLASS32), byte(elf.ELFDATA2LSB), byte(elf.EV_CURRENT)},
			Type:  uint16(elf.ET_EXEC), Machine: uint16(elf.EM_386), Version: uint32(elf.EV_CURRENT),
			Entry: base + headers, Phoff: 52, Ehsize: 52, Phentsize: 32, Phnum: 1,
		},
		elf.Prog32{
			Type: uint32(elf.PT_LOAD), Vaddr: base, Paddr: base, Flags: uint32(elf.PF_R | elf.PF_X), Align: 4096,
			Filesz: uint32(headers + len(code)), Memsz: uint32(headers + len(code)),
		},
		code,
	} {
		_ = binary.Write(&b, binary.LittleEndian, part) // a Buffer takes everything
	}
	return b.Bytes()
}

package signals

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// started returns what the Go runtime has remembered of the state with which
// it was started: the dispositions that its handlers replaced, to which it
// would hand signals on (runtime/signal_unix.go, fwdSig), and the first
// thread's mask, from which it starts others (runtime/proc.go, initSigmask).
//
// No function returns these, and the linker refuses references to them, but
// our executable's symbol table says where they are. It fails if that was
// stripped, as by go run and go test.
func started() (State, error) {
	content, err := mapFile("/proc/self/exe") // to read it takes a millisecond
	if err != nil {
		return State{}, fmt.Errorf("open our executable: %w", err)
	}
	defer unix.Munmap(content)
	exe, err := elf.NewFile(bytes.NewReader(content))
	if err != nil {
		return State{}, fmt.Errorf("open our executable: %w", err)
	}
	symbols, names, err := symbolTable(exe, content)
	if err != nil {
		return State{}, fmt.Errorf("read our executable's symbols: %w", err)
	}
	slide, err := slide(exe)
	if err != nil {
		return State{}, err
	}
	memory, err := os.Open("/proc/self/mem")
	if err != nil {
		return State{}, fmt.Errorf("read the runtime's variables: %w", err)
	}
	defer memory.Close()
	variable := func(name string, value any) error {
		s, err := lookup(symbols, names, name)
		if err != nil {
			return err
		}
		b := make([]byte, binary.Size(value))
		if s.Size != uint64(len(b)) {
			return fmt.Errorf("%s has %d bytes in place of %d", name, s.Size, len(b))
		}
		if _, err := memory.ReadAt(b, int64(s.Value+slide)); err != nil {
			return fmt.Errorf("read %s: %w", name, err)
		}
		_, err = binary.Decode(b, binary.NativeEndian, value)
		return err
	}
	var replaced [Last + 1]uint64
	var s State
	if err := errors.Join(variable("runtime.fwdSig", &replaced), variable("runtime.initSigmask", &s.Blocked)); err != nil {
		return State{}, err
	}
	for sig := unix.Signal(1); sig <= Last; sig++ {
		if replaced[sig] == Ignore {
			s.Ignored |= Of(sig)
		}
	}
	return s, nil
}

// mapFile maps a file.
func mapFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	return unix.Mmap(int(f.Fd()), 0, int(info.Size()), unix.PROT_READ, unix.MAP_PRIVATE)
}

// symbolTable returns the sections with a 64-bit executable's symbols and
// their names.
func symbolTable(exe *elf.File, content []byte) (symbols, names []byte, err error) {
	table := exe.Section(".symtab")
	if table == nil || int(table.Link) >= len(exe.Sections) {
		return nil, nil, elf.ErrNoSymbols
	}
	var parts [2][]byte
	for i, s := range []*elf.Section{table, exe.Sections[table.Link]} {
		if s.Offset > uint64(len(content)) || s.FileSize > uint64(len(content))-s.Offset {
			return nil, nil, fmt.Errorf("section %s lies outside the file", s.Name)
		}
		parts[i] = content[s.Offset:][:s.FileSize]
	}
	return parts[0], parts[1], nil
}

// lookup finds a symbol. Unlike [elf.File.Symbols], which makes a string of
// each of some ten thousand names, it does not take milliseconds.
func lookup(symbols, names []byte, name string) (elf.Sym64, error) {
	at := bytes.Index(names, []byte("\x00"+name+"\x00"))
	var s elf.Sym64
	for b := symbols; at >= 0 && len(b) >= elf.Sym64Size; b = b[elf.Sym64Size:] {
		if binary.NativeEndian.Uint32(b) == uint32(at)+1 {
			_, err := binary.Decode(b, binary.NativeEndian, &s)
			return s, err
		}
	}
	return s, fmt.Errorf("find %s: %w", name, elf.ErrNoSymbols)
}

// slide is the distance between our addresses and those in our executable,
// which is not zero if that is position independent.
func slide(exe *elf.File) (uint64, error) {
	const entry = 9 // AT_ENTRY, getauxval(3)
	vector, err := unix.Auxv()
	if err != nil {
		return 0, fmt.Errorf("find where our executable is loaded: %w", err)
	}
	for _, v := range vector {
		if v[0] == entry {
			return uint64(v[1]) - exe.Entry, nil
		}
	}
	return 0, errors.New("find where our executable is loaded: no AT_ENTRY")
}

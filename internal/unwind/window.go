package unwind

import (
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"sync"

	"github.com/seed-055cd0c8/indirect/internal/tracee"
)

// Process is what an unwinding reads: the memory of a process at its
// addresses, what is mapped in it, and the files behind that.
type Process interface {
	io.ReaderAt
	Mappings() ([]tracee.Mapping, error)
	Open(*tracee.Mapping) (*os.File, error)
}

// Memory is the [Process] that the thread of this ID belongs to. Its memory is
// read without being opened (process_vm_readv(2)), its files are opened through
// it, so that those of other mount namespaces and deleted ones are found.
type Memory int

// ReadAt reads from the address at.
func (m Memory) ReadAt(p []byte, at int64) (int, error) {
	n := tracee.Peek(int(m), uint64(at), p)
	if n < len(p) {
		return n, fmt.Errorf("read %d bytes at %#x of process %d: %w", len(p), uint64(at), int(m), io.ErrUnexpectedEOF)
	}
	return n, nil
}

// Mappings reads the process's mappings.
func (m Memory) Mappings() ([]tracee.Mapping, error) { return tracee.Maps(int(m)) }

// Open opens the file behind one of the process's mappings.
func (m Memory) Open(a *tracee.Mapping) (*os.File, error) { return tracee.OpenMapped(int(m), a) }

// window reads words of a stack by reading a piece of it at a time: a request
// to the kernel costs more than a few KiB do.
type window struct {
	source Process
	word   int
	start  uint64
	bytes  []byte
	buffer [windowSize]byte
}

const windowSize = 4096

var windows = sync.Pool{New: func() any { return new(window) }}

func newWindow(source Process, word int) *window {
	w := windows.Get().(*window)
	w.source, w.word, w.start, w.bytes = source, word, 0, nil
	return w
}

func (w *window) release() {
	w.source = nil
	windows.Put(w)
}

// at reads a word of the stack.
func (w *window) at(address uint64) (uint64, error) {
	return w.sized(address, w.word)
}

// sized reads an integer of 1, 2, 4 or 8 bytes.
func (w *window) sized(address uint64, size int) (uint64, error) {
	i := address - w.start
	if address < w.start || i >= uint64(len(w.bytes)) || uint64(len(w.bytes))-i < uint64(size) {
		n, err := w.source.ReadAt(w.buffer[:], int64(address))
		w.start, w.bytes, i = address, w.buffer[:n], 0
		if n < size {
			return 0, fmt.Errorf("the stack is unreadable: %w", err)
		}
	}
	b := w.bytes[i:]
	switch size {
	case 1:
		return uint64(b[0]), nil
	case 2:
		return uint64(binary.LittleEndian.Uint16(b)), nil
	case 4:
		return uint64(binary.LittleEndian.Uint32(b)), nil
	}
	return binary.LittleEndian.Uint64(b), nil
}

// ReadAt reads what is not part of the stack.
func (w *window) ReadAt(p []byte, at int64) (int, error) { return w.source.ReadAt(p, at) }

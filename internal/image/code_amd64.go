package image

import (
	"bytes"
	"errors"
	"unsafe"
)

func stubAddress() uintptr
func landingAddress() uintptr
func singleAddress() uintptr

// stubText returns the stub's code, and where in it its entry is.
func stubText() (code []byte, entry int, err error) {
	code, err = text(stubAddress())
	if err != nil {
		return nil, 0, err
	}
	at := bytes.Index(code, entryMark[:])
	if at < 0 {
		return nil, 0, errors.New("the stub's entry mark is missing: the binary was changed after it was linked")
	}
	return code, at + len(entryMark), nil
}

func landingText() ([]byte, error) { return text(landingAddress()) }

func singleText() ([]byte, error) { return text(singleAddress()) }

// entryMark stands before the stub's entry.
var entryMark = [16]byte{0x0a, 0x0d, 0x0e, 0x0b, 0x43, 0x4f, 0x4c, 0x44, 0x0a, 0x0d, 0x0e, 0x0b, 0x43, 0x4f, 0x4c, 0x44}

// endMark follows each piece of code that is copied out of our own text.
var endMark = [16]byte{0x0a, 0x0d, 0x0e, 0x0b, 0x21, 0x45, 0x4e, 0x44, 0x0a, 0x0d, 0x0e, 0x0b, 0x21, 0x45, 0x4e, 0x44}

// text returns the machine code at address up to its end mark.
func text(address uintptr) ([]byte, error) {
	code := unsafe.Slice((*byte)(*(*unsafe.Pointer)(unsafe.Pointer(&address))), 3*4096)
	n := bytes.Index(code, endMark[:])
	if n < 0 {
		return nil, errors.New("the stub's end mark is missing: the binary was changed after it was linked")
	}
	return bytes.Clone(code[:n]), nil
}

// Hashopen gives a program a system call that Linux does not have:
//
//	int open_hash(const char *sha256)   // number 3000
//
// opens the file with the given content hash, in hexadecimal, among the files
// of a directory. The program is any; this one is its own example:
//
//	go run ./examples/hashopen
//
// makes a directory with some files and starts itself as a program that opens
// two of them by their content.
package main

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/seed-055cd0c8/indirect"
)

const nrOpenHash = 3000

func main() {
	run := serve
	if len(os.Args) > 1 {
		run = func() error { return use(os.Args[1:]) }
	}
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "hashopen:", err)
		os.Exit(1)
	}
}

// serve runs this program again, as one that has the call.
func serve() error {
	dir, err := os.MkdirTemp("", "hashopen-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	files := make(map[string]string) // hash to path
	for name, text := range map[string]string{"a": "to be opened by what it says\n", "b": "and so is this one\n", "c": "not this one\n"} {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			return err
		}
		files[hash(text)] = path
	}
	c := indirect.Command("/proc/self/exe", hash("to be opened by what it says\n"), hash("and so is this one\n"), hash("nothing"))
	c.Stdout, c.Stderr = os.Stdout, os.Stderr
	c.HandleNumber(nrOpenHash, func(ev *indirect.Event) indirect.Decision {
		wanted, err := ev.String(ev.Args[0], 2*sha256.Size)
		var errno unix.Errno
		if errors.As(err, &errno) {
			return indirect.Fail(errno) // the program's pointer is bad
		}
		f, err := os.Open(files[wanted])
		if err != nil {
			return indirect.Fail(unix.ENOENT)
		}
		return indirect.Install(f, true)
	})
	return c.Run()
}

func hash(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:])
}

// use opens files by their hash and prints them.
func use(hashes []string) error {
	for _, h := range hashes {
		name, err := unix.BytePtrFromString(h)
		if err != nil {
			return err
		}
		fd, _, errno := unix.Syscall(nrOpenHash, uintptr(unsafe.Pointer(name)), 0, 0)
		if errno != 0 {
			fmt.Printf("%.8s: %v\n", h, errno)
			continue
		}
		f := os.NewFile(fd, h)
		fmt.Printf("%.8s, descriptor %d: ", h, fd)
		if _, err := io.Copy(os.Stdout, f); err != nil {
			return err
		}
		f.Close()
	}
	return nil
}

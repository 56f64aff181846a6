package syslet_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log"
	"net"
	"os"
	"path/filepath"
	"slices"

	"github.com/seed-055cd0c8/indirect/syslet"
	"golang.org/x/sys/unix"
)

// A chain that opens a file, reads its beginning and closes it. Where the file
// is missing it stops; a short read is fine.
func ExampleRun() {
	e, err := syslet.New(syslet.Config{})
	if err != nil {
		log.Fatal(err)
	}
	defer e.Close()
	chain := syslet.Chain{
		{Call: syslet.Open, Path: ""},
		{Call: syslet.Read, Fd: syslet.Opened(0), Data: syslet.Own(0, 100), OnShort: syslet.Ignore, OnEnd: syslet.Ignore},
		{Call: syslet.Close, Fd: syslet.Opened(0)},
	}
	jobs := func(yield func(string, syslet.Chain) bool) {
		for _, path := range []string{os.DevNull, "/no/such/file"} {
			chain[0].Path = path
			if !yield(path, chain) {
				return
			}
		}
	}
	for done, err := range syslet.Run(context.Background(), e, jobs) {
		if err != nil {
			log.Fatal(err)
		}
		n, _ := done.N(1)
		fmt.Println(done.Value, n, "bytes,", done.Err())
	}
	// Unordered output:
	// /dev/null 0 bytes, <nil>
	// /no/such/file 0 bytes, step 0: open /no/such/file: no such file or directory
}

// A loop: read 4 bytes and write them elsewhere, until the end.
func ExampleGoto() {
	dir, err := os.MkdirTemp("", "syslet-")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	from, to := filepath.Join(dir, "from"), filepath.Join(dir, "to")
	if err := os.WriteFile(from, []byte("round and round"), 0o600); err != nil {
		log.Fatal(err)
	}
	const end = 5
	chain := syslet.Chain{
		0: {Call: syslet.Open, Path: from},
		1: {Call: syslet.Open, Path: to, Flags: unix.O_WRONLY | unix.O_CREAT | unix.O_EXCL, Mode: 0o600},
		2: {Call: syslet.Read, Fd: syslet.Opened(0), Data: syslet.Own(0, 4), Off: -1, OnShort: syslet.Ignore, OnEnd: syslet.Goto(end)},
		3: {Call: syslet.Write, Fd: syslet.Opened(1), Data: syslet.Own(0, 4).UpTo(2), Off: -1},
		4: {Call: syslet.Jump, Flags: 2},
	}
	e, err := syslet.New(syslet.Config{Depth: 1})
	if err != nil {
		log.Fatal(err)
	}
	defer e.Close()
	one := func(yield func(struct{}, syslet.Chain) bool) { yield(struct{}{}, chain) }
	for done, err := range syslet.Run(context.Background(), e, one) {
		if err = errors.Join(err, done.Err()); err != nil {
			log.Fatal(err)
		}
	}
	data, err := os.ReadFile(to)
	fmt.Println(string(data), err)
	// Output: round and round <nil>
}

func ExampleReadFiles() {
	e, err := syslet.New(syslet.Config{Batch: 64}) // at most one system call for 64 small files
	if err != nil {
		log.Fatal(err)
	}
	defer e.Close()
	paths := slices.Values([]string{os.DevNull, "/no/such/file"})
	for file, err := range syslet.ReadFiles(context.Background(), e, paths, false) {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(file.Path, len(file.Data), errors.Is(file.Err, fs.ErrNotExist))
	}
	// Unordered output:
	// /dev/null 0 false
	// /no/such/file 0 true
}

func ExampleWriteFile() {
	dir, err := os.MkdirTemp("", "syslet-")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	e, err := syslet.New(syslet.Config{Depth: 1})
	if err != nil {
		log.Fatal(err)
	}
	defer e.Close()
	path := filepath.Join(dir, "state")
	fmt.Println(syslet.WriteFile(context.Background(), e, path, []byte("safe"), 0o600))
	data, err := os.ReadFile(path)
	fmt.Println(string(data), err)
	// Output:
	// <nil>
	// safe <nil>
}

func ExampleCopyTree() {
	dir, err := os.MkdirTemp("", "syslet-")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	from := filepath.Join(dir, "from")
	if err := errors.Join(os.Mkdir(from, 0o700), os.WriteFile(filepath.Join(from, "file"), []byte("x"), 0o600)); err != nil {
		log.Fatal(err)
	}
	e, err := syslet.New(syslet.Config{})
	if err != nil {
		log.Fatal(err)
	}
	defer e.Close()
	for c, err := range syslet.CopyTree(context.Background(), e, from, filepath.Join(dir, "to")) {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(c.Path, c.Mode, c.Err)
	}
	// Output:
	// file -rw------- <nil>
	// . drwx------ <nil>
}

func ExampleServe() {
	listener, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		log.Fatal(err)
	}
	defer listener.Close()
	file, err := listener.File()
	if err != nil {
		log.Fatal(err)
	}
	defer file.Close()
	go func() {
		if c, err := net.Dial("tcp", listener.Addr().String()); err == nil {
			c.Write([]byte("hello"))
			c.Close()
		}
	}()
	e, err := syslet.New(syslet.Config{Depth: 8})
	if err != nil {
		log.Fatal(err)
	}
	defer e.Close()
	for conn, err := range syslet.Serve(context.Background(), e, int(file.Fd()), syslet.NonSequential) {
		if err != nil || conn.Err != nil {
			log.Fatal(err, conn.Err)
		}
		fmt.Printf("%s\n", conn.First)
		unix.Close(conn.FD)
		break
	}
	// Output: hello
}

// Memory of a completion stays valid after the iteration when it is taken.
func ExampleCompletion_Take() {
	e, err := syslet.New(syslet.Config{})
	if err != nil {
		log.Fatal(err)
	}
	defer e.Close()
	one := func(yield func(struct{}, syslet.Chain) bool) {
		yield(struct{}{}, syslet.Chain{
			{Call: syslet.Open, Path: "/dev/zero"},
			{Call: syslet.Read, Fd: syslet.Opened(0), Data: syslet.Own(0, 3)},
		})
	}
	var kept *syslet.Buffer
	for done, err := range syslet.Run(context.Background(), e, one) {
		if err != nil {
			log.Fatal(err)
		}
		kept = done.Take()
	}
	fmt.Println(kept.Bytes()[:3])
	kept.Release()
	// Output: [0 0 0]
}

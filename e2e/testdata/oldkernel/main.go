// Oldkernel does what Go programs do: it serves and dials, starts a process,
// makes a file and waits.
package main

import (
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"time"
)

func main() {
	if err := work(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func work() error {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	served := make(chan error, 1)
	go func() {
		c, err := l.Accept()
		if err == nil {
			_, err = io.WriteString(c, "received")
			c.Close()
		}
		served <- err
	}()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		return err
	}
	text, err := io.ReadAll(c)
	if err != nil {
		return err
	}
	if err := <-served; err != nil {
		return err
	}
	child, err := exec.Command("echo", "child").Output()
	if err != nil {
		return err
	}
	f, err := os.CreateTemp("", "oldkernel")
	if err != nil {
		return err
	}
	if err := os.Remove(f.Name()); err != nil {
		return err
	}
	time.Sleep(time.Millisecond)
	fmt.Printf("%s, %s", text, child)
	return nil
}

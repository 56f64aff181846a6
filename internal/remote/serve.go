package remote

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"

	"golang.org/x/sys/unix"
)

// Conn is the decider's end of a call's connection.
type Conn struct {
	Call
	conn *net.UnixConn
}

// Serve hands each call that comes over the socket to decide, in a goroutine
// of its own, until the other end is closed: then no program is left.
func Serve(socket *os.File, decide func(*Conn)) error {
	c, err := connection(socket)
	if err != nil {
		return err
	}
	defer c.Close()
	for {
		var call Call
		file, err := receive(c, &call)
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil || file == nil {
			return fmt.Errorf("receive a call: %w", err)
		}
		conn, err := connection(file)
		file.Close()
		if err != nil {
			return err
		}
		go func() {
			defer conn.Close()
			decide(&Conn{call, conn})
		}()
	}
}

// Ask asks a question. The error is an errno if the program's memory is why.
func (c *Conn) Ask(q Question) (Answer, error) {
	if err := send(c.conn, q); err != nil {
		return Answer{}, fmt.Errorf("ask the supervisor: %w", err)
	}
	return c.hear()
}

// Decide sends a decision, with a file if it is [Install].
func (c *Conn) Decide(q Question, file *os.File) error {
	b, err := json.Marshal(q)
	if err != nil {
		return err
	}
	var rights []byte
	if file != nil {
		rights = unix.UnixRights(int(file.Fd()))
	}
	if _, _, err := c.conn.WriteMsgUnix(b, rights, nil); err != nil {
		return fmt.Errorf("tell the supervisor: %w", err)
	}
	return nil
}

// Result waits for the result of a call that was decided on with After.
func (c *Conn) Result() (int64, error) {
	a, err := c.hear()
	return a.Value, err
}

func (c *Conn) hear() (Answer, error) {
	var a Answer
	file, err := receive(c.conn, &a)
	if file != nil {
		file.Close()
	}
	switch {
	case err != nil:
		return a, fmt.Errorf("hear from the supervisor: %w", err)
	case a.Errno != 0:
		return a, fmt.Errorf("%s: %w", a.Error, a.Errno)
	case a.Error != "":
		return a, errors.New(a.Error)
	}
	return a, nil
}

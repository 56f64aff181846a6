// Package remote lets a process decide about the calls of the programs that it
// has started, although a supervisor process receives them: the supervisor
// asks over a socket.
//
// For each call the supervisor opens a connection, and sends one end of it with
// the event. The decider may then ask questions (about the program's memory,
// say) as long as it likes, and ends with its decision. Whoever dies closes the
// connection, which nobody else waits for.
package remote

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"

	"golang.org/x/sys/unix"

	"github.com/seed-055cd0c8/indirect/fdcall"
	"github.com/seed-055cd0c8/indirect/supervise"
)

// Name is the extension's name, for [supervise.Extension] and [supervise.Main].
const Name = "remote"

// Call is the first message of a connection.
type Call struct {
	Handler int // the number of the extension: see [Open]
	TID     int
	ABI     fdcall.ABI
	Nr      int32
	Args    [6]uint64
	IP      uint64
}

// Op is what a question is about.
type Op string

// What a decider can say.
const (
	Read       Op = "read"       // Size bytes at Address
	Write      Op = "write"      // Data to Address
	String     Op = "string"     // of at most Size bytes at Address
	Valid      Op = "valid"      // does the thread still wait?
	Executable Op = "executable" // the path of its program
	Process    Op = "process"    // the ID of its process

	// Decisions.
	Continue Op = "continue"
	Return   Op = "return"  // Value
	Fail     Op = "fail"    // Errno
	Run      Op = "run"     // Nr with Args
	Install  Op = "install" // the file that comes with the message
)

// Question is a message of the decider: the last one is a decision.
type Question struct {
	Op      Op
	Address uint64     `json:",omitempty"`
	Size    int        `json:",omitempty"`
	Data    []byte     `json:",omitempty"`
	Value   int64      `json:",omitempty"`
	Errno   unix.Errno `json:",omitempty"`
	Nr      int32      `json:",omitempty"`
	Args    [6]uint64
	Cloexec bool `json:",omitempty"`
	After   bool `json:",omitempty"` // of a decision: the call's result is wanted, and may be changed
}

// Answer is a message of the supervisor. The one after a decision with After
// has the call's result, and is answered by a [Return] in the end.
type Answer struct {
	Errno unix.Errno `json:",omitempty"` // an error of the program's memory
	Error string     `json:",omitempty"` // any other
	Data  []byte     `json:",omitempty"`
	Text  string     `json:",omitempty"`
	Value int64      `json:",omitempty"`
}

// MaxData bounds the bytes that one question reads or writes.
const MaxData = 32 << 10

// maxMessage holds MaxData bytes in JSON's base64.
const maxMessage = 64 << 10

// handler asks the other end.
type handler struct {
	number int
	socket *net.UnixConn
}

// Open is a [supervise.Open]. The configuration is the extension's number, the
// file a socket to [Serve].
func Open(config json.RawMessage, file *os.File) (supervise.Handler, error) {
	h := new(handler)
	if err := json.Unmarshal(config, &h.number); err != nil {
		return nil, fmt.Errorf("read a handler's number: %w", err)
	}
	var err error
	if h.socket, err = connection(file); err != nil {
		return nil, err
	}
	return h, nil
}

// connection makes a connection of a socket's file, which stays open.
func connection(file *os.File) (*net.UnixConn, error) {
	c, err := net.FileConn(file)
	if err != nil {
		return nil, fmt.Errorf("use a handler's socket: %w", err)
	}
	u, ok := c.(*net.UnixConn)
	if !ok {
		c.Close()
		return nil, errors.New("a handler's socket is no Unix socket")
	}
	return u, nil
}

// Handle asks what to do about a call. If nobody answers, the call goes on.
func (h *handler) Handle(ev *supervise.Event) supervise.Decision {
	ours, err := h.call(Call{h.number, ev.TID, ev.ABI, ev.Nr, ev.Args, ev.IP})
	if err != nil {
		return unanswered(ev, err)
	}
	q, file, err := converse(ours, func(q Question) Answer { return answer(ev, q) })
	if err != nil {
		ours.Close()
		return unanswered(ev, err)
	}
	d := decision(q, file)
	if !q.After {
		ours.Close()
		return d
	}
	return d.Watch(ev, nil, func(a *supervise.Attached, result int64) int64 {
		defer ours.Close()
		if send(ours, Answer{Value: result}) != nil {
			return result
		}
		q, file, err := converse(ours, func(q Question) Answer { return answerAttached(a, q) })
		if file != nil {
			file.Close()
		}
		if err != nil || q.Op != Return {
			return result
		}
		return q.Value
	})
}

// unanswered lets a call go on because its handler could not be asked, which
// needs a word unless the one who would have answered is gone.
func unanswered(ev *supervise.Event, err error) supervise.Decision {
	if !errors.Is(err, net.ErrClosed) && !errors.Is(err, unix.EPIPE) && !errors.Is(err, unix.ECONNRESET) {
		fmt.Fprintf(os.Stderr, "ask the handler of call %d of thread %d, which goes on: %v\n", ev.Nr, ev.TID, err)
	}
	return supervise.Continue()
}

// call opens a connection for a call.
func (h *handler) call(c Call) (*net.UnixConn, error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	file := os.NewFile(uintptr(pair[0]), "event")
	defer file.Close()
	defer unix.Close(pair[1])
	b, err := json.Marshal(c)
	if err != nil {
		return nil, err
	}
	if _, _, err := h.socket.WriteMsgUnix(b, unix.UnixRights(pair[1]), nil); err != nil {
		return nil, err
	}
	return connection(file)
}

// converse answers questions until there is a decision.
func converse(c *net.UnixConn, answer func(Question) Answer) (Question, *os.File, error) {
	for {
		var q Question
		file, err := receive(c, &q)
		if err != nil {
			return q, nil, err
		}
		switch q.Op {
		case Continue, Return, Fail, Run, Install:
			return q, file, nil
		}
		if file != nil {
			file.Close()
		}
		if err := send(c, answer(q)); err != nil {
			return q, nil, err
		}
	}
}

func answer(ev *supervise.Event, q Question) (a Answer) {
	var err error
	switch q.Op {
	case Read:
		a.Data = make([]byte, min(max(q.Size, 0), MaxData))
		err = ev.Read(q.Address, a.Data)
	case Write:
		err = ev.Write(q.Address, q.Data)
	case String:
		a.Text, err = ev.String(q.Address, min(max(q.Size, 0), MaxData))
		a.Data, a.Text = []byte(a.Text), ""
	case Valid:
		if !ev.Valid() {
			err = supervise.ErrGone
		}
	case Executable:
		a.Text, err = ev.Executable()
	case Process:
		a.Value = int64(ev.Process())
	default:
		err = fmt.Errorf("no question %q", q.Op)
	}
	return a.failed(err)
}

// answerAttached answers what can be asked when the call has been made.
func answerAttached(t *supervise.Attached, q Question) (a Answer) {
	var err error
	switch q.Op {
	case Read:
		a.Data = make([]byte, min(max(q.Size, 0), MaxData))
		_, err = t.ReadAt(a.Data, int64(q.Address))
	case Write:
		err = t.Write(q.Address, q.Data)
	default:
		err = fmt.Errorf("%q cannot be asked after the call", q.Op)
	}
	return a.failed(err)
}

func (a Answer) failed(err error) Answer {
	if err == nil {
		return a
	}
	var errno unix.Errno
	if errors.As(err, &errno) {
		return Answer{Errno: errno, Error: err.Error()}
	}
	return Answer{Error: err.Error()}
}

func decision(q Question, file *os.File) supervise.Decision {
	if file != nil && q.Op != Install {
		file.Close()
	}
	switch {
	case q.Op == Return:
		return supervise.Return(q.Value)
	case q.Op == Fail:
		return supervise.Fail(q.Errno)
	case q.Op == Run:
		return supervise.Run(q.Nr, q.Args)
	case q.Op == Install && file != nil:
		return supervise.Install(file, q.Cloexec)
	}
	return supervise.Continue()
}

// send sends a message.
func send(c *net.UnixConn, message any) error {
	b, err := json.Marshal(message)
	if err != nil {
		return err
	}
	_, err = c.Write(b)
	return err
}

// receive receives a message, and the file that may come with it.
func receive(c *net.UnixConn, message any) (*os.File, error) {
	b, control := make([]byte, maxMessage), make([]byte, unix.CmsgSpace(4))
	n, controlled, flags, _, err := c.ReadMsgUnix(b, control)
	if err != nil {
		return nil, err
	}
	var file *os.File
	if messages, err := unix.ParseSocketControlMessage(control[:controlled]); err == nil && len(messages) == 1 {
		if fds, err := unix.ParseUnixRights(&messages[0]); err == nil && len(fds) == 1 {
			file = os.NewFile(uintptr(fds[0]), "received")
		}
	}
	if n == 0 {
		err = net.ErrClosed
	} else if flags&unix.MSG_TRUNC != 0 {
		err = errors.New("a message is too long")
	} else {
		err = json.Unmarshal(b[:n], message)
	}
	if err != nil && file != nil {
		file.Close()
		file = nil
	}
	return file, err
}

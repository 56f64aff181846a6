package audit

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
)

// streamVersion is the version of the encoding: it changes when a field of
// [Event] changes its meaning.
const streamVersion = 1

// maxEvent bounds the size of an encoded event in bytes. No event of ours is larger.
const maxEvent = 8 << 20

// header is the first line of what an [Encoder] writes.
type header struct{ AuditEvents int }

// Encoder writes events for a [Decoder], a line of JSON each. A line is
// written at once, so that a writer that dies in the middle costs no other
// event; after it, another Encoder can go on in the same file.
type Encoder struct {
	w     io.Writer
	begun bool
}

// NewEncoder returns an encoder that writes to w.
func NewEncoder(w io.Writer) *Encoder { return &Encoder{w: w} }

// Encode writes one event, in one Write. An error is w's, or says that the
// event is larger than 8 MiB; then it is not written.
func (e *Encoder) Encode(ev *Event) error {
	line, err := json.Marshal(ev)
	if err != nil {
		return fmt.Errorf("encode an event of the audit: %w", err)
	}
	if len(line) > maxEvent {
		return fmt.Errorf("encode an event of the audit: it has %d bytes, more than %d", len(line), maxEvent)
	}
	if !e.begun {
		first, err := json.Marshal(header{streamVersion})
		if err != nil {
			return fmt.Errorf("encode the header of the audit's events: %w", err)
		}
		// The newline in front ends the line that a predecessor left unfinished.
		line = append(append(append([]byte{'\n'}, first...), '\n'), line...)
	}
	if _, err := e.w.Write(append(line, '\n')); err != nil {
		return fmt.Errorf("write an event of the audit: %w", err)
	}
	e.begun = true
	return nil
}

// Decoder reads what one or more [Encoder]s have written, one after the other.
type Decoder struct {
	r       *bufio.Reader
	skipped int
	err     error
}

// NewDecoder returns a decoder that reads from r.
func NewDecoder(r io.Reader) *Decoder { return &Decoder{r: bufio.NewReaderSize(r, 64<<10)} }

// Events returns the events up to the end. Lines that cannot be understood are
// passed over; see [Decoder.Skipped] and [Decoder.Err] afterwards.
func (d *Decoder) Events() iter.Seq[Event] {
	return func(yield func(Event) bool) {
		begun := false
		for {
			line, err := d.line()
			if len(line) > 0 {
				var h header
				var e Event
				switch {
				case json.Unmarshal(line, &h) == nil && h.AuditEvents != 0:
					if h.AuditEvents != streamVersion {
						d.err = fmt.Errorf("read the audit's events: version %d, where this program knows only %d; use the one that wrote them", h.AuditEvents, streamVersion)
						return
					}
					begun = true
				case json.Unmarshal(line, &e) != nil || e == Event{}:
					d.skipped++
				case !begun:
					d.err = errors.New("read the audit's events: this is no file of an audit's events: the version is missing")
					return
				case !yield(e):
					return
				}
			}
			if err == io.EOF {
				return
			}
			if err != nil {
				d.err = fmt.Errorf("read the audit's events: %w", err)
				return
			}
		}
	}
}

// line reads a line. One that is too long is passed over.
func (d *Decoder) line() ([]byte, error) {
	var line []byte
	long := false
	for {
		part, err := d.r.ReadSlice('\n')
		if long = long || len(line)+len(part) > maxEvent+1; !long {
			line = append(line, part...)
		}
		if err == bufio.ErrBufferFull {
			continue
		}
		if long {
			d.skipped++
			return nil, err
		}
		return bytes.TrimSpace(line), err
	}
}

// Skipped counts the lines that could not be understood, such as one that a
// dying writer left unfinished.
func (d *Decoder) Skipped() int { return d.skipped }

// Err is why reading ended before the end, nil if it did not.
func (d *Decoder) Err() error { return d.err }

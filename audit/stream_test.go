package audit

import (
	"bytes"
	"encoding/binary"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// sample is an event of each sort.
func sample() []Event {
	return []Event{
		{Program: &Program{ID: 1, PID: 2, Executable: "/bin/a", Argv: []string{"a\n", "b\x1b"}, Started: 3}},
		{Stack: &Stack{ID: 2, Frames: []Frame{{Function: "f", File: "f.c", Line: 1, Module: "/bin/a", Offset: 1 << 63, BuildID: "ff", Inlined: true, Guessed: true}}}},
		{Creation: &Creation{ID: 3, Origin: Created, Program: 1, TID: 2, Time: -1, Call: "pipe", Args: []Argument{{"a", "b"}}, FD: 5, Object: Object{"pipe:[1]", 1, "x"}, Stack: 2, Threads: true}},
		{Race: &Race{Creation: 3, TID: 2, Time: 4, Stack: 2, Threads: true, Forked: true}},
		{Exec: &Exec{From: 1, To: 2, TID: 2, Time: 5, Stack: 2, Env: []string{"A=1"}, Handed: []Handed{{5, 3, Object{Link: "pipe:[1]"}}}}},
		{Latent: &Latent{3, 6}}, {Exit: &Exit{1, 7}}, {Lost: &Lost{8}},
	}
}

func encoded(t *testing.T, events ...Event) []byte {
	t.Helper()
	var b bytes.Buffer
	e := NewEncoder(&b)
	for i := range events {
		if err := e.Encode(&events[i]); err != nil {
			t.Fatal(err)
		}
	}
	return b.Bytes()
}

func TestStream(t *testing.T) {
	d := NewDecoder(bytes.NewReader(encoded(t, sample()...)))
	got := slices.Collect(d.Events())
	if diff := cmp.Diff(sample(), got); diff != "" || d.Err() != nil || d.Skipped() != 0 {
		t.Errorf("%v, %d skipped (-want +got):\n%s", d.Err(), d.Skipped(), diff)
	}
}

// TestCrashes cuts the stream at every byte and lets another writer go on.
func TestCrashes(t *testing.T) {
	first, second := encoded(t, sample()...), encoded(t, Event{Lost: &Lost{99}})
	for n := range len(first) {
		d := NewDecoder(bytes.NewReader(slices.Concat(first[:n], second)))
		got := slices.Collect(d.Events())
		if d.Err() != nil {
			t.Fatalf("cut at %d: %v", n, d.Err())
		}
		if want := max(bytes.Count(first[:n], []byte("\n"))-2, 0) + 1; len(got) != want && len(got) != want+1 {
			t.Fatalf("cut at %d: %d events, want %d", n, len(got), want)
		}
		if last := got[len(got)-1]; last.Lost == nil || last.Lost.Count != 99 {
			t.Fatalf("cut at %d: the last event is %+v", n, last)
		}
	}
}

func TestStreamErrors(t *testing.T) {
	header := "{\"AuditEvents\":1}\n"
	tests := map[string]struct {
		text    string
		events  int
		skipped int
		err     string
	}{
		"empty":           {"", 0, 0, ""},
		"another version": {"{\"AuditEvents\":2}\n" + `{"Lost":{"Count":1}}`, 0, 0, "version 2"},
		"no version":      {`{"Lost":{"Count":1}}`, 0, 0, "the version is missing"},
		"noise":           {header + "\x00\xff\n{}\n[]\nnull\n" + `{"Lost":{"Count":1}}`, 1, 4, ""},
		"too long":        {header + strings.Repeat("x", maxEvent+2) + "\n" + `{"Lost":{"Count":1}}` + "\n", 1, 1, ""},
		"too long at end": {header + strings.Repeat("x", maxEvent+2), 0, 1, ""},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			d := NewDecoder(strings.NewReader(test.text))
			n := len(slices.Collect(d.Events()))
			if n != test.events || d.Skipped() != test.skipped {
				t.Errorf("%d events, %d skipped", n, d.Skipped())
			}
			if err := d.Err(); (err != nil) != (test.err != "") || err != nil && !strings.Contains(err.Error(), test.err) {
				t.Errorf("error %v, want %q", err, test.err)
			}
		})
	}
	d := NewDecoder(io.MultiReader(strings.NewReader(header), broken{}))
	for range d.Events() {
	}
	if d.Err() == nil {
		t.Error("the reader's error is lost")
	}
	if err := NewEncoder(broken{}).Encode(&Event{Lost: &Lost{1}}); err == nil {
		t.Error("the writer's error is lost")
	}
	if err := NewEncoder(io.Discard).Encode(&Event{Program: &Program{Executable: strings.Repeat("x", maxEvent)}}); err == nil {
		t.Error("an event is written that is not read")
	}
}

// broken is a reader and writer that fails.
type broken struct{}

func (broken) Read([]byte) (int, error)  { return 0, io.ErrClosedPipe }
func (broken) Write([]byte) (int, error) { return 0, io.ErrClosedPipe }

// FuzzStream decodes and classifies anything.
func FuzzStream(f *testing.F) {
	var b bytes.Buffer
	e := NewEncoder(&b)
	for _, ev := range sample() {
		if err := e.Encode(&ev); err != nil {
			f.Fatal(err)
		}
	}
	f.Add(b.Bytes())
	f.Add(binary.AppendUvarint(b.Bytes(), 7))
	f.Fuzz(func(t *testing.T, data []byte) {
		d := NewDecoder(bytes.NewReader(data))
		r := Classify(d.Events(), Options{MaxFindings: 10})
		if len(r.Findings) > 10 {
			t.Errorf("%d findings", len(r.Findings))
		}
		for i := range r.Findings {
			_ = r.Findings[i].Site()
		}
		if len(r.Leaks()) > 0 {
			if _, err := WritePolicy(io.Discard, r); err != nil {
				t.Error(err)
			}
		}
		var s strings.Builder
		if err := WriteSuppressions(&s, r.Findings); err != nil {
			t.Error(err)
		}
	})
}

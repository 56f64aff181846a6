package recorder

import (
	"bytes"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// Lines that a dying supervisor left unfinished are passed over.
func TestReadLog(t *testing.T) {
	log := `{"Exit":{"Program":1,"Time":2}}
{"Exit":{"Progr
not JSON

{"Lost":{"Count":7}}
{"Exit":{"Program":3,"Ti`
	var got []Entry
	if err := readLog(bytes.NewReader([]byte(log)), func(e Entry) error { got = append(got, e); return nil }); err != nil {
		t.Fatal(err)
	}
	want := []Entry{{Exit: &Exit{Program: 1, Time: 2}}, {Lost: &Lost{Count: 7}}}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	enough := errors.New("enough")
	if err := readLog(bytes.NewReader([]byte(log)), func(Entry) error { return enough }); err != enough {
		t.Errorf("%v instead of the caller's error", err)
	}
}

// Whatever the log holds, reading it ends, and passes on what can be told again.
func FuzzReadLog(f *testing.F) {
	for _, s := range []string{
		`{"Exit":{"Program":1,"Time":2}}`,
		`{"Stack":{"ID":1,"Frames":[{"Offset":18446744073709551615}],"Python":[{"Line":-1}]}}` + "\n\x00",
		`{"Exec":{"Handed":[{"FD":-1,"Object":{"Link":"socket:[1]"}}]}}` + "\n{",
		`{"Creation":{"Args":[1,2,3,4,5,6,7]}}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		_ = readLog(bytes.NewReader(b), func(e Entry) error {
			var l log
			if l.write(e); l.lost != 1 { // it has no file
				t.Errorf("%+v cannot be written", e)
			}
			return nil
		})
	})
}

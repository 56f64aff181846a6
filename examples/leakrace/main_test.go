package main

import (
	"os/exec"
	"strings"
	"testing"
)

const sample = `progress 0 0 0
absent fsopen Operation not permitted
progress 100 12 7
kind open 100 1 5
kind pipe 200 0 3
kind other 0 0 0
spawn posix_spawn 20 4 0
spawn fork 10 2 1
seconds 2.000
`

func TestRead(t *testing.T) {
	var shown []report
	r, err := read(strings.NewReader(sample), func(p report) { shown = append(shown, p) })
	if err != nil {
		t.Fatal(err)
	}
	if len(shown) != 2 || shown[1].programs != 12 || shown[1].leaked != 7 {
		t.Errorf("progress: %v", shown)
	}
	if got := r.total(); got.created != 300 || got.failed != 1 || got.leaked != 8 {
		t.Errorf("total: %+v", got)
	}
	if got := r.started(); got.programs != 30 || got.leaky != 6 || got.failed != 1 {
		t.Errorf("started: %+v", got)
	}
	if got := r.kind("fsopen").absent; got != "Operation not permitted" {
		t.Errorf("absent: %q", got)
	}
}

func TestReadRejects(t *testing.T) {
	for _, bad := range []string{
		"",
		"what 1\n",
		"kind open 1 2\nspawn fork 1 1 1\nseconds 1\n",
		"kind open 1 2 -3\nspawn fork 1 1 1\nseconds 1\n",
		"seconds 1\n",
		"spawn fork 1 1 1\n",
	} {
		if r, err := read(strings.NewReader(bad), func(report) {}); err == nil {
			t.Errorf("read(%q) = %+v, want an error", bad, r)
		}
	}
}

func TestTable(t *testing.T) {
	bare, err := read(strings.NewReader(sample), func(report) {})
	if err != nil {
		t.Fatal(err)
	}
	clean, err := read(strings.NewReader("kind open 90 0 0\nspawn posix_spawn 8 0 0\nspawn fork 4 0 0\nseconds 2\n"), func(report) {})
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	if err := table(&b, bare, clean); err != nil {
		t.Fatal(err)
	}
	got := strings.Join(strings.Fields(b.String()), " ")
	for _, want := range []string{"open 100 5 90 0", "fsopen - - - -", "pipe 200 3 - -", "all 300 8 90 0", "posix_spawn 10 4 4 0", "all 15 6 6 0"} {
		if !strings.Contains(got, want) {
			t.Errorf("the table lacks %q:\n%s", want, b.String())
		}
	}
}

func TestVerdict(t *testing.T) {
	race := func(leaked, leaky, failed uint64) *result {
		return &result{
			counts: []count{{kind: "open", created: 9, leaked: leaked, failed: failed}},
			spawns: []spawn{{how: "fork", programs: 9, leaky: leaky}}, seconds: 1,
		}
	}
	tests := []struct {
		name        string
		bare, under *result
		want        string
	}{
		{"closed", race(5, 3, 0), race(0, 0, 0), ""},
		{"leaks", race(5, 3, 0), race(1, 1, 0), "leaked under"},
		{"calls fail", race(5, 3, 0), race(0, 0, 2), "failed"},
		{"no race", race(0, 0, 0), race(0, 0, 0), "did not show"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			err := verdict(&strings.Builder{}, tt.bare, tt.under)
			if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
				t.Errorf("verdict = %v, want %q", err, tt.want)
			}
		})
	}
}

// TestRace runs the real race bare until it shows, and with every kind created without a failure.
func TestRace(t *testing.T) {
	if _, err := exec.LookPath("gcc"); err != nil {
		t.Skip("needs gcc to build the racing program")
	}
	p, err := compile(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for range 20 {
		r, err := p.race(t.Context(), 0.3, nil, func(report) {})
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range r.counts {
			if c.failed > 0 {
				t.Errorf("%s: %d calls failed", c.kind, c.failed)
			}
		}
		if got := r.kind("other").leaked; got > 0 {
			t.Errorf("the checker found %d descriptors of no known kind", got)
		}
		if r.total().leaked > 0 {
			return
		}
	}
	t.Error("no leak in 20 races")
}

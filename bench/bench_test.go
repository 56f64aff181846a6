package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/seed-055cd0c8/indirect/fdcall"
)

func TestSpreadOf(t *testing.T) {
	tests := []struct {
		samples []float64
		want    spread
	}{
		{nil, spread{}},
		{[]float64{3}, spread{3, 3, 3}},
		{[]float64{4, 1}, spread{2.5, 1, 4}},
		{[]float64{9, 1, 5}, spread{5, 1, 9}},
		{[]float64{8, 2, 6, 4}, spread{5, 2, 8}},
	}
	for _, tt := range tests {
		if got := spreadOf(tt.samples); got != tt.want {
			t.Errorf("spreadOf(%v) = %v, want %v", tt.samples, got, tt.want)
		}
	}
}

// TestRatioIsByRound: a machine that becomes slow in one round does so for both.
func TestRatioIsByRound(t *testing.T) {
	r := &result{Bar: bar{Ratio: 1.10}, Modes: []*series{
		{Mode: bare, Samples: []float64{1, 10, 2}},
		{Mode: indirect, Samples: []float64{1.05, 10.5, 2.2}},
		{Mode: strace, Samples: []float64{5}, Failed: true, NotRun: "gone"},
	}}
	r.summarise()
	if got := r.mode(indirect).Ratio; !near(got.Median, 1.05) || !near(got.Max, 1.1) {
		t.Errorf("ratio = %+v", got)
	}
	if got := r.mode(indirect).Extra.Median; !near(got, 0.2) {
		t.Errorf("extra = %v", got)
	}
	if got := r.mode(strace).Ratio.Median; !near(got, 5) {
		t.Errorf("strace's ratio = %v", got)
	}
	if met, ok := r.met(); !met || !ok {
		t.Errorf("met = %v, %v", met, ok)
	}
}

func near(a, b float64) bool { return a-b < 1e-9 && b-a < 1e-9 }

func TestBar(t *testing.T) {
	tests := []struct {
		bar          bar
		ratio, extra float64
		met          bool
		text         string
	}{
		{bar{Ratio: 1.10}, 1.10, 1, true, "1.10"},
		{bar{Ratio: 1.02}, 1.021, 0, false, "1.02"},
		{bar{Extra: 60}, 9, 60e-9, true, "+60 ns"},
		{bar{Extra: 60}, 1, 61e-9, false, "+60 ns"},
	}
	for _, tt := range tests {
		if got := tt.bar.met(tt.ratio, tt.extra); got != tt.met {
			t.Errorf("%v.met(%v, %v) = %v", tt.bar, tt.ratio, tt.extra, got)
		}
		if got := tt.bar.String(); got != tt.text {
			t.Errorf("%+v prints as %q, want %q", tt.bar, got, tt.text)
		}
	}
}

// TestWorkloads holds the list of workloads against what was promised.
func TestWorkloads(t *testing.T) {
	want := map[string]bar{
		"exec-fork": {Ratio: 1.10}, "exec-vfork": {Ratio: 1.10}, "exec-posix_spawn": {Ratio: 1.10},
		"configure": {Ratio: 1.10}, "make": {Ratio: 1.03},
		"nginx": {Ratio: 1.02}, "redis": {Ratio: 1.02},
		"kernel": {Ratio: 1.10}, "audit-configure": {Ratio: 2}, "audit-make": {Ratio: 2},
		"syslet-round": {Ratio: 2}, "syslet-read": {Ratio: 1.25},
	}
	for _, libc := range []string{"glibc", "musl"} {
		for _, loop := range []string{"open", "open-4-threads", "socket", "pipe", "accept", "open-cloexec"} {
			want[loop+"/"+libc] = bar{Ratio: 1.10}
		}
		want["getppid/"+libc] = bar{Extra: 60}
		want["asking-socket/"+libc] = bar{Ratio: 1.25}
		want["paccept/"+libc] = bar{Ratio: 1.5}
	}
	got := map[string]bar{}
	for _, w := range workloads() {
		if _, twice := got[w.name]; twice {
			t.Errorf("two workloads are named %s", w.name)
		}
		got[w.name] = w.bar
		if w.what == "" || w.run == nil || len(w.needs) == 0 || w.size < 1 || w.slowSize < 1 || w.slowSize > w.size || w.turns < 1 {
			t.Errorf("%s: incomplete row: %+v", w.name, w)
		}
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("the bars differ (-want +got):\n%s", d)
	}
}

func TestOrder(t *testing.T) {
	tests := []struct {
		round, turns, n int
		want            []int
	}{
		{0, 1, 5, []int{0, 1, 2, 3, 4}},
		{1, 1, 5, []int{1, 2, 0, 3, 4}},
		{0, 3, 4, []int{0, 1, 2, 1, 2, 0, 2, 0, 1, 3}},
		{1, 2, 3, []int{2, 0, 1, 0, 1, 2}},
	}
	for _, tt := range tests {
		if got := order(tt.round, tt.turns, tt.n); !slices.Equal(got, tt.want) {
			t.Errorf("order(%d, %d, %d) = %v, want %v", tt.round, tt.turns, tt.n, got, tt.want)
		}
	}
}

// A round's sample is the median of its turns; a mode that fails has none.
func TestTurns(t *testing.T) {
	l := &lab{modes: []mode{{name: bare}, {name: indirect}, {name: filter}, {name: strace}, {name: noPatch}}}
	costs := map[string][]float64{bare: {1, 9, 2}, indirect: {2, 3, 30}, filter: {4, 2, 1}, strace: {5}}
	w := workload{name: "test", turns: 3, run: func(_ context.Context, _ *lab, m mode, _ int) (outcome, error) {
		left := costs[m.name]
		if len(left) == 0 {
			return outcome{}, errors.New("it failed")
		}
		costs[m.name] = left[1:]
		return outcome{cost: left[0]}, nil
	}}
	r, err := measureWorkload(t.Context(), l, w, 1, progress{})
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string][]float64{bare: {2}, indirect: {3}, filter: {2}, strace: {5}, noPatch: nil} {
		if s := r.mode(name); !slices.Equal(s.Samples, want) || s.Failed != (want == nil) {
			t.Errorf("%s: samples %v, failed %v; want %v", name, s.Samples, s.Failed, want)
		}
	}
}

func TestModes(t *testing.T) {
	list := modes("/x/indirect", "/y/filter", []string{"open", "pipe"})
	var got []string
	for _, m := range list {
		got = append(got, m.name+": "+strings.Join(m.wrap("prog", "arg"), " "))
	}
	want := []string{
		"bare: prog arg",
		"indirect run: /x/indirect run -- prog arg",
		"empty filter: /y/filter prog arg",
		"strace: strace -f --seccomp-bpf -qq -e signal=none -o /dev/null -e trace=?open,?pipe -- prog arg",
		"--no-patch: /x/indirect run --no-patch -- prog arg",
		"valgrind: valgrind -q --track-fds=yes --trace-children=yes --log-file=/dev/null prog arg",
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}

func TestCallNames(t *testing.T) {
	names := callNames(fdcall.Linux())
	if !slices.Contains(names, "open") || !slices.Contains(names, "fcntl") {
		t.Errorf("names = %v", names)
	}
	if sorted := slices.Sorted(slices.Values(names)); len(slices.Compact(sorted)) != len(names) {
		t.Errorf("a name is there twice: %v", names)
	}
}

func TestSeconds(t *testing.T) {
	for s, want := range map[float64]string{
		7.5e-9: "7.50 ns", 123e-9: "123 ns", 2.345e-6: "2.35 µs", 602.1e-6: "602 µs", 0.4529: "453 ms", 12.34: "12.3 s",
	} {
		if got := seconds(s); got != want {
			t.Errorf("seconds(%v) = %q, want %q", s, got, want)
		}
	}
}

func TestLoadReports(t *testing.T) {
	tests := []struct {
		name   string
		parse  func(string) (float64, error)
		report string
		want   float64 // 0: an error
	}{
		{"wrk", wrkCost, "  4 threads\nRequests/sec:   2000.00\nTransfer/sec: 1MB\n", 0.0005},
		{"wrk with errors", wrkCost, "  Socket errors: connect 1, read 0\nRequests/sec: 2000.00\n", 0},
		{"wrk with bad answers", wrkCost, "  Non-2xx or 3xx responses: 7\nRequests/sec: 2000.00\n", 0},
		{"wrk without an answer", wrkCost, "Requests/sec: 0.00\n", 0},
		{"wrk broken", wrkCost, "", 0},
		{"redis", redisCost, "\"test\",\"rps\"\n\"SET\",\"1000.00\",\"1\"\n\"GET\",\"500.00\",\"1\"\n", 0.0015},
		{"redis with one rate", redisCost, "\"SET\",\"1000.00\"\n", 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := tt.parse(tt.report)
			if (err != nil) != (tt.want == 0) || !near(got, tt.want) {
				t.Errorf("= %v, %v, want %v", got, err, tt.want)
			}
		})
	}
}

const smaps = `10000000-10008000 r-xp 00000000 00:00 0
Size:                 32 kB
Rss:                   8 kB
Private_Dirty:         8 kB
VmFlags: rd ex mr mw me
555555554000-555555555000 r-xp 00001000 08:01 77   /bin/prog
Size:                  4 kB
Rss:                   4 kB
Private_Dirty:         4 kB
7ffff7d00000-7ffff7d01000 r-xp 00000000 00:00 0
Size:                  4 kB
Rss:                   4 kB
7ffff7e00000-7ffff7e02000 rw-p 00000000 00:00 0
Size:                  8 kB
Rss:                   8 kB
7ffff7fc3000-7ffff7fc5000 r-xp 00000000 00:00 0                  [vdso]
Size:                  8 kB
Private_Dirty:         0 kB
`

func TestParseImage(t *testing.T) {
	got, err := parseImage(strings.NewReader(smaps))
	if want := (image{Mapped: 36, Touched: 3, Patched: 1}); err != nil || got != want {
		t.Errorf("= %+v, %v, want %+v", got, err, want)
	}
}

func TestParseStatus(t *testing.T) {
	got := parseStatus("Name:\tx\nPPid:\t12\nVmRSS:\t   3456 kB\nEmpty:\n")
	if got["PPid"] != 12 || got["VmRSS"] != 3456 {
		t.Errorf("= %v", got)
	}
}

func sampleResults() *results {
	w := &result{Name: "open/glibc", What: "open | close", Unit: perCall, Bar: bar{Ratio: 1.10}, Notes: []string{"3 calls not enforced"},
		Modes: []*series{
			{Mode: bare, Samples: []float64{2e-6, 2e-6}},
			{Mode: indirect, Samples: []float64{2.1e-6, 2.1e-6}},
			{Mode: filter, Samples: []float64{2.05e-6, 2.05e-6}},
			{Mode: strace, NotRun: "needs strace"},
			{Mode: noPatch, NotRun: "exit status 125", Failed: true},
		}}
	w.summarise()
	slow := &result{Name: "nginx", What: "nginx under wrk", Unit: perSecond, Bar: bar{Ratio: 1.02}, Modes: []*series{
		{Mode: bare, Samples: []float64{1e-4}}, {Mode: indirect, Samples: []float64{2e-4}},
	}}
	slow.summarise()
	return &results{Version: version, Rounds: 2, Workloads: []*result{
		w, slow, {Name: "redis", What: "redis", Bar: bar{Ratio: 1.02}, NotRun: "needs redis-tools"},
	}, Memory: &memory{Served: []usage{{1, 9000, 20000, 21000}, {500, 9000, 40000, 41000}}, Image: image{32, 2, 3}}}
}

func TestReports(t *testing.T) {
	r := sampleResults()
	if got := r.failures(); got != 1 {
		t.Errorf("failures = %d", got)
	}
	for _, table := range tables(r) {
		for _, row := range table {
			if len(row) != len(table[0]) {
				t.Errorf("%d cells below %d heads: %q", len(row), len(table[0]), row)
			}
		}
	}
	var text, md, js bytes.Buffer
	for _, w := range []struct {
		to    *bytes.Buffer
		write func(io.Writer, *results) error
	}{{&text, writeText}, {&md, writeMarkdown}, {&js, writeJSON}} {
		if err := w.write(w.to, r); err != nil {
			t.Fatal(err)
		}
	}
	for _, want := range []string{
		`| open \| close | 2.00 µs | 2.10 µs | 1.050 | 1.05 to 1.05 | 1.10 | met | 1.025 | not run: needs strace | failed |`,
		`| nginx under wrk | 10000 requests/s | 5000 requests/s | 2.000 | 2.00 to 2.00 | 1.02 | MISSED |`,
		`| redis | not run: needs redis-tools |`,
		`| supervisor resident, processes served: 500 | 39.1 MiB (peak 40.0) | 30 MiB | MISSED |`,
		`| supervisor's growth from 1 to 500 processes | +20000 KiB |`,
		`| mapped in an image | 32 KiB | 64 KiB | met |`,
		"- open/glibc: standard error under indirect run: 3 calls not enforced\n",
		"- open/glibc: --no-patch: exit status 125\n",
	} {
		if !strings.Contains(md.String(), want) {
			t.Errorf("the Markdown lacks %q:\n%s", want, md.String())
		}
	}
	if !regexp.MustCompile(`nginx under wrk +10000 requests/s +5000 requests/s +2.000`).MatchString(text.String()) {
		t.Errorf("the text lacks nginx's row:\n%s", text.String())
	}
	var back results
	if err := json.Unmarshal(js.Bytes(), &back); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(r, &back); d != "" {
		t.Errorf("the JSON lost something (-want +got):\n%s", d)
	}
}

// TestPrograms runs each loop and the script once, small and bare.
func TestPrograms(t *testing.T) {
	if _, err := exec.LookPath(gcc.program); err != nil {
		t.Skip("needs gcc to build the workloads")
	}
	l := &lab{dir: t.TempDir(), missing: map[string]string{}}
	if err := l.unpack(); err != nil {
		t.Fatal(err)
	}
	if err := l.build(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, w := range workloads() {
		if w.name == "nginx" || w.name == "redis" {
			continue // a second of load is no quick test
		}
		t.Run(w.name, func(t *testing.T) {
			if lack := lacks(w.needs); lack != "" {
				t.Skip(lack)
			}
			out, err := w.run(t.Context(), l, mode{name: bare}, 2)
			if err != nil || out.cost <= 0 {
				t.Errorf("= %+v, %v", out, err)
			}
		})
	}
	t.Run("crowd", func(t *testing.T) {
		err := l.withCrowd(t.Context(), mode{name: bare}, 3, func(_, member int) error {
			i, err := readImage(member)
			if i.Mapped != 0 {
				t.Errorf("a bare program has %d KiB that look like ours", i.Mapped)
			}
			return err
		})
		if err != nil {
			t.Error(err)
		}
	})
}

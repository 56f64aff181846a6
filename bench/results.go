package main

import (
	"os"
	"runtime"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// version is the version of the JSON form. It changes when a member changes
// its meaning or goes away.
const version = 1

// results is everything that one run of the benchmark found.
type results struct {
	Version   int       `json:"version"`
	Time      time.Time `json:"time"`
	Kernel    string    `json:"kernel"`
	CPU       string    `json:"cpu"`
	CPUs      int       `json:"cpus"`
	Rounds    int       `json:"rounds"`
	Quick     bool      `json:"quick"`
	Workloads []*result `json:"workloads"`
	Memory    *memory   `json:"memory,omitempty"`
}

// result is one workload's figures.
type result struct {
	Name   string    `json:"name"`
	What   string    `json:"what"`
	Unit   unit      `json:"unit"`
	Bar    bar       `json:"bar"`
	Modes  []*series `json:"modes,omitempty"`
	Notes  []string  `json:"notes,omitempty"`
	NotRun string    `json:"not_run,omitempty"`
}

// series is one workload in one mode. Costs are in seconds a call, a run or a request.
type series struct {
	Mode    string    `json:"mode"`
	Samples []float64 `json:"samples,omitempty"` // by round: the median of its turns
	Cost    spread    `json:"cost"`
	Ratio   spread    `json:"ratio"` // to the bare run of the same round
	Extra   spread    `json:"extra"` // seconds more than the bare run of the same round
	NotRun  string    `json:"not_run,omitempty"`
	Failed  bool      `json:"failed,omitempty"`
}

// spread is a median with the extremes.
type spread struct {
	Median float64 `json:"median"`
	Min    float64 `json:"min"`
	Max    float64 `json:"max"`
}

// spreadOf is the zero spread for no samples.
func spreadOf(samples []float64) spread {
	n := len(samples)
	if n == 0 {
		return spread{}
	}
	s := slices.Sorted(slices.Values(samples))
	return spread{Median: (s[(n-1)/2] + s[n/2]) / 2, Min: s[0], Max: s[n-1]}
}

// summarise fills in the spreads from the samples.
func (r *result) summarise() {
	base := r.mode(bare)
	for _, s := range r.Modes {
		n := min(len(s.Samples), len(base.Samples))
		ratio, extra := make([]float64, n), make([]float64, n)
		for i := range n {
			ratio[i] = s.Samples[i] / base.Samples[i]
			extra[i] = s.Samples[i] - base.Samples[i]
		}
		s.Cost, s.Ratio, s.Extra = spreadOf(s.Samples), spreadOf(ratio), spreadOf(extra)
	}
}

// mode returns the series of a mode, an empty one if there is none.
func (r *result) mode(name string) *series {
	for _, s := range r.Modes {
		if s.Mode == name {
			return s
		}
	}
	return &series{Mode: name, NotRun: meaningless}
}

// met reports whether the workload met its bar; ok is false if it did not run.
func (r *result) met() (met, ok bool) {
	s := r.mode(indirect)
	if r.NotRun != "" || s.NotRun != "" || len(s.Samples) == 0 {
		return false, false
	}
	return r.Bar.met(s.Ratio.Median, s.Extra.Median), true
}

// failures counts the modes in which a workload failed.
func (r *results) failures() (n int) {
	for _, w := range r.Workloads {
		for _, s := range w.Modes {
			if s.Failed {
				n++
			}
		}
	}
	if r.Memory != nil && r.Memory.Failed {
		n++
	}
	return n
}

func newResults(o options) *results {
	return &results{
		Version: version, Time: time.Now().UTC().Truncate(time.Second),
		Kernel: kernel(), CPU: cpu(), CPUs: runtime.NumCPU(), Rounds: o.rounds, Quick: o.quick,
	}
}

// kernel is the version of the running kernel, without the builder's suffix.
func kernel() string {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return "unknown"
	}
	number, _, _ := strings.Cut(unix.ByteSliceToString(u.Release[:]), "-")
	return number
}

// cpu is the processor's name.
func cpu() string {
	text, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return "unknown"
	}
	for line := range strings.Lines(string(text)) {
		if key, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(key) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return runtime.GOARCH
}

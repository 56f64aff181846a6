package report

import (
	"encoding/json"
	"fmt"
	"math"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/seed-055cd0c8/indirect/audit"
)

// schema is the part of JSON Schema that ours is written in.
type schema struct {
	Ref         string             `json:"$ref"`
	Type        string             `json:"type"`
	Const       any                `json:"const"`
	Enum        []any              `json:"enum"`
	Minimum     *float64           `json:"minimum"`
	Items       *schema            `json:"items"`
	Required    []string           `json:"required"`
	Properties  map[string]*schema `json:"properties"`
	Additional  json.RawMessage    `json:"additionalProperties"`
	Defs        map[string]*schema `json:"$defs"`
	Schema      string             `json:"$schema"`
	Title       string             `json:"title"`
	Description string             `json:"description"`
}

// check returns what is wrong with v, which is at the given place.
func (s *schema) check(root *schema, v any, at string) (mistakes []string) {
	wrong := func(format string, args ...any) {
		mistakes = append(mistakes, at+": "+fmt.Sprintf(format, args...))
	}
	if s.Ref != "" {
		def := root.Defs[strings.TrimPrefix(s.Ref, "#/$defs/")]
		if def == nil {
			return []string{at + ": no " + s.Ref}
		}
		return def.check(root, v, at)
	}
	if s.Const != nil && s.Const != v {
		wrong("%v is not %v", v, s.Const)
	}
	if s.Enum != nil && !slices.Contains(s.Enum, v) {
		wrong("%v is not one of %v", v, s.Enum)
	}
	var kind string
	switch v := v.(type) {
	case string:
		kind = "string"
	case bool:
		kind = "boolean"
	case float64:
		kind = "number"
		if s.Type == "integer" && v == math.Trunc(v) {
			kind = "integer"
		}
		if s.Minimum != nil && v < *s.Minimum {
			wrong("%v is less than %v", v, *s.Minimum)
		}
	case []any:
		kind = "array"
		for i, e := range v {
			if s.Items != nil {
				mistakes = append(mistakes, s.Items.check(root, e, fmt.Sprintf("%s[%d]", at, i))...)
			}
		}
	case map[string]any:
		kind = "object"
		for _, name := range s.Required {
			if _, ok := v[name]; !ok {
				wrong("%s is missing", name)
			}
		}
		for name, e := range v {
			switch p := s.Properties[name]; {
			case p != nil:
				mistakes = append(mistakes, p.check(root, e, at+"."+name)...)
			case string(s.Additional) == "false":
				wrong("%s is unknown", name)
			case len(s.Additional) > 0:
				var other schema
				if err := json.Unmarshal(s.Additional, &other); err != nil {
					wrong("%v", err)
				}
				mistakes = append(mistakes, other.check(root, e, at+"."+name)...)
			}
		}
	}
	if s.Type != "" && s.Type != kind {
		wrong("%s instead of %s", kind, s.Type)
	}
	return mistakes
}

// TestSchema checks reports against the published schema.
func TestSchema(t *testing.T) {
	data, err := os.ReadFile("../../docs/audit-report.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	d := json.NewDecoder(strings.NewReader(string(data)))
	d.DisallowUnknownFields() // this test must know all that the schema says
	var s schema
	if err := d.Decode(&s); err != nil {
		t.Fatal(err)
	}
	reports := map[string]*audit.Report{
		"usual": classified(usual(), "service"), "hostile": classified(hostile(), "x"), "empty": classified(nil), "zero": {},
	}
	for name, r := range reports {
		t.Run(name, func(t *testing.T) {
			var v any
			if err := json.Unmarshal([]byte(printed(t, "json", r, Options{Show: audit.Kinds()})), &v); err != nil {
				t.Fatal(err)
			}
			for _, mistake := range s.check(&s, v, "") {
				t.Error(mistake)
			}
		})
	}
	var broken any = map[string]any{"version": 2.0, "findings": []any{map[string]any{"kind": "x", "count": 0.0, "new": true}}}
	if n := len(s.check(&s, broken, "")); n < 9 {
		t.Errorf("only %d mistakes found in a broken report", n)
	}
}

// TestSARIF checks what the standard demands of the parts that are written, and
// what viewers demand beyond it.
func TestSARIF(t *testing.T) {
	for name, events := range map[string][]audit.Event{"usual": usual(), "hostile": hostile()} {
		t.Run(name, func(t *testing.T) {
			r := classified(events, "service")
			var log sarifLog
			d := json.NewDecoder(strings.NewReader(printed(t, "sarif", r, Options{Show: audit.Kinds(), Root: "/home/user/service"})))
			d.DisallowUnknownFields()
			if err := d.Decode(&log); err != nil {
				t.Fatal(err)
			}
			if log.Version != "2.1.0" || len(log.Runs) != 1 {
				t.Fatalf("version %s, %d runs", log.Version, len(log.Runs))
			}
			run := log.Runs[0]
			if len(run.Results) != len(r.Findings) || len(run.Tool.Driver.Rules) != len(audit.Kinds()) {
				t.Errorf("%d results, %d rules", len(run.Results), len(run.Tool.Driver.Rules))
			}
			for i, result := range run.Results {
				if rule := run.Tool.Driver.Rules[result.RuleIndex]; rule.ID != result.RuleID {
					t.Errorf("result %d: rule %s at the index of %s", i, result.RuleID, rule.ID)
				}
				if !slices.Contains([]string{"error", "warning", "note"}, result.Level) {
					t.Errorf("result %d: level %q", i, result.Level)
				}
				if len(result.Locations) != 1 || result.Locations[0].Physical == nil {
					t.Errorf("result %d has no place to show it", i)
					continue
				}
				places := []sarifLocation{result.Locations[0]}
				for _, flow := range result.Flows {
					for _, thread := range flow.Threads {
						if len(thread.Locations) == 0 {
							t.Errorf("result %d: an empty flow", i)
						}
						for _, step := range thread.Locations {
							places = append(places, step.Location)
							if step.Nesting < 0 {
								t.Errorf("result %d: nesting level %d", i, step.Nesting)
							}
						}
					}
				}
				for _, p := range places {
					if p.Physical == nil {
						continue
					}
					if a := p.Physical.Artifact; a.URI == "" || a.BaseID != "" && strings.HasPrefix(a.URI, "/") || strings.ContainsAny(a.URI, " <>\"\n") {
						t.Errorf("result %d: location %+v", i, a)
					}
					if p.Physical.Region != nil && p.Physical.Region.Line < 1 {
						t.Errorf("result %d: line %d", i, p.Physical.Region.Line)
					}
				}
			}
		})
	}
	r := classified(usual(), "service")
	leak := r.Leaks()[0]
	result := sarif{"/home/user/service"}.result(&leak)
	if at := result.Locations[0].Physical; at.Artifact != (sarifArtifact{"config.h", sourceRoot}) || at.Region.Line != 17 {
		t.Errorf("the leak is shown at %+v", at)
	}
	for file, want := range map[string]sarifArtifact{
		"/home/user/service/a b.c": {"a%20b.c", sourceRoot},
		"/home/user/services/a.c":  {"file:///home/user/services/a.c", ""},
		"/usr/a%b#c?.c":            {"file:///usr/a%25b%23c%3F.c", ""},
		"../sysdeps/open64.c":      {"sysdeps/open64.c", ""},
		"a:b.c":                    {"./a:b.c", ""},
		"":                         {"unknown", ""},
	} {
		if got := (sarif{"/home/user/service"}).artifact(file); got != want {
			t.Errorf("%q is %+v, want %+v", file, got, want)
		}
	}
	flow := result.Flows[0].Threads[0].Locations
	var steps []string
	for _, step := range flow {
		steps = append(steps, step.Location.Logical[0].Name)
	}
	if got := strings.Join(steps, " "); got != "main start open_config __open64 main run_helper posix_spawn __spawni_child" {
		t.Errorf("the flow is %s", got)
	}
}

// TestFingerprint is the same for another build of the program.
func TestFingerprint(t *testing.T) {
	f := classified(usual(), "service").Leaks()[0]
	before := fingerprint(&f)
	f.Stack = slices.Clone(f.Stack)
	for i := range f.Stack {
		f.Stack[i].Line, f.Stack[i].Offset, f.Stack[i].BuildID = 1, 2, "3"
	}
	f.Creation.FD++
	if fingerprint(&f) != before {
		t.Error("another fingerprint for the same finding")
	}
	f.Stack[0].Function = "x"
	if fingerprint(&f) == before {
		t.Error("the same fingerprint for another finding")
	}
}

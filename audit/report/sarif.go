package report

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net/url"
	"path"
	"slices"
	"strings"

	"github.com/seed-055cd0c8/indirect/audit"
)

// The names are those of SARIF 2.1.0 (OASIS, section 3), of which this is the
// part that we write.
type (
	sarifLog struct {
		Schema  string     `json:"$schema"`
		Version string     `json:"version"`
		Runs    []sarifRun `json:"runs"`
	}
	sarifRun struct {
		Tool        sarifTool                `json:"tool"`
		Invocations []sarifInvocation        `json:"invocations"`
		BaseIDs     map[string]sarifArtifact `json:"originalUriBaseIds,omitempty"`
		Results     []sarifResult            `json:"results"`
		ColumnKind  string                   `json:"columnKind"`
	}
	sarifTool struct {
		Driver sarifDriver `json:"driver"`
	}
	sarifDriver struct {
		Name  string      `json:"name"`
		Rules []sarifRule `json:"rules"`
	}
	sarifRule struct {
		ID      string        `json:"id"`
		Name    string        `json:"name"`
		Short   sarifText     `json:"shortDescription"`
		Full    sarifText     `json:"fullDescription"`
		Help    sarifText     `json:"help"`
		Default sarifDefaults `json:"defaultConfiguration"`
	}
	sarifDefaults struct {
		Level string `json:"level"`
	}
	sarifText struct {
		Text string `json:"text"`
	}
	sarifInvocation struct {
		CommandLine   string              `json:"commandLine,omitempty"`
		Successful    bool                `json:"executionSuccessful"`
		Notifications []sarifNotification `json:"toolExecutionNotifications,omitempty"`
	}
	sarifNotification struct {
		Level   string    `json:"level"`
		Message sarifText `json:"message"`
	}
	sarifResult struct {
		RuleID       string            `json:"ruleId"`
		RuleIndex    int               `json:"ruleIndex"`
		Level        string            `json:"level"`
		Message      sarifText         `json:"message"`
		Locations    []sarifLocation   `json:"locations"`
		Stacks       []sarifStack      `json:"stacks,omitempty"`
		Flows        []sarifFlow       `json:"codeFlows,omitempty"`
		Occurrences  int               `json:"occurrenceCount"`
		Fingerprints map[string]string `json:"partialFingerprints"`
	}
	sarifLocation struct {
		Physical *sarifPhysical `json:"physicalLocation,omitempty"`
		Logical  []sarifLogical `json:"logicalLocations,omitempty"`
		Message  *sarifText     `json:"message,omitempty"`
	}
	sarifPhysical struct {
		Artifact sarifArtifact `json:"artifactLocation"`
		Region   *sarifRegion  `json:"region,omitempty"`
	}
	sarifArtifact struct {
		URI    string `json:"uri"`
		BaseID string `json:"uriBaseId,omitempty"`
	}
	sarifRegion struct {
		Line int `json:"startLine"`
	}
	sarifLogical struct {
		Name string `json:"fullyQualifiedName"`
		Kind string `json:"kind"`
	}
	sarifStack struct {
		Message sarifText         `json:"message"`
		Frames  []sarifStackFrame `json:"frames"`
	}
	sarifStackFrame struct {
		Location sarifLocation `json:"location"`
		Module   string        `json:"module,omitempty"`
	}
	sarifFlow struct {
		Message sarifText     `json:"message"`
		Threads []sarifThread `json:"threadFlows"`
	}
	sarifThread struct {
		Locations []sarifStep `json:"locations"`
	}
	sarifStep struct {
		Location sarifLocation `json:"location"`
		Nesting  int           `json:"nestingLevel"`
	}
)

// sourceRoot is the base of relative URIs, by the name that viewers know.
const sourceRoot = "%SRCROOT%"

// SARIF prints a report in the format of static analysis tools, version 2.1.0,
// with a rule for each kind and the stacks as code flows.
func SARIF(w io.Writer, r *audit.Report, o Options) error {
	s := sarif{o.Root}
	run := sarifRun{
		Tool:        sarifTool{sarifDriver{Name: "indirect audit", Rules: rules()}},
		Invocations: []sarifInvocation{{CommandLine: commandLine(r.Command), Successful: true}},
		Results:     []sarifResult{},
		ColumnKind:  "unicodeCodePoints",
	}
	if o.Root != "" {
		run.BaseIDs = map[string]sarifArtifact{sourceRoot: {URI: fileURI(strings.TrimSuffix(o.Root, "/") + "/")}}
	}
	for _, remark := range incomplete(r) {
		run.Invocations[0].Notifications = append(run.Invocations[0].Notifications, sarifNotification{"warning", sarifText{remark}})
	}
	findings := o.findings(r)
	for i := range findings {
		run.Results = append(run.Results, s.result(&findings[i]))
	}
	return encode(w, "SARIF", sarifLog{
		Schema: "https://json.schemastore.org/sarif-2.1.0.json", Version: "2.1.0", Runs: []sarifRun{run},
	})
}

func ruleID(k audit.Kind) string { return "descriptor-" + string(k) }

func rules() []sarifRule {
	var all []sarifRule
	for _, k := range audit.Kinds() {
		m := meanings[k]
		all = append(all, sarifRule{
			ID: ruleID(k), Name: "Descriptor" + strings.ToUpper(string(k[:1])) + string(k[1:]),
			Short: sarifText{m.short + "."}, Full: sarifText{m.long}, Help: sarifText{m.long},
			Default: sarifDefaults{level(k)},
		})
	}
	return all
}

func level(k audit.Kind) string {
	switch k {
	case audit.KindLeak:
		return "error"
	case audit.KindRace:
		return "warning"
	}
	return "note"
}

// sarif knows below which directory the source files are the user's own.
type sarif struct{ root string }

func (s sarif) result(f *audit.Finding) sarifResult {
	r := sarifResult{
		RuleID: ruleID(f.Kind), RuleIndex: slices.Index(audit.Kinds(), f.Kind), Level: level(f.Kind),
		Occurrences: f.Count, Fingerprints: map[string]string{"descriptorCreation/v1": fingerprint(f)},
		Message: sarifText{sentence(headline(f)) + " It is " + object(&f.Creation.Object) + ", created by " + call(&f.Creation) + " in " + process(&f.Creator) + "."},
	}
	if f.Harmless() {
		r.Level = "note"
	}
	if at := f.SiteFrame(); at != nil {
		r.Locations = []sarifLocation{s.location(at)}
	} else {
		file := f.Creator.Executable
		if file == "" && f.Receipt != nil {
			file = f.Receipt.Program.Executable
		}
		r.Locations = []sarifLocation{{Physical: s.physical(file, 0)}}
	}
	flow := sarifThread{}
	step := func(stack []audit.Frame, last string) {
		for i := range slices.Backward(stack) {
			l := s.location(&stack[i])
			if i == 0 {
				l.Message = &sarifText{last}
			}
			flow.Locations = append(flow.Locations, sarifStep{l, len(stack) - 1 - i})
		}
	}
	step(f.Stack, call(&f.Creation)+" creates the descriptor")
	r.stack("where the descriptor was created", f.Stack, s)
	if f.Window != nil {
		step(f.Window.Stack, "the descriptor becomes close-on-exec")
		r.stack("where it was made close-on-exec", f.Window.Stack, s)
	}
	if f.Receipt != nil {
		step(f.Receipt.Stack, program(&f.Receipt.Program)+" is executed and receives the descriptor")
		r.stack("where the program was executed that received it", f.Receipt.Stack, s)
	}
	if len(flow.Locations) > 0 {
		r.Flows = []sarifFlow{{sarifText{sentence(headline(f))}, []sarifThread{flow}}}
	}
	return r
}

func (r *sarifResult) stack(message string, frames []audit.Frame, s sarif) {
	if len(frames) == 0 {
		return
	}
	st := sarifStack{Message: sarifText{message}}
	for i := range frames {
		st.Frames = append(st.Frames, sarifStackFrame{s.location(&frames[i]), printable(frames[i].Module)})
	}
	r.Stacks = append(r.Stacks, st)
}

func (s sarif) location(f *audit.Frame) sarifLocation {
	l := sarifLocation{Message: &sarifText{frame(f)}}
	if f.Function != "" {
		l.Logical = []sarifLogical{{printable(f.Function), "function"}}
	}
	if f.File != "" {
		l.Physical = s.physical(f.File, f.Line)
	} else if f.Module != "" {
		l.Physical = s.physical(f.Module, 0)
	}
	return l
}

func (s sarif) physical(file string, line int) *sarifPhysical {
	p := &sarifPhysical{Artifact: s.artifact(file)}
	if line > 0 {
		p.Region = &sarifRegion{line}
	}
	return p
}

func (s sarif) artifact(file string) sarifArtifact {
	if file == "" {
		file = "unknown"
	}
	if !path.IsAbs(file) {
		// As the compiler was told it, relative to a directory that is not here.
		// Viewers refuse what leads out of the root.
		return sarifArtifact{URI: relativeURI(strings.TrimLeft(path.Clean("/"+file), "/"))}
	}
	if below, ok := strings.CutPrefix(path.Clean(file), strings.TrimSuffix(s.root, "/")+"/"); ok && s.root != "" {
		return sarifArtifact{relativeURI(below), sourceRoot}
	}
	return sarifArtifact{URI: fileURI(file)}
}

func fileURI(file string) string { return (&url.URL{Scheme: "file", Path: file}).String() }

func relativeURI(file string) string { return (&url.URL{Path: file}).String() }

// fingerprint tells a finding from others in the results of another run, and
// of another version of the program: lines and addresses change.
func fingerprint(f *audit.Finding) string {
	h := sha256.New()
	fmt.Fprintf(h, "%q %q %q", f.Kind, f.Creation.Call, path.Base(f.Creator.Executable))
	if f.Receipt != nil {
		fmt.Fprintf(h, " %q", path.Base(f.Receipt.Program.Executable))
	}
	for _, frame := range f.Stack {
		fmt.Fprintf(h, " %q %q", frame.Function, path.Base(frame.File))
	}
	return hex.EncodeToString(h.Sum(nil)[:16])
}

// sentence makes a sentence of a headline.
func sentence(s string) string { return strings.ToUpper(s[:1]) + s[1:] + "." }

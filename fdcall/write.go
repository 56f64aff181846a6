package fdcall

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"
)

// writers are the formats of [Write].
var writers = []struct {
	format string
	write  func(*bytes.Buffer, Selection) error
}{
	{"table", writeTable},
	{"json", writeJSON},
	{"markdown", writeMarkdown},
}

// Formats returns the formats that [Write] knows.
func Formats() []string {
	var names []string
	for _, f := range writers {
		names = append(names, f.format)
	}
	return names
}

// Write prints calls in one of [Formats]: tables for terminals, JSON (see
// [Document]) for programs, or Markdown tables for pages.
func Write(w io.Writer, format string, s Selection) error {
	for _, f := range writers {
		if f.format != format {
			continue
		}
		var b bytes.Buffer
		if err := f.write(&b, s); err != nil {
			return fmt.Errorf("print calls as %s: %w", format, err)
		}
		if _, err := w.Write(b.Bytes()); err != nil {
			return fmt.Errorf("print calls as %s: %w", format, err)
		}
		return nil
	}
	return fmt.Errorf("no format %q; the formats are %s", format, strings.Join(Formats(), ", "))
}

// columns are what the two printed tables show of a row.
var columns = []struct {
	title string
	cell  func(*Call) string
}{
	{"CALL", (*Call).ID},
	{"CATEGORY", func(c *Call) string { return c.Class.String() }},
	{"AMD64", func(c *Call) string { return number(c, AMD64) }},
	{"I386", func(c *Call) string { return number(c, I386) }},
	{"ARM64", func(c *Call) string { return number(c, ARM64) }},
	{"X32", func(c *Call) string { return number(c, X32) }},
	{"GIVES", func(c *Call) string { return c.Gives.String() }},
	{"FLAGS", flagsCell},
	{"CLOEXEC", func(c *Call) string { return bitCell(c.CloexecBits) }},
	{"NONBLOCK", func(c *Call) string { return bitCell(c.NonblockBits) }},
	{"RUN INSTEAD", func(c *Call) string {
		if c.Upgrade == nil {
			return "-"
		}
		return c.Upgrade.To
	}},
	{"SINCE", func(c *Call) string { return c.Since.String() }},
	{"CLOEXEC SINCE", func(c *Call) string { return c.CloexecSince.String() }},
}

// number is the call's number as the kernel's tables write it: on x32 without bit 30.
func number(c *Call, a ABI) string {
	n := c.Nr[a]
	if n == None {
		return "-"
	}
	return strconv.Itoa(int(n &^ x32Bit))
}

func flagsCell(c *Call) string {
	switch {
	case c.FlagsArg == NoFlags:
		return "-"
	case c.Indirect || c.Block:
		return fmt.Sprintf("arg %d in memory", c.FlagsArg)
	}
	return fmt.Sprintf("arg %d", c.FlagsArg)
}

func bitCell(b uint32) string {
	if b == 0 {
		return "-"
	}
	return fmt.Sprintf("%#x", b)
}

// addedColumns are what the two printed tables show of an added call.
var addedColumns = []struct {
	title string
	cell  func(*Added) string
}{
	{"ADDED CALL", func(a *Added) string { return a.Name }},
	{"NUMBER", func(a *Added) string { return strconv.Itoa(int(a.Nr)) }},
	{"FORMER AMD64", func(a *Added) string { return number(&Call{Nr: a.Former}, AMD64) }},
	{"FORMER I386", func(a *Added) string { return number(&Call{Nr: a.Former}, I386) }},
	{"RUNS", func(a *Added) string {
		if a.Runs == "" {
			return "-"
		}
		return a.Runs
	}},
	{"PROTOTYPE", func(a *Added) string { return a.Usage }},
}

// tables calls print with the titles and cells of each table that is not empty.
func (s Selection) tables(print func(titles []string, rows [][]string)) {
	var titles []string
	var rows [][]string
	for _, col := range columns {
		titles = append(titles, col.title)
	}
	for _, c := range s.Calls {
		var row []string
		for _, col := range columns {
			row = append(row, col.cell(c))
		}
		rows = append(rows, row)
	}
	if len(rows) > 0 {
		print(titles, rows)
	}
	titles, rows = nil, nil
	for _, col := range addedColumns {
		titles = append(titles, col.title)
	}
	for i := range s.Added {
		var row []string
		for _, col := range addedColumns {
			row = append(row, col.cell(&s.Added[i]))
		}
		rows = append(rows, row)
	}
	if len(rows) > 0 {
		print(titles, rows)
	}
}

func writeTable(b *bytes.Buffer, s Selection) error {
	var errs []error
	s.tables(func(titles []string, rows [][]string) {
		if b.Len() > 0 {
			b.WriteByte('\n')
		}
		w := tabwriter.NewWriter(b, 0, 0, 2, ' ', 0)
		for _, row := range append([][]string{titles}, rows...) {
			fmt.Fprintln(w, strings.Join(row, "\t"))
		}
		errs = append(errs, w.Flush())
	})
	return errors.Join(errs...)
}

func writeMarkdown(b *bytes.Buffer, s Selection) error {
	remarks := make([]string, 0, len(s.Calls)+len(s.Added))
	for _, c := range s.Calls {
		remarks = append(remarks, c.remark())
	}
	for i := range s.Added {
		remarks = append(remarks, s.Added[i].Source)
	}
	s.tables(func(titles []string, rows [][]string) {
		if b.Len() > 0 {
			b.WriteByte('\n')
		}
		for _, title := range titles {
			fmt.Fprintf(b, "| %s ", strings.ToLower(title))
		}
		b.WriteString("| note |\n" + strings.Repeat("| --- ", len(titles)+1) + "|\n")
		for _, row := range rows {
			for _, cell := range append(row, remarks[0]) {
				fmt.Fprintf(b, "| %s ", escape(cell))
			}
			b.WriteString("|\n")
			remarks = remarks[1:]
		}
	})
	return nil
}

// escape makes s harmless in a cell of a Markdown table.
func escape(s string) string {
	return strings.NewReplacer("|", `\|`, "*", `\*`, "_", `\_`, "<", "&lt;", "\n", " ").Replace(s)
}

// remark is the row's note and source in one line.
func (c *Call) remark() string {
	if c.Note == "" {
		return c.Source
	}
	return c.Note + " (" + c.Source + ")"
}

// Document is what [Write] prints as JSON.
type Document struct {
	Version int         `json:"version"` // 1; it changes when a field changes its meaning or goes
	Calls   []JSONCall  `json:"calls"`
	Added   []JSONAdded `json:"added,omitempty"`
}

// JSONAdded is an [Added] call as JSON.
type JSONAdded struct {
	Name     string           `json:"name"`
	Number   int32            `json:"number"`              // on every ABI; on x32 with bit 30
	Former   map[string]int32 `json:"former,omitempty"`    // its numbers in its time, which are others' today
	Formerly []JSONCond       `json:"formerly,omitempty"`  // the conditions under which these are still its own
	Runs     string           `json:"runs,omitempty"`      // the id of the call that does the work
	FlagsArg *int8            `json:"flags_arg,omitempty"` // the argument with the descriptor's properties
	Accepts  uint32           `json:"accepts,omitempty"`   // the bits that it may have
	Usage    string           `json:"usage"`
	Source   string           `json:"source"`
}

// JSONCall is a [Call] as JSON. Fields that do not apply are left out.
type JSONCall struct {
	ID       string           `json:"id"`
	Name     string           `json:"name"`
	Op       string           `json:"op,omitempty"`
	Category string           `json:"category"` // see [Classes]
	Numbers  map[string]int32 `json:"numbers"`  // by [ABI] name; x32 with bit 30, as a program passes it
	When     []JSONCond       `json:"when,omitempty"`
	Gives    string           `json:"gives"`               // see [Gives.String]
	GivesArg *int8            `json:"gives_arg,omitempty"` // argument that the result goes to, or that is the number
	Shares   bool             `json:"shares,omitempty"`    // see [Call.Shares]
	Leaves   []string         `json:"leaves,omitempty"`    // "cloexec", "nonblock", "nonseq": see [Call.Leaves]
	Flags    *JSONFlags       `json:"flags,omitempty"`
	Block    bool             `json:"block,omitempty"` // see [Call.Block]
	Upgrade  *JSONUpgrade     `json:"upgrade,omitempty"`
	Cancels  bool             `json:"cancels,omitempty"` // see [Call.Cancels]
	Since    string           `json:"since"`             // Linux release
	Source   string           `json:"source"`
	Note     string           `json:"note,omitempty"`
}

// JSONCond is a [Cond] as JSON.
type JSONCond struct {
	Arg   uint8  `json:"arg"`
	Mask  uint64 `json:"mask"`
	Value uint64 `json:"value"`
	Not   bool   `json:"not,omitempty"`
}

// JSONFlags says where a call's flags are and which bits they have.
type JSONFlags struct {
	Arg           int8   `json:"arg"`
	Indirect      bool   `json:"indirect,omitempty"` // see [Call.Indirect]
	Cloexec       uint32 `json:"cloexec,omitempty"`
	CloexecSince  string `json:"cloexec_since,omitempty"` // Linux release
	Nonblock      uint32 `json:"nonblock,omitempty"`
	NonblockSince string `json:"nonblock_since,omitempty"` // Linux release
}

// JSONUpgrade is an [Upgrade] as JSON.
type JSONUpgrade struct {
	To   string        `json:"to"` // an id
	Args []JSONOperand `json:"args"`
}

// JSONOperand is an [Operand] as JSON: from is -1 for a constant.
type JSONOperand struct {
	From int8   `json:"from"`
	Bits uint32 `json:"bits,omitempty"`
}

func writeJSON(b *bytes.Buffer, s Selection) error {
	d := Document{Version: 1, Calls: []JSONCall{}}
	for _, c := range s.Calls {
		d.Calls = append(d.Calls, c.json())
	}
	for i := range s.Added {
		d.Added = append(d.Added, s.Added[i].json())
	}
	e := json.NewEncoder(b)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	return e.Encode(d)
}

func (a *Added) json() JSONAdded {
	j := JSONAdded{Name: a.Name, Number: a.Nr, Former: numbersByName(a.Former), Runs: a.Runs, Accepts: a.Accepts, Usage: a.Usage, Source: a.Source}
	for _, w := range a.Formerly {
		j.Formerly = append(j.Formerly, JSONCond(w))
	}
	if a.FlagsArg != NoFlags {
		j.FlagsArg = &a.FlagsArg
	}
	return j
}

// numbersByName lists the numbers of the ABIs that have one.
func numbersByName(n Numbers) map[string]int32 {
	m := make(map[string]int32)
	for a, nr := range n {
		if nr != None {
			m[ABI(a).String()] = nr
		}
	}
	return m
}

func (c *Call) json() JSONCall {
	j := JSONCall{
		ID: c.ID(), Name: c.Name, Op: c.Op, Category: c.Class.String(), Numbers: numbersByName(c.Nr),
		Gives: c.Gives.String(), Shares: c.Shares, Leaves: c.Leaves.words(), Block: c.Block, Cancels: c.Cancels,
		Since: c.Since.String(), Source: c.Source, Note: c.Note,
	}
	for _, w := range c.When {
		j.When = append(j.When, JSONCond(w))
	}
	if c.Gives != Ret {
		j.GivesArg = &c.GivesArg
	}
	if c.FlagsArg != NoFlags {
		j.Flags = &JSONFlags{Arg: c.FlagsArg, Indirect: c.Indirect, Cloexec: c.CloexecBits, Nonblock: c.NonblockBits}
		if c.CloexecBits != 0 {
			j.Flags.CloexecSince = c.CloexecSince.String()
		}
		if c.NonblockBits != 0 {
			j.Flags.NonblockSince = c.NonblockSince.String()
		}
	}
	if u := c.Upgrade; u != nil {
		j.Upgrade = &JSONUpgrade{To: u.To, Args: []JSONOperand{}}
		for _, o := range u.Args {
			j.Upgrade.Args = append(j.Upgrade.Args, JSONOperand(o))
		}
	}
	return j
}

// words names the properties in w.
func (w Want) words() []string {
	var words []string
	for i, name := range []string{"cloexec", "nonblock", "nonseq"} {
		if w&(1<<i) != 0 {
			words = append(words, name)
		}
	}
	return words
}

// String returns the release as people write it: "2.6.27", "5.6", or "-" if
// there is none.
func (v Version) String() string {
	switch {
	case v == Version{}:
		return "-"
	case v.Patch == 0:
		return fmt.Sprintf("%d.%d", v.Major, v.Minor)
	}
	return fmt.Sprintf("%d.%d.%d", v.Major, v.Minor, v.Patch)
}

// String returns the place's name: "return-value", "pair", "control-message",
// "control-messages", "caller-chosen" or "memory".
func (g Gives) String() string {
	names := [...]string{
		Ret: "return-value", Pair: "pair", Control: "control-message", Controls: "control-messages",
		Exact: "caller-chosen", Memory: "memory",
	}
	if int(g) >= len(names) {
		return "unknown"
	}
	return names[g]
}

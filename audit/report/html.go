package report

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"fmt"
	"html/template"
	"io"
	"slices"

	"github.com/seed-055cd0c8/indirect/audit"
)

var (
	//go:embed page.html
	pageHTML string
	//go:embed page.css
	pageCSS string
	//go:embed page.js
	pageJS string
)

// maxDrawn bounds the findings of a page: browsers become slow.
const maxDrawn = 2000

// page is what the template shows.
type page struct {
	Title     string
	Command   string
	Counts    string
	Remarks   []string
	Findings  []card
	Chart     chart
	StyleHash string
	JSHash    string
	CSS       template.CSS
	JS        template.JS
}

// card tells of one finding.
type card struct {
	ID    int // from 1
	Kind  audit.Kind
	Title string
	Lines []described
}

// HTML prints a report as one page that needs nothing else: the programs over
// time, and the way of each descriptor from its creation to the program that
// received it. It draws at most 2,000 findings.
func HTML(w io.Writer, r *audit.Report, o Options) error {
	findings := o.findings(r)
	p := page{
		Title: "Descriptors of " + commandLine(r.Command), Command: commandLine(r.Command), Counts: counts(r),
		Remarks: incomplete(r), StyleHash: hash(pageCSS), JSHash: hash(pageJS),
		CSS: template.CSS(pageCSS), JS: template.JS(pageJS), // our own text
	}
	if len(findings) > maxDrawn {
		p.Remarks = append(p.Remarks, fmt.Sprintf("Only the first %d of %d findings are on this page; the other formats have all", maxDrawn, len(findings)))
		findings = findings[:maxDrawn]
	}
	for i := range findings {
		lines := describe(&findings[i])
		p.Findings = append(p.Findings, card{i + 1, findings[i].Kind, lines[0].Text, lines[1:]})
	}
	p.Chart = draw(r.Programs, findings)
	if p.Chart.Omitted > 0 {
		p.Remarks = append(p.Remarks, fmt.Sprintf("%d programs that have to do with no finding are not drawn", p.Chart.Omitted))
	}
	t, err := template.New("page").Parse(pageHTML)
	if err != nil {
		return written("HTML", err)
	}
	var b bytes.Buffer
	if err := t.Execute(&b, p); err != nil {
		return written("HTML", err)
	}
	_, err = w.Write(b.Bytes())
	return written("HTML", err)
}

// hash is a source of a content security policy that allows just this text.
func hash(s string) string {
	sum := sha256.Sum256([]byte(s))
	return "sha256-" + base64.StdEncoding.EncodeToString(sum[:])
}

// chart is the drawing. Lengths are in SVG's user units.
type chart struct {
	Width, Height int
	Left          int // of the time axis
	Ticks         []tick
	Rows          []row
	Ways          []way
	Omitted       int // programs
}

// tick is a mark on the time axis.
type tick struct {
	X    int
	Text string
}

// row is a program with the time for which it ran.
type row struct {
	Y, Height  int
	X, Width   int // of its bar
	LabelX     int
	Label      string
	Title      string
	ParentX    int // where it was started, on the parent's row
	ParentY    int
	HasParent  bool
	Middle     int
	OpenEnded  bool
	program    audit.Run
	depth, use int // use: ways that begin here
}

// way is a descriptor's: from its creation to the program that received it.
type way struct {
	ID     int // the card's
	Kind   audit.Kind
	Name   string
	Path   template.HTMLAttr
	X, Y   int // its beginning
	EX, EY int // its end
	Shape  string
	TextX  int
	Text   string
	Anchor string
}

// Lengths of the drawing.
const (
	chartWidth = 1160
	chartLeft  = 280 // room for the names
	rowHeight  = 18
	wayHeight  = 16
	indent     = 12
	maxRows    = 400 // of programs that have to do with no finding
	maxIndent  = 10
	axisHeight = 26
	endRoom    = 60 // at the right, for labels
)

// shapes tell the kinds apart without colours.
var shapes = map[audit.Kind]string{
	audit.KindLeak: "◆", audit.KindRace: "▲", audit.KindLatent: "○", audit.KindDeliberate: "■", audit.KindInherited: "□",
}

// draw lays out the programs that ran and the ways of the descriptors.
func draw(programs []audit.Run, findings []audit.Finding) chart {
	c := chart{Width: chartWidth, Left: chartLeft}
	c.Rows, c.Omitted = rows(programs, findings)
	index := make(map[uint64]int, len(c.Rows))
	for i := range c.Rows {
		index[c.Rows[i].program.ID] = i
	}
	from := make([]int, len(findings)) // the row that each way begins in
	for i := range findings {
		from[i] = -1
		if r, ok := origin(&findings[i], index); ok {
			from[i] = r
			c.Rows[r].use++
		}
	}
	scale := newScale(c.Rows, findings)
	y := axisHeight
	for i := range c.Rows {
		r := &c.Rows[i]
		r.Y, r.Height = y, rowHeight+r.use*wayHeight
		r.Middle = y + rowHeight/2
		y += r.Height
		r.OpenEnded = r.program.Ended == 0
		end := cmp.Or(r.program.Ended, scale.last)
		r.X = scale.x(r.program.Started)
		r.Width = max(scale.x(end)-r.X, 2)
		r.LabelX = 4 + min(r.depth, maxIndent)*indent
		if p, ok := index[r.program.Parent]; ok && p < i {
			r.HasParent, r.ParentX, r.ParentY = true, r.X, c.Rows[p].Middle
		}
	}
	c.Height = y + 8
	used := make([]int, len(c.Rows))
	for i := range findings {
		if from[i] < 0 {
			continue
		}
		used[from[i]]++
		c.Ways = append(c.Ways, route(&findings[i], i+1, &c, from[i], used[from[i]], index, &scale))
	}
	c.Ticks = scale.ticks()
	return c
}

// origin is the row that a finding's way begins in.
func origin(f *audit.Finding, index map[uint64]int) (int, bool) {
	if r, ok := index[f.Creator.ID]; ok && f.Creator.ID != 0 {
		return r, true
	}
	if f.Receipt != nil {
		r, ok := index[f.Receipt.Before.ID]
		if !ok {
			r, ok = index[f.Receipt.Program.ID]
		}
		return r, ok
	}
	return 0, false
}

// route is the way of the finding with the given number, the nth in its row.
func route(f *audit.Finding, number int, c *chart, from, nth int, index map[uint64]int, s *scale) way {
	r := &c.Rows[from]
	w := way{
		ID: number, Kind: f.Kind, Shape: shapes[f.Kind], Name: headline(f),
		Text: fmt.Sprintf("%s %d", f.Kind, f.Creation.FD), Y: r.Y + rowHeight + (nth-1)*wayHeight + wayHeight/2 - 2,
	}
	begin := cmp.Or(f.Creation.Time, r.program.Started)
	var end int64
	target := from
	switch {
	case f.Receipt != nil:
		end = f.Receipt.Time
		if t, ok := index[f.Receipt.Program.ID]; ok {
			target = t
		}
	case f.Window != nil:
		end = begin + int64(f.Window.Length)
	default:
		end = cmp.Or(r.program.Ended, s.last)
	}
	w.X, w.EX = s.x(begin), max(s.x(end), s.x(begin))
	w.EY = w.Y
	w.Path = template.HTMLAttr(fmt.Sprintf(`d="M%d %dH%d"`, w.X, w.Y, w.EX)) // numbers only
	if target != from {
		w.EY = c.Rows[target].Middle
		w.Path = template.HTMLAttr(fmt.Sprintf(`d="M%d %dH%dV%d"`, w.X, w.Y, w.EX, w.EY))
	}
	w.TextX, w.Anchor = w.EX+10, "start"
	if w.TextX > chartWidth-endRoom-20 {
		w.TextX, w.Anchor = w.X-10, "end"
	}
	return w
}

// rows lists the programs to draw, children behind their parents.
func rows(programs []audit.Run, findings []audit.Finding) (drawn []row, omitted int) {
	known := make(map[uint64]audit.Run, len(programs))
	for _, p := range programs {
		known[p.ID] = p
	}
	needed := make(map[uint64]bool)
	need := func(id uint64) {
		for p, ok := known[id]; ok && !needed[id]; p, ok = known[id] {
			needed[id] = true
			id = p.Parent
		}
	}
	for i := range findings {
		need(findings[i].Creator.ID)
		if r := findings[i].Receipt; r != nil {
			need(r.Program.ID)
			need(r.Before.ID)
		}
	}
	children := make(map[uint64][]audit.Run)
	var roots []audit.Run
	room := maxRows
	for _, p := range programs {
		if !needed[p.ID] {
			if room == 0 || p.Parent != 0 && !needed[p.Parent] {
				omitted++
				continue
			}
			room--
			needed[p.ID] = true // its children may be drawn, too
		}
		if _, ok := known[p.Parent]; ok && needed[p.Parent] && p.Parent < p.ID {
			children[p.Parent] = append(children[p.Parent], p)
		} else {
			roots = append(roots, p)
		}
	}
	// A stack and not recursion: the tree may be as deep as it has programs.
	type todo struct {
		audit.Run
		depth int
	}
	var stack []todo
	for _, p := range slices.Backward(roots) {
		stack = append(stack, todo{p, 0})
	}
	for len(stack) > 0 {
		t := stack[len(stack)-1]
		stack = stack[:len(stack)-1]
		drawn = append(drawn, row{
			program: t.Run, depth: t.depth, Title: process(&t.Program), Label: label(&t.Program),
		})
		for _, p := range slices.Backward(children[t.ID]) {
			stack = append(stack, todo{p, t.depth + 1})
		}
	}
	return drawn, omitted
}

// label is a program's name in the little room of the drawing.
func label(p *audit.Program) string {
	const most = 34
	s := fmt.Sprintf("%d %s", p.PID, commandLine(p.Argv))
	if len(p.Argv) == 0 {
		s = fmt.Sprintf("%d %s", p.PID, program(p))
	}
	if r := []rune(s); len(r) > most {
		return string(r[:most-1]) + "…"
	}
	return s
}

// scale maps times to places.
type scale struct{ first, last int64 }

func newScale(rows []row, findings []audit.Finding) scale {
	var all []int64
	for i := range rows {
		all = append(all, rows[i].program.Started, rows[i].program.Ended)
	}
	for i := range findings {
		f := &findings[i]
		all = append(all, f.Creation.Time)
		if f.Receipt != nil {
			all = append(all, f.Receipt.Time)
		}
		if f.Window != nil {
			all = append(all, f.Creation.Time+int64(f.Window.Length))
		}
	}
	all = slices.DeleteFunc(all, func(t int64) bool { return t <= 0 })
	if len(all) == 0 {
		return scale{0, 1}
	}
	s := scale{slices.Min(all), slices.Max(all)}
	s.last = max(s.last, s.first+1)
	return s
}

func (s *scale) x(t int64) int {
	t = min(max(t, s.first), s.last)
	const width = chartWidth - chartLeft - endRoom
	return chartLeft + int(float64(t-s.first)/float64(s.last-s.first)*width)
}

// ticks divides the time by round numbers.
func (s *scale) ticks() []tick {
	const most = 8
	units := []struct {
		size int64
		name string
	}{{1, "ns"}, {1e3, "µs"}, {1e6, "ms"}, {1e9, "s"}}
	length := s.last - s.first
	step := int64(1)
	for _, factor := range []int64{1, 2, 5} {
		at := factor
		for length/at > most && at < 1<<58 {
			at *= 10
		}
		if step == 1 && factor == 1 || at < step {
			step = at
		}
	}
	unit := units[0]
	for _, u := range units {
		if step >= u.size {
			unit = u
		}
	}
	var all []tick
	for t := int64(0); t <= length && len(all) <= most+1; t += step {
		all = append(all, tick{s.x(s.first + t), fmt.Sprintf("%d %s", t/unit.size, unit.name)})
	}
	return all
}

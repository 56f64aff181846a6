package report

import (
	"slices"
	"strings"
	"testing"

	"golang.org/x/net/html"

	"github.com/seed-055cd0c8/indirect/audit"
)

// pageOf parses a page as browsers do.
func pageOf(t *testing.T, r *audit.Report) *html.Node {
	t.Helper()
	root, err := html.Parse(strings.NewReader(printed(t, "html", r, Options{Show: audit.Kinds()})))
	if err != nil {
		t.Fatal(err)
	}
	return root
}

func attribute(n *html.Node, name string) string {
	for _, a := range n.Attr {
		if a.Key == name {
			return a.Val
		}
	}
	return ""
}

// elements lists the elements of the given name.
func elements(root *html.Node, name string) (all []*html.Node) {
	for n := range root.Descendants() {
		if n.Type == html.ElementNode && n.Data == name {
			all = append(all, n)
		}
	}
	return all
}

// content is the text in a node.
func content(root *html.Node) string {
	var b strings.Builder
	for n := range root.Descendants() {
		if n.Type == html.TextNode {
			b.WriteString(n.Data)
		}
	}
	return b.String()
}

// TestPage checks that a page needs no network and runs nothing but our script,
// whatever the strings hold.
func TestPage(t *testing.T) {
	for name, r := range map[string]*audit.Report{
		"usual": classified(usual(), "service"), "hostile": classified(hostile(), "</title><script>"), "empty": classified(nil, "true"), "zero": {},
	} {
		t.Run(name, func(t *testing.T) {
			root := pageOf(t, r)
			known := []string{
				"html", "head", "meta", "title", "style", "body", "h1", "h2", "p", "code", "span", "b", "div", "svg", "g", "a",
				"path", "line", "text", "rect", "circle", "details", "summary", "ul", "li", "script",
			}
			for n := range root.Descendants() {
				if n.Type != html.ElementNode {
					continue
				}
				if !slices.Contains(known, n.Data) {
					t.Errorf("there is an element %q", n.Data)
				}
				for _, a := range n.Attr {
					if a.Key == "style" || a.Key == "src" || strings.HasPrefix(a.Key, "on") || a.Key == "href" && !strings.HasPrefix(a.Val, "#") {
						t.Errorf("%s has %s=%q", n.Data, a.Key, a.Val)
					}
				}
			}
			scripts, styles := elements(root, "script"), elements(root, "style")
			if len(scripts) != 1 || len(styles) != 1 {
				t.Fatalf("%d scripts, %d styles", len(scripts), len(styles))
			}
			security := attribute(elements(root, "meta")[1], "content")
			for _, n := range []*html.Node{scripts[0], styles[0]} {
				if h := hash(content(n)); !strings.Contains(security, h) {
					t.Errorf("the page's own %s is not allowed: %s is not in %q", n.Data, h, security)
				}
			}
			if !strings.HasPrefix(security, "default-src 'none'; ") {
				t.Errorf("the policy is %q", security)
			}
		})
	}
}

// TestDrawing checks that each finding has its way, and each way a name, a
// shape and words, which keyboards and screen readers reach.
func TestDrawing(t *testing.T) {
	r := classified(usual(), "service")
	root := pageOf(t, r)
	targets := make(map[string]string) // kinds, by ID
	for _, n := range elements(root, "details") {
		targets["#"+attribute(n, "id")] = attribute(n, "class")
		if len(elements(n, "summary")) != 1 || len(elements(n, "li")) < 3 {
			t.Errorf("a finding says only %q", content(n))
		}
	}
	ways := elements(elements(root, "svg")[0], "a")
	if len(ways) != len(r.Findings) || len(targets) != len(r.Findings) {
		t.Fatalf("%d ways and %d descriptions of %d findings", len(ways), len(targets), len(r.Findings))
	}
	for _, way := range ways {
		kind := strings.TrimPrefix(attribute(way, "class"), "way ")
		if targets[attribute(way, "href")] != kind {
			t.Errorf("a %s leads to %q", kind, attribute(way, "href"))
		}
		words := content(way)
		if attribute(way, "aria-label") == "" || !strings.Contains(words, shapes[audit.Kind(kind)]) || !strings.Contains(words, kind+" ") {
			t.Errorf("a %s shows only %q", kind, words)
		}
	}
	for _, n := range elements(root, "g") {
		if title := content(elements(n, "title")[0]); !strings.HasPrefix(title, "process ") {
			t.Errorf("a program is called %q", title)
		}
	}
}

// TestLayout checks that what is drawn is within the drawing.
func TestLayout(t *testing.T) {
	for name, events := range map[string][]audit.Event{"usual": usual(), "hostile": hostile(), "none": nil} {
		r := classified(events)
		c := draw(r.Programs, r.Findings)
		for _, row := range c.Rows {
			if row.X < c.Left || row.X+row.Width > c.Width || row.Y+row.Height > c.Height || row.Width < 1 {
				t.Errorf("%s: a program at %d,%d with %dx%d", name, row.X, row.Y, row.Width, row.Height)
			}
			if row.HasParent && row.ParentY >= row.Middle {
				t.Errorf("%s: a program stands above the one that started it", name)
			}
		}
		for _, w := range c.Ways {
			if w.X < c.Left || w.EX > c.Width || w.X > w.EX || w.Y > c.Height || w.EY > c.Height {
				t.Errorf("%s: a way from %d,%d to %d,%d", name, w.X, w.Y, w.EX, w.EY)
			}
		}
		if len(c.Ticks) > 10 {
			t.Errorf("%s: %d ticks", name, len(c.Ticks))
		}
	}
}

func TestTicks(t *testing.T) {
	tests := map[int64][]string{
		1:              {"0 ns", "1 ns"},
		120_000_000:    {"0 ms", "20 ms", "40 ms", "60 ms", "80 ms", "100 ms", "120 ms"},
		1_500_000:      {"0 µs", "200 µs", "400 µs", "600 µs", "800 µs", "1000 µs", "1200 µs", "1400 µs"},
		25_000_000_000: {"0 s", "5 s", "10 s", "15 s", "20 s", "25 s"},
	}
	for length, want := range tests {
		s := scale{7, 7 + length}
		var got []string
		for _, tick := range s.ticks() {
			got = append(got, tick.Text)
		}
		if !slices.Equal(got, want) {
			t.Errorf("%d ns: %q, want %q", length, got, want)
		}
	}
	long := scale{-1 << 62, 1 << 62} // more than an int64 holds
	if n := len(long.ticks()); n > 12 {
		t.Errorf("%d ticks", n)
	}
}

package report

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"image/png"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/seed-055cd0c8/indirect/audit"
)

// browser is a headless Chromium that shows one page, steered by the Chrome
// DevTools Protocol over its pipes: JSON messages that end with a zero byte.
type browser struct {
	t       *testing.T
	to      *os.File
	from    *bufio.Reader
	id      int
	session string
	events  []message // what it said of its own accord
}

type message struct {
	ID     int             `json:"id"`
	Method string          `json:"method"`
	Params json.RawMessage `json:"params"`
	Result json.RawMessage `json:"result"`
	Error  json.RawMessage `json:"error"`
}

// open starts a browser that shows the page.
func open(t *testing.T, page string) *browser {
	t.Helper()
	chromium, err := exec.LookPath("chromium")
	if err != nil {
		t.Skip("chromium is not installed")
	}
	dir := t.TempDir()
	file := filepath.Join(dir, "page.html")
	if err := os.WriteFile(file, []byte(page), 0o644); err != nil {
		t.Fatal(err)
	}
	theirs, to, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	from, theirsToo, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	command := exec.CommandContext(ctx, chromium, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
		"--user-data-dir="+filepath.Join(dir, "profile"), "--window-size=1200,900", "--remote-debugging-pipe")
	command.ExtraFiles = []*os.File{theirs, theirsToo}
	command.Env = append(os.Environ(), "HOME="+dir)
	// Its processes share one pipe, so that Wait waits for the last of them:
	// until then they may write to the profile, which is to be removed.
	var said bytes.Buffer
	command.Stdout, command.Stderr = &said, &said
	command.WaitDelay = time.Minute
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	theirs.Close()
	theirsToo.Close()
	b := &browser{t: t, to: to, from: bufio.NewReader(from)}
	t.Cleanup(func() {
		cancel()
		_ = command.Wait()
		to.Close()
		from.Close()
		if t.Failed() {
			t.Logf("the browser said:\n%s", &said)
		}
	})
	var target struct{ TargetID, SessionID string }
	b.call("Target.createTarget", map[string]any{"url": "about:blank"}, &target)
	b.call("Target.attachToTarget", map[string]any{"targetId": target.TargetID, "flatten": true}, &target)
	b.session = target.SessionID
	for _, domain := range []string{"Page", "Runtime", "Network", "Log"} {
		b.call(domain+".enable", nil, nil)
	}
	b.call("Page.navigate", map[string]any{"url": "file://" + file}, nil)
	b.until("document.readyState === 'complete' && document.querySelector('svg') !== null")
	return b
}

// call runs one method of the protocol.
func (b *browser) call(method string, params map[string]any, result any) {
	b.t.Helper()
	b.id++
	request := map[string]any{"id": b.id, "method": method, "params": params}
	if params == nil {
		request["params"] = struct{}{}
	}
	if b.session != "" {
		request["sessionId"] = b.session
	}
	line, err := json.Marshal(request)
	if err != nil {
		b.t.Fatal(err)
	}
	if _, err := b.to.Write(append(line, 0)); err != nil {
		b.t.Fatalf("%s: %v", method, err)
	}
	for {
		line, err := b.from.ReadBytes(0)
		if err != nil {
			b.t.Fatalf("%s: %v", method, err)
		}
		var m message
		if err := json.Unmarshal(bytes.TrimSuffix(line, []byte{0}), &m); err != nil {
			b.t.Fatal(err)
		}
		switch {
		case m.ID == 0:
			b.events = append(b.events, m)
		case m.Error != nil:
			b.t.Fatalf("%s: %s", method, m.Error)
		case m.ID == b.id:
			if result != nil {
				if err := json.Unmarshal(m.Result, result); err != nil {
					b.t.Fatal(err)
				}
			}
			return
		}
	}
}

// value evaluates an expression in the page.
func (b *browser) value(expression string) string {
	b.t.Helper()
	var r struct{ Result struct{ Value any } }
	b.call("Runtime.evaluate", map[string]any{"expression": "String(" + expression + ")"}, &r)
	return fmt.Sprint(r.Result.Value)
}

// until waits for a condition.
func (b *browser) until(condition string) {
	b.t.Helper()
	for range 1500 {
		if b.value(condition) == "true" {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	b.t.Fatalf("it never holds that %s", condition)
}

// press types a key.
func (b *browser) press(key string, code int, text string) {
	b.t.Helper()
	for _, kind := range []string{"keyDown", "keyUp"} {
		params := map[string]any{"type": kind, "key": key, "code": key, "windowsVirtualKeyCode": code}
		if kind == "keyDown" && text != "" {
			params["text"] = text
		}
		b.call("Input.dispatchKeyEvent", params, nil)
	}
}

// TestBrowser uses a page as people do, with the keyboard and the mouse.
func TestBrowser(t *testing.T) {
	r := classified(usual(), "service")
	b := open(t, printed(t, "html", r, Options{Show: audit.Kinds()}))

	// The keyboard reaches every line of the drawing, and opens its finding.
	for i := range r.Findings {
		b.press("Tab", 9, "")
		b.until("document.activeElement.classList.contains('way')")
		way := b.value("document.activeElement.getAttribute('href')")
		if want := fmt.Sprintf("document.querySelectorAll('.way')[%d].getAttribute('href')", i); b.value(want) != way {
			t.Errorf("key %d leads to %s, the drawing has %s", i, way, b.value(want))
		}
		b.press("Enter", 13, "\r")
		b.until(fmt.Sprintf("document.querySelector(%q).open", way))
		b.until("document.activeElement.tagName === 'SUMMARY'")
		if chosen := b.value("document.querySelectorAll('.way.chosen').length"); chosen != "1" {
			t.Errorf("%s lines are chosen", chosen)
		}
		b.value(fmt.Sprintf("(document.querySelectorAll('.way')[%d].focus(), 0)", i))
	}

	// So does the mouse, also if the finding was closed again.
	first := "document.querySelector(document.querySelector('.way').getAttribute('href'))"
	b.value("(" + first + ".open = false)")
	var at struct{ X, Y float64 }
	position := b.value("(() => { const m = document.querySelector('.way .mark'); m.scrollIntoView(); const r = m.getBoundingClientRect(); return JSON.stringify({X: r.x + r.width / 2, Y: r.y + r.height / 2}) })()")
	if err := json.Unmarshal([]byte(position), &at); err != nil {
		t.Fatal(err)
	}
	for _, kind := range []string{"mousePressed", "mouseReleased"} {
		b.call("Input.dispatchMouseEvent", map[string]any{"type": kind, "x": at.X, "y": at.Y, "button": "left", "clickCount": 1}, nil)
	}
	b.until(first + ".open")

	// Kinds differ by more than their colour.
	if b.value("new Set([...document.querySelectorAll('.way')].map(w => w.className.baseVal.split(' ')[1] + w.querySelector('.mark').textContent)).size") !=
		b.value("new Set([...document.querySelectorAll('.way .mark')].map(m => m.textContent)).size") {
		t.Error("two kinds share a shape")
	}
	if b.value("getComputedStyle(document.querySelector('.way.leak .line')).stroke") == b.value("getComputedStyle(document.querySelector('.way:not(.leak) .line')).stroke") {
		t.Error("a leak has the colour of another kind")
	}

	// Everything is drawn, and the page does not scroll sideways.
	var shot struct{ Data string }
	b.call("Page.captureScreenshot", map[string]any{"format": "png"}, &shot)
	data, err := base64.StdEncoding.DecodeString(shot.Data)
	if err != nil {
		t.Fatal(err)
	}
	picture, err := png.Decode(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	colours := make(map[[3]uint32]bool)
	for y := range picture.Bounds().Dy() {
		for x := range picture.Bounds().Dx() {
			r, g, b, _ := picture.At(x, y).RGBA()
			colours[[3]uint32{r, g, b}] = true
		}
	}
	if len(colours) < 10 {
		t.Errorf("the picture has %d colours", len(colours))
	}
	if b.value("document.documentElement.scrollWidth <= document.documentElement.clientWidth") != "true" {
		t.Error("the page is wider than the window")
	}

	// It asks for nothing but itself, and complains of nothing.
	for _, e := range b.events {
		switch e.Method {
		case "Network.requestWillBeSent":
			var p struct{ Request struct{ URL string } }
			if err := json.Unmarshal(e.Params, &p); err != nil || !strings.HasPrefix(p.Request.URL, "file://") {
				t.Errorf("it asks for %q (%v)", p.Request.URL, err)
			}
		case "Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Log.entryAdded":
			t.Errorf("it says %s %s", e.Method, e.Params)
		}
	}
}

package fdcall

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func ids(s Selection) []string {
	var ids []string
	for _, c := range s.Calls {
		ids = append(ids, c.ID())
	}
	for _, a := range s.Added {
		ids = append(ids, a.Name)
	}
	return ids
}

func TestSelect(t *testing.T) {
	table := Linux()
	for _, tt := range []struct {
		category string
		names    []string
		want     []string
		err      string
	}{
		{category: "overloads-argument", want: []string{"socket", "socketpair", "socketcall SYS_SOCKET", "socketcall SYS_SOCKETPAIR"}},
		{category: "caller-chooses", want: []string{"dup2", "dup3"}},
		{category: "never-cloexec", want: []string{"ioctl KVM_CREATE_GUEST_MEMFD"}},
		{names: []string{"fcntl"}, want: []string{"fcntl F_DUPFD", "fcntl F_DUPFD_CLOEXEC"}},
		{names: []string{"pipe2", "open", "pipe2"}, want: []string{"open", "pipe2"}}, // the table's order
		{category: "added", want: []string{"indirect", "syslet_ring_wait", "socket4", "socketpair5", "paccept", "epoll_create2", "nonseqfd", "socket2"}},
		{names: []string{"indirect", "pipe"}, want: []string{"pipe", "indirect"}},
		{names: []string{"fcntl F_DUPFD"}, want: []string{"fcntl F_DUPFD"}},
		{category: "always-cloexec", names: []string{"fcntl", "pipe"}, want: []string{"fcntl F_DUPFD_CLOEXEC"}},
		{category: "new-call", names: []string{"open"}},
		{category: "new-calls", err: `no category "new-calls"; the categories are overloads-argument, has-flags, alternative, new-call, caller-chooses, always-cloexec, never-cloexec, added`},
		{names: []string{"pipe", "opennat"}, err: `no call "opennat" in the table; did you mean openat, openat2?`},
		{names: []string{"OPENAT"}, err: `no call "OPENAT" in the table; did you mean openat, openat2, open?`},
		{names: []string{"frobnicate"}, err: `no call "frobnicate" in the table, and none with a name like it`},
		{names: []string{""}, err: `no call "" in the table, and none with a name like it`},
	} {
		calls, err := table.Select(tt.category, tt.names...)
		if tt.err != "" {
			if err == nil || err.Error() != tt.err {
				t.Errorf("%q %q: error %v, want %s", tt.category, tt.names, err, tt.err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%q %q: %v", tt.category, tt.names, err)
		}
		if d := cmp.Diff(tt.want, ids(calls)); d != "" {
			t.Errorf("%q %q (-want +got):\n%s", tt.category, tt.names, d)
		}
	}
	all, err := table.Select("")
	if err != nil || len(all.Calls) != len(table.All()) || len(all.Added) != len(AddedCalls()) {
		t.Errorf("%d of %d rows, %d added calls, %v", len(all.Calls), len(table.All()), len(all.Added), err)
	}
}

func TestSelectTakesAnyName(t *testing.T) {
	table := Linux()
	rapid.Check(t, func(t *rapid.T) {
		name := rapid.String().Draw(t, "name")
		if calls, err := table.Select("", name); err == nil && len(calls.Calls)+len(calls.Added) == 0 {
			t.Fatalf("%q: neither rows nor an error", name)
		}
	})
}

func TestClassNames(t *testing.T) {
	for _, c := range Classes() {
		if s, err := Linux().Select(c.String()); err != nil || len(s.Calls) == 0 || s.Calls[0].Class != c {
			t.Errorf("%s selects %v, %v", c, s, err)
		}
		if c.Meaning() == "" {
			t.Errorf("%s has no meaning", c)
		}
	}
	if Class(99).String() != "unknown-class" || Class(99).Meaning() != "" || Gives(99).String() != "unknown" || ABI(99).String() != "unknown ABI" {
		t.Error("a value out of range has a name")
	}
}

func TestWrite(t *testing.T) {
	calls, err := Linux().Select("", "pipe", "fcntl F_DUPFD", "openat2", "indirect", "socket4")
	if err != nil {
		t.Fatal(err)
	}
	for format, want := range map[string]string{
		"table": `
CALL           CATEGORY     AMD64  I386  ARM64  X32  GIVES         FLAGS            CLOEXEC  NONBLOCK  RUN INSTEAD            SINCE  CLOEXEC SINCE
openat2        has-flags    437    437   437    437  return-value  arg 2 in memory  0x80000  0x800     -                      5.6    5.6
pipe           new-call     22     42    -      22   pair          -                -        -         pipe2                  1.0    -
fcntl F_DUPFD  alternative  72     55    25     72   return-value  -                -        -         fcntl F_DUPFD_CLOEXEC  1.0    -

ADDED CALL  NUMBER  FORMER AMD64  FORMER I386  RUNS    PROTOTYPE
indirect    2007    286           325          -       indirect(const struct indirect_registers *regs, const void *params, size_t paramslen, int flags)
socket4     2009    -             -            socket  socket4(int domain, int type, int protocol, int flags)
`,
		"markdown": `
| call | category | amd64 | i386 | arm64 | x32 | gives | flags | cloexec | nonblock | run instead | since | cloexec since | note |
| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |
| openat2 | has-flags | 437 | 437 | 437 | 437 | return-value | arg 2 in memory | 0x80000 | 0x800 | - | 5.6 | 5.6 | the flags are in struct open\_how, in memory that other threads can write: run the call on a copy (openat2(2)) |
| pipe | new-call | 22 | 42 | - | 22 | pair | - | - | - | pipe2 | 1.0 | - | pipe(2) |
| fcntl F\_DUPFD | alternative | 72 | 55 | 25 | 72 | return-value | - | - | - | fcntl F\_DUPFD\_CLOEXEC | 1.0 | - | argument 2 is the lowest number that will do (fcntl(2)) |

| added call | number | former amd64 | former i386 | runs | prototype | note |
| --- | --- | --- | --- | --- | --- | --- |
| indirect | 2007 | 286 | 325 | - | indirect(const struct indirect\_registers \*regs, const void \*params, size\_t paramslen, int flags) | Drepper, https://lwn.net/Articles/259475/ |
| socket4 | 2009 | - | - | socket | socket4(int domain, int type, int protocol, int flags) | Drepper, https://lwn.net/Articles/282211/ |
`,
	} {
		var b bytes.Buffer
		if err := Write(&b, format, calls); err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(strings.TrimPrefix(want, "\n"), b.String()); d != "" {
			t.Errorf("%s (-want +got):\n%s", format, d)
		}
	}
	err = Write(new(bytes.Buffer), "xml", calls)
	if err == nil || err.Error() != `no format "xml"; the formats are table, json, markdown` {
		t.Error(err)
	}
	for _, f := range Formats() {
		if err := Write(broken{}, f, calls); !errors.Is(err, errBroken) {
			t.Errorf("%s to a broken writer: %v", f, err)
		}
	}
}

var errBroken = errors.New("broken")

type broken struct{}

func (broken) Write([]byte) (int, error) { return 0, errBroken }

func TestWriteJSON(t *testing.T) {
	table := Linux()
	calls, err := table.Select("", "pipe", "socketcall SYS_ACCEPT", "mq_open", "recvmsg")
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := Write(&b, "json", calls); err != nil {
		t.Fatal(err)
	}
	var got any
	if err := json.Unmarshal(b.Bytes(), &got); err != nil {
		t.Fatal(err)
	}
	type object = map[string]any
	type list = []any
	want := object{"version": 1.0, "calls": list{
		object{
			"id": "mq_open", "name": "mq_open", "category": "always-cloexec", "gives": "return-value",
			"numbers": object{"amd64": 240.0, "i386": 277.0, "arm64": 180.0, "x32": 1<<30 + 240.0},
			"flags":   object{"arg": 1.0, "nonblock": 2048.0, "nonblock_since": "2.6.6"},
			"since":   "2.6.6", "source": "mq_overview(7), ipc/mqueue.c",
		},
		object{
			"id": "pipe", "name": "pipe", "category": "new-call", "gives": "pair", "gives_arg": 0.0,
			"numbers": object{"amd64": 22.0, "i386": 42.0, "x32": 1<<30 + 22.0},
			"upgrade": object{"to": "pipe2", "args": list{object{"from": 0.0}}},
			"since":   "1.0", "source": "pipe(2)",
		},
		object{
			"id": "recvmsg", "name": "recvmsg", "category": "has-flags", "gives": "control-message", "gives_arg": 1.0, "shares": true, "cancels": true,
			"numbers": object{"amd64": 47.0, "i386": 372.0, "arm64": 212.0, "x32": 1<<30 + 519.0},
			"flags":   object{"arg": 2.0, "cloexec": 1.0 * 0x40000000, "cloexec_since": "2.6.23"},
			"since":   "2.2", "source": "recvmsg(2), unix(7)", "note": table.ByID("recvmsg").Note,
		},
		object{
			"id": "socketcall SYS_ACCEPT", "name": "socketcall", "op": "SYS_ACCEPT", "category": "new-call", "gives": "return-value",
			"block": true, "cancels": true, "numbers": object{"i386": 102.0},
			"when":    list{object{"arg": 0.0, "mask": 1.0 * 0xffffffff, "value": 5.0}},
			"upgrade": object{"to": "accept4", "args": list{object{"from": 0.0}, object{"from": 1.0}, object{"from": 2.0}}},
			"since":   "1.0", "source": "socketcall(2)", "note": table.ByID("socketcall SYS_ACCEPT").Note,
		},
	}}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}

	b.Reset()
	if err := Write(&b, "json", Selection{}); err != nil || b.String() != "{\n  \"version\": 1,\n  \"calls\": []\n}\n" {
		t.Errorf("no rows: %q, %v", b.String(), err)
	}
}

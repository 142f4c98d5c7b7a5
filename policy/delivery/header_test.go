package delivery

import (
	"bytes"
	"io"
	"net/netip"
	"regexp"
	"strings"
	"testing"
	"testing/iotest"
	"time"
)

var (
	headerSection  = regexp.MustCompile(`^(?:[!-9;-~]+[ \t]*:[^\n]*(?:\n|$)(?:[ \t][^\n]*(?:\n|$))*)*`)
	routeFields    = regexp.MustCompile(`(?im)^X-Postseal-Route[ \t]*:[^\n]*(?:\n|\z)(?:[ \t][^\n]*(?:\n|\z))*`)
	receivedFields = regexp.MustCompile(`(?im)^Received[ \t]*:[^\n]*(?:\n|\z)(?:[ \t][^\n]*(?:\n|\z))*`)
)

func newBody(t testing.TB, text []byte, r func(io.Reader) io.Reader) *body {
	b := &body{budget: new(budget), limit: 1 << 20}
	if err := b.receive(r(bytes.NewReader(text)), 1<<30); err != nil {
		t.Fatal(err)
	}
	return b
}

// FuzzHeader compares the scan with regular expressions.
func FuzzHeader(f *testing.F) {
	for _, s := range []string{
		"A: b\r\n\r\ntext", "X-Postseal-Route: a\r\n b\r\nB: c\r\n\r\nX-Postseal-Route: d\r\n", " folded at once\r\n", "no header", "a:\r\n\t\r\n",
		"Received: by x\r\nreceived :\r\n y\r\n\r\n", "x-postseal-route\t: 1", "A b: c\r\n", ":\r\n", "A:\nB:\n", "\r\n",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		for line := range bytes.SplitSeq(text, []byte("\n")) {
			if len(line) > 4000 {
				return // a name longer than the buffer is none
			}
		}
		b := newBody(t, text, func(r io.Reader) io.Reader { return r })
		defer b.Close()
		clean, err := io.ReadAll(b.lines(0, b.size))
		if err != nil || len(clean) != len(text) {
			t.Fatalf("%d of %d octets, %v", len(clean), len(text), err)
		}
		head := headerSection.Find(clean)
		hops := receivedFields.FindAll(head, -1)
		h, err := scanHeader(bytes.NewReader(clean), "h")
		if err == errTooManyRoutes {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		if h.hops != len(hops) {
			t.Errorf("%d hops, want %d", h.hops, len(hops))
		}
		want := "front" + string(routeFields.ReplaceAll(head, nil)) + string(clean[len(head):])
		if len(text) > 0 && !bytes.HasSuffix(clean, []byte("\r\n")) {
			want += "\r\n"
		}
		e := edit("front", b, h.routes)
		got, err := io.ReadAll(iotest.OneByteReader(e.Open()))
		if err != nil || string(got) != want || e.Size() != int64(len(got)) {
			t.Errorf("%v\ngot  %q\nwant %q\nsize %d", err, got, want, e.Size())
		}
	})
}

// FuzzBody reads a text in any pieces.
func FuzzBody(f *testing.F) {
	for _, s := range []string{"", "a\r\nb", "\r", "\n", "\r\r\n", "\r\n\r\n", "a\rb\nc"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		stray := bytes.ContainsAny(bytes.ReplaceAll(text, []byte("\r\n"), nil), "\r\n")
		for _, r := range []func(io.Reader) io.Reader{iotest.OneByteReader, iotest.HalfReader, iotest.DataErrReader} {
			b := newBody(t, text, r)
			got, err := io.ReadAll(b.Open())
			if err != nil || !bytes.Equal(got, text) || b.stray != stray {
				t.Errorf("%q, %v, stray %t, want %q, %t", got, err, b.stray, text, stray)
			}
			b.Close()
		}
	})
}

func TestScanHeader(t *testing.T) {
	long := strings.Repeat("x", 3*firstPiece)
	cases := []struct {
		name, text string
		routes     []span
		received   string
		messageID  string
	}{
		{"lines longer than the buffer", "A: " + long + "\r\n " + long + "\r\nX-Postseal-Route: " + long + "\r\nB:\r\n\r\n",
			[]span{{int64(2*len(long) + 8), int64(3*len(long) + 8 + len("X-Postseal-Route: \r\n"))}}, "", ""},
		{"a Received field is cut", "Received: " + long, nil, "Received: " + long[:maxReceived-len("Received: ")], ""},
		{"only the first", "Received: a\r\n\t \tb\r\nReceived: c\r\n", nil, "Received: a b", ""},
		{"RPT-077 a Message-ID in a line of its own", "A: b\r\nMESSAGE-ID:\r\n <a@b>\r\nB: c\r\nMessage-ID: <d@e>\r\n", nil, "", "<a@b>"},
		{"RPT-077 the Message-ID of an attached message", "A: b\r\n\r\nMessage-ID: <d@e>\r\n", nil, "", ""},
		{"RPT-077 a Message-ID is cut", "Message-ID: " + long, nil, "", long[:maxReceived-len("Message-ID: ")]},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			h, err := scanHeader(strings.NewReader(c.text), "h")
			if err != nil || h.received != c.received || h.messageID != c.messageID || len(h.routes) != len(c.routes) {
				t.Fatalf("%+v, %v", h, err)
			}
			for i, r := range c.routes {
				if h.routes[i] != r {
					t.Errorf("cut %v, want %v", h.routes[i], r)
				}
			}
		})
	}
	if _, err := scanHeader(iotest.ErrReader(io.ErrClosedPipe), "h"); err != io.ErrClosedPipe {
		t.Error(err)
	}
}

func TestTrace(t *testing.T) {
	at := time.Date(2026, 11, 28, 1, 2, 3, 0, time.FixedZone("", 3600))
	cases := map[string]trace{
		"Received: from a (local)\r\n\tby h (postseal) with LMTP id 1; Sat, 28 Nov 2026 01:02:03 +0100\r\n": {helo: "a", hostname: "h", id: "1", at: at},
		"Received: from a ([IPv6:::1])\r\n\tby h (postseal) with UTF8LMTPS id 1\r\n\tfor <x@y>; Sat, 28 Nov 2026 01:02:03 +0100\r\n": {
			helo: "a", hostname: "h", id: "1", at: at, tls: true, utf8: true, recipient: "x@y", peer: netip.MustParseAddr("::1"),
		},
	}
	for want, c := range cases {
		if got := c.String(); got != want {
			t.Errorf("got  %q\nwant %q", got, want)
		}
	}
}

func TestBodyFailures(t *testing.T) {
	b := &body{budget: new(budget), limit: 100, dir: t.TempDir()} // too small for memory
	if err := b.receive(strings.NewReader("text"), 100); err != nil || b.file == nil {
		t.Fatal(err)
	}
	b.Close()
	if _, err := io.ReadAll(b.Open()); err == nil {
		t.Error("a closed body can be read")
	}
	b = &body{budget: new(budget), limit: 1 << 20}
	if err := b.receive(strings.NewReader(strings.Repeat("x", 101)), 100); err != errTooLarge {
		t.Error(err)
	}
	if err := b.receive(iotest.ErrReader(io.ErrClosedPipe), 1<<20); err != io.ErrClosedPipe {
		t.Error(err)
	}
	if b.Close(); b.budget.used.Load() != 0 {
		t.Error("memory is not given back")
	}
}

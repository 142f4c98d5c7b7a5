package delivery_test

import (
	"context"
	"io"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"

	"postseal/policy/delivery"
	"postseal/policy/delivery/ledger"
	"postseal/policy/requiretls"
	"postseal/policy/smtpclient"
)

// send hands a text over as DATA, with its dots doubled, and returns what became of it.
func (d *door) send(text string) *delivery.Message {
	d.t.Helper()
	c := d.greeted()
	c.begin("a@example.net")
	c.data(text)
	c.want(delivered)
	c.ask("QUIT", "221 2.0.0 Bye")
	d.mu.Lock()
	defer d.mu.Unlock()
	m := d.have[len(d.have)-1]
	d.have = nil
	h := ledger.NewHash()
	io.WriteString(h, m.Original)
	if m.Digest != h.Digest() {
		d.t.Error("the digest is not that of what was received")
	}
	if int64(len(m.Content)) != m.Size {
		d.t.Errorf("content has %d octets, said to be %d", len(m.Content), m.Size)
	}
	return m
}

// ours is the Received line in front.
var ours = regexp.MustCompile(`^Received: from mail\.example\.com \((local|\[127\.0\.0\.1\])\)\r\n\tby relay\.example\.com \(postseal\) with (UTF8)?LMTPS? id [a-z0-9]+(\r\n\tfor <a@example\.net>)?; \w{3}, \d{1,2} \w{3} \d{4} \d\d:\d\d:\d\d [+-]\d{4}\r\n`)

// rest returns the content behind our line.
func rest(t testing.TB, m *delivery.Message) string {
	t.Helper()
	line := ours.FindString(m.Content)
	if line == "" {
		t.Fatalf("no Received line of ours in front: %q", m.Content)
	}
	return m.Content[len(line):]
}

func TestText(t *testing.T) {
	d := openUnix(t, &delivery.Server{})
	cases := []struct{ name, sent, original, content string }{
		{"plain", "A: b\r\n\r\ntext\r\n", "A: b\r\n\r\ntext\r\n", "A: b\r\n\r\ntext\r\n"},
		{"empty", "", "", ""},
		{"no header", "\r\ntext\r\n", "\r\ntext\r\n", "\r\ntext\r\n"},
		{"8 bit and NUL", "\r\n\x00\xff\xfe\r\n", "\r\n\x00\xff\xfe\r\n", "\r\n\x00\xff\xfe\r\n"},
		{"SMTP-084 dots", "\r\n..\r\n...\r\n..x\r\n.\x00\r\n", "\r\n.\r\n..\r\n.x\r\n\x00\r\n", "\r\n.\r\n..\r\n.x\r\n\x00\r\n"},
		{"SMTP-084 in front", "..\r\n", ".\r\n", ".\r\n"},
		{"SMTP-083 LF dot LF is text", "\r\na\n.\nb\r\n", "\r\na\n.\nb\r\n", "\r\na . b\r\n"},
		{"SMTP-083 LF dot CR LF is text", "\r\na\n.\r\nb\r\n", "\r\na\n.\r\nb\r\n", "\r\na .\r\nb\r\n"},
		{"SMTP-083 CR LF dot LF is text", "\r\na\r\n.\nb\r\n", "\r\na\r\n\nb\r\n", "\r\na\r\n b\r\n"},
		{"SMTP-083 CR dot CR is text", "\r\na\r.\rb\r\n", "\r\na\r.\rb\r\n", "\r\na . b\r\n"},
		{"SMTP-083 dot CR is text", "\r\n.\rb\r\n", "\r\n\rb\r\n", "\r\n b\r\n"},
		{"SMTP-083 the end behind CR CR LF", "\r\na\r\r\n", "\r\na\r\r\n", "\r\na \r\n"},
		{"SMTP-083 bare CR", "A: b\rc\r\n\r\n", "A: b\rc\r\n\r\n", "A: b c\r\n\r\n"},
		{"SMTP-083 bare LF hides no field", "A: b\nX-Postseal-Route: relaxed\r\n\r\n", "A: b\nX-Postseal-Route: relaxed\r\n\r\n", "A: b X-Postseal-Route: relaxed\r\n\r\n"},
		{"long line", "\r\n" + strings.Repeat("x", 100_000) + "\r\n", "\r\n" + strings.Repeat("x", 100_000) + "\r\n", "\r\n" + strings.Repeat("x", 100_000) + "\r\n"},
		{"dot in the middle of the buffer", "\r\n" + strings.Repeat("y", 1<<14-2) + ".\r\n..\r\n", "\r\n" + strings.Repeat("y", 1<<14-2) + ".\r\n.\r\n", "\r\n" + strings.Repeat("y", 1<<14-2) + ".\r\n.\r\n"},
		{"the tag goes", "A: 1\r\nX-Postseal-Route: requiretls\r\nB: 2\r\n\r\n", "A: 1\r\nX-Postseal-Route: requiretls\r\nB: 2\r\n\r\n", "A: 1\r\nB: 2\r\n\r\n"},
		{"folded, in any case, with blanks, and twice", "x-postseal-ROUTE \t:\r\n requiretls\r\n\trelaxed\r\nB: 2\r\nX-Postseal-Route: relaxed\r\n\r\nX-Postseal-Route: body\r\n",
			"x-postseal-ROUTE \t:\r\n requiretls\r\n\trelaxed\r\nB: 2\r\nX-Postseal-Route: relaxed\r\n\r\nX-Postseal-Route: body\r\n",
			"B: 2\r\n\r\nX-Postseal-Route: body\r\n"},
		{"other names stay", "X-Postseal-Routes: a\r\nX-Postseal: b\r\nX-X-Postseal-Route: c\r\n\r\n", "X-Postseal-Routes: a\r\nX-Postseal: b\r\nX-X-Postseal-Route: c\r\n\r\n", "X-Postseal-Routes: a\r\nX-Postseal: b\r\nX-X-Postseal-Route: c\r\n\r\n"},
		{"RT-024 TLS-Required is relayed unchanged", "tls-REQUIRED \t:\r\n  No \t\r\nA: 1\r\nTLS-Required: nO\r\n\r\n", "tls-REQUIRED \t:\r\n  No \t\r\nA: 1\r\nTLS-Required: nO\r\n\r\n", "tls-REQUIRED \t:\r\n  No \t\r\nA: 1\r\nTLS-Required: nO\r\n\r\n"},
		{"SMTP-085 nothing else changes", "Return-Path: <x>\r\nBcc: secret\r\nReceived: a\r\nFrom: \"x\" <y>\r\nReceived: b\r\nDate:\r\n\t?\r\n\r\n  \r\n", "Return-Path: <x>\r\nBcc: secret\r\nReceived: a\r\nFrom: \"x\" <y>\r\nReceived: b\r\nDate:\r\n\t?\r\n\r\n  \r\n", "Return-Path: <x>\r\nBcc: secret\r\nReceived: a\r\nFrom: \"x\" <y>\r\nReceived: b\r\nDate:\r\n\t?\r\n\r\n  \r\n"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			m := d.send(c.sent)
			if m.Original != c.original {
				t.Errorf("original %.200q, want %.200q", m.Original, c.original)
			}
			if got := rest(t, m); got != c.content {
				t.Errorf("content %.200q, want %.200q", got, c.content)
			}
		})
	}
}

func TestReceived(t *testing.T) {
	t.Run("SMTP-085 one line at the top, with one recipient", func(t *testing.T) {
		m := openUnix(t, &delivery.Server{}).send("Received: from x\r\n\tby y; z\r\n\r\n")
		if line := ours.FindString(m.Content); !strings.Contains(line, "(local)") || !strings.Contains(line, " with LMTP id ") || !strings.Contains(line, "for <a@example.net>") {
			t.Errorf("%q", line)
		}
		if m.Received != "Received: from x by y; z" {
			t.Errorf("%q", m.Received)
		}
	})
	t.Run("SMTP-085 no recipient where there are several", func(t *testing.T) {
		d := openTCP(t, &delivery.Server{}, requiretls.Normal)
		c := d.secured()
		c.ask("MAIL FROM:<> SMTPUTF8", senderOK)
		c.begin2("a@example.net", "b@example.net")
		c.data("\r\n")
		c.want(delivered, delivered)
		line := ours.FindString(d.message().Content)
		if !strings.Contains(line, "([127.0.0.1])") || !strings.Contains(line, " with UTF8LMTPS id ") || strings.Contains(line, "for ") {
			t.Errorf("%q", line)
		}
	})
	t.Run("a name that is none", func(t *testing.T) {
		d := openUnix(t, &delivery.Server{})
		c := d.dial()
		c.send("LHLO a(b)\r\n")
		for !strings.HasPrefix(c.line(), "250 ") {
		}
		c.begin("a@example.net")
		c.data("\r\n")
		c.want(delivered)
		if m := d.message(); !strings.HasPrefix(m.Content, "Received: from unknown (local)\r\n") {
			t.Errorf("%q", m.Content)
		}
	})
	mine := "Received: from x ([127.0.0.1])\r\n\tby relay.example.com (postseal) with LMTP id 1; z\r\n"
	cases := []struct {
		name, header, want string
	}{
		{"SMTP-086 100 hops are no loop", strings.Repeat("Received: x\r\n", 100), delivered},
		{"SMTP-086 101 are one", strings.Repeat("received:x\r\n\ty\r\n", 101), "554 5.4.6 mail loop: 101 Received lines, 0 of relay.example.com"},
		{"SMTP-086 we may be passed some times", strings.Repeat(mine, 3), delivered},
		{"SMTP-086 but not more", strings.Repeat(mine, 4), "554 5.4.6 mail loop: 4 Received lines, 4 of relay.example.com"},
		{"SMTP-086 others' marks do not count", strings.Repeat(strings.Replace(mine, "relay.", "relay2.", 1), 9), delivered},
		{"SMTP-086 lines of the text do not count", "\r\n" + strings.Repeat(mine, 200), delivered},
		{"too many tags", strings.Repeat("A: b\r\nX-Postseal-Route: relaxed\r\n", 101), "554 5.6.0 too many fields X-Postseal-Route"},
		{"many tags side by side", strings.Repeat("X-Postseal-Route: relaxed\r\n", 1000), delivered},
	}
	d := openUnix(t, &delivery.Server{})
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			conn := d.greeted()
			conn.begin("a@example.net")
			conn.data(c.header + "\r\ntext\r\n")
			conn.want(c.want)
		})
	}
}

func TestChunks(t *testing.T) {
	d := openUnix(t, &delivery.Server{MaxMessage: 1000})
	start := func() *client {
		d.mu.Lock()
		d.have = nil
		d.mu.Unlock()
		c := d.greeted()
		c.begin("a@example.net", "b@example.net")
		return c
	}
	alive := func(c *client) {
		c.t.Helper()
		c.ask("NOOP", "250 2.0.0 I have successfully done nothing")
	}
	t.Run("SMTP-104 exact sizes, no dots, everything pipelined", func(t *testing.T) {
		c := start()
		c.send("BDAT 11\r\nA: b\r\n\r\n.\r\nBDAT 0\r\nBDAT 5\r\n.\r\n\r\nBDAT 3 LAST\r\n..\rNOOP\r\n")
		c.want("250 2.0.0 11 octets received", "250 2.0.0 0 octets received", "250 2.0.0 5 octets received", delivered, delivered)
		c.want("250 2.0.0 I have successfully done nothing")
		m := d.message()
		if m.Original != "A: b\r\n\r\n.\r\n.\r\n\r\n..\r" {
			t.Errorf("%q", m.Original)
		}
		if got := ours.ReplaceAllString(m.Content, ""); got[strings.Index(got, "A:"):] != "A: b\r\n\r\n.\r\n.\r\n\r\n.. \r\n" {
			t.Errorf("%q", got)
		}
	})
	t.Run("SMTP-104 an empty message", func(t *testing.T) {
		c := start()
		c.send("BDAT 0 LAST\r\n")
		c.want(delivered, delivered)
		if m := d.message(); m.Original != "" {
			t.Errorf("%q", m.Original)
		}
	})
	t.Run("SMTP-104 a line end across chunks", func(t *testing.T) {
		c := start()
		c.send("BDAT 1\r\n\rBDAT 1\r\n\nBDAT 2\r\n.\rBDAT 1 last\r\n\n")
		c.want("250 2.0.0 1 octets received", "250 2.0.0 1 octets received", "250 2.0.0 2 octets received", delivered, delivered)
		if m := d.message(); !strings.HasSuffix(m.Content, "\r\n\r\n.\r\n") {
			t.Errorf("%q", m.Content)
		}
	})
	t.Run("SMTP-104 no mixing with DATA", func(t *testing.T) {
		c := start()
		c.send("BDAT 2\r\n\r\nDATA\r\nMAIL FROM:<x@y>\r\nRCPT TO:<x@y>\r\nNOOP\r\nBDAT 0 LAST\r\n")
		c.code("250 ")
		c.code("503 5.5.1 ")
		c.code("503 5.5.1 ")
		c.code("503 5.5.1 ")
		c.code("250 2.0.0 ok")
		c.want(delivered, delivered)
	})
	t.Run("SMTP-104 given up by RSET", func(t *testing.T) {
		c := start()
		c.send("BDAT 2\r\n\r\nRSET\r\nDATA\r\n")
		c.code("250 2.0.0 2 octets")
		c.want("250 2.0.0 Session reset")
		c.code("503 5.5.1 ")
		c.send("BDAT 6\r\nNOOP\r\nBDAT 6 LAST\r\nNOOP\r\n")
		c.code("503 5.5.1 ")
		c.code("503 5.5.1 ")
		alive(c)
		d.none()
	})
	t.Run("given up by LHLO and by QUIT", func(t *testing.T) {
		c := start()
		c.send("BDAT 2\r\n\r\n")
		c.code("250 ")
		c.lhlo()
		c.begin("c@example.net")
		c.send("BDAT 2\r\n\r\nQUIT\r\n")
		c.code("250 ")
		c.want("221 2.0.0 Bye")
		c.wantClosed()
		d.none()
	})
	t.Run("SMTP-104 after a chunk that is too large there is nothing more", func(t *testing.T) {
		c := start()
		text := strings.Repeat("x", 600)
		c.send("BDAT 600\r\n" + text + "BDAT 600\r\n" + text + "BDAT 600 LAST\r\n" + text + "NOOP\r\n")
		c.code("250 ")
		c.want("552 5.3.4 message larger than 1000 octets")
		c.code("503 5.5.1 ")
		c.want("250 2.0.0 I have successfully done nothing")
		d.none()
	})
	t.Run("the last chunk is too large", func(t *testing.T) {
		c := start()
		c.send("BDAT 600\r\n" + strings.Repeat("x", 600) + "BDAT 600 LAST\r\n" + strings.Repeat("x", 600))
		c.code("250 ")
		c.want("552 5.3.4 message larger than 1000 octets", "552 5.3.4 message larger than 1000 octets")
		alive(c)
		d.none()
	})
	t.Run("nobody knows where a bad chunk ends", func(t *testing.T) {
		for _, bad := range []string{"BDAT", "BDAT x", "BDAT -1", "BDAT 5 FIRST", "BDAT 5 LAST LAST", "BDAT 99999999999"} {
			c := start()
			c.refused(bad, "501 5.5.4 ")
			c.wantClosed()
			c = start()
			c.send("BDAT 2\r\n\r\n")
			c.code("250 ")
			c.refused(bad, "501 5.5.4 ")
			c.wantClosed()
		}
		c := d.greeted()
		c.refused("BDAT 100000", "552 5.3.4 ")
		c.wantClosed()
		d.none()
	})
}

func TestSizes(t *testing.T) {
	t.Run("larger than the limit", func(t *testing.T) {
		d := openUnix(t, &delivery.Server{MaxMessage: 100})
		c := d.greeted()
		c.begin("a@example.net", "b@example.net")
		c.data("\r\n" + strings.Repeat("x", 97) + "\r\n")
		c.want("552 5.3.4 message larger than 100 octets", "552 5.3.4 message larger than 100 octets")
		c.begin("a@example.net")
		c.data("\r\n" + strings.Repeat("x", 96) + "\r\n")
		c.want(delivered)
	})
	t.Run("without end", func(t *testing.T) {
		d := openUnix(t, &delivery.Server{MaxMessage: 100_000})
		c := d.greeted()
		c.begin("a@example.net")
		c.ask("DATA", goAhead)
		for range 1_000_000 {
			if _, err := io.WriteString(c.conn, strings.Repeat("x", 1000)+"\r\n"); err != nil {
				return
			}
		}
		t.Error("1 GB was taken")
	})
	t.Run("no room for files", func(t *testing.T) {
		d := openUnix(t, &delivery.Server{TempDir: filepath.Join(t.TempDir(), "missing"), MaxMemory: 1})
		c := d.greeted()
		c.begin("a@example.net", "b@example.net")
		c.data("\r\nx\r\n")
		c.want("452 4.3.1 no room for the message", "452 4.3.1 no room for the message")
		c.begin("a@example.net")
		c.send("BDAT 2\r\n\r\nRSET\r\n")
		c.want("452 4.3.1 no room for the message", "250 2.0.0 Session reset")
		d.none()
	})
	t.Run("a large message is in a file without a name", func(t *testing.T) {
		dir := t.TempDir()
		s := &delivery.Server{TempDir: dir, MaxMemory: 2 << 20}
		d := openUnix(t, s)
		d.reply = func(m *delivery.Message, _ int) smtpclient.Reply {
			if len(m.Original) > 256<<10 && s.InMemory() != 0 {
				t.Errorf("%d octets in memory", s.InMemory())
			}
			if len(m.Original) == 100_002 && (s.InMemory() < 100_002 || s.InMemory() > 140_000) {
				t.Errorf("%d octets in memory", s.InMemory())
			}
			return ok
		}
		for _, size := range []int{0, 1, 4095, 4096, 4097, 36 << 10, 100_000, 1 << 20, 3 << 20} {
			text := strings.Repeat("0123456789abcdef 0123456789ABCDEF.-:_<>\n", size/40+1)[:size]
			text = strings.ReplaceAll(text, "\n", ".") + "\r\n"
			if m := d.send(text); m.Original != text || rest(t, m) != text {
				t.Errorf("%d octets came through as %d", len(text), len(m.Original))
			}
		}
		left, err := os.ReadDir(dir)
		if err != nil || len(left) > 0 {
			t.Errorf("left over: %v %v", left, err)
		}
	})
	t.Run("the memory is shared", func(t *testing.T) {
		const limit = 1 << 20
		s := &delivery.Server{Hostname: "relay.example.com", TempDir: t.TempDir(), MaxMemory: limit}
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		var here, all sync.WaitGroup
		release := make(chan struct{})
		here.Add(8)
		go func() {
			done <- s.ServeWith(ctx, ln, requiretls.Normal, func(context.Context, *delivery.Message) []smtpclient.Reply {
				here.Done()
				<-release
				return []smtpclient.Reply{ok}
			})
		}()
		d := &door{t: t, addr: ln.Addr()}
		text := strings.Repeat(strings.Repeat("x", 70)+"\r\n", 3000) // 216 000 octets
		var clients []*client
		for range 8 {
			clients = append(clients, d.greeted())
		}
		for _, c := range clients {
			all.Go(func() {
				io.WriteString(c.conn, "MAIL FROM:<a@example.com>\r\nRCPT TO:<b@example.net>\r\nDATA\r\n"+text+".\r\n")
			})
		}
		here.Wait()
		if n := s.InMemory(); n == 0 || n > limit {
			t.Errorf("%d octets in memory, the limit is %d", n, limit)
		}
		close(release)
		all.Wait()
		for _, c := range clients {
			c.want(senderOK, recipientOK, goAhead, delivered)
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if n := s.InMemory(); n != 0 {
			t.Errorf("%d octets are left", n)
		}
	})
}

func TestBadClients(t *testing.T) {
	d := openTCP(t, &delivery.Server{}, requiretls.Normal)
	t.Run("endless line", func(t *testing.T) {
		c := d.greeted()
		c.send(strings.Repeat("x", 4097))
		c.send(strings.Repeat("x", 1<<14))
		line, err := c.in.ReadString('\n') // or a reset, since something was left unread
		if err == nil && line != "500 5.5.2 line too long\r\n" {
			t.Errorf("%q", line)
		}
	})
	t.Run("longest line", func(t *testing.T) {
		c := d.greeted()
		c.refused("MAIL FROM:<a@example.com> FOO="+strings.Repeat("x", 4096-len("MAIL FROM:<a@example.com> FOO=\r\n")), "555 5.5.4 ")
	})
	t.Run("bare LF", func(t *testing.T) {
		c := d.greeted()
		c.send("NOOP\n")
		c.code("500 5.5.2 ")
		c.wantClosed()
	})
	t.Run("8-bit garbage and control characters", func(t *testing.T) {
		c := d.greeted()
		for _, bad := range []string{"\xff\xfe\x00", "MAIL FROM:<a\x00@example.com>", "NOOP\r", "MAIL FROM:<a\u2028@example.com> SMTPUTF8", "MAIL FROM:<a\u0085@example.com> SMTPUTF8", "\x16\x03\x01"} {
			c.refused(bad, "500 5.5.2 ")
		}
		for _, bad := range []string{"", " ", "FOO", "MAI", "MAILFROM:<a@b>", "HELP", "EXPN x", "TURN", "ETRN x", "AUTH PLAIN =", "XCLIENT NAME=x", "STARTTLSx"} {
			c.refused(bad, "500 5.5.2 ")
		}
		for _, bad := range []string{"QUIT now", "RSET now", "DATA now", "LHLO a b"} {
			c.refused(bad, "501 5.5.4 ")
		}
		c.begin("b@example.net")
	})
	t.Run("behind QUIT there is nothing", func(t *testing.T) {
		c := d.greeted()
		c.send("QUIT\r\nMAIL FROM:<a@example.com>\r\nRCPT TO:<b@example.net>\r\nDATA\r\n")
		c.want("221 2.0.0 Bye")
		c.wantClosed()
	})
	t.Run("a parameter of any length", func(t *testing.T) {
		c := d.greeted()
		c.send("MAIL FROM:<a@example.com> " + strings.Repeat("X", 2000) + "\r\n")
		if line := c.line(); !strings.HasPrefix(line, "555 5.5.4 ") || len(line) > 510 {
			t.Errorf("%q", line)
		}
	})
	t.Run("only errors", func(t *testing.T) {
		c := d.greeted()
		c.send(strings.Repeat("FOO\r\n", 100))
		for range 100 {
			c.code("500 ")
		}
		c.want("421 4.7.0 too many errors")
		c.wantClosed()
	})
	t.Run("gone in the middle", func(t *testing.T) {
		for _, start := range []string{"", "MAIL", "DATA\r\n", "DATA\r\nA: b\r\n\r\ntext", "DATA\r\n.\r", "BDAT 10\r\n", "BDAT 10\r\nA: b", "BDAT 10 LAST\r\nA: b", "BDAT 4\r\nA: b", "BDAT 4\r\nA: bBDA"} {
			c := d.greeted()
			c.begin("b@example.net")
			c.send(start)
			c.conn.Close()
			c = d.secured()
			c.begin("b@example.net")
			c.send(start)
			c.conn.Close()
		}
	})
	d.stop() // waits for all of them
	d.none()
}

package delivery

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/textproto"
	"path/filepath"
	"strings"
	"testing"
)

// mailServer is a connection to a listener, as a mail server has it.
type mailServer struct {
	*textproto.Conn
	t *testing.T
}

// connect serves on a socket until the test ends, and connects to it.
func (b *bed) connect(t *testing.T) *mailServer {
	path := filepath.Join(t.TempDir(), "lmtp")
	ln, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	run(t, func(ctx context.Context) error { return b.Serve(ctx, ln, normal) })
	conn, err := textproto.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	c := &mailServer{conn, t}
	c.want("220")
	c.say("LHLO mail.test", "250")
	return c
}

func (c *mailServer) want(prefix string) string {
	c.t.Helper()
	code, text, err := c.ReadResponse(0) // 0: no code is an error
	line := fmt.Sprint(code, " ", text)
	if !strings.HasPrefix(line, prefix) {
		c.t.Errorf("got %q (%v), want %q", line, err, prefix)
	}
	return line
}

func (c *mailServer) say(line, prefix string) string {
	c.t.Helper()
	if err := c.PrintfLine("%s", line); err != nil {
		c.t.Fatal(err)
	}
	return c.want(prefix)
}

// TestThrough goes the whole way: from the mail server's LMTP to MX hosts and back.
func TestThrough(t *testing.T) {
	b := newBed(t)
	var log bytes.Buffer
	b.Log = slog.New(slog.NewTextHandler(&log, nil))
	good, grey, store := b.host("mx.a.test", 11), b.host("mx.b.test", 12), b.host("store.test", 13)
	b.mx("a.test", 10, "mx.a.test")
	b.mx("b.test", 10, "mx.b.test")
	grey.Reply("RCPT", "450 4.2.0 greylisted", "550 5.1.1 no such user")
	b.LocalDomains, b.LocalRelay = []string{"here.test"}, fmt.Sprintf("tcp:127.0.0.13:%d", b.Port)

	c := b.connect(t)
	message := func(want ...string) {
		t.Helper()
		c.say("XFORWARD IDENT=4b2XYZ", "250")
		c.say("MAIL FROM:<s@sender.test>", "250")
		for _, to := range []string{"u@a.test", "grey@b.test", "gone@b.test", "me@here.test", "x@gone.test"} {
			c.say("RCPT TO:<"+to+">", "250")
		}
		c.say("DATA", "354")
		if err := c.PrintfLine("Received: from client.test by mail.test; Sat, 28 Nov 2026 00:00:00 +0000\r\nMessage-ID: <1@client.test>\r\nSubject: x\r\n\r\nHello.\r\n."); err != nil {
			t.Fatal(err)
		}
		for _, w := range want {
			code, words, _ := strings.Cut(w, "|")
			if line := c.want(code); !strings.Contains(line, words) {
				t.Errorf("%q does not mention %q", line, words)
			}
		}
	}
	t.Run("SMTP-121 five recipients, four next hops", func(t *testing.T) {
		message("250 2.0.0|mx.a.test", "450 4.2.0|mx.b.test", "550 5.1.1|mx.b.test", "250 2.0.0|local-relay", "550 5.1.2|gone.test")
		took(t, good, 1)
		took(t, grey, 0)
		took(t, store, 1)
		if data := string(good.Mails()[0].Data); !strings.HasPrefix(data, "Received: ") || strings.Count(data, "Received: ") != 2 || !strings.HasSuffix(data, "\r\nHello.\r\n") {
			t.Errorf("got %q", data)
		}
	})
	t.Run("RPT-077 a session is told of with its message", func(t *testing.T) {
		b.mu.Lock()
		defer b.mu.Unlock()
		if len(b.outcomes) != 2 {
			t.Errorf("%d sessions, want those of two MX hosts", len(b.outcomes))
		}
		for _, o := range b.outcomes {
			if o.MessageID != "<1@client.test>" {
				t.Errorf("%s: of message %q", o.MX, o.MessageID)
			}
		}
	})
	t.Run("the log names queue id, our own id, host and security", func(t *testing.T) {
		data := string(good.Mails()[0].Data)
		_, after, _ := strings.Cut(data, " with LMTP id ")
		id, _, _ := strings.Cut(after, ";")
		line := "msg=delivery queue_id=4b2XYZ id=" + id + " nexthop=a.test:" + portOf(b) + " mode=normal sent=1 deferred=0 refused=0 "
		_, after, ok := strings.Cut(log.String(), line)
		if line, _, _ := strings.Cut(after, "\n"); !ok || !strings.HasSuffix(line, " host=mx.a.test[127.0.0.11]:"+portOf(b)+" secured=pkix") {
			t.Errorf("no %q with its host in %s", line, log.String())
		}
	})
	t.Run("the mail server has lost the replies", func(t *testing.T) {
		grey.Reply("RCPT")
		message("250 2.0.0|already delivered at ", "250 2.0.0|mx.b.test", "250 2.0.0|mx.b.test", "250 2.0.0|already delivered at ", "550 5.1.2|gone.test")
		took(t, good, 1)
		took(t, grey, 1)
		took(t, store, 1)
	})
	t.Run("a next hop that is the listener itself", func(t *testing.T) {
		ln, err := net.Listen("tcp", fmt.Sprintf("127.0.0.14:%d", b.Port))
		if err != nil {
			t.Fatal(err)
		}
		run(t, func(ctx context.Context) error { return b.Serve(ctx, ln, normal) })
		b.publish("loop.test. IN A 127.0.0.14")
		greeted, err := textproto.Dial("tcp", ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer greeted.Close()
		(&mailServer{greeted, t}).want("220")
		want(t, b.send(normal, "u@loop.test")[0], "554 5.4.6", "loops back")
	})
}

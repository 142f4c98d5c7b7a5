package main

import (
	"bufio"
	"io"
	"net"
	"strings"
	"testing"
	"time"
)

// conn is a connection whose other end has said everything already.
type conn struct {
	io.Reader
	written strings.Builder
}

func (c *conn) Write(p []byte) (int, error)      { return c.written.Write(p) }
func (c *conn) Close() error                     { return nil }
func (c *conn) LocalAddr() net.Addr              { return nil }
func (c *conn) RemoteAddr() net.Addr             { return nil }
func (c *conn) SetDeadline(time.Time) error      { return nil }
func (c *conn) SetReadDeadline(time.Time) error  { return nil }
func (c *conn) SetWriteDeadline(time.Time) error { return nil }

func TestAsk(t *testing.T) {
	try := func(said string) (string, error) {
		c := &conn{Reader: strings.NewReader(said)}
		reply, err := ask(c, bufio.NewReader(c), "postfix", "example.org")
		if got := c.written.String(); got != "19:postfix example.org," {
			t.Errorf("asked %q", got)
		}
		return reply, err
	}
	good := func(said, want string) {
		t.Helper()
		if got, err := try(said); err != nil || got != want {
			t.Errorf("%q: %q, %v", said, got, err)
		}
	}
	bad := func(said, want string) {
		t.Helper()
		if got, err := try(said); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.40q: %q, %v", said, got, err)
		}
	}
	good("9:NOTFOUND ,", "NOTFOUND ")
	good("0:,", "")
	bad("", "closed without a reply")
	bad("9:NOTF", "closed without a reply")
	bad("12", "closed without a reply")
	bad("9:NOTFOUND ;", "does not end with a comma")
	bad("HTTP/1.1 400 Bad Request\r\nConnection: close", `it begins with "HTTP/1.1`)
	bad("100001:", "no netstring")
	bad(":,", "no netstring")
	bad("-1:,", "no netstring")
	bad(strings.Repeat("1", 1<<20), "no netstring")
}

func FuzzAsk(f *testing.F) {
	f.Add("9:NOTFOUND ,")
	f.Add("99999:x,")
	f.Add(":")
	f.Fuzz(func(t *testing.T, said string) {
		c := &conn{Reader: strings.NewReader(said)}
		if reply, err := ask(c, bufio.NewReader(c), "m", "k"); err == nil && len(reply) > maxReply {
			t.Errorf("%d bytes", len(reply))
		}
	})
}

func TestCodeOf(t *testing.T) {
	for reply, want := range map[string]int{"OK may": 0, "NOTFOUND ": 1, "TEMP x": 75, "TIMEOUT x": 75, "PERM x": 69, "": 69, "ok x": 69} {
		if got := codeOf(reply); got != want {
			t.Errorf("%q: %d, want %d", reply, got, want)
		}
	}
}

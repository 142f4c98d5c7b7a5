package smtpclient_test

import (
	"io"
	"net"
	"strings"
	"syscall"
	"testing"
	"testing/iotest"
	"time"

	"postseal/policy/smtpclient"
)

// canned is a connection with a host that has said everything already, and hangs
// up after a number of octets. Nothing of it depends on time.
type canned struct {
	net.Conn
	r io.Reader
	n int // octets that can still be written
}

func (c *canned) Read(p []byte) (int, error) { return c.r.Read(p) }

func (c *canned) Write(p []byte) (int, error) {
	if c.n -= len(p); c.n < 0 {
		return 0, syscall.EPIPE
	}
	return len(p), nil
}

func (c *canned) Close() error { return nil }
func (c *canned) LocalAddr() net.Addr {
	return &net.TCPAddr{IP: net.ParseIP("2001:db8::2"), Port: 1025}
}
func (c *canned) SetDeadline(time.Time) error      { return nil }
func (c *canned) SetReadDeadline(time.Time) error  { return nil }
func (c *canned) SetWriteDeadline(time.Time) error { return nil }

// canned opens a session over a canned connection.
func (b *bed) canned(c *canned) *smtpclient.Session {
	b.t.Helper()
	b.client.Dial = dialer(c)
	return b.open("opportunistic")
}

func TestCanned(t *testing.T) {
	const begin = "220 x\r\n250 x\r\n"
	big := strings.Repeat("x\r\n", 100000)
	t.Run("SMTP-089 last words of a host that has had enough", func(t *testing.T) {
		b := newBed(t)
		for said, want := range map[string]string{
			"552 5.3.4 enough\r\n": "552 5.3.4",
			"450 4.3.1 full\r\n":   "450 4.3.1",
			"421 4.3.2 bye\r\n":    "-; 451 4.4.2 data",
			"250 2.0.0 fine\r\n":   "-; 451 4.4.2 data", // of what? the message was not sent
			"":                     "-; 451 4.4.2 data",
		} {
			s := b.canned(&canned{r: iotest.OneByteReader(strings.NewReader(begin + "250 x\r\n250 x\r\n354 x\r\n" + said)), n: 100000})
			r := b.send(s, big, "b@x")
			if codes(r) != want || r.Usable || r.Uncertain {
				t.Errorf("%q: %q, want %q; usable %v, uncertain %v", said, codes(r), want, r.Usable, r.Uncertain)
			}
		}
	})
	t.Run("SMTP-089 what was not asked for is no reply to what comes next", func(t *testing.T) {
		b := newBed(t)
		s := b.canned(&canned{r: &pieces{begin[:7], begin[7:], "250 x\r\n", "250 x\r\n", "354 x\r\n", "250 2.0.0 ok\r\n250 2.0.0 and more\r\n"}, n: 1 << 20})
		if r := b.send(s, text, "b@x"); codes(r) != "250 2.0.0" || r.Usable {
			t.Errorf("%s, usable %v", codes(r), r.Usable)
		}
	})
	t.Run("SMTP-023 an address where there is no name, of IPv6", func(t *testing.T) {
		b := newBed(t)
		b.client.Hostname = ""
		c := &canned{r: &pieces{begin[:7], begin[7:]}, n: len("EHLO [IPv6:2001:db8::2]\r\n")}
		if i := b.canned(c).Info(); c.n != 0 || i.Local.Port() != 1025 {
			t.Errorf("%d octets more or less; %+v", c.n, i)
		}
	})
	t.Run("SMTP-027 lost in a group of commands", func(t *testing.T) {
		b := newBed(t)
		s := b.canned(&canned{r: &pieces{begin[:7], "250-x\r\n250 PIPELINING\r\n"}, n: 40})
		if r := b.send(s, text, "b@x", "c@x"); codes(r) != "-, -; 451 4.4.2 mail" || r.Usable || r.Uncertain {
			t.Error(codes(r))
		}
	})
}

// pieces are read one at a time.
type pieces []string

func (r *pieces) Read(p []byte) (int, error) {
	if len(*r) == 0 {
		return 0, io.EOF
	}
	n := copy(p, (*r)[0])
	*r = (*r)[1:]
	return n, nil
}

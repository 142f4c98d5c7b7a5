package delivery_test

import (
	"bytes"
	"context"
	"io"
	"net"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"postseal/policy/delivery"
	"postseal/policy/requiretls"
	"postseal/policy/smtpclient"
)

// script is a connection whose client has said everything already, and whose
// reads give at most step octets. It is its own listener, too.
type script struct {
	in   []byte
	step int
	out  bytes.Buffer
	once bool
	done chan struct{}
}

func (s *script) Read(p []byte) (int, error) {
	if len(s.in) == 0 {
		return 0, io.EOF
	}
	n := copy(p[:min(len(p), s.step)], s.in)
	s.in = s.in[n:]
	return n, nil
}

func (s *script) Accept() (net.Conn, error) {
	if s.once {
		<-s.done
		return nil, net.ErrClosed
	}
	s.once = true
	return s, nil
}

func (s *script) Write(p []byte) (int, error) { return s.out.Write(p) }

// Close is called by the listener and by the connection; either ends the test.
func (s *script) Close() error {
	select {
	case <-s.done:
	default:
		close(s.done)
	}
	return nil
}

func (s *script) Addr() net.Addr                   { return &net.UnixAddr{Name: "script", Net: "unix"} }
func (s *script) LocalAddr() net.Addr              { return s.Addr() }
func (s *script) RemoteAddr() net.Addr             { return s.Addr() }
func (s *script) SetDeadline(time.Time) error      { return nil }
func (s *script) SetReadDeadline(time.Time) error  { return nil }
func (s *script) SetWriteDeadline(time.Time) error { return nil }

// say plays a stream and returns the replies and the messages.
func say(t testing.TB, stream []byte, step int) (replies string, messages []*delivery.Message) {
	s := &script{in: stream, step: step, done: make(chan struct{})}
	server := &delivery.Server{Hostname: "relay.example.com", MaxMessage: 1 << 16}
	server.ServeWith(t.Context(), s, requiretls.Normal, func(_ context.Context, m *delivery.Message) []smtpclient.Reply {
		m.Content = m.Content[min(len(m.Content), len("Received: ")):] // the id differs
		messages = append(messages, m)
		list := make([]smtpclient.Reply, len(m.Envelope.To))
		for i, to := range m.Envelope.To {
			list[i] = smtpclient.Reply{Code: 250, Enhanced: "2.0.0", Text: "took it for number " + strconv.Itoa(i)}
			if to.Addr == "" {
				t.Error("recipient without address")
			}
		}
		return list
	})
	if n := server.InMemory(); n != 0 {
		t.Errorf("%d octets are left in memory", n)
	}
	return s.out.String(), messages
}

// FuzzStream plays a stream of a client in one piece and octet by octet. Whatever
// is in it, both must come to the same: then no text is taken for a command
// because of where a read ended, and go-smtp and the wire were at the same place.
func FuzzStream(f *testing.F) {
	for _, s := range []string{
		"LHLO x\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\nA: b\r\n\r\n..\r\n.\r\nQUIT\r\n",
		"LHLO x\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nRCPT TO:<c@d>\r\nBDAT 4\r\nA: bBDAT 6 LAST\r\n\r\n.\r\n.MAIL FROM:<>\r\n",
		"LHLO x\r\nMAIL FROM:<a@b> RET=FULL ENVID=x\r\nRCPT TO:<\"c d\\\"\"@d> NOTIFY=NEVER ORCPT=rfc822;c\r\nBDAT 2\r\n\r\nRSET\r\nDATA\r\n",
		"LHLO x\r\nXFORWARD IDENT=a ADDR=192.0.2.1 PORT=1\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d.relaxed.invalid>\r\nDATA\r\n\r\n\n.\n.\r\r\n.\r\nDATA\r\n",
		"LHLO x\r\nBDAT 4\r\nDATABDAT x\r\n", "EHLO x\r\nLHLO x\r\nMAIL FROM:<@a:b@c>\r\nRSET\r\nVRFY\r\nNOOP\r\nSTARTTLS\r\n",
		"LHLO x\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nBDAT 70000\r\n",
		"MAIL FROM:<a@b>\nRCPT TO:<c@d>\n",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, stream []byte) {
		replies, messages := say(t, stream, len(stream)+1)
		again, messages2 := say(t, stream, 1)
		if replies != again {
			t.Errorf("replies differ:\n%q\n%q", replies, again)
		}
		if len(messages) != len(messages2) {
			t.Fatalf("%d and %d messages", len(messages), len(messages2))
		}
		for i, m := range messages {
			n := messages2[i]
			if diff := cmp.Diff(m.Envelope, n.Envelope); diff != "" || m.Original != n.Original {
				t.Errorf("messages differ: %s\n%q\n%q", diff, m.Original, n.Original)
			}
			for j := range m.Envelope.To {
				if !strings.Contains(replies, "250 2.0.0 took it for number "+strconv.Itoa(j)+"\r\n") {
					t.Errorf("no reply for recipient %d: %q", j, replies)
				}
			}
			bare(t, m.Content)
		}
		wellFormed(t, replies)
	})
}

// wellFormed checks each line of the replies.
func wellFormed(t *testing.T, replies string) {
	for line := range strings.SplitAfterSeq(replies, "\r\n") {
		if line == "" {
			continue
		}
		text, ended := strings.CutSuffix(line, "\r\n")
		if !ended || len(text) < 4 || len(text) > 510 || text[0] < '2' || text[0] > '5' || text[3] != ' ' && text[3] != '-' {
			t.Errorf("reply line %q", line)
		}
		if strings.IndexFunc(text, func(r rune) bool { return r < ' ' || r > '~' }) >= 0 {
			t.Errorf("reply line %q", line)
		}
		if strings.Contains(text, "Internal server error") || strings.Contains(text, "two readings") || strings.HasPrefix(text, "502 ") && !strings.Contains(text, "STARTTLS") {
			t.Errorf("go-smtp and the wire disagree: %q", text)
		}
	}
}

// bare finds line ends that are none.
func bare(t *testing.T, text string) {
	if strings.ContainsAny(strings.ReplaceAll(text, "\r\n", ""), "\r\n") {
		t.Errorf("bare CR or LF: %q", text)
	}
	if text != "" && !strings.HasSuffix(text, "\r\n") {
		t.Errorf("no line end at the end: %q", text)
	}
}

// FuzzText sends any text by DATA and by BDAT, and must get it back.
func FuzzText(f *testing.F) {
	for _, s := range []string{"", "\r\n", "A: b\r\n\r\n.\r\n", "\n.\n", ".", "..\r", "\r\r\n.\r\n", "x\r\n.\r\nMAIL FROM:<x@y>\r\n"} {
		f.Add([]byte(s), uint16(1), uint16(7))
	}
	f.Fuzz(func(t *testing.T, text []byte, step, piece uint16) {
		text = text[:min(len(text), 1<<15)] // as much as it takes
		const head = "LHLO x\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\n"
		var bdat bytes.Buffer
		bdat.WriteString(head)
		rest := text
		for n := int(piece) + 1; len(rest) > n; rest = rest[n:] {
			bdat.WriteString("BDAT " + strconv.Itoa(n) + "\r\n")
			bdat.Write(rest[:n])
		}
		bdat.WriteString("BDAT " + strconv.Itoa(len(rest)) + " LAST\r\n")
		bdat.Write(rest)
		_, messages := say(t, bdat.Bytes(), int(step)+1)
		if len(messages) != 1 || messages[0].Original != string(text) {
			t.Fatalf("BDAT: %d messages for %q", len(messages), text)
		}
		bare(t, messages[0].Content)

		// DATA can only carry whole lines (RFC 5321 §4.1.1.4).
		lines := string(text)
		if lines != "" && !strings.HasSuffix(lines, "\r\n") {
			lines += "\r\n"
		}
		dotted := strings.ReplaceAll("\r\n"+lines, "\r\n.", "\r\n..")[2:]
		_, messages = say(t, []byte(head+"DATA\r\n"+dotted+".\r\nQUIT\r\n"), int(step)+1)
		if len(messages) != 1 || messages[0].Original != lines {
			t.Fatalf("DATA: %d messages for %q", len(messages), lines)
		}
		bare(t, messages[0].Content)
	})
}

// FuzzXFORWARD must take or refuse any attributes without harm to what follows.
func FuzzXFORWARD(f *testing.F) {
	for _, s := range []string{"NAME=a ADDR=192.0.2.1 PORT=25", "IDENT=+2B", "ADDR=IPV6:fe80::1%eth0 PORT=99999", "HELO=[UNAVAILABLE] IDENT", "=", "IDENT=a IDENT=b"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, args string) {
		if strings.ContainsAny(args, "\r\n") || len(args) > 4000 {
			return // more than one command, or too long for one
		}
		replies, messages := say(t, []byte("LHLO x\r\nXFORWARD "+args+"\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\n.\r\n"), 1<<16)
		if len(messages) != 1 {
			t.Fatalf("%d messages: %q", len(messages), replies)
		}
		m := messages[0]
		if len(m.QueueID) > 255 || strings.IndexFunc(m.QueueID, func(r rune) bool { return r < ' ' || r == 0x7f }) >= 0 {
			t.Errorf("queue id %q", m.QueueID)
		}
		wellFormed(t, replies)
	})
}

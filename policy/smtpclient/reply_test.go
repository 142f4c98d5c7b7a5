package smtpclient_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"postseal/policy/smtpclient"
)

func TestReadReply(t *testing.T) {
	type reply = smtpclient.Reply
	good := func(name, in string, want reply) {
		t.Run(name, func(t *testing.T) {
			got, _, err := smtpclient.ReadReply(strings.NewReader(in))
			if diff := cmp.Diff(want, got); diff != "" || err != nil {
				t.Errorf("%v\n%s", err, diff)
			}
		})
	}
	good("SMTP-025 one line", "250 ok\r\n", reply{250, "2.0.0", "ok"})
	good("SMTP-025 code alone", "250\r\n", reply{250, "2.0.0", ""})
	good("SMTP-025 several lines", "250-a\r\n250-b\r\n250 c\r\n", reply{250, "2.0.0", "a b c"})
	good("SMTP-025 last line without text", "250-a\r\n250\r\n", reply{250, "2.0.0", "a"})
	good("SMTP-025 LF alone", "250-a\n250 b\n", reply{250, "2.0.0", "a b"})
	good("SMTP-025 unknown code", "299 x\r\n", reply{299, "2.0.0", "x"})
	good("SMTP-025 unknown code with high digits", "599 x\r\n", reply{599, "5.0.0", "x"})
	good("SMTP-128 enhanced code kept", "550 5.7.26 x\r\n", reply{550, "5.7.26", "x"})
	good("SMTP-128 enhanced code of another class", "550 4.1.1 x\r\n", reply{550, "5.0.0", "x"})
	good("SMTP-128 enhanced code of each line", "550-5.7.1 a\r\n550 5.7.1 b\r\n", reply{550, "5.7.1", "a b"})
	good("SMTP-128 enhanced code alone", "450 4.2.1\r\n", reply{450, "4.2.1", ""})
	good("SMTP-128 no enhanced code", "550 192.0.2.1 is listed\r\n", reply{550, "5.0.0", "192.0.2.1 is listed"})
	good("SMTP-128 class 3 has none", "354 3.0.0 go\r\n", reply{354, "3.0.0", "3.0.0 go"})
	good("SMTP-128 no such class", "550 6.1.1 x\r\n", reply{550, "5.0.0", "6.1.1 x"})
	good("SMTP-128 digits beyond the grammar", "550 5.1000.1 x\r\n", reply{550, "5.0.0", "5.1000.1 x"})
	good("SMTP-128 control characters", "550 a\x1b[31m\x00b\tc\r\n", reply{550, "5.0.0", "a?[31m?b c"})
	good("SMTP-128 CR within", "550 a\rb\r\n", reply{550, "5.0.0", "a?b"})
	good("SMTP-128 8-bit", "550 \xfcber\r\n", reply{550, "5.0.0", "?ber"})
	good("SMTP-128 long", "550 "+strings.Repeat("x", 1000)+"\r\n", reply{550, "5.0.0", strings.Repeat("x", 512)})
	good("SMTP-026 a line of nearly 4096 octets", "550 "+strings.Repeat("x", smtpclient.MaxLine-6)+"\r\n", reply{550, "5.0.0", strings.Repeat("x", 512)})
	good("SMTP-026 as many lines as allowed", strings.Repeat("250-x\r\n", smtpclient.MaxLines-1)+"250 x\r\n", reply{250, "2.0.0", strings.Repeat("x ", smtpclient.MaxLines-1) + "x"})

	bad := func(name, in, want string) {
		t.Run(name, func(t *testing.T) {
			got, _, err := smtpclient.ReadReply(strings.NewReader(in))
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%+v, %v; want %s", got, err, want)
			}
		})
	}
	const none = "not an SMTP reply"
	bad("SMTP-025 code of class 6", "650 x\r\n", none)
	bad("SMTP-025 code of class 1", "150 x\r\n", none)
	bad("SMTP-025 code of class 0", "050 x\r\n", none)
	bad("SMTP-025 code of class 9", "999 x\r\n", none)
	bad("SMTP-025 two digits", "25 x\r\n", none)
	bad("SMTP-025 four digits", "2500 x\r\n", none)
	bad("SMTP-025 letters", "2x0 x\r\n", none)
	bad("SMTP-025 sign", "+50 x\r\n", none)
	bad("SMTP-025 blank first", " 250 x\r\n", none)
	bad("SMTP-025 other separator", "250:x\r\n", none)
	bad("SMTP-025 empty line", "\r\n", none)
	bad("SMTP-025 HTTP", "HTTP/1.1 400 Bad Request\r\n", none)
	bad("SMTP-025 different codes", "250-a\r\n251 b\r\n", "codes 250 and 251 in one reply")
	bad("SMTP-025 garbage in the midst", "250-a\r\nb\r\n", none)
	bad("SMTP-026 long line", "250 "+strings.Repeat("x", smtpclient.MaxLine)+"\r\n", "reply line longer than 4096 octets")
	bad("SMTP-026 many lines", strings.Repeat("250-x\r\n", smtpclient.MaxLines)+"250 x\r\n", "more than 100 lines")
	bad("SMTP-026 much in all", strings.Repeat("250-"+strings.Repeat("x", 4000)+"\r\n", 20)+"250 x\r\n", "65536 octets")
	bad("SMTP-027 end within a line", "250 x", "EOF")
	bad("SMTP-027 end within a reply", "250-x\r\n", "EOF")
}

func TestEnhanced(t *testing.T) {
	t.Run("SMTP-150 the enhanced code is of the reply's class", func(t *testing.T) {
		for code := 200; code < 600; code++ {
			for _, enhanced := range []string{"", "2.1.0 ", "4.7.0 ", "5.7.1 ", "3.0.0 ", "9.9.9 "} {
				r, _, err := smtpclient.ReadReply(strings.NewReader(fmt.Sprintf("%d %sx\r\n", code, enhanced)))
				if err != nil {
					t.Fatal(err)
				}
				checkReply(t, r)
				if e := strings.TrimSpace(enhanced); e != "" && int(e[0]-'0') == code/100 && e[0] != '3' && r.Enhanced != e {
					t.Errorf("%d %s became %s", code, e, r.Enhanced)
				}
			}
		}
	})
}

// endless is what a reader never comes to the end of.
type endless struct {
	line string
	n    int
}

func (e *endless) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = e.line[(e.n+i)%len(e.line)]
	}
	e.n += len(p)
	return len(p), nil
}

func TestReadReplyBounds(t *testing.T) {
	for _, line := range []string{"250-x\r\n", "x", "250-" + strings.Repeat("y", 4000) + "\r\n"} {
		t.Run("SMTP-026 nothing is read for ever", func(t *testing.T) {
			e := &endless{line: line}
			if _, _, err := smtpclient.ReadReply(e); err == nil || errors.Is(err, io.EOF) {
				t.Error(err)
			}
			if limit := smtpclient.MaxReply + 2*smtpclient.MaxLine; e.n > limit {
				t.Errorf("read %d octets, more than %d", e.n, limit)
			}
		})
	}
}

func FuzzReply(f *testing.F) {
	for _, seed := range []string{
		"250 ok\r\n", "250-a\r\n250 b\r\n", "550 5.1.1 x\r\n", "550-5.1.1 x\r\n550 4.1.1\r\n", "250\n", "650 x\r\n",
		"250-\xff\x00\r\n250 \t\r\n", "250-x\r\n251 x\r\n", "421 4.3.2", "",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		r, lines, err := smtpclient.ReadReply(bytes.NewReader(in))
		if err != nil {
			return
		}
		if r.Code < 200 || r.Code > 599 || len(lines) == 0 || len(lines) > smtpclient.MaxLines {
			t.Errorf("%d with %d lines", r.Code, len(lines))
		}
		checkReply(t, r)
		for _, line := range lines {
			if strings.Contains(line, "\n") {
				t.Errorf("a line within %q", line)
			}
		}
	})
}

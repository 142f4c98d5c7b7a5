package smtpclient_test

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"

	"postseal/policy/smtpclient"
	"postseal/policy/smtpclient/mxtest"
)

const text = "Subject: x\r\n\r\nhello\r\n"

// transaction is one message to some recipients, and what must come of it.
type transaction struct {
	name    string
	config  mxtest.Config
	replies []string // pairs of command and reply
	to      string
	codes   string
	said    string
	usable  bool
}

func TestSend(t *testing.T) {
	const ok = "250 2.0.0"
	clear := func(keywords ...string) mxtest.Config {
		return mxtest.Config{NoSTARTTLS: true, Keywords: append([]string{}, keywords...)}
	}
	piped := clear("PIPELINING")
	for _, tt := range []transaction{
		{"SMTP-080 one by one", clear(), nil, "b@x c@x", ok + ", " + ok, "MAIL RCPT RCPT DATA .", true},
		{"SMTP-090 pipelined", piped, nil, "b@x c@x", ok + ", " + ok, "MAIL RCPT RCPT DATA .", true},
		{"SMTP-089 5yz to the message", clear(), []string{".", "550 5.7.1 spam"}, "b@x c@x", "550 5.7.1, 550 5.7.1", "MAIL RCPT RCPT DATA .", true},
		{"SMTP-089 4yz to the message", piped, []string{".", "451 4.3.0 later"}, "b@x", "451 4.3.0", "MAIL RCPT DATA .", true},
		{"SMTP-089 some recipients refused", piped, []string{"RCPT c@x", "550 5.1.1 who"}, "b@x c@x d@x", ok + ", 550 5.1.1, " + ok, "MAIL RCPT RCPT RCPT DATA .", true},
		{"SMTP-082 all recipients refused", clear(), []string{"RCPT", "550 5.1.1 who"}, "b@x c@x", "550 5.1.1, 550 5.1.1", "MAIL RCPT RCPT", true},
		{"SMTP-082 all refused, pipelined, 554", piped, []string{"RCPT", "550 5.1.1 who"}, "b@x c@x", "550 5.1.1, 550 5.1.1", "MAIL RCPT RCPT DATA", true},
		{"SMTP-082 all refused, pipelined, 503", piped, []string{"RCPT", "550 5.1.1 who", "DATA", "503 5.5.1 no"}, "b@x", "550 5.1.1", "MAIL RCPT DATA", true},
		{"SMTP-082 DATA refused", clear(), []string{"DATA", "554 5.7.1 no"}, "b@x", "554 5.7.1", "MAIL RCPT DATA", true},
		{"SMTP-082 DATA answered with 250", clear(), []string{"DATA", "250 ok"}, "b@x", "-; 451 4.5.0 data", "MAIL RCPT DATA", false},
		{"SMTP-090 all refused, but 354", piped, []string{"RCPT", "450 4.2.1 later", "DATA", "354 go"}, "b@x c@x", "450 4.2.1, 450 4.2.1", "MAIL RCPT RCPT DATA .", true},
		{"SMTP-090 MAIL refused, but 354", piped, []string{"MAIL", "550 5.7.27 null MX", "DATA", "354 go"}, "b@x", "550 5.7.27", "MAIL RCPT DATA .", true},
		{"SMTP-090 354, and then lost", piped, []string{"RCPT", "550 5.1.1 who", "DATA", "354 go", ".", mxtest.Drop}, "b@x", "550 5.1.1", "MAIL RCPT DATA .", false},
		{"SMTP-011 MAIL refused", clear(), []string{"MAIL", "550 5.7.27 null MX"}, "b@x c@x", "550 5.7.27, 550 5.7.27", "MAIL", true},
		{"SMTP-089 MAIL not now", piped, []string{"MAIL", "452 4.3.1 full"}, "b@x", "452 4.3.1", "MAIL RCPT DATA", true},
		{"SMTP-025 299 and 353", clear(), []string{"MAIL", "299", "RCPT", "251 forwarded", "DATA", "353 x", ".", "222 fine"}, "b@x", "222 2.0.0", "MAIL RCPT DATA .", true},
		{"SMTP-025 354 to MAIL", clear(), []string{"MAIL", "354 x"}, "b@x", "-; 451 4.5.0 mail", "MAIL", false},
		{"SMTP-025 354 to RCPT", piped, []string{"RCPT", "354 x"}, "b@x", "-; 451 4.5.0 rcpt", "MAIL RCPT DATA", false},
		{"SMTP-025 354 to the message", clear(), []string{".", "354 x"}, "b@x", "-; 451 4.5.0 end", "MAIL RCPT DATA .", false},
		{"SMTP-025 650 to the message", clear(), []string{".", "650 x"}, "b@x", "-; 451 4.5.0 end", "MAIL RCPT DATA .", false},
		{"SMTP-027 421 to MAIL", clear(), []string{"MAIL", "421 4.3.2 bye"}, "b@x", "-; 451 4.3.2 mail", "MAIL", false},
		{"SMTP-027 421 to RCPT", piped, []string{"RCPT c@x", "421 4.3.2 bye", "RCPT b@x", "550 5.1.1 who"}, "b@x c@x", "550 5.1.1, -; 451 4.3.2 rcpt", "MAIL RCPT RCPT DATA", false},
		{"SMTP-027 421 to DATA", clear(), []string{"DATA", "421 4.3.2 bye"}, "b@x", "-; 451 4.3.2 data", "MAIL RCPT DATA", false},
		{"SMTP-027 421 to the message", clear(), []string{".", "421 4.3.2 bye"}, "b@x", "-; 451 4.3.2 end", "MAIL RCPT DATA .", false},
		{"SMTP-027 lost after MAIL", clear(), []string{"MAIL", mxtest.Drop}, "b@x", "-; 451 4.4.2 mail", "MAIL", false},
		{"SMTP-027 lost after RCPT", clear(), []string{"RCPT", mxtest.Drop}, "b@x", "-; 451 4.4.2 rcpt", "MAIL RCPT", false},
		{"SMTP-027 lost after DATA", clear(), []string{"DATA", mxtest.Drop}, "b@x", "-; 451 4.4.2 data", "MAIL RCPT DATA", false},
		{"SMTP-027 lost after the last dot", clear(), []string{".", mxtest.Drop}, "b@x", "-; 451 4.4.2 end", "MAIL RCPT DATA .", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := newBed(t)
			b.Set(tt.config)
			for pair := range slices.Chunk(tt.replies, 2) {
				b.Reply(pair[0], pair[1])
			}
			s := b.open("opportunistic")
			r := b.send(s, text, strings.Fields(tt.to)...)
			if got := codes(r); got != tt.codes {
				t.Errorf("replies %q, want %q", got, tt.codes)
			}
			if r.Usable != tt.usable {
				t.Errorf("usable %v, want %v", r.Usable, tt.usable)
			}
			lost := strings.HasSuffix(tt.name, "after the last dot") || strings.HasSuffix(tt.name, "650 to the message") ||
				strings.HasSuffix(tt.name, "354 to the message")
			if r.Uncertain != lost {
				t.Errorf("uncertain %v, want %v", r.Uncertain, lost)
			}
			s.Close()
			want := "EHLO " + tt.said
			if tt.usable {
				want += " QUIT"
			}
			if said := b.said(); said != want {
				t.Errorf("said %q, want %q", said, want)
			}
			if strings.HasPrefix(tt.name, "SMTP-090") {
				for _, m := range b.Mails() {
					if len(m.Data) != 0 && strings.Contains(tt.name, "354") {
						t.Errorf("a message for nobody was sent: %q", m.Data)
					}
				}
			}
		})
	}
}

func TestNextTransaction(t *testing.T) {
	b := newBed(t)
	b.Reply("RCPT nobody@x", "550 5.1.1 who")
	s := b.open("pkix")
	b.send(s, text, "b@x")
	b.send(s, text, "nobody@x")
	r := b.send(s, text, "c@x")
	if err := s.Reset(t.Context()); err != nil {
		t.Error(err)
	}
	s.Close()
	if codes(r) != "250 2.0.0" || len(b.Mails()) != 2 {
		t.Errorf("replies %s, %d messages", codes(r), len(b.Mails()))
	}
	if got, want := b.said(), "EHLO STARTTLS EHLO MAIL RCPT DATA . MAIL RCPT DATA RSET MAIL RCPT DATA . RSET QUIT"; got != want {
		t.Errorf("said %q, want %q", got, want)
	}
	if r := b.send(s, text, "d@x"); r.Usable || r.Failure == nil {
		t.Error("a closed session takes mail")
	}
	if s.Reset(t.Context()) == nil {
		t.Error("a closed session can be reset")
	}
	s.Close() // again
}

// commands sends one message and gives the MAIL and RCPT lines.
func (b *bed) commands(config mxtest.Config, e *smtpclient.Envelope, text string) ([]string, smtpclient.Result) {
	b.t.Helper()
	b.Set(config)
	b.Ended()
	b.Forget()
	s := b.open("opportunistic")
	r := b.sendAs(s, e, text)
	s.Close()
	var lines []string
	for _, line := range b.Ended()[0].Commands {
		if strings.HasPrefix(line, "MAIL") || strings.HasPrefix(line, "RCPT") {
			lines = append(lines, line)
		}
	}
	return lines, r
}

func TestCommands(t *testing.T) {
	offer := func(keywords ...string) mxtest.Config {
		return mxtest.Config{NoSTARTTLS: true, Keywords: append([]string{}, keywords...)}
	}
	to := func(r ...smtpclient.Recipient) []smtpclient.Recipient { return r }
	plain := to(smtpclient.Recipient{Addr: "b@x.example"})
	dsn := to(smtpclient.Recipient{Addr: "b@x.example", Notify: "SUCCESS,failure", ORcpt: "rfc822;b+2Bc@x.Example"})
	long := strings.Repeat("l", 65) + "@x.example"
	type envelope = smtpclient.Envelope
	for _, tt := range []struct {
		name   string
		config mxtest.Config
		e      envelope
		text   string
		want   []string // commands; or the failure
	}{
		{"SMTP-080 exact bytes", offer(), envelope{From: "A@x.Example", To: plain}, text, []string{"MAIL FROM:<A@x.Example>", "RCPT TO:<b@x.example>"}},
		{"SMTP-080 null path", offer(), envelope{To: plain}, text, []string{"MAIL FROM:<>", "RCPT TO:<b@x.example>"}},
		{"SMTP-080 quoted", offer(), envelope{From: `"a >\"b"@x`, To: plain}, text, []string{`MAIL FROM:<"a >\"b"@x>`, "RCPT TO:<b@x.example>"}},
		{"SMTP-080 one blank between parameters", offer("SIZE", "8BITMIME"), envelope{From: "a@x", To: plain, Body: "8BITMIME"}, text, []string{"MAIL FROM:<a@x> SIZE=21 BODY=8BITMIME", "RCPT TO:<b@x.example>"}},
		{"SMTP-081 long local part as it is", offer(), envelope{From: long, To: plain}, text, []string{"MAIL FROM:<" + long + ">", "RCPT TO:<b@x.example>"}},
		{"SMTP-081 CR LF in the sender", offer(), envelope{From: "a@x>\r\nRSET", To: plain}, text, []string{"553 5.1.7 mail"}},
		{"SMTP-081 NUL in the sender", offer(), envelope{From: "a\x00@x", To: plain}, text, []string{"553 5.1.7 mail"}},
		{"SMTP-081 LF in quotes", offer(), envelope{From: "\"a\n\"@x", To: plain}, text, []string{"553 5.1.7 mail"}},
		{"SMTP-081 quote without end", offer(), envelope{From: "\"a>@x", To: plain}, text, []string{"553 5.1.7 mail"}},
		{"SMTP-081 quote without end behind a backslash", offer(), envelope{From: `"a\"@x`, To: plain}, text, []string{"553 5.1.7 mail"}},
		{"SMTP-081 parameter in the sender", offer(), envelope{From: "a@x> SIZE=1", To: plain}, text, []string{"553 5.1.7 mail"}},
		{"SMTP-081 CR LF in a recipient", offer(), envelope{To: append(to(smtpclient.Recipient{Addr: "b@x>\r\nDATA"}), plain...)}, text, []string{"MAIL FROM:<>", "RCPT TO:<b@x.example>"}},
		{"SMTP-081 no recipient is left", offer(), envelope{To: to(smtpclient.Recipient{Addr: "b\r@x"})}, text, []string{"553 5.1.3"}},
		{"SMTP-081 CR LF in ENVID", offer("DSN"), envelope{EnvID: "x\r\nRSET", To: plain}, text, []string{"501 5.5.4 mail"}},
		{"SMTP-081 blank in NOTIFY", offer("DSN"), envelope{To: to(smtpclient.Recipient{Addr: "b@x", Notify: "NEVER FOO=1"})}, text, []string{"553 5.1.3"}},

		{"SMTP-100 SIZE with limit", offer("SIZE 1000"), envelope{To: plain}, text, []string{"MAIL FROM:<> SIZE=21", "RCPT TO:<b@x.example>"}},
		{"SMTP-100 too large", offer("SIZE 1000"), envelope{To: plain}, strings.Repeat("x\r\n", 400), []string{"552 5.3.4 mail"}},
		{"SMTP-100 exactly as large", offer("size 1200"), envelope{To: plain}, strings.Repeat("x\r\n", 400), []string{"MAIL FROM:<> SIZE=1200", "RCPT TO:<b@x.example>"}},
		{"SMTP-100 SIZE 0 is unknown", offer("SIZE 0"), envelope{To: plain}, text, []string{"MAIL FROM:<> SIZE=21", "RCPT TO:<b@x.example>"}},
		{"SMTP-100 SIZE of nonsense is unknown", offer("SIZE -1x"), envelope{To: plain}, text, []string{"MAIL FROM:<> SIZE=21", "RCPT TO:<b@x.example>"}},

		{"SMTP-101 offered", offer("8BITMIME"), envelope{To: plain, Body: "8BITMIME"}, "ü\r\n", []string{"MAIL FROM:<> BODY=8BITMIME", "RCPT TO:<b@x.example>"}},
		{"SMTP-101 7BIT", offer("8BITMIME"), envelope{To: plain, Body: "7BIT"}, text, []string{"MAIL FROM:<> BODY=7BIT", "RCPT TO:<b@x.example>"}},
		{"SMTP-101 not offered and needed", offer(), envelope{To: plain, Body: "8BITMIME"}, "ü\r\n", []string{"554 5.6.3 mail"}},
		{"SMTP-101 not offered, declared, but not needed", offer(), envelope{To: plain, Body: "8BITMIME"}, text, []string{"MAIL FROM:<>", "RCPT TO:<b@x.example>"}},
		{"SMTP-104 BINARYMIME needs BDAT", offer("8BITMIME", "BINARYMIME", "CHUNKING"), envelope{To: plain, Body: "BINARYMIME"}, text, []string{"554 5.6.3 mail"}},

		{"SMTP-102 offered", offer("SMTPUTF8", "8BITMIME"), envelope{From: "ü@x", To: plain, UTF8: true, Body: "8BITMIME"}, text, []string{"MAIL FROM:<ü@x> BODY=8BITMIME SMTPUTF8", "RCPT TO:<b@x.example>"}},
		{"SMTP-102 keyword with parameters", offer("SMTPUTF8 foo"), envelope{From: "ü@x", To: plain}, text, []string{"MAIL FROM:<ü@x> SMTPUTF8", "RCPT TO:<b@x.example>"}},
		{"SMTP-102 local part needs it", offer(), envelope{From: "ü@x", To: plain, UTF8: true}, text, []string{"550 5.6.7 mail"}},
		{"SMTP-102 local part of a recipient needs it", offer(), envelope{To: to(smtpclient.Recipient{Addr: "ü@x"}), UTF8: true}, text, []string{"550 5.6.7 mail"}},
		{"SMTP-102 header needs it", offer(), envelope{To: plain, UTF8: true}, "Subject: ü\r\n\r\nx\r\n", []string{"550 5.6.7 mail"}},
		{"SMTP-102 domain alone", offer(), envelope{From: "a@Bücher.example", To: to(smtpclient.Recipient{Addr: "b@bücher.example"}), UTF8: true}, text, []string{"MAIL FROM:<a@xn--bcher-kva.example>", "RCPT TO:<b@xn--bcher-kva.example>"}},
		{"SMTP-102 declared, but not needed", offer(), envelope{To: plain, UTF8: true}, "Subject: x\r\n\r\nü\r\n", []string{"MAIL FROM:<>", "RCPT TO:<b@x.example>"}},
		{"SMTP-102 a domain that is none", offer(), envelope{From: "a@ü .example", To: plain}, text, []string{"553 5.1.7 mail"}},

		{"SMTP-105 DSN parameters unchanged", offer("DSN"), envelope{From: "a@x", Ret: "HDRS", EnvID: "a+3Db", To: dsn}, text, []string{"MAIL FROM:<a@x> RET=HDRS ENVID=a+3Db", "RCPT TO:<b@x.example> NOTIFY=SUCCESS,failure ORCPT=rfc822;b+2Bc@x.Example"}},
		{"SMTP-105 nothing is invented", offer("DSN"), envelope{To: plain}, text, []string{"MAIL FROM:<>", "RCPT TO:<b@x.example>"}},
		{"SMTP-106 DSN not offered", offer(), envelope{From: "a@x", Ret: "HDRS", EnvID: "a+3Db", To: dsn}, text, []string{"MAIL FROM:<a@x>", "RCPT TO:<b@x.example>"}},
		{"SMTP-105 ORCPT in UTF-8 needs SMTPUTF8", offer("DSN"), envelope{To: to(smtpclient.Recipient{Addr: "b@x", ORcpt: "utf-8;ü@x"})}, text, []string{"MAIL FROM:<>", "RCPT TO:<b@x>"}},
		{"SMTP-105 ORCPT in UTF-8", offer("DSN", "SMTPUTF8"), envelope{UTF8: true, To: to(smtpclient.Recipient{Addr: "b@x", ORcpt: "utf-8;ü@x"})}, text, []string{"MAIL FROM:<> SMTPUTF8", "RCPT TO:<b@x> ORCPT=utf-8;ü@x"}},
		{"RT-065 no parameter is sent without demand", offer("REQUIRETLS"), envelope{To: plain}, text, []string{"MAIL FROM:<>", "RCPT TO:<b@x.example>"}},
		{"SMTP-109 AUTH is not used", offer("AUTH PLAIN LOGIN", "AUTH=LOGIN"), envelope{From: "a@x", To: plain}, text, []string{"MAIL FROM:<a@x>", "RCPT TO:<b@x.example>"}},
		{"SMTP-111 XFORWARD and XCLIENT are not used", offer("XFORWARD NAME ADDR", "XCLIENT NAME ADDR"), envelope{To: plain}, text, []string{"MAIL FROM:<>", "RCPT TO:<b@x.example>"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := newBed(t)
			lines, r := b.commands(tt.config, &tt.e, tt.text)
			switch {
			case r.Failure != nil:
				lines = append(lines, fmt.Sprintf("%d %s %s", r.Failure.Reply.Code, r.Failure.Reply.Enhanced, r.Failure.Stage))
			case len(lines) == 0:
				lines = append(lines, codes(r))
			}
			if diff := cmp.Diff(tt.want, lines); diff != "" {
				t.Error(diff)
			}
			if !r.Usable {
				t.Error("the session is of no use afterwards")
			}
			for _, verb := range b.Conns()[0].Verbs() {
				if !slices.Contains(strings.Fields("EHLO MAIL RCPT DATA . QUIT"), verb) {
					t.Errorf("said %s", verb)
				}
			}
		})
	}
}

// once is a reader that cannot go back; seekless says so only when it is asked to.
type once struct{ io.Reader }

type seekless struct{ io.Reader }

func (seekless) Seek(int64, int) (int64, error) { return 0, errors.ErrUnsupported }

func TestOnce(t *testing.T) {
	for _, data := range []io.Reader{once{strings.NewReader(text)}, seekless{strings.NewReader(text)}} {
		for _, tt := range []struct {
			name string
			e    smtpclient.Envelope
			want string
		}{
			{"SMTP-101 the envelope is believed", smtpclient.Envelope{Body: "8BITMIME"}, "5.6.3"},
			{"SMTP-102 the envelope is believed", smtpclient.Envelope{UTF8: true}, "5.6.7"},
		} {
			t.Run(tt.name, func(t *testing.T) {
				b := newBed(t)
				b.Set(mxtest.Config{NoSTARTTLS: true, Keywords: []string{}})
				s := b.open("opportunistic")
				defer s.Close()
				tt.e.To = []smtpclient.Recipient{{Addr: "b@x"}}
				r := s.Send(t.Context(), &tt.e, data, int64(len(text)))
				if r.Failure == nil || r.Failure.Reply.Enhanced != tt.want || !r.Usable {
					t.Errorf("%s, %v", codes(r), r.Failure)
				}
			})
		}
	}
}

func TestPipelining(t *testing.T) {
	t.Run("SMTP-090 in one group", func(t *testing.T) {
		b := newBed(t)
		s := b.open("pkix")
		b.send(s, text, "b@x", "c@x")
		s.Close()
		if groups := b.Ended()[0].Groups; !slices.Contains(groups, 4) {
			t.Errorf("groups %v", groups)
		}
	})
	t.Run("SMTP-090 only if offered inside TLS", func(t *testing.T) {
		b := newBed(t)
		b.Set(mxtest.Config{Keywords: []string{"PIPELINING"}, TLSKeywords: []string{"SIZE"}})
		s := b.open("pkix")
		b.send(s, text, "b@x", "c@x")
		s.Close()
		if groups := b.Ended()[0].Groups; slices.Max(groups) != 1 {
			t.Errorf("groups %v", groups)
		}
	})
	t.Run("SMTP-090 many recipients in bounded groups", func(t *testing.T) {
		b := newBed(t)
		s := b.open("pkix")
		var to []string
		for i := range 500 {
			to = append(to, fmt.Sprintf("r%d@%s.example", i, strings.Repeat("x", i%60)))
		}
		b.Reply("RCPT r499@", "550 5.1.1 who")
		r := b.send(s, text, to...)
		s.Close()
		c := b.Ended()[0]
		if slices.Max(c.Groups) > 51 || len(c.Mails) != 1 || len(c.Mails[0].To) != 499 {
			t.Errorf("groups %v, mails %d", c.Groups, len(c.Mails))
		}
		if r.Replies[0].Code != 250 || r.Replies[498].Code != 250 || r.Replies[499].Code != 550 {
			t.Errorf("replies %+v", r.Replies)
		}
	})
}

// TestGroups has more recipients than go into one group.
func TestGroups(t *testing.T) {
	var to []string
	for i := range 120 {
		to = append(to, fmt.Sprintf("r%d@x", i))
	}
	for _, tt := range []struct {
		name     string
		replies  []string
		accepted int
		groups   []int // of the transaction; the message counts as one
	}{
		{"SMTP-090 all are taken", nil, 120, []int{50, 50, 22}},
		{"SMTP-090 MAIL is refused: no more is said", []string{"MAIL", "550 5.7.1 no"}, 0, []int{50}},
		{"SMTP-090 all are refused: no DATA", []string{"RCPT", "550 5.1.1 who"}, 0, []int{50, 50, 21}},
		{"SMTP-090 the last alone is taken: DATA by itself", []string{"RCPT", "550 5.1.1 who", "RCPT r119@", "250 ok"}, 1, []int{50, 50, 21, 1}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := newBed(t)
			b.Set(mxtest.Config{NoSTARTTLS: true, Keywords: []string{"PIPELINING"}})
			for pair := range slices.Chunk(tt.replies, 2) {
				b.Reply(pair[0], pair[1])
			}
			s := b.open("opportunistic")
			r := b.send(s, text, to...)
			s.Close()
			c := b.Ended()[0]
			if diff := cmp.Diff(tt.groups, c.Groups[1:1+len(tt.groups)]); diff != "" {
				t.Error(diff)
			}
			accepted := 0
			for _, reply := range r.Replies {
				if reply.Code == 250 {
					accepted++
				}
			}
			if accepted != tt.accepted || (len(c.Mails) == 1) != (accepted > 0) {
				t.Errorf("%d accepted, %d messages", accepted, len(c.Mails))
			}
		})
	}
	t.Run("SMTP-090 long addresses go into smaller groups", func(t *testing.T) {
		b := newBed(t)
		s := b.open("pkix")
		b.send(s, text, slices.Repeat([]string{strings.Repeat("l", 400) + "@x"}, 100)...)
		s.Close()
		if groups := b.Ended()[0].Groups; slices.Max(groups) > 8<<10/400 {
			t.Errorf("groups %v", groups)
		}
	})
	t.Run("SMTP-090 recipients that cannot be sent leave no gap", func(t *testing.T) {
		b := newBed(t)
		s := b.open("pkix")
		defer s.Close()
		b.Reply("RCPT c@x", "550 5.1.1 who")
		if r := b.send(s, text, "a@x", "b\n@x", "c@x", "d@x"); codes(r) != "250 2.0.0, 553 5.1.3, 550 5.1.1, 250 2.0.0" {
			t.Error(codes(r))
		}
	})
}

func TestTooMany(t *testing.T) {
	for _, tt := range []struct {
		name  string
		reply string
		rest  bool
		want  string
	}{
		{"SMTP-075 452", "452 4.5.3 too many", true, "452 4.5.3"},
		{"SMTP-075 452 without enhanced code", "452 too many", true, "452 4.0.0"},
		{"SMTP-075 the old 552", "552 too many", true, "452 4.5.3"},
		{"SMTP-075 552 with its code", "552 5.5.3 too many", true, "452 4.5.3"},
		{"SMTP-075 451", "451 4.5.3 too many", true, "451 4.5.3"},
		{"SMTP-075 for good, it says", "550 5.5.3 too many", true, "452 4.5.3"},
		{"SMTP-075 full mailbox", "452 4.2.2 full", false, "452 4.2.2"},
		{"SMTP-075 full mailbox, for good", "552 5.2.2 full", false, "552 5.2.2"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := newBed(t)
			b.Reply("RCPT c@x", tt.reply)
			s := b.open("pkix")
			defer s.Close()
			r := b.send(s, text, "b@x", "c@x", "d@x")
			if got, want := codes(r), "250 2.0.0, "+tt.want+", 250 2.0.0"; got != want {
				t.Errorf("replies %q, want %q", got, want)
			}
			if slices.Contains(r.Rest, 1) != tt.rest || !r.Usable {
				t.Errorf("rest %v", r.Rest)
			}
			if r = b.send(s, text, "c@x"); len(r.Rest) != 0 || !strings.HasPrefix(tt.reply, "550") && codes(r) != tt.want {
				t.Errorf("one recipient is too many: %s", codes(r))
			}
		})
	}
	t.Run("SMTP-075 a host that takes two at a time", func(t *testing.T) {
		b := newBed(t)
		b.Set(mxtest.Config{MaxRcpts: 2})
		s := b.open("pkix")
		left := []string{"a@x", "b@x", "c@x", "d@x", "e@x"}
		for rounds := 0; len(left) > 0 && rounds < 5; rounds++ {
			r := b.send(s, text, left...)
			var next []string
			for _, i := range r.Rest {
				next = append(next, left[i])
			}
			left = next
		}
		s.Close()
		b.Ended()
		if len(left) != 0 || len(b.Mails()) != 3 {
			t.Errorf("left %q after %d messages", left, len(b.Mails()))
		}
	})
}

func TestContent(t *testing.T) {
	big := strings.Repeat(strings.Repeat("y", 70)+"\r\n..\r\n", 10000)
	for _, tt := range []struct{ name, text, want string }{
		{"SMTP-083 as it is", text, text},
		{"SMTP-083 bare LF", "a\n.\nb\r\n", "a . b\r\n"},
		{"SMTP-083 bare CR", "a\r.\rb\r\n", "a . b\r\n"},
		{"SMTP-083 LF dot CRLF", "a\n.\r\nMAIL\r\n", "a .\r\nMAIL\r\n"},
		{"SMTP-083 CRLF dot LF", "a\r\n.\nMAIL\r\n", "a\r\n. MAIL\r\n"},
		{"SMTP-083 CR CR LF", "a\r\r\nb\r\n", "a \r\nb\r\n"},
		{"SMTP-083 bare CR at the end", "a\r", "a \r\n"},
		{"SMTP-083 no line end at the end", "a", "a\r\n"},
		{"SMTP-083 empty", "", ""},
		{"SMTP-084 a dot", ".\r\n", ".\r\n"},
		{"SMTP-084 dots", "..\r\n.x\r\n...\r\nx.\r\n", "..\r\n.x\r\n...\r\nx.\r\n"},
		{"SMTP-084 CRLF dot CRLF", "x\r\n.\r\nQUIT\r\n", "x\r\n.\r\nQUIT\r\n"},
		{"SMTP-084 much of it", big, big},
		{"SMTP-083 8-bit and NUL", "\x00\xff\r\n", "\x00\xff\r\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := newBed(t)
			s := b.open("pkix")
			defer s.Close()
			for _, wrap := range []func(io.Reader) io.Reader{iotest.OneByteReader, iotest.HalfReader, iotest.DataErrReader} {
				e := &smtpclient.Envelope{To: []smtpclient.Recipient{{Addr: "b@x"}}}
				r := s.Send(t.Context(), e, wrap(strings.NewReader(tt.text)), int64(len(tt.text)))
				if codes(r) != "250 2.0.0" || !r.Usable {
					t.Fatal(codes(r))
				}
			}
			for _, m := range b.Mails() {
				if string(m.Data) != tt.want {
					t.Errorf("%.50q, want %.50q", m.Data, tt.want)
				}
			}
			if mails := b.Mails(); len(mails) != 3 {
				t.Errorf("%d messages", len(mails))
			}
		})
	}
	for _, tt := range []struct {
		name string
		data io.Reader
		size int64
	}{
		{"SMTP-089 a message that ends early", strings.NewReader(text), int64(len(text)) + 1},
		{"SMTP-089 a message that does not end", strings.NewReader(text), int64(len(text)) - 1},
		{"SMTP-089 a message that cannot be read", io.MultiReader(strings.NewReader(text), iotest.ErrReader(errors.New("bad disk"))), 100},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := newBed(t)
			s := b.open("pkix")
			r := s.Send(t.Context(), &smtpclient.Envelope{To: []smtpclient.Recipient{{Addr: "b@x"}}}, tt.data, tt.size)
			s.Close()
			b.Ended()
			if r.Failure == nil || r.Failure.Reply.Enhanced != "4.3.0" || r.Usable || r.Uncertain || len(b.Mails()) != 0 {
				t.Errorf("result %+v, %v; taken %+v", r, r.Failure, b.Mails())
			}
		})
	}
}

// TestEarlyReply is a host that has had enough in the midst of a message.
func TestEarlyReply(t *testing.T) {
	b := newBed(t)
	b.Set(mxtest.Config{NoSTARTTLS: true})
	b.Reply("CONTENT", "552 5.3.4 too much")
	s := b.open("opportunistic")
	r := b.send(s, text, "b@x")
	if codes(r) != "552 5.3.4" {
		t.Error(codes(r))
	}
	s.Close()
	b.Ended()
	b.Reply("CONTENT", mxtest.Reset)
	s = b.open("opportunistic")
	r = b.send(s, strings.Repeat("x\r\n", 1<<20), "b@x")
	if r.Failure == nil || r.Failure.Stage != smtpclient.StageData || r.Usable || r.Uncertain || !r.Failure.Temporary() {
		t.Errorf("result %+v, %v", codes(r), r.Failure)
	}
}

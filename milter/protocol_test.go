package milter_test

import (
	"encoding/binary"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"postseal/milter"
	"postseal/socketmap/pipetest"
)

// dial starts a server and connects to it, without a negotiation.
func dial(t *testing.T, s *milter.Server) *mta {
	t.Helper()
	p := pipetest.Listen()
	start(t, s, p)
	return newMTA(t, p.Dial())
}

// want compares what a message got.
func want(t *testing.T, m *mta, x mail, changes ...string) {
	t.Helper()
	got, verdict := m.transact(x)
	if diff := cmp.Diff(changes, got); diff != "" || verdict != "c" {
		t.Errorf("%+v: %s %s", x, verdict, diff)
	}
}

var requiresTLS = mail{from: "<sender@example.org> REQUIRETLS"}

func TestFrames(t *testing.T) {
	t.Run("MIL-001 lengths that are none end the connection, and nothing else", func(t *testing.T) {
		p := pipetest.Listen()
		log := &logger{}
		start(t, &milter.Server{Log: log.slog()}, p)
		other := newMTA(t, p.Dial())
		other.negotiate(6, allActions, allSteps)
		for _, length := range []uint32{0, 0xffffffff, 1<<20 + 1} {
			m := newMTA(t, p.Dial())
			m.negotiate(6, allActions, allSteps)
			m.write(binary.BigEndian.AppendUint32(nil, length))
			m.wantClosed()
		}
		want(t, other, requiresTLS, tagRequired, headersOnly)
		if got := strings.Count(log.String(), "level=WARN"); got != 3 {
			t.Errorf("%d warnings: %s", got, log)
		}
	})
	t.Run("MIL-001 the largest header is taken, a command of that size is not", func(t *testing.T) {
		m := connect(t, &milter.Server{})
		m.command('M', "<sender@example.org>", "REQUIRETLS")
		m.command('R', "<rcpt@example.net>")
		m.command('L', "X", strings.Repeat("x", 1<<20-4))
		if changes, _ := m.end(); len(changes) != 2 {
			t.Errorf("changes: %q", changes)
		}
		m.command('C', "client", "4\x00\x19192.0.2.1")
		go m.Write(frame('M', "<"+strings.Repeat("x", 64<<10)+">"))
		m.wantClosed()
	})
	t.Run("frames that no mail server sends end the connection", func(t *testing.T) {
		for _, b := range [][]byte{
			frame('x'), frame('C', "host"), frame('C', "host", "9\x00\x19x"), rawFrame('C', nil),
			rawFrame('C', []byte("host\x004\x00")), rawFrame('C', []byte("host\x004\x00\x19192.0.2.1")),
			rawFrame('M', nil), rawFrame('M', []byte("<a@b>")), rawFrame('R', []byte("<a@b>")),
			rawFrame('L', nil), frame('L', ""), frame('L', "", "value"), frame('L', "a", "b", "c"), frame('L', "a"),
			rawFrame('D', nil), rawFrame('D', []byte("Ci\x00x")), offer(6, allActions, allSteps),
		} {
			m := connect(t, &milter.Server{})
			m.write(b)
			m.wantClosed()
		}
	})
	t.Run("nothing comes before the negotiation", func(t *testing.T) {
		for _, b := range [][]byte{frame('M', "<a@b>"), frame('Q'), rawFrame('O', []byte("short"))} {
			m := dial(t, &milter.Server{})
			m.write(b)
			m.wantClosed()
		}
	})
}

func TestNegotiation(t *testing.T) {
	t.Run("MIL-002 the answer has nothing that was not offered", func(t *testing.T) {
		m := dial(t, &milter.Server{})
		m.negotiate(6, 0x1f, 0x7f)
		if m.actions&^0x1f != 0 || m.steps&^0x7f != 0 || m.symlist != "" {
			t.Errorf("actions %#x, steps %#x, macros %q", m.actions, m.steps, m.symlist)
		}
		want(t, m, requiresTLS, tagRequired)
	})
	t.Run("MIL-002 no answer where the offer lacks what is needed", func(t *testing.T) {
		for _, c := range []struct {
			route   milter.Route
			actions uint32
		}{{milter.RouteHeader, 0x0f}, {milter.RouteHeader, 0x1e}, {milter.RouteRecipient, 0x1b}, {milter.RouteRecipient, 0x17}} {
			log := &logger{}
			m := dial(t, &milter.Server{Route: c.route, Log: log.slog()})
			m.write(offer(6, c.actions, allSteps))
			m.wantClosed()
			if !strings.Contains(log.String(), "level=ERROR") {
				t.Errorf("%+v: logged: %s", c, log)
			}
		}
	})
	t.Run("MIL-003 versions 2 to 6", func(t *testing.T) {
		for _, c := range []struct{ offered, want, actions, steps uint32 }{
			{2, 2, 0x1f, 0x7f}, {3, 3, 0x3f, 0x1ff}, {4, 4, 0x3f, 0x3ff}, {5, 5, 0x3f, 0x3ff}, {6, 6, allActions, allSteps}, {7, 6, 0xffffffff, 0xffffffff},
		} {
			m := dial(t, &milter.Server{})
			m.negotiate(c.offered, c.actions, c.steps)
			if m.version != c.want {
				t.Errorf("offered %d: answered %d", c.offered, m.version)
			}
			m.connect("client.example.com", far)
			changes, _ := m.transact(requiresTLS)
			if len(changes) == 0 || changes[0] != tagRequired {
				t.Errorf("version %d: %q", c.offered, changes)
			}
		}
		m := dial(t, &milter.Server{})
		m.write(offer(1, allActions, allSteps))
		m.wantClosed()
	})
	t.Run("MIL-004 the actions asked for are those of the route, no others are used", func(t *testing.T) {
		for route, want := range map[milter.Route]uint32{"": 0x151, milter.RouteHeader: 0x151, milter.RouteRecipient: 0x1dc} {
			if m := dial(t, &milter.Server{Route: route}); true {
				m.negotiate(6, allActions, allSteps)
				if m.actions != want {
					t.Errorf("%q: actions %#x, want %#x", route, m.actions, want)
				}
			}
		}
		m := dial(t, &milter.Server{Route: milter.RouteRecipient})
		m.negotiate(6, 0x3f, allSteps) // neither CHGFROM nor ADDRCPT_PAR
		want(t, m, mail{from: requiresTLS.from, to: []string{"<a@example.net> NOTIFY=NEVER"}},
			"+ <a@example.net.requiretls.invalid>", "- <a@example.net>")
	})
	t.Run("MIL-005 no reply where none was agreed, one everywhere else", func(t *testing.T) {
		for _, steps := range []uint32{0, noReplyHdr, allSteps, allSteps &^ 0x40 &^ 0x10, 0xff000} {
			m := dial(t, &milter.Server{})
			m.negotiate(6, allActions, steps)
			m.connect("client.example.com", far)
			m.command('H', "client.example.com")
			m.command('U', "XYZ")
			// A reply too many would be read as the next one.
			for range 3 {
				want(t, m, mail{from: requiresTLS.from, header: []string{"A: 1", "B: 2", "C:", "TLS-Required: No"}}, tagRequired, headersOnly)
			}
		}
		m := connect(t, &milter.Server{})
		if m.steps&noReplyHdr == 0 {
			t.Error("header replies are waited for")
		}
	})
	t.Run("MIL-006 bodies and unknown commands are not asked for", func(t *testing.T) {
		m := connect(t, &milter.Server{})
		if skipped := uint32(noBody | 0x100 | 0x200); m.steps&skipped != skipped {
			t.Errorf("steps %#x", m.steps)
		}
		if m.steps&^allSteps != 0 || m.steps&0x2f&^noBody != 0 {
			t.Errorf("steps %#x leave out what is needed", m.steps)
		}
	})
	t.Run("MIL-007 nothing is changed before the end of the message", func(t *testing.T) {
		m := dial(t, &milter.Server{Route: milter.RouteRecipient})
		m.negotiate(6, allActions, 0) // every command is answered, and with nothing but continue
		want(t, m, mail{from: requiresTLS.from, to: []string{"<a@x.example.relaxed.invalid>"}, header: []string{"X-Postseal-Route: relaxed"}},
			"m 1 X-Postseal-Route: ", "+ <a@x.example.requiretls.invalid>", "- <a@x.example.relaxed.invalid>", headersOnly)
	})
	t.Run("MIL-025 macros are asked for where that is allowed", func(t *testing.T) {
		m := connect(t, &milter.Server{})
		const list = "1: {tls_version}\n2: i {auth_authen} {tls_version}\n3: i {rcpt_mailer}\n5: i\n"
		if m.symlist != list {
			t.Errorf("macros:\n%s", m.symlist)
		}
		m = dial(t, &milter.Server{})
		m.negotiate(6, 0xff, allSteps)
		if m.symlist != "" || m.actions&0x100 != 0 {
			t.Errorf("asked for %q", m.symlist)
		}
	})
}

func TestEnvelope(t *testing.T) {
	show := func(t *testing.T, args string, changes ...string) {
		t.Helper()
		m := connect(t, &milter.Server{})
		m.raw(rawFrame('M', []byte(args)))
		m.command('R', "<rcpt@example.net>")
		got, _ := m.end()
		if diff := cmp.Diff(changes, got); diff != "" {
			t.Errorf("%q: %s", args, diff)
		}
	}
	t.Run("MIL-008 the parameters stand behind the address", func(t *testing.T) {
		show(t, "<a@b>\x00REQUIRETLS\x00", tagRequired, "e <a@b> RET=HDRS")
		show(t, "<a@b>\x00SIZE=1000\x00BODY=8BITMIME\x00ENVID=abc\x00RequireTLS\x00", tagRequired, "e <a@b> RET=HDRS ENVID=abc")
		show(t, "<a@b>\x00SIZE=1000\x00")
		show(t, "a@b\x00REQUIRETLS\x00", tagRequired, "e <a@b> RET=HDRS")
		show(t, "<\"<>\"@b>\x00REQUIRETLS\x00", tagRequired, "e <\"<>\"@b> RET=HDRS")
		show(t, "<REQUIRETLS>\x00")
		show(t, "\x00REQUIRETLS\x00") // no address at all is the null sender
	})
	t.Run("MIL-009 address and parameters may come in one string", func(t *testing.T) {
		show(t, "<a@b> REQUIRETLS\x00", tagRequired, "e <a@b> RET=HDRS")
		show(t, "<a@b>  SIZE=10 REQUIRETLS ENVID=x\x00", tagRequired, "e <a@b> RET=HDRS ENVID=x")
		show(t, "<a@b> SIZE=10\x00REQUIRETLS\x00", tagRequired, "e <a@b> RET=HDRS")
		show(t, "<\"> REQUIRETLS \"@b>\x00")
		show(t, "<\"\\\"> REQUIRETLS \"@b>\x00")
		show(t, "<> REQUIRETLS\x00")
	})
	t.Run("MIL-011 folded values are unfolded, and one blank is left to the mail server", func(t *testing.T) {
		m := connect(t, &milter.Server{})
		if m.steps&0x100000 != 0 {
			t.Error("leading blanks are asked for")
		}
		for _, value := range []string{"\n No", "\n\tNo", "No", " No", "\r\n No "} {
			m.command('M', "<sender@example.org>")
			m.command('R', "<rcpt@example.net>")
			m.command('L', "TLS-Required", value)
			// The value that is added has no blank of its own in front.
			if got, _ := m.end(); len(got) != 1 || got[0] != "h X-Postseal-Route: relaxed" {
				t.Errorf("%q: %q", value, got)
			}
		}
	})
	t.Run("MIL-035 a BDAT body shows as a DATA body in more pieces", func(t *testing.T) {
		show := func(commands ...[]byte) []string {
			m := dial(t, &milter.Server{})
			m.negotiate(6, allActions, 0)
			m.command('M', "<sender@example.org>")
			m.command('R', "<rcpt@example.net>")
			for _, c := range commands {
				m.raw(c)
			}
			changes, _ := m.end()
			return changes
		}
		header := frame('L', "TLS-Required", "No")
		data := show(frame('T'), header, frame('N'), rawFrame('B', []byte("one two three\r\n")))
		bdat := show(header, frame('N'), rawFrame('B', []byte("one ")), rawFrame('B', nil), rawFrame('B', []byte("two three\r\n")))
		if diff := cmp.Diff(data, bdat); diff != "" || len(data) != 1 {
			t.Errorf("%q, %s", data, diff)
		}
	})
}

func TestState(t *testing.T) {
	ask := []string{"Require-TLS-ESMTP: yes"}
	t.Run("MIL-012 nothing of a message is left for the next", func(t *testing.T) {
		full := mail{from: requiresTLS.from, user: "alice", header: append(ask, "X-Postseal-Route: relaxed", "TLS-Required: No")}
		m := connect(t, &milter.Server{})
		m.connect("client.example.com", far)
		begin := func() {
			m.macros('M', "i", "old", "{auth_authen}", "alice")
			m.command('M', strings.Fields(full.from)...)
			m.macros('R', "i", "old")
			m.command('R', "<rcpt@example.net>")
			for _, f := range full.header {
				name, value, _ := strings.Cut(f, ": ")
				m.command('L', name, value)
			}
		}
		begin()
		m.send('A')
		want(t, m, mail{header: ask}) // alice has gone
		begin()
		want(t, m, mail{header: ask}) // without ABORT
		want(t, m, full, "m 1 X-Postseal-Route: ", tagRequired, headersOnly)
		want(t, m, mail{})
	})
	t.Run("MIL-012 no macro of a message is left for the next", func(t *testing.T) {
		log := &logger{}
		m := connect(t, &milter.Server{Log: log.slog(), Route: milter.RouteRecipient})
		bare := func() {
			t.Helper()
			m.command('M', "<sender@example.org>", "REQUIRETLS", "RET=HDRS")
			m.command('R', "<rcpt@example.net>")
			m.send('E')
			var got []byte
			for len(got) == 0 || got[len(got)-1] != 'c' {
				code, _ := m.read()
				got = append(got, code)
			}
			if string(got) != "+-c" {
				t.Errorf("answers %s", got)
			}
		}
		m.macros('M', "i", "old", "{tls_version}", "old")
		m.command('M', "<sender@example.org>")
		m.macros('R', "i", "old", "{rcpt_mailer}", "local")
		m.command('R', "<rcpt@example.net>")
		m.macros('L', "i", "old")
		m.command('L', "Subject", "old")
		bare() // without ABORT
		m.macros('M', "i", "old")
		m.command('M', "<sender@example.org>")
		m.macros('R', "i", "old", "{rcpt_mailer}", "local") // and no recipient
		m.send('A')
		bare()
		m.macros('M', "{auth_authen}", "old")
		m.send('A')
		want(t, m, mail{header: ask})
		if got := strings.Count(log.String(), `queue_id="" tag=requiretls`); got != 2 || strings.Contains(log.String(), "old") {
			t.Errorf("logged: %s", log)
		}
	})
	t.Run("MIL-012 QUIT ends the connection", func(t *testing.T) {
		m := connect(t, &milter.Server{})
		m.send('Q')
		m.wantClosed()
	})
	t.Run("MIL-012 QUIT_NC begins a new SMTP session", func(t *testing.T) {
		m := connect(t, &milter.Server{})
		m.connect("localhost", "127.0.0.1")
		m.macros('H', "{tls_version}", "TLSv1.2")
		m.command('H', "x")
		want(t, m, mail{header: ask}, tagRequired, headersOnly)
		m.command('M', "<sender@example.org>", "REQUIRETLS")
		m.send('K')
		m.command('R', "<rcpt@example.net>")
		if changes, _ := m.end(); changes != nil { // its message has gone as well
			t.Errorf("changes %q", changes)
		}
		want(t, m, mail{header: ask}) // a client of whom nothing is said is not near
		m.connect("client.example.com", far)
		want(t, m, mail{header: ask})
		want(t, m, requiresTLS, tagRequired, headersOnly)
	})
	t.Run("MIL-020 the macros that Postfix sends are understood", func(t *testing.T) {
		log := &logger{}
		m := connect(t, &milter.Server{Log: log.slog()})
		m.macros('C', "j", "mx.example.org", "{daemon_name}", "mx.example.org", "{daemon_addr}", "192.0.2.1", "v", "Postfix 3.7.11", "_", "client [192.0.2.25]")
		m.connect("client.example.com", far)
		m.macros('H', "{tls_version}", "TLSv1.3", "{cipher}", "TLS_AES_256_GCM_SHA384", "{cipher_bits}", "256", "{cert_subject}", "", "{cert_issuer}", "")
		m.command('H', "client.example.com")
		m.macros('M', "{auth_type}", "PLAIN", "{auth_authen}", "alice", "{auth_author}", "", "{mail_addr}", "a@b", "{mail_host}", "", "{mail_mailer}", "smtp")
		m.command('M', "<sender@example.org>")
		m.macros('R', "i", "4bT9xY", "{rcpt_addr}", "rcpt@example.net", "{rcpt_host}", "example.net", "{rcpt_mailer}", "smtp")
		m.command('R', "<rcpt@example.net>")
		m.macros('L', "i", "4bT9xY")
		m.command('L', "Require-TLS-ESMTP", "yes")
		if got, _ := m.end(); len(got) != 2 || got[0] != tagRequired {
			t.Errorf("alice asks in vain: %q", got)
		}
		if !strings.Contains(log.String(), "queue_id=4bT9xY") || !strings.Contains(log.String(), "client_tls=TLSv1.3") {
			t.Errorf("logged: %s", log)
		}
	})
	t.Run("MIL-021 the queue id that comes after MAIL is in the log", func(t *testing.T) {
		log := &logger{}
		m := connect(t, &milter.Server{Log: log.slog()})
		m.macros('M', "{mail_addr}", "sender@example.org")
		m.command('M', "<sender@example.org>", "REQUIRETLS")
		m.macros('R', "i", "4bT9xZ")
		m.command('R', "<rcpt@example.net>")
		m.send('E')
		for code, _ := m.read(); code != 'c'; code, _ = m.read() {
		}
		if !strings.Contains(log.String(), "queue_id=4bT9xZ") {
			t.Errorf("logged: %s", log)
		}
	})
	t.Run("MIL-022 no macro is needed", func(t *testing.T) {
		m := connect(t, &milter.Server{Route: milter.RouteRecipient})
		m.command('M', "<sender@example.org>", "REQUIRETLS")
		m.command('R', "<rcpt@example.net>")
		m.send('E')
		var got []byte
		for len(got) == 0 || got[len(got)-1] != 'c' {
			code, _ := m.read()
			got = append(got, code)
		}
		if string(got) != "+-ec" {
			t.Errorf("answers %s", got)
		}
	})
	t.Run("MIL-023 the second HELO after STARTTLS counts", func(t *testing.T) {
		log := &logger{}
		m := connect(t, &milter.Server{Log: log.slog()})
		m.macros('H', "{tls_version}", "old")
		m.command('H', "one")
		m.macros('H', "{tls_version}", "TLSv1.3")
		m.command('H', "two")
		want(t, m, requiresTLS, tagRequired, headersOnly)
		m.command('H', "three") // and in clear text again
		want(t, m, requiresTLS, tagRequired, headersOnly)
		if !strings.Contains(log.String(), "client_tls=TLSv1.3\n") || !strings.Contains(log.String(), "client_tls=\"\"\n") || strings.Contains(log.String(), "old") {
			t.Errorf("logged: %s", log)
		}
	})
	t.Run("MIL-024 macros of earlier stages are kept, and over messages those of the session", func(t *testing.T) {
		log := &logger{}
		m := connect(t, &milter.Server{Log: log.slog()})
		m.macros('H', "{tls_version}", "TLSv1.3")
		m.command('H', "client")
		for range 2 {
			want(t, m, mail{user: "alice", header: ask}, tagRequired, headersOnly)
		}
		if got := strings.Count(log.String(), "client_tls=TLSv1.3"); got != 2 {
			t.Errorf("logged: %s", log)
		}
	})
}

func TestLocalClients(t *testing.T) {
	for _, c := range []struct {
		connect string
		local   bool
	}{
		{"localhost\x004\x00\x00127.0.0.1\x00", true}, // the session that Postfix simulates
		{"LOCALHOST\x006\x00\x00IPv6:::1\x00", true},
		{"localhost\x004\x00\x00192.0.2.25\x00", false}, // a stranger's name
		{"mx.example.org\x004\x00\x00127.0.0.1\x00", false},
		{"localhost\x00U", true}, // sendmail -bs
		{"unknown\x00U", false},
		{"mx.example.org\x00L\x00\x00/run/smtp\x00", true},
	} {
		m := connect(t, &milter.Server{})
		m.raw(rawFrame('C', []byte(c.connect)))
		changes, _ := m.transact(mail{header: ask()})
		if got := changes != nil; got != c.local {
			t.Errorf("%q: %q", c.connect, changes)
		}
	}
}

func TestRefusals(t *testing.T) {
	t.Run("MIL-013 percent signs are doubled, codes are of one class", func(t *testing.T) {
		if got := milter.Reply("451", "4.3.0", "100% sure"); got != "y451 4.3.0 100%% sure\x00" {
			t.Errorf("got %q", got)
		}
		for _, bad := range [][2]string{{"451", "5.3.0"}, {"250", "2.0.0"}, {"45", "4.3.0"}, {"551", ""}} {
			func() {
				defer func() {
					if recover() == nil {
						t.Errorf("%q is let through", bad)
					}
				}()
				milter.Reply(bad[0], bad[1], "x")
			}()
		}
	})
	t.Run("MIL-039 odd messages are never rejected", func(t *testing.T) {
		for _, x := range []mail{
			{from: "<@@@@>"}, {from: "garbage REQUIRETLS=NO"}, {to: []string{"<>", "<@>", "<a@.requiretls.invalid>"}},
			{header: []string{"TLS-Required: \x00"}[:0]}, {header: []string{"TLS-Required: \xff\xfe"}},
			{from: "<>", header: []string{"TLS-Required: No", "Require-TLS-ESMTP: yes"}},
		} {
			for _, route := range []milter.Route{milter.RouteHeader, milter.RouteRecipient} {
				m := connect(t, &milter.Server{Route: route, Rules: []milter.Rule{{Sender: "@x", Recipient: "@y", User: "z", Tag: "requiretls"}}})
				if _, verdict := m.transact(x); verdict != "c" {
					t.Errorf("%+v: %s", x, verdict)
				}
			}
		}
	})
	t.Run("MIL-030 a simulated session is never rejected", func(t *testing.T) {
		m := connect(t, &milter.Server{})
		m.connect("localhost", "127.0.0.1")
		m.command('H', "localhost")
		want(t, m, mail{header: ask()}, tagRequired, headersOnly)
		// Even what cannot be judged is put off at its end, and not at RCPT.
		s := &milter.Server{Route: milter.RouteRecipient}
		m = connect(t, s)
		m.connect("localhost", "127.0.0.1")
		if changes, verdict := m.transact(flood()); !strings.HasPrefix(verdict, "y 451 4.3.0 ") || changes != nil {
			t.Errorf("%s, %d changes", verdict, len(changes))
		}
		want(t, m, requiresTLS, "+ <rcpt@example.net.requiretls.invalid>", "- <rcpt@example.net>", headersOnly)
	})
	t.Run("what cannot be judged goes to the configured side", func(t *testing.T) {
		for on, want := range map[milter.OnError]string{"": "y 451", milter.Tempfail: "y 451", milter.Accept: "c"} {
			log := &logger{}
			s := &milter.Server{OnError: on, Route: milter.RouteRecipient, Log: slog.New(panics{log.slog().Handler()})}
			m := connect(t, s)
			if _, verdict := m.transact(requiresTLS); !strings.HasPrefix(verdict, want) {
				t.Errorf("%q: a defect of ours: %s", on, verdict)
			}
			if !strings.Contains(log.String(), "message not judged") || !strings.Contains(log.String(), "panic: no log today") {
				t.Errorf("logged: %s", log)
			}
			if changes, verdict := m.transact(flood()); !strings.HasPrefix(verdict, want) || changes != nil {
				t.Errorf("%q: too many recipients: %s, %d changes", on, verdict, len(changes))
			}
			if _, verdict := m.transact(mail{to: slices.Repeat([]string{"<>"}, 50_000)}); !strings.HasPrefix(verdict, want) {
				t.Errorf("%q: too many recipients without a name: %s", on, verdict)
			}
			if changes, verdict := m.transact(mail{}); verdict != "c" || changes != nil {
				t.Errorf("%q: the next message: %s %q", on, verdict, changes)
			}
		}
	})
}

// flood has more recipients than are kept.
func flood() mail {
	var x mail
	for i := range 70 {
		x.to = append(x.to, fmt.Sprintf("<%s%d@example.net>", strings.Repeat("x", 64_000), i))
	}
	return x
}

func ask() []string { return []string{"Require-TLS-ESMTP: yes"} }

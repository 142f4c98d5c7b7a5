package milter

import (
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"net/textproto"
	"runtime/debug"
	"strings"

	gomilter "github.com/emersion/go-milter"

	"postseal/policy/requiretls"
)

const (
	// maxEnvelope is what the recipients of one message may take, in octets: tens of
	// thousands. Postfix allows 1000 (smtpd_recipient_limit), Sendmail any number.
	maxEnvelope = 4 << 20
	// recipientCost is what one takes beside its text, in a list that grows.
	recipientCost = 128
)

// session is one connection of the mail server: SMTP sessions, one after the
// other, with messages, one after the other. It is go-milter's backend.
type session struct {
	server *Server
	rules  []rule
	log    *slog.Logger
	wire   *wire

	agreed agreement
	macros macros
	local  bool       // the client is a program on this machine
	client netip.Addr // zero if unknown

	addr   string   // of the latest MAIL or RCPT, without angle brackets
	params []string // and its parameters

	msg message
}

var _ gomilter.Milter = (*session)(nil)

// message is what is known of a message before its end.
type message struct {
	sender string
	params []string // of MAIL
	user   string   // {auth_authen}

	asked bool // the parameter REQUIRETLS

	no      []string // values of TLS-Required, two at most: that is one too many
	request bool     // Require-TLS-ESMTP: yes
	tags    int      // fields X-Postseal-Route

	// What the rules say of the recipients seen so far.
	recipients   int
	required     int // number of the first rule that requires TLS, 0 for none
	relaxed      int // likewise for a rule that relaxes
	relaxedCount int // recipients of whom a rule says so
	list         []recipient
	size         int // of list, in octets
	failed       error
}

// recipient is kept only where recipients are tagged.
type recipient struct {
	addr   string // as the mail server has it
	plain  string // without a route suffix
	params []string
	rule   int
	mode   requiretls.Mode // what the rule says
	local  bool            // delivered by a program, not over SMTP
}

// localMailers are those of Sendmail that deliver without SMTP: its own, and those
// of cf/mailer that take the place of "local" where they are set up.
var localMailers = map[string]bool{"local": true, "prog": true, "*file*": true, "*include*": true,
	"cyrus": true, "cyrusv2": true, "cyrusbb": true, "procmail": true}

// reset begins a new SMTP session on the connection (QUIT_NC).
func (s *session) reset() {
	s.end()
	s.macros = macros{}
	s.local, s.client = false, netip.Addr{}
}

// end forgets the message.
func (s *session) end() {
	s.msg = message{}
	s.macros.forget(gomilter.CodeMail)
	s.wire.within(false)
}

// step takes an event. Nothing is rejected: what goes wrong is remembered until
// the end of the message, where there is always an answer to give.
func (s *session) step(silent gomilter.OptProtocol, f func()) (gomilter.Response, error) {
	s.guard(f)
	if s.agreed.silent(silent) {
		return nil, nil
	}
	return gomilter.RespContinue, nil
}

// guard keeps a defect of ours from taking the connection with it, and the SMTP
// session behind that.
func (s *session) guard(f func()) {
	defer func() {
		if v := recover(); v != nil {
			s.fail(fmt.Errorf("panic: %v\n%s", v, debug.Stack()))
		}
	}()
	f()
}

// fail keeps the first error; the others follow from it.
func (s *session) fail(err error) {
	if s.msg.failed == nil {
		s.msg.failed = err
	}
}

func (s *session) Connect(host, family string, _ uint16, ip net.IP, _ *gomilter.Modifier) (gomilter.Response, error) {
	return s.step(gomilter.OptNoConnReply, func() {
		addr, _ := netip.AddrFromSlice(ip)
		s.client = addr.Unmap()
		s.local = localClient(host, family, s.client)
	})
}

// localClient recognises mail of this machine: over a unix socket, by sendmail -bs
// of Sendmail, which has no address for it, and the session that Postfix simulates
// for non_smtpd_milters. The name alone proves nothing, a stranger's may be so too.
func localClient(host, family string, addr netip.Addr) bool {
	switch family {
	case "unix":
		return true
	case "unknown":
		return strings.EqualFold(host, "localhost")
	}
	return addr.IsLoopback() && strings.EqualFold(host, "localhost")
}

func (s *session) Helo(string, *gomilter.Modifier) (gomilter.Response, error) {
	return s.step(gomilter.OptNoHeloReply, func() {})
}

// MailFrom begins a message, whether the one before it was ended or not.
func (s *session) MailFrom(string, *gomilter.Modifier) (gomilter.Response, error) {
	return s.step(gomilter.OptNoMailReply, func() {
		s.wire.within(true)
		s.macros.forget(gomilter.CodeRcpt)
		s.msg = message{sender: s.addr, params: s.params, user: s.macros.of(gomilter.CodeMail, macroUser)}
		asked, err := requiretls.Parameter(s.params)
		if err != nil {
			s.log.Warn("parameter of the mail server", "error", err)
		}
		s.msg.asked = asked
	})
}

func (s *session) RcptTo(string, *gomilter.Modifier) (gomilter.Response, error) {
	return s.step(gomilter.OptNoRcptReply, func() {
		plain, _ := requiretls.CutSuffix(bare(s.addr))
		m := &s.msg
		n, mode := match(s.rules, parseAddress(m.sender), parseAddress(plain), parseAddress(m.user))
		m.recipients++
		switch mode {
		case requiretls.Required:
			m.required = first(m.required, n)
		case requiretls.Relaxed:
			m.relaxed = first(m.relaxed, n)
			m.relaxedCount++
		}
		if s.server.Route == RouteRecipient {
			s.keep(recipient{addr: s.addr, plain: plain, params: s.params, rule: n, mode: mode,
				local: localMailers[s.macros.of(gomilter.CodeRcpt, macroMailer)]})
		}
	})
}

func first(have, n int) int {
	if have == 0 {
		return n
	}
	return min(have, n)
}

func (s *session) keep(r recipient) {
	m := &s.msg
	m.size += recipientCost + len(r.addr)
	for _, p := range r.params {
		m.size += len(p)
	}
	if m.size > maxEnvelope {
		s.fail(fmt.Errorf("recipients take more than %d octets", maxEnvelope))
		m.list = nil
		return
	}
	m.list = append(m.list, r)
}

// Header looks at the fields that concern us. go-milter keeps all of them, from
// message to message, if it is not made to forget them.
func (s *session) Header(name, value string, mod *gomilter.Modifier) (gomilter.Response, error) {
	clear(mod.Headers)
	return s.step(gomilter.OptNoHeaderReply, func() {
		m := &s.msg
		switch requiretls.Field(name) {
		case requiretls.TLSRequired:
			if len(m.no) < 2 {
				m.no = append(m.no, value)
			}
		case requiretls.Request:
			m.request = m.request || requiretls.Requested(value)
		case requiretls.Route:
			m.tags++
		default:
			if requiretls.Draft(name) {
				s.log.Debug("a field of a draft of RFC 8689 means nothing", "queue_id", s.queueID(), "field", name)
			}
		}
	})
}

func (s *session) Headers(textproto.MIMEHeader, *gomilter.Modifier) (gomilter.Response, error) {
	return gomilter.RespContinue, nil
}

func (s *session) BodyChunk([]byte, *gomilter.Modifier) (gomilter.Response, error) {
	return gomilter.RespContinue, nil
}

// Body is the end of the message. Continue means accept, and unlike Accept it lets
// go-milter keep its backend.
func (s *session) Body(mod *gomilter.Modifier) (gomilter.Response, error) {
	defer s.end()
	s.server.counters.messages.Add(1)
	if s.msg.failed == nil {
		s.guard(func() { s.judge(mod) })
	}
	if err := s.msg.failed; err != nil {
		s.server.counters.errors.Add(1)
		s.log.Error("message not judged", "queue_id", s.queueID(), "error", err, "then", s.server.OnError.orDefault())
		if s.server.OnError != Accept {
			return tempfail, nil
		}
	}
	return gomilter.RespContinue, nil
}

func (s *session) Abort(*gomilter.Modifier) error {
	s.end()
	return nil
}

// queueID is "" before Postfix knows one.
func (s *session) queueID() string { return s.macros.latest(macroQueueID) }

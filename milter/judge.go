package milter

import (
	"fmt"
	"strings"

	gomilter "github.com/emersion/go-milter"

	"postseal/policy/requiretls"
)

// verdict is what is to be done with a message, or with a recipient.
type verdict struct {
	mode requiretls.Mode
	why  string
}

// judge changes the message at its end, where alone changes are allowed.
func (s *session) judge(mod *gomilter.Modifier) {
	if err := s.strip(mod); err != nil {
		s.fail(err)
		return
	}
	v := s.verdict()
	tagged := s.msg.recipients
	if s.server.Route == RouteRecipient {
		v, tagged = s.tagRecipients(mod, v)
	} else if v.mode != requiretls.Normal {
		mod.AddHeader(requiretls.Route, v.mode.String())
	}
	if v.mode == requiretls.Normal {
		return
	}
	if v.mode == requiretls.Required {
		s.headersOnly(mod)
	}
	s.log.Info("tagged", "queue_id", s.queueID(), "tag", v.mode.String(), "why", v.why,
		"recipients", tagged, "client_tls", s.macros.latest(macroTLSVersion))
	s.server.counters.tagged(v.mode)
}

// strip deletes every tag that the message came with, ours of an earlier pass or a
// stranger's. The last goes first, so that the numbers of the others stay.
func (s *session) strip(mod *gomilter.Modifier) error {
	for i := s.msg.tags; i > 0; i-- {
		if err := mod.ChangeHeader(i, requiretls.Route, ""); err != nil {
			return fmt.Errorf("delete %s: %w", requiretls.Route, err)
		}
	}
	return nil
}

// verdict weighs what was said about the message as a whole. The null sender is
// never tagged: a bounce that could not be delivered would be lost (RFC 8689 §5).
func (s *session) verdict() verdict {
	m := &s.msg
	if m.sender == "" {
		return verdict{}
	}
	switch {
	case m.asked:
		return verdict{requiretls.Required, "parameter " + requiretls.Keyword}
	case m.request && s.trusted():
		return verdict{requiretls.Required, "header " + requiretls.Request}
	case m.required > 0 && s.server.Route != RouteRecipient:
		return verdict{requiretls.Required, ruleName(m.required)}
	case s.saysNo():
		return verdict{requiretls.Relaxed, "header " + requiretls.TLSRequired}
	case m.relaxedCount > 0 && m.relaxedCount == m.recipients && s.server.Route != RouteRecipient:
		return verdict{requiretls.Relaxed, ruleName(m.relaxed)}
	}
	return verdict{}
}

func ruleName(n int) string { return fmt.Sprintf("rule %d", n) }

// saysNo reports whether the header TLS-Required: No counts (RFC 8689 §3).
func (s *session) saysNo() bool {
	no, err := requiretls.SaysNo(s.msg.no...)
	switch {
	case err != nil:
		s.log.Warn("message not relaxed", "queue_id", s.queueID(), "error", err)
		return false
	case no && s.server.RelaxedFrom == Trusted && !s.trusted():
		s.log.Info("message not relaxed: its client may not say No", "queue_id", s.queueID())
		return false
	}
	return no
}

// trusted reports whether the client has authenticated, or stands near.
func (s *session) trusted() bool {
	if s.msg.user != "" || s.local {
		return true
	}
	for _, p := range s.server.TrustedNetworks {
		if p.Contains(s.client) {
			return true
		}
	}
	return false
}

// tagRecipients gives each recipient the suffix of its route, given the verdict on
// the message, and takes off those that others put there. It returns the strictest
// verdict, and of how many recipients it is.
func (s *session) tagRecipients(mod *gomilter.Modifier, v verdict) (strictest verdict, count int) {
	for _, r := range s.msg.list {
		want := v
		switch {
		case r.local, s.msg.sender == "":
			want = verdict{}
		case v.mode == requiretls.Required:
		case r.mode == requiretls.Required, r.mode == requiretls.Relaxed && v.mode == requiretls.Normal:
			want = verdict{r.mode, ruleName(r.rule)}
		}
		s.replace(mod, r, requiretls.AddSuffix(r.plain, want.mode))
		switch {
		case want.mode == requiretls.Normal:
		case strictest.mode == want.mode:
			count++
		case strictest.mode != requiretls.Required:
			strictest, count = want, 1
		}
	}
	return strictest, count
}

// replace sends a recipient elsewhere. The new one comes first: if the connection
// breaks between the two, mail that arrives twice is better than none. Another
// spelling is no other recipient: Sendmail would not add it, and delete the only one.
func (s *session) replace(mod *gomilter.Modifier, r recipient, addr string) {
	if strings.EqualFold(addr, bare(r.addr)) {
		return
	}
	if len(r.params) > 0 && s.agreed.may(gomilter.OptAddRcptWithArgs) {
		// ORCPT and NOTIFY (RFC 3461), which go-milter cannot send.
		s.wire.send(byte(codeAddPar), []byte("<"+addr+">\x00"+strings.Join(r.params, " ")+"\x00"))
	} else {
		mod.AddRecipient(addr)
	}
	mod.DeleteRecipient(r.addr)
}

// headersOnly has the mail server return no more than the header in a bounce, as
// if the client had said RET=HDRS (RFC 8689 §5), where it lets milters say so.
// Postfix takes RET and ENVID, and complains of others (since 3.3); Sendmail
// forgets all that it is not told again.
func (s *session) headersOnly(mod *gomilter.Modifier) {
	if !s.agreed.may(gomilter.OptChangeFrom) {
		s.log.Debug("mail server does not let milters set RET=HDRS", "queue_id", s.queueID())
		return
	}
	args := []string{"RET=HDRS"}
	for _, p := range s.msg.params {
		key, value, _ := strings.Cut(p, "=")
		switch strings.ToUpper(key) {
		case "RET":
			if strings.EqualFold(value, "HDRS") {
				return
			}
		case requiretls.Keyword:
		case "ENVID":
			args = append(args, p)
		default:
			if s.server.Route == RouteRecipient {
				args = append(args, p)
			}
		}
	}
	mod.ChangeFrom("<" + s.msg.sender + ">\x00" + strings.Join(args, " "))
}

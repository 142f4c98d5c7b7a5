package smtpclient

import (
	"net/netip"
	"strconv"
	"strings"
)

// greet waits for the whole greeting before anything is said (RFC 5321 §3.1).
func (s *Session) greet() *Failure {
	a, f := s.read(StageGreeting, s.limits.Greeting, connecting)
	switch {
	case f != nil:
		return f
	case a.code == 220:
		return nil
	case a.code == 521: // RFC 7504 §3: the host never takes mail
		f := s.refused(StageGreeting, a, connecting)
		f.Reply.Code, f.Reply.Enhanced = 556, "5.3.2"
		return f
	case a.class() >= 4:
		// Whatever keeps a host from greeting is more often a passing matter of
		// the host, or of our address, than one of the message.
		return s.deferred(StageGreeting, a, connecting)
	}
	return s.unexpected(StageGreeting, a, connecting)
}

// hello says EHLO, or HELO to a host that does not know it (RFC 5321 §4.1.1.1), and
// learns the extensions anew: after STARTTLS nothing of before counts (RFC 3207 §4.2).
func (s *Session) hello() *Failure {
	s.extensions = nil
	s.info.Name = ""
	name := s.hostname
	if name == "" {
		name = literal(s.info.Local.Addr())
	}
	verb := "EHLO"
	a, f := s.command(StageHello, s.limits.Hello, verb+" "+name, verb)
	if f != nil {
		return f
	}
	if a.class() == 5 {
		verb = "HELO"
		if a, f = s.command(StageHello, s.limits.Hello, verb+" "+name, verb); f != nil {
			return f
		}
	}
	switch a.class() {
	case 2:
	case 3:
		return s.unexpected(StageHello, a, verb)
	default: // as with the greeting
		return s.deferred(StageHello, a, verb)
	}
	remote, _, _ := strings.Cut(a.lines[0], " ")
	s.info.Name = clip(remote, maxName)
	if verb == "EHLO" {
		s.extensions = extensions(a.lines[1:])
	}
	return nil
}

// extensions are the keywords in upper case with their parameters (RFC 5321 §4.1.1.1).
func extensions(lines []string) map[string]string {
	m := make(map[string]string, len(lines))
	for _, line := range lines {
		keyword, parameters, _ := strings.Cut(line, " ")
		m[strings.ToUpper(keyword)] = parameters
	}
	return m
}

// Offers reports whether the host offered an extension, inside TLS if there is TLS.
func (s *Session) Offers(keyword string) bool {
	_, ok := s.extensions[strings.ToUpper(keyword)]
	return ok
}

// sizeLimit is the largest message that the host takes, 0 if it does not tell (RFC 1870 §4).
func (s *Session) sizeLimit() int64 {
	n, err := strconv.ParseInt(strings.TrimSpace(s.extensions["SIZE"]), 10, 64)
	if err != nil {
		return 0
	}
	return max(n, 0)
}

// literal is an address as EHLO names it (RFC 5321 §4.1.3).
func literal(a netip.Addr) string {
	if a = a.Unmap(); a.Is4() || !a.IsValid() {
		return "[" + a.String() + "]"
	}
	return "[IPv6:" + a.WithZone("").String() + "]"
}

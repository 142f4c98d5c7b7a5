package dnstest

import (
	"net"
	"time"

	"github.com/miekg/dns"
)

// faults are those that are not RCODEs.
var faults = [...]string{
	"BOGUS", "TIMEOUT", "TRUNCATE", "TRUNCATE-NOTCP", "GARBAGE", "WRONGQUESTION", "WRONGID", "NOAD", "NOCHAIN", "NOSOA",
}

// serve answers one question.
func (s *Server) serve(w dns.ResponseWriter, m *dns.Msg) {
	if len(m.Question) != 1 {
		return
	}
	name, qtype := canonical(m.Question[0].Name), m.Question[0].Qtype
	typ := dns.TypeToString[qtype]

	s.mu.Lock()
	s.queries = append(s.queries, typ+" "+name)
	r := s.zone.resolve(name, qtype)
	fault := s.faultOf(r.names, typ)
	delay, down := s.delay, s.down
	s.mu.Unlock()

	_, udp := w.RemoteAddr().(*net.UDPAddr)
	if down || fault == "TIMEOUT" || fault == "TRUNCATE-NOTCP" && !udp {
		return
	}
	if delay > 0 && !s.wait(delay) {
		return
	}
	reply := reply(m, r, fault, udp)
	if fault == "GARBAGE" {
		if b, err := reply.Pack(); err == nil {
			b[7] = 1 // one record in the answer, which is none
			w.Write(append(b, "\xffgarbage"...))
		}
		return
	}
	w.WriteMsg(reply)
}

func (s *Server) wait(d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-s.done:
		return false
	}
}

func (s *Server) faultOf(names []string, typ string) string {
	for _, name := range append(names, "*") {
		for _, t := range [...]string{typ, "*"} {
			if f := s.faults[question{name, t}]; f != "" {
				return f
			}
		}
	}
	return ""
}

func reply(m *dns.Msg, r result, fault string, udp bool) *dns.Msg {
	reply := new(dns.Msg)
	reply.SetReply(m)
	reply.RecursionAvailable = true
	opt := m.IsEdns0()
	if opt != nil {
		reply.SetEdns0(1232, opt.Do())
	}
	if rcode, ok := dns.StringToRcode[fault]; ok {
		reply.Rcode = rcode
		return reply
	}
	switch fault {
	case "BOGUS":
		reply.Rcode = dns.RcodeServerFailure
		if o := reply.IsEdns0(); o != nil {
			o.Option = append(o.Option, &dns.EDNS0_EDE{InfoCode: dns.ExtendedErrorCodeDNSBogus, ExtraText: "signature of " + m.Question[0].Name + " is wrong"})
		}
		return reply
	case "GARBAGE":
		reply.Extra = nil
		return reply
	case "TRUNCATE", "TRUNCATE-NOTCP":
		if udp {
			reply.Truncated = true
			return reply
		}
	}

	reply.Rcode = r.rcode
	reply.Answer = r.answer
	if r.soa != nil && fault != "NOSOA" {
		reply.Ns = []dns.RR{r.soa}
	}
	// RFC 6840 §5.7, §5.8: AD only for those who asked with AD or DO.
	asked := m.AuthenticatedData || opt != nil && opt.Do()
	reply.AuthenticatedData = asked && r.secure && fault != "NOAD"
	switch fault {
	case "NOCHAIN":
		if len(r.names) > 1 {
			reply.Answer, reply.Ns, reply.Rcode = r.answer[:1], nil, dns.RcodeSuccess
		}
	case "WRONGQUESTION":
		reply.Question = []dns.Question{{Name: "wrong.invalid.", Qtype: m.Question[0].Qtype, Qclass: dns.ClassINET}}
	case "WRONGID":
		reply.Id++
	}
	if udp {
		size := dns.MinMsgSize
		if opt != nil {
			size = max(size, int(opt.UDPSize()))
		}
		reply.Truncate(size)
	}
	return reply
}

package socketmap

import (
	"bytes"

	"postseal/policy"
	"postseal/policy/requiretls"
)

// Delivery is the delivery fallback as mail servers reach it.
type Delivery struct {
	Takes *policy.Fallback

	// NextHop follows the name of the service in an answer of the map transport:
	// "postseal:unix:postseal/lmtp.sock", "postseal:inet:127.0.0.1:8463". Without
	// it that map routes nothing.
	NextHop string
}

// service is the name of the LMTP client in Postfix's master.cf, and of the mailers
// in Sendmail's configuration, one for each mode. The host part of these, which
// mailertable must have, is what they connect to if they say $h.
const (
	service = "postseal"
	mailer  = service + ":[127.0.0.1]"
)

var mailers = [...]string{
	requiretls.Normal:   mailer,
	requiretls.Required: service + "-requiretls:[127.0.0.1]",
	requiretls.Relaxed:  service + "-relaxed:[127.0.0.1]",
}

// askRoute understands a request to transport, whose key is a whole address, of a
// sender too, or to mailertable, whose key is a domain and then its parents. Mail
// that waits in the SMTP dialogue of others is answered for from memory wherever
// that can be.
func (s *session) askRoute(q *question, key []byte) {
	q.reply = replyNotFound
	fallback := s.server.Delivery
	if q.id == mapTransport {
		if at := bytes.LastIndexByte(key, '@'); at >= 0 {
			key = key[at+1:]
		}
		if fallback == nil || fallback.NextHop == "" {
			return
		}
	}
	if q.id == mapMailertable {
		if _, mode := requiretls.CutSuffix("x" + string(key)); mode != requiretls.Normal {
			q.reply = fallback.tagged(mode)
			return
		}
	}
	if fallback == nil || len(key) == 0 || key[0] == '.' {
		return
	}
	dest, err := policy.ParseDestination(string(key))
	if err != nil || dest.Fixed || fallback.Takes.Keeps(dest.Domain) {
		return
	}
	q.reply = ""
	q.decision = s.server.Decider.Cached([]byte(dest.Domain))
	q.dest, q.wait = policy.Destination{Domain: dest.Domain, Port: 25}, q.decision == nil
}

// tagged is the answer for a recipient that bears a route suffix. It never goes
// anywhere else: no name below .invalid exists, so the mail would bounce.
func (f *Delivery) tagged(mode requiretls.Mode) string {
	if f == nil {
		return replyTemp + "the recipient is tagged " + mode.String() + ", but no delivery fallback is configured (delivery.listen)"
	}
	return replyOK + mailers[mode]
}

// appendRoute appends where mail for the destination of d goes.
func (f *Delivery) appendRoute(dst []byte, id mapID, d *policy.Decision) []byte {
	switch {
	case d == nil || !f.Takes.Takes(d):
		return append(dst, replyNotFound...)
	case id == mapMailertable:
		return append(append(dst, replyOK...), mailer...)
	}
	return append(append(dst, replyOK+service+":"...), f.NextHop...)
}

package main

import (
	"fmt"
	"strings"
)

// scenario is a destination domain, and what must become of mail for it.
type scenario struct {
	name   string // the first label of the domain
	zone   zone
	mx     []mx   // mx1.DOMAIN, mx2.DOMAIN, … in the order of their preference
	shares string // the MX hosts are those of this scenario, which has the same zone and mx; "": its own
	forged bool   // but for the zone, which is signed: the MX record is a stranger's, who names a host of his own
	sts    *sts
	badMX  bool    // the signature of the MX records is broken
	answer string  // how the daemon's reply to Postfix begins; {D} is the domain
	want   outcome // with Postfix 3.10 and later
	old    outcome // with Postfix before 3.10, where that differs
}

type zone string

const (
	plain  zone = "plain.test"
	signed zone = "signed.test"
)

// mx is one MX host. Each has an address, a key and an SMTP server of its own.
type mx struct {
	cert       cert
	tlsa       tlsa
	requireTLS bool // offers REQUIRETLS (RFC 8689)
}

// cert is what a server shows, as SMTP or policy host.
type cert string

const (
	good       cert = "good"
	expired    cert = "expired"
	selfSigned cert = "self-signed"
	borrowed   cert = "self-signed, with the name of another host" // that of sts-wrongname
	wrongName  cert = "wrong name"
	noTLS      cert = "no STARTTLS"
	broken     cert = "hangs up on STARTTLS"
	absent     cert = "nobody listens"
)

// tlsa is what is published at _25._tcp of an MX host.
type tlsa string

const (
	noTLSA   tlsa = ""
	ee       tlsa = "3 1 1"
	ta       tlsa = "2 1 1"
	mismatch tlsa = "3 1 1 of another key"
	unusable tlsa = "1 1 1" // PKIX-EE: not for SMTP (RFC 7672 §3.1.3)
	bogus    tlsa = "3 1 1 with a broken signature"
	dead     tlsa = "delegated to a name server that is not there"
)

// sts is the MTA-STS policy of a domain.
type sts struct {
	mode string
	mx   []string // patterns, {D} is the domain; default all MX hosts
	cert cert     // of the policy host; default good
}

// outcome is what Postfix's log and the MX hosts must show.
type outcome struct {
	status  string // "sent" or "deferred"
	tls     string // the log's word for the session: Verified, Trusted, Untrusted; "plaintext"; "fallback", through the daemon
	log     string // regular expression that a line of the delivery matches
	contact bool   // an MX host saw a connection
}

// sentOver is a delivery over a TLS session that the log calls tls.
func sentOver(tls string) outcome { return outcome{status: "sent", tls: tls, contact: true} }

// refused is a delivery that ended at the MX host, for the reason in the log.
func refused(log string) outcome { return outcome{status: "deferred", log: log, contact: true} }

// held is a delivery that never went to an MX host, for the reason in the log.
func held(log string) outcome { return outcome{status: "deferred", log: log} }

// outcome is what counts for Postfix before 3.10 (older), or for later ones.
func (s scenario) outcome(older bool) outcome {
	if older && s.old != (outcome{}) {
		return s.old
	}
	return s.want
}

func (s scenario) domain() string { return s.name + "." + string(s.zone) }

// host is the name of the i-th MX host.
func (s scenario) host(i int) string {
	domain := s.domain()
	if s.shares != "" {
		domain = s.shares + "." + string(s.zone)
	}
	if s.forged {
		domain = s.shares + "." + string(signed)
	}
	return fmt.Sprintf("mx%d.%s", i+1, domain)
}

// fill puts the domain in for {D}.
func (s scenario) fill(text string) string { return strings.ReplaceAll(text, "{D}", s.domain()) }

// policy is the text that the policy host serves (RFC 8461 §3.2), "" if there
// is none.
func (s scenario) policy() string {
	if s.sts == nil {
		return ""
	}
	patterns := s.sts.mx
	for i := range s.mx {
		if s.sts.mx == nil {
			patterns = append(patterns, s.host(i))
		}
	}
	return policyText(s.sts.mode, patterns, s.fill)
}

func policyText(mode string, patterns []string, fill func(string) string) string {
	text := "version: STSv1\nmode: " + mode + "\n"
	for _, p := range patterns {
		text += "mx: " + fill(p) + "\n"
	}
	return text + "max_age: 86400\n"
}

func (o outcome) String() string {
	text := o.status
	if o.tls != "" {
		text += ", " + o.tls
	}
	if o.status == "deferred" && !o.contact {
		text += ", no contact"
	}
	if o.log != "" {
		text += ": " + o.log
	}
	return text
}

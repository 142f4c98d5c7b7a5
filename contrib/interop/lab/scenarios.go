package main

import (
	"fmt"
	"strings"
)

// scenarios is the table of destination domains. A new one is one line here:
// its zone, certificates, policy and SMTP servers are made from it, and mail is
// sent to it through every Postfix.
var scenarios = []scenario{
	// Nothing is published: mail goes as it went before.
	{name: "none", zone: plain, mx: []mx{{cert: good}}, answer: "NOTFOUND", want: sentOver("Trusted")},
	{name: "none-selfsigned", zone: plain, mx: []mx{{cert: selfSigned}}, answer: "NOTFOUND", want: sentOver("Untrusted")},
	{name: "none-wrongname", zone: plain, mx: []mx{{cert: wrongName}}, shares: "sts-wrongname", answer: "NOTFOUND", want: sentOver("Trusted")},
	{name: "none-borrowed", zone: plain, mx: []mx{{cert: borrowed}}, answer: "NOTFOUND", want: sentOver("Untrusted")},
	{name: "none-plaintext", zone: plain, mx: []mx{{cert: noTLS}}, answer: "NOTFOUND", want: sentOver("plaintext")},
	{name: "none-signed", zone: signed, mx: []mx{{cert: good}}, answer: "NOTFOUND", want: sentOver("Trusted")},

	// DANE: the TLSA records decide, the certificate's name, date and issuer do not (RFC 7672 §3.1).
	{name: "dane", zone: signed, mx: []mx{{cert: selfSigned, tlsa: ee}}, answer: "OK dane-only", want: sentOver("Verified")},
	{name: "dane-expired", zone: signed, mx: []mx{{cert: expired, tlsa: ee}}, answer: "OK dane-only", want: sentOver("Verified")},
	{name: "dane-ta", zone: signed, mx: []mx{{cert: good, tlsa: ta}}, answer: "OK dane-only", want: sentOver("Verified")},
	{name: "dane-ta-wrongname", zone: signed, mx: []mx{{cert: wrongName, tlsa: ta}}, answer: "OK dane-only", want: refused(nameMismatch)},
	{name: "dane-mismatch", zone: signed, mx: []mx{{cert: good, tlsa: mismatch}}, answer: "OK dane-only", want: refused(tlsaMismatch)},
	{name: "dane-nostarttls", zone: signed, mx: []mx{{cert: noTLS, tlsa: ee}}, answer: "OK dane-only", want: refused("TLS is required, but was not offered")},
	{name: "dane-failover", zone: signed, mx: []mx{{cert: good, tlsa: mismatch}, {cert: selfSigned, tlsa: ee}}, answer: "OK dane-only", want: sentOver("Verified")},
	{name: "dane-unusable", zone: signed, mx: []mx{{cert: selfSigned, tlsa: unusable}}, answer: "OK dane", want: sentOver("Untrusted")},
	{name: "unusable-nostarttls", zone: signed, mx: []mx{{cert: noTLS, tlsa: unusable}}, answer: "OK dane", want: refused("TLS is required, but was not offered")},
	{name: "dane-partial", zone: signed, mx: []mx{{cert: selfSigned, tlsa: ee}, {cert: good}}, answer: "OK dane", want: sentOver("Verified")},

	// DNS that cannot be believed: mail waits, and the log says why (RFC 7672 §2.1.2).
	{name: "tlsa-bogus", zone: signed, mx: []mx{{cert: good, tlsa: bogus}}, answer: "TEMP", want: held(ourWords)},
	{name: "tlsa-dead", zone: signed, mx: []mx{{cert: good, tlsa: dead}}, answer: "TEMP", want: held(ourWords)},
	{name: "mx-bogus", zone: signed, mx: []mx{{cert: good, tlsa: ee}}, badMX: true, answer: "TEMP", want: held("Name service error|Host or domain name not found")},

	// MTA-STS: a listed MX host with a certificate for its name (RFC 8461 §4).
	{name: "sts", zone: plain, mx: []mx{{cert: good}}, sts: enforce(), answer: "OK secure match=mx1.{D} servername=hostname", want: sentOver("Verified")},
	{name: "sts-wildcard", zone: plain, mx: []mx{{cert: good}}, sts: enforce("*.{D}"), answer: "OK secure match=.{D} servername=hostname", want: sentOver("Verified")},
	{name: "sts-expired", zone: plain, mx: []mx{{cert: expired}}, sts: enforce(), answer: "OK secure", want: refused("certificate has expired")},
	{name: "sts-selfsigned", zone: plain, mx: []mx{{cert: selfSigned}}, sts: enforce(), answer: "OK secure", want: refused("self-signed certificate")},
	{name: "sts-wrongname", zone: plain, mx: []mx{{cert: wrongName}}, sts: enforce(), answer: "OK secure", want: refused(nameMismatch)},
	{name: "sts-nostarttls", zone: plain, mx: []mx{{cert: noTLS}}, sts: enforce(), answer: "OK secure", want: refused("TLS is required, but was not offered")},
	{name: "sts-foreign-mx", zone: plain, mx: []mx{{cert: good}}, sts: enforce("listed.{D}"), answer: "OK secure",
		want: held("does not match STS MX pattern"), old: refused(nameMismatch)},
	{name: "sts-failover", zone: plain, mx: []mx{{cert: expired}, {cert: good}}, sts: enforce(), answer: "OK secure", want: sentOver("Verified")},
	{name: "sts-handshake", zone: plain, mx: []mx{{cert: broken}}, sts: enforce(), answer: "OK secure", want: refused("Cannot start TLS: handshake failure")},
	{name: "sts-shared", zone: plain, mx: []mx{{cert: selfSigned}}, shares: "none-selfsigned", sts: enforce(), answer: "OK secure", want: refused("self-signed certificate")},
	{name: "sts-long", zone: plain, mx: []mx{{cert: good}}, sts: enforce(append(others(20), "mx1.{D}")...), answer: "OK secure match=mx1.other.test:", want: sentOver("Verified")},
	{name: "sts-endless", zone: plain, mx: []mx{{cert: noTLS}}, sts: enforce(others(60)...), answer: "OK secure match=mx1.other.test:",
		want: held("does not match STS MX pattern"), old: refused("TLS is required, but was not offered")},
	{name: "sts-forged", zone: plain, mx: []mx{{cert: selfSigned, tlsa: ee}}, shares: "dane", forged: true, sts: enforce("mx1.{D}"), answer: "OK secure match=mx1.{D}", want: held("not in the MTA-STS policy")},
	{name: "sts-testing", zone: plain, mx: []mx{{cert: selfSigned}}, sts: &sts{mode: "testing"}, answer: "NOTFOUND", want: sentOver("Untrusted")},
	{name: "testing-good", zone: plain, mx: []mx{{cert: good}}, sts: &sts{mode: "testing"}, answer: "NOTFOUND", want: sentOver("Trusted")},
	{name: "testing-foreign-mx", zone: plain, mx: []mx{{cert: good}}, sts: &sts{mode: "testing", mx: []string{"listed.{D}"}}, answer: "NOTFOUND", want: sentOver("Trusted")},
	{name: "sts-none", zone: plain, mx: []mx{{cert: selfSigned}}, sts: &sts{mode: "none"}, answer: "NOTFOUND", want: sentOver("Untrusted")},
	{name: "sts-unproven", zone: plain, mx: []mx{{cert: selfSigned}}, sts: &sts{mode: "enforce", cert: selfSigned}, answer: "NOTFOUND", want: sentOver("Untrusted")},

	// Both: DANE is never overridden, and MTA-STS fills its gaps (RFC 8461 §2).
	{name: "both", zone: signed, mx: []mx{{cert: selfSigned, tlsa: ee}}, sts: enforce(), answer: "OK dane-only", want: sentOver("Verified")},
	{name: "both-mismatch", zone: signed, mx: []mx{{cert: good, tlsa: mismatch}}, sts: enforce(), answer: "OK dane-only", want: refused(tlsaMismatch)},
	{name: "both-partial", zone: signed, mx: []mx{{cert: good, tlsa: ee}, {cert: good}}, sts: enforce(), answer: "OK secure match=mx1.{D}:mx2.{D} servername=hostname", want: sentOver("fallback")},
	{name: "unusable-selfsigned", zone: signed, mx: []mx{{cert: selfSigned, tlsa: unusable}}, sts: enforce(), answer: "OK secure", want: refused("self-signed certificate")},
	{name: "both-unusable", zone: signed, mx: []mx{{cert: good, tlsa: unusable}}, sts: enforce(), answer: "OK secure", want: sentOver("Verified")},

	// Domains that offer REQUIRETLS, or fail it in each of its ways (RFC 8689 §4.2.1).
	{name: "rt-dane", zone: signed, mx: []mx{{selfSigned, ee, true}}, answer: "OK dane-only", want: sentOver("Verified")},
	{name: "rt-sts", zone: plain, mx: []mx{{cert: good, requireTLS: true}}, sts: enforce(), answer: "OK secure", want: sentOver("Verified")},
	{name: "rt-silent", zone: signed, mx: []mx{{cert: selfSigned, tlsa: ee}}, answer: "OK dane-only", want: sentOver("Verified")},
	{name: "rt-second", zone: signed, mx: []mx{{cert: selfSigned, tlsa: ee}, {selfSigned, ee, true}}, answer: "OK dane-only", want: sentOver("Verified")},
	{name: "rt-stranger", zone: signed, mx: []mx{{cert: selfSigned, requireTLS: true}}, answer: "NOTFOUND", want: sentOver("Untrusted")},
	{name: "rt-plaintext", zone: signed, mx: []mx{{cert: noTLS}}, answer: "NOTFOUND", want: sentOver("plaintext")},
	{name: "rt-unproven", zone: plain, mx: []mx{{cert: good, requireTLS: true}}, answer: "NOTFOUND", want: sentOver("Trusted")},
	{name: "rt-gone", zone: signed, mx: []mx{{absent, ee, true}}, answer: "OK dane-only", want: held("Connection refused")},

	// Mixed sets of MX hosts, one with TLSA and one without, and MTA-STS: no level of
	// Postfix can say that, so the map transport sends them through the daemon.
	{name: "mixed", zone: signed, mx: []mx{{cert: selfSigned, tlsa: ee}, {cert: good}}, sts: enforce(), answer: "OK secure", want: sentOver("fallback")},
	{name: "mixed-pkix", zone: signed, mx: []mx{{cert: good, tlsa: mismatch}, {cert: good}}, sts: enforce(), answer: "OK secure", want: sentOver("fallback")},
	{name: "mixed-dane", zone: signed, mx: []mx{{cert: selfSigned}, {cert: selfSigned, tlsa: ee}}, sts: enforce(), answer: "OK secure", want: sentOver("fallback")},
	{name: "mixed-broken", zone: signed, mx: []mx{{cert: good, tlsa: mismatch}, {cert: selfSigned}}, sts: enforce(), answer: "OK secure", want: refused("certificate matches none of 1 TLSA records")},

	{name: "rt-mixed", zone: signed, mx: []mx{{selfSigned, ee, true}, {cert: good, requireTLS: true}}, sts: enforce(), answer: "OK secure", want: sentOver("fallback")},

	// For many messages: through Postfix's own smtp(8), and through the daemon.
	{name: "bulk", zone: plain, mx: []mx{{cert: good}}, answer: "NOTFOUND", want: sentOver("Trusted")},
	{name: "bulk-fallback", zone: plain, mx: []mx{{cert: good}}, answer: "NOTFOUND", want: sentOver("fallback")},

	// Domains that the stories change.
	{name: "withdrawn", zone: plain, mx: []mx{{cert: expired}}, sts: enforce(), answer: "OK secure", want: refused("certificate has expired")},
	{name: "exempted", zone: plain, mx: []mx{{cert: selfSigned}}, sts: enforce(), answer: "OK secure", want: refused("self-signed certificate")},
	{name: "required", zone: plain, mx: []mx{{cert: noTLS}}, answer: "NOTFOUND", want: sentOver("plaintext")},
}

// What Postfix says of a certificate that has another name, or that no TLSA record matches.
const (
	nameMismatch = "hostname mismatch"
	tlsaMismatch = "no matching DANE TLSA records"
)

// ourWords is the log line with which Postfix hands on the reason of a
// temporary failure (its dict_sockmap.c).
const ourWords = `temporary error: .*TLSA.*`

// enforce is a policy for the given patterns, or for all MX hosts.
func enforce(patterns ...string) *sts { return &sts{mode: "enforce", mx: patterns} }

// others are MX hosts that do not exist, 20 of which are more than Sendmail can compare.
func others(n int) (hosts []string) {
	for i := range n {
		hosts = append(hosts, fmt.Sprintf("mx%d.other.test", i+1)+strings.Repeat(".other", i%2))
	}
	return hosts
}

// byName returns a row of the table.
func byName(name string) scenario {
	for _, s := range scenarios {
		if s.name == name {
			return s
		}
	}
	panic("no scenario " + name)
}

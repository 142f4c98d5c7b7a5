// Package datagram receives what Postfix 3.10 and later, built with libtlsrpt, sends of each
// TLS session: one datagram of JSON, when a connection has ended, to a unix socket. It
// says which policy was applied and what failed, in numbers for the result types of
// RFC 8460 §4.3, so that nothing has to be joined or guessed, as in a log.
//
// What a datagram cannot say: when it was (the time of its arrival is taken), and anything
// of failures before there was a connection, or of hosts that an MTA-STS policy does not
// list (RFC 8461 §4.1). For those the log is read as well.
//
// The sender never waits, and nobody asks again: [Receiver] takes everything into memory at
// once, and what it loses all the same it counts.
package datagram

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"

	"postseal/reporting"
	"postseal/reporting/ingest/foreign"
	"postseal/reporting/tlsrpt"
)

const (
	// maxDatagram is what one sender can put into one datagram on Linux: the
	// default send buffer, net.core.wmem_default = 212992, less the kernel's own 32.
	// Real ones have 171 to 900 bytes.
	maxDatagram = 256 << 10

	// maxPolicies: libtlsrpt allows any number, Postfix sends one, RFC 8460 knows
	// two kinds that can apply at a time.
	maxPolicies = 16

	// maxPolicyStrings and maxPolicyString bound what is kept of a policy: a policy
	// body has at most 64 KiB (RFC 8461 §3.3), a TLSA record 512 bytes or so.
	maxPolicyStrings = 256
	maxPolicyString  = 1 << 10
)

var errDatagram = errors.New("not a datagram of libtlsrpt")

// datagram is the protocol of libtlsrpt, version 1 and the one before it, which
// has no dpv. The TLSRPT record ("pr") is not used: it is asked for when a report
// is due.
type datagram struct {
	Domain   string  `json:"d"`
	Policies []entry `json:"policies"`
}

type entry struct {
	Type    jsonInt  `json:"policy-type"`
	Domain  string   `json:"policy-domain"`
	Strings []string `json:"policy-string"`
	MX      []string `json:"mx-host"`
	Details []detail `json:"failure-details"`
	Final   jsonInt  `json:"f"` // 0: success
}

type detail struct {
	Code      jsonInt `json:"c"`
	SendingIP string  `json:"s"`
	MXHost    string  `json:"n"`
	MXHelo    string  `json:"h"` // Postfix: the whole reply, several lines
	MXIP      string  `json:"r"`
	Reason    string  `json:"f"` // not the f of the policy
}

// Parse reads what libtlsrpt sends when one connection has ended. Each
// policy entry is a session of its own, since each has its own final result and
// stands in its own place in a report; Postfix sends exactly one. Time is left
// zero: a datagram has none.
//
// The final result alone decides between success and failure, whatever the
// details say, since both combinations are legal. An unknown failure code
// is [tlsrpt.ValidationFailure] with the number as its reason. Entries that cannot be
// read are left out; then there is an error as well as the sessions of the others.
func Parse(b []byte) ([]reporting.Session, error) {
	if len(b) > maxDatagram {
		return nil, malformed(strconv.Itoa(len(b)) + " bytes")
	}
	var d datagram
	// A member of a wrong type reads as if it were not there, and the others still
	// count. Invalid UTF-8, which libtlsrpt passes through, becomes U+FFFD.
	bad := json.Unmarshal(bytes.TrimRight(b, "\x00"), &d)
	var wrongType *json.UnmarshalTypeError
	if bad != nil && !errors.As(bad, &wrongType) {
		return nil, malformed(bad.Error())
	}
	domain, ok := foreign.DomainName(d.Domain)
	switch {
	case !ok:
		return nil, malformed("no domain")
	case len(d.Policies) == 0:
		return nil, malformed("no policy")
	case len(d.Policies) > maxPolicies:
		return nil, malformed(strconv.Itoa(len(d.Policies)) + " policies")
	}
	if bad != nil {
		bad = malformed(bad.Error())
	}
	var sessions []reporting.Session
	for i := range d.Policies {
		p := &d.Policies[i]
		if !p.Final.set && len(p.Details) == 0 {
			bad = malformed("policy without a result")
			continue
		}
		sessions = append(sessions, p.session(domain))
	}
	return sessions, bad
}

func malformed(what string) error {
	return fmt.Errorf("%w: %s", errDatagram, foreign.Printable(what, foreign.MaxReason))
}

func (p *entry) session(domain string) reporting.Session {
	s := reporting.Session{Domain: domain, Policy: p.policy(domain)}
	if !p.failed() {
		return s
	}
	s.Result = tlsrpt.ValidationFailure
	if len(p.Details) > 0 {
		p.Details[0].describe(&s)
	}
	return s
}

func (p *entry) failed() bool {
	if !p.Final.set {
		return true
	}
	return p.Final.value != 0
}

func (p *entry) policy(domain string) reporting.Policy {
	policy := reporting.Policy{
		Type:    policyTypes[p.Type.value],
		Strings: cleanStrings(p.Strings),
		MX:      cleanStrings(p.MX),
	}
	var ok bool
	if policy.Domain, ok = foreign.DomainName(p.Domain); !ok {
		// Postfix before 2025-09-24 leaves it out where there is no policy; RFC 8460
		// §4.4 wants one always.
		policy.Domain = domain
	}
	return policy
}

// policyTypes are the numbers of libtlsrpt's tlsrpt_policy_type_t.
var policyTypes = map[int]tlsrpt.PolicyType{1: tlsrpt.TLSA, 2: tlsrpt.STS, 9: tlsrpt.NoPolicy}

// failureCodes are those of libtlsrpt's tlsrpt_failure_t.
var failureCodes = map[int]tlsrpt.ResultType{
	201: tlsrpt.StartTLSNotSupported,
	202: tlsrpt.CertificateHostMismatch,
	203: tlsrpt.CertificateNotTrusted,
	204: tlsrpt.CertificateExpired,
	205: tlsrpt.ValidationFailure,
	301: tlsrpt.STSPolicyFetchError,
	302: tlsrpt.STSPolicyInvalid,
	303: tlsrpt.STSWebPKIInvalid,
	304: tlsrpt.TLSAInvalid,
	305: tlsrpt.DNSSECInvalid,
	306: tlsrpt.DANERequired,
}

// describe fills in what the detail tells.
func (d *detail) describe(s *reporting.Session) {
	s.SendingIP = foreign.Address(d.SendingIP)
	s.MXHost, _ = foreign.DomainName(d.MXHost)
	s.MXIP = foreign.Address(d.MXIP)
	s.MXHelo = foreign.HELOName(d.MXHelo)
	s.Reason = foreign.Reason(d.Reason)

	result, known := failureCodes[d.Code.value]
	switch {
	case !known:
		s.Reason = foreign.Reason(d.Code.String() + " " + s.Reason)
	case result == tlsrpt.ValidationFailure && s.Reason != "":
		// Postfix has this code for every X.509 error it does not know by number, a
		// self-signed certificate among them (RFC 8460 §4.3.1: certificate-not-trusted).
		s.Result = foreign.VerifyResult(s.Reason)
	default:
		s.Result = result
	}
}

// cleanStrings keeps what is fit for a report.
func cleanStrings(in []string) []string {
	var out []string
	for _, s := range in[:min(len(in), maxPolicyStrings)] {
		if s = foreign.Printable(s, maxPolicyString); s != "" {
			out = append(out, s)
		}
	}
	return out
}

// jsonInt is an integer, in quotes or not; set is false for what is none.
type jsonInt struct {
	value int
	set   bool
}

func (n *jsonInt) UnmarshalJSON(b []byte) error {
	v, err := strconv.Atoi(string(bytes.Trim(b, `"`)))
	*n = jsonInt{value: v, set: err == nil}
	return nil
}

func (n jsonInt) String() string {
	if !n.set {
		return "no-code"
	}
	return strconv.Itoa(n.value)
}

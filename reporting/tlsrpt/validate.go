package tlsrpt

import (
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"strings"
	"time"
	"unicode/utf8"
)

// Validate checks that a report is what RFC 8460 §4 asks for, in the form that
// [Report.Tidy] gives it. The error says what is not, and where.
func (r *Report) Validate() error {
	if r.Organization == "" || !isTidyText(r.Organization) {
		return errors.New("organization-name is empty, or has characters that are no text")
	}
	if address, err := ParseAddress(r.Contact); err != nil || address != r.Contact {
		return fmt.Errorf("contact-info %s is no bare mail address", quoted(r.Contact))
	}
	if err := checkID(r.ID); err != nil {
		return fmt.Errorf("report-id %s: %w", quoted(r.ID), err)
	}
	if err := checkRange(r.Start, r.End); err != nil {
		return fmt.Errorf("date-range: %w", err)
	}
	if n := len(r.Policies); n == 0 || n > maxPolicies {
		return fmt.Errorf("%d policies: 1 to %d may be", n, maxPolicies)
	}
	details := 0
	for i := range r.Policies {
		p := &r.Policies[i]
		if i > 0 && comparePolicies(r.Policies[i-1], *p) >= 0 {
			return fmt.Errorf("policy %d: out of order, or there twice", i+1)
		}
		if err := p.validate(); err != nil {
			return fmt.Errorf("policy %d (%s %s): %w", i+1, quoted(string(p.Policy.Type)), quoted(p.Policy.Domain), err)
		}
		details += len(p.Failures)
	}
	// With very many policies each has one entry for a result (see tidyDetails).
	if most := max(maxDetails, len(r.Policies)*len(registered)); details > most {
		return fmt.Errorf("%d failure details: %d are the most", details, most)
	}
	return nil
}

// checkID checks that the id is a msg-id too, which it is in the Subject and makes the
// message's: dot-atoms on both sides (RFC 5322 §3.6.4).
func checkID(id string) error {
	left, right, ok := strings.Cut(id, "@")
	domain, valid := asciiName(right)
	if !ok || !isDotAtom(left) || !valid || domain != right {
		return errors.New("not two dot-atoms with an @ between them")
	}
	// RFC 5322 §2.1.1 has 998 characters for a line; the Subject has it on one.
	if most := 700; len(id) > most {
		return fmt.Errorf("longer than %d bytes", most)
	}
	return nil
}

func checkRange(start, end time.Time) error {
	if _, offset := start.Zone(); offset != 0 {
		return errors.New("start is not in UTC")
	}
	if _, offset := end.Zone(); offset != 0 {
		return errors.New("end is not in UTC")
	}
	if start.Nanosecond() != 0 || end.Nanosecond() != 0 {
		return errors.New("not in whole seconds")
	}
	if start.Unix() < 0 || end.Year() > 9999 || !start.Before(end) { // RFC 3339 §1 has years of four digits
		return errors.New("no span of time")
	}
	return nil
}

func (p *PolicyResult) validate() error {
	if err := p.Policy.validate(); err != nil {
		return err
	}
	if p.Summary.Successful > maxCount || p.Summary.Failed > maxCount {
		return errors.New("a count is beyond 2^53-1")
	}
	if n := len(p.Failures); n > maxPolicyDetails {
		return fmt.Errorf("%d failure details: %d are the most", n, maxPolicyDetails)
	}
	explained := uint64(0)
	for i, d := range p.Failures {
		if i > 0 && compareDetails(p.Failures[i-1], d) >= 0 {
			return fmt.Errorf("failure detail %d: out of order, or there twice", i+1)
		}
		if err := d.validate(); err != nil {
			return fmt.Errorf("failure detail %d: %w", i+1, err)
		}
		if d.Sessions > p.Summary.Failed {
			return fmt.Errorf("failure detail %d: %d sessions, of %d that failed", i+1, d.Sessions, p.Summary.Failed)
		}
		explained = add(explained, d.Sessions)
	}
	if explained < p.Summary.Failed {
		return fmt.Errorf("the failure details explain %d of %d sessions that failed", explained, p.Summary.Failed)
	}
	return nil
}

func (p *Policy) validate() error {
	if p.Type != STS && p.Type != TLSA && p.Type != NoPolicy { // RFC 8460 §4.4
		return errors.New("unknown policy-type")
	}
	if name, ok := asciiName(p.Domain); !ok || name != p.Domain {
		return errors.New("policy-domain is no domain in A-labels")
	}
	if p.Type == NoPolicy && len(p.Strings) > 0 {
		return errors.New("policy-string without a policy")
	}
	if p.Type != STS && len(p.MX) > 0 {
		return errors.New("mx-host without an STS policy")
	}
	for _, s := range p.Strings {
		if s == "" || p.Type == TLSA && tidyTLSA(s) != s || !isTidyText(s) {
			return fmt.Errorf("policy-string %s is not of such a policy", quoted(s))
		}
	}
	for _, m := range p.MX {
		if name, ok := asciiPattern(m); !ok || name != m {
			return fmt.Errorf("mx-host %s is no pattern in A-labels", quoted(m))
		}
	}
	if size(p) > maxStrings {
		return errors.New("policy-string is too long")
	}
	return nil
}

func (d *FailureDetail) validate() error {
	switch tidy := tidyDetail(*d); {
	case d.Sessions == 0 || d.Sessions > maxCount:
		return fmt.Errorf("failed-session-count is %d", d.Sessions)
	case tidy.Result != d.Result:
		return fmt.Errorf("result-type %s is none", quoted(string(d.Result)))
	case tidy.SendingIP != d.SendingIP || tidy.ReceivingIP != d.ReceivingIP:
		return errors.New("an address has a zone, or is IPv4 in IPv6")
	case tidy.MXHost != d.MXHost:
		return fmt.Errorf("receiving-mx-hostname %s is no name in A-labels", quoted(d.MXHost))
	case tidy.MXHelo != d.MXHelo:
		return fmt.Errorf("receiving-mx-helo %s is no name", quoted(d.MXHelo))
	case tidy.Info != d.Info:
		return fmt.Errorf("additional-information %s is no web address", quoted(d.Info))
	case tidy.Reason != d.Reason: // not told: it may hold what must not get out
		return errors.New("failure-reason-code has a mail address in it, or is no short text")
	}
	return nil
}

// checkInfo checks the URI of additional-information; "" is fine.
func checkInfo(s string) error {
	if s == "" {
		return nil
	}
	u, err := url.Parse(s)
	if err != nil || checkURI(s) != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" {
		return errors.New("no web address")
	}
	if len(s) > maxInfo || strings.Contains(s, "@") {
		return errors.New("too long, or with a user in it")
	}
	return nil
}

func isTidyText(s string) bool { return utf8.ValidString(s) && tidyText(s) == s }

// text is RFC 5952 for IPv6, dotted for IPv4.
func text(a netip.Addr) string {
	if !a.IsValid() {
		return ""
	}
	return a.String()
}

package tlsrpt

import (
	"encoding/json"
	"net/netip"
	"strings"
	"time"
)

func (d *decoder) policies(value json.Token) error {
	d.Policies = nil // of a member that is there twice the last one counts
	return d.array("policies", value, readPolicies, func(element json.Token) error {
		var p PolicyResult
		err := d.object("policies", element, func(key string, value json.Token) error {
			switch key {
			case "policy":
				return d.policy(value, &p.Policy)
			case "summary":
				return d.summary(value, &p.Summary)
			case "failure-details":
				return d.failures(value, &p)
			}
			return d.unknown("policies."+key, value)
		})
		d.Policies = append(d.Policies, p)
		return err
	})
}

func (d *decoder) policy(value json.Token, p *Policy) error {
	return d.object("policy", value, func(key string, value json.Token) (err error) {
		name := "policy." + key
		switch key {
		case "policy-type":
			return d.string(name, value, (*string)(&p.Type))
		case "policy-domain":
			return d.string(name, value, &p.Domain)
		case "policy-string":
			p.Strings, err = d.strings(name, value)
			return err
		case "mx-host-pattern": // of drafts, and what parsedmarc reads
			d.note("%s should be mx-host", name)
			fallthrough
		case "mx-host":
			p.MX, err = d.strings(name, value)
			return err
		}
		return d.unknown(name, value)
	})
}

func (d *decoder) summary(value json.Token, s *Summary) error {
	return d.object("summary", value, func(key string, value json.Token) error {
		switch name := "summary." + key; key {
		case "total-successful-session-count":
			return d.count(name, value, &s.Successful)
		case "total-failure-session-count":
			return d.count(name, value, &s.Failed)
		default:
			return d.unknown(name, value)
		}
	})
}

func (d *decoder) failures(value json.Token, p *PolicyResult) error {
	p.Failures = nil
	return d.array("failure-details", value, readDetails, func(element json.Token) error {
		if d.details++; d.details > readDetails {
			d.note("there are more than %d failure details: the others are not read", readDetails)
			return d.skip(element)
		}
		var f FailureDetail
		err := d.object("failure-details", element, func(key string, value json.Token) error {
			return d.failure(key, value, &f)
		})
		p.Failures = append(p.Failures, f)
		return err
	})
}

func (d *decoder) failure(key string, value json.Token, f *FailureDetail) error {
	name := "failure-details." + key
	switch key {
	case "result-type":
		return d.string(name, value, (*string)(&f.Result))
	case "sending-mta-ip":
		return d.ip(name, value, &f.SendingIP)
	case "receiving-mx-hostname":
		return d.string(name, value, &f.MXHost)
	case "receiving-mx-helo":
		return d.helo(name, value, &f.MXHelo)
	case "receiving-ip":
		return d.ip(name, value, &f.ReceivingIP)
	case "failed-session-count":
		return d.count(name, value, &f.Sessions)
	case "additional-info-uri": // what parsedmarc reads
		d.note("%s should be additional-information", name)
		return d.string(name, value, &f.Info)
	case "additional-information":
		return d.string(name, value, &f.Info)
	case "failure-error-code": // of drafts
		d.note("%s should be failure-reason-code", name)
		return d.string(name, value, &f.Reason)
	case "failure-reason-code":
		return d.string(name, value, &f.Reason)
	}
	return d.unknown(name, value)
}

func (d *decoder) ip(name string, value json.Token, to *netip.Addr) error {
	var s string
	if err := d.string(name, value, &s); err != nil || s == "" {
		return err
	}
	a, err := netip.ParseAddr(strings.Trim(s, "[]"))
	if err != nil {
		d.note("%s is no address: %s", name, s)
		return nil
	}
	if *to = tidyIP(a); to.String() != s { // RFC 8460 §4.4 has RFC 5952
		d.note("%s is not written as usual: %s", name, s)
	}
	return nil
}

// helo reads the name of a server, of which Postfix makes its whole reply to EHLO.
func (d *decoder) helo(name string, value json.Token, to *string) error {
	s, ok := value.(string)
	if !ok || !strings.ContainsAny(s, "\r\n") {
		return d.string(name, value, to)
	}
	d.note("%s is a reply of several lines", name)
	*to = tidyHelo(s)
	return nil
}

// judge tells what only the whole shows.
func (d *decoder) judge() {
	for _, m := range [][2]string{{"organization-name", d.Organization}, {"contact-info", d.Contact}, {"report-id", d.ID}} {
		if m[1] == "" {
			d.note("%s is missing", m[0])
		}
	}
	if d.Contact != "" {
		if address, err := ParseAddress(d.Contact); err != nil || address != d.Contact {
			d.note("contact-info is no bare mail address: %s", d.Contact)
		}
	}
	d.judgeDates()
	if len(d.Policies) == 0 {
		d.note("there are no policies")
	}
	for i := range d.Policies {
		d.judgePolicy(&d.Policies[i])
	}
}

func (d *decoder) judgeDates() {
	if d.Start.IsZero() || d.End.IsZero() {
		d.note("date-range is not whole")
		return
	}
	start, end := Day(d.Start)
	switch {
	case d.Start.Equal(start) && d.End.Equal(end):
	case d.Start.Equal(start) && d.End.Equal(start.AddDate(0, 0, 1)):
		d.note("date-range ends in the next day: %s", d.End.Format(time.RFC3339))
	default: // RFC 8460 §4.1
		d.note("date-range is not a day of UTC: %s to %s", d.Start.Format(time.RFC3339), d.End.Format(time.RFC3339))
	}
}

func (d *decoder) judgePolicy(p *PolicyResult) {
	switch p.Policy.Type {
	case STS:
		if len(p.Policy.MX) == 0 {
			d.note("mx-host is missing in an sts policy")
		}
	case TLSA, NoPolicy:
		if len(p.Policy.MX) > 0 {
			d.note("mx-host is there in a %s policy", p.Policy.Type)
		}
	default:
		d.note("policy-type %s is unknown", p.Policy.Type)
	}
	if p.Policy.Domain == "" {
		d.note("policy-domain is missing")
	} else if name, ok := asciiName(p.Policy.Domain); !ok || name != p.Policy.Domain {
		d.note("policy-domain is not in lower-case A-labels: %s", p.Policy.Domain)
	}
	explained := uint64(0)
	for i := range p.Failures {
		f := &p.Failures[i]
		if explained = add(explained, f.Sessions); f.Sessions == 0 {
			d.note("a failure detail counts no session")
		}
		if now, ok := retired[string(f.Result)]; ok {
			d.note("result-type %s is of a draft: now %s", string(f.Result), string(now))
			f.Result = now
		} else if !f.Result.Registered() {
			d.note("result-type %s is not registered", string(f.Result))
		}
	}
	if explained < p.Summary.Failed || p.Summary.Failed == 0 && explained > 0 {
		d.note("the totals differ: %d sessions failed, the details count %d", p.Summary.Failed, explained)
	}
}

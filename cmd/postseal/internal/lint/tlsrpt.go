package lint

import (
	"errors"
	"strings"

	"postseal/policy/dane"
	"postseal/policy/mtasts"
	"postseal/reporting/tlsrpt"
)

// tlsrptExample is a record as RFC 8460 §3.1 has it.
func tlsrptExample(domain string) string {
	return "_smtp._tls." + domain + `. TXT "v=TLSRPTv1; rua=mailto:tlsrpt@` + domain + `"`
}

// tlsrpt looks at the record that asks for reports.
func (c *checker) tlsrpt() {
	t := c.Records.TLSRPT
	if c.Records.Plan.NullMX || c.Records.Plan.NoDomain {
		return
	}
	if t.Err != nil {
		c.add(Warning, "the TLSRPT record cannot be looked up: "+t.Err.Error(), "senders send no report then (RFC 8460 §3)", "mend the name servers of "+t.Name)
		return
	}
	for _, txt := range t.Text {
		if strings.HasPrefix(txt, "v=TLSRPT1") {
			c.add(Error, t.Name+" has a record of version TLSRPT1", "that was a draft of 2016; senders ignore it (RFC 8460 §3)", tlsrptExample(c.domain()))
			return
		}
	}
	r, err := tlsrpt.ParseRecord(t.Text)
	switch {
	case errors.Is(err, tlsrpt.ErrNoRecord):
		severity := Tip
		if c.protected() {
			severity = Warning
		}
		c.add(severity, "there is no TLSRPT record at "+t.Name, "nobody tells when mail fails by MTA-STS or DANE (RFC 8460 §1)", tlsrptExample(c.domain()))
	case errors.Is(err, tlsrpt.ErrSeveralRecords):
		c.add(Error, t.Name+" has more than one TLSRPT record", "senders must take that for none (RFC 8460 §3)", "one record; several addresses stand in its rua, with commas")
	case err != nil:
		c.add(Error, t.Name+": "+err.Error(), "senders send no report then (RFC 8460 §3)", tlsrptExample(c.domain()))
	}
	for _, note := range r.Notes {
		c.add(Warning, t.Name+": "+note, "that address gets no reports (RFC 8460 §3)", "rua=mailto:ADDRESS or rua=https://URL, several with commas")
	}
}

// protected reports whether the domain demands anything of senders.
func (c *checker) protected() bool {
	if _, err := mtasts.ParseRecord(c.Records.STS.Text); err == nil {
		return true
	}
	for i := range c.Records.Plan.Hosts {
		if c.Records.Plan.Hosts[i].State == dane.Usable {
			return true
		}
	}
	return false
}

// unprotected tells of a domain that publishes nothing at all.
func (c *checker) unprotected() {
	if c.Records.Plan.NullMX || c.Records.Plan.NoDomain || c.protected() || c.Records.STS.Err != nil || len(c.Records.STS.Text) > 0 {
		return
	}
	c.add(Tip, c.domain()+" has neither an MTA-STS policy nor usable TLSA records", "who stands between can take STARTTLS away and read the mail (RFC 8461 §1, RFC 7672 §1.3)",
		"TLSA 3 1 1 for each MX host, if the zones are signed; or an MTA-STS policy, first with mode testing")
}

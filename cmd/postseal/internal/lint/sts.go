package lint

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"postseal/policy/mtasts"
)

const (
	// shortAge: RFC 8461 §3.2 has the life of a policy in weeks or more, and §10.2
	// shows what a shorter one is worth: who blocks the policy host that long has won.
	shortAge = 7 * 24 * time.Hour
	tinyAge  = 24 * time.Hour // senders refresh about daily (RFC 8461 §3.3)
	// longTesting is longer than it takes to read the reports of testing.
	longTesting = 60 * 24 * time.Hour
	// renewal is when a certificate is usually replaced already.
	renewal = 10 * 24 * time.Hour
)

// drafts looks for records that only senders of 2016 asked for. SEED-001, SEED-010.
func (c *checker) drafts() {
	for _, t := range c.Records.Drafts {
		what, where := "MTA-STS", "(RFC 8461 §3.1)"
		instead := "_mta-sts." + c.domain() + `. TXT "v=STSv1; id=20260101;" and a policy at ` + policyURL(c.domain())
		if strings.HasPrefix(t.Name, "_smtp_tlsrpt.") {
			what, where, instead = "TLSRPT", "(RFC 8460 §3)", tlsrptExample(c.domain())
		}
		c.add(Warning, fmt.Sprintf("%s has a TXT record, as a draft of %s had it in 2016", t.Name, what), "no sender asks for it "+where, instead+"; and remove the old record")
	}
	for _, txt := range c.Records.STS.Text {
		if strings.HasPrefix(txt, "v=STS1") {
			c.add(Error, c.Records.STS.Name+" has a record of version STS1", "that was a draft of 2016; senders ignore it (RFC 8461 §3.1)", `begin it with "v=STSv1;", and publish a policy by HTTPS`)
		}
	}
}

// stsRecord looks at the TXT record, STS-014 to STS-020.
func (c *checker) stsRecord() {
	t := c.Records.STS
	if t.Err != nil {
		c.add(Warning, "the MTA-STS record cannot be looked up: "+t.Err.Error(), "senders that do not know the policy yet deliver without it (RFC 8461 §3.3)", "mend the name servers of "+t.Name)
		return
	}
	r, err := mtasts.ParseRecord(t.Text)
	malformed, isMalformed := errors.AsType[*mtasts.RecordError](err)
	switch {
	case errors.Is(err, mtasts.ErrSeveralRecords):
		c.add(Error, t.Name+" has more than one MTA-STS record", "senders must take that for none (RFC 8461 §3.1)", "keep one of them")
	case isMalformed:
		c.add(Error, t.Name+": "+malformed.Error(), "senders must take that for none (RFC 8461 §3.1)", `"v=STSv1; id=20260101;" with an id of 1 to 32 letters and digits`)
	case err == nil:
		for _, w := range r.Warnings {
			c.add(Warning, t.Name+": "+w, "senders may read it otherwise than meant (RFC 8461 §3.1)", fmt.Sprintf(`"v=STSv1; id=%s;"`, r.ID))
		}
	case c.remembered() != nil && c.remembered().Mode != mtasts.None.String():
		c.add(Error, "there is no MTA-STS record at "+t.Name+", but a policy of mode "+c.remembered().Mode+" is remembered",
			"senders that know the policy hold to it until it ends, and others never learn of it (RFC 8461 §8.3)",
			"the record; or, to be rid of MTA-STS, first a policy of mode none with a new id, until the old one has ended everywhere")
	}
}

// stsPolicy looks at what the policy host has.
func (c *checker) stsPolicy() {
	if err, ok := errors.AsType[*mtasts.FetchError](c.Records.PolicyErr); ok {
		why := "the record announces a policy that cannot be had: new senders deliver without protection (RFC 8461 §3.3)"
		instead := "make " + policyURL(c.domain()) + " answer with status 200 and text/plain, without a redirect (RFC 8461 §3.3)"
		switch err.Result {
		case mtasts.PolicyInvalid:
			why = "senders ignore a policy that breaks the grammar, as if there were none (RFC 8461 §3.2)"
			instead = `lines "version: STSv1", "mode: enforce", one "mx: HOST" for each MX host, "max_age: 604800", as text/plain`
		case mtasts.WebPKIInvalid:
			instead = "a certificate for mta-sts." + c.domain() + " of a known authority, with its intermediates, renewed in time (RFC 8461 §3.3)"
		}
		if err.Result == mtasts.PolicyFetchError && err.Temporary {
			instead += `; or, if others can fetch it, see "postseal doctor": the way out may be closed here`
		}
		c.add(Error, fmt.Sprintf("the MTA-STS policy is of no use (%s): %v", err.Result, err), why, instead)
		return
	}
	f := c.Records.Policy
	if f == nil {
		return
	}
	for _, w := range f.Warnings {
		if !strings.Contains(w, "is capped to") {
			c.add(Warning, "the MTA-STS policy: "+w, "senders may read it otherwise than meant, or reject it (RFC 8461 §3.2)", "the text without that")
			continue
		}
		c.add(Error, "the MTA-STS policy: "+w, "the longest life is 31557600 s; senders cap it or reject the whole policy (RFC 8461 §3.2, erratum 7282)", "max_age: 31557600 or less")
	}
	c.lifetime(f.Policy)
	c.mode(f.Policy)
	if left := f.NotAfter.Sub(c.Now); !f.NotAfter.IsZero() && left < renewal {
		c.add(Warning, fmt.Sprintf("the certificate of mta-sts.%s ends on %s", c.domain(), f.NotAfter.UTC().Format(time.DateOnly)), "when it has ended the policy cannot be had any more (RFC 8461 §3.3)", "renew it; automatic renewal has usually done so by now")
	}
}

func policyURL(domain string) string { return "https://mta-sts." + domain + "/.well-known/mta-sts.txt" }

func (c *checker) lifetime(p *mtasts.Policy) {
	if p.Mode == mtasts.None {
		return // on its way out, soon rather than late
	}
	seconds := int64(p.MaxAge / time.Second)
	switch {
	case p.MaxAge < tinyAge:
		c.add(Warning, fmt.Sprintf("max_age is %d s, less than a day", seconds), "senders forget the policy between two mails: who blocks one lookup has switched it off (RFC 8461 §3.2, §10.2)", "max_age: 604800 or more; weeks are usual")
	case p.MaxAge < shortAge:
		c.add(Tip, fmt.Sprintf("max_age is %d s, less than a week", seconds), "a policy is worth as much as its life is long; weeks or more are meant (RFC 8461 §3.2)", "max_age: 604800 or more, once it works")
	}
}

func (c *checker) mode(p *mtasts.Policy) {
	switch p.Mode {
	case mtasts.None:
		c.add(Tip, "the MTA-STS policy has mode none", "it asks for nothing (RFC 8461 §5)", "mode: enforce, or no record and no policy once the old one has ended everywhere (RFC 8461 §8.3)")
	case mtasts.Testing:
		since := ""
		severity := Tip
		if r, err := mtasts.ParseRecord(c.Records.STS.Text); err == nil {
			if t, ok := dated(r.ID); ok && c.Now.Sub(t) > longTesting {
				severity, since = Warning, ", since "+t.Format(time.DateOnly)+" by its id"
			}
		}
		c.add(severity, "the MTA-STS policy has mode testing"+since, "senders only report failures and deliver to anybody (RFC 8461 §5)", "mode: enforce with a new id, when the reports tell of no failures")
	}
}

// dated reads the date that most ids begin with, by the example of RFC 8461 §3.1.
func dated(id string) (time.Time, bool) {
	const form = "20060102"
	if len(id) < len(form) {
		return time.Time{}, false
	}
	t, err := time.Parse(form, id[:len(form)])
	return t, err == nil && t.Year() > 2015
}

// patterns compares the policy with the MX hosts, STS-090 to STS-092.
func (c *checker) patterns() {
	f := c.Records.Policy
	if f == nil || f.Policy.Mode == mtasts.None || len(c.Records.Plan.Hosts) == 0 {
		return
	}
	p := f.Policy
	var outside []string
	used := map[string]bool{}
	for i := range c.Records.Plan.Hosts {
		name := c.Records.Plan.Hosts[i].Name
		if !p.Match(name) {
			outside = append(outside, name)
		}
		for _, pattern := range p.MX {
			if (&mtasts.Policy{MX: []string{pattern}}).Match(name) {
				used[pattern] = true
			}
		}
	}
	severity, verdict := Error, "no sender that honours the policy delivers there"
	if p.Mode == mtasts.Testing {
		severity, verdict = Warning, "with mode enforce nobody would deliver there"
	}
	for _, name := range outside {
		c.add(severity, "MX host "+name+" is not in the MTA-STS policy"+wildcard(p.MX, name), verdict+" (RFC 8461 §4.1)", "mx: "+name+", then a new id in the record")
	}
	if len(outside) == len(c.Records.Plan.Hosts) && len(outside) > 0 {
		c.add(severity, "no MX host of "+c.domain()+" is in its MTA-STS policy", "mail to it waits and bounces in the end (RFC 8461 §5)", "mx lines with the names of the MX records, as they stand there")
	}
	if c.Records.Plan.Skipped > 0 {
		return // not all hosts are known
	}
	for _, pattern := range p.MX {
		if !used[pattern] {
			c.add(Tip, "mx: "+pattern+" of the MTA-STS policy matches no MX host", "whoever gets that name may take the mail, if DNS is forged (RFC 8461 §4.1)", "remove it, unless it is a host to come or a spare")
		}
	}
}

// wildcard says why a pattern that looks right is not.
func wildcard(patterns []string, host string) string {
	for _, p := range patterns {
		parent, ok := strings.CutPrefix(p, "*.")
		switch {
		case !ok:
		case host == parent:
			return ": " + p + " is for names below " + parent + ", not for itself"
		case strings.HasSuffix(host, "."+parent):
			return ": in " + p + " the * stands for one label, not for several"
		}
	}
	return ""
}

// unchangedID compares with what the daemon fetched before, under the same id.
func (c *checker) unchangedID() {
	before, f := c.remembered(), c.Records.Policy
	if before == nil || f == nil || before.Text == f.Policy.Text {
		return
	}
	if r, err := mtasts.ParseRecord(c.Records.STS.Text); err == nil && r.ID == before.ID {
		c.add(Warning, "the MTA-STS policy has changed, but not the id of its record, "+r.ID, "senders learn of it only when they refresh, a day later or when the old policy ends (RFC 8461 §3.3)", "a new id with each change of the policy, after it")
	}
}

// remembered is the published policy that the daemon has; nil if there is none.
func (c *checker) remembered() *remembered {
	x := c.Explanation
	if x == nil || !x.Daemon || x.STS == nil || x.STS.ID == "" {
		return nil
	}
	return &remembered{ID: x.STS.ID, Mode: x.STS.Mode, Text: x.STS.Text}
}

type remembered struct{ ID, Mode, Text string }

package daily

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"postseal/reporting"
	"postseal/reporting/store"
	"postseal/reporting/tlsrpt"
)

const (
	// maxHostDomains bounds what is read for one report about an MX host; what is left out
	// of it is only that.
	maxHostDomains = 10_000
	// maxHeld details, and maxText bytes of policies, are in memory at once for a report;
	// then what it has no room for is merged.
	maxHeld = 8000
	maxText = 4 << 20
	// largeDetails or largeText bytes make a report large, as few are.
	largeDetails = 300
	largeText    = 256 << 10
)

// Composed is a report and what is not in it.
type Composed struct {
	Report *tlsrpt.Report // nil: no session can be reported
	Loss   tlsrpt.Loss

	// Sessions that are not in the report.
	NoPolicy   uint64 // it is not known which policy they were held to
	Unverified uint64 // see [reporting.Unverified]
	Late       uint64 // see [reporting.Late]

	nameless, named uint64 // in the report, by whether the source tells our own mails
}

// compose makes the report about a subject for a day that is closed: always the same.
func (r *Reporter) compose(j job) (Composed, error) {
	c := composer{r: r, j: j, index: map[reporting.PolicyID]int{}}
	domains := []string{j.of.Name}
	if j.of.Host {
		var err error
		if domains, err = r.Store.HostDomains(j.day, j.of.Name, maxHostDomains); err != nil {
			return c.Composed, err
		}
	}
	for _, domain := range domains {
		if err := r.Store.Each(j.day, domain, c.add); err != nil {
			return c.Composed, err
		}
	}
	report := &c.report
	if len(report.Policies) == 0 {
		return c.Composed, nil
	}
	report.Organization, report.Contact = r.Organization, r.Contact
	report.Start, report.End = tlsrpt.Day(j.day.Start())
	report.ID = tlsrpt.ReportID(report.Start, j.of.Name, report.Submitter(), r.instance(j.of))
	c.tidy()
	if err := report.Validate(); err != nil {
		return c.Composed, fmt.Errorf("report about %s: %w", j.of.Name, err)
	}
	c.Report = report
	return c.Composed, nil
}

// large reports whether a report takes much memory.
func (c *Composed) large() bool {
	details, text := 0, 0
	for i := range c.Report.Policies {
		p := &c.Report.Policies[i]
		details += len(p.Failures)
		text += textSize(p.Policy.Strings) + textSize(p.Policy.MX)
	}
	return details > largeDetails || text > largeText
}

func textSize(list []string) (n int) {
	for _, s := range list {
		n += len(s)
	}
	return n
}

// why says why no session can be reported.
func (c *Composed) why() string {
	for _, left := range []struct {
		n    uint64
		text string
	}{
		{c.NoPolicy, "of no session is it known which policy it was held to"},
		{c.Unverified, "the policy is in mode testing, and nobody has verified the MX hosts"},
		{c.Late, "all sessions became known after the day was closed"},
	} {
		if left.n > 0 {
			return left.text
		}
	}
	return "no sessions"
}

// instance makes another id for a report about a name as MX host than for one about it
// as domain.
func (r *Reporter) instance(of store.Subject) string {
	if of.Host {
		return r.Host + " mx"
	}
	return r.Host
}

type composer struct {
	Composed
	r *Reporter
	j job

	report     tlsrpt.Report
	index      map[reporting.PolicyID]int // of its policies since the last tidy
	held, text int                        // details and bytes of policies, since then
}

// tidy merges what is in the report so far.
func (c *composer) tidy() {
	loss := c.report.Tidy()
	c.Loss.Details += loss.Details
	c.Loss.Policies += loss.Policies
	c.Loss.Sessions += loss.Sessions
	clear(c.index)
	c.held, c.text = 0, 0
}

// add takes the count of one kind of session.
func (c *composer) add(k reporting.Key, p reporting.Policy, n uint64) bool {
	if c.j.of.Host && (p.Type != tlsrpt.TLSA || p.Domain != c.j.of.Name) {
		return true
	}
	switch {
	case k.Standing == reporting.Late:
		c.Late += n
		return true
	case k.Standing == reporting.Unverified:
		c.Unverified += n
		return true
	case p.Type == "":
		c.NoPolicy += n
		return true
	}
	if slices.Contains(c.r.Nameless, k.Source) {
		c.nameless += n
	} else {
		c.named += n
	}
	if c.held > maxHeld || c.text > maxText {
		c.tidy()
	}
	result := c.result(k, p)
	if k.Result == "" {
		result.Summary.Successful += n
		return true
	}
	detail := tlsrpt.FailureDetail{Result: k.Result, SendingIP: k.SendingIP, MXHost: k.MXHost, MXHelo: k.MXHelo,
		ReceivingIP: k.MXIP, Sessions: n, Reason: k.Reason}
	if c.r.HideSendingIP {
		detail.SendingIP = netip.Addr{}
	}
	result.Summary.Failed += n
	result.Failures = append(result.Failures, detail)
	c.held++
	return true
}

// result is that of a session's policy.
func (c *composer) result(k reporting.Key, p reporting.Policy) *tlsrpt.PolicyResult {
	i, ok := c.index[k.Policy]
	if !ok {
		i = len(c.report.Policies)
		c.index[k.Policy] = i
		c.text += textSize(p.Strings) + textSize(p.MX)
		if _, err := tlsrpt.RecordName(p.Domain); err != nil { // one bad name must not cost the report
			p.Domain = k.Domain
		}
		c.report.Policies = append(c.report.Policies, tlsrpt.PolicyResult{Policy: tlsrpt.Policy{Type: p.Type, Domain: p.Domain, Strings: p.Strings, MX: p.MX}})
	}
	return &c.report.Policies[i]
}

// onlyOwn reports whether all sessions of a day may be those of report mails that we
// sent the domain: a report about them would make the next one, for ever. Which sessions
// those are some sources cannot tell (RFC 8460 §3: SHOULD NOT be in a report).
func (r *Reporter) onlyOwn(j job, c *Composed) (bool, error) {
	if c.named > 0 || c.nameless == 0 || j.of.Host {
		return false, nil
	}
	mailed, err := r.Store.Mailed(j.day, j.of.Name)
	if c.Report != nil && c.Report.Total().Failed == 0 {
		mailed *= ownSessions
	}
	return c.nameless <= mailed, err
}

// ownSessions are as many as a mail of ours usually makes at most, where it is put off
// once or has two hosts to try. Failures are too dear to be left out for that.
const ownSessions = 3

func domainOf(address string) string { return address[strings.LastIndexByte(address, '@')+1:] }

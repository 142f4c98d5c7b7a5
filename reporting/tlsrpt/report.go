package tlsrpt

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/netip"
	"strings"
	"time"
)

// Report is what one organisation saw in one day of the TLS of one domain's mail
// servers (RFC 8460 §4.4).
//
// One that was put together goes through [Report.Tidy], which brings it into the form
// that is sent; [Report.Encode] refuses everything else. One that was read holds what
// its sender wrote.
type Report struct {
	Organization string
	Contact      string // addr-spec; its domain is the submitter
	ID           string // see [ReportID]
	Start, End   time.Time
	Policies     []PolicyResult
}

// PolicyResult is what came of the sessions under one policy.
type PolicyResult struct {
	Policy   Policy
	Summary  Summary
	Failures []FailureDetail
}

// Policy is what sessions were held to.
type Policy struct {
	Type    PolicyType
	Domain  string   // of the recipients, for TLSA the base domain; A-labels
	Strings []string // STS: the lines of the policy; TLSA: "usage selector type hex" each
	MX      []string // STS alone: the patterns
}

// Summary counts sessions, each once.
type Summary struct {
	Successful, Failed uint64
}

// FailureDetail counts sessions that failed alike. A session that failed for two
// reasons is in two of them (RFC 8460 §4.4).
type FailureDetail struct {
	Result      ResultType
	SendingIP   netip.Addr // zero if unknown
	MXHost      string     // "" if there was none, as where a policy could not be fetched
	MXHelo      string     // "" if unknown
	ReceivingIP netip.Addr // zero if unknown
	Sessions    uint64
	Info        string // URI; "" if there is none
	Reason      string // failure-reason-code; "" if there is none
}

// maxCount is the greatest integer that every JSON parser reads exactly (RFC 7493
// §2.2).
const maxCount = 1<<53 - 1

// Day returns the bounds of the UTC day that t is in, as reports have them: the last
// second is in it (RFC 8460 §4.4, the example of Appendix B).
func Day(t time.Time) (start, end time.Time) {
	y, m, d := t.UTC().Date()
	start = time.Date(y, m, d, 0, 0, 0, 0, time.UTC)
	return start, start.AddDate(0, 0, 1).Add(-time.Second)
}

// ReportID is the id of the report about domain for the UTC day that day is in: always
// the same, so that a receiver sees that a report has come twice, and another one for
// every host of an organisation, which may be "". The form is the msg-id that the
// Subject asks for (RFC 8460 §5.3), without the brackets. Both domains are in A-labels.
func ReportID(day time.Time, domain, submitter, host string) string {
	date := day.UTC().Format("20060102")
	sum := sha256.Sum256([]byte(strings.Join([]string{date, domain, submitter, host}, "\x00")))
	return date + "." + hex.EncodeToString(sum[:8]) + "." + domain + "@" + submitter
}

// Submitter is the domain of the contact (RFC 8460 §5.3: TLS-Report-Submitter).
func (r *Report) Submitter() string { return domainOf(r.Contact) }

// FileName is the name of the report about domain, compressed (RFC 8460 §5.1).
func (r *Report) FileName(domain string) string {
	return fmt.Sprintf("%s!%s!%d!%d!%s.json.gz", r.Submitter(), domain, r.Start.Unix(), r.End.Unix(), r.unique())
}

// unique stands for the id where only letters and digits may.
func (r *Report) unique() string {
	sum := sha256.Sum256([]byte(r.ID))
	return hex.EncodeToString(sum[:8])
}

// Total is the sum over all policies.
func (r *Report) Total() (s Summary) {
	for i := range r.Policies {
		s.Successful = add(s.Successful, r.Policies[i].Summary.Successful)
		s.Failed = add(s.Failed, r.Policies[i].Summary.Failed)
	}
	return s
}

// add does not go beyond maxCount.
func add(a, b uint64) uint64 {
	if a > maxCount || b > maxCount-a {
		return maxCount
	}
	return a + b
}

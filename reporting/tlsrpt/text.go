package tlsrpt

import (
	"fmt"
	"io"
	"net/netip"
	"strings"
	"time"
	"unicode/utf8"
)

// textWidth is what RFC 5322 §2.1.1 would have lines be, less what quoting adds.
const textWidth = 74

// meaning says what a result is, for who reads RFCs no more often than they must.
var meaning = map[ResultType]string{
	StartTLSNotSupported:    "the server did not offer STARTTLS, or refused it",
	CertificateHostMismatch: "the certificate is for another name",
	CertificateExpired:      "the certificate is out of date",
	CertificateNotTrusted:   "the certificate is of nobody that the policy trusts",
	ValidationFailure:       "TLS failed for another reason",
	TLSAInvalid:             "no TLSA record can be used",
	DNSSECInvalid:           "DNSSEC validation failed",
	DANERequired:            "DANE was demanded and there was no TLSA record",
	STSPolicyFetchError:     "the MTA-STS policy could not be fetched",
	STSPolicyInvalid:        "the MTA-STS policy has an error",
	STSWebPKIInvalid:        "the web server of the MTA-STS policy has no valid certificate",
}

// kinds name the policies.
var kinds = map[PolicyType]string{STS: "MTA-STS", TLSA: "DANE", NoPolicy: "no policy for"}

// WriteText writes a report as a table for people: at most rows failures (0: all). Its
// lines fit a mail, but for words that are longer than one. The domain that it is about
// is "" if unknown: the report itself has only those of its policies.
func (r *Report) WriteText(w io.Writer, domain string, rows int) error {
	t := &table{rows: rows}
	title := "TLS report"
	if domain != "" {
		title += " about mail to " + domain
	}
	t.line(title)
	t.line("")
	t.pair("From", r.Organization)
	t.pair("Contact", r.Contact)
	t.pair("Day (UTC)", span(r.Start, r.End))
	t.pair("Report ID", r.ID)
	t.line("")
	t.line(fmt.Sprintf("%12s %12s  %s", "sessions ok", "failed", "policy"))
	for i := range r.Policies {
		p := &r.Policies[i]
		t.line(fmt.Sprintf("%12d %12d  %s", p.Summary.Successful, p.Summary.Failed, held(&p.Policy)))
	}
	if total := r.Total(); len(r.Policies) > 1 {
		t.line(fmt.Sprintf("%12d %12d  all", total.Successful, total.Failed))
	}
	for i := range r.Policies {
		t.failures(&r.Policies[i])
	}
	if t.left > 0 {
		t.line("")
		t.line(fmt.Sprintf("%d more kinds of failure are in the attached file.", t.left))
	}
	_, err := io.WriteString(w, t.String())
	return err
}

func span(start, end time.Time) string {
	if start.IsZero() || end.IsZero() {
		return "unknown"
	}
	if s, e := Day(start); start.Equal(s) && end.Equal(e) {
		return start.Format(time.DateOnly)
	}
	return start.Format(time.RFC3339) + " to " + end.Format(time.RFC3339)
}

func held(p *Policy) string {
	kind := kinds[p.Type]
	if kind == "" {
		kind = string(p.Type)
	}
	return strings.TrimSpace(kind + " " + p.Domain)
}

// table collects lines.
type table struct {
	strings.Builder
	rows, shown, left int
}

func (t *table) line(s string) { t.WriteString(s + "\n") }

func (t *table) pair(name, value string) { t.wrapped(fmt.Sprintf("%-10s ", name+":"), value) }

// wrapped writes words behind a head, and below each other what is too long for a line.
func (t *table) wrapped(head, value string) {
	words := strings.Fields(value)
	if len(words) == 0 {
		return
	}
	indent := strings.Repeat(" ", utf8.RuneCountInString(head))
	line := head + words[0]
	for _, word := range words[1:] {
		if utf8.RuneCountInString(line)+1+utf8.RuneCountInString(word) > textWidth {
			t.line(line)
			line = indent + word
			continue
		}
		line += " " + word
	}
	t.line(line)
}

func (t *table) failures(p *PolicyResult) {
	for i := range p.Failures {
		if t.rows > 0 && t.shown == t.rows {
			t.left += len(p.Failures) - i
			return
		}
		if i == 0 {
			t.line("")
			t.line("Failures, " + held(&p.Policy) + ":")
		}
		t.shown++
		t.failure(&p.Failures[i])
	}
}

func (t *table) failure(d *FailureDetail) {
	t.line(fmt.Sprintf("%12d  %s", d.Sessions, d.Result))
	under := func(name, value string) { t.wrapped(fmt.Sprintf("%14s%-7s ", "", name), value) }
	under("means", meaning[d.Result])
	under("server", strings.TrimSpace(d.MXHost+" "+bracketed(d.ReceivingIP)))
	if d.MXHelo != d.MXHost {
		under("names", d.MXHelo)
	}
	under("from", text(d.SendingIP))
	under("reason", d.Reason)
	under("see", d.Info)
}

func bracketed(a netip.Addr) string {
	if !a.IsValid() {
		return ""
	}
	return "[" + a.String() + "]"
}

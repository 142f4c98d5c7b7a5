package policy

import (
	"strings"

	"postseal/policy/dane"
)

// Fallback says which destinations the delivery fallback takes over from the
// mail server. The zero value takes none.
type Fallback struct {
	Mixed    bool // DANE at some MX hosts, MTA-STS enforce for the others: a mail server has one level for all
	DANE     bool // a DANE requirement
	STS      bool // MTA-STS enforce
	Unusable bool // TLSA records of which none is usable, whether MTA-STS is enforced besides or not

	// Sendmail says that the mail server is one. It leaves MTA-STS out where there are
	// TLSA records, usable or not, and compares no more of a policy's list than
	// [SendmailMatch]; such destinations are taken under any enforced policy.
	Sendmail bool

	// Domains are taken whatever they publish, Local never: each a domain, or
	// ".example.org" for all names below one. In A-labels and lower case.
	Domains, Local []string
}

// SendmailMatch is how many bytes Sendmail can compare of the list of a policy's MX
// hosts, "mx1.example.org:.example.org": its regex map cuts at 255 (MAXNAME, map.c), in
// the midst of a name.
const SendmailMatch = 250

// LongMatch reports whether a policy lists more than [SendmailMatch].
func LongMatch(mx []string) bool {
	n := 0
	for _, pattern := range mx {
		n += len(pattern) + 1
	}
	return n > SendmailMatch
}

// Takes reports whether mail for the destination of d goes to the fallback. Where
// the requirement cannot be told it does not: the mail server will ask for the
// policy itself before it sends, and then waits.
func (f *Fallback) Takes(d *Decision) bool {
	switch {
	case f == nil || f.Keeps(d.Destination.Domain):
		return false
	case listed(f.Domains, d.Destination.Domain):
		return true
	}
	switch d.Level {
	case LevelSTS:
		if f.Sendmail && (d.DANE == dane.ClassPartial || d.DANE == dane.ClassUnusable || d.STS != nil && LongMatch(d.STS.MX)) {
			return true
		}
		return f.STS || f.Mixed && d.DANE == dane.ClassPartial || f.Unusable && d.DANE == dane.ClassUnusable
	case LevelDANE, LevelDANEOnly:
		return f.DANE || f.Unusable && d.DANE == dane.ClassUnusable
	}
	return false
}

// Keeps reports whether a domain is the mail server's own.
func (f *Fallback) Keeps(domain string) bool { return f != nil && listed(f.Local, domain) }

func listed(list []string, domain string) bool {
	for _, l := range list {
		if domain == l || l != "" && l[0] == '.' && strings.HasSuffix(domain, l) {
			return true
		}
	}
	return false
}

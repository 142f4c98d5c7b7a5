package policy

import (
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"time"

	"postseal/policy/dane"
	"postseal/policy/mtasts"
)

// Policy types of RFC 8460 §4.4.
const (
	TypeSTS      = "sts"
	TypeTLSA     = "tlsa"
	TypeNoPolicy = "no-policy-found"
)

// keptAnswers is how many answered policies a domain keeps: enough for a log
// that is read some days late, few enough to hold for every domain.
const keptAnswers = 8

// maxStrings bounds the TLSA records of one answer that are kept for reports.
const maxStrings = 256

// Answered is one policy as it was answered for a destination, from Start on.
// Reports need it: a log line tells what happened, not which policy applied.
type Answered struct {
	Start time.Time
	Type  string // TypeSTS, TypeTLSA, TypeNoPolicy; "" where an override stood in for it

	sts  *mtasts.Policy
	tlsa []string // as Strings gives them; behind the MX host and a tab, if its base is another name
}

// Strings are the policy-string values of RFC 8460 §4.4: the lines of an STS
// policy, or the TLSA records, each as "_25._tcp.BASE. IN TLSA …".
func (a Answered) Strings() []string {
	if a.sts != nil {
		return slices.Collect(a.sts.Lines())
	}
	var list []string
	for _, s := range a.tlsa {
		_, record := splitTLSA(s)
		list = append(list, record)
	}
	slices.Sort(list)
	return slices.Compact(list)
}

// TLSA are those of the records that stand for an MX host, and their base domain,
// which is the host or the end of its CNAME chain (RFC 7672 §2.2.2); none where the
// host had none.
func (a Answered) TLSA(host string) (base string, records []string) {
	for _, s := range a.tlsa {
		of, record := splitTLSA(s)
		owner, _, _ := strings.Cut(record, ". IN TLSA ")
		_, at, _ := strings.Cut(owner, "._tcp.")
		if of == host || of == "" && at == host {
			base, records = at, append(records, record)
		}
	}
	return base, records
}

func splitTLSA(s string) (host, record string) {
	if host, record, ok := strings.Cut(s, "\t"); ok {
		return host, record
	}
	return "", s
}

// MX are the MX patterns of an STS policy.
func (a Answered) MX() []string {
	if a.sts == nil {
		return nil
	}
	return a.sts.MX
}

func (a Answered) same(b Answered) bool {
	if a.Type != b.Type || !slices.Equal(a.tlsa, b.tlsa) {
		return false
	}
	return a.sts == b.sts || a.sts != nil && b.sts != nil && a.sts.Text == b.sts.Text
}

// answer tells what d answered; ok is false for a temporary failure, under
// which nothing was sent.
func answer(d *Decision) (a Answered, ok bool) {
	a = Answered{Start: d.Made}
	switch {
	case d.Level == LevelTemp:
		return a, false
	case d.Override != nil && d.Override.Action != NoAction:
	case d.Level == LevelDANE || d.Level == LevelDANEOnly:
		a.Type, a.tlsa = TypeTLSA, tlsaStrings(d.Plan)
	case d.STS != nil && d.STS.Mode != mtasts.None:
		a.Type, a.sts = TypeSTS, d.STS
	default:
		a.Type = TypeNoPolicy
	}
	return a, true
}

func tlsaStrings(p *dane.Plan) []string {
	if p == nil {
		return nil
	}
	var list []string
	for i := range p.Hosts {
		h, of := &p.Hosts[i], ""
		if h.Base != h.Name {
			of = h.Name + "\t"
		}
		for _, r := range h.TLSA {
			list = append(list, fmt.Sprintf("%s_%d._tcp.%s. IN TLSA %d %d %d %s", of, p.Port, h.Base, r.Usage, r.Selector, r.MatchingType, hex.EncodeToString(r.Data)))
		}
	}
	slices.Sort(list)
	list = slices.Compact(list)
	return list[:min(len(list), maxStrings)]
}

// remember adds what d answered to the list, and reports whether it is something
// new. A DANE decision restored from disk lacks the records; they are in the list
// already.
func (m *memo) remember(d *Decision) bool {
	a, ok := answer(d)
	if !ok || a.Type == TypeTLSA && d.Plan == nil {
		return false
	}
	list := append(slices.Clone(m.answered), a)
	slices.SortStableFunc(list, func(a, b Answered) int { return a.Start.Compare(b.Start) }) // some are late
	list = slices.CompactFunc(list, Answered.same)
	list = list[max(0, len(list)-keptAnswers):]
	news := !slices.EqualFunc(list, m.answered, func(a, b Answered) bool { return a.Start.Equal(b.Start) && a.same(b) })
	if news {
		m.answered = list
	}
	return news
}

// PolicyAt returns the policy that was answered for a domain at t; ok is false
// where that is not known.
func (e *Engine) PolicyAt(domain string, t time.Time) (a Answered, ok bool) {
	m, found := e.memos().Get(domain)
	if !found {
		return Answered{}, false
	}
	for _, candidate := range slices.Backward(m.answered) {
		if !t.Before(candidate.Start) {
			return candidate, true
		}
	}
	return Answered{}, false
}

package tlsrpt

import (
	"cmp"
	"encoding/hex"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// What a report may hold at most. Together they keep it below 10 MB even before it is
// compressed, which is what receivers were seen to take (RFC 8460 §5.2).
const (
	maxPolicies      = 1000
	maxDetails       = 3000    // of all policies
	maxPolicyDetails = 1000    // of one
	maxStrings       = 2 << 20 // bytes of all policies' strings; an STS policy has 64 KiB at most
	maxReason        = 200     // bytes; codes are shorter, Postfix quotes a line of OpenSSL
	maxHelo          = 255     // RFC 5321 §4.5.3.1.2
	maxInfo          = maxURI
)

// mergedReason is the reason code of the details that did not fit.
const mergedReason = "several-details-merged"

// Loss is what the bounds have taken from a report. The totals of the policies that
// remain are whole.
type Loss struct {
	Details  int    // merged with others of the same result
	Policies int    // left out with their sessions
	Sessions uint64 // that were left out
}

// Tidy brings a report into the form that is sent. Names become lower-case A-labels,
// what is unknown or no valid value is left out; addresses of people are taken out of
// reasons (RFC 8460 §8); equal policies and equal details are merged, details beyond
// the bounds with those of the same result; everything gets a fixed order. Counts stay
// as they are.
func (r *Report) Tidy() Loss {
	r.Organization = tidyText(r.Organization)
	if address, err := ParseAddress(r.Contact); err == nil {
		r.Contact = address
	}
	r.Start, r.End = r.Start.UTC(), r.End.UTC()
	room := maxStrings
	policies := slices.Clone(r.Policies)
	for i := range policies {
		policies[i].Policy = tidyPolicy(policies[i].Policy)
	}
	slices.SortStableFunc(policies, comparePolicies)
	for i := range policies {
		p := &policies[i].Policy
		if room -= size(p); room < 0 {
			p.Strings, p.MX = nil, nil
		}
	}
	slices.SortStableFunc(policies, comparePolicies) // without strings some are equal
	r.Policies = mergePolicies(policies)
	loss := r.cutPolicies()
	for i := range r.Policies {
		loss.Details += r.Policies[i].tidyDetails(len(r.Policies))
	}
	return loss
}

// cutPolicies keeps the policies with the most sessions. Nobody has so many: they are
// made by who changes them all day.
func (r *Report) cutPolicies() (loss Loss) {
	if len(r.Policies) <= maxPolicies {
		return loss
	}
	sessions := func(p PolicyResult) uint64 { return add(p.Summary.Successful, p.Summary.Failed) }
	slices.SortStableFunc(r.Policies, func(a, b PolicyResult) int { return cmp.Compare(sessions(b), sessions(a)) })
	for _, p := range r.Policies[maxPolicies:] {
		loss.Policies++
		loss.Sessions = add(loss.Sessions, sessions(p))
	}
	r.Policies = r.Policies[:maxPolicies]
	slices.SortStableFunc(r.Policies, comparePolicies)
	return loss
}

// mergePolicies makes one of neighbours that are equal.
func mergePolicies(sorted []PolicyResult) (merged []PolicyResult) {
	for _, p := range sorted {
		last := len(merged) - 1
		if last < 0 || comparePolicies(merged[last], p) != 0 {
			merged = append(merged, p)
			continue
		}
		m := &merged[last]
		m.Summary.Successful = add(m.Summary.Successful, p.Summary.Successful)
		m.Summary.Failed = add(m.Summary.Failed, p.Summary.Failed)
		m.Failures = slices.Concat(m.Failures, p.Failures)
	}
	return merged
}

// comparePolicies orders by type, domain and text.
func comparePolicies(a, b PolicyResult) int {
	rank := func(t PolicyType) int { return slices.Index([]PolicyType{STS, TLSA, NoPolicy}, t) }
	return cmp.Or(cmp.Compare(rank(a.Policy.Type), rank(b.Policy.Type)),
		strings.Compare(string(a.Policy.Type), string(b.Policy.Type)),
		strings.Compare(a.Policy.Domain, b.Policy.Domain),
		slices.Compare(a.Policy.Strings, b.Policy.Strings), slices.Compare(a.Policy.MX, b.Policy.MX))
}

func size(p *Policy) (n int) {
	for _, list := range [][]string{p.Strings, p.MX} {
		for _, s := range list {
			n += len(s)
		}
	}
	return n
}

func tidyPolicy(p Policy) Policy {
	tidy := Policy{Type: p.Type, Domain: p.Domain}
	if domain, ok := asciiName(p.Domain); ok {
		tidy.Domain = domain
	}
	if p.Type == NoPolicy {
		return tidy
	}
	for _, s := range p.Strings {
		if p.Type == TLSA {
			s = tidyTLSA(s)
		} else {
			s = tidyText(s)
		}
		if s != "" {
			tidy.Strings = append(tidy.Strings, s)
		}
	}
	if p.Type == TLSA { // an RRset has no order
		slices.Sort(tidy.Strings)
		tidy.Strings = slices.Compact(tidy.Strings)
		return tidy
	}
	for _, m := range p.MX {
		if m, ok := asciiPattern(m); ok {
			tidy.MX = append(tidy.MX, m)
		}
	}
	return tidy
}

// tidyTLSA is a TLSA record as RFC 8460 §4.4 has it: usage, selector, matching type and
// the data without blanks in it; "" if s is none.
func tidyTLSA(s string) string {
	fields := strings.Fields(strings.ToLower(s))
	if len(fields) < 4 {
		return ""
	}
	for _, number := range fields[:3] {
		if n, err := strconv.ParseUint(number, 10, 8); err != nil || strconv.FormatUint(n, 10) != number {
			return ""
		}
	}
	data := strings.Join(fields[3:], "")
	if _, err := hex.DecodeString(data); err != nil {
		return ""
	}
	return strings.Join(fields[:3], " ") + " " + data
}

// asciiPattern is asciiName of an mx pattern (RFC 8461 §3.2).
func asciiPattern(s string) (string, bool) {
	name, wild := strings.CutPrefix(s, "*.")
	name, ok := asciiName(name)
	if wild {
		name = "*." + name
	}
	return name, ok
}

// tidyDetails returns how many were merged for want of room.
func (p *PolicyResult) tidyDetails(policies int) int {
	for i := range p.Failures {
		if i == 0 {
			p.Failures = slices.Clone(p.Failures)
		}
		p.Failures[i] = tidyDetail(p.Failures[i])
	}
	p.Failures = mergeDetails(p.Failures, maxCount)
	// Every policy gets the same room. Below few dozens one entry for each result
	// says more than a choice of them.
	room := min(maxDetails/policies, maxPolicyDetails)
	if len(p.Failures) <= room {
		return 0
	}
	kept := 0
	if few := 32; room >= few {
		kept = room - len(registered)
	}
	cut := slices.Clone(p.Failures[kept:])
	for i, d := range cut {
		if !d.Result.Registered() {
			d.Result = ValidationFailure
		}
		cut[i] = FailureDetail{Result: d.Result, Sessions: d.Sessions, Reason: mergedReason}
	}
	// A session may be in several of those that are merged now, and in the total once.
	p.Failures = mergeDetails(append(p.Failures[:kept:kept], cut...), p.Summary.Failed)
	return len(cut)
}

// mergeDetails makes one of details that differ in nothing but their number, and puts
// those with most sessions first. A sum does not go beyond most.
func mergeDetails(details []FailureDetail, most uint64) []FailureDetail {
	sums := make(map[FailureDetail]uint64, len(details))
	for _, d := range details {
		n := d.Sessions
		d.Sessions = 0
		if n > 0 {
			sums[d] = add(sums[d], n)
		}
	}
	var merged []FailureDetail
	for d, n := range sums {
		d.Sessions = min(n, most)
		merged = append(merged, d)
	}
	slices.SortFunc(merged, compareDetails)
	return merged
}

func compareDetails(a, b FailureDetail) int {
	return cmp.Or(cmp.Compare(b.Sessions, a.Sessions),
		strings.Compare(string(a.Result), string(b.Result)),
		strings.Compare(a.MXHost, b.MXHost), a.ReceivingIP.Compare(b.ReceivingIP),
		a.SendingIP.Compare(b.SendingIP), strings.Compare(a.Reason, b.Reason),
		strings.Compare(a.MXHelo, b.MXHelo), strings.Compare(a.Info, b.Info))
}

func tidyDetail(d FailureDetail) FailureDetail {
	result, reason := Canonical(string(d.Result))
	if d.Result, d.Reason = result, cmp.Or(d.Reason, reason); d.Reason != "" {
		d.Reason = redact(tidyReason(d.Reason))
	}
	d.SendingIP, d.ReceivingIP = tidyIP(d.SendingIP), tidyIP(d.ReceivingIP)
	d.MXHost, _ = asciiName(d.MXHost)
	d.MXHelo = tidyHelo(d.MXHelo)
	if checkInfo(d.Info) != nil {
		d.Info = ""
	}
	return d
}

// tidyIP has no zone, which says nothing elsewhere, and is IPv4 where it is.
func tidyIP(a netip.Addr) netip.Addr { return a.Unmap().WithZone("") }

// tidyHelo is the name that a server has for itself: one word of its reply to EHLO.
// Postfix hands over the whole reply.
func tidyHelo(s string) string {
	line, _, _ := strings.Cut(s, "\n")
	if len(line) > 4 && strings.Trim(line[:3], "0123456789") == "" && (line[3] == '-' || line[3] == ' ') {
		line = line[4:]
	}
	words := strings.Fields(line)
	if len(words) == 0 || len(words[0]) > maxHelo || strings.Contains(words[0], "@") || !isPrintable(words[0]) {
		return ""
	}
	return words[0]
}

// isPrintable reports whether s is printable ASCII.
func isPrintable(s string) bool {
	for i := range len(s) {
		if s[i] < ' ' || s[i] > '~' {
			return false
		}
	}
	return true
}

// tidyReason is printable ASCII with single blanks.
func tidyReason(s string) string {
	if most := 4 * maxReason; len(s) > most {
		s = s[:most]
		s = s[:max(0, strings.LastIndexByte(s, ' '))] // half an address is not known as one
	}
	b := []byte(s)
	for i, c := range b {
		if c == '\t' || c == '\r' || c == '\n' {
			b[i] = ' '
		} else if c < ' ' || c > '~' {
			b[i] = '?'
		}
	}
	return strings.Join(strings.Fields(string(b)), " ")
}

// address finds what may be a mail address: more than is one, since a name lost from a
// reason harms nobody.
var address = regexp.MustCompile(`(?:"[^"]*"|[^\s"<>()\[\],;:]*)@[^\s"<>(),;]*`)

// redact takes mail addresses out of a reason (RFC 8460 §8), and bounds it.
func redact(s string) string {
	if strings.Contains(s, "@") {
		s = address.ReplaceAllString(s, "(address)")
	}
	return strings.TrimSpace(s[:min(len(s), maxReason)])
}

// tidyText is s without what I-JSON does not allow (RFC 7493 §2.1) or a terminal obeys.
func tidyText(s string) string {
	return strings.TrimSpace(strings.Map(func(c rune) rune {
		if !isText(c) {
			return '?'
		}
		return c
	}, strings.ToValidUTF8(s, "?")))
}

func isText(c rune) bool {
	control := c < ' ' || 0x7f <= c && c < 0xa0 || c == 0x2028 || c == 0x2029
	none := c&0xfffe == 0xfffe || 0xfdd0 <= c && c <= 0xfdef // noncharacters
	return !control && !none && !isDirection(c) && utf8.ValidRune(c)
}

// isDirection finds what turns the direction of text that follows.
func isDirection(c rune) bool { return 0x202a <= c && c <= 0x202e || 0x2066 <= c && c <= 0x2069 }

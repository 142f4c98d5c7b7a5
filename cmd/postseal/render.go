package main

import (
	"bytes"
	"fmt"
	"strings"
	"time"

	"postseal/cmd/postseal/internal/control"
	"postseal/cmd/postseal/internal/lint"
	"postseal/cmd/postseal/internal/overrides"
)

const (
	columns = 100 // of the screen
	indent  = 12  // of the right column

	// An explanation fits on one screen; --json has the rest.
	maxHostLines   = 8
	maxStepLines   = 22
	maxAnswerLines = 3 // of one map
	maxProbes      = 8
)

// sheet is text in two columns.
type sheet struct{ bytes.Buffer }

// line adds a line, wrapped into the right column, at most most lines of it.
func (s *sheet) line(name, text string, most int) {
	for i, part := range wrap(printable(text), columns-indent, most) {
		if i > 0 {
			name = ""
		}
		s.WriteString(strings.TrimRight(fmt.Sprintf("%-*s%s", indent, name, part), " ") + "\n")
	}
}

// wrap breaks text at blanks, or behind the punctuation of a word too long, into
// at most most lines of width characters.
func wrap(text string, width, most int) []string {
	var lines []string
	rest := []rune(text)
	for len(lines) < most {
		if len(rest) <= width {
			return append(lines, string(rest))
		}
		cut := breakAt(rest[:width+1])
		lines = append(lines, strings.TrimRight(string(rest[:cut]), " "))
		for rest = rest[cut:]; len(rest) > 0 && rest[0] == ' '; {
			rest = rest[1:]
		}
	}
	last := []rune(lines[most-1])
	lines[most-1] = string(last[:min(len(last), width-3)]) + "..."
	return lines
}

// breakAt is where the first line of text ends, which is one character too long.
func breakAt(text []rune) int {
	width := len(text) - 1
	for cut := width; cut > width/2; cut-- {
		if text[cut] == ' ' {
			return cut
		}
	}
	for cut := width; cut > width/2; cut-- {
		if strings.ContainsRune(":;,.=", text[cut-1]) {
			return cut
		}
	}
	return width
}

// render is an explanation for people.
func render(x *control.Explanation) []byte {
	s := &sheet{}
	s.line(x.Destination, "", 1)
	s.line("decision", x.Level+", by the rule: "+x.Rule, 2)
	s.line("why", x.Reason, 3)
	s.line("validation", x.Validation.Words(), 3)
	s.line("override", describe(x.Override), 2)
	s.line("made", origin(x), 2)
	s.dane(x)
	s.sts(x)
	before := bytes.Count(s.Bytes(), []byte("\n"))
	s.probed(x)
	s.steps(x.Steps, maxStepLines-(bytes.Count(s.Bytes(), []byte("\n"))-before))
	s.WriteString("\n")
	title := "answers"
	for _, a := range x.Answers {
		name := a.Map
		for _, part := range wrap(printable(a.Text), columns-indent-16, maxAnswerLines) {
			s.line(title, fmt.Sprintf("%-15s %s", name, part), 1)
			title, name = "", ""
		}
	}
	return s.Bytes()
}

func origin(x *control.Explanation) string {
	text := stamp(x.Made)
	switch {
	case !x.Daemon:
		text += " by this command alone, not by the daemon: nothing is remembered from before"
	case x.Cached:
		text += " by the daemon for an earlier question"
	default:
		text += " by the daemon now"
	}
	if x.Expires.After(x.Made) {
		text += ", good until " + strings.TrimPrefix(stamp(x.Expires), stamp(x.Made)[:len("2006-01-02 ")])
	}
	return text
}

// describe is a rule in one line.
func describe(r *overrides.Rule) string {
	if r == nil {
		return "none"
	}
	var words []string
	add := func(name, value string) {
		if value != "" {
			words = append(words, strings.TrimSpace(name+" "+value))
		}
	}
	words = append(words, strings.TrimSpace(r.Domain+" "+r.Action)) // never without the domain
	add("level", r.Level)
	add("match", strings.Join(r.Match, " "))
	add("mode", r.Mode)
	add("mx", strings.Join(r.MX, " "))
	add("policy", strings.Join(strings.Fields(r.Policy), " "))
	add("requiretls", r.RequireTLS)
	if !r.Expires.IsZero() {
		add("until", stamp(r.Expires))
	}
	add("by", r.Author)
	add("because", r.Reason)
	return strings.Join(words, ", ")
}

func (s *sheet) dane(x *control.Explanation) {
	d := x.DANE
	text := d.Class + ", MX answer "
	if !d.MXSecure {
		text += "not "
	}
	text += "authenticated"
	switch {
	case !x.Validation.On:
		text = "not looked up, DNSSEC validation is off"
	case d.NullMX:
		text += ", null MX: accepts no mail"
	case d.Implicit:
		text += ", no MX records: the domain is its own host"
	case d.Hosts == nil:
		text += ", hosts not looked up for this decision"
	}
	s.line("DANE", text, 2)
	most := maxHostLines
	if x.Probed != nil { // which has the hosts once more
		most /= 2
	}
	for i, h := range d.Hosts {
		if i == most-1 && len(d.Hosts) > most {
			s.line("", fmt.Sprintf("... and %d hosts more, see --json", len(d.Hosts)-i), 1)
			break
		}
		s.host(h)
	}
	if d.Skipped > 0 {
		s.line("", fmt.Sprintf("... and %d hosts that were not looked up", d.Skipped), 1)
	}
}

func (s *sheet) host(h control.Host) {
	text := fmt.Sprintf("%-5d %-28s %-9s", h.Preference, h.Name, h.State)
	if len(h.TLSA) > 0 {
		text += " " + brief(h.TLSA[0])
		if len(h.TLSA) > 1 {
			text += fmt.Sprintf(" and %d more", len(h.TLSA)-1)
		}
	} else if h.Reason != "" {
		text += " " + h.Reason
	}
	if h.STS != "" {
		text += "  STS " + h.STS
	}
	s.line("", text, 1)
}

// brief is a TLSA record with as much of its data as tells it from others.
func brief(tlsa string) string {
	const most = len("3 1 1 ") + 16
	if len(tlsa) <= most {
		return tlsa
	}
	return tlsa[:most] + "..."
}

func (s *sheet) sts(x *control.Explanation) {
	if x.STS == nil {
		s.line("MTA-STS", "no policy in force", 1)
		return
	}
	age := time.Duration(x.STS.MaxAge) * time.Second
	s.line("MTA-STS", fmt.Sprintf("mode %s, max_age %s, mx: %s", x.STS.Mode, long(age), strings.Join(x.STS.MX, " ")), 3)
	if x.STS.Fetched != nil {
		s.line("", fmt.Sprintf("id %s, fetched %s, in force until %s", x.STS.ID, stamp(*x.STS.Fetched), stamp(*x.STS.Expires)), 1)
		s.line("", "from "+x.STS.Source, 2)
	}
}

// probed shows what the hosts have proven, now.
func (s *sheet) probed(x *control.Explanation) {
	if x.Probed == nil {
		return
	}
	title, lines := "probe", 1
	if len(x.Probed.Answers) <= maxProbes/2 {
		lines = 2
	}
	if len(x.Probed.Answers) == 0 {
		s.line(title, "there is no address to connect to", 1)
	}
	for i, p := range x.Probed.Answers {
		if i == maxProbes-1 && len(x.Probed.Answers) > maxProbes {
			s.line("", fmt.Sprintf("... and %d addresses more, see --json", len(x.Probed.Answers)-i), 1)
			break
		}
		s.line(title, p.Host+" "+p.Address+" "+verdicts(p, x.STS != nil), lines)
		title = ""
	}
}

// verdicts says what one address has proven.
func verdicts(p control.Probe, sts bool) string {
	if p.TLS == "" {
		return "no TLS: " + p.Failure
	}
	words := []string{p.TLS}
	switch {
	case p.DANE != "":
		words = append(words, "DANE FAILS: "+p.DANE)
	case p.Proven == "dane":
		words = append(words, "DANE holds")
	default:
		words = append(words, "no DANE")
	}
	verdict := func(name, failure string) {
		if failure == "" {
			words = append(words, name+" holds")
			return
		}
		words = append(words, name+" FAILS: "+failure)
	}
	verdict("certificate", p.PKIX)
	switch {
	case !sts:
	case p.STS != "" && p.STS == p.PKIX:
		words = append(words, "MTA-STS FAILS by that")
	default:
		verdict("MTA-STS", p.STS)
	}
	return strings.Join(words, "; ")
}

// steps shows what was concluded, and of the lookups as many as fit into most lines.
func (s *sheet) steps(steps []control.Step, most int) {
	if len(steps) == 0 {
		return
	}
	s.WriteString("\n")
	s.line("seconds", "what was asked and found", 1)
	lookups := most
	for _, step := range steps {
		if step.Topic != "dns" {
			lookups -= len(stepLines(step))
		}
	}
	lookups = max(lookups, most/3)
	left := 0
	for _, step := range steps {
		lines := stepLines(step)
		if step.Topic == "dns" {
			if len(lines) > lookups {
				left++
				continue
			}
			lookups -= len(lines)
		}
		for i, line := range lines {
			at := ""
			if i == 0 {
				at = fmt.Sprintf("%7.3f", step.At)
			}
			fmt.Fprintf(s, "%-*s%s\n", indent, at, line)
		}
	}
	if left > 0 {
		s.line("", fmt.Sprintf("... and %d lookups more, see --json", left), 1)
	}
}

func stepLines(step control.Step) []string {
	lines := wrap(printable(step.Text), columns-indent-6, 3)
	for i := range lines {
		topic := ""
		if i == 0 {
			topic = step.Topic
		}
		lines[i] = fmt.Sprintf("%-5s %s", topic, lines[i])
	}
	return lines
}

// renderHints is what a domain's owner should mend, for people.
func renderHints(hints []lint.Hint) []byte {
	const most = 4 // lines of each part
	s := &sheet{}
	s.WriteString("\n")
	if len(hints) == 0 {
		s.line("hints", "none: there is nothing that its owner should mend", 1)
		return s.Bytes()
	}
	s.line("hints", "for the owner of the domain, worst first", 1)
	for _, h := range hints {
		s.line(string(h.Severity), h.What, most)
		s.line("", "why: "+h.Why, most)
		s.line("", "instead: "+h.Instead, most)
	}
	return s.Bytes()
}

// stamp is a time as people and logs have it.
func stamp(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05Z") }

// long is a duration in the largest unit that has no rest.
func long(d time.Duration) string {
	switch {
	case d >= 24*time.Hour && d%(24*time.Hour) == 0:
		return fmt.Sprintf("%d d", d/(24*time.Hour))
	case d >= time.Hour && d%time.Hour == 0:
		return fmt.Sprintf("%d h", d/time.Hour)
	}
	return fmt.Sprintf("%d s", d/time.Second)
}

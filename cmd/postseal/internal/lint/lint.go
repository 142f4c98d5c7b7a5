// Package lint looks at what a domain publishes for those who send mail to it, and
// tells its owner what is wrong, what is risky, and what is missing: the MTA-STS
// record and policy (RFC 8461), the TLSA records of the MX hosts (RFC 7672), the
// TLSRPT record (RFC 8460), and the MX records that all of them rest on.
//
// A sender has to decide and goes on; an owner wants to know. So the rules here are
// stricter than those of package policy and never change a decision. They also know
// what the drafts of 2016 had (_smtp_sts, v=STS1, _smtp_tlsrpt), which nobody asks
// for any more and some still publish.
//
// [Ask] looks everything up, the daemon's memory apart; [Check] is pure: the same
// facts give the same hints, worst first.
package lint

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"postseal/cmd/postseal/internal/control"
	"postseal/policy/dane"
)

// Severity says how much a hint matters.
type Severity string

const (
	Error   Severity = "error"   // mail is lost or delayed, or the protection is not there
	Warning Severity = "warning" // it works, but not as meant, or not for long
	Tip     Severity = "hint"    // it could be better
)

// Hint is one thing that a domain's owner could do better. All text is one line and
// printable.
type Hint struct {
	Severity Severity `json:"severity"`
	What     string   `json:"what"`    // what was found, and where
	Why      string   `json:"why"`     // what comes of it, with the section of the RFC
	Instead  string   `json:"instead"` // what to publish or do
}

// Facts are what the rules look at.
type Facts struct {
	Records     *Records
	Explanation *control.Explanation // what the daemon, or the command alone, decided
	Now         time.Time
}

// Check applies every rule. The hints come worst first, those of equal severity in
// the order of the rules; nil if there is nothing to say.
func Check(f Facts) []Hint {
	c := &checker{Facts: f}
	if r := f.Records; r.STS.Err != nil && r.TLSRPT.Err != nil && r.Plan.Class == dane.ClassBroken {
		c.add(Warning, "nothing that "+c.domain()+" publishes can be looked up: "+r.TLSRPT.Err.Error(), "either its name servers do not answer, and mail to it waits (RFC 7672 §2.1.2), or the resolver here does not",
			`run "postseal doctor"; if it finds no fault with the resolver, mend the name servers of `+c.domain())
		return c.hints
	}
	for _, rule := range []func(*checker){
		(*checker).mx, (*checker).hosts,
		(*checker).drafts, (*checker).stsRecord, (*checker).stsPolicy, (*checker).patterns, (*checker).unchangedID,
		(*checker).dnssec, (*checker).tlsa, (*checker).probed,
		(*checker).tlsrpt, (*checker).unprotected,
	} {
		rule(c)
	}
	order := map[Severity]int{Error: 0, Warning: 1, Tip: 2}
	slices.SortStableFunc(c.hints, func(a, b Hint) int { return cmp.Compare(order[a.Severity], order[b.Severity]) })
	return c.hints
}

// maxHints bounds what one domain may have us print.
const maxHints = 60

type checker struct {
	Facts
	hints []Hint
}

func (c *checker) add(s Severity, what, why, instead string) {
	if len(c.hints) < maxHints {
		c.hints = append(c.hints, Hint{s, clean(what), clean(why), clean(instead)})
	}
}

// clean makes one printable line of what may have words of a stranger in it.
func clean(s string) string {
	return strings.Map(func(r rune) rune {
		if !strconv.IsPrint(r) {
			return '?'
		}
		return r
	}, s)
}

// domain is whose records these are.
func (c *checker) domain() string { return c.Records.Destination.Domain }

// list is at most some names of many.
func list(names []string) string {
	const most = 5
	text := ""
	for i, n := range names {
		switch {
		case i == most:
			return fmt.Sprintf("%s and %d more", text, len(names)-most)
		case i > 0:
			text += ", "
		}
		text += n
	}
	return text
}

package policy

import (
	"maps"
	"slices"
	"strings"
	"time"

	"postseal/policy/mtasts"
)

// Override is an operator's rule for a domain, or for every name below one
// (".example.org"). Overrides come before anything that is published.
type Override struct {
	Domain     string
	Action     Action
	Level      Level          // of Require: LevelEncrypt, LevelSTS, LevelDANE or LevelDANEOnly
	Policy     *mtasts.Policy // of Pin, and of Require with LevelSTS: the MX patterns
	RequireTLS string         // answer of the map requiretls; "" = enforce
	Expires    time.Time      // zero: never
	Reason     string
	Author     string
	Created    time.Time
}

// Action of an Override.
type Action uint8

const (
	NoAction Action = iota // only RequireTLS is set
	Exempt                 // deliver with whatever TLS there is
	Require                // Level, whatever is published
	Pin                    // Policy instead of the published one; DANE still goes first
)

func (a Action) String() string { return [...]string{"none", "exempt", "require", "pin"}[a] }

// rules is an immutable set of overrides.
type rules struct {
	exact  map[string]*Override
	suffix map[string]*Override // key without the leading dot
}

func newRules(list []Override) *rules {
	r := &rules{exact: map[string]*Override{}, suffix: map[string]*Override{}}
	for i := range list {
		o := list[i] // a copy that the set owns
		if parent, ok := strings.CutPrefix(o.Domain, "."); ok {
			r.suffix[parent] = &o
		} else {
			r.exact[o.Domain] = &o
		}
	}
	return r
}

// find returns the most specific rule for domain that holds at now.
func (r *rules) find(domain string, now time.Time) *Override {
	if r == nil {
		return nil
	}
	holds := func(o *Override) bool { return o != nil && (o.Expires.IsZero() || now.Before(o.Expires)) }
	if o := r.exact[domain]; holds(o) {
		return o
	}
	if len(r.suffix) == 0 {
		return nil
	}
	for _, parent, ok := strings.Cut(domain, "."); ok; _, parent, ok = strings.Cut(parent, ".") {
		if o := r.suffix[parent]; holds(o) {
			return o
		}
	}
	return nil
}

// list has all rules, in no order.
func (r *rules) list() []*Override {
	if r == nil {
		return nil
	}
	return slices.AppendSeq(slices.Collect(maps.Values(r.exact)), maps.Values(r.suffix))
}

// until is when the rule ends by itself, zero if never or if there is none.
func (o *Override) until() time.Time {
	if o == nil {
		return time.Time{}
	}
	return o.Expires
}

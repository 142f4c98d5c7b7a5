package daily

import (
	"errors"
	"path/filepath"
	"slices"
	"strings"

	"postseal/reporting/store"
	"postseal/reporting/tlsrpt"
)

// Action is what a rule does with the targets that a domain names.
type Action string

const (
	Accept  Action = "accept"  // send to them
	Drop    Action = "drop"    // send nothing
	Replace Action = "replace" // send to those of the rule
)

// Rule is the operator's word about the reports on some domains. The first that fits
// counts.
type Rule struct {
	Domains []string // "example.org", ".example.org" for all below it, "*" for all; A-labels, lower case
	Action  Action
	To      []Target // of Replace
	Copy    []Target // gets each report too, whatever the action
}

// Target is where a report goes: one that a domain names, or a folder of ours.
type Target struct {
	tlsrpt.Target
	Folder string // absolute path; "" for the others
	Copy   bool   // by a rule, beside those that the report is for
}

const schemeFolder = "folder:"

// ParseTarget reads what a rule may name: mailto, https, or folder:/path.
func ParseTarget(s string) (Target, error) {
	if path, ok := strings.CutPrefix(s, schemeFolder); ok {
		if !filepath.IsAbs(path) || filepath.Clean(path) != path {
			return Target{}, errors.New("is not folder: and a clean absolute path")
		}
		return Target{Target: tlsrpt.Target{URI: s}, Folder: path}, nil
	}
	t, err := tlsrpt.ParseTarget(s)
	return Target{Target: t}, err
}

// fits reports whether a rule is about a name.
func (r *Rule) fits(name string) bool {
	return slices.ContainsFunc(r.Domains, func(pattern string) bool {
		return pattern == "*" || pattern == name || strings.HasPrefix(pattern, ".") && strings.HasSuffix(name, pattern)
	})
}

// rule is the one for a subject; without any, what the domain names counts.
func (r *Reporter) rule(of store.Subject) Rule {
	for _, rule := range r.Rules {
		if rule.fits(of.Name) {
			return rule
		}
	}
	return Rule{Action: Accept}
}

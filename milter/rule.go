package milter

import (
	"errors"
	"fmt"
	"strings"

	"golang.org/x/net/idna"

	"postseal/policy/requiretls"
)

// Rule tags messages by their envelope. Of several rules the first counts whose
// patterns all match; an empty pattern matches everything. Patterns are
// "user@example.org", "@example.org", ".example.org" for every name below it, and
// "*" for everything that is there at all. Case does not matter, and U-labels and
// A-labels are the same.
type Rule struct {
	Sender    string // of the envelope; the null sender is never tagged
	Recipient string
	User      string // {auth_authen}, the name that the client has authenticated with; also a plain "name"
	Tag       string // "requiretls", "relaxed", or "none": the rules below do not count
}

// tags are the words of [Rule.Tag].
var tags = map[string]requiretls.Mode{
	"requiretls": requiretls.Required,
	"relaxed":    requiretls.Relaxed,
	"none":       requiretls.Normal,
}

// rule is a Rule that is ready for use.
type rule struct {
	sender, recipient, user pattern
	mode                    requiretls.Mode
}

func compileRules(list []Rule) ([]rule, error) {
	var rules []rule
	for i, r := range list {
		compiled, err := r.compile()
		if err != nil {
			return nil, fmt.Errorf("rule %d: %w", i+1, err)
		}
		rules = append(rules, compiled)
	}
	return rules, nil
}

// Check tells what is wrong with a rule.
func (r Rule) Check() error {
	_, err := r.compile()
	return err
}

func (r Rule) compile() (rule, error) {
	mode, ok := tags[r.Tag]
	if !ok {
		return rule{}, fmt.Errorf("tag %q is not requiretls, relaxed or none", r.Tag)
	}
	compiled := rule{mode: mode}
	for _, p := range []struct {
		name, text string
		to         *pattern
	}{
		{"sender", r.Sender, &compiled.sender},
		{"recipient", r.Recipient, &compiled.recipient},
		{"user", r.User, &compiled.user},
	} {
		var err error
		if *p.to, err = compilePattern(p.text, p.name == "user"); err != nil {
			return rule{}, fmt.Errorf("%s: %w", p.name, err)
		}
	}
	return compiled, nil
}

// match returns the number of the first rule that matches, from 1, 0 for none, and
// what it says.
func match(rules []rule, sender, recipient, user address) (int, requiretls.Mode) {
	for i, r := range rules {
		if r.sender.match(sender) && r.recipient.match(recipient) && r.user.match(user) {
			return i + 1, r.mode
		}
	}
	return 0, requiretls.Normal
}

// pattern of an address. The zero value matches everything.
type pattern struct {
	some   bool    // anything but the empty address
	below  string  // a domain with a dot in front
	domain string  // any user there
	whole  address // exactly this one
}

// errPattern is returned for a pattern of no known form.
var errPattern = errors.New(`is not "user@domain", "@domain", ".domain" or "*"`)

// compilePattern reads a pattern; plain says that names without a domain exist.
func compilePattern(s string, plain bool) (pattern, error) {
	switch {
	case s == "":
		return pattern{}, nil
	case s == "*":
		return pattern{some: true}, nil
	case len(s) > 1 && s[0] == '.':
		return pattern{below: "." + canonical(s[1:])}, nil
	case len(s) > 1 && s[0] == '@':
		return pattern{domain: canonical(s[1:])}, nil
	}
	a := parseAddress(s)
	if a.local == "" || a.domain == "" && !plain || strings.HasSuffix(s, "@") {
		return pattern{}, fmt.Errorf("%q %w", s, errPattern)
	}
	return pattern{whole: a}, nil
}

func (p pattern) match(a address) bool {
	switch {
	case p.some:
		return a != address{}
	case p.below != "":
		return strings.HasSuffix(a.domain, p.below)
	case p.domain != "":
		return a.domain == p.domain
	case p.whole != address{}:
		return a == p.whole
	}
	return true
}

// address is one in the form in which addresses are compared. Local parts are in
// lower case: RFC 5321 §2.4 lets only the host that holds the mailbox do that, but
// a rule that demands protection must not be lost by a capital letter.
type address struct{ local, domain string }

func parseAddress(s string) address {
	if strings.HasPrefix(s, "@") { // a source route, to be ignored (RFC 5321 §4.1.1.3)
		if _, rest, ok := strings.Cut(s, ":"); ok {
			s = rest
		}
	}
	s = bare(s)
	at := strings.LastIndexByte(s, '@')
	if at < 0 {
		return address{local: strings.ToLower(s)}
	}
	return address{strings.ToLower(s[:at]), canonical(s[at+1:])}
}

// domains maps U-labels to A-labels, leniently: what cannot be a domain simply
// matches nothing.
var domains = idna.New(idna.MapForLookup(), idna.StrictDomainName(false))

func canonical(domain string) string {
	domain = strings.TrimSuffix(strings.ToLower(domain), ".")
	for i := range len(domain) {
		if domain[i] >= 0x80 {
			if a, err := domains.ToASCII(domain); err == nil {
				return a
			}
			break
		}
	}
	return domain
}

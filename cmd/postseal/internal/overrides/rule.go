package overrides

import (
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"postseal/policy"
	"postseal/policy/mtasts"
)

// Rule is one rule as the file and the control socket have it.
type Rule struct {
	Domain     string    `toml:"domain" json:"domain"` // or ".domain" for every name below it
	Action     string    `toml:"action,omitempty" json:"action,omitempty"`
	Level      string    `toml:"level,omitempty" json:"level,omitempty"`             // of require
	Match      []string  `toml:"match,omitempty" json:"match,omitempty"`             // of require at level secure
	Policy     string    `toml:"policy,omitempty" json:"policy,omitempty"`           // of pin: text of an MTA-STS policy …
	Mode       string    `toml:"mode,omitempty" json:"mode,omitempty"`               // … or its mode
	MX         []string  `toml:"mx,omitempty" json:"mx,omitempty"`                   // … and patterns
	RequireTLS string    `toml:"requiretls,omitempty" json:"requiretls,omitempty"`   // answer of the map requiretls
	Expires    time.Time `toml:"expires,omitempty,omitzero" json:"expires,omitzero"` // zero: never
	Reason     string    `toml:"reason,omitempty" json:"reason,omitempty"`           //
	Author     string    `toml:"author,omitempty" json:"author,omitempty"`           //
	Created    time.Time `toml:"created,omitempty,omitzero" json:"created,omitzero"` //
}

// FieldError is a value that makes no sense.
type FieldError struct {
	Field string // as in the file
	Err   error
}

func (e *FieldError) Error() string { return e.Field + ": " + e.Err.Error() }
func (e *FieldError) Unwrap() error { return e.Err }

func wrong(field, format string, args ...any) error {
	return &FieldError{Field: field, Err: fmt.Errorf(format, args...)}
}

// maxWords bounds reason and author, which end up in log lines and replies.
const maxWords = 500

// Normalize checks the rule and puts its domain into canonical form. Errors about
// one field are of type [*FieldError].
func (r *Rule) Normalize() error {
	domain, err := Canonical(r.Domain)
	if err != nil {
		return wrong("domain", "%w", err)
	}
	r.Domain = domain
	for field, text := range map[string]string{"reason": r.Reason, "author": r.Author} {
		if len(text) > maxWords || !utf8.ValidString(text) || strings.ContainsFunc(text, unicode.IsControl) {
			return wrong(field, "must be one printable line of at most %d bytes", maxWords)
		}
	}
	_, err = r.Compile()
	return err
}

// Canonical is the form of a rule's domain: as of a destination, with the dot
// before it of a rule for the names below.
func Canonical(domain string) (string, error) {
	name, below := strings.CutPrefix(domain, ".")
	d, err := policy.ParseDestination(name)
	if err != nil || d.Fixed || d.Port != 25 {
		return "", fmt.Errorf("%q is neither a domain nor a dot and a domain (a rule for a host covers [host]:port too)", domain)
	}
	if below {
		return "." + d.Domain, nil
	}
	return d.Domain, nil
}

// Compile turns a rule into the engine's form.
func (r *Rule) Compile() (policy.Override, error) {
	o := policy.Override{Domain: r.Domain, RequireTLS: r.RequireTLS, Expires: r.Expires, Reason: r.Reason, Author: r.Author, Created: r.Created}
	if err := r.compileAction(&o); err != nil {
		return o, err
	}
	if err := r.superfluous(); err != nil {
		return o, err
	}
	return o, checkRequireTLS(r.RequireTLS)
}

func (r *Rule) compileAction(o *policy.Override) (err error) {
	switch r.Action {
	case "":
		if r.RequireTLS == "" {
			return wrong("action", "is missing: exempt, require or pin")
		}
	case "exempt":
		o.Action = policy.Exempt
	case "require":
		o.Action = policy.Require
		return r.compileRequire(o)
	case "pin":
		o.Action = policy.Pin
		o.Policy, err = r.pinned()
		return err
	default:
		return wrong("action", "%q is not exempt, require or pin", r.Action)
	}
	return nil
}

// superfluous finds fields that the action has no use for, and that somebody may
// believe to have an effect.
func (r *Rule) superfluous() error {
	for _, f := range []struct {
		name string
		set  bool
		of   bool
	}{
		{"level", r.Level != "", r.Action == "require"},
		{"match", len(r.Match) > 0, r.Action == "require" && r.Level == "secure"},
		{"policy", r.Policy != "", r.Action == "pin"},
		{"mode", r.Mode != "", r.Action == "pin" && r.Policy == ""},
		{"mx", len(r.MX) > 0, r.Action == "pin" && r.Policy == ""},
	} {
		if f.set && !f.of {
			return wrong(f.name, "has no meaning here")
		}
	}
	return nil
}

func (r *Rule) compileRequire(o *policy.Override) (err error) {
	switch r.Level {
	case "encrypt":
		o.Level = policy.LevelEncrypt
	case "secure":
		o.Level = policy.LevelSTS
		o.Policy, err = r.required()
	case "dane":
		o.Level = policy.LevelDANE
	case "dane-only":
		o.Level = policy.LevelDANEOnly
	case "":
		return wrong("level", "is missing: encrypt, secure, dane or dane-only")
	default:
		return wrong("level", "%q is not encrypt, secure, dane or dane-only", r.Level)
	}
	return err
}

// required is the policy of "require" at "secure". Without match it names the
// domain and the names below it, as Postfix's own secure level does (nexthop,
// dot-nexthop).
func (r *Rule) required() (*mtasts.Policy, error) {
	match := r.Match
	if len(match) == 0 {
		if strings.HasPrefix(r.Domain, ".") {
			return nil, wrong("match", "is missing: a rule for the names below a domain must say which MX hosts are right")
		}
		match = []string{r.Domain, "*." + r.Domain}
	}
	p, err := compose("enforce", match)
	if err != nil {
		return nil, wrong("match", "%w", err)
	}
	return p, nil
}

func (r *Rule) pinned() (*mtasts.Policy, error) {
	if r.Policy != "" {
		p, _, err := mtasts.ParsePolicy(r.Policy)
		if err != nil {
			return nil, wrong("policy", "%w", err)
		}
		return p, nil
	}
	switch {
	case r.Mode == "":
		return nil, wrong("mode", "is missing: pin needs policy, or mode and mx")
	case r.Mode != "enforce" && r.Mode != "testing" && r.Mode != "none":
		return nil, wrong("mode", "%q is not enforce, testing or none", r.Mode)
	case len(r.MX) == 0 && r.Mode != "none":
		return nil, wrong("mx", "is missing: which MX hosts are right")
	}
	p, err := compose(r.Mode, r.MX)
	if err != nil {
		return nil, wrong("mx", "%w", err)
	}
	return p, nil
}

// compose makes a policy of a mode and patterns, where ".d" may stand for "*.d",
// as Postfix has it.
func compose(mode string, patterns []string) (*mtasts.Policy, error) {
	var b strings.Builder
	fmt.Fprintf(&b, "version: STSv1\nmode: %s\n", mode)
	for _, mx := range patterns {
		if strings.ContainsAny(mx, "\r\n") {
			return nil, errors.New("line break in a pattern")
		}
		if strings.HasPrefix(mx, ".") {
			mx = "*" + mx
		}
		fmt.Fprintf(&b, "mx: %s\n", mx)
	}
	fmt.Fprintf(&b, "max_age: %d\n", int(mtasts.MaxMaxAge/time.Second))
	p, _, err := mtasts.ParsePolicy(b.String())
	return p, err
}

// checkRequireTLS allows what smtp_requiretls_policy of Postfix 3.11 takes:
// "enforce", or "opportunistic" with or without "+starttls" (postconf(5)).
func checkRequireTLS(s string) error {
	switch s {
	case "", "enforce", "opportunistic", "opportunistic+starttls", "disable":
		return nil
	}
	return wrong("requiretls", "%q is not enforce, opportunistic, opportunistic+starttls or disable", s)
}

// Expired reports whether the rule has come to its end.
func (r *Rule) Expired(now time.Time) bool { return !r.Expires.IsZero() && !now.Before(r.Expires) }

// Describe is the rule behind an override of the engine, for people.
func Describe(o *policy.Override) *Rule {
	r := &Rule{Domain: o.Domain, RequireTLS: o.RequireTLS, Expires: o.Expires, Reason: o.Reason, Author: o.Author, Created: o.Created}
	switch o.Action {
	case policy.Exempt:
		r.Action = "exempt"
	case policy.Require:
		r.Action, r.Level = "require", o.Level.String()
		if o.Level == policy.LevelSTS {
			r.Level = "secure"
		}
		if o.Policy != nil {
			r.Match = o.Policy.MX
		}
	case policy.Pin:
		r.Action = "pin"
		if o.Policy != nil {
			r.Policy = o.Policy.Text
		}
	}
	return r
}

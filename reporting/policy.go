package reporting

import (
	"crypto/sha256"
	"io"
	"slices"
	"strings"

	"postseal/reporting/tlsrpt"
)

// PolicyID names a canonical policy. The zero value is that of no known policy.
type PolicyID [16]byte

// Canonical is the form in which one policy that two sources have seen is one: TLSA
// records without their owner, in lower case and sorted; lines of an MTA-STS policy
// with single blanks, as mail servers pass them on.
func (p Policy) Canonical() Policy {
	c := Policy{Type: p.Type, Domain: strings.ToLower(p.Domain)}
	for _, s := range p.Strings {
		if p.Type == tlsrpt.TLSA {
			if _, data, owned := strings.Cut(s, " TLSA "); owned {
				s = data
			}
			s = strings.ToLower(s)
		}
		if s = strings.Join(strings.Fields(s), " "); s != "" {
			c.Strings = append(c.Strings, s)
		}
	}
	for _, m := range p.MX {
		c.MX = append(c.MX, strings.ToLower(m))
	}
	if p.Type == tlsrpt.TLSA {
		slices.Sort(c.Strings)
		c.Strings = slices.Compact(c.Strings)
	}
	return c
}

// ID is that of a canonical policy.
func (p *Policy) ID() PolicyID {
	if p.Type == "" {
		return PolicyID{}
	}
	h := sha256.New()
	for _, list := range [][]string{{string(p.Type), p.Domain}, p.Strings, p.MX} {
		for _, s := range list {
			io.WriteString(h, s)
			h.Write([]byte{0})
		}
		h.Write([]byte{1})
	}
	return PolicyID(h.Sum(nil)[:len(PolicyID{})])
}

// size is about how many bytes a policy holds.
func (p *Policy) size() int {
	n := len(p.Domain)
	for _, list := range [][]string{p.Strings, p.MX} {
		for _, s := range list {
			n += len(s) + 16 // of the string's header
		}
	}
	return n
}

package dnstest

import (
	"strings"

	"github.com/miekg/dns"
)

const (
	defaultTTL  = 300
	negativeTTL = 60
	maxChain    = 32 // long enough to show a client that has its own limit
)

// zone is what the server knows.
type zone struct {
	records map[string][]dns.RR // by canonical owner
	names   map[string]bool     // owners and the empty names above them
	signed  []string
}

// canonical is a name in lower case without the final dot; the root is "".
func canonical(name string) string { return strings.TrimSuffix(strings.ToLower(name), ".") }

func parseZone(text string, signed []string) (zone, error) {
	z := zone{records: make(map[string][]dns.RR), names: make(map[string]bool)}
	p := dns.NewZoneParser(strings.NewReader(text), ".", "zone")
	p.SetDefaultTTL(defaultTTL)
	for rr, ok := p.Next(); ok; rr, ok = p.Next() {
		owner := canonical(rr.Header().Name)
		z.records[owner] = append(z.records[owner], rr)
		for name := owner; name != ""; _, name, _ = strings.Cut(name, ".") {
			z.names[name] = true
		}
	}
	for _, s := range signed {
		z.signed = append(z.signed, canonical(s))
	}
	return z, p.Err()
}

// isSigned reports whether the longest suffix that name is below is a signed one.
func (z *zone) isSigned(name string) bool {
	best, signed := -1, false
	for _, s := range z.signed {
		suffix, unsigned := strings.CutPrefix(s, "!")
		below := suffix == "" || name == suffix || strings.HasSuffix(name, "."+suffix)
		if below && len(suffix) > best {
			best, signed = len(suffix), !unsigned
		}
	}
	return signed
}

// lookup returns all records of name, those of a wildcard included, and
// whether the name exists.
func (z *zone) lookup(name string) ([]dns.RR, bool) {
	if z.names[name] {
		return z.records[name], true
	}
	for rest := name; rest != ""; {
		_, rest, _ = strings.Cut(rest, ".")
		if star, ok := z.records["*."+rest]; ok {
			var rrs []dns.RR
			for _, rr := range star {
				rr = dns.Copy(rr)
				rr.Header().Name = dns.Fqdn(name)
				rrs = append(rrs, rr)
			}
			return rrs, true
		}
		if z.names[rest] { // the closest encloser has no wildcard (RFC 4592 §3.3.1)
			return nil, false
		}
	}
	return nil, name == ""
}

// soa returns the SOA of the zone that name is in.
func (z *zone) soa(name string) dns.RR {
	for rest := name; ; _, rest, _ = strings.Cut(rest, ".") {
		for _, rr := range z.records[rest] {
			if soa, ok := rr.(*dns.SOA); ok {
				return soa
			}
		}
		if rest == "" {
			break
		}
	}
	return &dns.SOA{
		Hdr: dns.RR_Header{Name: ".", Rrtype: dns.TypeSOA, Class: dns.ClassINET, Ttl: negativeTTL},
		Ns:  "ns.invalid.", Mbox: "hostmaster.invalid.", Serial: 1, Refresh: 3600, Retry: 600, Expire: 86400, Minttl: negativeTTL,
	}
}

// result is what a recursive resolver finds for one question.
type result struct {
	answer []dns.RR
	soa    dns.RR // nil if the answer is not about absence
	rcode  int
	secure bool
	names  []string // all names of the chain
}

func (z *zone) resolve(name string, qtype uint16) result {
	r := result{secure: true}
	seen := make(map[string]bool)
	for range maxChain {
		r.names = append(r.names, name)
		r.secure = r.secure && z.isSigned(name)
		if seen[name] {
			return r // a circle is handed out as it is
		}
		seen[name] = true
		rrs, exists := z.lookup(name)
		var cname *dns.CNAME
		found := false
		for _, rr := range rrs {
			if rr.Header().Rrtype == qtype || qtype == dns.TypeANY {
				r.answer = append(r.answer, rr)
				found = true
			}
			if c, ok := rr.(*dns.CNAME); ok {
				cname = c
			}
		}
		if found {
			return r
		}
		if cname == nil {
			r.soa = z.soa(name)
			if !exists {
				r.rcode = dns.RcodeNameError
			}
			return r
		}
		r.answer = append(r.answer, cname)
		name = canonical(cname.Target)
	}
	return r
}

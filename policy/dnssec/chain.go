package dnssec

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/miekg/dns"
)

const (
	// A name behind more aliases than this is not found (RFC 7672 §2.1.3 asks
	// for a limit; unbound follows 11, BIND 16).
	maxAliases = 16

	maxTTL         = 24 * time.Hour   // a rollover is seen within a day, whatever the TTL says
	maxNegativeTTL = time.Hour        // RFC 2308 §5 suggests one to three hours
	noSOATTL       = 60 * time.Second // RFC 2308 §5: without SOA it should not be cached; this spares the resolver
)

// part is what one reply tells: all of an answer, unless the resolver left the
// chain unfinished.
type part struct {
	name       string   // end of the chain
	aliases    []string // on the way to it
	records    []record // owned by name
	chain      []record // the CNAMEs, for the trace
	status     Status
	secure     bool
	unfinished bool // name has to be asked for
	ttl        time.Duration
	server     string
}

var (
	errChain    = errors.New("more than 16 aliases, or a circle")
	errNegative = errors.New("records together with NXDOMAIN")
)

// conclude follows the chain in a reply with the RCODE 0 or 3. Only records of
// its last name count. used is the number of aliases before it. The error is
// errChain, or says what is malformed.
func conclude(q question, r reply, used int) (part, error) {
	p := part{name: q.name, ttl: maxTTL}
	for {
		for _, rr := range r.answer {
			if rr.rtype == q.qtype && rr.name == p.name {
				p.records = append(p.records, rr)
				p.ttl = min(p.ttl, seconds(rr.ttl))
			}
		}
		if len(p.records) > 0 || q.qtype == dns.TypeCNAME {
			break
		}
		i := slices.IndexFunc(r.answer, func(rr record) bool { return rr.rtype == dns.TypeCNAME && rr.name == p.name })
		if i < 0 {
			break
		}
		target, err := decodeName(r.answer[i])
		if err != nil {
			return part{}, fmt.Errorf("CNAME of %s: %w", p.name, err)
		}
		p.aliases = append(p.aliases, p.name)
		p.chain = append(p.chain, r.answer[i])
		p.ttl = min(p.ttl, seconds(r.answer[i].ttl))
		if used+len(p.aliases) > maxAliases || slices.Contains(p.aliases, target) {
			return part{}, errChain
		}
		p.name = target
	}

	negative, known := negativeTTL(r.authority, p.name)
	switch {
	case r.rcode == dns.RcodeNameError && len(p.records) > 0:
		return part{}, errNegative
	case len(p.records) > 0:
		return p, nil
	case r.rcode == dns.RcodeNameError:
		// RFC 6604 §3: the RCODE is about the last name of the chain.
		p.status = NXDomain
	case len(p.aliases) > 0 && !known:
		p.unfinished = true
		return p, nil
	default:
		p.status = NoData
	}
	p.ttl = min(p.ttl, negative)
	return p, nil
}

// negativeTTL is the time for which the absence of name may be remembered, and
// whether there was an SOA to tell it (RFC 2308 §3, §5).
func negativeTTL(authority []record, name string) (time.Duration, bool) {
	for _, soa := range authority {
		if soa.name != "" && soa.name != name && !strings.HasSuffix(name, "."+soa.name) {
			continue
		}
		if minimum, ok := soaMinimum(soa); ok {
			return min(seconds(soa.ttl), seconds(minimum), maxNegativeTTL), true
		}
	}
	return noSOATTL, false
}

func seconds(n uint32) time.Duration { return time.Duration(n) * time.Second }

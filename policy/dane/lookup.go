package dane

import (
	"cmp"
	"context"
	"errors"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"postseal/policy/dnssec"
)

const (
	// maxHosts is how many MX hosts are looked up, best first. Large providers
	// publish fewer; Postfix by default tries 5 addresses (smtp_mx_address_limit).
	maxHosts = 20

	// maxParallel hosts are looked up side by side, so that one destination
	// does not take all of the resolver.
	maxParallel = 6

	// maxAddrs of each family are kept: more than are ever tried.
	maxAddrs = 32

	// maxTLSA bounds the data of all TLSA records at one name: some full
	// certificates, hundreds of digests.
	maxTLSA = 32 << 10

	// brokenTTL is how long a failed lookup counts (RFC 7671 §13 caches answers only).
	brokenTTL = 30 * time.Second

	// maxTTL is that of dnssec.Answer, here for what rests on no answer.
	maxTTL = 24 * time.Hour
)

// Lookup asks all that RFC 7672 §2.2 needs to know before delivering to nextHop, in
// A-labels, at port. fixed says that nextHop is a host name: MX is not asked, and
// its identity needs no proof. The plan is never nil. Failed lookups, the end of
// ctx included, are in its Class, Err and hosts. Nothing is asked that the RFC does not
// need: no TLSA where the address is insecure, nothing after a null MX or where there
// is no such domain.
func Lookup(ctx context.Context, dns *dnssec.Client, nextHop string, port uint16, fixed bool) *Plan {
	p := &Plan{
		NextHop: strings.ToLower(strings.TrimSuffix(nextHop, ".")),
		Port:    port,
		Fixed:   fixed,
		TTL:     maxTTL,
	}
	if !p.findHosts(ctx, dns) {
		return p
	}

	var wg sync.WaitGroup
	free := make(chan struct{}, maxParallel)
	for i := range p.Hosts {
		wg.Go(func() {
			free <- struct{}{}
			defer func() { <-free }()
			lookup{&p.Hosts[i], dns, port}.run(ctx)
		})
	}
	wg.Wait()

	for i := range p.Hosts {
		p.TTL = min(p.TTL, p.Hosts[i].TTL)
	}
	p.conclude()
	return p
}

// findHosts fills in Hosts. It returns false when the plan is complete without any.
func (p *Plan) findHosts(ctx context.Context, dns *dnssec.Client) bool {
	if p.Fixed {
		p.MXSecure = true
		p.Hosts = []Host{{Name: p.NextHop}}
		return true
	}

	mx, err := dns.LookupMX(ctx, p.NextHop)
	if err != nil { // RFC 7672 §2.1.2: no connection at all
		p.Class, p.Err, p.TTL = ClassBroken, err, brokenTTL
		p.because("%s", err)
		return false
	}
	p.MXSecure, p.TTL = mx.Secure, min(p.TTL, mx.TTL)
	if len(mx.Aliases) > 0 {
		p.Expanded = mx.Name
	}

	if mx.Status != dnssec.Found || len(mx.Records) == 0 { // RFC 5321 §5.1
		p.Implicit = true
		p.Hosts = []Host{{Name: p.NextHop}}
		if mx.Status == dnssec.NXDomain {
			p.vanish(mx.Secure)
		}
		return !p.NoDomain
	}
	p.Hosts, p.Skipped = hostsOf(mx.Records)
	if len(p.Hosts) == 0 {
		p.NullMX = true
		p.because("%s accepts no mail (null MX)", p.NextHop)
		return false
	}
	return true
}

// vanish settles a next hop that does not exist: then it has no address either (RFC
// 8020 §2), and none is asked for.
func (p *Plan) vanish(proven bool) {
	p.NoDomain = true
	h := &p.Hosts[0]
	h.State, h.Secure, h.Reason, h.TTL = Insecure, proven, "no such domain, which is not authenticated", p.TTL
	if proven {
		h.State, h.Reason = Absent, "provably no such domain"
	}
	p.conclude()
}

// hostsOf sorts MX records, merges those of one host into its best, and gives the
// best maxHosts and how many are left. The null MX "." counts only when it is alone,
// of whatever preference (RFC 7505 §3 is silent about both): then there are none.
func hostsOf(records []dnssec.MX) (hosts []Host, skipped int) {
	records = slices.SortedFunc(slices.Values(records), func(a, b dnssec.MX) int {
		return cmp.Or(cmp.Compare(a.Preference, b.Preference), cmp.Compare(a.Host, b.Host))
	})
	seen := make(map[string]bool)
	for _, r := range records {
		if r.Host == "" || seen[r.Host] {
			continue
		}
		seen[r.Host] = true
		if len(hosts) == maxHosts {
			skipped++
			continue
		}
		hosts = append(hosts, Host{Name: r.Host, Preference: r.Preference})
	}
	return hosts, skipped
}

// lookup is the work for one host.
type lookup struct {
	*Host
	dns  *dnssec.Client
	port uint16
}

// run finds out the State of the host.
func (l lookup) run(ctx context.Context) {
	l.TTL = maxTTL
	if _, err := netip.ParseAddr(strings.Trim(l.Name, "[]")); err == nil {
		l.settle(Insecure, "an IP address is no host name") // RFC 7672 §2.2
		return
	}
	bases, ok := l.addresses(ctx)
	if !ok {
		return
	}
	for _, base := range bases {
		if l.records(ctx, base) {
			return
		}
	}
	l.settle(NoTLSA, "no authenticated TLSA records")
}

func (l lookup) settle(s State, reason string) {
	l.State, l.Reason = s, printable(reason)
}

// fail makes the host unreachable: an error in any query that is needed to find TLSA
// is never "no DANE" (RFC 7672 §2.1.2).
func (l lookup) fail(err error) {
	l.Err, l.TTL = err, brokenTTL
	l.settle(Broken, err.Error())
}

func (l lookup) lives(ttl time.Duration) { l.TTL = min(l.TTL, ttl) }

// addresses looks up A and AAAA, and gives the names to search for TLSA, in that
// order. ok is false when the host's state is settled without (RFC 7672 §2.2.2).
func (l lookup) addresses(ctx context.Context) (bases []string, ok bool) {
	var a, aaaa dnssec.Answer[netip.Addr]
	var errA, errAAAA error
	var wg sync.WaitGroup
	wg.Go(func() { aaaa, errAAAA = l.dns.LookupAAAA(ctx, l.Name) })
	a, errA = l.dns.LookupA(ctx, l.Name)
	wg.Wait()

	// What one family answered is used if the other fails, but not for long.
	aliased := false
	if errA != nil || errAAAA != nil {
		l.lives(brokenTTL)
	}
	if errA == nil {
		aliased = l.take(a)
	}
	if errAAAA == nil {
		aliased = l.take(aaaa) || aliased
	}

	switch {
	case badName(errA) && badName(errAAAA): // nothing was asked, and no one can connect
		l.settle(Insecure, "not a host name")
	case errA != nil && errAAAA != nil:
		l.fail(errA)
	case len(l.Addrs) == 0:
		l.unaddressed(cmp.Or(errA, errAAAA), a.Secure && aaaa.Secure, aliased)
	case l.Secure && l.Expanded != "":
		return []string{l.Expanded, l.Name}, true // never a name between them
	case l.Secure:
		return []string{l.Name}, true
	case aliased:
		return l.alias(ctx)
	default:
		l.settle(Insecure, "address is not authenticated")
	}
	return nil, false
}

// take adds an answer to the host, and reports whether the name was an alias.
func (l lookup) take(r dnssec.Answer[netip.Addr]) (aliased bool) {
	l.lives(r.TTL)
	l.Addrs = append(l.Addrs, r.Records[:min(len(r.Records), maxAddrs)]...)
	aliased = len(r.Aliases) > 0
	if r.Secure {
		l.Secure = true
		if aliased {
			l.Expanded = r.Name
		}
	}
	return aliased
}

// unaddressed settles the state of a host without any address. err is that of the
// one family that gave no answer, which may hold the address of a host with DANE,
// unless the other showed the name itself to be in an unsigned zone.
func (l lookup) unaddressed(err error, proven, aliased bool) {
	switch {
	case err != nil && (l.Secure || aliased):
		l.fail(err)
	case err == nil && proven:
		l.settle(Absent, "provably has no address")
	default:
		l.settle(Insecure, "has no address, which is not authenticated")
	}
}

// alias asks whether the host's own name, an alias of an insecure one, is in a
// signed zone: then TLSA records may stand there (RFC 7672 §2.1.3, §2.2.2).
func (l lookup) alias(ctx context.Context) (bases []string, ok bool) {
	cname, err := l.dns.LookupCNAME(ctx, l.Name)
	if err != nil {
		l.fail(err)
		return nil, false
	}
	l.lives(cname.TTL)
	if !cname.Secure || cname.Status != dnssec.Found {
		l.settle(Insecure, "is an alias, and its address is not authenticated")
		return nil, false
	}
	return []string{l.Name}, true
}

// records asks for TLSA at one base domain, and returns true if that settles the
// state of the host: with a secure answer, even of unusable records alone, or an
// error. Only secure or insecure absence, and insecure records, leave it to the next
// candidate (RFC 7672 §2.2.3).
func (l lookup) records(ctx context.Context, base string) bool {
	// Aliases at the name are followed, but the base stays (RFC 7672 §2.2.3).
	tlsa, err := l.dns.LookupTLSA(ctx, "_"+strconv.Itoa(int(l.port))+"._tcp."+base)
	if badName(err) {
		return false // too long a name for DNS: nothing can be there
	}
	if err != nil {
		l.fail(err)
		return true
	}
	l.lives(tlsa.TTL)
	if !tlsa.Secure || tlsa.Status != dnssec.Found || len(tlsa.Records) == 0 {
		return false
	}

	size := 0
	for _, r := range tlsa.Records {
		size += len(r.Data)
	}
	if size > maxTLSA {
		l.fail(errors.New("TLSA records at " + base + " are larger than 32 KiB"))
		return true
	}

	l.Base, l.TLSA, l.Usable = base, tlsa.Records, Select(tlsa.Records)
	if len(l.Usable) > 0 {
		l.settle(Usable, "usable TLSA at "+base)
		return true
	}
	reason := "none usable"
	if err := Check(l.TLSA[0]); err != nil {
		reason = err.Error()
	}
	l.settle(Unusable, "no usable TLSA at "+base+": "+reason)
	return true
}

// badName reports that nothing was asked, since the name itself cannot be in DNS. An
// alias that leads to such a name is an error as any other.
func badName(err error) bool {
	e, ok := errors.AsType[*dnssec.Error](err)
	return ok && e.Kind == dnssec.BadName && e.Server == ""
}

package doctor

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"time"

	"postseal/policy/dnssec"
)

// dialLimit is for one connection: who does not answer by then is blocked.
const dialLimit = 4 * time.Second

// web is the client for https: no proxy, no redirects, as policies are fetched.
func (e *env) web() WebClient {
	if e.Machine.Web != nil {
		return e.Machine.Web
	}
	roots, _ := e.Config.Roots() // checkAuthorities tells
	return &http.Client{
		Timeout:       2 * dialLimit,
		Transport:     &http.Transport{DialContext: e.dialName, TLSClientConfig: &tls.Config{RootCAs: roots}, DisableKeepAlives: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// dns asks the resolvers that the daemon asks.
func (e *env) dns(trust dnssec.TrustAD) *dnssec.Client {
	c := &dnssec.Client{Servers: e.Config.Resolvers(), ResolvConf: e.Machine.Path("/etc/resolv.conf"), TrustAD: trust, Timeout: 5 * time.Second}
	if e.Machine.DNSWait > 0 {
		c.TryTimeout, c.Timeout = e.Machine.DNSWait, 2*e.Machine.DNSWait
	}
	return c
}

// dialName connects to a host by our own resolver.
func (e *env) dialName(ctx context.Context, network, address string) (net.Conn, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	addrs := []netip.Addr{}
	if a, err := netip.ParseAddr(host); err == nil {
		addrs = append(addrs, a)
	} else {
		dns := e.dns(dnssec.TrustAlways)
		a, errA := dns.LookupA(ctx, host)
		aaaa, errAAAA := dns.LookupAAAA(ctx, host)
		addrs = append(append(addrs, a.Records...), aaaa.Records...)
		if err := errors.Join(errA, errAAAA); err != nil && len(addrs) == 0 {
			return nil, err
		}
	}
	last := errors.New(host + " has no address")
	for _, a := range addrs[:min(len(addrs), 4)] {
		conn, err := e.dial(ctx, network, netip.AddrPortFrom(a, 0).Addr().String(), port)
		if err == nil {
			return conn, nil
		}
		last = err
	}
	return nil, last
}

func (e *env) dial(ctx context.Context, network, host, port string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialLimit)
	defer cancel()
	return e.Machine.Dial(ctx, network, net.JoinHostPort(host, port))
}

// checkNetwork tries the ways out: DNS, https for policies, SMTP for probes and the
// delivery fallback. Without a network everything here is a warning.
func checkNetwork(ctx context.Context, e *env) []Finding {
	var dns, web, mail Finding
	var g sync.WaitGroup
	g.Go(func() { dns = e.reachDNS(ctx) })
	g.Go(func() { web = e.reachWeb(ctx) })
	g.Go(func() { mail = e.reachMail(ctx) })
	g.Wait()
	return []Finding{dns, web, mail}
}

// rootServers are those of A and L, whose addresses are for ever (RFC 7720, root.hints).
var rootServers = [...]string{"198.41.0.4", "199.7.83.42"}

// reachDNS: a resolver on this machine asks others at port 53.
func (e *env) reachDNS(ctx context.Context) Finding {
	var last error
	for _, server := range rootServers {
		conn, err := e.dial(ctx, "tcp", server, "53")
		if err == nil {
			conn.Close()
			return ok("port 53 (DNS) is open to the outside")
		}
		last = err
	}
	if e.resolves(ctx) {
		return hint("port 53 (DNS) is closed to the outside, but the resolver answers", "nothing, if your resolver forwards to another one that validates; else open port 53, UDP and TCP")
	}
	return warning("port 53 (DNS) is closed to the outside: "+reason(last), "open port 53, UDP and TCP, to the outside")
}

func (e *env) resolves(ctx context.Context) bool {
	for _, domain := range append(e.STSDomains[:len(e.STSDomains):len(e.STSDomains)], e.DANEDomains...) {
		if _, err := e.dns(dnssec.TrustAlways).LookupMX(ctx, domain); err == nil {
			return true
		}
	}
	return false
}

func (e *env) reachWeb(ctx context.Context) Finding {
	_, host, err := e.skew(ctx)
	switch {
	case err == nil:
		return ok("https reaches " + host)
	case e.absent(ctx, e.STSDomains[0]):
		return hint("https was not tried: there is no "+e.STSDomains[0]+", says the resolver", nameSTSDomain)
	}
	return warning("https does not reach the policy hosts of "+strings.Join(e.STSDomains, ", ")+": "+reason(err), "curl -v https://mta-sts."+e.STSDomains[0]+"/.well-known/mta-sts.txt   (open port 443 to the outside; policies cannot be fetched without)")
}

const nameSTSDomain = "name a domain that has a policy with --sts-domain"

// absent reports whether the resolver denies our own choice of a domain, as that of a
// closed network does: what is tried with it says nothing then. One that was named is
// missed.
func (e *env) absent(ctx context.Context, domain string) bool {
	if domain != DefaultSTSDomain {
		return false
	}
	mx, err := e.dns(dnssec.TrustAlways).LookupMX(ctx, domain)
	return err == nil && mx.Status == dnssec.NXDomain
}

// reachMail wants a greeting: some providers have a wall accept connections.
func (e *env) reachMail(ctx context.Context) Finding {
	var last error // that of a connection tells more than that of a lookup
	var unknown error
	for _, domain := range append(e.STSDomains[:len(e.STSDomains):len(e.STSDomains)], e.DANEDomains...) {
		mx, err := e.dns(dnssec.TrustAlways).LookupMX(ctx, domain)
		if err != nil || len(mx.Records) == 0 {
			unknown = errors.New("the MX hosts of " + domain + " cannot be found")
			continue
		}
		host := mx.Records[0].Host
		if err := e.greeted(ctx, host); err != nil {
			last = err
			continue
		}
		return ok("port 25 (SMTP) is open to the outside: " + host + " answers")
	}
	if last == nil && e.absent(ctx, e.STSDomains[0]) {
		return hint("port 25 (SMTP) was not tried: "+unknown.Error(), nameSTSDomain)
	}
	if last == nil {
		last = unknown
	}
	what := "probes of MX hosts cannot work"
	if e.Config.Delivers() {
		what = "neither probes of MX hosts nor the delivery fallback can work"
	}
	return warning("port 25 (SMTP) is closed to the outside, "+what+": "+reason(last), "ask your provider to open port 25; until then set reporting.probe = false, and leave delivery.* out")
}

func (e *env) greeted(ctx context.Context, host string) error {
	conn, err := e.dialName(ctx, "tcp", net.JoinHostPort(host, "25"))
	if err != nil {
		return err
	}
	defer conn.Close()
	conn.SetReadDeadline(time.Now().Add(dialLimit))
	line, err := bufio.NewReaderSize(conn, 512).ReadSlice('\n')
	if err != nil {
		return errors.New(host + " accepts the connection, but does not greet")
	}
	if !strings.HasPrefix(string(line), "220") {
		return errors.New(host + " greets with " + strings.TrimSpace(string(line)))
	}
	return nil
}

// reason is the first line of an error, without what the caller says in other words.
func reason(err error) string {
	if err == nil {
		return "no answer"
	}
	if u, isURL := errors.AsType[*url.Error](err); isURL {
		err = u.Err
	}
	if op, isOp := errors.AsType[*net.OpError](err); isOp {
		err = op.Err
	}
	line, _, _ := strings.Cut(err.Error(), "\n")
	return line
}

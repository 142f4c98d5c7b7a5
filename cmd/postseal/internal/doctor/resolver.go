package doctor

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"

	"postseal/cmd/postseal/internal/host"
	"postseal/policy/dnssec"
)

const installResolver = `apt-get install unbound; echo "nameserver 127.0.0.1" > /etc/resolv.conf; echo "options edns0 trust-ad" >> /etc/resolv.conf`

// checkResolver asks each resolver names that are signed, unsigned and wrongly signed,
// as the daemon's self-test does (RFC 7672 §2.1.1).
func checkResolver(ctx context.Context, e *env) []Finding {
	if e.Config.DNS.TrustAD == "never" {
		return []Finding{hint(`dns.trust_ad is "never": DANE is off`, `dns.trust_ad = "auto", with a validating resolver on this machine`)}
	}
	servers := e.resolvers()
	found := make([][]Finding, len(servers))
	var g sync.WaitGroup
	for i, s := range servers {
		g.Go(func() { found[i] = e.tryResolver(ctx, s) })
	}
	g.Wait()
	all := slices.Concat(found...)
	if trust, _ := e.Config.TrustAD(); trust == dnssec.TrustAuto {
		for _, s := range servers {
			if !loopback(s) {
				all = append(all, warning("resolver "+s+" is not on this machine: DANE is off, since anybody on the way can forge its answers", installResolver+`   (or, if nobody can write to that path: dns.trust_ad = "always")`))
			}
		}
	}
	return all
}

// resolvers are the addresses that the daemon asks.
func (e *env) resolvers() []string {
	if list := e.Config.Resolvers(); len(list) > 0 {
		return list
	}
	conf, err := e.Machine.ReadResolvConf(host.ResolvConfFile)
	if err != nil {
		conf = host.ResolvConf{} // one on this machine is asked then
	}
	var list []string
	for _, s := range conf.Asked() {
		list = append(list, net.JoinHostPort(s, "53"))
	}
	return list
}

// loopback is what dns.trust_ad = "auto" believes.
func loopback(server string) bool {
	address, _, err := net.SplitHostPort(server)
	return err == nil && host.OnMachine(address)
}

// tried is what a resolver did with one name.
type tried struct {
	name           string
	answer, secure bool
	denied         bool // "no such name", without a proof
	err            error
}

func (e *env) tryResolver(ctx context.Context, server string) []Finding {
	dns := e.dns(dnssec.TrustAlways)
	dns.Servers = []string{server}
	test := e.Config.DNS
	names := append(slices.Clone(test.SelfTestSigned), test.SelfTestUnsigned, test.SelfTestBogus)
	seen := make([]tried, len(names))
	var g sync.WaitGroup
	for i, name := range names {
		g.Go(func() {
			a, err := dns.LookupA(ctx, name)
			seen[i] = tried{name: name, answer: err == nil && a.Status == dnssec.Found, secure: a.Secure,
				denied: err == nil && a.Status == dnssec.NXDomain && !a.Secure, err: err}
		})
	}
	g.Wait()
	n := len(test.SelfTestSigned)
	return judge(server, seen[:n], seen[n], seen[n+1])
}

// judge draws the conclusion of the self-test, with the same care: only proof counts.
func judge(server string, signed []tried, unsigned, bogus tried) []Finding {
	answered, secure := 0, 0
	var plain []string
	for _, s := range signed {
		if s.answer {
			answered++
			if s.secure {
				secure++
			} else {
				plain = append(plain, s.name)
			}
		}
	}
	do := "a validating resolver: " + installResolver
	switch {
	case answered == 0 && !unsigned.answer && unsigned.err == nil:
		return []Finding{warning(fmt.Sprintf("resolver %s says that there is no %s: it does not know the internet", server, unsigned.name), "dig @"+strings.TrimSuffix(server, ":53")+" "+unsigned.name)}
	case answered == 0 && !unsigned.answer:
		return []Finding{warning(fmt.Sprintf("resolver %s does not answer: %s", server, reason(unsigned.err)), "systemctl status unbound; dig @"+strings.TrimSuffix(server, ":53")+" "+unsigned.name+"   (without it all mail to other domains waits or goes unprotected)")}
	case bogus.answer || bogus.denied:
		return []Finding{failure(fmt.Sprintf("resolver %s does not validate: it answers for %s, whose signatures are wrong", server, bogus.name), do)}
	case unsigned.answer && unsigned.secure:
		return []Finding{failure(fmt.Sprintf("resolver %s claims that %s is authentic, which is not signed", server, unsigned.name), do)}
	case secure == 0 && len(plain) > 0:
		return []Finding{failure(fmt.Sprintf("resolver %s does not authenticate %s, which is signed: no DANE", server, strings.Join(plain, " and ")), do)}
	case secure == 0:
		return []Finding{hint(fmt.Sprintf("whether resolver %s validates cannot be told: it does not answer for the signed names", server), "dig +dnssec "+signed[0].name)}
	}
	return []Finding{ok(fmt.Sprintf("resolver %s validates", server))}
}

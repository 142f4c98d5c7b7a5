package setup

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"runtime"
	"strings"
	"time"

	"postseal/cmd/postseal/internal/config"
	"postseal/cmd/postseal/internal/host"
	"postseal/policy/dnssec"
)

// Long enough for the questions of the self-test to servers far away, asked side by
// side, and for a resolver that starts with an empty cache.
const maxSelfTest = 15 * time.Second

// Answers to the option that overrides the test of the resolver.
const (
	DANEAuto = "auto"
	DANEYes  = "yes"
	DANENo   = "no"
)

// DANE says whether the mail server itself can do DANE with the resolvers that its C
// library uses, and has the plan say why not. They are tested with the names of the
// daemon. libc says whether the mail server asks through that library.
func (p *Plan) DANE(ctx context.Context, s *host.System, daemon *config.Config, o Options, libc bool) (bool, error) {
	switch o.DANE {
	case DANEYes:
		p.Saw("DANE by the mail server itself, as demanded")
		return true, nil
	case DANENo:
		p.Saw("no DANE by the mail server itself, as demanded")
		return false, nil
	}
	conf, err := s.ReadResolvConf(host.ResolvConfFile)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, err
	}
	servers := conf.Asked()
	ok, why := o.trusted(ctx, daemon, servers, conf.TrustAD || !libc || runtime.GOOS != "linux")
	if ok {
		p.Saw("resolver %s: validates, and its word may be taken", strings.Join(servers, ", "))
		return true, nil
	}
	p.Saw("resolver %s: no DANE by the mail server itself, since %s", strings.Join(servers, ", "), why)
	return false, nil
}

// trusted says whether the AD bit of the servers means something to who asks them.
func (o *Options) trusted(ctx context.Context, daemon *config.Config, servers []string, passedOn bool) (bool, string) {
	for _, server := range servers {
		if !host.OnMachine(server) {
			return false, server + " is not on this machine, and whoever is on the path could forge its answers; run a validating resolver here, such as unbound"
		}
	}
	if !passedOn {
		return false, host.ResolvConfFile + ` lacks "options edns0 trust-ad", without which the C library hides what was validated`
	}
	if o.Validates != nil {
		return o.Validates(ctx, servers)
	}
	return validates(ctx, testNames(daemon), servers)
}

// testNames are those of the daemon's self-test, or the usual ones where it makes none:
// a site whose resolvers know other names only gets the same verdict from both.
func testNames(daemon *config.Config) dnssec.SelfTest {
	if daemon.DNS.SelfTest {
		return daemon.SelfTest()
	}
	return config.Default().SelfTest()
}

// validates makes the self-test of the daemon.
func validates(ctx context.Context, names dnssec.SelfTest, servers []string) (bool, string) {
	ctx, cancel := context.WithTimeout(ctx, maxSelfTest)
	defer cancel()
	client := &dnssec.Client{SelfTest: names}
	for _, server := range servers {
		client.Servers = append(client.Servers, net.JoinHostPort(server, "53"))
	}
	v := client.Test(ctx)
	switch {
	case !v.On:
		return false, v.Reason
	case v.Reason != "": // another server is not used, or nothing was proven
		return false, "it is not known whether it validates (" + v.Reason + ")"
	}
	return true, ""
}

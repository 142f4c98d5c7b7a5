package doctor

import (
	"context"
	"errors"
	"io/fs"
	"net/netip"
	"path"
	"slices"
	"strings"
)

// resolvConf is what a mail server's C library reads (resolv.conf(5)).
type resolvConf struct {
	servers []netip.Addr
	options []string
}

func (e *env) readResolvConf(file string) (resolvConf, error) {
	var c resolvConf
	text, err := e.Machine.read(file)
	if err != nil {
		return c, err
	}
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		if len(fields) < 2 {
			continue
		}
		switch fields[0] {
		case "nameserver":
			if a, err := netip.ParseAddr(fields[1]); err == nil {
				c.servers = append(c.servers, a)
			}
		case "options":
			c.options = append(c.options, fields[1:]...)
		}
	}
	return c, nil
}

// checkResolvConf: a mail server that does DANE itself asks the resolver of
// resolv.conf. glibc from 2.31 on clears AD unless "trust-ad" stands there: then Exim
// and Postfix drop DANE without a word. A chrooted Postfix reads a copy.
func checkResolvConf(_ context.Context, e *env) []Finding {
	if !e.Config.Host.DANE || e.postfix == nil && e.exim == nil {
		return nil
	}
	const main = "/etc/resolv.conf"
	conf, err := e.readResolvConf(main)
	if err != nil {
		return []Finding{failure(main+" cannot be read: "+reason(err), `echo "nameserver 127.0.0.1" > /etc/resolv.conf`)}
	}
	found := e.trusting(main, conf)
	found = append(found, e.sameResolver(conf)...)
	if e.postfix != nil && e.postfix.chrooted("smtp") {
		found = append(found, e.chrootCopy(main, conf)...)
	}
	if len(found) == 0 {
		found = append(found, ok(main+" lets the mail server see what is authentic"))
	}
	return found
}

func (e *env) trusting(file string, conf resolvConf) []Finding {
	if slices.Contains(conf.options, "trust-ad") {
		return nil
	}
	return []Finding{failure(file+` lacks "options edns0 trust-ad": the C library hides from the mail server what was validated, and DANE is off without a word`,
		`echo "options edns0 trust-ad" >> `+file+`   (with systemd-resolved or resolvconf: in their configuration); or host.dane = false`)}
}

// sameResolver: what the daemon calls secure the mail server must be able to verify.
func (e *env) sameResolver(conf resolvConf) []Finding {
	var found []Finding
	for _, s := range conf.servers {
		if !loopback(netip.AddrPortFrom(s, 53).String()) && e.Config.DNS.TrustAD != "always" {
			found = append(found, warning("the mail server asks "+s.String()+", which is not on this machine: anybody on the way can forge what DANE rests on", installResolver))
		}
	}
	if own := e.Config.Resolvers(); len(own) > 0 {
		for _, s := range conf.servers {
			if !slices.Contains(own, netip.AddrPortFrom(s, 53).String()) {
				found = append(found, hint("the mail server asks "+s.String()+", postseal asks "+strings.Join(own, ", ")+" (dns.servers)", "the same resolver in /etc/resolv.conf and in dns.servers"))
				break
			}
		}
	}
	return found
}

func (e *env) chrootCopy(main string, conf resolvConf) []Finding {
	file := path.Join(e.postfix.get("queue_directory"), main)
	cp := "cp " + main + " " + file + "; postfix reload"
	inside, err := e.readResolvConf(file)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return []Finding{failure("smtp(8) is chrooted, and there is no "+file+": it asks 127.0.0.1 and trusts nothing", "mkdir -p "+path.Dir(file)+"; "+cp)}
	case err != nil:
		return []Finding{hint(file+" cannot be read: "+reason(err), "sudo postseal doctor")}
	case !slices.Equal(inside.servers, conf.servers):
		return []Finding{failure("smtp(8) is chrooted, and "+file+" names other resolvers than "+main, cp)}
	case !slices.Contains(inside.options, "trust-ad") && slices.Contains(conf.options, "trust-ad"):
		return []Finding{failure("smtp(8) is chrooted, and "+file+` lacks "options trust-ad", which `+main+" has: DANE is off without a word", cp)}
	}
	return nil
}

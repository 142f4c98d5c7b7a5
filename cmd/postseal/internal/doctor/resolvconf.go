package doctor

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"path"
	"slices"
	"strings"

	"postseal/cmd/postseal/internal/host"
)

// checkResolvConf: a mail server that does DANE itself asks the resolver of
// resolv.conf. glibc from 2.31 on clears AD unless "trust-ad" stands there: then Exim
// and Postfix drop DANE without a word. A chrooted Postfix reads a copy. Sendmail 8.18
// was seen to do DANE without it.
func checkResolvConf(_ context.Context, e *env) []Finding {
	if !e.Config.Host.DANE || e.postfix == nil && e.exim == nil {
		return nil
	}
	const main = host.ResolvConfFile
	conf, err := e.Machine.ReadResolvConf(main)
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

func (e *env) trusting(file string, conf host.ResolvConf) []Finding {
	if conf.TrustAD {
		return nil
	}
	return []Finding{failure(file+` lacks "options edns0 trust-ad": the C library hides from the mail server what was validated, and DANE is off without a word`,
		`echo "options edns0 trust-ad" >> `+file+`   (with systemd-resolved or resolvconf: in their configuration); or host.dane = false`)}
}

// sameResolver: what the daemon calls secure the mail server must be able to verify.
func (e *env) sameResolver(conf host.ResolvConf) []Finding {
	var found []Finding
	for _, s := range conf.Servers {
		if !host.OnMachine(s) && e.Config.DNS.TrustAD != "always" {
			found = append(found, warning("the mail server asks "+s+", which is not on this machine: anybody on the way can forge what DANE rests on", installResolver))
		}
	}
	if own := e.Config.Resolvers(); len(own) > 0 {
		for _, s := range conf.Servers {
			if !slices.Contains(own, net.JoinHostPort(s, "53")) {
				found = append(found, hint("the mail server asks "+s+", postseal asks "+strings.Join(own, ", ")+" (dns.Servers)", "the same resolver in /etc/resolv.conf and in dns.Servers"))
				break
			}
		}
	}
	return found
}

func (e *env) chrootCopy(main string, conf host.ResolvConf) []Finding {
	file := path.Join(e.postfix.get("queue_directory"), main)
	cp := "cp " + main + " " + file + "; postfix reload"
	inside, err := e.Machine.ReadResolvConf(file)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return []Finding{failure("smtp(8) is chrooted, and there is no "+file+": it asks 127.0.0.1 and trusts nothing", "mkdir -p "+path.Dir(file)+"; "+cp)}
	case err != nil:
		return []Finding{hint(file+" cannot be read: "+reason(err), "sudo postseal doctor")}
	case !slices.Equal(inside.Servers, conf.Servers):
		return []Finding{failure("smtp(8) is chrooted, and "+file+" names other resolvers than "+main, cp)}
	case !inside.TrustAD && conf.TrustAD:
		return []Finding{failure("smtp(8) is chrooted, and "+file+` lacks "options trust-ad", which `+main+" has: DANE is off without a word", cp)}
	}
	return nil
}

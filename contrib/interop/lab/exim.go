package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"regexp"
	"strings"
)

// Where Exim is, and its daemon.
const (
	eximAddress = "127.0.25.12"
	eximDaemon  = "127.0.0.12"
)

// eximOpenSSL is the chroot with an Exim that is built with OpenSSL; Debian's has GnuTLS.
const eximOpenSSL = "exim-openssl"

// An alias of Exim's own that leads out of the host.
const (
	eximAlias = "outward"
	eximAim   = "alias"
)

// newExim configures Exim, the way Debian's split configuration is meant to be
// extended, and starts it with a daemon of its own.
func newExim(ctx context.Context, l *lab) (o *other, err error) {
	if o, err = newOther(l, "exim", l.eximRoot, eximAddress); err != nil {
		return nil, err
	}
	o.parse, o.hands = eximAttempts, "postseal_lmtp"
	o.flush = []string{"exim4", "-qff"}
	o.mainlog = filepath.Join(o.root, "var/log/exim4/mainlog")
	if o.daemon, err = newDaemon(l.folder, l.postseal, "daemon-exim", validating, eximDaemon, nil); err != nil {
		return nil, err
	}
	if err := o.daemon.start(ctx); err != nil {
		return nil, err
	}
	const files = "/usr/share/postseal/exim/"
	err = o.write(map[string]string{
		"etc/aliases":                      eximAlias + ": " + eximAim + "@" + byName("rt-dane").domain() + "\n",
		"etc/exim4/update-exim4.conf.conf": eximDebian(o.domain),
		"etc/exim4/conf.d/main/00_postseal": l.eximMacros(o.domain) + ".include " + files + "main\n" +
			"CHECK_DATA_LOCAL_ACL_FILE = " + files + "acl_data\n",
		"etc/exim4/conf.d/acl/50_postseal":       ".include " + files + "acl\n",
		"etc/exim4/conf.d/router/190_postseal":   ".include " + files + "routers\n",
		"etc/exim4/conf.d/transport/40_postseal": ".include " + files + "transports\n",
	})
	if err != nil {
		return nil, err
	}
	err = o.prepare(ctx, `
		rm -rf /var/spool/exim4/input /var/spool/exim4/msglog /var/spool/exim4/db/* /var/log/exim4/*
		update-exim4.conf`)
	if err != nil {
		return nil, err
	}
	return o, errors.Join(l.eximBuild(ctx, o), o.start(ctx, "exim4", "-bdf"))
}

// eximBuild makes sure that Exim is built with the library that the run is about.
func (l *lab) eximBuild(ctx context.Context, o *other) error {
	library := "GnuTLS"
	if l.eximRoot == eximOpenSSL {
		library = "OpenSSL"
	}
	text, err := o.run(ctx, "exim4", "-bV")
	if err == nil && !strings.Contains(text, " "+library+" ") {
		err = fmt.Errorf("%s is not built with %s: %s", o.name, library, text)
	}
	return err
}

// eximDebian answers the questions of the package.
func eximDebian(domain string) string {
	return `dc_eximconfig_configtype='internet'
dc_other_hostnames='` + domain + `'
dc_local_interfaces='` + eximAddress + `'
dc_readhost=''
dc_relay_domains=''
dc_minimaldns='false'
dc_relay_nets='127.0.0.0/8'
dc_smarthost=''
CFILEMODE='644'
dc_use_split_config='true'
dc_hide_mailname=''
dc_mailname_in_oh='true'
dc_localdelivery='mail_spool'
`
}

// eximMacros is what the lab changes, by macros alone: addresses, the authority,
// and that MX hosts may be on loopback. OpenSSL has no use for GnuTLS's priorities.
func (l *lab) eximMacros(domain string) string {
	ciphers := "POSTSEAL_CIPHERS = NORMAL:-VERS-TLS1.0:-VERS-TLS1.1\n"
	if l.eximRoot == eximOpenSSL {
		ciphers = ""
	}
	return ciphers + `POSTSEAL_LINE = inet:` + eximDaemon + `:8464
POSTSEAL_HOST = ` + eximDaemon + `
POSTSEAL_CA = /etc/ssl/postseal-lab-ca.pem
POSTSEAL_IGNORE = 192.0.2.0/24
POSTSEAL_TRUSTED = 127.0.0.0/24
POSTSEAL_EVENTS = yes
REMOTE_SMTP_INTERFACE = ` + eximAddress + `
MAIN_HARDCODE_PRIMARY_HOSTNAME = ` + domain + `
MAIN_HOST_LOOKUP =
disable_ipv6 = true
`
}

var eximLine = regexp.MustCompile(`^\S+ \S+ \S+ (=>|->|==|\*\*) (\S+)(?: \(\S+\))?(?: <(\S+)>)? (.*)`)

// eximStatus is what the arrows of the log mean (Exim specification §53.5).
var eximStatus = map[string]string{"=>": "sent", "->": "sent", "==": "deferred", "**": "bounced"}

var eximVia = regexp.MustCompile(`\b[RT]=(\S+)`)

// eximAttempts reads Exim's main log. The recipient as it was given stands in
// angle brackets where the address has changed.
func eximAttempts(log string) []attempt {
	var all []attempt
	for line := range strings.Lines(log) {
		l := eximLine.FindStringSubmatch(strings.TrimSpace(line))
		if l == nil {
			continue
		}
		a := attempt{recipient: l[2], status: eximStatus[l[1]], text: l[0]}
		if l[3] != "" {
			a.recipient = l[3]
		}
		for _, via := range eximVia.FindAllStringSubmatch(l[4], -1) {
			a.via = via[1] // the transport, which stands behind the router
		}
		all = append(all, a)
	}
	return all
}

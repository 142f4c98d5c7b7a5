package main

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Ports of a Postfix beside 25.
const (
	relayPort    = "10026" // the milter-free smtpd for what the daemon gives back; the number is that of contrib/postfix
	untaggedPort = "2525"  // a smtpd without milter, which leaves REQUIRETLS to Postfix
	proxyPort    = "2526"  // a smtpd with a before-queue filter
	addedPort    = "2527"  // a smtpd with the milter of nativeMilter
	adderPort    = "2528"  // that milter
)

// mailFolder is where mail for localDomain ends, in the chroot.
const mailFolder = "/var/mail/lab"

// configure writes the configuration: what contrib/postfix has for administrators,
// read from there, and behind it what the lab needs.
func (p *postfix) configure(ctx context.Context) error {
	if err := os.MkdirAll(p.socketFolder(), 0o755); err != nil {
		return err
	}
	main, err := p.mainConfig()
	if err != nil {
		return err
	}
	master, err := p.masterConfig()
	if err != nil {
		return err
	}
	checks, err := p.snippet("milter_header_checks")
	if err != nil {
		return err
	}
	files := map[string]string{
		"etc/resolv.conf":                           "nameserver " + validating + "\noptions trust-ad edns0\n", // without trust-ad, libc hides AD and DANE is off
		"etc/hosts":                                 "127.0.0.1 localhost\n",
		"etc/postfix/main.cf":                       main,
		"etc/postfix/master.cf":                     master,
		"etc/postfix/postseal_milter_header_checks": checks,
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(p.root, name), []byte(text), 0o644); err != nil {
			return err
		}
	}
	commands := `
		postfix check
		install -o postfix /dev/null /var/log/postfix.log
		rm -rf ` + mailFolder + `
		install -d -o nobody ` + mailFolder + `
		postsuper -d ALL` // what an earlier run has left
	if p.older {
		// Copies resolv.conf and the like into the queue directory, where chrooted
		// processes look. Debian does this before each start; later versions by themselves.
		commands += "\n/usr/lib/postfix/configure-instance.sh -"
	}
	_, err = p.run(ctx, "sh", "-ec", commands)
	return err
}

// reconfigure adds settings to main.cf, in place of those that an earlier call has
// added.
func (p *postfix) reconfigure(ctx context.Context, settings ...string) error {
	p.extra = settings
	main, err := p.mainConfig()
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(p.root, "etc/postfix/main.cf"), []byte(main), 0o644); err != nil {
		return err
	}
	_, err = p.run(ctx, "postfix", "reload")
	return err
}

// snippet reads a file of contrib/postfix.
func (p *postfix) snippet(name string) (string, error) {
	text, err := os.ReadFile(filepath.Join(p.snippets, name))
	return string(text), err
}

// mainConfig is main.cf. A few parameters of contrib/postfix are set again for the
// lab.
func (p *postfix) mainConfig() (string, error) {
	level, names := "3.6", []string{"main.cf"}
	if !p.older {
		level, names = "3.10", append(names, "main_3.10.cf")
	}
	if p.native {
		names = append(names, "main_3.11.cf")
	}
	var text string
	for _, name := range names {
		part, err := p.snippet(name)
		if err != nil {
			return "", err
		}
		text += part + "\n"
	}
	return lastOnly(text + `
# What the lab needs.
smtp_tls_CAfile = /etc/ssl/postseal-lab-ca.pem
transport_maps = inline:{lab.test=discard:}, $postseal_transport

compatibility_level = ` + level + `
maillog_file = /var/log/postfix.log
myhostname = ` + p.suite + `.lab.test
mydestination =
alias_maps =
inet_interfaces = ` + p.address + `
inet_protocols = ipv4
smtp_bind_address = ` + p.address + `
mynetworks = 127.0.0.0/8
smtpd_relay_restrictions = permit_mynetworks, reject
smtpd_peername_lookup = no
smtpd_tls_security_level = may
smtpd_tls_chain_files = /etc/ssl/postseal-lab-server.pem
virtual_mailbox_domains = ` + localDomain + `
virtual_mailbox_base = ` + mailFolder + `
virtual_mailbox_maps = static:inbox/
virtual_uid_maps = static:65534
virtual_gid_maps = static:65534
notify_classes =
# The default asks for the root, which the lab does not have.
dnssec_probe = ns:` + string(signed) + `
# A resumed session is not verified against a changed policy.
smtp_tls_session_cache_database =
minimal_backoff_time = 1s
smtp_connect_timeout = 5s
` + strings.Join(p.extra, "\n") + "\n"), nil
}

// lastOnly drops parameters that are set again further down. Postfix itself would
// take the last one, with a warning from every process.
func lastOnly(config string) string {
	lines := strings.Split(config, "\n")
	seen := map[string]bool{}
	for i, line := range slices.Backward(lines) {
		name, _, isSetting := strings.Cut(line, " =")
		if !isSetting || strings.HasPrefix(line, "#") {
			continue
		}
		if seen[name] {
			lines[i] = "# " + line + " (set again below)"
		}
		seen[name] = true
	}
	return strings.Join(lines, "\n")
}

// masterConfig is master.cf: what Debian has, the services of contrib/postfix with
// the address of this Postfix, and the lab's own.
func (p *postfix) masterConfig() (string, error) {
	debian, err := os.ReadFile(filepath.Join(p.root, "usr/share/postfix/master.cf.dist"))
	if err != nil {
		return "", err
	}
	ours, err := p.snippet("master.cf")
	if err != nil {
		return "", err
	}
	return string(debian) + strings.ReplaceAll(ours, "127.0.0.1:"+relayPort, p.address+":"+relayPort) + `
# What the lab needs.
` + p.address + ":" + untaggedPort + ` inet n - n - - smtpd
    -o smtpd_milters=
    -o receive_override_options=no_milters
` + p.address + ":" + proxyPort + ` inet n - n - - smtpd
    -o smtpd_milters=
    -o receive_override_options=no_milters
    -o smtpd_proxy_filter=` + p.address + ":" + untaggedPort + `
` + p.address + ":" + addedPort + ` inet n - n - - smtpd
    -o smtpd_milters=inet:` + p.address + ":" + adderPort + `
tlsproxy unix - - n - 0 tlsproxy
`, nil
}

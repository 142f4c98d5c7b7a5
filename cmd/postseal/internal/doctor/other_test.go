package doctor_test

import (
	"regexp"
	"slices"
	"strings"
	"testing"

	"postseal/cmd/postseal/internal/doctor"
	"postseal/contrib/sendmail"
)

// newExim is Exim 4.96 of Debian beside postseal, as exim -bP config prints it.
func newExim(t *testing.T) *bed {
	b := newBed(t)
	delete(b.files, "/etc/postfix/main.cf")
	b.files["/etc/exim4/exim4.conf"] = "# "
	b.users["Debian-exim"] = doctor.Account{Name: "Debian-exim", UID: stranger, GIDs: []uint32{stranger}}
	b.outputs = map[string]string{
		"exim4 -bV":           "Exim version 4.96 #2 built 27-May-2026 16:52:26\nSupport for: crypteq iconv() IPv6 GnuTLS TLS_resume DANE\n",
		"exim4 -bP exim_user": "exim_user = Debian-exim\n",
		"exim4 -bP config": `POSTSEAL_LINE = inet:127.0.0.1:8464
MAIN_LOG_SELECTOR = +tls_cipher +incoming_interface +outgoing_interface +outgoing_port
dns_dnssec_ok = 1
log_selector = +tls_cipher +incoming_interface +outgoing_interface +outgoing_port
begin routers
    address_data = ${readsocket{inet:127.0.0.1:8464}{policy $acl_m_postseal_relaxed ${lc:$domain}\n}{5s}{}{v=1 mode=defer}}
begin transports
    hosts_try_dane = *
    tls_require_ciphers = NORMAL:-VERS-TLS1.0:-VERS-TLS1.1
`,
	}
	b.conf("[milter]\nlisten = [\"unix:/var/spool/postfix/postseal/milter.sock\"]\n", "[exim]\nlisten = [\"tcp:127.0.0.1:8464\"]\n")
	b.conf(`format = "postfix"`, `format = "exim"`)
	b.hosts["tcp 127.0.0.1:8464"] = listener{}
	return b
}

const events = "    event_action = ${if inlist{$event_name}{x}{${readsocket{inet:127.0.0.1:8464}{event n=$event_name\\n}}}}\n"

func TestExim(t *testing.T) {
	exim := func(old, replacement string) func(*bed) {
		return func(b *bed) {
			b.outputs["exim4 -bP config"] = replace(b.t, b.outputs["exim4 -bP config"], old, replacement)
		}
	}
	provoke(t, []row{
		{"as it should be", func(*bed) {}, doctor.OK, "exim", "Exim version 4.96", ""},
		{"not an administrator", func(b *bed) { b.outputs["exim4 -bP config"] = "" }, doctor.Warning, "configuration", "exim cannot be looked at", "as root"},
		{"half made: no listener", func(b *bed) { b.conf(`listen = ["tcp:127.0.0.1:8464"]`, "") }, doctor.Error, "exim", "Exim asks postseal, but exim.listen is not set", "exim.listen = "},
		{"neither half", func(b *bed) {
			b.conf(`listen = ["tcp:127.0.0.1:8464"]`, "")
			exim("POSTSEAL_LINE", "OTHER")(b)
		}, doctor.Error, "exim", "does not ask postseal", "contrib/exim"},
		{"asks elsewhere", exim("127.0.0.1:8464", "127.0.0.1:9999"), doctor.Error, "exim", "Exim's configuration does not name it", "contrib/exim"},
		{"no DANE", exim("hosts_try_dane = *", "hosts_try_dane ="), doctor.Error, "exim", "hosts_try_dane", "host.dane = false"},
		{"no DNSSEC", exim("dns_dnssec_ok = 1\n", ""), doctor.Warning, "exim", "dns_dnssec_ok is not 1", "dns_dnssec_ok = 1"},
		{"no trust-ad", func(b *bed) { b.files["/etc/resolv.conf"] = "nameserver 127.0.0.1\n" }, doctor.Error, "resolv.conf", "trust-ad", "echo"},
		{"half made: no event_action", func(b *bed) {
			b.conf("[reporting]\n", "[reporting]\nexim_events = true\n")
			b.conf(`format = "exim"`, "format = \"exim\"\nsessions = \"missing\"")
		}, doctor.Error, "exim", "no transport of Exim has the event_action", "POSTSEAL_EVENTS = yes"},
		{"half made: events to nobody", exim("begin transports\n", "begin transports\n"+events), doctor.Hint, "exim", "reporting.exim_events is false", "exim_events = true"},
		{"events without listener", func(b *bed) {
			b.conf(`listen = ["tcp:127.0.0.1:8464"]`, "")
			b.conf("[reporting]\n", "[reporting]\nexim_events = true\n")
			b.conf(`format = "exim"`, "format = \"exim\"\nsessions = \"missing\"")
		}, doctor.Warning, "configuration", "reporting.exim_events is true, but exim.listen is not set", "change"},
		{"GnuTLS", exim("    tls_require_ciphers = NORMAL:-VERS-TLS1.0:-VERS-TLS1.1\n", ""), doctor.Hint, "exim", "built with GnuTLS, which still takes TLS 1.0", "POSTSEAL_CIPHERS"},
		{"OpenSSL", func(b *bed) {
			b.outputs["exim4 -bV"] = "Exim version 4.96\nSupport for: OpenSSL DANE\n"
			b.config = b.config[:strings.Index(b.config, "[delivery]")] + b.config[strings.Index(b.config, "[reporting]"):]
		}, doctor.Hint, "exim", "version 4.96 crashes", "delivery.listen"},
		{"log selector", exim("log_selector = +tls_cipher +incoming_interface +outgoing_interface", "log_selector = +tls_cipher +outgoing_interface"), doctor.Warning, "logs", "log_selector lacks +incoming_interface", "log_selector = "},
	}, newExim)
}

// newSendmail is Sendmail 8.18 of Debian beside postseal.
func newSendmail(t *testing.T) *bed {
	b := newBed(t)
	delete(b.files, "/etc/postfix/main.cf")
	b.files["/etc/mail/sendmail.cf"] = `# sendmail.cf
DZ8.18.1/Debian-6
D{postseal_rules}2
O CACertFile=/etc/ssl/certs/ca-certificates.crt
O CACertPath=/etc/ssl/certs
O LogLevel=12
O DANE=true
O RunAsUser=smmta:smmta
Ksts socket -d5 -T<TMPF> inet:8461@127.0.0.1
Kmailertable socket -d5 inet:8461@127.0.0.1
Xpostseal, S=inet:8462@127.0.0.1, F=T, T=C:10s;S:10s;R:30s;E:60s
`
	b.files["/etc/ssl/certs/0a1b2c3d.0"] = authority(t)
	b.users["smmta"] = doctor.Account{Name: "smmta", UID: stranger, GIDs: []uint32{stranger}}
	b.outputs = map[string]string{"sendmail -d0.13 -bt": "Version 8.18.1\n Compiled with: DANE MILTER SOCKETMAP STARTTLS\n FFR Defines: _FFR_MTA_STS _FFR_TLS_ALTNAMES\n"}
	b.conf("listen = [\"unix:/var/spool/postfix/postseal/map.sock\"]", "listen = [\"tcp:127.0.0.1:8461\"]")
	b.conf("listen = [\"unix:/var/spool/postfix/postseal/milter.sock\"]", "listen = [\"tcp:127.0.0.1:8462\"]\nroute = \"recipient\"")
	b.conf(`format = "postfix"`, `format = "sendmail"`)
	b.hosts["tcp 127.0.0.1:8461"] = listener{reply: "9:NOTFOUND ,"}
	b.hosts["tcp 127.0.0.1:8462"] = listener{}
	return b
}

func TestSendmail(t *testing.T) {
	cf := func(old, replacement string) func(*bed) {
		return func(b *bed) {
			b.files["/etc/mail/sendmail.cf"] = replace(b.t, b.files["/etc/mail/sendmail.cf"], old, replacement)
		}
	}
	provoke(t, []row{
		{"as it should be", func(*bed) {}, doctor.OK, "sendmail", "Sendmail asks postseal", ""},
		{"its user", func(b *bed) { b.modes[queue+"/postseal/lmtp.sock"] = 0o600 }, doctor.Error, "sockets", "Sendmail cannot connect to delivery.listen", `delivery.mode = "0660"`},
		{"does not ask", cf("Ksts socket -d5 -T<TMPF> inet:8461@127.0.0.1\n", ""), doctor.Error, "sendmail", "sendmail.cf has no map sts", "postseal.m4"},
		{"asks elsewhere", cf("-T<TMPF> inet:8461@", "-T<TMPF> inet:5461@"), doctor.Error, "sendmail", "but postseal listens at tcp:127.0.0.1:8461", "POSTSEAL_MAP_PORT"},
		{"half of the rules", cf("D{postseal_rules}2\n", ""), doctor.Error, "sendmail", "has no rules of postseal", "postseal_rules.m4"},
		{"rules of long ago", cf("rules}2", "rules}1"), doctor.Error, "sendmail", "or those of another version", "make -C /etc/mail"},
		{"fails open", cf("-T<TMPF> ", ""), doctor.Error, "sendmail", "the map sts has no -T<TMPF>", "postseal.m4"},
		{"rejects while down", cf("Kmailertable socket -d5", "Kmailertable socket -d5 -T<TMPF>"), doctor.Error, "sendmail", "the map mailertable has -T", "mailertable"},
		{"mailertable of its own", cf("Kmailertable socket -d5 inet:8461@127.0.0.1", "Kmailertable hash /etc/mail/mailertable"), doctor.Hint, "sendmail", "the map mailertable does not ask postseal", "POSTSEAL_RULE_0"},
		{"by rules", cf("Kmailertable socket", "Ktransport socket"), doctor.OK, "sendmail", "Sendmail asks postseal", ""},
		{"no authorities", cf("O CACertFile=/etc/ssl/certs/ca-certificates.crt\nO CACertPath=/etc/ssl/certs\n", ""), doctor.Error, "sendmail", "neither CACertFile nor CACertPath", "confCACERT_PATH"},
		{"no CACertFile", cf("O CACertFile=/etc/ssl/certs/ca-certificates.crt\n", ""), doctor.Error, "sendmail", "CACertPath is set, but not CACertFile: Sendmail reads neither", "confCACERT"},
		{"no CACertPath", cf("O CACertPath=/etc/ssl/certs\n", ""), doctor.Error, "sendmail", "CACertFile is set, but not CACertPath: Sendmail reads neither", "confCACERT_PATH"},
		{"a CACertPath of nothing", cf("CACertPath=/etc/ssl/certs", "CACertPath=/etc/none"), doctor.Error, "sendmail", "CACertPath /etc/none cannot be read", "confCACERT_PATH"},
		{"no DANE", cf("O DANE=true\n", ""), doctor.Error, "sendmail", "no O DANE=true", "confDANE"},
		{"nobody does DANE", func(b *bed) {
			b.conf(`listen = ["unix:/var/spool/postfix/postseal/lmtp.sock"]`, "")
			b.conf("[dns]", "[host]\ndane = false\n[dns]")
		}, doctor.Error, "sendmail", "there is no delivery.listen", "mailertable"},
		{"upgraded since", func(b *bed) {
			b.outputs["sendmail -d0.13 -bt"] = strings.Replace(b.outputs["sendmail -d0.13 -bt"], "8.18.1", "8.18.2", 1)
		}, doctor.Error, "sendmail", "made for Sendmail 8.18.1, but this is 8.18.2", "make -C /etc/mail"},
		{"another build", func(b *bed) { b.outputs["sendmail -d0.13 -bt"] = " Compiled with: MILTER STARTTLS\n" }, doctor.Error, "sendmail", "built without SOCKETMAP, _FFR_MTA_STS", "Debian's"},
		{"half made: no milter in sendmail.cf", cf("Xpostseal", "#postseal"), doctor.Warning, "sendmail", "sendmail.cf has no such milter", "INPUT_MAIL_FILTER"},
		{"half made: no milter.listen", func(b *bed) { b.conf("listen = [\"tcp:127.0.0.1:8462\"]\n", "") }, doctor.Error, "sendmail", "names the milter postseal, but milter.listen is not set", "milter.listen ="},
		{"wrong route", func(b *bed) { b.conf(`route = "recipient"`, "") }, doctor.Error, "sendmail", "milter.route is header", `"recipient"`},
		{"untagged while down", cf("F=T, ", ""), doctor.Warning, "sendmail", "has no F=T", "F=T"},
		{"log level 8", cf("LogLevel=12", "LogLevel=8"), doctor.Error, "logs", "LogLevel is 8", "confLOG_LEVEL"},
		{"log level by default", cf("O LogLevel=12\n", ""), doctor.Hint, "logs", "LogLevel is 9", "confLOG_LEVEL"},
	}, newSendmail)
}

// TestSendmailRules: what doctor looks for stands in the file that is included.
func TestSendmailRules(t *testing.T) {
	text, err := sendmail.Files.ReadFile("postseal_rules.m4")
	if err != nil {
		t.Fatal(err)
	}
	if mark := regexp.MustCompile(`(?m)^D\{postseal_rules\}(.*)$`).FindSubmatch(text); mark == nil || string(mark[1]) != doctor.SendmailRules {
		t.Errorf("postseal_rules.m4 has %q, doctor looks for %q", mark, doctor.SendmailRules)
	}
}

// TestSendmailTrustAD: Sendmail does DANE without trust-ad, so nothing is found there.
func TestSendmailTrustAD(t *testing.T) {
	b := newSendmail(t)
	b.files["/etc/resolv.conf"] = "nameserver 127.0.0.1\n"
	if r := b.run(); r.Level == doctor.Error || strings.Contains(written(r), "resolv.conf") {
		t.Error(written(r))
	}
}

// TestOthersWell: Exim and Sendmail as they should be have nothing to mend either.
func TestOthersWell(t *testing.T) {
	for name, newBed := range map[string]func(*testing.T) *bed{"exim": newExim, "sendmail": newSendmail} {
		r := newBed(t).run()
		if !slices.Equal(r.MTAs, []string{name}) || r.Level != doctor.OK && r.Level != doctor.Hint {
			t.Errorf("%s: %v\n%s", name, r.MTAs, written(r))
		}
	}
}

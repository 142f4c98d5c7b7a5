package doctor_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"postseal/cmd/postseal/internal/config"
	"postseal/cmd/postseal/internal/control"
	"postseal/cmd/postseal/internal/doctor"
	"postseal/cmd/postseal/internal/overrides"
	"postseal/cmd/postseal/internal/status"
	"postseal/policy/dnssec/dnstest"
)

// row provokes one finding.
type row struct {
	name   string
	change func(b *bed)
	level  doctor.Level
	check  string
	text   string
	do     string // what is to be typed
}

func provoke(t *testing.T, rows []row, newBed func(*testing.T) *bed) {
	for _, tt := range rows {
		t.Run(tt.name, func(t *testing.T) {
			b := newBed(t)
			tt.change(b)
			r := b.run()
			i := slices.IndexFunc(r.Findings, func(f doctor.Finding) bool {
				return f.Check == tt.check && strings.Contains(f.Text, tt.text)
			})
			if i < 0 {
				t.Fatalf("no %q of %s in\n%s", tt.text, tt.check, written(r))
			}
			asked.note(r.Findings[i])
			if f := r.Findings[i]; f.Level != tt.level || !strings.Contains(f.Do, tt.do) || (f.Do == "") != (f.Level == doctor.OK) {
				t.Errorf("got %+v\nwant %s, to do: %s", f, tt.level, tt.do)
			}
		})
	}
}

func written(r doctor.Report) string {
	text := ""
	for _, f := range r.Findings {
		text += fmt.Sprintf("%s %s: %s\n", f.Level, f.Check, f.Text)
	}
	return text
}

func TestDaemonAndMachine(t *testing.T) {
	provoke(t, []row{
		{"configuration unusable", func(b *bed) { b.configErr = errors.New("postseal.toml:3: unknown key") }, doctor.Error, "configuration", "postseal.toml:3: unknown key", "postseal config check"},
		{"no mail server", func(b *bed) { b.outputs = nil }, doctor.Hint, "configuration", "no mail server was found", "--mta postfix"},
		{"mail server unreadable", func(b *bed) { b.outputs["postconf -x"] = "!permission denied" }, doctor.Warning, "configuration", "postfix cannot be looked at: postconf: permission denied", "as root"},
		{"postconf prints nonsense", func(b *bed) { b.set("mail_version", "x") }, doctor.Warning, "configuration", "no mail_version", "as root"},
		{"exposed", func(b *bed) {
			b.conf(`listen = ["unix:/var/spool/postfix/postseal/map.sock"]`, `listen = ["tcp:0.0.0.0:8461"]`)
		}, doctor.Warning, "configuration", "other machines may reach tcp:0.0.0.0:8461", "loopback"},
		{"no name", func(b *bed) { b.name = errors.New("the name of this machine has no domain") }, doctor.Warning, "configuration", "MX hosts cannot be greeted, neither for mail nor for probes: the name of this machine", "delivery.hostname ="},
		{"half made", func(b *bed) { b.conf("\nlocal_relay = \"tcp:127.0.0.1:10026\"", "") }, doctor.Warning, "configuration", "delivery.local_relay is not", "change postseal.toml"},

		{"no daemon", func(b *bed) { b.noAnswer = control.ErrNoDaemon }, doctor.Error, "daemon", "does not run", "systemctl start postseal"},
		{"daemon of another user", func(b *bed) { b.noAnswer = fmt.Errorf("%w: %w", control.ErrNoDaemon, fs.ErrPermission) }, doctor.Hint, "daemon", "cannot be asked as this user", "sudo postseal doctor"},
		{"daemon hangs", func(b *bed) { b.noAnswer = errors.New("timeout") }, doctor.Error, "daemon", "does not answer: timeout", "systemctl restart"},
		{"another configuration", func(b *bed) { b.status.Config = "/etc/other.toml" }, doctor.Warning, "daemon", "/etc/other.toml", "--config"},
		{"DANE is off", func(b *bed) { b.status.Validation = status.Validation{Reason: "the bogus name was answered"} }, doctor.Error, "daemon", "DANE switched off: the bogus name", "resolver"},
		{"refreshes fail", func(b *bed) { b.status.FailingRefreshes, b.status.FailingDomains = 1, []string{"failing.example"} }, doctor.Hint, "daemon", "failing.example", "postseal explain"},
		{"overrides expired", func(b *bed) { b.status.ExpiredOverrides = 2 }, doctor.Hint, "daemon", "2 overrides have expired", "override list"},
		{"strangers connect", func(b *bed) { b.status.ProtocolErrors = 7 }, doctor.Hint, "daemon", "7 requests", "journalctl"},

		{"listener is gone", func(b *bed) { delete(b.hosts, "unix lmtp.sock") }, doctor.Error, "listeners", "delivery.listen unix:/var/spool/postfix/postseal/lmtp.sock does not answer: connection refused", "systemctl restart postseal"},
		{"somebody else listens", func(b *bed) { b.hosts["unix map.sock"] = listener{reply: "220 hello there\r\n"} }, doctor.Error, "listeners", "another program listens there", "systemctl restart"},
		{"listener is not ours to try", func(b *bed) { b.hosts["unix map.sock"] = listener{greeting: "EACCES"} }, doctor.Hint, "listeners", "cannot be tried as this user", "sudo"},

		{"state missing", func(b *bed) {
			b.conf("/var/lib/postseal", "/var/lib/none")
			b.noAnswer = control.ErrNoDaemon
		}, doctor.Hint, "state", "does not exist yet", "nothing"},
		{"state missing under the daemon", func(b *bed) { b.conf("/var/lib/postseal", "/var/lib/none") }, doctor.Error, "state", "no such file", "set state_dir"},
		{"state is a file", func(b *bed) { b.conf("/var/lib/postseal", "/var/log/mail.log") }, doctor.Error, "state", "is no folder", "state_dir"},
		{"state open to all", func(b *bed) { b.modes["/var/lib/postseal"] = 0o755 }, doctor.Warning, "state", "mode 0755", "chmod 0700 /var/lib/postseal"},

		{"state of another daemon", func(b *bed) { b.locked, b.noAnswer = true, control.ErrNoDaemon }, doctor.Error, "state", "process 4711 keeps /var/lib/postseal/policies.db locked", "ps -fp 4711"},

		{"clock runs free", func(b *bed) { b.synced = false }, doctor.Warning, "clock", "nobody keeps the clock right", "set-ntp true"},
		{"clock a minute off", func(b *bed) { b.date = now().Add(time.Minute) }, doctor.Warning, "clock", "differs by 1m0s from that of mta-sts.sts.example", "set-ntp true"},
		{"clock an hour off", func(b *bed) { b.date = now().Add(-time.Hour) }, doctor.Error, "clock", "differs by 1h0m0s", "set-ntp true"},

		{"clock an hour slow", func(b *bed) { b.date = now().Add(time.Hour) }, doctor.Error, "clock", "differs by 1h0m0s", "set-ntp true"},

		{"no authorities", func(b *bed) { delete(b.files, "/etc/ssl/certs/ca-certificates.crt") }, doctor.Error, "authorities", "no store of authorities", "ca-certificates"},
		{"empty authorities", func(b *bed) { b.files["/etc/ssl/certs/ca-certificates.crt"] = "# none\n" }, doctor.Error, "authorities", "no store of authorities", "ca-certificates"},
	}, newBed)
}

func TestResolverAndNetwork(t *testing.T) {
	closed := func(b *bed) { b.sts, b.date = nil, time.Time{} } // its DNS has no gmail.com
	provoke(t, []row{
		{"DANE switched off", func(b *bed) { b.conf("[dns]\n", "[dns]\ntrust_ad = \"never\"\n") }, doctor.Hint, "resolver", "DANE is off", "auto"},
		{"resolver down", func(b *bed) { b.dns.Down() }, doctor.Warning, "resolver", "does not answer: ", "systemctl status unbound"},
		{"resolver of nowhere", func(b *bed) { b.dns.SetZone("x.example. A 192.0.2.1\n") }, doctor.Warning, "resolver", "does not know the internet", "dig"},
		{"bogus answered", func(b *bed) {
			b.dns.Fail("bogus.example", "*", "")
			b.dns.SetZone(zone+"bogus.example. A 192.0.2.4\n", "signed.example", "sealed.example")
		}, doctor.Error, "resolver", "answers for bogus.example, whose signatures are wrong", "apt-get install unbound"},
		{"bogus denied", func(b *bed) { b.dns.Fail("bogus.example", "*", "") }, doctor.Error, "resolver", "answers for bogus.example", "unbound"},
		{"everything authentic", func(b *bed) { b.dns.SetZone(zone, "example") }, doctor.Error, "resolver", "claims that unsigned.example is authentic", "unbound"},
		{"nothing authentic", func(b *bed) { b.dns.SetZone(zone) }, doctor.Error, "resolver", "does not authenticate signed.example and sealed.example", "unbound"},
		{"signed names fail", func(b *bed) {
			b.dns.Fail("signed.example", "*", "SERVFAIL")
			b.dns.Fail("sealed.example", "*", "SERVFAIL")
		}, doctor.Hint, "resolver", "cannot be told", "dig +dnssec"},
		{"resolver elsewhere", func(b *bed) { b.conf(`servers = ["$DNS"]`, `servers = ["$DNS", "192.0.2.53"]`) }, doctor.Warning, "resolver", "192.0.2.53:53 is not on this machine", "trust_ad = \"always\""},

		{"no resolv.conf", func(b *bed) { delete(b.files, "/etc/resolv.conf") }, doctor.Error, "resolv.conf", "cannot be read", "nameserver 127.0.0.1"},
		{"no trust-ad", func(b *bed) { b.files["/etc/resolv.conf"] = "nameserver 127.0.0.1\noptions edns0\n" }, doctor.Error, "resolv.conf", "lacks \"options edns0 trust-ad\"", "echo \"options edns0 trust-ad\" >> /etc/resolv.conf"},
		{"mail server asks elsewhere", func(b *bed) { b.files["/etc/resolv.conf"] = "nameserver 192.0.2.53\noptions trust-ad\n" }, doctor.Warning, "resolv.conf", "192.0.2.53, which is not on this machine", "unbound"},
		{"container's forwarder", func(b *bed) { b.files["/etc/resolv.conf"] = "nameserver 127.0.0.11\noptions trust-ad\n" }, doctor.Warning, "resolv.conf", "127.0.0.11, which is not on this machine", "unbound"},
		{"no copy in the chroot", func(b *bed) { delete(b.files, queue+"/etc/resolv.conf") }, doctor.Error, "resolv.conf", "there is no /var/spool/postfix/etc/resolv.conf", "cp /etc/resolv.conf /var/spool/postfix/etc/resolv.conf"},
		{"copy without trust-ad", func(b *bed) { b.files[queue+"/etc/resolv.conf"] = "nameserver 127.0.0.1\n" }, doctor.Error, "resolv.conf", "lacks \"options trust-ad\"", "cp /etc/resolv.conf"},
		{"stale copy", func(b *bed) { b.files[queue+"/etc/resolv.conf"] = "nameserver 192.0.2.53\noptions trust-ad\n" }, doctor.Error, "resolv.conf", "names other resolvers", "cp /etc/resolv.conf"},

		{"port 53 closed", func(b *bed) { delete(b.hosts, "tcp 198.41.0.4:53") }, doctor.Hint, "network", "but the resolver answers", "open port 53"},
		{"port 53 closed, no resolver", func(b *bed) { delete(b.hosts, "tcp 198.41.0.4:53"); b.dns.Down() }, doctor.Warning, "network", "port 53 (DNS) is closed to the outside: connection refused", "open port 53"},
		{"no web", func(b *bed) { b.date = time.Time{} }, doctor.Warning, "network", "https does not reach the policy hosts of sts.example: connection refused", "curl -v https://mta-sts.sts.example/"},
		{"port 25 closed", func(b *bed) { delete(b.hosts, "tcp 192.0.2.25:25") }, doctor.Warning, "network", "neither probes of MX hosts nor the delivery fallback can work", "ask your provider"},
		{"a wall at port 25", func(b *bed) { b.hosts["tcp 192.0.2.25:25"] = listener{greeting: "554 blocked\r\n"} }, doctor.Warning, "network", "greets with 554 blocked", "ask your provider"},

		{"no policy found", func(b *bed) { b.explain["sts.example"] = &control.Explanation{Reason: "no record"} }, doctor.Warning, "answers", "finds no MTA-STS policy in mode enforce for sts.example", "postseal explain sts.example"},
		{"no DANE found", func(b *bed) { b.explain["signed.example"] = &control.Explanation{Daemon: true} }, doctor.Warning, "answers", "the daemon finds no DANE at signed.example", "postseal explain signed.example"},
		{"DANE at one of them", func(b *bed) {
			b.dane = []string{"signed.example", "nlnetlabs.nl"}
			b.explain["nlnetlabs.nl"] = &control.Explanation{Daemon: true}
		}, doctor.Hint, "answers", "the daemon finds no DANE at nlnetlabs.nl, which has TLSA records", "postseal explain nlnetlabs.nl"},
		{"DANE at none of them", func(b *bed) {
			b.dane = []string{"gone.example", "nlnetlabs.nl"}
			b.explain["nlnetlabs.nl"] = &control.Explanation{Daemon: true}
		}, doctor.Warning, "answers", "the daemon finds no DANE at nlnetlabs.nl, which has TLSA records", "postseal explain nlnetlabs.nl"},
		{"no DANE at a name of the self-test", func(b *bed) {
			b.dane = []string{"sealed.example"}
			b.explain["sealed.example"] = &control.Explanation{Daemon: true}
		}, doctor.Hint, "answers", "the daemon finds no DANE at sealed.example, a name of dns.self_test_signed, which needs none", "--dane-domain"},
		{"an overridden name of the self-test", func(b *bed) {
			b.dane = []string{"sealed.example"}
			b.explain["sealed.example"] = &control.Explanation{Override: &overrides.Rule{}}
		}, doctor.Hint, "answers", "sealed.example, a name of dns.self_test_signed, is decided by an override", "override list"},
		{"overridden", func(b *bed) { b.explain["sts.example"].Override = &overrides.Rule{} }, doctor.Hint, "answers", "is decided by an override", "override list"},
		{"overridden DANE", func(b *bed) { b.explain["signed.example"].Override = &overrides.Rule{} }, doctor.Hint, "answers", "has TLSA records, is decided by an override", "override list"},
		{"closed network: no web", closed, doctor.Hint, "network", "https was not tried: there is no gmail.com, says the resolver", "--sts-domain"},
		{"closed network: no MX host", closed, doctor.Hint, "network", "port 25 (SMTP) was not tried: the MX hosts of signed.example cannot be found", "--sts-domain"},
		{"closed network: no policy", closed, doctor.Hint, "answers", "there is no gmail.com, says the resolver", "--sts-domain"},
		{"a resolver that fails is not a closed network", func(b *bed) {
			closed(b)
			b.dns.Fail("gmail.com", "*", "SERVFAIL")
		}, doctor.Warning, "network", "https does not reach the policy hosts of gmail.com", "curl -v https://mta-sts.gmail.com/"},
		{"a named domain is missed", func(b *bed) {
			closed(b)
			b.sts = []string{"gone.example"}
		}, doctor.Warning, "network", "https does not reach the policy hosts of gone.example", "curl -v https://mta-sts.gone.example/"},
		{"no answer", func(b *bed) { delete(b.explain, "sts.example") }, doctor.Warning, "answers", "could not be found out: no answer", "postseal explain sts.example"},
	}, newBed)
}

// TestPostfix: SM-042 are the settings that socketmap_table(5) and TLS_README want.
func TestPostfix(t *testing.T) {
	provoke(t, []row{
		{"SM-042 no level", func(b *bed) { b.set("smtp_tls_security_level", "") }, doctor.Warning, "postfix", "smtp_tls_security_level is not set", "postconf -e 'smtp_tls_security_level = may'"},
		{"SM-042 a strict level", func(b *bed) { b.set("smtp_tls_security_level", "secure") }, doctor.Hint, "postfix", "smtp_tls_security_level is secure", "may"},
		{"SM-042 no authorities", func(b *bed) { b.set("smtp_tls_CAfile", "") }, doctor.Error, "postfix", "neither smtp_tls_CAfile nor smtp_tls_CApath is set", "smtp_tls_CAfile = /etc/ssl"},
		{"SM-042 authorities missing", func(b *bed) { b.set("smtp_tls_CAfile", "/etc/none.pem") }, doctor.Error, "postfix", "smtp_tls_CAfile /etc/none.pem cannot be read", "postconf -e"},
		{"SM-042 authorities empty", func(b *bed) { b.set("smtp_tls_CAfile", "/var/log/mail.log") }, doctor.Error, "postfix", "has no certificate", "postconf -e"},
		{"SM-042 CApath outside the chroot", func(b *bed) { b.set("smtp_tls_CAfile", ""); b.set("smtp_tls_CApath", "/etc/ssl/certs") }, doctor.Error, "postfix", "does not find smtp_tls_CApath /etc/ssl/certs", "smtp_tls_CAfile"},
		{"SM-042 CApath not hashed", func(b *bed) {
			b.set("smtp_tls_CAfile", "")
			b.set("smtp_tls_CApath", "/etc/ssl/certs")
			b.master(" y ", " n ")
		}, doctor.Error, "postfix", "has no hashed certificate", "c_rehash /etc/ssl/certs"},
		{"SM-042 no DNSSEC", func(b *bed) { b.set("smtp_dns_support_level", "enabled") }, doctor.Error, "postfix", "smtp_dns_support_level is not dnssec", "smtp_dns_support_level = dnssec"},
		{"nobody does DANE", func(b *bed) {
			b.conf(`listen = ["unix:/var/spool/postfix/postseal/lmtp.sock"]`, "")
			b.conf("[dns]", "[host]\ndane = false\n[dns]")
		}, doctor.Error, "postfix", "host.dane is false, and there is no delivery.listen", "host.dane = true"},
		{"reuse without tlsproxy", func(b *bed) { b.set("smtp_tls_connection_reuse", "yes") }, doctor.Error, "postfix", "master.cf has no tlsproxy", "smtp_tls_connection_reuse = no"},
		{"reuse", func(b *bed) {
			b.set("smtp_tls_connection_reuse", "yes")
			b.outputs["postconf -M"] += "tlsproxy unix - - y - 0 tlsproxy\n"
		}, doctor.Hint, "postfix", "for 300s under the policy", "smtp_tls_connection_reuse = no"},

		{"SM-042 does not ask", func(b *bed) { b.set("smtp_tls_policy_maps", "hash:/etc/postfix/tls") }, doctor.Error, "postfix policy", "Postfix does not ask postseal", "postconf -e 'smtp_tls_policy_maps = socketmap:unix:postseal/map.sock:postfix-tlsrpt'"},
		{"SM-042 asks elsewhere", func(b *bed) { b.set("smtp_tls_policy_maps", "socketmap:inet:127.0.0.1:8642:QUERY") }, doctor.Error, "postfix policy", "asks at inet:127.0.0.1:8642, but postseal listens at unix:/var/spool", "postconf -e"},
		{"over TCP", func(b *bed) {
			b.conf(`["unix:/var/spool/postfix/postseal/map.sock"]`, `["tcp:127.0.0.1:8461"]`)
			b.set("smtp_tls_policy_maps", "socketmap:inet:localhost:8461:postfix-tlsrpt")
		}, doctor.OK, "postfix policy", "asks postseal at inet:localhost:8461", ""},
		{"over TCP, not yet", func(b *bed) {
			b.conf(`["unix:/var/spool/postfix/postseal/map.sock"]`, `["tcp:127.0.0.1:8461"]`)
			b.set("smtp_tls_policy_maps", "")
		}, doctor.Error, "postfix policy", "Postfix does not ask postseal", "socketmap:inet:127.0.0.1:8461:postfix-tlsrpt"},
		{"an old Postfix", func(b *bed) { b.set("mail_version", "3.3.0") }, doctor.Error, "postfix policy", "does not know servername=", "upgrade"},
		{"dialect too new for a snapshot", func(b *bed) { b.set("mail_version", "3.10-20240902") }, doctor.Error, "postfix policy", "this is 3.10-20240902", "map.sock:postfix'"},
		{"dialect too new", func(b *bed) { b.set("mail_version", "3.7.11") }, doctor.Error, "postfix policy", "is for Postfix 3.10 and later, this is 3.7.11", "map.sock:postfix'"},
		{"dialect too old", func(b *bed) { b.set("smtp_tls_policy_maps", "socketmap:unix:postseal/map.sock:QUERY") }, doctor.Warning, "postfix policy", "map QUERY is for Postfix before 3.10", "map.sock:postfix-tlsrpt'"},
		{"no policy map", func(b *bed) { b.set("smtp_tls_policy_maps", "socketmap:unix:postseal/map.sock:sts") }, doctor.Error, "postfix policy", "map sts is no map of TLS policies", "postconf -e"},
		{"absolute in the chroot", func(b *bed) {
			b.set("smtp_tls_policy_maps", "socketmap:unix:/var/spool/postfix/postseal/map.sock:postfix-tlsrpt")
		}, doctor.Error, "postfix policy", "which a chrooted smtp(8) does not find", "socketmap:unix:postseal/map.sock:postfix-tlsrpt"},
		{"another map first", func(b *bed) {
			b.set("smtp_tls_policy_maps", "inline:{{a.example=none}, {b.example=may}}, socketmap:unix:postseal/map.sock:postfix-tlsrpt")
		}, doctor.Hint, "postfix policy", "asks inline:{{a.example=none}, {b.example=may}} before postseal", "override set"},
		{"a service without", func(b *bed) {
			b.master("postfix/$service_name", "postfix/x -o smtp_tls_policy_maps=")
		}, doctor.Hint, "postfix policy", "the service relay of master.cf", "postconf -P relay/unix/smtp_tls_policy_maps"},

		{"half made: no smtpd_milters", func(b *bed) { b.set("smtpd_milters", "inet:127.0.0.1:8891") }, doctor.Warning, "postfix milter", "smtpd_milters does not name it", "unix:postseal/milter.sock"},
		{"half made: no milter.listen", func(b *bed) { b.conf(`listen = ["unix:/var/spool/postfix/postseal/milter.sock"]`, "") }, doctor.Error, "postfix milter", "smtpd_milters names unix:postseal/milter.sock, but milter.listen is not set", "milter.listen"},
		{"accepts untagged", func(b *bed) {
			b.set("smtpd_milters", "unix:postseal/milter.sock")
			b.set("milter_default_action", "accept")
		}, doctor.Warning, "postfix milter", "accepted untagged", "default_action=tempfail"},
		{"not the last", func(b *bed) { b.set("smtpd_milters", "unix:postseal/milter.sock, inet:8891@localhost") }, doctor.Warning, "postfix milter", "another milter comes after", "at the end"},
		{"milter absolute", func(b *bed) { b.set("smtpd_milters", "unix:/var/spool/postfix/postseal/milter.sock") }, doctor.Error, "postfix milter", "a chrooted smtpd(8) does not find", "unix:postseal/milter.sock"},
		{"not for sendmail(1)", func(b *bed) { b.set("non_smtpd_milters", "") }, doctor.Warning, "postfix milter", "mail from sendmail(1) is never tagged", "non_smtpd_milters = $smtpd_milters"},
		{"tag without route", func(b *bed) { b.set("milter_header_checks", "") }, doctor.Error, "postfix milter", "the tags route nothing", "milter_header_checks = regexp:"},
		{"wrong route", func(b *bed) { b.conf("[milter]\n", "[milter]\nroute = \"recipient\"\n") }, doctor.Error, "postfix milter", "milter.route is recipient", `"header"`},
		{"no service for tags", func(b *bed) { b.master("postseal-relaxed unix", "mine unix") }, doctor.Warning, "postfix milter", "no service postseal-relaxed", "master.cf"},
		{"MIL-034 proxy filter", func(b *bed) { b.set("smtpd_proxy_filter", "127.0.0.1:10024") }, doctor.Warning, "postfix milter", "smtpd_proxy_filter is set in main.cf: there the milter sees no headers", "content_filter"},
		{"MIL-034 proxy filter of a service", func(b *bed) {
			b.outputs["postconf -M"] += "submission inet n - y - - smtpd\n    -o smtpd_proxy_filter=127.0.0.1:10024\n"
		}, doctor.Warning, "postfix milter", "smtpd_proxy_filter is set in the service submission of master.cf", "-o smtpd_milters="},

		{"half made: no transport_maps", func(b *bed) { b.set("transport_maps", "") }, doctor.Warning, "postfix delivery", "transport_maps does not ask postseal", "transport_maps = socketmap:unix:postseal/map.sock:transport"},
		{"half made: no delivery.listen", func(b *bed) { b.conf(`listen = ["unix:/var/spool/postfix/postseal/lmtp.sock"]`, "") }, doctor.Warning, "postfix delivery", "delivery.listen is not set", "delivery.listen in"},
		{"wrong map", func(b *bed) { b.set("transport_maps", "socketmap:unix:postseal/map.sock:postfix") }, doctor.Error, "postfix delivery", "asks the map postfix", "map.sock:transport"},
		{"transport absolute", func(b *bed) { b.set("transport_maps", "socketmap:unix:/var/spool/postfix/postseal/map.sock:transport") }, doctor.Error, "postfix delivery", "a chrooted trivial-rewrite(8) does not find", "unix:postseal/map.sock:transport"},
		{"no service", func(b *bed) { b.master("postseal   unix", "mine unix") }, doctor.Error, "postfix delivery", "no service postseal,", "master.cf"},
		{"next hop of nobody", func(b *bed) { b.conf(`nexthop = "unix:postseal/lmtp.sock"`, "") }, doctor.Error, "postfix delivery", "delivery.nexthop inet:127.0.0.1:8463 is none of delivery.listen", `"unix:postseal/lmtp.sock"`},
	}, newBed)
}

func TestTLSRPT(t *testing.T) {
	datagrams := func(t *testing.T) *bed {
		b := newBed(t)
		b.conf("[reporting]\n", "[reporting]\ntlsrpt_socket = \"unix:/var/spool/postfix/postseal/tlsrpt.sock\"\n")
		b.conf("format = \"postfix\"", "format = \"postfix\"\nsessions = \"missing\"")
		b.files[queue+"/postseal/tlsrpt.sock"] = ""
		b.modes[queue+"/postseal/tlsrpt.sock"] = 0o666
		b.set("smtp_tlsrpt_enable", "yes")
		b.set("smtp_tlsrpt_socket_name", "postseal/tlsrpt.sock")
		return b
	}
	provoke(t, []row{
		{"as it should be", func(*bed) {}, doctor.OK, "postfix tlsrpt", "reports its sessions to", ""},
		{"too old", func(b *bed) { b.set("mail_version", "3.7.11") }, doctor.Error, "postfix tlsrpt", "Postfix 3.7.11 has no TLSRPT", "follow the log"},
		{"half made: not enabled", func(b *bed) { b.set("smtp_tlsrpt_enable", "no") }, doctor.Error, "postfix tlsrpt", "smtp_tlsrpt_enable is no", "smtp_tlsrpt_enable = yes"},
		{"half made: no socket", func(b *bed) {
			b.conf("tlsrpt_socket = \"unix:/var/spool/postfix/postseal/tlsrpt.sock\"\n", "")
		}, doctor.Hint, "postfix tlsrpt", "reporting.tlsrpt_socket is not set", "smtp_tlsrpt_enable = no"},
		{"another socket", func(b *bed) { b.set("smtp_tlsrpt_socket_name", "run/tlsrpt/tlsrpt.sock") }, doctor.Error, "postfix tlsrpt", `Postfix reports to "run/tlsrpt/tlsrpt.sock"`, "smtp_tlsrpt_socket_name = postseal/tlsrpt.sock"},
		{"absolute", func(b *bed) { b.set("smtp_tlsrpt_socket_name", queue+"/postseal/tlsrpt.sock") }, doctor.Error, "postfix tlsrpt", "a chrooted smtp(8) does not find", "postseal/tlsrpt.sock"},
		{"not compiled in", func(b *bed) {
			self, err := os.Executable() // any program of this kind of system without the library
			b.must(err)
			program, err := os.ReadFile(self)
			b.must(err)
			b.files["/usr/lib/postfix/sbin/smtp"] = string(program)
		}, doctor.Error, "postfix tlsrpt", "built without libtlsrpt", "follow the log"},
		{"resumed sessions", func(b *bed) { b.set("smtp_tlsrpt_skip_reused_handshakes", "yes") }, doctor.Warning, "postfix tlsrpt", "resumed sessions are not counted", "smtp_tlsrpt_skip_reused_handshakes = no"},
		{"short queue", func(b *bed) { b.files["/proc/sys/net/unix/max_dgram_qlen"] = "10\n" }, doctor.Warning, "postfix tlsrpt", "max_dgram_qlen is 10", "max_dgram_qlen=512"},
		{"datagrams lost", func(b *bed) { b.status.Recording.Datagrams = &status.Datagrams{Lost: 3} }, doctor.Warning, "logs", "3 datagrams", "max_dgram_qlen"},
		{"datagrams refused", func(b *bed) { b.status.Recording.Datagrams = &status.Datagrams{Refused: 4} }, doctor.Warning, "logs", "4 datagrams came from users who may not report", "tlsrpt_users"},
		{"socket not writable", func(b *bed) { b.modes[queue+"/postseal/tlsrpt.sock"] = 0o600 }, doctor.Error, "sockets", "Postfix cannot connect to reporting.tlsrpt_socket", `reporting.mode = "0660"`},
	}, datagrams)
}

func TestSockets(t *testing.T) {
	provoke(t, []row{
		{"not writable", func(b *bed) { b.modes[queue+"/postseal/map.sock"] = 0o600 }, doctor.Error, "sockets", "Postfix cannot connect to socketmap.listen /var/spool/postfix/postseal/map.sock: user postfix has no w on", `socketmap.mode = "0660"`},
		{"folder closed", func(b *bed) { b.modes[queue+"/postseal"] = 0o700 }, doctor.Error, "sockets", "user postfix has no x on /var/spool/postfix/postseal", "chmod g+x /var/spool/postfix/postseal"},
		{"by its group", func(b *bed) {
			b.modes[queue+"/postseal/map.sock"] = 0o660
			b.users["postfix"] = doctor.Account{Name: "postfix", UID: stranger, GIDs: []uint32{uint32(os.Getgid())}}
		}, doctor.OK, "sockets", "reaches 5 of postseal's unix sockets", ""},
		{"no folder", func(b *bed) { b.conf("postseal/milter.sock", "none/milter.sock") }, doctor.Error, "sockets", "the folder of milter.listen /var/spool/postfix/none/milter.sock does not exist", "install -d -o postseal"},
		{"no socket", func(b *bed) { delete(b.files, queue+"/postseal/map.sock") }, doctor.Error, "sockets", "is not there, although the daemon runs", "systemctl restart postseal"},
		{"no socket, no daemon", func(b *bed) {
			delete(b.files, queue+"/postseal/map.sock")
			b.noAnswer = control.ErrNoDaemon
		}, doctor.Hint, "sockets", "is not there, and no daemon answers", "systemctl start postseal"},
		{"unknown user", func(b *bed) { b.set("mail_owner", "nobody-knows") }, doctor.Hint, "sockets", "Postfix runs as user nobody-knows", "id nobody-knows"},
	}, newBed)
}

func TestLogs(t *testing.T) {
	const entry = "path = \"/var/log/mail.log\"\nformat = \"postfix\"\n"
	locked := fmt.Sprintf("Uid:\t%[1]d\t%[1]d\nGid:\t%[1]d\t%[1]d\nGroups:\t\n", stranger)
	provoke(t, []row{
		{"no source", func(b *bed) {
			b.config = b.config[:strings.Index(b.config, "[milter]")]
		}, doctor.Hint, "logs", "no source of sessions is set", "[[reporting.log]]"},
		{"no such log", func(b *bed) { delete(b.files, "/var/log/mail.log") }, doctor.Error, "logs", "log /var/log/mail.log does not exist", "journal"},
		{"log not readable", func(b *bed) {
			b.files["/proc/42/status"] = locked
			b.modes["/var/log/mail.log"] = 0o640
		}, doctor.Error, "logs", "the daemon cannot read log /var/log/mail.log", "usermod -aG adm"},
		{"log given up", func(b *bed) {
			b.files["/var/log/old.log"] = "x"
			b.conf("/var/log/mail.log", "/var/log/old.log")
		}, doctor.Warning, "logs", "was not written to for 4 days", "ls -lt"},
		{"level 0", func(b *bed) { b.set("smtp_tls_loglevel", "0") }, doctor.Error, "logs", "smtp_tls_loglevel is 0", "postconf -e 'smtp_tls_loglevel = 1'"},
		{"level 2", func(b *bed) { b.set("smtp_tls_loglevel", "2") }, doctor.Hint, "logs", "smtp_tls_loglevel is 2", "smtp_tls_loglevel = 1"},
		{"no journalctl", func(b *bed) { b.conf("/var/log/mail.log", config.Journal) }, doctor.Error, "logs", "journalctl, which is not there", "mail.log"},
		{"no journal", func(b *bed) {
			b.conf("/var/log/mail.log", config.Journal)
			b.outputs["journalctl"] = ""
		}, doctor.Error, "logs", "there is no journal", "mail.log"},
		{"journal of others", func(b *bed) {
			b.conf("/var/log/mail.log", config.Journal)
			b.outputs["journalctl"] = ""
			b.files["/run/log/journal/x"] = ""
			b.files["/proc/42/status"] = locked
		}, doctor.Error, "logs", "is not in the group of the journal", "usermod -aG systemd-journal"},
		{"journal closed", func(b *bed) {
			b.conf("/var/log/mail.log", config.Journal)
			b.outputs["journalctl"] = ""
			b.files["/run/log/journal/x"] = ""
			b.modes["/run/log/journal"] = 0o700
			b.files["/proc/42/status"] = locked
		}, doctor.Error, "logs", "the daemon cannot read the journal", "usermod -aG systemd-journal"},
		{"file and journal", func(b *bed) { b.conf(entry, entry+"[[reporting.log]]\npath = \"journal\"\nformat = \"postfix\"\n") }, doctor.Warning, "configuration", "each session counts twice", "change postseal.toml"},
		{"not read yet", func(b *bed) { b.status.Recording.Logs[0].CaughtUp = time.Time{} }, doctor.Warning, "logs", "has not read log /var/log/mail.log yet", "journalctl"},
		{"another format", func(b *bed) { b.status.Recording.Logs[0].Lines, b.status.Recording.Logs[0].Unparsed = 200, 150 }, doctor.Warning, "logs", "of 200 lines of log /var/log/mail.log 150 were not understood", "logs replay"},
		{"slow disk", func(b *bed) { b.status.Recording.Dropped = 5 }, doctor.Warning, "logs", "5 sessions were dropped", "df -h"},
		{"reports given up", func(b *bed) { b.status.Recording.Reports = &status.Reports{GaveUp: 2} }, doctor.Warning, "logs", "2 reports could not be sent", "postseal report list"},
	}, newBed)
}

func TestReports(t *testing.T) {
	const unpublished = "the DKIM key at tlsrpt._domainkey.own.example is another"
	provoke(t, []row{
		{"none are sent", func(b *bed) { b.conf("contact = \"tlsrpt@own.example\"\n", "") }, doctor.Hint, "reports", "no reports are sent", "reporting.contact"},
		{"nobody takes them", func(b *bed) { delete(b.hosts, "tcp 127.0.0.1:25") }, doctor.Error, "reports", "does not take mail: connection refused", "systemctl status postfix"},
		{"refused at once", func(b *bed) { b.hosts["tcp 127.0.0.1:25"] = listener{greeting: "554 no\r\n"} }, doctor.Error, "reports", "it greets with 554 no", "reporting.submit"},
		{"EHLO refused", func(b *bed) { b.hosts["tcp 127.0.0.1:25"] = listener{"220 x\r\n", "550 who\r\n"} }, doctor.Error, "reports", "it says to EHLO 550 who", "reporting.submit"},
		{"no sendmail", func(b *bed) { b.conf("[reporting]\n", "[reporting]\nsubmit = \"sendmail:/usr/lib/sendmail\"\n") }, doctor.Error, "reports", "is no program", "smtp://127.0.0.1:25"},
		{"a sendmail", func(b *bed) {
			b.conf("[reporting]\n", "[reporting]\nsubmit = \"sendmail:/usr/lib/sendmail\"\n")
			b.files["/usr/lib/sendmail"], b.modes["/usr/lib/sendmail"] = "", 0o755
		}, doctor.OK, "reports", "handed to /usr/lib/sendmail", ""},
		{"unsigned", func(b *bed) { b.config = b.config[:strings.Index(b.config, "[[reporting.dkim]]")] }, doctor.Warning, "reports", "are not signed by postseal", "[[reporting.dkim]]"},
		{"no key", func(b *bed) { delete(b.files, "/etc/postseal/dkim.pem") }, doctor.Error, "reports", "reports cannot be signed", "openssl genrsa"},
		{"key not for the daemon", func(b *bed) {
			b.files["/proc/42/status"] = fmt.Sprintf("Uid:\t%[1]d\t%[1]d\nGid:\t%[1]d\t%[1]d\n", stranger)
		}, doctor.Error, "reports", "the daemon cannot read its DKIM key", "chown"},
		{"not published", func(b *bed) { b.dns.SetZone(zone, "signed.example", "sealed.example") }, doctor.Error, "reports", "there is no DKIM key at tlsrpt._domainkey.own.example", `TXT "v=DKIM1`},
		{"a weak key", func(b *bed) {
			key, err := newRSA(1024)
			b.must(err)
			b.files["/etc/postseal/dkim.pem"] = key
		}, doctor.Hint, "reports", "has 1024 bits; RFC 8301 recommends 2048", "openssl genrsa -out /etc/postseal/dkim.pem 2048"},
		{"another published", func(b *bed) {
			b.dns.SetZone(zone+"tlsrpt._domainkey.own.example. TXT \"v=DKIM1; p=AAAA\"\n", "signed.example", "sealed.example")
		}, doctor.Error, "reports", unpublished, `TXT "v=DKIM1`},
		{"published for nothing", func(b *bed) {
			b.dns.SetZone(zone+strings.Replace(dkimRecord(b.t), `"v=DKIM1;`, `"v=DKIM1; s=tlsrpt;`, 1)+"\n", "signed.example", "sealed.example")
		}, doctor.Warning, "reports", "has s=tlsrpt: for mail it is no key", "TXT"},
		{"cannot be told", func(b *bed) { b.dns.Fail("tlsrpt._domainkey.own.example", "TXT", "SERVFAIL") }, doctor.Warning, "reports", "is published cannot be told", "dig TXT"},

		{"no own record", func(b *bed) { b.dns.SetZone("x.example. A 192.0.2.1\n") }, doctor.Hint, "own domain", "own.example has no TLSRPT record", "rua=mailto:tlsrpt@own.example"},
		{"own record malformed", func(b *bed) { b.dns.SetZone(`_smtp._tls.own.example. TXT "v=TLSRPTv1; ruf=x"` + "\n") }, doctor.Warning, "own domain", "the rua is missing", "--lint"},
		{"own record with notes", func(b *bed) {
			b.dns.SetZone(`_smtp._tls.own.example. TXT "v=TLSRPTv1; rua=mailto:a@own.example,ftp://x/"` + "\n")
		}, doctor.Warning, "own domain", "_smtp._tls.own.example: ", "--lint"},
		{"own record unknown", func(b *bed) { b.dns.Fail("_smtp._tls.own.example", "TXT", "SERVFAIL") }, doctor.Warning, "own domain", "own TLSRPT record: ", "dig TXT"},
		{"own mail unprotected", func(b *bed) { b.explain["own.example"] = &control.Explanation{} }, doctor.Hint, "own domain", "neither MTA-STS nor DANE", "postseal explain own.example --lint"},
		{"own mail unknown", func(b *bed) { delete(b.explain, "own.example") }, doctor.Hint, "own domain", "could not be found out", "postseal explain own.example"},
		{"own mail by a null MX", func(b *bed) { b.explain["own.example"] = &control.Explanation{DANE: control.DANE{NullMX: true}} }, doctor.OK, "own domain", "with a null MX", ""},
		{"own mail by DANE", func(b *bed) { b.explain["own.example"] = &control.Explanation{DANE: control.DANE{Class: "full"}} }, doctor.OK, "own domain", "with DANE", ""},
	}, newBed)
}

// TestOffline: without any network nothing is an error but what is wrong here.
func TestOffline(t *testing.T) {
	b := newBed(t)
	b.date = time.Time{}
	b.dns.Down()
	b.conf("$DNS", dnstest.Refused(t))
	for name := range b.hosts {
		if strings.HasPrefix(name, "tcp 1") && !strings.HasPrefix(name, "tcp 127.") {
			delete(b.hosts, name)
		}
	}
	b.explain = nil
	r := b.run()
	if r.Level != doctor.Warning {
		t.Errorf("level %s:\n%s", r.Level, written(r))
	}
}

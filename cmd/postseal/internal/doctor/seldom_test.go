package doctor_test

import (
	"errors"
	"testing"

	"postseal/cmd/postseal/internal/doctor"
)

// TestGood: what is in order is said, too.
func TestGood(t *testing.T) {
	as := func(*bed) {}
	provoke(t, []row{
		{"configuration", as, doctor.OK, "configuration", "postseal.toml is in order", ""},
		{"daemon", as, doctor.OK, "daemon", "the daemon runs, version v1, process 42, since 2026-11-28T11:00:00Z", ""},
		{"listeners", as, doctor.OK, "listeners", "5 listeners of the daemon answer", ""},
		{"state", as, doctor.OK, "state", "state_dir /var/lib/postseal is in order", ""},
		{"clock", as, doctor.OK, "clock", "the clock is kept right", ""},
		{"authorities", as, doctor.OK, "authorities", "the system's authorities are in /etc/ssl/certs/ca-certificates.crt", ""},
		{"resolver", as, doctor.OK, "resolver", "validates", ""},
		{"resolv.conf", func(b *bed) {
			const conf = "nameserver 127.9.9.9\noptions trust-ad\n" // where nobody answers
			b.conf(`["$DNS"]`, `["127.9.9.9"]`)
			b.files["/etc/resolv.conf"], b.files[queue+"/etc/resolv.conf"] = conf, conf
		}, doctor.OK, "resolv.conf", "/etc/resolv.conf lets the mail server see what is authentic", ""},
		{"port 53", as, doctor.OK, "network", "port 53 (DNS) is open to the outside", ""},
		{"https", as, doctor.OK, "network", "https reaches mta-sts.sts.example", ""},
		{"port 25", as, doctor.OK, "network", "port 25 (SMTP) is open to the outside: mx.sts.example answers", ""},
		{"MTA-STS", as, doctor.OK, "answers", "the daemon finds the MTA-STS policy of sts.example", ""},
		{"DANE", as, doctor.OK, "answers", "the daemon finds DANE at signed.example", ""},
		{"Postfix", as, doctor.OK, "postfix", "Postfix 3.10.13", ""},
		{"milter", as, doctor.OK, "postfix milter", "Postfix asks the milter at unix:postseal/milter.sock", ""},
		{"delivery", as, doctor.OK, "postfix delivery", "transport_maps routes to the delivery fallback", ""},
		{"logs", as, doctor.OK, "logs", "the logs are readable and tell enough", ""},
		{"submission", as, doctor.OK, "reports", "reports are handed to 127.0.0.1:25, which greets with 220 mail.own.example", ""},
		{"DKIM", as, doctor.OK, "reports", "the DKIM key at tlsrpt._domainkey.own.example is the one that signs", ""},
		{"own record", as, doctor.OK, "own domain", "own.example asks for reports", ""},
		{"another port", as, doctor.Hint, "resolv.conf", "the mail server asks 127.0.0.1, postseal asks 127.0.0.1:", "the same resolver"},
	}, newBed)
}

// TestNotLookedAt: what is refused to whoever looks is no error, and root may look.
func TestNotLookedAt(t *testing.T) {
	denied := func(name string) func(*bed) { return func(b *bed) { b.denied = name } }
	const as = "as this user"
	provoke(t, []row{
		{"state", denied("/var/lib/postseal"), doctor.Hint, "state", "state_dir /var/lib/postseal cannot be looked at " + as, "sudo postseal doctor"},
		{"authorities", denied("/etc/ssl/certs/ca-certificates.crt"), doctor.Hint, "postfix", "smtp_tls_CAfile /etc/ssl/certs/ca-certificates.crt cannot be read " + as, "sudo postseal doctor"},
		{"log", denied("/var/log/mail.log"), doctor.Hint, "logs", "log /var/log/mail.log cannot be looked at " + as, "sudo postseal doctor"},
		{"DKIM key", denied("/etc/postseal/dkim.pem"), doctor.Hint, "reports", "DKIM key /etc/postseal/dkim.pem cannot be read " + as, "sudo postseal doctor"},
		{"socket", denied(queue + "/postseal/map.sock"), doctor.Hint, "sockets", "map.sock cannot be looked at " + as, "sudo postseal doctor"},
		{"folder of the sockets", denied(queue + "/postseal"), doctor.Hint, "sockets", "map.sock cannot be looked at " + as, "sudo postseal doctor"},
		{"resolv.conf of the chroot", func(b *bed) {
			delete(b.files, queue+"/etc/resolv.conf")
			b.files[queue+"/etc/resolv.conf/file"] = ""
		}, doctor.Hint, "resolv.conf", queue + "/etc/resolv.conf cannot be read: ", "sudo postseal doctor"},
		{"a broken disk", func(b *bed) { b.stuck = "/var/log/mail.log" }, doctor.Error, "logs", "log /var/log/mail.log: ", "set another path"},
		{"clock", func(b *bed) { b.unsynced = errors.New("this system does not tell") }, doctor.Hint, "clock", "whether the clock is kept right cannot be told: this system does not tell", "timedatectl status"},
	}, newBed)
}

// TestState: who owns the databases, and what room they have.
func TestState(t *testing.T) {
	const file = "/var/lib/postseal/policies.db"
	provoke(t, []row{
		{"foreign database", func(b *bed) { b.foreign = file }, doctor.Error, "state", file + " belongs to user 54321, its folder to ", "chown "},
		{"space unknown", func(b *bed) { b.free = 0 }, doctor.Hint, "state", "the space on the disk of /var/lib/postseal cannot be told: function not implemented", "df -h /var/lib/postseal"},
		{"little space", func(b *bed) { b.free = 100 << 20 }, doctor.Warning, "state", "100 MiB are free on the disk of /var/lib/postseal", "df -h /var/lib/postseal"},
		{"no space", func(b *bed) { b.free = 1 << 20 }, doctor.Error, "state", "1 MiB are free on the disk of /var/lib/postseal: nothing can be recorded", "df -h /var/lib/postseal"},
		{"enough space", func(b *bed) { b.free = 512 << 20 }, doctor.OK, "state", "is in order", ""},
	}, newBed)
}

package main

// freshHost is the name of a new user's machine.
const freshHost = "fresh.lab.test"

// newcomer is how a new user comes to postseal with one mail server. What is not in
// debian, start and stop, or said by README.md or setup, stands in lab and labSettings.
type newcomer struct {
	mta      string   // as postseal setup has it
	leavings string   // of other stories, in the chroot: files
	debian   string   // commands by which Debian's package sets up the mail server anew
	lab      string   // commands for what the lab needs and no user does
	start    string   // and stop: commands of Debian
	stop     string   //
	sockets  []string // of the log
	mailLog  string
	stamp    string // regular expression: where files say when they were made
	proofs   []proof
	sessions func() counts
}

// proof is what the mail server's own log must say.
type proof struct {
	what    string
	pattern string // regular expression
}

// What the lab adds to a new user's machine, apart from the address of the resolver, the
// names in /etc/hosts and its authority among those that the machine trusts:

// labSettings are made in postseal.toml. The lab's hosts are on loopback, where a policy or
// a message may not be fetched from or sent to otherwise; and its resolvers know no
// names but the lab's own, so that the usual ones would prove nothing.
const labSettings = `sed -i -e 's/^allow_private_addresses = false/allow_private_addresses = true/' ` +
	`-e 's/^self_test_signed = .*/self_test_signed = ["one.selftest.` + string(signed) + `", "two.selftest.` + string(signed) + `"]/' ` +
	`-e 's/^self_test_unsigned = .*/self_test_unsigned = "one.selftest.` + string(plain) + `"/' ` +
	`-e 's/^self_test_bogus = .*/self_test_bogus = "bogus.selftest.` + string(signed) + `"/' /etc/postseal/postseal.toml`

// labPostfix: the lab has other servers at port 25, and no root zone for Postfix to
// ask whether its resolver validates.
const labPostfix = `postconf -e 'inet_interfaces = 127.0.0.1' 'dnssec_probe = ns:` + string(signed) + `'`

// labExim: MX hosts on loopback are ignored otherwise, by Debian's routers, too.
const labExim = `echo 'POSTSEAL_IGNORE = 192.0.2.0/24' >>/etc/exim4/exim4.conf.localmacros; update-exim4.conf`

var freshPostfix = newcomer{
	mta: "postfix",
	leavings: "/etc/postfix/main.cf /etc/postfix/master.cf /etc/postfix/postseal* /etc/mailname " +
		"/var/spool/postfix /var/lib/postfix/* /var/log/postfix.log",
	debian: `mkdir /var/spool/postfix
		debconf-set-selections <<END
postfix postfix/main_mailer_type select Internet Site
postfix postfix/mailname string ` + freshHost + `
END
		dpkg-reconfigure postfix`,
	lab:     labPostfix,
	start:   "/etc/init.d/postfix start",
	stop:    "/etc/init.d/postfix stop",
	sockets: []string{"/dev/log", "/var/spool/postfix/dev/log"}, // as postfix.conf of rsyslog.d has it
	mailLog: machineLog,
	proofs: []proof{
		{"Verified by DANE", `Verified TLS connection established to mx1\.dane\.signed\.test\S*`},
		{"Verified by MTA-STS", `Verified TLS connection established to mx1\.sts\.plain\.test\S*`},
		{"sent to the domain with DANE", `to=<\S+@dane\.signed\.test>.*status=sent`},
		{"sent to the domain with MTA-STS", `to=<\S+@sts\.plain\.test>.*status=sent`},
	},
	sessions: func() counts { return expected("postfix", freshDANE+" mx1 tlsa success\n"+freshSTS+" mx1 sts success") },
}

var freshExim = newcomer{
	mta: "exim",
	leavings: "/etc/exim4/conf.d/*/*postseal* /etc/exim4/single.conf /etc/exim4/update-exim4.conf.conf /etc/mailname " +
		"/var/lib/exim4/* /var/log/exim4/* /var/spool/exim4/*/*",
	debian: `debconf-set-selections <<END
exim4-config exim4/dc_eximconfig_configtype select internet site; mail is sent and received directly using SMTP
exim4-config exim4/mailname string ` + freshHost + `
END
		dpkg-reconfigure exim4-config`,
	lab:     labExim,
	start:   "/etc/init.d/exim4 start",
	stop:    "/etc/init.d/exim4 stop",
	sockets: []string{"/dev/log"},
	mailLog: "/var/log/exim4/mainlog",
	proofs: []proof{
		{"Verified by DANE", `=> \S+@dane\.signed\.test .*CV=dane`},
		{"Verified by MTA-STS", `=> \S+@sts\.plain\.test .*CV=yes`},
	},
	sessions: func() counts { return expected("exim", freshDANE+" mx1 tlsa success\n"+freshSTS+" mx1 sts success") },
}

var freshSendmail = newcomer{
	mta: "sendmail",
	leavings: "/etc/mail/lab.* /etc/mail/table.* /etc/mail/access* /etc/mail/local-host-names /etc/mail/virtusertable* " +
		"/etc/mail/mailertable* /etc/mail/sendmail.mc /etc/mail/sendmail.cf /etc/mail/*.old /var/spool/mqueue/* /var/spool/mqueue-client/*",
	debian:  "dpkg-reconfigure sendmail-bin",
	stamp:   `(?m)^##### (on:|in:?|built by) .*$`,
	start:   "/etc/init.d/sendmail start",
	stop:    "/etc/init.d/sendmail stop",
	sockets: []string{"/dev/log"},
	mailLog: machineLog,
	proofs: []proof{
		{"the host of the domain with DANE is verified", `STARTTLS=client, relay=mx1\.dane\.signed\.test.*verify=TRUSTED`},
		{"sent to the domain with DANE", `to=<\S+@dane\.signed\.test>.*mailer=esmtp.*stat=Sent`},
		sendmailVerified, sendmailSent,
	},
	sessions: func() counts {
		return expected("sendmail", freshDANE+" mx1 tlsa success\n"+freshSTS+" mx1 sts success")
	},
}

var (
	sendmailVerified = proof{"the host of the domain with MTA-STS is verified", `STARTTLS=client, relay=mx1\.sts\.plain\.test.*verify=OK`}
	sendmailSent     = proof{"sent to the domain with MTA-STS", `to=<\S+@sts\.plain\.test>.*mailer=esmtp.*stat=Sent`}
)

// withoutDANE is for Sendmail before 8.18: the daemon delivers what has TLSA records, and
// counts that itself.
func (n newcomer) withoutDANE() newcomer {
	n.proofs = []proof{
		{"to the domain with DANE by way of the daemon", `to=<\S+@dane\.signed\.test>.*mailer=postseal.*stat=Sent`},
		sendmailVerified, sendmailSent,
	}
	n.sessions = func() counts {
		return plus(expected("sendmail", freshSTS+" mx1 sts success"), expected("delivery", freshDANE+" mx1 tlsa success"))
	}
	return n
}

package main

import (
	"context"
	"io"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"postseal/policy/requiretls"
)

// Where Sendmail is, and its daemon.
const (
	sendmailAddress = "127.0.25.11"
	sendmailDaemon  = "127.0.0.11"
	sendmailLocal   = "8467" // port of its daemon without milter
)

// A domain of Sendmail's own whose only address leads out of the host.
const (
	virtualDomain = "virtual.plain.test" // in a zone that is served: Sendmail asks for every domain in a header
	virtualTarget = "virtual@none.plain.test"
)

// newSendmail configures Sendmail and starts it, with a daemon of its own.
func newSendmail(ctx context.Context, l *lab) (o *other, err error) {
	if o, err = newOther(l, "sendmail", l.sendmailRoot, sendmailAddress); err != nil {
		return nil, err
	}
	if o.dane, err = l.sendmailDANE(ctx); err != nil {
		return nil, err
	}
	o.parse, o.hands = sendmailAttempts, "postseal"
	o.flush = []string{"/usr/sbin/sendmail", "-C/etc/mail/lab.cf", "-Lsm-mta", "-q"}
	o.mainlog = filepath.Join(l.folder, "sendmail.log")
	if o.daemon, err = newDaemon(l.folder, l.postseal, "daemon-sendmail", validating, sendmailDaemon, nil); err != nil {
		return nil, err
	}
	own := ""
	if o.dane {
		own = "define(`confDANE', `true')dnl\n"
	} else if err := o.daemon.amend("dane = true", "dane = false", `for = ["mixed", `, `for = ["mixed", "dane", `); err != nil {
		return nil, err
	}
	err = o.daemon.amend("[milter]\n", "[milter]\nroute = \"recipient\"\n",
		`local_domains = ["`+localDomain+`"]`, `local_domains = ["`+o.domain+`", "`+virtualDomain+`"]`+"\n"+`local_relay = "tcp:`+sendmailDaemon+":"+sendmailLocal+`"`)
	if err != nil {
		return nil, err
	}
	if err := o.daemon.start(ctx); err != nil {
		return nil, err
	}
	if _, err := syslog(filepath.Join(o.root, "dev/log"), "sendmail", o.mainlog); err != nil {
		return nil, err
	}
	err = o.write(map[string]string{
		"etc/mail/lab.mc":           sendmailConfig(o.domain, own),
		"etc/mail/table.mc":         sendmailConfig(o.domain, own+"define(`POSTSEAL_RULE_0')dnl\nFEATURE(`mailertable', `hash /etc/mail/mailertable')dnl\n"),
		"etc/mail/mailertable":      byName("none-signed").domain() + "\tsmtp:[127.0.0.1]\n",
		"etc/mail/access":           "Connect:127\tRELAY\n",
		"etc/mail/local-host-names": o.domain + "\n" + virtualDomain + "\n",
		"etc/mail/virtusertable":    "list@" + virtualDomain + "\t" + virtualTarget + "\n",
	})
	if err != nil {
		return nil, err
	}
	err = o.prepare(ctx, `
		rm -rf /var/spool/mqueue/*
		for map in access virtusertable mailertable; do makemap hash /etc/mail/$map </etc/mail/$map; done
		for cf in lab table; do m4 /etc/mail/$cf.mc >/etc/mail/$cf.cf; done
		chown root:root /etc/mail /etc/mail/* /var/spool/mqueue`) // Sendmail trusts no files of others
	if err != nil {
		return nil, err
	}
	return o, o.start(ctx, "/usr/sbin/sendmail", "-C/etc/mail/lab.cf", "-Lsm-mta", "-bD")
}

// sendmailDANE reports whether Sendmail can do DANE itself, which came with 8.18.
func (l *lab) sendmailDANE(ctx context.Context) (bool, error) {
	built, err := output(ctx, "chroot", filepath.Join(l.work, l.sendmailRoot), "/usr/sbin/sendmail", "-d0.13", "-bt")
	return slices.Contains(strings.Fields(built), "DANE"), err
}

// sendmailConfig is sendmail.mc: what an administrator would have, but for
// addresses and time limits. own are lines of the site.
func sendmailConfig(domain, own string) string {
	return "divert(-1)\n" +
		"include(`/usr/share/sendmail/cf/m4/cf.m4')\n" +
		"divert(0)dnl\n" +
		"OSTYPE(`debian')dnl\n" +
		"undefine(`confHOST_STATUS_DIRECTORY')dnl\n" +
		"define(`confDOMAIN_NAME', `" + domain + "')dnl\n" +
		"define(`confPID_FILE', `/run/sendmail.pid')dnl\n" +
		"define(`QUEUE_DIR', `/var/spool/mqueue')dnl\n" +
		"define(`confDONT_PROBE_INTERFACES', `true')dnl\n" +
		"define(`confMIN_QUEUE_AGE', `0')dnl\n" +
		"define(`confTO_CONNECT', `5s')dnl\n" +
		"define(`confTO_ICONNECT', `5s')dnl\n" +
		"define(`confCACERT', `/etc/ssl/postseal-lab-ca.pem')dnl\n" +
		"define(`POSTSEAL_HOST', `" + sendmailDaemon + "')dnl\n" +
		"define(`POSTSEAL_LOCAL_PORT', `" + sendmailLocal + "')dnl\n" +
		"FEATURE(`no_default_msa')dnl\n" +
		"FEATURE(`local_lmtp', `/usr/libexec/sendmail/mail.local')dnl\n" +
		"FEATURE(`access_db', `hash -T<TMPF> /etc/mail/access')dnl\n" +
		"FEATURE(`use_cw_file')dnl\n" +
		"FEATURE(`virtusertable', `hash /etc/mail/virtusertable')dnl\n" +
		"DAEMON_OPTIONS(`Family=inet, Name=MTA, Port=25, Addr=" + sendmailAddress + "')dnl\n" +
		"CLIENT_OPTIONS(`Family=inet, Address=" + sendmailAddress + "')dnl\n" +
		own +
		"include(`/usr/share/postseal/sendmail/postseal.m4')dnl\n" +
		"MAILER(`local')dnl\n" +
		"MAILER(`smtp')dnl\n" +
		"include(`/usr/share/postseal/sendmail/postseal_rules.m4')dnl\n"
}

// syslog writes what comes to a log socket into a file, as long as the process lives or
// until it is closed.
func syslog(socket, host, path string) (io.Closer, error) {
	if err := os.RemoveAll(socket); err != nil {
		return nil, err
	}
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(socket, 0o666); err != nil {
		return nil, err
	}
	const stamp = len("Nov 28 05:00:00 ")
	if err := os.WriteFile(path, nil, 0o644); err != nil {
		return nil, err
	}
	go func() {
		line := make([]byte, 8<<10) // Sendmail's are shorter
		for {
			n, err := conn.Read(line)
			if err != nil {
				return
			}
			_, text, _ := strings.Cut(string(line[:n]), ">") // of the priority
			if len(text) > stamp {
				text = text[:stamp] + host + " " + text[stamp:] // as every syslog daemon does
			}
			file, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o644) // anew: it may be renamed at any time
			if err != nil {
				return
			}
			file.WriteString(strings.TrimRight(text, "\n\x00") + "\n")
			file.Close()
		}
	}()
	return conn, nil
}

var (
	sendmailLine = regexp.MustCompile(`: to=(\S+), .*?mailer=([^,]+), .*stat=(.*)`)
	sendmailRule = regexp.MustCompile(`: ruleset=tls_rcpt, arg1=([^,]+), .*(reject=.*)`)
	anAddress    = regexp.MustCompile(`<([^>]+)>`)
)

// sendmailAttempts reads Sendmail's log. Recipients with one result share a line,
// and those of tagged messages bear a suffix there. Before 8.18.2 only the line of the
// ruleset says why one was refused. "dsn=" is not looked at: on a line "Sent" it can be
// that of the recipient before.
func sendmailAttempts(log string) []attempt {
	var all []attempt
	rejected := map[string]string{} // by recipient
	for line := range strings.Lines(log) {
		if r := sendmailRule.FindStringSubmatch(strings.TrimSpace(line)); r != nil {
			rejected[r[1]] = " " + r[2]
		}
		l := sendmailLine.FindStringSubmatch(strings.TrimSpace(line))
		if l == nil {
			continue
		}
		status := "bounced"
		switch word, _, _ := strings.Cut(strings.ReplaceAll(l[3], ":", " "), " "); word {
		case "Sent":
			status = "sent"
		case "Deferred", "queued":
			status = "deferred"
		}
		for _, to := range anAddress.FindAllStringSubmatch(l[1], -1) {
			recipient, _ := requiretls.CutSuffix(to[1])
			all = append(all, attempt{recipient: recipient, status: status, via: l[2], text: l[0] + rejected[to[1]]})
			delete(rejected, to[1])
		}
	}
	return all
}

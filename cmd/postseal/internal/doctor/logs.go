package doctor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"time"

	"postseal/cmd/postseal/internal/config"
	"postseal/cmd/postseal/internal/host"
)

// quiet is how old the last line of a log may be that is still written to.
const quiet = 48 * time.Hour

// checkLogs looks at the sources of sessions: whether the daemon can read them, and
// whether the mail server logs enough.
func checkLogs(_ context.Context, e *env) []Finding {
	found := []Finding{}
	if !e.Config.Records() {
		return []Finding{hint("no source of sessions is set: nothing is counted, and there is nothing to report", `[[reporting.log]] path = "/var/log/mail.log" (or "journal"), format = "postfix"`)}
	}
	for _, l := range e.Config.Reporting.Logs {
		found = append(found, e.readable(l)...)
		found = append(found, e.detail(l)...)
	}
	found = append(found, e.followed()...)
	if len(found) == 0 && len(e.Config.Reporting.Logs) > 0 {
		found = append(found, ok("the logs are readable and tell enough"))
	}
	return found
}

func (e *env) readable(l config.MailLog) []Finding {
	account, known := e.daemonAccount()
	name := account.Name
	if l.Path == config.Journal {
		return e.journal(account, known)
	}
	info, err := e.Machine.Stat(l.Path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return []Finding{failure("log "+l.Path+" does not exist: no session is counted", `apt-get install rsyslog; or path = "journal" in [[reporting.log]]`)}
	case errors.Is(err, fs.ErrPermission):
		return []Finding{hint("log "+l.Path+" cannot be looked at as this user", "sudo postseal doctor")}
	case err != nil:
		return []Finding{failure("log "+l.Path+": "+reason(err), "set another path in [[reporting.log]]")}
	}
	var found []Finding
	if known {
		if denied, is := errors.AsType[*accessError](e.Machine.reach(account, l.Path, read)); is {
			found = append(found, failure(fmt.Sprintf("the daemon cannot read log %s: %s", l.Path, denied), fmt.Sprintf("usermod -aG adm %s; systemctl restart postseal   (the group of the log, here %d)", name, denied.group)))
		}
	}
	if age := e.Machine.Now().Sub(info.ModTime()); age > quiet {
		found = append(found, warning(fmt.Sprintf("log %s was not written to for %d days: it may be another file now", l.Path, int(age.Hours()/24)), "ls -lt /var/log | head; see the path in [[reporting.log]]"))
	}
	return found
}

// journal is for root and the groups systemd-journal and adm (journalctl(1)).
func (e *env) journal(account Account, known bool) []Finding {
	if e.Machine.Program("journalctl") == "" {
		return []Finding{failure("the journal is followed with journalctl, which is not there: no session is counted", `path = "/var/log/mail.log" in [[reporting.log]]`)}
	}
	for _, dir := range host.Journals() {
		if !e.Machine.Exists(dir) {
			continue
		}
		if !known {
			return nil
		}
		if denied, is := errors.AsType[*accessError](e.Machine.reach(account, dir, read)); is {
			return []Finding{failure("the daemon cannot read the journal: "+denied.Error(), "usermod -aG systemd-journal "+account.Name+"; systemctl restart postseal")}
		}
		info, err := e.Machine.Stat(dir)
		if gid, good := groupOf(info); err == nil && good && account.UID != 0 && !containsID(account.GIDs, gid) {
			return []Finding{failure("the daemon's user "+account.Name+" is not in the group of the journal: it sees no line of the mail server", "usermod -aG systemd-journal "+account.Name+"; systemctl restart postseal")}
		}
		return nil
	}
	return []Finding{failure("there is no journal on this machine", `path = "/var/log/mail.log" in [[reporting.log]]`)}
}

// detail: what the mail server does not log nobody can count.
func (e *env) detail(l config.MailLog) []Finding {
	switch {
	case l.Format == "postfix" && e.postfix != nil:
		return e.postfixDetail(l)
	case l.Format == "exim" && e.exim != nil:
		return e.eximDetail()
	case l.Format == "sendmail" && e.sendmail != nil:
		return e.sendmailDetail()
	}
	return nil
}

func (e *env) postfixDetail(l config.MailLog) []Finding {
	const do = "postconf -e 'smtp_tls_loglevel = 1'; postfix reload"
	switch level := e.postfix.get("smtp_tls_loglevel"); level {
	case "1":
		return nil
	case "0", "":
		if l.Sessions == "missing" {
			return nil // successes come from elsewhere
		}
		return []Finding{failure("smtp_tls_loglevel is 0: Postfix logs no session that succeeds, and reports would tell of failures alone", do)}
	default:
		return []Finding{hint("smtp_tls_loglevel is "+level+": 1 tells all that reports need", do)}
	}
}

func (e *env) eximDetail() []Finding {
	selector := e.exim.set("log_selector")
	if selector == "MAIN_LOG_SELECTOR" {
		selector = e.exim.set("MAIN_LOG_SELECTOR")
	}
	var missing []string
	for _, word := range []string{"incoming_interface", "outgoing_interface"} {
		if !strings.Contains(selector, "+"+word) && !strings.Contains(selector, "+all") {
			missing = append(missing, "+"+word)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	return []Finding{warning("log_selector lacks "+strings.Join(missing, " ")+": Exim does not log which connection a line is of, both words are needed for that", "log_selector = +tls_cipher +tls_certificate_verified +tls_peerdn +tls_sni +dnssec +incoming_interface +outgoing_interface +outgoing_port")}
}

func (e *env) sendmailDetail() []Finding {
	const do = "define(`confLOG_LEVEL', `12')dnl in sendmail.mc" + rebuild
	switch n := e.sendmail.logLevel(); {
	case n < 9:
		return []Finding{failure(fmt.Sprintf("LogLevel is %d: Sendmail logs no TLS session, 9 is the least that does", n), do)}
	case n < 12:
		return []Finding{hint(fmt.Sprintf("LogLevel is %d: Sendmail does not log why a certificate failed, 12 does", n), do)}
	}
	return nil
}

// followed is what the daemon itself has seen of its sources.
func (e *env) followed() []Finding {
	r := e.status.Recording
	if e.statusErr != nil || r == nil {
		return nil
	}
	var found []Finding
	for _, l := range r.Logs {
		if l.CaughtUp.IsZero() {
			found = append(found, warning("the daemon has not read log "+l.Path+" yet", "journalctl -u postseal | grep "+l.Path))
		}
		if l.Lines > 100 && l.Unparsed > l.Lines/10 {
			found = append(found, warning(fmt.Sprintf("of %d lines of log %s %d were not understood", l.Lines, l.Path, l.Unparsed), "see the format in [[reporting.log]]; postseal logs replay --format "+l.Format+" "+l.Path))
		}
	}
	if d := r.Datagrams; d != nil && d.Lost > 0 {
		found = append(found, warning(fmt.Sprintf("%d datagrams of Postfix came too fast and were lost", d.Lost), "echo net.unix.max_dgram_qlen=512 > /etc/sysctl.d/postseal.conf; sysctl --system; systemctl restart postseal"))
	}
	if d := r.Datagrams; d != nil && d.Refused > 0 {
		found = append(found, warning(fmt.Sprintf("%d datagrams came from users who may not report", d.Refused), "add the mail server's user to reporting.tlsrpt_users"))
	}
	if r.Dropped > 0 {
		found = append(found, warning(fmt.Sprintf("%d sessions were dropped, since the disk did not take them in time", r.Dropped), "df -h; iostat -x 1"))
	}
	if s := r.Reports; s != nil && s.GaveUp > 0 {
		found = append(found, warning(fmt.Sprintf("%d reports could not be sent within a day", s.GaveUp), "postseal report list"))
	}
	return found
}

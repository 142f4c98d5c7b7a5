package main

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"postseal/cache/boltdb"
	"postseal/reporting"
	"postseal/reporting/store"
)

// Who takes the reports of the lab, and who sends them.
const (
	reportDomain = "rua." + string(plain)
	reportBox    = "tlsrpt@" + reportDomain
	reporter     = "reporter." + string(plain)
	selector     = "tlsrpt"
)

// reported are the domains that the story is about: where each wants its report, and
// what the report must say: policy type, sessions that succeeded and failed, result.
var reported = []struct {
	name, rua  string
	policy     string
	ok, failed int
	result     string
}{
	{"none", "mailto:" + reportBox, "no-policy-found", 1, 0, ""},
	{"dane", "https://" + reportHost + "/dane", "tlsa", 1, 0, ""},
	{"sts", "mailto:" + reportBox + ",https://" + reportHost + "/sts", "sts", 1, 0, ""},
	{"sts-selfsigned", "mailto:" + reportBox, "sts", 0, 1, "certificate-not-trusted"},
	{"dane-nostarttls", "mailto:" + reportBox, "tlsa", 0, 1, "starttls-not-supported"},
	// This one wants it where its own certificate, under its own policy, is no good.
	{"sts-expired", "", "sts", 0, 1, "certificate-expired"},
	{bouncing, "mailto:perm@" + byName(bouncing).domain(), "sts", 1, 0, ""},
}

// bouncing is a domain whose host refuses the address for reports.
const bouncing = "sts-wildcard"

// reportsStory: a day of sessions of each Postfix becomes reports. They arrive at another
// Postfix as mail, with signatures that an independent verifier takes, and at a web
// server.
func (l *lab) reportsStory(ctx context.Context) error {
	defer func() {
		l.names.rua, l.names.extra = nil, nil
		l.names.change(ctx)
		l.daemon.restart(ctx)
		for _, p := range l.postfixes {
			p.reconfigure(ctx)
		}
	}()
	for i, p := range l.postfixes {
		if err := l.quiet(ctx); err != nil {
			return err
		}
		if err := l.reports(ctx, p, l.postfixes[(i+1)%len(l.postfixes)]); err != nil {
			l.report.add(p, "reports", "the story goes on", "", []string{err.Error()})
		}
	}
	return nil
}

func (l *lab) reports(ctx context.Context, p, receiver *postfix) error {
	key, err := l.publishReporting(ctx, receiver)
	if err != nil {
		return err
	}
	box := filepath.Join(receiver.root, mailFolder, "inbox")
	if err := os.RemoveAll(box); err != nil {
		return err
	}
	// The daemon does not know that the mailbox is local there.
	if err := receiver.reconfigure(ctx, "virtual_mailbox_domains = "+localDomain+", "+reportDomain, "smtpd_milters =", noQueueRuns); err != nil {
		return err
	}
	settings := fmt.Sprintf(`organization = "The Lab"
contact = "tlsrpt@%[1]s"
bounces_to = "bounces@%[2]s"
submit = "smtp://%[3]s:25"
retry = "2s"
ca_file = %[4]q
allow_private_addresses = true
dkim = [{ selector = %[5]q, key_file = %[6]q }]
`, reporter, localDomain, p.address, l.daemon.authority, selector, key)
	if err := l.followAnew(ctx, p, settings+logSource(p.log.path, "postfix", "all")); err != nil {
		return err
	}
	if err := l.sendToReported(ctx, p); err != nil {
		return err
	}
	posts := len(l.web.taken())
	if err := l.dayIsOver(ctx); err != nil {
		return err
	}
	mails, err := l.mailedReports(ctx, receiver, box)
	if err != nil {
		return err
	}
	l.compareReports(p, "by mail", mails)
	posted, err := l.postedReports(ctx, posts)
	if err != nil {
		return err
	}
	l.compareReports(p, "by https", posted)
	return l.afterReports(ctx, p)
}

// publishReporting puts into DNS who wants reports and with which key they are signed,
// and returns the file of the key.
func (l *lab) publishReporting(ctx context.Context, receiver *postfix) (string, error) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return "", err
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return "", err
	}
	public, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return "", err
	}
	file := filepath.Join(l.folder, "dkim.pem")
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}), 0o600); err != nil {
		return "", err
	}
	text := base64.StdEncoding.EncodeToString(public)
	l.names.extra = []string{
		"rua 0 IN MX 10 collector", "collector 0 IN A " + receiver.address, "web.rua IN A " + policyAddress,
		fmt.Sprintf(`%s._domainkey.reporter 0 IN TXT "v=DKIM1; k=rsa; p=" "%s" "%s"`, selector, text[:200], text[200:]),
	}
	l.names.rua = map[string]string{}
	for _, r := range reported {
		if r.rua != "" {
			l.names.rua[byName(r.name).domain()] = r.rua
		}
	}
	if err := l.names.change(ctx); err != nil {
		return "", err
	}
	time.Sleep(stsTTL) // of the records of before
	return file, nil
}

// sendToReported makes the sessions.
func (l *lab) sendToReported(ctx context.Context, p *postfix) error {
	want := counts{}
	for _, r := range reported {
		s := byName(r.name)
		to := p.name("m", s.domain())
		if err := p.patiently(ctx, mail{from: sender, to: []string{to}}); err != nil {
			return err
		}
		if _, err := p.first(ctx, to); err != nil {
			return err
		}
		outcome := r.result
		if outcome == "" {
			outcome = "success"
		}
		want = plus(want, expected("postfix", fmt.Sprintf("%s mx1 %s %s", r.name, r.policy, outcome)))
	}
	got, err := l.daemon.await(ctx, want)
	if err != nil {
		return err
	}
	l.compareCounts(p, "reports", "sessions of the day", got, want)
	return nil
}

// dayIsOver restarts the daemon two days later, as it were: what it has counted is moved
// back by two days, which are closed.
func (l *lab) dayIsOver(ctx context.Context) error {
	l.daemon.process.stop()
	if err := l.daemon.moveBack(2); err != nil {
		return err
	}
	return l.daemon.start(ctx)
}

// moveBack moves all counts back by some days. The daemon must not run.
func (d *daemon) moveBack(by reporting.Day) error {
	db, err := boltdb.Open(filepath.Join(d.folder, "state/sessions.db"), boltdb.Options{Schema: sessionsSchema, Buckets: store.Buckets})
	if err != nil {
		return err
	}
	defer db.Close()
	s := &store.Store{DB: db}
	days, err := s.Days()
	if err != nil {
		return err
	}
	for _, day := range days {
		back := reporting.Batch{Counts: map[reporting.Day]map[reporting.Key]uint64{day - by: {}}, Policies: map[reporting.PolicyID]reporting.Policy{},
			Marks: map[string][]byte{"closed": []byte((day - by).String())}}
		err := s.Each(day, "", func(k reporting.Key, p reporting.Policy, n uint64) bool {
			back.Counts[day-by][k], back.Policies[k.Policy] = n, p
			return true
		})
		if err := errors.Join(err, s.Write(back), s.Drop(day)); err != nil {
			return err
		}
	}
	return nil
}

// afterReports: the report on a domain whose own certificate its policy forbids has
// arrived there all the same (RFC 8460 §3), and no session of a report is counted.
func (l *lab) afterReports(ctx context.Context, p *postfix) error {
	to := "reports@" + byName("sts-expired").domain()
	d, err := p.first(ctx, to)
	l.expectAt(p, "reports", "RPT-076: the report on sts-expired reaches its host in spite of the policy", told(d, err), err == nil && d.status == "sent")
	select {
	case <-ctx.Done():
	case <-time.After(settled):
	}
	got, err := l.daemon.sessions(ctx)
	if err != nil {
		return err
	}
	l.report.add(p, "reports", "RPT-077: no session of a report is counted", fmt.Sprintf("%d sessions", got.total()), got.differs(counts{}))
	list, err := l.daemon.command(ctx, "report", "list", "--day", time.Now().UTC().AddDate(0, 0, -2).Format(time.DateOnly))
	if err != nil {
		return err
	}
	fmt.Printf("\n  postseal report list\n%s\n", indent(list))
	for _, r := range reported {
		state := "sent"
		if r.name == bouncing {
			state = "bounced"
		}
		line := lineWith(list, byName(r.name).domain()+" ")
		l.expectAt(p, "reports", "report list: "+r.name+" "+state, strings.TrimSpace(line), slices.Contains(strings.Fields(line), state))
	}
	return nil
}

func lineWith(text, part string) string {
	for line := range strings.Lines(text) {
		if strings.Contains(line, part) {
			return line
		}
	}
	return ""
}

func indent(text string) string {
	return "  " + strings.ReplaceAll(strings.TrimSpace(text), "\n", "\n  ")
}

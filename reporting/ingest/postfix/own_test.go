package postfix_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"postseal/reporting"
	"postseal/reporting/ingest/maillog"
	"postseal/reporting/ingest/maillog/maillogtest"
	"postseal/reporting/ingest/postfix"
)

// mta37 writes lines as Postfix's host does.
func mta37(lines ...string) []string {
	for i, line := range lines {
		lines[i] = "Nov 22 03:23:59 mta37 postfix/" + line
	}
	return lines
}

const (
	pfReceived = "cleanup[23423]: CED959C04A2: message-id=" + maillogtest.OwnID
	pfUp       = "smtp[23424]: Verified TLS connection established to mx.sts-ok.example.test[127.0.60.101]:25: TLSv1.3 with cipher TLS_AES_128_GCM_SHA256 (128/128 bits) key-exchange X25519 server-signature ECDSA (prime256v1)"
	pfTo       = "smtp[23424]: CED959C04A2: to=<rua@sts-ok.example.test>, relay=mx.sts-ok.example.test[127.0.60.101]:25, delay=0.05, delays=0/0/0.04/0, "
	pfSent     = pfTo + "dsn=2.0.0, status=sent (250 2.0.0 queued as 6E)"
	pfDeferred = pfTo + "dsn=4.2.1, status=deferred (host mx.sts-ok.example.test[127.0.60.101] said: 451 4.2.1 mailbox busy (in reply to RCPT TO command))"
	pfRemoved  = "qmgr[23052]: CED959C04A2: removed"
	pfSession  = "sts-ok.example.test mx.sts-ok.example.test 127.0.60.101"
	pfWasSent  = "sent rua@sts-ok.example.test 250 2.0.0 queued as 6E"
	pfWasBusy  = "deferred rua@sts-ok.example.test host mx.sts-ok.example.test[127.0.60.101] said: 451 4.2.1 mailbox busy (in reply to RCPT TO command)"
)

// asOther turns lines about a message of ours into those about somebody's, at once with
// the queue id.
func asOther(line string) string {
	return strings.NewReplacer("CED959C04A2", "EA8829C04C2", maillogtest.OwnID, "<1795317839847546657@client.example.test>", "rua@", "u1@").Replace(line)
}

func TestOwn(t *testing.T) {
	const pfWithoutTLS = "TLS is required, but was not offered by host mx.sts-ok.example.test[127.0.60.101]"
	const pfNoTLS = "dsn=4.7.4, status=deferred (" + pfWithoutTLS + ")"
	pfReused := asOther(strings.Replace(pfSent, "25, delay", "25, conn_use=2, delay", 1))
	maillogtest.RunOwn(t, "RPT-077", postfix.New, []maillogtest.OwnCase{
		{"neither counted nor overlooked", mta37("pickup[23051]: CED959C04A2: uid=0 from=<postmaster@mta.example.org>", pfReceived,
			"qmgr[23052]: CED959C04A2: from=<postmaster@mta.example.org>, size=3221, nrcpt=1 (queue active)", pfUp, pfSent, pfRemoved),
			1, []string{pfWasSent}},
		{"a failure is not counted either", mta37(pfReceived,
			"smtp[23424]: server certificate verification failed for mx.sts-ok.example.test[127.0.60.101]:25: certificate has expired",
			strings.Replace(pfUp, "Verified", "Untrusted", 1), pfTo+"dsn=4.7.5, status=deferred (Server certificate not verified)"),
			1, []string{"deferred rua@sts-ok.example.test Server certificate not verified"}},
		{"with soft_bounce = yes it is tried again", mta37(pfReceived, pfUp, strings.Replace(pfDeferred, "status=deferred", "status=SOFTBOUNCE", 1)),
			1, []string{pfWasBusy}},
		{"STARTTLS that only the delivery line tells of", mta37(pfReceived, pfTo+pfNoTLS),
			1, []string{"deferred rua@sts-ok.example.test " + pfWithoutTLS}},
		{"the same of two recipients is one session", mta37(pfReceived, pfTo+pfNoTLS, strings.Replace(pfTo, "rua@", "tls@", 1)+pfNoTLS),
			1, []string{"deferred rua@sts-ok.example.test " + pfWithoutTLS, "deferred tls@sts-ok.example.test " + pfWithoutTLS}},
		{"a connection that a report has opened is nobody else's", mta37(pfReceived, asOther(pfReceived), pfUp, pfSent, pfReused, pfRemoved), 1, []string{pfWasSent}},
		{"a connection that another message has opened is counted once", mta37(asOther(pfReceived), pfReceived, pfUp, asOther(pfSent),
			strings.Replace(pfSent, "25, delay", "25, conn_use=2, delay", 1)), 0, []string{pfSession, pfWasSent}},
		{"two recipients", mta37(pfReceived, pfUp,
			pfTo+"dsn=5.1.1, status=bounced (host mx.sts-ok.example.test[127.0.60.101] said: 550 5.1.1 no such user (in reply to RCPT TO command))",
			strings.Replace(pfSent, "rua@", "tls@", 1), pfRemoved),
			1, []string{"bounced rua@sts-ok.example.test host mx.sts-ok.example.test[127.0.60.101] said: 550 5.1.1 no such user (in reply to RCPT TO command)",
				"sent tls@sts-ok.example.test 250 2.0.0 queued as 6E"}},
		{"handed back by a filter", mta37(pfReceived,
			"smtp[23424]: CED959C04A2: to=<rua@sts-ok.example.test>, relay=127.0.0.1[127.0.0.1]:10024, delay=0.1, delays=0/0/0/0.1, dsn=2.0.0, status=sent (250 2.0.0 Ok: queued as 904BE9C04CD)", pfRemoved,
			"smtpd[23414]: 904BE9C04CD: client=localhost[127.0.0.1]", strings.Replace(pfReceived, "CED959C04A2", "904BE9C04CD", 1),
			pfUp, strings.Replace(pfSent, "CED959C04A2", "904BE9C04CD", 1), "qmgr[23052]: 904BE9C04CD: removed"),
			1, []string{"sent rua@sts-ok.example.test 250 2.0.0 Ok: queued as 904BE9C04CD", pfWasSent}},
		{"queued again", mta37(pfReceived, "postsuper[77]: CED959C04A2: requeued", "pickup[23051]: 904BE9C04CD: uid=0 from=<postmaster@mta.example.org> orig_id=CED959C04A2",
			strings.Replace(pfReceived, "CED959C04A2", "904BE9C04CD", 1), pfUp, strings.Replace(pfSent, "CED959C04A2", "904BE9C04CD", 1)), 1, []string{pfWasSent}},
		{"given up after days", mta37(pfReceived, pfUp, pfDeferred, "qmgr[23052]: CED959C04A2: from=<postmaster@mta.example.org>, status=expired, returned to sender",
			"cleanup[23423]: 0758E9C04DB: message-id=<20261122032413.0758E9C04DB@mta37.site.test>", "bounce[24316]: CED959C04A2: sender non-delivery notification: 0758E9C04DB", pfRemoved),
			1, []string{pfWasBusy, "bounced  expired"}},
		{"no host for it", mta37(pfReceived, "error[9]: CED959C04A2: to=<rua@gone.example.test>, relay=none, delay=0.01, delays=0/0.01/0/0, dsn=5.4.4, status=bounced (Host or domain name not found)"),
			0, []string{"bounced rua@gone.example.test Host or domain name not found"}},
		{"by the fallback, whose sessions are its own", mta37(pfReceived, "postseal-relaxed/lmtp[833]: CED959C04A2: to=<rua@plain.test>, relay=mta37.site.test[postseal/lmtp-relaxed.sock], delay=0.05, delays=0.01/0.01/0/0.03, dsn=5.1.1, status=bounced (host mta37.site.test[postseal/lmtp-relaxed.sock] said: 550 5.1.1 no such mailbox (in reply to end of DATA command))"),
			0, []string{"bounced rua@plain.test host mta37.site.test[postseal/lmtp-relaxed.sock] said: 550 5.1.1 no such mailbox (in reply to end of DATA command)"}},
		{"to an alias", mta37(pfReceived, strings.Replace(pfSent, ">, relay", ">, orig_to=<tlsrpt@a.example>, relay", 1)), 0, []string{"sent tlsrpt@a.example 250 2.0.0 queued as 6E"}},
		{"a queue id that is given again", mta37(pfReceived, pfUp, pfSent, pfRemoved, pfUp, pfSent), 1, []string{pfWasSent, pfSession}},
		{"a queue id that is given again, where a line got lost", mta37(pfReceived, pfUp, pfSent, strings.Replace(asOther(pfReceived), "EA8829C04C2", "CED959C04A2", 1), pfUp, pfSent), 1, []string{pfWasSent, pfSession}},
		{"the queue id of another host", append(mta37(pfReceived), strings.Split(strings.ReplaceAll(strings.Join(mta37(pfUp, pfSent), "\n"), "mta37", "mta38"), "\n")...), 0, []string{pfSession}},
		{"the Message-ID of another site", mta37(strings.Replace(pfReceived, "mta.example.org", "mta.example.net", 1), pfUp, pfSent), 0, []string{pfSession}},
	})
}

// Each form of syslog, for sessions and for a delivery that smtp has no part in.
func TestOwnForms(t *testing.T) {
	lines := []string{pfReceived, pfUp, pfDeferred, "error[9]: CED959C04A2: to=<rua@b.example>, relay=none, delay=0, delays=0/0/0/0, dsn=5.4.4, status=bounced (no)", pfRemoved, pfUp, pfSent}
	want := []string{pfWasBusy, "bounced rua@b.example no", pfSession}
	for name, form := range maillogtest.Forms {
		t.Run("RPT-077 "+name, func(t *testing.T) {
			var log []string
			for _, line := range mta37(append([]string(nil), lines...)...) {
				log = append(log, form(maillogtest.Cut(t, line)))
			}
			got, stats := maillogtest.Heard(t, postfix.New, log)
			if diff := cmp.Diff(want, got); diff != "" || stats.Own != 1 {
				t.Errorf("%s, %+v", diff, stats)
			}
		})
	}
}

// Text of a remote host is printable, and bounded.
func TestOwnText(t *testing.T) {
	var got maillog.Delivery
	o := maillogtest.Options()
	o.Delivered = func(d maillog.Delivery) { got = d }
	r := postfix.New(o)
	for _, line := range mta37(pfReceived, pfTo+"dsn=4.0.0, status=deferred (host x said: 451 <script>\x1b[2J\u00e9"+strings.Repeat("x", 2000)+")") {
		r.Line([]byte(line), nil)
	}
	if !strings.HasPrefix(got.Text, "host x said: 451 <script> [2J?xx") || len(got.Text) != 400 {
		t.Errorf("%d bytes: %q", len(got.Text), got.Text)
	}
}

// Of more reports than can be open the oldest are forgotten, so that the state stays small.
func TestOwnBounds(t *testing.T) {
	r := postfix.New(maillogtest.Options())
	id := func(n int) string { return fmt.Sprintf("%011X", n) }
	for n := range 10_000 {
		r.Line([]byte(mta37(strings.Replace(pfReceived, "CED959C04A2", id(n), 1))[0]), nil)
	}
	if n := len(r.AppendState(nil)); n > 1<<20 {
		t.Errorf("the state has %d bytes", n)
	}
	var sessions []reporting.Session
	for _, n := range []int{0, 9_999} {
		for _, line := range mta37(pfUp, strings.Replace(pfSent, "CED959C04A2", id(n), 1)) {
			r.Line([]byte(line), func(s reporting.Session) { sessions = append(sessions, s) })
		}
	}
	if s := r.Stats(); len(sessions) != 1 || s.Own != 1 {
		t.Errorf("%d sessions, %+v", len(sessions), s)
	}
	// What nothing was heard of for a week has ended without a word.
	later := strings.Replace(mta37(strings.Replace(pfReceived, "CED959C04A2", id(10_000), 1))[0], "Nov 22", "Nov 30", 1)
	r = postfix.New(maillogtest.Options())
	r.Line([]byte(mta37(pfReceived)[0]), nil)
	before := len(r.AppendState(nil))
	r.Line([]byte(later), nil)
	if n := len(r.AppendState(nil)); n != before {
		t.Errorf("state of %d bytes, then of %d", before, n)
	}
}

// Without anybody who knows our messages, all are others'.
func TestOwnNobody(t *testing.T) {
	o := maillogtest.Options()
	o.Own = nil
	r := postfix.New(o)
	sessions := 0
	for _, line := range mta37(pfReceived, pfUp, pfSent, pfRemoved) {
		r.Line([]byte(line), func(reporting.Session) { sessions++ })
	}
	if s := r.Stats(); sessions != 1 || s.Own != 0 {
		t.Errorf("%d sessions, %+v", sessions, s)
	}
}

func TestOtherState(t *testing.T) { maillogtest.OtherState(t, postfix.New, mta37(pfUp)[0]) }

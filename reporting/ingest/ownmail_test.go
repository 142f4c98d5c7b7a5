package ingest_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"postseal/reporting"
	"postseal/reporting/ingest"
	"postseal/reporting/ingest/maillog"
)

const (
	bareID = "tlsrpt.0123456789abcdef0123456789abcdef@mta.example.org"
	ownID  = "<" + bareID + ">"
)

// ownReader is one that tells of our own messages.
func ownReader(t testing.TB, format string, told func(maillog.Delivery)) maillog.Reader {
	t.Helper()
	r, err := ingest.New(format, maillog.Options{Location: time.UTC, Now: func() time.Time { return recordedOn }, Own: isOwn, Delivered: told})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// heard is what a log tells, in order: "DOMAIN MX IP …" of sessions, and "STATUS RECIPIENT
// TEXT" of deliveries of ours. It must be the same where another reader goes on at each line.
func heard(t *testing.T, format string, lines []string) (all []string, stats maillog.Stats) {
	t.Helper()
	var again []string
	into := func(list *[]string) (func(reporting.Session), func(maillog.Delivery)) {
		return func(s reporting.Session) { *list = append(*list, inShort(s)) }, func(d maillog.Delivery) {
			if d.MessageID != ownID || d.Time.IsZero() {
				t.Errorf("%+v", d)
			}
			*list = append(*list, strings.TrimSpace(string(d.Status)+" "+d.Recipient+" "+d.Text))
		}
	}
	emit, told := into(&all)
	r := ownReader(t, format, told)
	emitAgain, toldAgain := into(&again)
	next := ownReader(t, format, toldAgain)
	for _, line := range lines {
		r.Line([]byte(line), emit)
		state := next.AppendState(nil)
		next = ownReader(t, format, toldAgain)
		if err := next.RestoreState(state); err != nil {
			t.Fatal(err)
		}
		if same := next.AppendState(nil); !bytes.Equal(same, state) {
			t.Fatalf("state does not survive: %q, then %q", state, same)
		}
		next.Line([]byte(line), emitAgain)
	}
	r.Flush(emit)
	next.Flush(emitAgain)
	if diff := cmp.Diff(all, again); diff != "" {
		t.Errorf("restarted at each line: %s", diff)
	}
	return all, r.Stats()
}

// ownCase is a log with messages of ours, and what it tells.
type ownCase struct {
	name  string
	lines []string
	own   uint64 // sessions of ours
	want  []string
}

func runOwnCases(t *testing.T, format string, cases []ownCase) {
	for _, c := range cases {
		t.Run("RPT-077 "+c.name, func(t *testing.T) {
			got, stats := heard(t, format, c.lines)
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Error(diff)
			}
			if stats.Own != c.own || stats.Unparsed != 0 || stats.Dropped != 0 || stats.Open != 0 {
				t.Errorf("counted %+v", stats)
			}
		})
	}
}

// mta37 writes lines as Postfix's host does.
func mta37(lines ...string) []string {
	for i, line := range lines {
		lines[i] = "Nov 22 03:23:59 mta37 postfix/" + line
	}
	return lines
}

const (
	pfReceived = "cleanup[23423]: CED959C04A2: message-id=" + ownID
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
	return strings.NewReplacer("CED959C04A2", "EA8829C04C2", ownID, "<1795317839847546657@client.example.test>", "rua@", "u1@").Replace(line)
}

func TestPostfixOwn(t *testing.T) {
	const pfWithoutTLS = "TLS is required, but was not offered by host mx.sts-ok.example.test[127.0.60.101]"
	const pfNoTLS = "dsn=4.7.4, status=deferred (" + pfWithoutTLS + ")"
	pfReused := asOther(strings.Replace(pfSent, "25, delay", "25, conn_use=2, delay", 1))
	runOwnCases(t, "postfix", []ownCase{
		{"neither counted nor overlooked", mta37("pickup[23051]: CED959C04A2: uid=0 from=<postmaster@mta.example.org>", pfReceived,
			"qmgr[23052]: CED959C04A2: from=<postmaster@mta.example.org>, size=3221, nrcpt=1 (queue active)", pfUp, pfSent, pfRemoved),
			1, []string{pfWasSent}},
		{"a failure is not counted either", mta37(pfReceived,
			"smtp[23424]: server certificate verification failed for mx.sts-ok.example.test[127.0.60.101]:25: certificate has expired",
			strings.Replace(pfUp, "Verified", "Untrusted", 1), pfTo+"dsn=4.7.5, status=deferred (Server certificate not verified)"),
			1, []string{"deferred rua@sts-ok.example.test Server certificate not verified"}},
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
func TestPostfixOwnForms(t *testing.T) {
	lines := []string{pfReceived, pfUp, pfDeferred, "error[9]: CED959C04A2: to=<rua@b.example>, relay=none, delay=0, delays=0/0/0/0, dsn=5.4.4, status=bounced (no)", pfRemoved, pfUp, pfSent}
	want := []string{pfWasBusy, "bounced rua@b.example no", pfSession}
	for name, form := range forms {
		t.Run("RPT-077 "+name, func(t *testing.T) {
			var log []string
			for _, line := range mta37(append([]string(nil), lines...)...) {
				log = append(log, form(cut(t, line)))
			}
			got, stats := heard(t, "postfix", log)
			if diff := cmp.Diff(want, got); diff != "" || stats.Own != 1 {
				t.Errorf("%s, %+v", diff, stats)
			}
		})
	}
}

func TestEximOwn(t *testing.T) {
	const (
		received = "<= postmaster@mta.example.org U=postseal P=local S=3221 id=" + bareID
		again    = "2026-11-22 09:01:00 1xUxp6-0006vs-2u "
		next     = "2026-11-22 03:01:00 1xUxpO-0007G8-1I "
		late     = "2026-11-22 09:00:00 1xUxpO-0007G8-1I "
		refused  = "a TLS session is required, but the server did not offer TLS support"
	)
	runOwnCases(t, "exim", []ownCase{
		{"neither counted nor overlooked", []string{id16 + received, id16 + sent, id16 + "Completed"}, 1, []string{"sent u@a.example 250 2.0.0 queued"}},
		{"submitted by SMTP, with a subject", []string{id23 + "<= postmaster@mta.example.org H=localhost [127.0.0.1] P=esmtps X=TLS1.3:TLS_AES_256_GCM_SHA384:256 CV=no S=3221 id=" + bareID + ` T="Report Domain: a.example id=x" for u@a.example`, id23 + sent},
			1, []string{"sent u@a.example 250 2.0.0 queued"}},
		{"a failure, and hours later the end", []string{id16 + received, id16 + "H=mx.a.example [192.0.2.1]:25: " + refused, id16 + "== u@a.example " + via + "defer (-38) " + mx + "DT=0s: " + refused,
			late + "<= x@b.example U=x P=local S=1 id=1@b.example", late + "Completed", // six hours later nothing of it is open
			again + "** u@a.example " + via + mx + x13 + `DN="CN=mx.a.example": SMTP error from remote mail server after RCPT TO:<u@a.example>: 550 5.1.1 no such user`, again + "Completed"},
			2, []string{"deferred u@a.example " + refused, "bounced u@a.example SMTP error from remote mail server after RCPT TO:<u@a.example>: 550 5.1.1 no such user"}},
		{"no MX host in the policy", []string{id16 + received, id16 + "== u@a.example R=sts_none_left defer (-32) DT=0s: MTA-STS: no MX host of a.example matches the policy (mx.b.example)"},
			1, []string{"deferred u@a.example MTA-STS: no MX host of a.example matches the policy (mx.b.example)"}},
		{"no host at all", []string{id16 + received, id16 + "** u@a.example <tlsrpt@c.example>: all relevant MX records point to non-existent hosts", id16 + "Completed"},
			0, []string{"bounced tlsrpt@c.example all relevant MX records point to non-existent hosts"}},
		{"a failure without its recipient", []string{id16 + received, id16 + "H=mx.a.example [192.0.2.1]:25: " + refused, id16 + "== u@a.example " + via + "defer (-53): retry time not reached for any host", id16 + "Completed"},
			1, []string{"deferred u@a.example retry time not reached for any host"}},
		{"two recipients", []string{id16 + received, id16 + sent, id16 + strings.Replace(sent, "=> u@", "-> v@", 1), id16 + "Completed"},
			1, []string{"sent u@a.example 250 2.0.0 queued", "sent v@a.example 250 2.0.0 queued"}},
		{"a connection that a report has opened is nobody else's", []string{id16 + received, next + "<= x@b.example U=x P=local S=1 id=1@b.example", id16 + sent,
			next + strings.Replace(sent, ":25 I=", ":25* I=", 1), id16 + "Completed", next + "Completed"}, 1, []string{"sent u@a.example 250 2.0.0 queued"}},
		{"handed back by a filter", []string{id16 + received, id16 + "=> u@a.example R=filter T=filter_pipe", id16 + "Completed", next + received, next + sent, next + "Completed"},
			1, []string{"sent u@a.example", "sent u@a.example 250 2.0.0 queued"}},
		{"by the fallback, whose sessions are its own", []string{id16 + received, id16 + "** u@a.example R=relaxed T=postseal_relaxed H=127.0.0.1 [127.0.0.1]:10026: LMTP error from remote mail server after end of data: 550 5.1.1 no such mailbox"},
			0, []string{"bounced u@a.example LMTP error from remote mail server after end of data: 550 5.1.1 no such mailbox"}},
		{"a message id after its end", []string{id16 + received, id16 + "Completed", id16 + sent}, 0, []string{good}},
		{"the Message-ID of another site", []string{id16 + strings.Replace(received, "example.org id", "example.org id", 1) + ".example.net", id16 + sent}, 0, []string{good}},
		{"without a Message-ID", []string{id16 + "<= postmaster@mta.example.org U=postseal P=local S=3221", id16 + sent}, 0, []string{good}},
	})
}

func TestSendmailOwn(t *testing.T) {
	const (
		from     = ": from=<postmaster@mta.example.org>, size=3221, class=0, nrcpts=1, msgid=" + ownID + ", proto=ESMTP, daemon=MTA, relay=localhost [127.0.0.1]"
		received = "Nov 22 03:12:18 mta sm-mta[25729]: 6AM3CIox025729" + from
		again    = "Nov 22 03:12:19 mta sm-mta[25732]: 6AM3CJyz025740: to=<w@a.example>, delay=00:00:01, xdelay=00:00:01, mailer=esmtp, pri=30084, relay=mx.a.example. [192.0.2.1], dsn="
		unknown  = "5.1.1, stat=User unknown"
	)
	two := strings.NewReplacer("to=<u@a.example>,", "to=<u@a.example>,<v@a.example>,")
	runOwnCases(t, "sendmail", []ownCase{
		{"neither counted nor overlooked", []string{received, verified, smtpSent}, 1, []string{"sent u@a.example Sent (queued)"}},
		{"a failure is not counted either", []string{received, failed, server + "FAIL, relay=mx.a.example, reject=403 4.7.0 authentication failed", deferred + "403 4.7.0 authentication failed"},
			1, []string{"deferred u@a.example Deferred: 403 4.7.0 authentication failed"}},
		{"a user that is unknown", []string{received, verified, smtpTo + "5.1.1, reply=550 5.1.1 <u@a.example> who?, stat=User unknown", "Nov 22 03:12:18 mta sm-mta[25732]: 6AM3CIox025729: 6AM3CIoy025732: DSN: User unknown"},
			1, []string{"bounced u@a.example User unknown: 550 5.1.1 <u@a.example> who?"}},
		{"given up after days", []string{received, verified, deferred + "Connection reset by mx.a.example.", process + "6AM3CIox025729: 6AM3CIoy025732: sender notify: Warning: could not send message for past 4 hours",
			process + "6AM3CIox025729: 6AM3CIoz025732: sender notify: Cannot send message for 5 days", verified, smtpSent},
			1, []string{"deferred u@a.example Deferred: Connection reset by mx.a.example.", "bounced  Cannot send message for 5 days", good}},
		{"two recipients in one line", []string{strings.Replace(received, "nrcpts=1", "nrcpts=2", 1), verified, two.Replace(smtpSent)},
			1, []string{"sent u@a.example Sent (queued)", "sent v@a.example Sent (queued)"}},
		{"two recipients, each with a line", []string{strings.Replace(received, "nrcpts=1", "nrcpts=2", 1), verified, smtpTo + unknown, verified, strings.Replace(smtpSent, "<u@", "<v@", 1), verified, smtpSent},
			2, []string{"bounced u@a.example User unknown", "sent v@a.example Sent (queued)", good}},
		{"a connection that a report has opened is nobody else's", []string{received, verified, smtpSent, // the ruleset objects to another recipient there
			process + "6AM3CJyz025740: ruleset=tls_rcpt, arg1=w@a.example, relay=mx.a.example., reject=450 4.7.0 <w@a.example>... mx.a.example not listed in SANs", again + "4.7.0, stat=Deferred"},
			1, []string{"sent u@a.example Sent (queued)"}},
		{"handed in by sendmail(1)", []string{"Nov 22 03:12:17 mta sendmail[25728]: 6AM3CHab025728" + from,
			"Nov 22 03:12:18 mta sendmail[25728]: 6AM3CHab025728: to=u@a.example, ctladdr=postseal (999/999), delay=00:00:01, xdelay=00:00:00, mailer=relay, pri=30084, relay=[127.0.0.1] [127.0.0.1], dsn=2.0.0, stat=Sent (6AM3CIox025729 Message accepted for delivery)",
			received, verified, smtpSent},
			1, []string{"sent u@a.example Sent (6AM3CIox025729 Message accepted for delivery)", "sent u@a.example Sent (queued)"}},
		{"queued is nothing yet", []string{received, smtpTo + "0.0.0, stat=queued", verified, smtpSent}, 1, []string{"sent u@a.example Sent (queued)"}},
		{"the queue id of another host", []string{strings.Replace(received, " mta ", " mtb ", 1), verified, smtpSent}, 0, []string{good}},
		{"the Message-ID of another site", []string{strings.Replace(received, "mta.example.org>, proto", "mta.example.net>, proto", 1), verified, smtpSent}, 0, []string{good}},
	})
}

// Text of a remote host is printable, and bounded.
func TestOwnText(t *testing.T) {
	var got maillog.Delivery
	r := ownReader(t, "postfix", func(d maillog.Delivery) { got = d })
	for _, line := range mta37(pfReceived, pfTo+"dsn=4.0.0, status=deferred (host x said: 451 <script>\x1b[2J\u00e9"+strings.Repeat("x", 2000)+")") {
		r.Line([]byte(line), nil)
	}
	if !strings.HasPrefix(got.Text, "host x said: 451 <script> [2J?xx") || len(got.Text) != 400 {
		t.Errorf("%d bytes: %q", len(got.Text), got.Text)
	}
}

// The state of the version before had no messages of ours; another one is refused.
func TestOwnStateBefore(t *testing.T) {
	for format, c := range map[string]struct {
		line   string
		before byte
	}{
		"postfix":  {mta37(pfUp)[0], 1},
		"exim":     {id16 + "H=mx.a.example [192.0.2.1]:25: a TLS session is required, but the server did not offer TLS support", 0x41},
		"sendmail": {verified, 0x61},
	} {
		t.Run(format, func(t *testing.T) {
			r := ownReader(t, format, nil)
			r.Line([]byte(c.line), nil)
			state := r.AppendState(nil)
			sealed := func(version byte, rest []byte) []byte {
				body := append([]byte{version}, rest...)
				return binary.LittleEndian.AppendUint32(body, crc32.ChecksumIEEE(body))
			}
			none := len(state) - 4 - 1 // behind it, that there are no messages of ours
			next := ownReader(t, format, nil)
			if err := next.RestoreState(sealed(c.before, state[1:none])); err != nil {
				t.Fatal(err)
			}
			if got := next.AppendState(nil); !bytes.Equal(got, state) {
				t.Errorf("%q, then %q", state, got)
			}
			for _, bad := range [][]byte{sealed(c.before, state[1:none+1]), sealed(c.before+2, state[1:none+1]), sealed(c.before+1, state[1:none])} {
				if next.RestoreState(bad) == nil {
					t.Errorf("%q was taken", bad)
				}
			}
		})
	}
}

// Of more reports than can be open the oldest are forgotten, so that the state stays small.
func TestOwnBounds(t *testing.T) {
	r := ownReader(t, "postfix", nil)
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
	r, err := ingest.New("postfix", maillog.Options{Location: time.UTC, Now: func() time.Time { return recordedOn.AddDate(0, 0, 9) }, Own: isOwn})
	if err != nil {
		t.Fatal(err)
	}
	r.Line([]byte(mta37(pfReceived)[0]), nil)
	before := len(r.AppendState(nil))
	r.Line([]byte(later), nil)
	if n := len(r.AppendState(nil)); n != before {
		t.Errorf("state of %d bytes, then of %d", before, n)
	}
}

// Without anybody who knows our messages, all are others'.
func TestOwnNobody(t *testing.T) {
	r, err := ingest.New("postfix", maillog.Options{Location: time.UTC, Now: func() time.Time { return recordedOn }})
	if err != nil {
		t.Fatal(err)
	}
	sessions := 0
	for _, line := range mta37(pfReceived, pfUp, pfSent, pfRemoved) {
		r.Line([]byte(line), func(reporting.Session) { sessions++ })
	}
	if s := r.Stats(); sessions != 1 || s.Own != 0 {
		t.Errorf("%d sessions, %+v", sessions, s)
	}
}

func TestEventsOwn(t *testing.T) {
	ours, other := "i="+ownID, "i=<1@client.example.test>"
	refused := func(id string) string {
		return said("msg:host:defer", "a TLS session is required, but the server did not offer TLS support", "e=-38", id)
	}
	for _, tt := range []struct {
		name  string
		lines []string
		want  []string
	}{
		{"a success", []string{said("smtp:ehlo", withTLS, clearText, ours), said("smtp:ehlo", withTLS, underTLS, ours), said("msg:delivery", "250 ok", underTLS, ours)}, nil},
		{"a failure", []string{said("smtp:ehlo", withoutTLS, clearText, ours), refused(ours)}, nil},
		{"of another message", []string{said("smtp:ehlo", withTLS, clearText, other), said("smtp:ehlo", withTLS, underTLS, other)}, []string{"a.example mx.a.example"}},
		{"without a Message-ID", []string{said("smtp:ehlo", withTLS, clearText, "i="), said("smtp:ehlo", withTLS, underTLS, "i=")}, []string{"a.example mx.a.example"}},
		{"as the events were before", []string{said("smtp:ehlo", withoutTLS, clearText), refused("p=25")}, []string{"a.example mx.a.example starttls-not-supported"}},
	} {
		t.Run("RPT-077 "+tt.name, func(t *testing.T) {
			if diff := cmp.Diff(tt.want, joined(t, &ingest.Events{Own: isOwn}, tt.lines...)); diff != "" {
				t.Error(diff)
			}
		})
	}
	e := &ingest.Events{Own: isOwn}
	if err := e.Line(strings.Replace(said("smtp:ehlo", withTLS, ours), " i=", " i=!", 1)); err == nil {
		t.Error("what is no base64 was taken")
	}
}

// mortal is a store that takes nothing any more after a crash.
type mortal struct {
	*counter
	dead atomic.Bool
}

func (m *mortal) Write(b reporting.Batch) error {
	if m.dead.Load() {
		return errors.New("crashed")
	}
	return m.counter.Write(b)
}

// TestOwnAfterCrash: what became of a report is told before the checkpoint is stored, and
// so again after a crash in between; a report that was open then is still known.
func TestOwnAfterCrash(t *testing.T) {
	store := &mortal{counter: &counter{counts: map[string]uint64{}, marks: map[string][]byte{}}}
	path := filepath.Join(t.TempDir(), "mail.log")
	write := func(lines ...string) {
		t.Helper()
		f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.WriteString(strings.Join(lines, "\n") + "\n"); err != nil || f.Close() != nil {
			t.Fatal(err)
		}
	}
	// run follows the log until done, or until it has crashed at what became of a report.
	run := func(crash bool, done func() bool) (told []maillog.Status) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		store.dead.Store(false)
		recorder := &reporting.Recorder{Store: store}
		f := &ingest.Follower{Path: path, Source: "postfix", Recorder: recorder, Store: store, Whole: true, Poll: time.Millisecond}
		f.Reader = ownReader(t, "postfix", func(d maillog.Delivery) {
			told = append(told, d.Status)
			if crash {
				store.dead.Store(true)
				cancel()
			}
		})
		var parts sync.WaitGroup
		defer parts.Wait()
		parts.Go(func() {
			if err := recorder.Run(ctx); err != nil && !crash {
				t.Error(err)
			}
		})
		parts.Go(func() {
			defer cancel()
			for ctx.Err() == nil && !done() {
				time.Sleep(time.Millisecond)
			}
		})
		if err := f.Run(ctx); err != nil {
			t.Error(err)
		}
		return told
	}
	counted := func(n uint64) func() bool {
		return func() bool { return store.of("sts-ok.example.test") == n }
	}
	never := func() bool { return false }

	write(mta37(pfReceived, pfUp, asOther(pfSent))...)
	run(false, counted(1)) // the checkpoint is behind these lines, and the report is open
	write(mta37(pfUp, pfDeferred, pfUp, asOther(pfSent))...)
	if told := run(true, never); len(told) != 1 {
		t.Fatalf("told %q", told)
	}
	t.Run("RPT-077 told again, and not counted", func(t *testing.T) {
		if told := run(false, counted(2)); len(told) != 1 || told[0] != maillog.Deferred {
			t.Errorf("told %q", told)
		}
	})
}

package sendmail_test

import (
	"strings"
	"testing"

	"postseal/reporting/ingest/maillog/maillogtest"
	"postseal/reporting/ingest/sendmail"
)

func TestOwn(t *testing.T) {
	const (
		from     = ": from=<postmaster@mta.example.org>, size=3221, class=0, nrcpts=1, msgid=" + maillogtest.OwnID + ", proto=ESMTP, daemon=MTA, relay=localhost [127.0.0.1]"
		received = "Nov 22 03:12:18 mta sm-mta[25729]: 6AM3CIox025729" + from
		again    = "Nov 22 03:12:19 mta sm-mta[25732]: 6AM3CJyz025740: to=<w@a.example>, delay=00:00:01, xdelay=00:00:01, mailer=esmtp, pri=30084, relay=mx.a.example. [192.0.2.1], dsn="
		unknown  = "5.1.1, stat=User unknown"
	)
	two := strings.NewReplacer("to=<u@a.example>,", "to=<u@a.example>,<v@a.example>,")
	maillogtest.RunOwn(t, "RPT-077", sendmail.New, []maillogtest.OwnCase{
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
		{"more recipients than can be, by the sender's choice", []string{strings.Replace(received, "nrcpts=1", "nrcpts=99999999", 1), verified, smtpSent}, 1, []string{"sent u@a.example Sent (queued)"}},
		{"less than none", []string{strings.Replace(received, "nrcpts=1", "nrcpts=-3", 1), verified, smtpSent}, 1, []string{"sent u@a.example Sent (queued)"}},
		{"queued is nothing yet", []string{received, smtpTo + "0.0.0, stat=queued", verified, smtpSent}, 1, []string{"sent u@a.example Sent (queued)"}},
		{"the queue id of another host", []string{strings.Replace(received, " mta ", " mtb ", 1), verified, smtpSent}, 0, []string{good}},
		{"the Message-ID of another site", []string{strings.Replace(received, "mta.example.org>, proto", "mta.example.net>, proto", 1), verified, smtpSent}, 0, []string{good}},
	})
}

func TestOtherState(t *testing.T) { maillogtest.OtherState(t, sendmail.New, verified) }

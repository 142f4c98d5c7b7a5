package exim_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"postseal/reporting/ingest/exim"
	"postseal/reporting/ingest/maillog/maillogtest"
)

func TestOwn(t *testing.T) {
	const (
		received = "<= postmaster@mta.example.org U=postseal P=local S=3221 id=" + maillogtest.BareID
		again    = "2026-11-22 09:01:00 1xUxp6-0006vs-2u "
		next     = "2026-11-22 03:01:00 1xUxpO-0007G8-1I "
		late     = "2026-11-22 09:00:00 1xUxpO-0007G8-1I "
		refused  = "a TLS session is required, but the server did not offer TLS support"
	)
	maillogtest.RunOwn(t, "RPT-077", exim.New, []maillogtest.OwnCase{
		{"neither counted nor overlooked", []string{id16 + received, id16 + sent, id16 + "Completed"}, 1, []string{"sent u@a.example 250 2.0.0 queued"}},
		{"submitted by SMTP, with a subject", []string{id23 + "<= postmaster@mta.example.org H=localhost [127.0.0.1] P=esmtps X=TLS1.3:TLS_AES_256_GCM_SHA384:256 CV=no S=3221 id=" + maillogtest.BareID + ` T="Report Domain: a.example id=x" for u@a.example`, id23 + sent},
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

func TestOtherState(t *testing.T) {
	maillogtest.OtherState(t, exim.New, id16+"H=mx.a.example [192.0.2.1]:25: a TLS session is required, but the server did not offer TLS support")
}

func TestEventsOwn(t *testing.T) {
	ours, other := "i="+maillogtest.OwnID, "i=<1@client.example.test>"
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
			if diff := cmp.Diff(tt.want, joined(t, &exim.Events{Own: maillogtest.IsOwn}, tt.lines...)); diff != "" {
				t.Error(diff)
			}
		})
	}
	e := &exim.Events{Own: maillogtest.IsOwn}
	if err := e.Line(strings.Replace(said("smtp:ehlo", withTLS, ours), " i=", " i=!", 1)); err == nil {
		t.Error("what is no base64 was taken")
	}
}

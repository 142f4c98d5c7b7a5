package main

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

// short leaves out what the line says beside.
func short(all []attempt) [][3]string {
	var out [][3]string
	for _, a := range all {
		out = append(out, [3]string{a.recipient, a.status, a.via})
	}
	return out
}

// Recipients that share a line, suffixes, a stale dsn=, and lines that are none.
func TestSendmailAttempts(t *testing.T) {
	const log = `Nov 28 04:19:40 sm-mta[1]: 6AS4Jdk9000522: from=<reader@sendmail.lab.test>, size=6, nrcpts=7, relay=localhost [127.0.0.1]
Nov 28 04:19:40 sm-mta[2]: 6AS4Jdk9000522: to=<a@d.test.requiretls.invalid>,<b@D.test>, ctladdr=<reader@sendmail.lab.test> (2000/8), delay=00:00:01, mailer=postseal-requiretls, pri=1, relay=[127.0.0.11] [127.0.0.11], dsn=5.7.30, stat=Sent
Nov 28 04:19:40 sm-mta[2]: 6AS4Jdk9000522: to=<c@d.test>, delay=00:00:01, mailer=esmtp, relay=mx.d.test. [127.1.1.1], dsn=4.7.0, reply=450 4.7.0 no, stat=Deferred: 450 4.7.0 no
Nov 28 04:19:40 sm-mta[2]: 6AS4Jdk9000522: to=<d@d.test>, delay=00:00:01, mailer=esmtp, dsn=5.0.0, stat=Service unavailable
Nov 28 04:19:40 sm-mta[2]: 6AS4Jdk9000522: 6AS4Jdk9000523: DSN: Service unavailable
`
	want := [][3]string{
		{"a@d.test", "sent", "postseal-requiretls"}, {"b@D.test", "sent", "postseal-requiretls"},
		{"c@d.test", "deferred", "esmtp"}, {"d@d.test", "bounced", "esmtp"},
	}
	if diff := cmp.Diff(want, short(sendmailAttempts(log))); diff != "" {
		t.Error(diff)
	}
}

// The router counts where no transport was reached, and the address as given.
func TestEximAttempts(t *testing.T) {
	const log = `2026-11-28 04:20:43 1xX9vX-0000Eh-1i <= reader@exim.lab.test H=(client) [127.0.0.1] P=esmtp S=300
2026-11-28 04:20:43 1xX9vX-0000Eh-1i => a@d.test R=postseal_sts T=postseal_smtp_sts H=mx.d.test [127.1.1.1] X=TLS1.3:C:128 CV=yes C="250 taken"
2026-11-28 04:20:43 1xX9vX-0000Eh-1i -> b@d.test R=postseal_sts T=postseal_smtp_sts H=mx.d.test [127.1.1.1] X=TLS1.3:C:128 CV=yes C="250 taken"
2026-11-28 04:20:43 1xX9vX-0000Eh-1i == c@d.test R=postseal_policy defer (-1): policy service unavailable
2026-11-28 04:20:43 1xX9vX-0000Eh-1i ** d@d.test R=postseal_requiretls T=postseal_lmtp_requiretls H=127.0.0.12 [127.0.0.12]: LMTP error after DATA: 550 5.7.30 no
2026-11-28 04:20:43 1xX9vX-0000Eh-1i => reader <reader@exim.lab.test> R=local_user T=mail_spool
2026-11-28 04:20:43 1xX9vX-0000Eh-1i Completed
`
	want := [][3]string{
		{"a@d.test", "sent", "postseal_smtp_sts"}, {"b@d.test", "sent", "postseal_smtp_sts"}, {"c@d.test", "deferred", "postseal_policy"},
		{"d@d.test", "bounced", "postseal_lmtp_requiretls"}, {"reader@exim.lab.test", "sent", "mail_spool"},
	}
	if diff := cmp.Diff(want, short(eximAttempts(log))); diff != "" {
		t.Error(diff)
	}
}

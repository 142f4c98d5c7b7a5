package postfix_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"postseal/reporting"
	"postseal/reporting/ingest/maillog"
	"postseal/reporting/ingest/maillog/maillogtest"
	"postseal/reporting/ingest/postfix"
	"postseal/reporting/tlsrpt"
)

// smtpLog writes lines of one smtp process, one second apart. A line that starts with
// "@" names another process in its first word: "@postfix/lmtp[8] text".
func smtpLog(lines ...string) []byte {
	var b strings.Builder
	at := time.Date(2026, time.November, 22, 3, 0, 0, 0, time.UTC)
	for i, line := range lines {
		tag := "postfix/smtp[7]"
		if rest, ok := strings.CutPrefix(line, "@"); ok {
			tag, line, _ = strings.Cut(rest, " ")
		}
		fmt.Fprintf(&b, "%s mta37 %s: %s\n", at.Add(time.Duration(i)*time.Second).Format(time.Stamp), tag, line)
	}
	return []byte(b.String())
}

const (
	mxA  = "mx.a.example[192.0.2.1]"
	mxA2 = "mx2.a.example[192.0.2.2]"
	upA  = "Verified TLS connection established to " + mxA + ":25: TLSv1.3 with cipher X (256/256 bits)"
	upA2 = "Verified TLS connection established to " + mxA2 + ":25: TLSv1.3 with cipher X (256/256 bits)"
	id   = "1FA629C04DA"
)

// to is a line about u@DOMAIN, with the status "sent" where text starts with 250.
func to(address, relay, text string) string {
	status := "status=deferred"
	if strings.HasPrefix(text, "250") {
		status = "status=sent"
	}
	return id + ": to=<" + address + ">, relay=" + relay + ", delay=0.1, delays=0/0/0.1/0, dsn=2.0.0, " + status + " (" + text + ")"
}

// reads checks the sessions of a log: "DOMAIN HOST[IP] RESULT REASON".
func reads(t *testing.T, log []byte, want ...string) maillog.Stats {
	t.Helper()
	sessions, stats := replayed(t, log)
	var got []string
	for _, s := range sessions {
		ip := ""
		if s.MXIP.IsValid() {
			ip = "[" + s.MXIP.String() + "]"
		}
		got = append(got, strings.TrimSpace(s.Domain+" "+s.MXHost+ip+" "+strings.TrimSpace(string(s.Result)+" "+s.Reason)))
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s\n%s", diff, log)
	}
	return stats
}

func TestSessions(t *testing.T) {
	t.Run("RPT-024 messages and recipients on one session count once", func(t *testing.T) {
		reads(t, smtpLog(upA, to("u@a.example", mxA+":25", "250 ok"), to("v@a.example", mxA+":25", "250 ok"),
			"Verified TLS connection reused to "+mxA+":25: TLSv1.3", to("w@a.example", mxA+":25", "250 ok")),
			"a.example mx.a.example[192.0.2.1]")
	})
	t.Run("RPT-024 a delivery that fails after TLS is a session", func(t *testing.T) {
		reads(t, smtpLog(upA, to("u@a.example", mxA+":25", "host "+mxA+" said: 550 5.1.1 no (in reply to RCPT TO command)")),
			"a.example mx.a.example[192.0.2.1]")
	})
	t.Run("RPT-027 plain network trouble is no session", func(t *testing.T) {
		reads(t, smtpLog(
			"connect to "+mxA+":25: Connection timed out", to("u@a.example", "none", "connect to "+mxA+":25: Connection timed out"),
			to("u@a.example", mxA+":25", "lost connection with "+mxA+" while receiving the initial server greeting"),
			to("u@a.example", mxA+":25", "host "+mxA+" refused to talk to me: 421 4.3.2 busy"),
			to("u@a.example", mxA+":25", "conversation with "+mxA+" timed out while performing the EHLO handshake"),
			to("u@a.example", "none", "Host or domain name not found. Name service error for name=a.example type=MX: Host not found, try again")))
	})
	t.Run("RPT-092 what Postfix reports nothing of stays out", func(t *testing.T) {
		reads(t, smtpLog(
			"connect to "+mxA+":25: Connection refused", to("u@a.example", "none", "connect to "+mxA+":25: Connection refused"),
			"warning: TLS policy lookup for a.example/mx.a.example: client TLS configuration problem",
			to("u@a.example", "none", "client TLS configuration problem"),
			to("u@a.example", mxA+":25", "TLS is required, but our TLS engine is unavailable"),
			"warning: connect to private/tlsproxy service: No such file or directory",
			to("u@a.example", mxA+":25", "Cannot start TLS: handshake failure")))
	})
	t.Run("RPT-090 at most one session for a connection", func(t *testing.T) {
		reads(t, smtpLog("TLSRPT: status=success, domain=a.example, receiving_mx="+mxA, upA, to("u@a.example", mxA+":25", "250 ok")),
			"a.example mx.a.example[192.0.2.1]")
		reads(t, smtpLog("@postfix/tlsproxy[9] "+upA, upA, "TLSRPT: status=success, domain=a.example, receiving_mx="+mxA, to("u@a.example", mxA+":25", "250 ok")),
			"a.example mx.a.example[192.0.2.1]")
	})
	t.Run("RPT-090 a reused connection is none", func(t *testing.T) {
		reads(t, smtpLog("Trusted TLS connection reused to "+mxA+":25: TLSv1.3",
			id+": to=<u@a.example>, relay="+mxA+":25, conn_use=2, delay=0.1, delays=0/0/0/0.1, tls=secure?, dsn=2.0.0, status=sent (250 ok)"))
	})
	t.Run("RPT-090 a resumed TLS session is one", func(t *testing.T) {
		reads(t, smtpLog(mxA+":25: re-using session with untrusted peer credential, look for details earlier in the log",
			"Untrusted TLS connection established to "+mxA+":25: TLSv1.3 with cipher X (256/256 bits)", to("u@a.example", mxA+":25", "Server certificate not verified")),
			"a.example mx.a.example[192.0.2.1] certificate-not-trusted not verified in an earlier session")
	})
	t.Run("of several MX hosts each is a session", func(t *testing.T) {
		reads(t, smtpLog(
			"server certificate verification failed for "+mxA+":25: certificate has expired", upA, id+": Server certificate not verified",
			upA2, to("u@a.example", mxA2+":25", "250 ok")),
			"a.example mx.a.example[192.0.2.1] certificate-expired certificate has expired", "a.example mx2.a.example[192.0.2.2]")
		reads(t, smtpLog(upA, id+": host "+mxA+" said: 451 4.7.1 later (in reply to RCPT TO command)", upA2, to("u@a.example", mxA2+":25", "250 ok")),
			"a.example mx.a.example[192.0.2.1]", "a.example mx2.a.example[192.0.2.2]")
	})
	t.Run("names are lower-case A-labels", func(t *testing.T) {
		reads(t, smtpLog("Trusted TLS connection established to MX.Bücher.Example[192.0.2.1]:25: TLSv1.3", to("u@Bücher.EXAMPLE", "MX.Bücher.Example[192.0.2.1]:25", "250 ok")),
			"xn--bcher-kva.example mx.xn--bcher-kva.example[192.0.2.1]")
	})
}

func TestResultTypes(t *testing.T) {
	failed := func(t *testing.T, said, want string) {
		t.Helper()
		reads(t, smtpLog(said, upA, to("u@a.example", mxA+":25", "Server certificate not verified")), "a.example mx.a.example[192.0.2.1] "+want)
	}
	t.Run("RPT-040 no STARTTLS, or refused", func(t *testing.T) {
		reads(t, smtpLog(to("u@a.example", mxA+":25", "TLS is required, but was not offered by host "+mxA)),
			"a.example mx.a.example[192.0.2.1] starttls-not-supported")
		reads(t, smtpLog(to("u@a.example", mxA+":25", "TLS is required, but host "+mxA+" refused to start TLS: 454 4.7.0 no TLS today")),
			"a.example mx.a.example[192.0.2.1] starttls-not-supported STARTTLS refused: 454")
		reads(t, smtpLog(to("u@a.example", mxA+":25", "Protocol error: TLS is required, but host "+mxA+" refused to start TLS: 354 what")),
			"a.example mx.a.example[192.0.2.1] starttls-not-supported STARTTLS refused: 354")
	})
	t.Run("RPT-040 no STARTTLS where REQUIRETLS asks for it", func(t *testing.T) {
		for _, beginning := range []string{"Sender requested REQUIRETLS, but ", "REQUIRETLS Failure: sender requested REQUIRETLS, but "} {
			reads(t, smtpLog(to("u@a.example", mxA+":25", beginning+"TLS service was not offered by host "+mxA)),
				"a.example mx.a.example[192.0.2.1] starttls-not-supported")
			reads(t, smtpLog(to("u@a.example", mxA+":25", beginning+"host "+mxA+" refused to start TLS: 502 5.5.1 no")),
				"a.example mx.a.example[192.0.2.1] starttls-not-supported STARTTLS refused: 502")
			reads(t, smtpLog("certificate verification failed for "+mxA+":25: self-signed certificate", upA,
				to("u@a.example", mxA+":25", beginning+"no trusted server certificate was found. The last attempted server was "+mxA)),
				"a.example mx.a.example[192.0.2.1] certificate-not-trusted self-signed certificate")
			// The session was as its policy wants it; it is REQUIRETLS that is missing.
			reads(t, smtpLog(upA, id+": "+beginning+"REQUIRETLS support was not offered by host "+mxA, to("u@a.example", mxA+":25", "250 ok")),
				"a.example mx.a.example[192.0.2.1]")
			reads(t, smtpLog(upA, to("u@a.example", mxA+":25", beginning+"no server was found that supports REQUIRETLS. The last attempted server was "+mxA)),
				"a.example mx.a.example[192.0.2.1]")
		}
	})
	t.Run("RPT-041 wrong name", func(t *testing.T) {
		failed(t, "server certificate verification failed for "+mxA+":25: num=62:hostname mismatch", "certificate-host-mismatch hostname mismatch")
	})
	t.Run("RPT-043 before 3.6, and resumed: the name or the TLSA records", func(t *testing.T) {
		up := strings.Replace(upA, "Verified", "Trusted", 1)
		reads(t, smtpLog(up, to("u@a.example", mxA+":25", "Server certificate not verified")),
			"a.example mx.a.example[192.0.2.1] validation-failure certificate not verified")
		reads(t, smtpLog(mxA+":25: re-using session with untrusted certificate, look for details earlier in the log", up, to("u@a.example", mxA+":25", "Server certificate not verified")),
			"a.example mx.a.example[192.0.2.1] validation-failure certificate not verified")
	})
	t.Run("RPT-041 an MX outside the STS policy has a reason", func(t *testing.T) {
		log := smtpLog("warning: MX name 'rogue.a.example' does not match STS MX pattern for 'a.example'", to("u@a.example", "none", "server unavailable or unable to receive mail"))
		reads(t, log, "a.example rogue.a.example validation-failure mx-not-in-policy")
		if s, _ := replayed(t, log); len(s) != 1 || s[0].Policy.Type != tlsrpt.STS || s[0].Policy.Domain != "a.example" {
			t.Errorf("policy %+v", s)
		}
	})
	t.Run("RPT-041 an MX outside the STS policy, and no more lines", func(t *testing.T) {
		reads(t, smtpLog("warning: MX name 'rogue.a.example' does not match STS MX pattern for 'a.example'"),
			"a.example rogue.a.example validation-failure mx-not-in-policy")
	})
	t.Run("RPT-042 a chain without trust has a reason", func(t *testing.T) {
		failed(t, "certificate verification failed for "+mxA+":25: self-signed certificate", "certificate-not-trusted self-signed certificate")
		failed(t, "certificate verification failed for "+mxA+":25: untrusted issuer /O=Somebody/CN=x@y.example", "certificate-not-trusted untrusted issuer")
		failed(t, "certificate verification failed for "+mxA+":25: not trusted by local or TLSA policy", "certificate-not-trusted not trusted by local or TLSA policy")
		failed(t, "server certificate verification failed for "+mxA+":25: num=21:unable to verify the first certificate", "certificate-not-trusted unable to verify the first certificate")
	})
	t.Run("with soft_bounce = yes nothing bounces", func(t *testing.T) {
		soft := strings.Replace(to("u@a.example", mxA+":25", "host "+mxA+" said: 550 5.1.1 no such mailbox (in reply to RCPT TO command)"), "status=deferred", "status=SOFTBOUNCE", 1)
		if stats := reads(t, smtpLog(upA, soft), "a.example mx.a.example[192.0.2.1]"); stats.Unparsed != 0 {
			t.Errorf("%+v", stats)
		}
	})
	t.Run("RPT-043 anything else has a reason", func(t *testing.T) {
		failed(t, "server certificate verification failed for "+mxA+":25: certificate not yet valid", "validation-failure certificate not yet valid")
		failed(t, "certificate verification failed for "+mxA+":25: not designated for use as a server certificate", "validation-failure not designated for use as a server certificate")
		failed(t, "a line that explains nothing", "validation-failure certificate not verified")
		reads(t, smtpLog("SSL_connect error to "+mxA+":25: -1",
			"warning: TLS library problem: error:0A000438:SSL routines::tlsv1 alert internal error:../ssl/record/rec_layer_s3.c:1601:SSL alert number 80:",
			to("u@a.example", mxA+":25", "Cannot start TLS: handshake failure")),
			"a.example mx.a.example[192.0.2.1] validation-failure tls-handshake-failure: tlsv1 alert internal error")
		reads(t, smtpLog("SSL_connect error to "+mxA+":25: Connection timed out", to("u@a.example", mxA+":25", "Cannot start TLS: handshake failure")),
			"a.example mx.a.example[192.0.2.1] validation-failure tls-handshake-failure: Connection timed out")
	})
	t.Run("RPT-044 DANE", func(t *testing.T) {
		for why, want := range map[string]string{
			"no TLSA records found":                           "dane-required no TLSA records found",
			"non DNSSEC destination":                          "dane-required non DNSSEC destination",
			"TLSA records unusable":                           "tlsa-invalid TLSA records unusable",
			"TLSA lookup error for mx.a.example:25":           "dnssec-invalid TLSA lookup error",
			"Verification not possible, MX RRset is insecure": "dane-required Verification not possible, MX RRset is insecure",
		} {
			// Each address of the host says the same.
			line := "warning: TLS policy lookup for a.example/mx.a.example: " + why
			reuse := strings.Replace(line, "lookup", "lookup error", 1)
			log := smtpLog(reuse, line, line, to("u@a.example", "none", why))
			reads(t, log, "a.example mx.a.example "+want)
			if s, _ := replayed(t, log); len(s) != 1 || s[0].Policy.Type != tlsrpt.TLSA {
				t.Errorf("%s: policy %+v", why, s)
			}
		}
		failed(t, "server certificate verification failed for "+mxA+":25: num=65:no matching DANE TLSA records", "certificate-not-trusted no matching DANE TLSA records")
		reads(t, smtpLog("warning: "+mxA+":25: all TLSA records unusable, fallback to unauthenticated TLS", upA, to("u@a.example", mxA+":25", "250 ok")),
			"a.example mx.a.example[192.0.2.1] tlsa-invalid all TLSA records unusable")
	})
	t.Run("RPT-044 a level that fell because of the records", func(t *testing.T) {
		reads(t, smtpLog(upA, strings.Replace(to("u@a.example", mxA+":25", "250 ok"), ", dsn=", ", tls=dane:encrypt, dsn=", 1)),
			"a.example mx.a.example[192.0.2.1] tlsa-invalid all TLSA records unusable")
	})
	t.Run("RPT-045 the STS trio", func(t *testing.T) {
		for _, name := range []string{"sts-policy-fetch-error", "sts-policy-invalid", "sts-webpki-invalid"} {
			failed(t, "certificate verification failed for "+mxA+":25: external policy failure ("+name+")", name)
		}
	})
	t.Run("RPT-046 types of tomorrow pass", func(t *testing.T) {
		failed(t, "certificate verification failed for "+mxA+":25: external policy failure (foo-bar)", "foo-bar")
		reads(t, smtpLog("TLSRPT: status=failure, domain=a.example, receiving_mx="+mxA+", failure_type=foo_bar", upA, to("u@a.example", mxA+":25", "250 ok")),
			"a.example mx.a.example[192.0.2.1] foo-bar")
	})
	t.Run("RPT-091 lines of TLSRPT", func(t *testing.T) {
		for line, want := range map[string]string{
			"status=failure, domain=A.example, receiving_mx=" + mxA + ", failure_type=starttls_not_supported":                                                      "starttls-not-supported",
			"status=failure, domain=A.example, receiving_mx=" + mxA + ", failure_type=validation_failure, failure_reason=self-signed_certificate":                  "certificate-not-trusted self-signed_certificate",
			"status=failure, domain=A.example, receiving_mx=" + mxA + ", failure_type=validation_failure, failure_reason=certificate_is_not_yet_valid":             "validation-failure certificate_is_not_yet_valid",
			"status=failure, domain=A.example, receiving_mx=" + mxA + ", failure_type=certificate_expired":                                                         "certificate-expired",
			"status=failure, domain=A.example, receiving_mx=" + mxA + ", failure_type=tlsa_invalid, failure_reason=all-TLSA-records-unusable":                      "tlsa-invalid all-TLSA-records-unusable",
			"status=failure, domain=A.example, receiving_mx=" + mxA + ", failure_type=certificate_not_trusted, failure_reason=x, domain=b.example, status=success": "certificate-not-trusted x, domain=b.example, status=success",
			"status=success, domain=A.example, receiving_mx=" + mxA:                                                                                                "",
		} {
			// The domain that Postfix names is the next hop, which the recipient may not tell.
			reads(t, smtpLog("TLSRPT: "+line, to("u@elsewhere.example", mxA+":25", "250 ok")), strings.TrimSpace("a.example mx.a.example[192.0.2.1] "+want))
		}
		for _, line := range []string{"status=failure, domain=a.example", "status=maybe, domain=a.example, receiving_mx=" + mxA, "status=failure, domain=<>, receiving_mx=" + mxA + ", failure_type=x"} {
			if stats := reads(t, smtpLog("TLSRPT: "+line, to("u@a.example", mxA+":25", "250 ok"))); stats.Unparsed != 1 {
				t.Errorf("%q: %+v", line, stats)
			}
		}
	})
	t.Run("the policy is named only where the line does", func(t *testing.T) {
		field := func(tls string) string {
			return strings.Replace(to("u@a.example", mxA+":25", "250 ok"), ", dsn=", ", tls="+tls+", dsn=", 1)
		}
		for tls, want := range map[string]tlsrpt.PolicyType{
			"dane": tlsrpt.TLSA, "!dane": tlsrpt.TLSA, "dane:halfdane": tlsrpt.TLSA, "dane/requiretls": tlsrpt.TLSA,
			"dane?": "", "may": "", "secure": "", "encrypt": "", "secure/requiretls": "",
		} {
			if s, _ := replayed(t, smtpLog(upA, field(tls))); len(s) != 1 || s[0].Policy.Type != want {
				t.Errorf("tls=%s: %+v, want policy %q", tls, s, want)
			}
		}
	})
}

func TestPrograms(t *testing.T) {
	as := func(tag string) []byte {
		return smtpLog("@"+tag+" "+upA, "@"+tag+" "+to("u@a.example", mxA+":25", "250 ok"))
	}
	for _, tag := range []string{"postfix/smtp[7]", "postfix-out/smtp[7]", "postfix/relay/smtp[7]", "postfix/slow/smtp[7]", "mail/smtp[7]", "a/b/c/smtp[7]"} {
		t.Run("counts "+tag, func(t *testing.T) { reads(t, as(tag), "a.example mx.a.example[192.0.2.1]") })
	}
	for _, tag := range []string{
		"postfix/tlsproxy[7]", "postfix/lmtp[7]", "postfix/smtpd[7]", "postfix/qmgr[7]", "postfix/error[7]", "postfix/sidecar/lmtp[7]",
		"postfix/postseal-relaxed/smtp[7]", "postseal-relaxed/smtp[7]", "smtp-relay[7]", "xsmtp[7]", "postfix/smtp",
	} {
		t.Run("does not count "+tag, func(t *testing.T) { reads(t, as(tag)) })
	}
	t.Run("two hosts in one log", func(t *testing.T) {
		b := "Trusted TLS connection established to mx.b.example[192.0.2.9]:25: TLSv1.3"
		log := strings.Split(string(smtpLog(upA, b, to("u@b.example", "mx.b.example[192.0.2.9]:25", "250 ok"), to("u@a.example", mxA+":25", "250 ok"))), "\n")
		for _, i := range []int{1, 2} {
			log[i] = strings.Replace(log[i], "mta37", "mta38", 1)
		}
		reads(t, []byte(strings.Join(log, "\n")), "b.example mx.b.example[192.0.2.9]", "a.example mx.a.example[192.0.2.1]")
	})
}

// TestForged lets remote hosts and senders write what looks like lines.
func TestForged(t *testing.T) {
	const a = "a.example mx.a.example[192.0.2.1]"
	victim := "mx.victim.example[198.51.100.1]"
	t.Run("in the reply to a delivery", func(t *testing.T) {
		for _, reply := range []string{
			"250 ok) to=<x@victim.example>, status=sent (250 ok",
			"host " + mxA + " said: 550 to=<x@victim.example>, relay=" + victim + ":25, delay=0, delays=0/0/0/0, dsn=2.0.0, status=sent (250 ok)",
			"host " + mxA + " said: 450 Verified TLS connection established to " + victim + ":25: TLSv1.3",
			"host " + mxA + " said: 450 TLS is required, but was not offered by host " + victim,
			"host " + mxA + " said: 450 Server certificate not verified",
			"host " + mxA + " said: 450 x, tls=may:none, dsn=2.0.0, status=sent",
		} {
			reads(t, smtpLog(upA, to("u@a.example", mxA+":25", reply)), a)
		}
	})
	t.Run("in a reply before the last host", func(t *testing.T) {
		for _, reply := range []string{
			"Server certificate not verified", "TLS is required, but was not offered by host " + victim, id + ": to=<x@victim.example>",
			"\rNov 22 03:00:00 mta37 postfix/smtp[7]: " + to("x@victim.example", victim+":25", "250 ok"),
		} {
			reads(t, smtpLog(upA, id+": host "+mxA+" said: 450 "+reply, upA2, to("u@a.example", mxA2+":25", "250 ok")),
				a, "a.example mx2.a.example[192.0.2.2]")
		}
	})
	t.Run("in a reply, the end of an address", func(t *testing.T) {
		for _, relay := range []string{mxA, mxA + ":25, delay=0, delays=0/0/0/0, dsn=2.0.0, status=sent (250 ok", "none"} {
			reads(t, smtpLog(to("u@a.example", mxA+":25", "TLS is required, but host "+mxA+" refused to start TLS: 454 >, relay="+relay)),
				a+" starttls-not-supported STARTTLS refused: 454")
		}
	})
	t.Run("in the address", func(t *testing.T) {
		forged := `x@victim.example>, relay=` + mxA + `:25, delay=0, delays=0/0/0/0, dsn=2.0.0, status=sent (250`
		// Since 3.5 the address stands in quotes.
		reads(t, smtpLog(upA, to(`"`+forged+`"@a.example`, mxA+":25", "250 ok")), a)
		other := strings.Replace(forged, mxA, victim, 1)
		if stats := reads(t, smtpLog(upA, to(other+`@a.example`, mxA+":25", "250 ok"))); stats.Dropped != 1 {
			t.Errorf("%+v", stats)
		}
	})
	t.Run("in the name of an issuer", func(t *testing.T) {
		reads(t, smtpLog("certificate verification failed for "+mxA+":25: untrusted issuer /CN=certificate has expired", upA, to("u@a.example", mxA+":25", "Server certificate not verified")),
			a+" certificate-not-trusted untrusted issuer")
	})
	t.Run("by a program that may say anything", func(t *testing.T) {
		reads(t, smtpLog("@postfix/cleanup[7] "+id+": info: header Subject: "+upA, "@postfix/smtpd[7] warning: "+upA, to("u@victim.example", "none", "250 ok")))
	})
}

// What a remote host says hides no session, neither with it nor with the hosts before it.
func TestForgedRelay(t *testing.T) {
	reply := "host " + mxA + " said: 550 >, relay=" + mxA + ":25, delay=0, delays=0/0/0/0, dsn=2.0.0, status=sent (250 ok"
	reads(t, smtpLog(upA, to("u@a.example", mxA+":25", reply)), "a.example mx.a.example[192.0.2.1]")
	reads(t, smtpLog(id+": TLS is required, but host "+mxA2+" refused to start TLS: 454 no", upA, to("u@a.example", mxA+":25", "250 ok >, relay="+mxA)),
		"a.example mx2.a.example[192.0.2.2] starttls-not-supported STARTTLS refused: 454", "a.example mx.a.example[192.0.2.1]")
}

// One message for two domains with one MX host: two deliveries, which one process may make
// one after the other.
func TestSharedHost(t *testing.T) {
	const a, b = "a.example mx.a.example[192.0.2.1]", "b.example mx.a.example[192.0.2.1]"
	refused := "TLS is required, but was not offered by host " + mxA
	reads(t, smtpLog(to("u@a.example", mxA+":25", refused), to("v@a.example", mxA+":25", refused), to("u@b.example", mxA+":25", refused), to("v@b.example", mxA+":25", refused)),
		a+" starttls-not-supported", b+" starttls-not-supported")
	good := func(domain string) string {
		return "TLSRPT: status=success, domain=" + domain + ", receiving_mx=" + mxA
	}
	reads(t, smtpLog(good("a.example"), to("u@a.example", mxA+":25", "250 ok"), good("b.example"), to("u@b.example", mxA+":25", "250 ok")), a, b)
	// More recipients than one delivery may have: Postfix reports each session.
	reads(t, smtpLog(good("a.example"), to("u@a.example", mxA+":25", "250 ok"), good("a.example"), to("v@a.example", mxA+":25", "250 ok")), a, a)
}

// What was said of one host, or by one host, is no other's.
func TestOthers(t *testing.T) {
	reads(t, smtpLog("certificate verification failed for "+mxA+":25: self-signed certificate", upA2, to("u@a.example", mxA2+":25", "Server certificate not verified")),
		"a.example mx2.a.example[192.0.2.2] validation-failure certificate not verified")
	log := string(smtpLog("@postfix/tlsproxy[50] SSL_connect error to "+mxA+":25: lost connection", to("u@a.example", mxA+":25", "Cannot start TLS: handshake failure")))
	reads(t, []byte(log), "a.example mx.a.example[192.0.2.1] validation-failure tls-handshake-failure: lost connection")
	reads(t, []byte(strings.Replace(log, "mta37", "mta38", 1)))
}

// A process that is never heard of again keeps no others from being forgotten.
func TestStuckProcess(t *testing.T) {
	size := func(first string) int {
		r := postfix.New(maillog.Options{Location: time.UTC, Now: func() time.Time { return time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC) }})
		if first != "" {
			r.Line([]byte("Nov 22 03:00:00 mta37 postfix/smtp[99999]: "+first), nil)
		}
		for i := range 4000 {
			at := time.Date(2026, 11, 22, 3, 0, 0, 0, time.UTC).Add(time.Duration(i) * time.Second).Format("Jan _2 15:04:05")
			for _, text := range []string{upA, to("u@a.example", mxA+":25", "250 ok")} {
				r.Line(fmt.Appendf(nil, "%s mta37 postfix/smtp[%d]: %s", at, i+1, text), func(reporting.Session) {})
			}
		}
		return len(r.AppendState(nil))
	}
	if free, held := size(""), size(upA); held > free+2000 {
		t.Errorf("the state has %d bytes, and %d with a process that says no more", free, held)
	}
}

func TestAddresses(t *testing.T) {
	const a = "a.example mx.a.example[192.0.2.1]"
	for _, address := range []string{"u@a.example", "u@A.Example", "u@a.example.", `"a b"@a.example`, `"a@b.example>, c"@a.example`, `"a\"@b.example"@a.example`, "u>v@a.example", "@a.example", "a@b@a.example", "caf\xe9@a.example"} {
		reads(t, smtpLog(upA, to(address, mxA+":25", "250 ok")), a)
		reads(t, smtpLog(upA, to(address+">, orig_to=<"+`"x@y.example>, z"@b.example`, mxA+":25", "250 ok")), a)
	}
	for _, address := range []string{"", "postmaster", "u@", "u@[192.0.2.1]", "u@192.0.2.1", "u@a_b c", "u@" + strings.Repeat("a.", 200) + "example"} {
		if stats := reads(t, smtpLog(upA, to(address, mxA+":25", "250 ok"))); stats.Dropped != 1 {
			t.Errorf("%q: %+v", address, stats)
		}
	}
}

// TestLost leaves lines out, as a syslog daemon does under load.
func TestLost(t *testing.T) {
	const b = "b.example mx.b.example[192.0.2.9]"
	up := "Trusted TLS connection established to mx.b.example[192.0.2.9]:25: TLSv1.3"
	sent := strings.Replace(to("u@b.example", "mx.b.example[192.0.2.9]:25", "250 ok"), id, "2FA629C04DB", 1)
	for name, lines := range map[string][]string{
		"the end of a delivery":                {upA, up, sent},
		"the end of one that was deferred":     {upA, id + ": host " + mxA + " said: 450 no", up, sent},
		"the end of one that was not verified": {upA, id + ": Server certificate not verified", up, sent},
		"everything but the beginning":         {upA, sent[:0] + "connect to x[192.0.2.3]:25: Connection refused", up, sent},
	} {
		t.Run(name, func(t *testing.T) {
			if stats := reads(t, smtpLog(lines...), b); stats.Dropped != 1 {
				t.Errorf("%+v", stats)
			}
		})
	}
	t.Run("the beginning of the next", func(t *testing.T) {
		if stats := reads(t, smtpLog(upA, sent)); stats.Dropped != 1 {
			t.Errorf("%+v", stats)
		}
	})
	t.Run("a process id that is used again", func(t *testing.T) {
		first := strings.Replace(string(smtpLog("SSL_connect error to "+mxA+":25: -1")), "Nov 22", "Nov 20", 1)
		if stats := reads(t, []byte(first+string(smtpLog(up, sent))), b); stats.Dropped != 1 {
			t.Errorf("%+v", stats)
		}
	})
	t.Run("the end, and the process as well", func(t *testing.T) {
		first := strings.Replace(string(smtpLog("@postfix/smtp[9] "+upA)), "Nov 22", "Nov 20", 1)
		if stats := reads(t, []byte(first+string(smtpLog(up, sent))), b); stats.Dropped != 1 {
			t.Errorf("%+v", stats)
		}
	})
	t.Run("everything after", func(t *testing.T) {
		if stats := reads(t, smtpLog(upA)); stats.Dropped != 1 || stats.Open != 0 {
			t.Errorf("%+v", stats)
		}
	})
	t.Run("repeated lines", func(t *testing.T) {
		log := string(smtpLog(upA, to("u@a.example", mxA+":25", "250 ok")))
		first, rest, _ := strings.Cut(log, "\n")
		for _, repeat := range []string{
			"Nov 22 03:00:00 mta37 last message repeated 3 times",
			"Nov 22 03:00:00 mta37 postfix/smtp[7]: message repeated 3 times: [ " + upA + "]",
		} {
			reads(t, []byte(first+"\n"+repeat+"\n"+rest), "a.example mx.a.example[192.0.2.1]")
		}
	})
}

func TestRecipients(t *testing.T) {
	refused := "TLS is required, but was not offered by host " + mxA
	a := "a.example mx.a.example[192.0.2.1] starttls-not-supported"
	t.Run("further recipients repeat what failed", func(t *testing.T) {
		reads(t, smtpLog(to("u@a.example", mxA+":25", refused), to("v@a.example", mxA+":25", refused), to("w@a.example", mxA+":25", refused)), a)
		reads(t, smtpLog(id+": "+refused, to("u@a.example", mxA+":25", refused), to("v@a.example", mxA+":25", refused)), a)
	})
	t.Run("the first recipient again is another attempt", func(t *testing.T) {
		reads(t, smtpLog(to("u@a.example", mxA+":25", refused), to("v@a.example", mxA+":25", refused),
			to("u@a.example", mxA+":25", refused), to("v@a.example", mxA+":25", refused)), a, a)
	})
	t.Run("what is left of the recipients later is another attempt", func(t *testing.T) {
		log := string(smtpLog(to("u@a.example", mxA+":25", refused), to("v@a.example", mxA+":25", refused)))
		later := strings.ReplaceAll(string(smtpLog(to("v@a.example", mxA+":25", refused))), "03:00:", "03:06:")
		reads(t, []byte(log+later), a, a)
	})
	t.Run("a verdict falls on the host before it alone", func(t *testing.T) {
		reads(t, smtpLog(upA, id+": host "+mxA+" said: 450 later", id+": Server certificate not verified", to("u@a.example", "none", "connect to x: no")),
			"a.example mx.a.example[192.0.2.1]")
	})
	t.Run("another message is another session", func(t *testing.T) {
		next := strings.Replace(to("v@a.example", mxA+":25", refused), id, "2FA629C04DB", 1)
		reads(t, smtpLog(to("u@a.example", mxA+":25", refused), next), a, a)
	})
	t.Run("recipients may end at different hosts", func(t *testing.T) {
		reads(t, smtpLog(upA, id+": host "+mxA+" said: 450 later", to("u@a.example", mxA+":25", "250 ok"),
			id+": TLS is required, but was not offered by host "+mxA2, to("v@a.example", "none", "connect to x: no")),
			"a.example mx.a.example[192.0.2.1]", "a.example mx2.a.example[192.0.2.2] starttls-not-supported")
	})
}

// TestForgets runs many short-lived processes, as master(8) does.
func TestForgets(t *testing.T) {
	r := postfix.New(maillogtest.Options())
	sessions := 0
	largest := 0
	for n := range 10_000 {
		at := time.Date(2026, time.November, 22, 0, 0, n, 0, time.UTC).Format(time.Stamp)
		for _, line := range []string{upA, to("u@a.example", mxA+":25", "250 ok")} {
			r.Line(fmt.Appendf(nil, "%s mta37 postfix/smtp[%d]: %s", at, 1000+n, line), func(reporting.Session) { sessions++ })
		}
		if n%100 == 0 {
			largest = max(largest, len(r.AppendState(nil)))
		}
	}
	if s := r.Stats(); sessions != 10_000 || s.Dropped != 0 || s.Open != 0 {
		t.Errorf("%d sessions, %+v", sessions, s)
	}
	if largest > 16<<10 {
		t.Errorf("a state of %d bytes", largest)
	}
}

// TestBounds opens more than is kept.
func TestBounds(t *testing.T) {
	r := postfix.New(maillogtest.Options())
	line := func(pid, host int) []byte {
		return fmt.Appendf(nil, "Nov 22 03:24:00 mta37 postfix/smtp[%d]: SSL_connect error to mx%d.%s.example[192.0.2.1]:25: -1", pid, host, strings.Repeat("a", 60))
	}
	for pid := range 20_000 {
		r.Line(line(pid, 1), nil)
	}
	if s := r.Stats(); s.Open != 16384 || s.Dropped != 20_000-16384 {
		t.Errorf("many processes: %+v", s)
	}
	r = postfix.New(maillogtest.Options())
	for host := range 1000 {
		r.Line(line(1, host), nil)
	}
	if s := r.Stats(); s.Open != 1 || s.Dropped != 1000-64 {
		t.Errorf("many hosts: %+v", s)
	}
	r = postfix.New(maillogtest.Options())
	for n := range 1600 * 64 {
		r.Line(line(n/64, n), nil)
	}
	if s := r.Stats(); s.Open > 1500 || s.Open < 500 {
		t.Errorf("many of both: %+v", s)
	}
	if n := len(r.AppendState(nil)); n > 32<<20 {
		t.Errorf("a state of %d bytes", n)
	}
	r = postfix.New(maillogtest.Options())
	r.Line(append(line(1, 1), make([]byte, maillog.MaxLine)...), nil)
	if s := r.Stats(); s.Oversize != 1 || s.Open != 0 {
		t.Errorf("a huge line: %+v", s)
	}
}

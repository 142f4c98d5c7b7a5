package sendmail_test

import (
	"bytes"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"postseal/reporting"
	"postseal/reporting/ingest/maillog"
	"postseal/reporting/ingest/maillog/maillogtest"
	"postseal/reporting/ingest/sendmail"
)

func TestCorpus(t *testing.T) {
	files, err := filepath.Glob("testdata/*/*.log")
	if err != nil || len(files) < 3 {
		t.Fatalf("%d files, error %v", len(files), err)
	}
	for _, file := range files {
		t.Run(strings.TrimPrefix(file, "testdata/"), func(t *testing.T) {
			log, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			got, st := maillogtest.Read(t, sendmail.New, log)
			want := maillogtest.ReadExpected(t, strings.TrimSuffix(file, ".log")+".expected.jsonl")
			maillogtest.Compare(t, want, got, true, func(x *maillogtest.Expectation) bool { return x.LogEvidence != "direct" })
			if st.Unparsed != 0 || st.Dropped != 0 || st.Open != 0 || st.Sessions != uint64(len(got)) {
				t.Errorf("counted %+v", st)
			}
		})
	}
}

const (
	good     = "a.example mx.a.example 192.0.2.1"
	smtpTo   = "Nov 22 03:12:18 mta sm-mta[25732]: 6AM3CIox025729: to=<u@a.example>, delay=00:00:00, xdelay=00:00:00, mailer=esmtp, pri=30084, relay=mx.a.example. [192.0.2.1], dsn="
	smtpSent = smtpTo + "2.0.0, stat=Sent (queued)"
	deferred = smtpTo + "4.7.0, stat=Deferred: "
	process  = "Nov 22 03:12:18 mta sm-mta[25732]: "
	client   = process + "STARTTLS=client, "
	verified = client + "relay=mx.a.example., version=TLSv1.3, verify=OK, cipher=TLS_AES_128_GCM_SHA256, bits=128/128"
	failed   = client + "relay=mx.a.example., version=TLSv1.3, verify=FAIL, cipher=TLS_AES_128_GCM_SHA256, bits=128/128"
	server   = process + "ruleset=tls_server, arg1="
	rcpt     = process + "6AM3CIox025729: ruleset=tls_rcpt, arg1=u@a.example, relay=mx.a.example., reject="
	subject  = client + "cert-subject=/CN=mx.a.example, cert-issuer=/O=Example+20Test/CN=Example+20Test+20CA, verifymsg="
)

// other makes lines be about another host.
func other(line string) string {
	return strings.NewReplacer("mx.a.example", "mx2.a.example", "192.0.2.1", "192.0.2.2").Replace(line)
}

func TestForms(t *testing.T) {
	maillogtest.Run(t, sendmail.New, []maillogtest.Case{
		{"a session", []string{verified, smtpSent}, []string{good}},
		{"a chain that nobody demanded", []string{failed, smtpSent}, []string{good}},
		{"LogLevel 12 and its noise", []string{
			process + "6AM3CIox025729: SMTP outgoing connect on mta.example.test", process + "tls_clt_features=(null), relay=mx.a.example [192.0.2.1]",
			process + "tls_clt_features=empty, stat=0, relay=mx.a.example [192.0.2.1]", failed, subject + "self-signed certificate", smtpSent,
			process + "6AM3CIox025729: done; delay=00:00:00, ntries=1", client + "SSL_shutdown failed: -1", process + "STARTTLS=client: error:80000009:system library::Bad file descriptor",
			process + "STARTTLS: read error=generic SSL error (-1)", process + "STARTTLS: TLS cert verify: depth=0 /CN=mx.a.example, state=0, reason=self-signed certificate",
		}, []string{good}},
		{"RPT-002 DANE: the MX host is the policy domain", []string{strings.Replace(verified, "=OK", "=TRUSTED", 1), smtpSent}, []string{good + " tlsa:mx.a.example"}},
		{"8.18.2 says that STS was content", []string{verified, smtpTo + "2.0.0, STS=OK, stat=Sent (queued)"}, []string{good + " sts:a.example"}},
		{"RPT-024 several recipients, in one line and in two", []string{
			verified, strings.Replace(smtpSent, "<u@a.example>", "<u@a.example>,<v@a.example>,<w@b.example>", 1), strings.Replace(smtpSent, "u@a", "x@a", 1),
		}, []string{good}},
		{"RPT-024 a connection that was kept open", []string{
			verified, smtpSent, strings.Replace(smtpSent, "6AM3CIox025729", "6AM3CIox025730", 1), strings.Replace(smtpSent, "6AM3CIox025729", "6AM3CIox025731", 1),
		}, []string{good}},
		{"RPT-024 a connection that was kept open is not good enough for the next message", []string{
			verified, smtpSent, rcpt + "450 4.7.0 <v@b.example>... mx.a.example not listed in SANs", deferred + "x",
		}, []string{good}},
		{"RPT-024 by then no connection was open any more", []string{
			verified, smtpSent, strings.Replace(rcpt, "03:12", "03:30", 1) + "450 4.7.0 <v@b.example>... mx.a.example not listed in SANs", strings.Replace(deferred, "03:12", "03:30", 1) + "x",
		}, []string{good, good + " sts:a.example certificate-host-mismatch"}},
		{"one process, two messages, two connections", []string{verified, smtpSent, verified, smtpSent}, []string{good, good}},
		{"the first host is left without a word", []string{verified, other(verified), other(smtpSent)}, []string{"a.example mx.a.example", "a.example mx2.a.example 192.0.2.2"}},
		{"IPv6", []string{verified, strings.Replace(smtpSent, "[192.0.2.1]", "[IPv6:2001:db8:203:0:0:0:0:11]", 1)}, []string{"a.example mx.a.example 2001:db8:203::11"}},
		{"other ways to the log", []string{
			strings.Replace(verified, "Nov 22 03:12:18 mta", "2026-11-22T03:12:18.1+01:00 mta", 1), strings.Replace(smtpSent, "Nov 22 03:12:18 mta", "2026-11-22T03:12:19.1+01:00 mta", 1),
			strings.ReplaceAll(verified, "sm-mta", "sendmail"), strings.ReplaceAll(smtpSent, "sm-mta", "sendmail"),
			"<22>1 2026-11-22T03:12:18Z mta sm-mta 25733 - - STARTTLS=client, relay=mx.a.example., version=TLSv1.2, verify=NO, cipher=X, bits=256/256",
			"<22>1 2026-11-22T03:12:18Z mta sm-mta 25733 - - 6AM3CIox025729: to=<u@a.example>, delay=00:00:00, mailer=smtp, pri=30084, relay=mx.a.example. [192.0.2.1], dsn=2.0.0, stat=Sent (ok)",
		}, []string{good, good, good}},
		{"processes in each other's lines", []string{
			verified, strings.ReplaceAll(other(verified), "25732", "25733"), smtpSent, strings.ReplaceAll(other(smtpSent), "[25732]", "[25733]"),
		}, []string{good, "a.example mx2.a.example 192.0.2.2"}},
		{"names in capitals, and a host without a name", []string{
			strings.Replace(verified, "mx.a.example", "MX.A.Example", 1), strings.NewReplacer("u@a.example", "U@A.Example", "relay=mx.a", "relay=MX.a").Replace(smtpSent),
			strings.Replace(verified, "mx.a.example.", "[192.0.2.1]", 1), strings.Replace(smtpSent, "mx.a.example. ", "[192.0.2.1] ", 1),
		}, []string{good, "a.example  192.0.2.1"}},
		{"RPT-092 no connection is no session", []string{
			smtpTo + "4.4.1, stat=Deferred: Connection refused by mx.a.example.", smtpTo + "4.4.1, stat=Deferred: Connection timed out with mx.a.example.", smtpSent,
		}, nil},
		{"a fault of ours is no session", []string{
			process + "ruleset=tls_clt_features, arg1=mx.a.example, arg2=192.0.2.1, relay=localhost [127.0.0.1], reject=450 4.7.0 <u@a.example>... STS lookup temp fail",
			process + "rscheck(tls_clt_features)=failed, relay=mx.a.example [192.0.2.1], errors=0", client + "get_tls_se_features=failed, ret=75",
			server + "TEMP, relay=mx.a.example, reject=450 4.7.0 <u@a.example>... STS lookup temp fail", deferred + "450 4.7.0 <u@a.example>... STS lookup temp fail",
			client + "get_tls_se_features=failed, ret=78", server + "CONFIG, relay=mx.a.example, reject=403 4.7.0 STARTTLS temporarily not possible.", deferred + "403 4.7.0 STARTTLS temporarily not possible.",
		}, nil},
		{"postseal's own mailers, smart hosts and submission are not counted", []string{
			verified, strings.Replace(smtpSent, "mailer=esmtp", "mailer=postseal", 1), verified, strings.Replace(smtpSent, "mailer=esmtp", "mailer=postseal-relaxed", 1),
			verified, strings.Replace(smtpSent, "mailer=esmtp", "mailer=relay", 1),
			strings.Replace(verified, "mx.a.example.", "[127.0.0.1]", 1), strings.Replace(smtpSent, "mx.a.example. [192.0.2.1]", "[127.0.0.1] [127.0.0.1]", 1),
			strings.Replace(smtpSent, "192.0.2.1", "IPv6:::1", 1), verified, strings.Replace(smtpSent, "192.0.2.1", "127.0.0.25", 1),
		}, nil},
		{"an MX host that is on loopback all the same", []string{verified, strings.Replace(smtpSent, "192.0.2.1", "127.1.0.25", 1)}, []string{"a.example mx.a.example 127.1.0.25"}},
		{"a recipient that looks like fields", []string{
			verified, strings.Replace(smtpSent, "<u@a.example>", `<"x>, mailer=relay, relay=mx.b.example. [192.0.2.66], stat=Sent"@a.example>`, 1),
		}, []string{good}},
		{"a reply that looks like fields", []string{
			server + "TEMP, relay=mx.a.example, reject=403 4.7.0 authentication failure ",
			smtpTo + "4.7.0, reply=454 4.7.0 no, relay=mx.b.example. [192.0.2.66], stat=Sent, stat=Deferred: 403 4.7.0 authentication failure ",
		}, []string{good + " starttls-not-supported (454 4.7.0 no, relay=mx.b.example. [192.0.2.66], stat=Sent)"}},
		{"other lines", []string{
			process + "starting daemon (8.17.1.9): SMTP", process + "6AM3CIox025729: from=<s@b.example>, size=84, class=0, nrcpts=1, proto=ESMTP, daemon=MTA, relay=localhost [127.0.0.1]",
			process + "STARTTLS=server, relay=c.example [192.0.2.9], version=TLSv1.3, verify=NO, cipher=X, bits=256/256", "", "\xff to=", "Nov 22 03:12:18 last message repeated 2 times",
			strings.Replace(smtpSent, "[25732]", "", 1), process + "6AM3CIox025729: to=user, delay=00:00:00, mailer=local, pri=30, relay=local, dsn=2.0.0, stat=Sent",
			"Nov 22 03:12:18 mta postfix/smtp[9]: 1FA629C04DA: to=<u@a.example>, relay=mx.a.example[192.0.2.1]:25, delay=1, status=sent (250 ok)",
		}, nil},
	})
}

func TestFailures(t *testing.T) {
	const bad = good + " "
	broken := client + "error: connect failed=-1, reason=sslv3 alert handshake failure, SSL_error=1, errno=0, retry=-1"
	maillogtest.Run(t, sendmail.New, []maillogtest.Case{
		{"RPT-043 LogLevel 9: what is wrong with a chain is not said", []string{
			failed, server + "FAIL, relay=mx.a.example, reject=403 4.7.0 authentication failed", deferred + "403 4.7.0 authentication failed",
		}, []string{bad + "validation-failure (authentication failed)"}},
		{"LogLevel 12: certificate-expired", []string{
			failed, subject + "certificate has expired", server + "FAIL, relay=mx.a.example, reject=403 4.7.0 authentication failed", deferred + "403 4.7.0 authentication failed",
		}, []string{bad + "certificate-expired (certificate has expired)"}},
		{"RPT-042 LogLevel 12: self-signed", []string{
			failed, subject + "self-signed certificate", server + "FAIL, relay=mx.a.example, reject=403 4.7.0 authentication failed", deferred,
		}, []string{bad + "certificate-not-trusted (self-signed certificate)"}},
		{"RPT-042 LogLevel 12, 8.18.2: unknown CA", []string{
			failed, subject + "unable to get local issuer certificate", rcpt + "454 4.7.0 STS authentication failed", deferred + "454 4.7.0 STS authentication failed",
		}, []string{good + " sts:a.example certificate-not-trusted (unable to get local issuer certificate)"}},
		{"RPT-043 LogLevel 12: not yet valid", []string{
			failed, subject + "certificate is not yet valid", server + "FAIL, relay=mx.a.example, reject=403 4.7.0 authentication failed", deferred,
		}, []string{bad + "validation-failure (certificate is not yet valid)"}},
		{"a subject that looks like the end of its line", []string{
			failed, strings.Replace(subject, "/CN=mx.a.example", "/CN=x, verifymsg=ok", 1) + "certificate has expired", server + "FAIL, relay=mx.a.example, reject=403 4.7.0 authentication failed", deferred,
		}, []string{bad + "certificate-expired (certificate has expired)"}},
		{"the first of two hosts fails", []string{
			failed, server + "FAIL, relay=mx.a.example, reject=403 4.7.0 authentication failed", other(verified), other(smtpSent),
		}, []string{"a.example mx.a.example validation-failure (authentication failed)", "a.example mx2.a.example 192.0.2.2"}},
		{"the first of two hosts fails, and LogLevel 12 knows its address", []string{
			process + "tls_clt_features=empty, stat=0, relay=mx.a.example [192.0.2.1]", failed, server + "FAIL, relay=mx.a.example, reject=403 4.7.0 authentication failed",
			process + "tls_clt_features=empty, stat=0, relay=mx2.a.example [192.0.2.2]", other(verified), other(smtpSent),
		}, []string{bad + "validation-failure (authentication failed)", "a.example mx2.a.example 192.0.2.2"}},
		{"RPT-041 another name, two recipients", []string{
			verified, rcpt + "450 4.7.0 <u@a.example>... mx.a.example not listed in SANs", rcpt + "450 4.7.0 <v@a.example>... mx.a.example not listed in SANs", smtpTo + "4.2.0, stat=Deferred",
		}, []string{good + " sts:a.example certificate-host-mismatch"}},
		{"RPT-041 the same of 8.18.2", []string{verified, rcpt + "450 4.7.0 <u@a.example>... STS mx.a.example not listed in SANs", smtpTo + "4.2.0, stat=Deferred"}, []string{good + " sts:a.example certificate-host-mismatch"}},
		{"an MX host outside the policy", []string{verified, rcpt + "450 4.7.0 <u@a.example>... mx.a.example not found in .a.example", smtpTo + "4.2.0, stat=Deferred"}, []string{good + " sts:a.example validation-failure (mx-not-in-policy)"}},
		{"the same of 8.18.2", []string{verified, rcpt + "450 4.7.0 <u@a.example>... STS mx.a.example not found in MX list mx1.a.example:mx2.a.example", smtpTo + "4.2.0, stat=Deferred"}, []string{good + " sts:a.example validation-failure (mx-not-in-policy)"}},
		{"RPT-040 no STARTTLS", []string{server + "NONE, relay=mx.a.example, reject=403 4.7.0 other side does not support STARTTLS", deferred + "403 4.7.0 other side does not support STARTTLS"}, []string{bad + "starttls-not-supported"}},
		{"RPT-040 the same of 8.18.2", []string{rcpt + "454 4.7.0 STS other side does not support STARTTLS", deferred + "454 4.7.0 STS other side does not support STARTTLS"}, []string{good + " sts:a.example starttls-not-supported"}},
		{"RPT-040 STARTTLS answered 454", []string{
			server + "TEMP, relay=mx.a.example, reject=403 4.7.0 authentication failure ",
			smtpTo + "4.7.0, reply=454 4.7.0 TLS not available due to temporary reason, stat=Deferred: 403 4.7.0 authentication failure ",
		}, []string{bad + "starttls-not-supported (454 4.7.0 TLS not available due to temporary reason)"}},
		{"RPT-040 STARTTLS refused, 8.18.2: nothing was said of a handshake", []string{rcpt + "454 4.7.0 STS authentication failed", deferred + "454 4.7.0 STS authentication failed"}, []string{good + " sts:a.example starttls-not-supported (STS authentication failed)"}},
		{"RPT-040 DANE without STARTTLS", []string{
			client + "relay=mx.a.example, warning=DANE configured in DNS but STARTTLS not offered", rcpt + "454 4.7.0 DANE: missing STARTTLS.", deferred,
		}, []string{good + " tlsa:mx.a.example starttls-not-supported"}},
		{"RPT-040 DANE, STARTTLS refused", []string{
			client + "relay=mx.a.example, warning=DANE configured in DNS but STARTTLS failed", rcpt + "454 4.7.0 DANE check failed temporarily.", deferred,
		}, []string{good + " tlsa:mx.a.example starttls-not-supported (STARTTLS was offered, but refused)"}},
		{"RPT-043 DANE, the handshake failed", []string{
			broken, client + "relay=mx.a.example, warning=DANE configured in DNS but STARTTLS failed", server + "SOFTWARE, relay=mx.a.example, reject=454 4.7.0 TLS handshake failed.", deferred,
		}, []string{good + " tlsa:mx.a.example validation-failure (sslv3 alert handshake failure)"}},
		{"RPT-044 no TLSA record matches: certificate-not-trusted", []string{
			strings.Replace(verified, "=OK", "=DANE_FAIL", 1), rcpt + "454 4.7.0 DANE check failed.", deferred,
		}, []string{good + " tlsa:mx.a.example certificate-not-trusted (no TLSA record matches)"}},
		{"RPT-044 no TLSA record is usable: tlsa-invalid, and delivered", []string{
			failed + ", status=all TLSA RRs are unsupported", smtpSent,
		}, []string{good + " tlsa:mx.a.example tlsa-invalid (all TLSA RRs are unsupported)"}},
		{"RPT-041 LogLevel 12: DANE-TA, and the name is another's", []string{
			strings.Replace(verified, "=OK", "=DANE_FAIL", 1), client + "cert-subject=/CN=b.example, cert-issuer=/CN=CA, verifymsg=hostname mismatch", rcpt + "454 4.7.0 DANE check failed.", deferred,
		}, []string{good + " tlsa:mx.a.example certificate-host-mismatch (hostname mismatch)"}},
		{"RPT-044 LogLevel 12: no TLSA record matches", []string{
			strings.Replace(verified, "=OK", "=DANE_FAIL", 1), client + "cert-subject=/CN=mx.a.example, cert-issuer=/CN=CA, verifymsg=no matching DANE TLSA records", rcpt + "454 4.7.0 DANE check failed.", deferred,
		}, []string{good + " tlsa:mx.a.example certificate-not-trusted (no matching DANE TLSA records)"}},
		{"RPT-044 TLSA lookup failed, for whatever reason: no session", []string{
			strings.Replace(smtpTo, " [192.0.2.1]", "", 1) + "4.7.0, stat=Deferred: Name server: mx.a.example.: host name lookup failure for TLSA RR",
			strings.Replace(smtpTo, " [192.0.2.1]", "", 1) + "4.7.0, stat=Deferred: Name server: mx.a.example.: host name lookup failure for TLSA RR",
		}, nil},
		{"RPT-043 the handshake failed", []string{broken, server + "SOFTWARE, relay=mx.a.example, reject=454 4.7.0 TLS handshake failed.", deferred + "454 4.7.0 TLS handshake failed."}, []string{bad + "validation-failure (sslv3 alert handshake failure)"}},
		{"RPT-043 the same with OpenSSL 3.5", []string{strings.Replace(broken, "sslv3 alert", "ssl/tls alert", 1), server + "SOFTWARE, relay=mx.a.example, reject=454 4.7.0 TLS handshake failed.", deferred}, []string{bad + "validation-failure (ssl/tls alert handshake failure)"}},
		{"RPT-043 the handshake took too long", []string{
			client + "error: connect failed=-1, reason=unknown, SSL_error=2, errno=11, retry=0", server + "SOFTWARE, relay=mx.a.example, reject=454 4.7.0 TLS handshake failed.", deferred,
		}, []string{bad + "validation-failure (timed out)"}},
		{"RPT-043 the handshake failed, then in clear (TLSFallbacktoClear)", []string{broken, smtpSent}, []string{bad + "validation-failure (sslv3 alert handshake failure)"}},
		{"RPT-043 the handshake failed, and the next host took it", []string{
			broken, server + "SOFTWARE, relay=mx.a.example, reject=454 4.7.0 TLS handshake failed.", other(verified), other(smtpSent),
		}, []string{"a.example mx.a.example validation-failure (sslv3 alert handshake failure)", "a.example mx2.a.example 192.0.2.2"}},
	})
}

func TestBounds(t *testing.T) {
	discard := func(reporting.Session) {}
	r := sendmail.New(maillogtest.Options())
	for i := range 20_000 {
		r.Line([]byte(strings.Replace(verified, "25732", strconv.Itoa(i+1), 1)), discard)
	}
	if st := r.Stats(); st.Open != 16384 || st.Dropped != 20_000-16384 {
		t.Errorf("counted %+v", st)
	}
	for range 1000 {
		r.Line([]byte(verified), discard)
	}
	if n := len(r.AppendState(nil)); n > 8<<20 {
		t.Errorf("%d bytes of state", n)
	}
	// Long after, the process id is that of another process.
	emitted := 0
	r.Line([]byte(strings.ReplaceAll(smtpSent, "Nov 22", "Nov 23")), func(reporting.Session) { emitted++ })
	if st := r.Stats(); emitted != 0 || st.Open != 0 {
		t.Errorf("emitted %d, counted %+v", emitted, st)
	}
	r.Line(bytes.Repeat([]byte("x"), maillog.MaxLine+1), discard)
	if st := r.Stats(); st.Oversize != 1 {
		t.Errorf("counted %+v", st)
	}
	for _, state := range [][]byte{nil, {1}, []byte("rubbish")} {
		if err := r.RestoreState(state); err == nil {
			t.Errorf("state %q was taken", state)
		}
	}
}

func FuzzLog(f *testing.F) {
	for _, file := range []string{"sts.log", "opportunistic.log", "opportunistic-loglevel12.log"} {
		log, err := os.ReadFile("testdata/8.17.1.9/" + file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(log[:2500])
		f.Add(log[len(log)-2500:])
	}
	f.Add([]byte(strings.Join([]string{failed, subject + "x", rcpt + "454 4.7.0 DANE check failed.", smtpSent}, "\n")))
	f.Add([]byte(strings.Join([]string{process + "6AM3CIox025729: from=a, size=1, class=0, nrcpts=2, msgid=" + maillogtest.OwnID + ", proto=ESMTP", verified, smtpSent}, "\n")))
	f.Fuzz(func(t *testing.T, log []byte) { maillogtest.Fuzz(t, sendmail.New, log) })
}

func BenchmarkLog(b *testing.B) {
	maillogtest.Bench(b, sendmail.New, "testdata/8.17.1.9/opportunistic-loglevel12.log")
}

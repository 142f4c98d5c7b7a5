package exim_test

import (
	"bytes"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"postseal/reporting"
	"postseal/reporting/ingest/exim"
	"postseal/reporting/ingest/maillog"
	"postseal/reporting/ingest/maillog/maillogtest"
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
			got, st := maillogtest.Read(t, exim.New, log)
			want := maillogtest.ReadExpected(t, strings.TrimSuffix(file, ".log")+".expected.jsonl")
			hangs := bytes.Contains(log, []byte("hang.example.test"))
			maillogtest.Compare(t, want, got, true, func(x *maillogtest.Expectation) bool {
				// One delivery still hung when a log ended.
				return x.LogEvidence != "direct" || !hangs && x.Domain == "hang.example.test"
			})
			if st.Unparsed != 0 || st.Dropped != 0 || st.Open != 0 || st.Sessions != uint64(len(got)) {
				t.Errorf("counted %+v", st)
			}
		})
	}
}

const (
	id16 = "2026-11-22 03:01:00 1xUxp6-0006vs-2u "
	id23 = "2026-11-22 03:01:00 1vLxyz-00000000Abc-0d1E "
	good = "a.example mx.a.example 192.0.2.1"
	via  = "R=dnslookup T=postseal_smtp "
	mx   = "H=mx.a.example [192.0.2.1]:25 I=[198.51.100.1]:40001 "
	x13  = "X=TLS1.3:ECDHE_X25519__ECDSA_SECP256R1_SHA256__AES_128_GCM:128 CV=yes "
	tail = `DN="CN=mx.a.example" C="250 2.0.0 queued" QT=0s DT=0s`
	sent = "=> u@a.example " + via + mx + x13 + tail
)

func TestForms(t *testing.T) {
	for _, tt := range []struct {
		name  string
		lines []string
		want  []string
	}{
		{"message ids of 16 characters", []string{id16 + sent}, []string{good}},
		{"message ids of 23 characters, since 4.97", []string{id23 + sent}, []string{good}},
		{"default selectors", []string{id16 + `=> u@a.example R=dnslookup T=remote_smtp H=mx.a.example [192.0.2.1] X=TLS1.3:ECDHE:128 CV=yes C="250 ok"`}, []string{good}},
		{"4.100: the group in X=", []string{id23 + strings.Replace(sent, ":128 CV", ":128:X25519 CV", 1)}, []string{good}},
		{"DS: the MX record was signed", []string{id16 + strings.Replace(sent, "mx.a.example [", "mx.a.example DS [", 1)}, []string{good}},
		{"RPT-002 CV=dane: the MX host is the policy domain", []string{id16 + strings.Replace(sent, "CV=yes", "CV=dane", 1)}, []string{good + " tlsa:mx.a.example"}},
		{"CV=no where nothing was asked", []string{id16 + strings.Replace(sent, "CV=yes", "CV=no", 1)}, []string{good}},
		{"through a proxy, TCP Fast Open, authenticated", []string{id16 + strings.Replace(sent, "I=[", "PRX=[203.0.113.9]:1080 I=[", 1), id23 + strings.Replace(sent, "X=", "TFO X=", 1)}, []string{good, good}},
		{"IPv6", []string{id16 + strings.NewReplacer("[192.0.2.1]", "[2001:db8::1]", "[198.51.100.1]", "[2001:db8:2::10]").Replace(sent)}, []string{"a.example mx.a.example 2001:db8::1"}},
		{"milliseconds, a zone, process ids", []string{
			"2026-11-22 03:01:00.123 1xUxp6-0006vs-2u " + sent,
			"2026-11-22 04:01:00 +0100 1xUxp6-0006vs-3u " + sent,
			"2026-11-22 04:01:00.123 -0130 1xUxp6-0006vs-4u " + sent,
			"2026-11-22 03:01:00 [1234] 1xUxp6-0006vs-5u " + sent,
			"2026-11-22 03:01:00.5 +0000 [1234] 1vLxyz-00000000Abc-0d1E " + sent,
		}, []string{good, good, good, good, good}},
		{"through syslog, with Exim's own stamp, without, and by the year of the former", []string{
			"Nov 22 03:01:00 mta exim[99]: " + id16 + sent,
			"Nov 22 03:01:00 mta exim4[99]: 1xUxp6-0006vs-3u " + sent,
			"<22>Nov 22 03:01:00 mta exim: 1xUxp6-0006vs-4u " + sent,
			"2026-11-22T03:01:00.1+01:00 mta exim[99]: 1xUxp6-0006vs-5u " + sent,
			"<22>1 2026-11-22T03:01:00Z mta exim 99 - - 1vLxyz-00000000Abc-0d1E " + sent,
			`{"MESSAGE":"1xUxp6-0006vs-6u ` + strings.ReplaceAll(sent, `"`, `\"`) + `","SYSLOG_IDENTIFIER":"exim","_PID":"99","__REALTIME_TIMESTAMP":"1795318860000000"}`,
		}, []string{good, good, good, good, good, good}},
		{"cut for syslog: only the first piece tells", []string{
			`Nov 22 03:01:00 mta exim[99]: [1\2] ` + id16 + sent, `Nov 22 03:01:00 mta exim[99]: [2/2] ` + id16 + sent,
		}, []string{good}},
		{"other programs and other lines", []string{
			"Nov 22 03:01:00 mta smtpd[99]: 1xUxp6-0006vs-3u " + sent, "2026-11-22 03:01:00 exim 4.96 daemon started: pid=26524",
			"2026-11-22 03:01:00 Start queue run: pid=1", id16 + "Completed", id16 + "<= s@b.example H=(c) [192.0.2.9] P=esmtps X=TLS1.3:x:128 CV=no S=302", "", "\xff\xfe",
			"2026-11-22 03:01:00 1xUxp6-0006vs-2 " + sent, "2026-13-22 03:01:00 " + id16[20:] + sent, id16 + "=> user <user@a.example> R=local T=maildir",
			id16 + `=> u@a.example <v@b.example> R=pipe T=address_pipe`,
		}, nil},
		{"names in capitals; addresses that were something else before", []string{
			id16 + "=> U@A.Example (v@b.example) <w@c.example> F=<\"a b\"@s.example> P=<s@s.example> " + via + strings.Replace(mx, "mx.a.example", "MX.A.Example", 1) + x13 + tail,
		}, []string{good}},
		{"a quoted local part that looks like fields", []string{
			id16 + `=> "x@b.example R=r T=t H=mx.b.example [192.0.2.66]:25 X=TLS1.3:x:1 CV=yes"@a.example ` + via + mx + x13 + tail,
			id23 + `=> "\" H=mx.b.example [192.0.2.66]:25 X=TLS1.3:x:1"@a.example ` + via + mx + tail,
		}, []string{good}},
		{"a quoted pair outside of quotes, of a stranger's choice", []string{
			id16 + `== u@a.example <x\ X=1\ z@b.example> ` + via + `defer (-38) ` + mx[:len(mx)-1] + `: a TLS session is required, but the server did not offer TLS support`,
			id23 + `=> u@a.example <o\"b@b.example> F=<x\ T=remote_smtp_smarthost@c.example> ` + via + mx + x13 + tail,
		}, []string{"a.example mx.a.example 192.0.2.1 starttls-not-supported", good}},
		{"a reply that looks like fields", []string{
			id16 + "=> u@a.example " + via + mx + `C="250 ok X=TLS1.3:x:1 CV=dane H=mx.b.example [192.0.2.66]:25"`,
		}, nil},
		{"RPT-024 further recipients and a kept connection are no sessions", []string{
			id16 + sent, id16 + strings.Replace(sent, "=> u@", "-> v@", 1), id16 + "Completed",
			id23 + strings.Replace(sent, ":25 I=", ":25* I=", 1), id23 + strings.Replace(sent, "=> u@", "-> v@", 1), id23 + "Completed",
		}, []string{good}},
		{"RPT-024 two transactions down one connection", []string{id16 + sent, id16 + strings.Replace(sent, "=> u@", "=> v@", 1)}, []string{good}},
		{"two connections", []string{id16 + sent, id16 + strings.Replace(strings.Replace(sent, "=> u@", "=> v@", 1), ":40001", ":40002", 1)}, []string{good, good}},
		{"the same in a later attempt, where ports are not logged", []string{
			id16 + `** u@a.example R=r T=t H=mx.a.example [192.0.2.1] X=TLS1.3:x:128 CV=yes DN="x": SMTP error from remote mail server after RCPT TO:<u@a.example>: 550 no`,
			id16 + `** v@a.example R=r T=t H=mx.a.example [192.0.2.1] X=TLS1.3:x:128 CV=yes DN="x": SMTP error from remote mail server after RCPT TO:<v@a.example>: 550 no`,
			strings.Replace(id16, "03:01", "03:31", 1) + `=> w@a.example R=r T=t H=mx.a.example [192.0.2.1] X=TLS1.3:x:128 CV=yes C="250 ok"`,
		}, []string{good, good}},
		{"RPT-092 no connection is no session", []string{
			id16 + "H=mx.a.example [192.0.2.1]:25 Connection refused", id16 + "== u@a.example " + via + "defer (111): Connection refused DT=0s",
			id23 + "H=mx.a.example [192.0.2.1]:25 Connection refused", id23 + "== u@a.example " + via + "defer (Connection refused) H=mx.a.example [192.0.2.1]:25 I=[198.51.100.1]:40001 DT=0s",
			id16 + "H=mx.a.example [192.0.2.1]:25: SMTP timeout after initial connection: Connection timed out",
			id16 + "== u@a.example " + via + "defer (110): Connection timed out " + mx + "DT=6s: SMTP timeout after initial connection",
			id16 + "== u@a.example " + via + "defer (-53): retry time not reached for any host for 'a.example'",
		}, nil},
		{"our own ways out, and a smart host, are not counted", []string{
			id16 + strings.Replace(sent, "T=postseal_smtp", "T=remote_smtp_smarthost", 1),
			id16 + strings.Replace(sent, "T=postseal_smtp", "T=postseal_lmtp_relaxed", 1),
			id16 + "TLS session: (gnutls_handshake): Handshake failed: delivering unencrypted to H=mx.a.example [192.0.2.1] (not in hosts_require_tls)",
			id16 + "=> u@a.example R=r T=postseal_lmtp " + mx + `C="250 ok"`,
		}, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if diff := cmp.Diff(tt.want, maillogtest.Told(t, exim.New, tt.lines...)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestFailures(t *testing.T) {
	const (
		bad     = "a.example mx.a.example 192.0.2.1 "
		gaveUp  = "== u@a.example R=postseal_sts T=postseal_smtp_sts defer (-37) " + mx + "DT=0s: TLS session: "
		noTLS   = "a TLS session is required, but the server did not offer TLS support"
		refused = "a TLS session is required, but an attempt to start TLS failed"
		inClear = ": delivering unencrypted to H=mx.a.example [192.0.2.1] (not in hosts_require_tls)"
	)
	clear := "=> u@a.example " + via + strings.Replace(mx, "40001", "40002", 1) + tail
	for _, tt := range []struct {
		name  string
		lines []string
		want  []string
	}{
		{"RPT-041 GnuTLS: nothing is said of another name", []string{id16 + gaveUp + "(certificate verification failed)"}, []string{bad + "certificate-host-mismatch ((certificate verification failed))"}},
		{"RPT-043 GnuTLS: all else that may be wrong is one", []string{id16 + gaveUp + "(certificate verification failed): certificate invalid"}, []string{bad + "validation-failure ((certificate verification failed): certificate invalid)"}},
		{"OpenSSL: certificate-expired", []string{
			id16 + "[192.0.2.1] SSL verify error: depth=0 error=certificate has expired cert=/CN=mx.a.example error=self-signed",
			id16 + gaveUp + "(SSL_connect): error:0A000086:SSL routines::certificate verify failed",
		}, []string{bad + "certificate-expired (certificate has expired)"}},
		{"RPT-042 OpenSSL: self-signed", []string{
			id16 + "[192.0.2.1] SSL verify error: depth=0 error=self-signed certificate cert=/CN=mx.a.example",
			id16 + gaveUp + "(SSL_connect): error:0A000086:SSL routines::certificate verify failed",
		}, []string{bad + "certificate-not-trusted (self-signed certificate)"}},
		{"RPT-042 OpenSSL: unknown CA, said twice", []string{
			id16 + "[192.0.2.1] SSL verify error: depth=0 error=unable to get local issuer certificate cert=/CN=mx.a.example",
			id16 + "[192.0.2.1] SSL verify error: depth=0 error=unable to verify the first certificate cert=/CN=mx.a.example",
			id16 + gaveUp + "(SSL_connect): error:0A000086:SSL routines::certificate verify failed",
		}, []string{bad + "certificate-not-trusted (unable to get local issuer certificate)"}},
		{"RPT-041 OpenSSL: another name", []string{
			id16 + `[192.0.2.1] SSL verify error: certificate name mismatch: DN="/CN=certificate has expired" H="mx.a.example"`,
			id16 + gaveUp + "(SSL_connect): error:0A000086:SSL routines::certificate verify failed",
		}, []string{bad + "certificate-host-mismatch (certificate name mismatch)"}},
		{"OpenSSL: what is said does not matter where TLS is not required", []string{
			id16 + "[192.0.2.1] SSL verify error: depth=0 error=certificate has expired cert=/CN=mx.a.example", id16 + sent, id16 + "Completed",
		}, []string{good}},
		{"RPT-043 a broken handshake", []string{id16 + gaveUp + "(gnutls_handshake): Handshake failed"}, []string{bad + "validation-failure ((gnutls_handshake): Handshake failed)"}},
		{"RPT-043 4.98: a broken handshake, then in clear: one session", []string{
			id23 + "TLS session: (gnutls_handshake): rxd alert: Handshake failed" + inClear, id23 + clear, id23 + "Completed",
		}, []string{bad + "validation-failure ((gnutls_handshake): rxd alert: Handshake failed)"}},
		{"RPT-043 the clear connection is refused, the next host takes it", []string{
			id16 + "TLS session: (SSL_connect): error:0A000410:SSL routines::sslv3 alert handshake failure" + inClear,
			id16 + "H=mx.a.example [192.0.2.1]:25 Connection refused",
			id16 + strings.NewReplacer("mx.a", "mx2.a", "192.0.2.1", "192.0.2.2").Replace(sent), id16 + "Completed",
		}, []string{"a.example mx2.a.example 192.0.2.2", bad + "validation-failure ((SSL_connect): error:0A000410:SSL routines::sslv3 alert handshake failure)"}},
		{"the next host takes it, and the recipients are of two domains: not told", []string{
			id16 + "TLS session: (gnutls_handshake): timed out" + inClear,
			id16 + strings.NewReplacer("mx.a", "mx2.a", "192.0.2.1", "192.0.2.2").Replace(sent),
			id16 + strings.NewReplacer("a.example", "b.example", "192.0.2.1", "192.0.2.3").Replace(sent), id16 + "Completed",
		}, []string{"a.example mx2.a.example 192.0.2.2", "b.example mx.b.example 192.0.2.3"}},
		{"4.100 with OpenSSL: garbage in the text", []string{
			id23 + "TLS session: I\x89\xc6H\x01 \x7f" + inClear, id23 + clear,
		}, []string{bad + "validation-failure (I??H)"}},
		{"RPT-040 no STARTTLS, required, two recipients", []string{
			id16 + "H=mx.a.example [192.0.2.1]:25: " + noTLS,
			id16 + "== u@a.example " + via + "defer (-38) " + mx + "DT=0s: " + noTLS, id16 + "== v@a.example " + via + "defer (-38) " + mx + "DT=0s: " + noTLS,
		}, []string{bad + "starttls-not-supported"}},
		{"RPT-040 4.100: no number, and a blank before the colon", []string{
			id23 + "H=mx.a.example [192.0.2.1]:25 : " + noTLS, id23 + "== u@a.example " + via + "defer " + mx + "DT=0s : " + noTLS,
		}, []string{bad + "starttls-not-supported"}},
		{"RPT-040 4.100: words for the number", []string{
			id23 + "== u@a.example " + via + "defer (TLS required but refused) " + mx + "DT=0s: " + refused,
		}, []string{bad + "starttls-not-supported (STARTTLS was offered, but refused)"}},
		{"RPT-040 neither ports nor times are logged", []string{
			id16 + "H=mx.a.example [192.0.2.1]: " + noTLS, id16 + "== u@a.example R=r T=t defer (-38) H=mx.a.example [192.0.2.1]: " + noTLS, id16 + "== v@a.example R=r T=t defer (-38) H=mx.a.example [192.0.2.1]: " + noTLS,
			strings.Replace(id16, "03:01", "03:31", 1) + "== u@a.example R=r T=t defer (-38) H=mx.a.example [192.0.2.1]: " + noTLS,
		}, []string{bad + "starttls-not-supported", bad + "starttls-not-supported"}},
		{"RPT-040 no STARTTLS, required, and the next host has it", []string{
			id16 + "H=mx.a.example [192.0.2.1]:25: " + noTLS,
			id16 + strings.NewReplacer("mx.a", "mx2.a", "192.0.2.1", "192.0.2.2").Replace(sent), id16 + "Completed",
		}, []string{"a.example mx2.a.example 192.0.2.2", bad + "starttls-not-supported"}},
		{"RPT-040 STARTTLS refused under DANE", []string{
			id16 + "H=mx.a.example [192.0.2.1]:25: SMTP error from remote mail server after STARTTLS: 454 4.7.0 not now for <u@a.example>",
			id16 + "== u@a.example " + via + "defer (-46) " + mx + "DT=0s: SMTP error from remote mail server after STARTTLS: 454 4.7.0 not now for <u@a.example>",
		}, []string{bad + "starttls-not-supported (454 4.7.0 not now for [address])"}},
		{"bounced at last, for the same", []string{id16 + "** u@a.example " + via + mx + "DT=0s: " + noTLS}, []string{bad + "starttls-not-supported"}},
		{"RPT-044 DANE, no record matches: certificate-not-trusted", []string{
			id16 + "DANE attempt failed; TLS connection to mx.a.example [192.0.2.1]: (certificate verification failed): Verification failed. The certificate differs. ",
			id16 + gaveUp + "(certificate verification failed): Verification failed. The certificate differs. ",
		}, []string{bad[:len(bad)-1] + " tlsa:mx.a.example certificate-not-trusted ((certificate verification failed): Verification failed. The certificate differs.)"}},
		{"RPT-044 the same with OpenSSL, which says less, and more", []string{
			id16 + "DANE attempt failed; TLS connection to mx.a.example [192.0.2.1]: (SSL_connect): error:0A000086:SSL routines::certificate verify failed",
			id16 + gaveUp + "(SSL_connect): error:0A000086:SSL routines::certificate verify failed",
			id23 + "[192.0.2.1] SSL verify error: depth=0 error=no matching DANE TLSA records cert=/CN=mx.a.example",
			id23 + "DANE attempt failed; TLS connection to mx.a.example [192.0.2.1]: (SSL_connect): error:0A000086:SSL routines::certificate verify failed",
			id23 + gaveUp + "(SSL_connect): error:0A000086:SSL routines::certificate verify failed",
		}, []string{
			bad[:len(bad)-1] + " tlsa:mx.a.example certificate-not-trusted ((SSL_connect): error:0A000086:SSL routines::certificate verify failed)",
			bad[:len(bad)-1] + " tlsa:mx.a.example certificate-not-trusted (no matching DANE TLSA records)",
		}},
		{"RPT-041 DANE-TA, another name", []string{
			id16 + "DANE attempt failed; TLS connection to mx.a.example [192.0.2.1]: (certificate verification failed)",
			id16 + gaveUp + "(certificate verification failed)",
		}, []string{bad[:len(bad)-1] + " tlsa:mx.a.example certificate-host-mismatch ((certificate verification failed))"}},
		{"RPT-044 DANE fails at the first host, not at the second", []string{
			id23 + "DANE attempt failed; TLS connection to mx.a.example DS [192.0.2.1]: (certificate verification failed): Verification failed. CA constrains were violated. ",
			id23 + strings.NewReplacer("mx.a", "mx2.a", "192.0.2.1", "192.0.2.2", "CV=yes", "CV=dane").Replace(sent), id23 + "Completed",
		}, []string{"a.example mx2.a.example 192.0.2.2 tlsa:mx2.a.example", bad[:len(bad)-1] + " tlsa:mx.a.example certificate-not-trusted ((certificate verification failed): Verification failed. CA constrains were violated.)"}},
		{"RPT-044 TLSA lookup failed: dnssec-invalid", []string{
			id16 + "H=mx.a.example [192.0.2.1]:25: DANE error: tlsa lookup DEFER",
			id16 + "== u@a.example " + via + "defer (-36) H=mx.a.example [192.0.2.1]:25 DT=0s: DANE error: tlsa lookup DEFER",
		}, []string{bad[:len(bad)-1] + " tlsa:mx.a.example dnssec-invalid (tlsa lookup DEFER)"}},
		{"RPT-044 no TLSA where DANE is demanded: dane-required", []string{
			id16 + "== u@a.example " + via + "defer (-36) H=mx.a.example [192.0.2.1]:25 DT=0s: DANE error: tlsa lookup FAIL",
		}, []string{bad[:len(bad)-1] + " tlsa:mx.a.example dane-required"}},
		{"no MX host of the policy is left: once for each attempt", []string{
			id16 + "== u@a.example R=postseal_sts_no_mx defer (-32) DT=0s: MTA-STS: no MX host of a.example is in the policy",
			id16 + "== v@a.example R=postseal_sts_no_mx defer (-32) DT=0s: MTA-STS: no MX host of a.example is in the policy",
			strings.Replace(id16, "03:01", "03:31", 1) + "== u@a.example R=postseal_sts_no_mx defer: MTA-STS: no MX host of a.example is in the policy",
			id23 + "== u@a.example R=own defer (-1): MTA-STS: no MX host of b.example is in the policy",
		}, []string{"a.example  sts:a.example validation-failure (mx-not-in-policy)", "a.example  sts:a.example validation-failure (mx-not-in-policy)"}},
		{"policy service down: not TLS", []string{id16 + "== u@a.example R=postseal_policy defer (-1) DT=0s: policy service unavailable"}, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if diff := cmp.Diff(tt.want, maillogtest.Told(t, exim.New, tt.lines...)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestTimes(t *testing.T) {
	for line, want := range map[string]string{
		id16 + sent: "2026-11-22T03:01:00Z",
		"2026-11-22 04:01:00.25 +0100 1xUxp6-0006vs-2u " + sent:                                              "2026-11-22T03:01:00.25Z",
		"Jan  1 00:00:00 mta exim[9]: 2026-12-31 23:59:59 -0100 1xUxp6-0006vs-2u " + sent:                    "2027-01-01T00:59:59Z",
		"2026-11-22T03:01:00+01:00 mta exim[9]: 1xUxp6-0006vs-2u " + sent:                                    "2026-11-22T02:01:00Z",
		"Nov 22 03:01:00 mta exim[9]: 1xUxp6-0006vs-2u " + sent:                                              "2026-11-22T03:01:00Z",
		"2026-11-22 03:01:00 1xUxp6-0006vs-2u == u@a.example R=r T=t defer (-37) " + mx + ": TLS session: x": "2026-11-22T03:01:00Z",
	} {
		sessions, _ := maillogtest.Read(t, exim.New, []byte(line))
		if len(sessions) != 1 || sessions[0].Time.Format(time.RFC3339Nano) != want {
			t.Errorf("%s: got %+v, want one at %s", line, sessions, want)
		} else if sessions[0].SendingIP != netip.MustParseAddr("198.51.100.1") && strings.Contains(line, "I=") {
			t.Errorf("%s: sent from %s", line, sessions[0].SendingIP)
		}
	}
}

func TestBounds(t *testing.T) {
	discard := func(reporting.Session) {}
	r := exim.New(maillogtest.Options())
	for i := range 40_000 {
		id := fmt.Sprintf("2026-11-22 03:01:00 1xUxp6-%06d-2u ", i)
		r.Line([]byte(id+"TLS session: (gnutls_handshake): timed out: delivering unencrypted to H=mx.a.example [192.0.2.1] (not in hosts_require_tls)"), discard)
	}
	st := r.Stats()
	if st.Open == 0 || st.Open > 16384 || st.Dropped != uint64(40_000-st.Open) {
		t.Errorf("counted %+v", st)
	}
	for i := range 1000 {
		r.Line([]byte(id16+fmt.Sprintf("TLS session: %s: delivering unencrypted to H=mx%d.a.example [192.0.2.1] (x)", strings.Repeat("x", 5000), i)), discard)
	}
	if n := len(r.AppendState(nil)); n > 8<<20 {
		t.Errorf("%d bytes of state", n)
	}
	r.Line(bytes.Repeat([]byte("x"), maillog.MaxLine+1), discard)
	if st := r.Stats(); st.Oversize != 1 {
		t.Errorf("counted %+v", st)
	}
	// An hour later what still waits is settled, though nothing more was said of it.
	r.Line([]byte("2026-11-22 04:02:00 1xUxp6-0006vs-2u Completed"), discard)
	if st := r.Stats(); st.Open != 0 {
		t.Errorf("an hour later: %+v", st)
	}
	for _, state := range [][]byte{nil, {1}, []byte("rubbish")} {
		if err := r.RestoreState(state); err == nil {
			t.Errorf("state %q was taken", state)
		}
	}
}

func FuzzLog(f *testing.F) {
	for _, file := range []string{"testdata/4.96/sts.log", "testdata/4.96/opportunistic.log", "testdata/4.96-openssl/opportunistic.log"} {
		log, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(log[:2000])
		f.Add(log[len(log)-2000:])
	}
	f.Add([]byte(id16 + sent))
	f.Add([]byte(id16 + "<= a@mta.example.org U=a P=local S=1 id=" + maillogtest.BareID + "\n" + id16 + sent + "\n" + id16 + "Completed"))
	f.Add([]byte("Nov 22 03:01:00 mta exim[99]: [1\\2] " + id23 + "DANE attempt failed; TLS connection to mx.a.example [192.0.2.1]: x"))
	f.Fuzz(func(t *testing.T, log []byte) { maillogtest.Fuzz(t, exim.New, log) })
}

func BenchmarkLog(b *testing.B) {
	maillogtest.Bench(b, exim.New, "testdata/4.96/opportunistic.log")
}

package exim_test

import (
	"bufio"
	"bytes"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"postseal/reporting"
	"postseal/reporting/ingest/exim"
	"postseal/reporting/ingest/maillog/maillogtest"
	"postseal/reporting/tlsrpt"
)

// recorded is a line of *.events.jsonl.
type recorded struct {
	Fields string `json:"e"`
	Time   string `json:"t"`
}

// eventFields are the recorder's names of what contrib/exim sends as the
// second one.
var eventFields = [][2]string{
	{"n", "n"}, {"msgid", "m"}, {"tr", "t"}, {"dom", "d"}, {"host", "h"}, {"ip", "a"}, {"port", "p"}, {"oip", "la"},
	{"dnssec", "ds"}, {"ver", "tv"}, {"ciph", "tc"}, {"cv", "cv"}, {"dane", "dane"}, {"sni", "sni"}, {"errno", "e"},
}

func (r *recorded) line() (line string, at time.Time) {
	fields := map[string]string{}
	for field := range strings.SplitSeq(r.Fields, "|") {
		key, value, _ := strings.Cut(field, "=")
		fields[key] = value
	}
	b := []byte("event")
	for _, f := range eventFields {
		b = append(b, " "+f[1]+"="+fields[f[0]]...)
	}
	if fields["der"] != "" {
		b = append(b, " der="+fields["der"]...)
	}
	data := strings.ReplaceAll(fields["d"], `\n`, "\n")
	b = append(b, " x="+base64.StdEncoding.EncodeToString([]byte(data))...)
	at, _ = time.Parse(time.DateTime, "2026-11-22 "+r.Time)
	return string(b), at
}

func readEvents(t testing.TB, file string) []recorded {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var all []recorded
	scan := bufio.NewScanner(bytes.NewReader(data))
	scan.Buffer(nil, 1<<20)
	for scan.Scan() {
		var r recorded
		if err := json.Unmarshal(scan.Bytes(), &r); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		all = append(all, r)
	}
	return all
}

// testCA is the CA of the corpora, which OpenSSL builds show with each chain.
func testCA(t testing.TB) *x509.CertPool {
	t.Helper()
	for _, r := range readEvents(t, "testdata/4.96-openssl/opportunistic.events.jsonl") {
		if _, der, ok := strings.Cut(r.Fields, "|der="); ok && strings.Contains(r.Fields, "|d=1|") {
			raw, err := base64.StdEncoding.DecodeString(strings.SplitN(der, "|", 2)[0])
			if err != nil {
				t.Fatal(err)
			}
			ca, err := x509.ParseCertificate(raw)
			if err != nil {
				t.Fatal(err)
			}
			if ca.Subject.CommonName == "Example Test CA" {
				pool := x509.NewCertPool()
				pool.AddCert(ca)
				return pool
			}
		}
	}
	t.Fatal("no CA in the corpus")
	return nil
}

func TestEventsCorpus(t *testing.T) {
	files, err := filepath.Glob("testdata/*/*.events.jsonl")
	if err != nil || len(files) != 3 {
		t.Fatalf("%d files, error %v", len(files), err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(strings.TrimPrefix(file, "testdata/"), ".events.jsonl"), func(t *testing.T) {
			var got []reporting.Session
			var now time.Time
			e := &exim.Events{Roots: testCA(t), Now: func() time.Time { return now }, Emit: func(s reporting.Session) { got = append(got, s) }}
			recordedEvents := readEvents(t, file)
			for _, r := range recordedEvents {
				var line string
				line, now = r.line()
				if err := e.Line(line); err != nil {
					t.Fatalf("%v\n%s", err, line)
				}
			}
			e.Flush()
			want := maillogtest.ReadExpected(t, strings.Replace(file, ".events.", ".expected.", 1))
			maillogtest.Compare(t, want, got, false, func(x *maillogtest.Expectation) bool {
				// No connection was made; and one still hung when the recording ended.
				return x.LogEvidence == "log-only" || x.Domain == "hang.example.test"
			})
			st := e.Stats()
			if st.Events != uint64(len(recordedEvents)) || st.Sessions != uint64(len(got)) || st.Open != 0 || st.Malformed != 0 {
				t.Errorf("counted %+v, %d lines, %d sessions", st, len(recordedEvents), len(got))
			}
			for _, s := range got {
				if s.Time.Year() != 2026 || !s.SendingIP.IsValid() {
					t.Errorf("session without time or sender: %+v", s)
				}
			}
		})
	}
}

// said is an event line; fields given later replace the usual ones.
func said(name, text string, fields ...string) string {
	values := map[string]string{
		"m": "1xUxp6-0006vs-2u", "t": "postseal_smtp", "d": "a.example", "h": "mx.a.example", "a": "192.0.2.1", "p": "25",
		"la": "198.51.100.1", "lp": "40001", "ds": "no", "cv": "0", "dane": "no", "e": "0",
	}
	for _, f := range fields {
		key, value, _ := strings.Cut(f, "=")
		values[key] = value
	}
	line := "event n=" + name
	if id, ok := values["i"]; ok {
		line += " i=" + base64.StdEncoding.EncodeToString([]byte(id))
	}
	for _, key := range []string{"m", "t", "d", "h", "a", "p", "la", "lp", "ds", "tv", "tc", "cv", "dane", "sni", "e"} {
		line += " " + key + "=" + values[key]
	}
	if der := values["der"]; der != "" {
		line += " der=" + der
	}
	return line + " x=" + base64.StdEncoding.EncodeToString([]byte(text))
}

const (
	withTLS    = "250-mx.a.example\n250-SIZE 100\n250 STARTTLS"
	withoutTLS = "250-mx.a.example\n250 SIZE 100"
	clearText  = "tv="
	underTLS   = "tv=TLS1.3"
)

// joined feeds lines one second apart, ends, and returns what came out, in short.
func joined(t *testing.T, e *exim.Events, lines ...string) []string {
	t.Helper()
	var got []string
	if e.Emit == nil {
		e.Emit = func(s reporting.Session) {
			what := s.Domain + " " + s.MXHost
			if s.Policy.Type != "" {
				what += " " + string(s.Policy.Type) + " " + s.Policy.Domain
			}
			if s.Failed() {
				what += " " + string(s.Result)
			}
			if s.Reason != "" {
				what += " (" + s.Reason + ")"
			}
			got = append(got, what)
		}
	}
	now := time.Date(2026, 11, 22, 3, 0, 0, 0, time.UTC)
	if e.Now == nil {
		e.Now = func() time.Time { now = now.Add(time.Second); return now }
	}
	for _, line := range lines {
		if err := e.Line(line); err != nil {
			t.Errorf("%v: %s", err, line)
		}
	}
	e.Flush()
	return got
}

func TestEvents(t *testing.T) {
	for _, tt := range []struct {
		name  string
		lines []string
		want  []string
	}{
		{"TLS, two recipients: one session", []string{
			said("smtp:ehlo", withTLS), said("smtp:ehlo", withoutTLS, underTLS, "cv=1"),
			said("msg:delivery", "250 ok", underTLS), said("msg:delivery", "250 ok", underTLS),
		}, []string{"a.example mx.a.example"}},
		{"RPT-024 a message on a connection that was kept open is no session", []string{
			said("smtp:ehlo", withTLS), said("smtp:ehlo", withoutTLS, underTLS), said("msg:delivery", "250 ok", underTLS),
			said("msg:delivery", "250 ok", underTLS, "m=1xUxp6-0006vs-3v"),
		}, []string{"a.example mx.a.example"}},
		{"DANE names the MX host as its policy domain", []string{
			said("smtp:ehlo", withTLS), said("smtp:ehlo", withoutTLS, underTLS, "cv=1", "dane=yes"),
		}, []string{"a.example mx.a.example tlsa mx.a.example"}},
		{"RPT-040 no STARTTLS, sent in clear", []string{
			said("smtp:ehlo", withoutTLS), said("msg:delivery", "250 ok", clearText), said("msg:delivery", "250 ok", clearText),
		}, []string{"a.example mx.a.example starttls-not-supported"}},
		{"RPT-040 no STARTTLS, and all recipients refused, of which no event tells", []string{
			said("smtp:ehlo", withoutTLS),
		}, []string{"a.example mx.a.example starttls-not-supported"}},
		{"RPT-040 STARTTLS answered 454, sent in clear", []string{
			said("smtp:ehlo", withTLS), said("msg:delivery", "250 ok", clearText),
		}, []string{"a.example mx.a.example starttls-not-supported (STARTTLS was offered, but refused)"}},
		{"RPT-040 STARTTLS answered 454, then deferred in clear", []string{
			said("smtp:ehlo", withTLS), said("msg:host:defer", "SMTP error from remote mail server after RCPT TO:<u@a.example>: 450 later", clearText, "e=-44"),
		}, []string{"a.example mx.a.example starttls-not-supported (STARTTLS was offered, but refused)"}},
		{"RPT-040 no STARTTLS, but required", []string{
			said("smtp:ehlo", withoutTLS), said("msg:host:defer", "a TLS session is required, but the server did not offer TLS support", "e=-38"),
		}, []string{"a.example mx.a.example starttls-not-supported"}},
		{"RPT-040 STARTTLS refused, but required by DANE", []string{
			said("smtp:ehlo", withTLS), said("dane:fail", "validation-failure"),
			said("msg:host:defer", "a TLS session is required, but an attempt to start TLS failed", "e=-38"),
		}, []string{"a.example mx.a.example tlsa mx.a.example starttls-not-supported (STARTTLS was offered, but refused)"}},
		{"STARTTLS refused under DANE, by reply", []string{
			said("smtp:ehlo", withTLS), said("msg:host:defer", "SMTP error from remote mail server after STARTTLS: 454 4.7.0 TLS not available", "e=-46"),
		}, []string{"a.example mx.a.example starttls-not-supported (454 4.7.0 TLS not available)"}},
		{"RPT-043 a handshake that fails, then in clear: one session", []string{
			said("smtp:ehlo", withTLS), said("msg:host:defer", "TLS session: (gnutls_handshake): Handshake failed", "e=-37"),
			said("smtp:ehlo", withTLS, "lp=40002", "t=", "e=-37"), said("msg:delivery", "250 ok", "lp=40002", clearText),
		}, []string{"a.example mx.a.example validation-failure ((gnutls_handshake): Handshake failed)"}},
		{"the same where the port is not known", []string{
			said("smtp:ehlo", withTLS, "lp="), said("msg:host:defer", "TLS session: (gnutls_handshake): Handshake failed", "e=-37", "lp="),
			said("smtp:ehlo", withTLS, "lp=", "t=", "e=-37"), said("msg:delivery", "250 ok", "lp=", clearText),
		}, []string{"a.example mx.a.example validation-failure ((gnutls_handshake): Handshake failed)"}},
		{"a handshake that fails, and another domain at the same host", []string{
			said("smtp:ehlo", withTLS), said("msg:host:defer", "TLS session: (gnutls_handshake): timed out", "e=-37"),
			said("smtp:ehlo", withoutTLS, "lp=40002", "d=b.example"), said("msg:delivery", "250 ok", "lp=40002", "d=b.example", clearText),
			said("smtp:ehlo", withTLS, "lp=40003"), said("msg:delivery", "250 ok", "lp=40003", clearText),
		}, []string{"a.example mx.a.example validation-failure ((gnutls_handshake): timed out)", "b.example mx.a.example starttls-not-supported"}},
		{"the second host succeeds, its values stale", []string{
			said("smtp:ehlo", withTLS), said("msg:host:defer", "TLS session: (certificate verification failed): certificate invalid", "e=-37"),
			said("smtp:ehlo", withTLS, "h=mx2.a.example", "a=192.0.2.2", "t=", "e=-37", "sni=mx.a.example", "lp=40002"),
			said("smtp:ehlo", withoutTLS, "h=mx2.a.example", "a=192.0.2.2", "t=", "e=-37", "lp=40002", underTLS, "cv=1"),
			said("msg:delivery", "250 ok", "h=mx2.a.example", "a=192.0.2.2", "lp=40002", underTLS),
		}, []string{
			"a.example mx.a.example validation-failure ((certificate verification failed): certificate invalid)",
			"a.example mx2.a.example",
		}},
		{"RPT-092 no connection is no session", []string{
			said("msg:host:defer", "Connection refused", "e=111", "lp="),
			said("msg:host:defer", "SMTP timeout after initial connection: Connection timed out", "e=110"),
		}, nil},
		{"RPT-092 a connection lost after EHLO is no session", []string{
			said("smtp:ehlo", withTLS), said("msg:host:defer", "Remote host closed connection in response to EHLO", "e=-18"),
		}, nil},
		{"RPT-044 TLSA lookup failed: dnssec-invalid, without a connection", []string{
			said("dane:fail", "dnssec-invalid", "lp=", "la="), said("msg:host:defer", "DANE error: tlsa lookup DEFER", "e=-36", "lp=", "la="),
		}, []string{"a.example mx.a.example tlsa mx.a.example dnssec-invalid"}},
		{"RPT-044 the same without the event before", []string{
			said("msg:host:defer", "DANE error: tlsa lookup DEFER", "e=-36"),
		}, []string{"a.example mx.a.example tlsa mx.a.example dnssec-invalid"}},
		{"RPT-044 dane-required", []string{
			said("dane:fail", "dane-required"), said("msg:host:defer", "DANE error: tlsa lookup FAIL", "e=-36"),
		}, []string{"a.example mx.a.example tlsa mx.a.example dane-required"}},
		{"RPT-044 no TLSA record matches: certificate-not-trusted", []string{
			said("smtp:ehlo", withTLS), said("dane:fail", "validation-failure"),
			said("msg:host:defer", "TLS session: (certificate verification failed): Verification failed. The certificate differs. ", "e=-37"),
		}, []string{"a.example mx.a.example tlsa mx.a.example certificate-not-trusted ((certificate verification failed): Verification failed. The certificate differs.)"}},
		{"DANE and a broken handshake", []string{
			said("smtp:ehlo", withTLS), said("dane:fail", "validation-failure"),
			said("msg:host:defer", "TLS session: (gnutls_handshake): Handshake failed", "e=-37"),
		}, []string{"a.example mx.a.example tlsa mx.a.example validation-failure ((gnutls_handshake): Handshake failed)"}},
		{"RPT-044 DANE without STARTTLS", []string{
			said("smtp:ehlo", withoutTLS), said("dane:fail", "starttls-not-supported"),
			said("msg:host:defer", "a TLS session is required, but the server did not offer TLS support", "e=-38"),
		}, []string{"a.example mx.a.example tlsa mx.a.example starttls-not-supported"}},
		{"RPT-046 a type of tomorrow is passed on", []string{
			said("dane:fail", "foo-bar"), said("msg:host:defer", "DANE error", "e=-36"),
		}, []string{"a.example mx.a.example tlsa mx.a.example foo-bar"}},
		{"SEED-012 a retired name is mapped", []string{
			said("dane:fail", "expired-certificate"), said("msg:host:defer", "DANE error", "e=-36"),
		}, []string{"a.example mx.a.example tlsa mx.a.example certificate-expired"}},
		{"SEED-012 what is no name is a validation-failure with it as the reason", []string{
			said("dane:fail", "Odd words"), said("msg:host:defer", "SMTP timeout", "e=110"),
		}, []string{"a.example mx.a.example tlsa mx.a.example validation-failure (Odd words)"}},
		{"our own transports do not count, nor their next hosts that are not named", []string{
			said("smtp:ehlo", withoutTLS, "t=postseal_lmtp_relaxed"), said("msg:delivery", "250 ok", "t=postseal_lmtp_relaxed"),
			said("smtp:ehlo", withoutTLS, "t=", "a=192.0.2.2"),
		}, nil},
		{"a port that is used again ends the connection before", []string{
			said("smtp:ehlo", withoutTLS), said("smtp:ehlo", withTLS), said("smtp:ehlo", withoutTLS, underTLS),
		}, []string{"a.example mx.a.example starttls-not-supported", "a.example mx.a.example"}},
		{"events of other kinds, and without a connection", []string{
			said("tcp:connect", ""), said("tcp:close", ""), said("dns:fail", "x"), said("smtp:ehlo", withoutTLS, "a="), said("msg:complete", "", "m="),
		}, nil},
		{"names in capitals, final dots and A-labels", []string{
			said("smtp:ehlo", withTLS, "d=B\xc3\xbccher.Example", "h=MX.A.Example."), said("smtp:ehlo", withoutTLS, underTLS, "d=B\xc3\xbccher.Example", "h=MX.A.Example."),
		}, []string{"xn--bcher-kva.example mx.a.example"}},
		{"what is no domain is not counted", []string{
			said("smtp:ehlo", withTLS, "d=[192.0.2.7]"), said("smtp:ehlo", withoutTLS, underTLS, "d=[192.0.2.7]"),
		}, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := joined(t, &exim.Events{}, tt.lines...)
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// shown returns the tls:cert events of a domain of the corpora, in said's form.
func shown(t *testing.T, domain string) []string {
	t.Helper()
	for _, file := range []string{"testdata/4.96/opportunistic.events.jsonl", "testdata/4.96/sts.events.jsonl"} {
		for _, r := range readEvents(t, file) {
			if _, der, ok := strings.Cut(r.Fields, "|der="); ok && strings.Contains(r.Fields, "|dom="+domain+"|") {
				return []string{said("tls:cert", "0", "der="+strings.SplitN(der, "|", 2)[0], "d="+domain, "h=mx."+domain)}
			}
		}
	}
	t.Fatalf("%s shows no certificate", domain)
	return nil
}

// TestEventsCertificates: Exim says of an STS failure no more than "certificate
// invalid", so the certificates are looked at again.
func TestEventsCertificates(t *testing.T) {
	at := time.Date(2026, 11, 22, 3, 0, 0, 0, time.UTC)
	for _, tt := range []struct {
		name, domain string
		result       tlsrpt.ResultType
		reason       string
	}{
		{"certificate-expired", "sts-expired.example.test", tlsrpt.CertificateExpired, "certificate has expired"},
		{"RPT-041 certificate-host-mismatch", "sts-wrongname.example.test", tlsrpt.CertificateHostMismatch, "certificate is for another host"},
		{"RPT-042 self-signed", "sts-self.example.test", tlsrpt.CertificateNotTrusted, "self-signed certificate"},
		{"RPT-042 unknown CA", "sts-untrusted.example.test", tlsrpt.CertificateNotTrusted, "unknown certification authority"},
		{"RPT-043 not yet valid", "notyet.example.test", tlsrpt.ValidationFailure, "certificate is not yet valid"},
		{"RPT-042 good in our eyes", "sts-ok.example.test", tlsrpt.CertificateNotTrusted, "(certificate verification failed): certificate invalid"},
	} {
		domain, host := "d="+tt.domain, "h=mx."+tt.domain
		ehlo := said("smtp:ehlo", withTLS, domain, host)
		fails := func(e *exim.Events, text string) (s reporting.Session) {
			e.Roots, e.Now = testCA(t), func() time.Time { return at }
			e.Emit = func(got reporting.Session) { s = got }
			lines := append([]string{ehlo}, shown(t, tt.domain)...)
			joined(t, e, append(lines, said("msg:host:defer", text, "e=-37", domain, host))...)
			return s
		}
		t.Run(tt.name, func(t *testing.T) {
			s := fails(&exim.Events{}, "TLS session: (certificate verification failed): certificate invalid")
			if s.Result != tt.result || s.Reason != tt.reason {
				t.Errorf("GnuTLS: got %s (%s), want %s (%s)", s.Result, s.Reason, tt.result, tt.reason)
			}
			s = fails(&exim.Events{}, "TLS session: (SSL_connect): error:0A000086:SSL routines::certificate verify failed")
			if s.Result != tt.result {
				t.Errorf("OpenSSL: got %s, want %s", s.Result, tt.result)
			}
			s = fails(&exim.Events{}, "TLS session: (SSL_connect): error:0A00014D:SSL routines::legacy sigalg disallowed or unsupported")
			if s.Result != tlsrpt.ValidationFailure || !strings.Contains(s.Reason, "legacy sigalg") {
				t.Errorf("a handshake that fails behind the certificates: got %s (%s)", s.Result, s.Reason)
			}
		})
		t.Run("refused: "+tt.name, func(t *testing.T) {
			var s reporting.Session
			e := &exim.Events{Roots: testCA(t), Now: func() time.Time { return at }, Emit: func(got reporting.Session) { s = got }}
			_, der, _ := strings.Cut(shown(t, tt.domain)[0], "der=")
			der, _, _ = strings.Cut(der, " ")
			joined(t, e, ehlo, said("msg:host:defer", "TLS session: (SSL_connect): error:0A000086:SSL routines::certificate verify failed", "e=-37", "der="+der, domain, host))
			if s.Result != tt.result {
				t.Errorf("OpenSSL without an event for the certificate: got %s (%s), want %s", s.Result, s.Reason, tt.result)
			}
		})
		t.Run("verdict: "+tt.name, func(t *testing.T) {
			var result tlsrpt.ResultType = "none"
			e := &exim.Events{
				Roots: testCA(t), Now: func() time.Time { return at },
				Verdict: func(host string, _ time.Time, r tlsrpt.ResultType, _ string) {
					if host == "mx."+tt.domain {
						result = r
					}
				},
			}
			lines := append([]string{ehlo}, shown(t, tt.domain)...)
			got := joined(t, e, append(lines, said("smtp:ehlo", withoutTLS, underTLS, domain, host))...)
			want := tt.result
			if tt.domain == "sts-ok.example.test" {
				want = ""
			}
			if result != want || !cmp.Equal(got, []string{tt.domain + " mx." + tt.domain}) {
				t.Errorf("got %q of %q, want %q", result, got, want)
			}
		})
	}
	t.Run("RPT-041 a DANE-TA chain with another name", func(t *testing.T) {
		const name = "sts-wrongname.example.test"
		lines := append([]string{said("smtp:ehlo", withTLS, "d="+name, "h=mx."+name)}, shown(t, name)...)
		got := joined(t, &exim.Events{}, append(lines,
			said("dane:fail", "validation-failure", "d="+name, "h=mx."+name),
			said("msg:host:defer", "TLS session: (certificate verification failed)", "e=-37", "d="+name, "h=mx."+name))...)
		want := []string{name + " mx." + name + " tlsa mx." + name + " certificate-host-mismatch (certificate is for another host)"}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
	})
	t.Run("RPT-044 DANE-EE ignores names and dates", func(t *testing.T) {
		for _, name := range []string{"sts-wrongname.example.test", "sts-expired.example.test"} {
			lines := append([]string{said("smtp:ehlo", withTLS, "d="+name, "h=mx."+name)}, shown(t, name)...)
			got := joined(t, &exim.Events{}, append(lines,
				said("dane:fail", "validation-failure", "d="+name, "h=mx."+name),
				said("msg:host:defer", "TLS session: (certificate verification failed): The certificate differs.", "e=-37", "d="+name, "h=mx."+name))...)
			if len(got) != 1 || !strings.Contains(got[0], " certificate-not-trusted ") {
				t.Errorf("got %q", got)
			}
		}
	})
}

func TestEventsMalformed(t *testing.T) {
	whole := said("smtp:ehlo", withTLS)
	for _, line := range []string{
		"", "event", "event ", "policy a.example", "events n=x", "event n", "event n=smtp:ehlo", whole + " x=QQ==", whole + " m=other",
		strings.Replace(whole, " h=mx.a.example", " h=mx.a.example cv=1", 1),
		strings.Replace(whole, " h=mx.a.example", " h=mx.a.example words", 1),
		strings.Replace(whole, " x=", " x=!", 1), said("tls:cert", "0", "der=!"), said("smtp:ehlo", strings.Repeat("x", 64<<10)),
	} {
		emitted := 0
		e := &exim.Events{Emit: func(reporting.Session) { emitted++ }}
		err := e.Line(line)
		e.Flush()
		if st := e.Stats(); err == nil || emitted > 0 || st.Malformed != 1 || st.Events != 1 {
			t.Errorf("%.80q: error %v, %d emitted, counted %+v", line, err, emitted, st)
		}
	}
}

func TestEventsAreBounded(t *testing.T) {
	t.Run("connections that never end", func(t *testing.T) {
		emitted := 0
		e := &exim.Events{Emit: func(reporting.Session) { emitted++ }}
		der := "der=" + strings.Repeat("QUFB", 500)
		for i := range 11_000 {
			m := fmt.Sprintf("m=m%d", i)
			if err := errors.Join(e.Line(said("smtp:ehlo", withTLS, m)), e.Line(said("tls:cert", "0", m, der))); err != nil {
				t.Fatal(err)
			}
		}
		if st := e.Stats(); st.Open != 10_000 || st.Dropped != 1_000 || emitted != 0 {
			t.Errorf("counted %+v, emitted %d", st, emitted)
		}
		e.Flush()
		if st := e.Stats(); st.Open != 0 || st.Dropped != 11_000 {
			t.Errorf("counted %+v at the end", st)
		}
	})
	t.Run("what is old is settled", func(t *testing.T) {
		now := time.Date(2026, 11, 22, 3, 0, 0, 0, time.UTC)
		began := now
		var got []reporting.Session
		e := &exim.Events{Now: func() time.Time { return now }, Emit: func(s reporting.Session) { got = append(got, s) }}
		for _, line := range []string{said("smtp:ehlo", withoutTLS), said("smtp:ehlo", withTLS, "m=other")} {
			if err := e.Line(line); err != nil {
				t.Fatal(err)
			}
		}
		now = now.Add(31 * time.Minute)
		if err := e.Line(said("tcp:connect", "", "m=third")); err != nil {
			t.Fatal(err)
		}
		if st := e.Stats(); st.Open != 0 || st.Dropped != 1 || st.Sessions != 1 {
			t.Errorf("counted %+v", st)
		}
		if len(got) != 1 || got[0].Result != tlsrpt.StartTLSNotSupported || !got[0].Time.Equal(began) {
			t.Errorf("got %+v", got)
		}
	})
}

func FuzzEvent(f *testing.F) {
	for _, file := range []string{"testdata/4.96/sts.events.jsonl", "testdata/4.96-openssl/opportunistic.events.jsonl"} {
		var lines []string
		for _, r := range readEvents(f, file)[:40] {
			line, _ := r.line()
			lines = append(lines, line)
		}
		f.Add(strings.Join(lines[:8], "\n"))
		f.Add(strings.Join(lines[8:], "\n"))
	}
	f.Add(said("dane:fail", "x") + "\n" + said("msg:host:defer", "DANE error"))
	f.Fuzz(func(t *testing.T, input string) {
		e := &exim.Events{Now: func() time.Time { return time.Unix(1795318860, 0) }, Roots: x509.NewCertPool()}
		e.Emit = func(s reporting.Session) {
			maillogtest.CheckSession(t, s)
			if !maillogtest.Occurs(s.Domain, input) {
				t.Errorf("domain %q is not in the input", s.Domain)
			}
		}
		for line := range strings.SplitSeq(input, "\n") {
			e.Line(line)
		}
		e.Flush()
		if e.Stats().Open != 0 {
			t.Error("connections are left")
		}
	})
}

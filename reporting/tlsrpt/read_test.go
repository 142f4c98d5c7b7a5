package tlsrpt_test

import (
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"errors"
	"io"
	"mime/quotedprintable"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"postseal/reporting/tlsrpt"
)

func zipped(t testing.TB, data string) string {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	_, err := io.WriteString(z, data)
	if err := errors.Join(err, z.Close()); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// mailWith has a report in a part with some fields.
func mailWith(kind, fields, body string) string {
	return strings.ReplaceAll(`From: r@org.example
To: r@example.com
Subject: Report Domain: example.com Submitter: org.example Report-ID: <1@org.example>
TLS-Report-Domain: example.com
TLS-Report-Submitter: org.example
Content-Type: multipart/`+kind+`; boundary="x"

--x
Content-Type: text/html

<p>A report.
--x
`+fields+`

`+strings.ReplaceAll(body, "\r\n", "\n")+`
--x--
`, "\n", "\r\n")
}

func TestRead(t *testing.T) {
	const report, gzipped = `report; report-type="tlsrpt"`, "Content-Type: application/tlsrpt+gzip\nContent-Transfer-Encoding: base64"
	b64 := func(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }
	is := func(name, input string, peculiar ...string) {
		t.Helper()
		t.Run(name, func(t *testing.T) {
			t.Helper()
			got, told, err := tlsrpt.Read(strings.NewReader(input))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(decoded(), got, comparable); diff != "" {
				t.Errorf("-want +got\n%s", diff)
			}
			if diff := cmp.Diff(peculiar, told); diff != "" {
				t.Errorf("told: -want +got\n%s", diff)
			}
		})
	}
	is("JSON", one())
	is("JSON behind blanks and a mark", "\ufeff\r\n "+one())
	is("RPT-071 JSON compressed", zipped(t, one()))
	is("compressed behind a mark", zipped(t, "\ufeff"+one()))
	is("compressed and damaged at its end", zipped(t, one())[:len(zipped(t, one()))-4], "the compressed data is damaged at its end")

	is("RPT-072 a mail", mailWith(report, gzipped, b64(zipped(t, one()))))
	is("RPT-072 in one line and LF alone", strings.ReplaceAll(mailWith(report, gzipped, b64(zipped(t, one()))), "\r\n", "\n"))
	is("RPT-072 a mailbox", "From r@org.example Sat Jan  3 00:00:00 2026\n"+mailWith(report, gzipped, b64(zipped(t, one()))))
	is("RPT-072 JSON as it is", mailWith(report, "Content-Type: application/tlsrpt+json", one()))
	var quoted bytes.Buffer
	q := quotedprintable.NewWriter(&quoted)
	if _, err := io.WriteString(q, one()); err != nil || q.Close() != nil {
		t.Fatal(err)
	}
	is("RPT-072 JSON quoted", mailWith(report, "Content-Type: application/tlsrpt+json\nContent-Transfer-Encoding: Quoted-Printable", quoted.String()))
	is("RPT-072 JSON that says gzip", mailWith(report, "Content-Type: application/tlsrpt+gzip", one()), "the part says gzip and is none")
	is("RPT-072 gzip that says JSON", mailWith(report, "Content-Type: application/tlsrpt+json\nContent-Transfer-Encoding: base64", b64(zipped(t, one()))), "the part says JSON and is gzip")
	is("RPT-072 multipart/related", mailWith("related", gzipped, b64(zipped(t, one()))), "the report is in multipart/related, not multipart/report")
	is("RPT-072 another report-type", mailWith(`report; report-type="tls"`, gzipped, b64(zipped(t, one()))), `report-type is "tls", not tlsrpt`)
	is("RPT-072 application/json", mailWith(report, "Content-Type: application/json", one()), "the part is application/json, not application/tlsrpt+gzip")
	is("RPT-072 known by its name", mailWith(report, "Content-Type: application/octet-stream\nContent-Transfer-Encoding: base64\nContent-Disposition: attachment; filename=\"org.example!example.com!1!2.json.gz\"", b64(zipped(t, one()))),
		"the part is application/octet-stream, not application/tlsrpt+gzip")
	is("RPT-072 no multipart", "Subject: x\nContent-Type: application/tlsrpt+json\n\n"+one(),
		"the mail has no TLS-Report-Domain", "the mail has no TLS-Report-Submitter", "the Subject has no Report-ID")
	forwarded := "Subject: Fwd: report\nContent-Type: multipart/mixed; boundary=y\n\n--y\nContent-Type: message/rfc822\n\n" +
		mailWith(report, gzipped, b64(zipped(t, one()))) + "\n--y--\n"
	is("RPT-072 forwarded", forwarded, "the report is in multipart/mixed, not multipart/report")

	header := func(from, to string) string {
		return strings.Replace(mailWith(report, gzipped, b64(zipped(t, one()))), from, to, 1)
	}
	is("RPT-073 another submitter (Mail.ru)", header("Submitter: org.example\r\nC", "Submitter: corp.example\r\nC"), "the TLS-Report-Submitter is corp.example, the contact is r@org.example")
	is("RPT-074 no msg-id (Microsoft)", header("<1@org.example>", "133+example.com"), "the Report-ID of the Subject is no msg-id: 133+example.com", "the Report-ID of the Subject is another: 133+example.com")
	is("RPT-082 another id (Google)", header("<1@org.example>", "<2026.01.02T00.00.00Z+example.com@google.com>"), "the Report-ID of the Subject is another: <2026.01.02T00.00.00Z+example.com@google.com>")
}

// TestReadSenders has whole mails in the manner of the largest senders.
func TestReadSenders(t *testing.T) {
	is := func(name, mail, json string, want tlsrpt.Report, peculiar ...string) {
		t.Helper()
		t.Run(name, func(t *testing.T) {
			t.Helper()
			text := mail + "\n--b\nContent-Type: text/plain\n\nThis is an aggregate TLS report\n--b\nContent-Type: application/tlsrpt+gzip\nContent-Transfer-Encoding: base64\n\n" +
				base64.StdEncoding.EncodeToString([]byte(zipped(t, json))) + "\n--b--\n"
			got, told, err := tlsrpt.Read(strings.NewReader(text))
			if diff := cmp.Diff(want, got, comparable); err != nil || diff != "" {
				t.Errorf("%v, -want +got\n%s", err, diff)
			}
			if diff := cmp.Diff(peculiar, told); diff != "" {
				t.Errorf("told: -want +got\n%s", diff)
			}
		})
	}
	r := decoded()
	r.Organization, r.Contact, r.ID = "Google Inc.", "smtp-tls-reporting@google.com", "2026-01-02T00:00:00Z_example.com"
	r.Policies = []tlsrpt.PolicyResult{{Policy: tlsrpt.Policy{Type: tlsrpt.NoPolicy, Domain: "example.com"}, Summary: tlsrpt.Summary{Successful: 48}}}
	is("RPT-072 Google", "TLS-Report-Domain: example.com\nTLS-Report-Submitter: google.com\n"+
		"Subject: Report Domain: example.com Submitter: google.com Report-ID: <2026.01.02T00.00.00Z+example.com@google.com>\nContent-Type: multipart/report; boundary=b; report-type=tlsrpt\n",
		`{"organization-name":"Google Inc.","date-range":{"start-datetime":"2026-01-02T00:00:00Z","end-datetime":"2026-01-02T23:59:59Z"},"contact-info":"smtp-tls-reporting@google.com",
"report-id":"2026-01-02T00:00:00Z_example.com","policies":[{"policy":{"policy-type":"no-policy-found","policy-domain":"example.com"},"summary":{"total-successful-session-count":48,"total-failure-session-count":0}}]}`,
		r, "the Report-ID of the Subject is another: <2026.01.02T00.00.00Z+example.com@google.com>")

	r = decoded()
	r.Organization, r.Contact, r.ID = "Microsoft Corporation", "tlsrpt-noreply@microsoft.com", "1331+example.com"
	r.Policies = []tlsrpt.PolicyResult{
		{Policy: tlsrpt.Policy{Type: tlsrpt.STS, Domain: "example.com", Strings: []string{"version: STSv1", "mode: enforce"}}, Summary: tlsrpt.Summary{Successful: 2}},
		{Policy: tlsrpt.Policy{Type: tlsrpt.TLSA, Domain: "example.com", Strings: []string{"3 1 1 ab"}}, Summary: tlsrpt.Summary{Successful: 2}},
	}
	is("RPT-072 Microsoft", "From: <tlsrpt-noreply@microsoft.com>\nTLS-Report-Domain: example.com\nTLS-Report-Submitter: microsoft.com\n"+
		"Subject: Report Domain: example.com Submitter: microsoft.com Report-ID:\n 1331+example.com\nContent-Type: multipart/report;\n\tboundary=\"b\"; report-type=tlsrpt\n",
		`{"organization-name":"Microsoft Corporation","date-range":{"start-datetime":"2026-01-02T00:00:00","end-datetime":"2026-01-02T23:59:59"},"contact-info":"tlsrpt-noreply@microsoft.com","report-id":"1331+example.com",
"policies":[{"policy":{"policy-type":"sts","policy-string":["version: STSv1","mode: enforce"],"policy-domain":"example.com"},"summary":{"total-successful-session-count":2,"total-failure-session-count":0}},
{"policy":{"policy-type":"tlsa","policy-string":["[\"3 1 1 ab\"]"],"policy-domain":"example.com"},"summary":{"total-successful-session-count":2,"total-failure-session-count":0}}]}`,
		r, "the Report-ID of the Subject is no msg-id: 1331+example.com",
		"date-range.start-datetime is not of RFC 3339: 2026-01-02T00:00:00", "date-range.end-datetime is not of RFC 3339: 2026-01-02T23:59:59",
		"policy.policy-string is a string that holds an array", "mx-host is missing in an sts policy")

	r = decoded()
	r.Organization, r.Contact, r.ID, r.End = "Mail.ru", "tls_support@corp.mail.ru", "b28254de@mail.ru", r.End.Add(time.Second)
	r.Policies = []tlsrpt.PolicyResult{{
		Policy: tlsrpt.Policy{Type: tlsrpt.STS, Domain: "example.com"}, Summary: tlsrpt.Summary{Failed: 1},
		Failures: []tlsrpt.FailureDetail{{Result: tlsrpt.STSPolicyFetchError, Sessions: 1, Reason: "bad https response code: 404"}, {Result: tlsrpt.STSPolicyFetchError, Sessions: 1, Reason: "bad https response code: 500"}},
	}}
	is("RPT-072 Mail.ru", "TLS-Report-Domain: example.com\nTLS-Report-Submitter: mail.ru\nSubject: Report Domain: example.com Submitter: mail.ru Report-ID: <b28254de@mail.ru>\nContent-Type: multipart/report; boundary=b; report-type=\"tlsrpt\"\n",
		`{"contact-info":"tls_support@corp.mail.ru","date-range":{"end-datetime":"2026-01-03T00:00:00Z","start-datetime":"2026-01-02T00:00:00Z"},"organization-name":"Mail.ru","policies":[{"failure-details":[
{"failed-session-count":1,"failure-reason-code":"bad https response code: 404","result-type":"sts-policy-fetch-error"},{"failed-session-count":1,"failure-reason-code":"bad https response code: 500","result-type":"sts-policy-fetch-error"}],
"policy":{"policy-domain":"example.com","policy-type":"sts"},"summary":{"total-failure-session-count":1,"total-successful-session-count":0}}],"report-id":"b28254de@mail.ru"}`,
		r, "the TLS-Report-Submitter is mail.ru, the contact is tls_support@corp.mail.ru", "date-range ends in the next day: 2026-01-03T00:00:00Z", "mx-host is missing in an sts policy")
}

// blanks is n bytes.
type blanks struct{ n int }

func (b *blanks) Read(p []byte) (int, error) {
	if b.n == 0 {
		return 0, io.EOF
	}
	p = p[:min(len(p), b.n)]
	for i := range p {
		p[i] = ' '
	}
	b.n -= len(p)
	return len(p), nil
}

func TestReadRefuses(t *testing.T) {
	bad := func(name, want string, input io.Reader) {
		t.Helper()
		t.Run(name, func(t *testing.T) {
			t.Helper()
			if r, told, err := tlsrpt.Read(input); err == nil || !strings.Contains(err.Error(), want) || told != nil || r.ID != "" {
				t.Errorf("%+v, %q, %v; want %s", r, told, err, want)
			}
		})
	}
	// Members of a gzip file follow each other; making a GiB of one takes its time.
	bomb := zipped(t, "{") + strings.Repeat(zipped(t, strings.Repeat(" ", 8<<20)), 128)
	bad("nothing", "nothing to read", strings.NewReader(" \n"))
	bad("a gzip bomb of 1 GiB", "more than 20 MiB", strings.NewReader(bomb))
	bad("gzip in gzip", "gzip in gzip", strings.NewReader(zipped(t, zipped(t, one()))))
	bad("no gzip", "no report", strings.NewReader("\x1f\x8bnone"))
	bad("a file without end", "more than 32 MiB", io.MultiReader(strings.NewReader("Content-Type: multipart/mixed; boundary=x\n\n--x\n\n"), &blanks{1 << 30}))
	bad("text", "nor a mail", strings.NewReader("hello\n"))
	bad("text that moves a terminal", `malformed header line: \x1b[2J`, strings.NewReader("\x1b[2J\n"))
	bad("a long line", "aaa...", strings.NewReader(strings.Repeat("a", 1<<20)+"\n"))
	bad("a mail without a report", "no part", strings.NewReader("Subject: x\n\nhello\n"))
	bad("another attachment", "no part", strings.NewReader(mailWith("mixed", "Content-Type: application/json", "[]")))
	bad("a report that is none", "no report", strings.NewReader(mailWith("report", "Content-Type: application/tlsrpt+json", "[]")))
	bad("base64 that is none", "no report", strings.NewReader(mailWith("report", "Content-Type: application/tlsrpt+json\nContent-Transfer-Encoding: base64", "{!")))
	bad("cut off", "broken multipart", strings.NewReader("Content-Type: multipart/report; boundary=x\n\n--x\nContent-Type: text/plain\n\nhello"))
	bad("too many parts", "parts", strings.NewReader("Content-Type: multipart/mixed; boundary=x\n\n"+strings.Repeat("--x\n\na\n", 200)+"--x--\n"))
	bad("too deep", "deep", strings.NewReader(strings.Repeat("Content-Type: message/rfc822\n\n", 10)+"a"))
}

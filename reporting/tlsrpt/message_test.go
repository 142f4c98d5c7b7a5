package tlsrpt_test

import (
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"net/mail"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"postseal/reporting/tlsrpt"
)

var emptyIsNil = cmpopts.EquateEmpty()

func message(policies ...tlsrpt.PolicyResult) tlsrpt.Message {
	r := report(policies...)
	r.Tidy()
	return tlsrpt.Message{
		Report: &r, Domain: "example.com", From: "noreply@mta.example.org", To: "reports@example.net",
		Date: time.Date(2026, 1, 3, 2, 3, 4, 0, time.UTC),
	}
}

func mailOf(t testing.TB, policies ...tlsrpt.PolicyResult) string {
	t.Helper()
	m := message(policies...)
	var b bytes.Buffer
	if err := m.Encode(&b); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// part is one of a message that was taken apart by the parsers of the standard library.
type part struct {
	media, filename, encoding string
	params                    map[string]string
	body                      []byte
}

func parse(t testing.TB, text string) (mail.Header, map[string]string, []part) {
	t.Helper()
	m, err := mail.ReadMessage(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	media, params, err := mime.ParseMediaType(m.Header.Get("Content-Type"))
	if err != nil || media != "multipart/report" {
		t.Fatalf("Content-Type %q, %v", media, err)
	}
	var parts []part
	for r := multipart.NewReader(m.Body, params["boundary"]); ; {
		p, err := r.NextPart() // undoes quoted-printable
		if errors.Is(err, io.EOF) {
			return m.Header, params, parts
		}
		if err != nil {
			t.Fatal(err)
		}
		var got part
		if got.media, got.params, err = mime.ParseMediaType(p.Header.Get("Content-Type")); err != nil {
			t.Fatal(err)
		}
		got.filename, got.encoding = p.FileName(), p.Header.Get("Content-Transfer-Encoding")
		if got.body, err = io.ReadAll(p); err != nil {
			t.Fatal(err)
		}
		parts = append(parts, got)
	}
}

// unpack is the JSON of a gzip part.
func unpack(t testing.TB, p part) []byte {
	t.Helper()
	z, err := gzip.NewReader(base64.NewDecoder(base64.StdEncoding, bytes.NewReader(p.body)))
	if err != nil {
		t.Fatal(err)
	}
	data, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// lineRules checks RFC 5322 §2.1 and §2.3: CRLF alone, seven bits, 998 characters.
func lineRules(t *testing.T, text string) {
	t.Helper()
	if !strings.HasSuffix(text, "\r\n") {
		t.Error("the last line has no end")
	}
	for line := range strings.SplitSeq(strings.TrimSuffix(text, "\r\n"), "\r\n") {
		if len(line) > 998 || strings.ContainsFunc(line, func(c rune) bool { return c < ' ' && c != '\t' || c > '~' }) {
			t.Errorf("line %q", line)
		}
	}
}

func TestMessage(t *testing.T) {
	m := message(sts(), tlsa(), noPolicy())
	text := mailOf(t, sts(), tlsa(), noPolicy())
	header, params, parts := parse(t, text)
	lineRules(t, text)
	golden(t, "message.eml", []byte(text))

	t.Run("RPT-070 file name", func(t *testing.T) {
		if len(parts) != 2 || parts[1].filename != m.Report.FileName("example.com") || !strings.HasSuffix(parts[1].filename, ".json.gz") {
			t.Errorf("%+v", parts)
		}
	})
	t.Run("RPT-071 gzip", func(t *testing.T) {
		data := unpack(t, parts[1])
		if diff := cmp.Diff(string(encoded(t, *m.Report)), string(data)); diff != "" {
			t.Error(diff)
		}
		raw, err := base64.StdEncoding.DecodeString(strings.ReplaceAll(string(parts[1].body), "\r\n", ""))
		if err != nil || !bytes.HasPrefix(raw, []byte{0x1f, 0x8b}) {
			t.Errorf("% x, %v", raw[:4], err)
		}
		var b bytes.Buffer // for https
		if err := m.Report.EncodeGzip(&b); err != nil || !bytes.Equal(b.Bytes(), raw) {
			t.Errorf("%v, or other bytes", err)
		}
	})
	t.Run("RPT-072 parts", func(t *testing.T) {
		if params["report-type"] != "tlsrpt" || parts[0].media != "text/plain" || parts[1].media != "application/tlsrpt+gzip" || parts[1].encoding != "base64" {
			t.Errorf("%v, %s, %s", params, parts[0].media, parts[1].media)
		}
		for line := range strings.SplitSeq(string(parts[1].body), "\r\n") {
			if len(line) > 76 {
				t.Errorf("%d characters of base64 on a line", len(line))
			}
		}
	})
	t.Run("RPT-073 TLS-Report fields", func(t *testing.T) {
		if header.Get("TLS-Report-Domain") != "example.com" || header.Get("TLS-Report-Submitter") != "mta.example.org" || m.Report.Submitter() != "mta.example.org" {
			t.Error(header)
		}
	})
	t.Run("RPT-074 Subject", func(t *testing.T) {
		want := "Report Domain: example.com Submitter: mta.example.org Report-ID: <" + m.Report.ID + ">"
		if got := header.Get("Subject"); got != want {
			t.Errorf("%q, want %q", got, want)
		}
		folded := regexp.MustCompile(`\r\nSubject: Report Domain: [a-z0-9.-]+\r\n Submitter: [a-z0-9.-]+\r\n Report-ID: <[^@<>\s]+@[^@<>\s]+>\r\n`)
		if !folded.MatchString(text) {
			t.Error(text[:500])
		}
	})
	t.Run("RPT-076 TLS-Required", func(t *testing.T) {
		if header.Get("TLS-Required") != "No" || header.Get("Auto-Submitted") != "auto-generated" {
			t.Error(header)
		}
	})
	t.Run("RPT-082 Subject, file name and body agree", func(t *testing.T) {
		o := object(t, unpack(t, parts[1]))
		if !strings.Contains(header.Get("Subject"), "<"+o["report-id"].(string)+">") {
			t.Error(o["report-id"])
		}
		name := strings.Split(strings.TrimSuffix(parts[1].filename, ".json.gz"), "!")
		dates := o["date-range"].(map[string]any)
		for i, key := range []string{"start-datetime", "end-datetime"} {
			at, err := time.Parse(time.RFC3339, dates[key].(string))
			if err != nil || name[2+i] != fmt.Sprint(at.Unix()) {
				t.Errorf("%s: %s, %v", key, name, err)
			}
		}
		if name[0] != header.Get("TLS-Report-Submitter") || name[1] != header.Get("TLS-Report-Domain") || !strings.HasSuffix(o["contact-info"].(string), "@"+name[0]) {
			t.Error(name)
		}
	})
	t.Run("the fields of every mail", func(t *testing.T) {
		if date, err := header.Date(); err != nil || !date.Equal(m.Date) {
			t.Errorf("%v, %v", date, err)
		}
		for key, want := range map[string]string{"From": m.From, "To": m.To} {
			if list, err := header.AddressList(key); err != nil || len(list) != 1 || list[0].Address != want {
				t.Errorf("%s: %v, %v", key, list, err)
			}
		}
		other := m
		other.To = "other@example.net"
		if id := header.Get("Message-Id"); id != m.MessageID() || id == other.MessageID() || !regexp.MustCompile(`^<tlsrpt\.[0-9a-f]{32}@mta\.example\.org>$`).MatchString(id) {
			t.Errorf("Message-ID %s", id)
		}
	})
	t.Run("RPT-060 the same bytes at every attempt", func(t *testing.T) {
		if again := mailOf(t, noPolicy(), tlsa(), sts()); again != text {
			t.Error(cmp.Diff(text, again))
		}
	})
}

// TestIsMessageID: report mails are known by their Message-ID, so as not to be counted.
func TestIsMessageID(t *testing.T) {
	m := message(sts())
	id := m.MessageID()
	bare := strings.Trim(id, "<>")
	cases := []struct {
		name, id, domain string
		want             bool
	}{
		{"as the header has it", id, "mta.example.org", true},
		{"without brackets, as Exim logs it", bare, "mta.example.org", true},
		{"the domain of the address in any case", id, "MTA.example.org", true},
		{"of another domain", id, "example.org", false},
		{"of another domain that is as long", id, "mta.example.net", false},
		{"of a longer domain", strings.Replace(id, "mta.", "x.mta.", 1), "mta.example.org", false},
		{"nobody's", "<tlsrpt." + strings.Repeat("0", 32) + "@>", "", false},
		{"no digits", "<tlsrpt." + strings.Repeat("x", 32) + "@mta.example.org>", "mta.example.org", false},
		{"capital digits", strings.ToUpper(bare[:39]) + bare[39:], "mta.example.org", false},
		{"another prefix", strings.Replace(id, "tlsrpt", "report", 1), "mta.example.org", false},
		{"one digit less", strings.Replace(id, "@", "", 1), "mta.example.org", false},
		{"half of the brackets", id[1:], "mta.example.org", false},
		{"with a comment", id + " (ours)", "mta.example.org", false},
		{"nothing", "", "mta.example.org", false},
		{"nothing in brackets", "<>", "mta.example.org", false},
	}
	for _, c := range cases {
		t.Run("RPT-077 "+c.name, func(t *testing.T) {
			if got := tlsrpt.IsMessageID([]byte(c.id), c.domain); got != c.want {
				t.Errorf("%q at %q: %t", c.id, c.domain, got)
			}
		})
	}
}

func TestMessageLongNames(t *testing.T) {
	long := strings.Repeat("a23456789b23456789c23456789d23456789e23456789f23456789g23456789.", 3) + "example.com"
	m := message(noPolicy())
	m.Domain = long
	m.Report.Contact = "tlsrpt@" + long
	m.Report.ID = tlsrpt.ReportID(day, long, long, "")
	var b bytes.Buffer
	if err := m.Encode(&b); err != nil {
		t.Fatal(err)
	}
	lineRules(t, b.String())
	header, _, parts := parse(t, b.String())
	if header.Get("TLS-Report-Domain") != long || !strings.Contains(header.Get("Subject"), m.Report.ID) || parts[1].filename != m.Report.FileName(long) {
		t.Errorf("%v, %s", header, parts[1].filename)
	}
}

func TestMessageText(t *testing.T) {
	r := report(crowd(100), tlsa(), noPolicy())
	r.Tidy()
	var all, some strings.Builder
	if err := errors.Join(r.WriteText(&all, "example.com", 0), r.WriteText(&some, "example.com", 5)); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(some.String(), "96 more kinds of failure are in the attached file") || strings.Count(some.String(), " reason  ") != 5 {
		t.Error(some.String())
	}
	if strings.Count(all.String(), " reason  ") != 101 || strings.Contains(all.String(), "attached") {
		t.Error(all.String())
	}
	for line := range strings.Lines(all.String()) {
		if len(line) > 76 {
			t.Errorf("line %q", line)
		}
	}
}

// TestText has what only reports of others are like.
func TestText(t *testing.T) {
	r := tlsrpt.Report{Policies: []tlsrpt.PolicyResult{{
		Policy: tlsrpt.Policy{Type: "dane"}, Summary: tlsrpt.Summary{Failed: 1},
		Failures: []tlsrpt.FailureDetail{{Result: "of-tomorrow", ReceivingIP: addr("2001:db8::1"), MXHelo: "helo", Sessions: 1, Reason: strings.Repeat("long words ", 12)}},
	}}}
	var b strings.Builder
	if err := r.WriteText(&b, "", 0); err != nil {
		t.Fatal(err)
	}
	want := `TLS report

Day (UTC): unknown

 sessions ok       failed  policy
           0            1  dane

Failures, dane:
           1  of-tomorrow
              server  [2001:db8::1]
              names   helo
              reason  long words long words long words long words long
                      words long words long words long words long words
                      long words long words long words
`
	if diff := cmp.Diff(want, b.String()); diff != "" {
		t.Error(diff)
	}
}

func TestMessageRefuses(t *testing.T) {
	bad := func(name, want string, change func(*tlsrpt.Message)) {
		t.Helper()
		t.Run(name, func(t *testing.T) {
			t.Helper()
			m := message(noPolicy())
			change(&m)
			var b bytes.Buffer
			if err := m.Encode(&b); err == nil || !strings.Contains(err.Error(), want) || b.Len() > 0 {
				t.Errorf("%v, %d bytes; want %s", err, b.Len(), want)
			}
		})
	}
	bad("no report", "without a report", func(m *tlsrpt.Message) { m.Report = nil })
	bad("a report that may not be sent", "policies", func(m *tlsrpt.Message) { m.Report.Policies = nil })
	bad("RPT-073 no A-labels", "A-labels", func(m *tlsrpt.Message) { m.Domain = "Bücher.example" })
	bad("RPT-073 a line end", "A-labels", func(m *tlsrpt.Message) { m.Domain = "a.example\r\nBcc: b@c.example" })
	bad("no sender", "bare mail address", func(m *tlsrpt.Message) { m.From = "" })
	bad("a line end in the recipient", "bare mail address", func(m *tlsrpt.Message) { m.To = "a@b.example\r\nBcc: b@c.example" })
	bad("no date", "date", func(m *tlsrpt.Message) { m.Date = time.Time{} })
}

func FuzzMessage(f *testing.F) {
	f.Add("Org", "mx.example.com", "reason", "additional", "a@b.example", uint64(3))
	f.Add("Ö\r\n.\r\n--=_tlsrpt_", "--=_x", "=_tlsrpt_ for a@b", "\x00", `"a b"@c.example`, uint64(1<<60))
	f.Fuzz(func(t *testing.T, organization, host, reason, line, to string, n uint64) {
		p := sts()
		p.Policy.Strings = append(p.Policy.Strings, line)
		p.Policy.MX = append(p.Policy.MX, host)
		p.Summary.Failed = max(1, n%(1<<53))
		p.Failures = []tlsrpt.FailureDetail{{Result: tlsrpt.ResultType(line), MXHost: host, MXHelo: line, Reason: reason, Sessions: p.Summary.Failed}}
		m := message(p)
		m.Report.Organization = organization
		m.Report.Tidy()
		m.To = to
		var b bytes.Buffer
		if err := m.Encode(&b); err != nil {
			if same, bad := tlsrpt.ParseAddress(to); bad == nil && same == to && m.Report.Organization != "" {
				t.Fatal(err)
			}
			return
		}
		lineRules(t, b.String())
		_, _, parts := parse(t, b.String())
		if len(parts) != 2 {
			t.Fatalf("%d parts", len(parts))
		}
		if strings.Contains(string(unpack(t, parts[1])), reason) && strings.Contains(reason, "@") {
			t.Errorf("reason %q", reason)
		}
		got, told, err := tlsrpt.Read(&b)
		if diff := cmp.Diff(*m.Report, got, comparable, emptyIsNil); err != nil || diff != "" {
			t.Errorf("%q, %v, -want +got\n%s", told, err, diff)
		}
	})
}

// BenchmarkMessage is what one small report costs, from its counts to its mail.
func BenchmarkMessage(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		m := message(sts())
		if err := m.Encode(io.Discard); err != nil {
			b.Fatal(err)
		}
	}
}

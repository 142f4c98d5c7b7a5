package control_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"postseal/cmd/postseal/internal/control"
	"postseal/reporting"
	"postseal/reporting/daily"
	"postseal/reporting/send"
	"postseal/reporting/store"
	"postseal/reporting/store/storetest"
	"postseal/reporting/tlsrpt"
)

// targets are all that a report may go to: mailboxes and web servers. They take what
// comes, but for what begins with "bad".
type targets struct{}

func (m targets) MessageID(r *tlsrpt.Report, to string) string {
	return (&tlsrpt.Message{Report: r, From: "tlsrpt@sender.example", To: to}).MessageID()
}

func (m targets) Message(r *tlsrpt.Report, domain, to string, date time.Time) ([]byte, error) {
	if strings.HasPrefix(to, "broken") {
		return nil, errors.New("the key is gone")
	}
	var b bytes.Buffer
	msg := tlsrpt.Message{Report: r, Domain: domain, From: "tlsrpt@sender.example", To: to, Date: date}
	err := msg.Encode(&b)
	if strings.HasPrefix(to, "large") {
		b.Write(make([]byte, 28<<20))
	}
	return b.Bytes(), err
}

func (targets) Send(_ context.Context, _ []byte, to string) (string, error) {
	if strings.HasPrefix(to, "slow") {
		time.Sleep(50 * time.Millisecond)
	}
	if strings.HasPrefix(to, "bad") {
		return "", &send.Failure{Target: true, Final: true, Err: errors.New("550 5.1.1 no such user")}
	}
	return "250 2.0.0 Ok", nil
}

type web struct{}

func (web) Send(context.Context, string, *tlsrpt.Report) (string, error) { return "201 Created", nil }

// newReporting serves a reporter over what was counted on day, which it closes.
func newReporting(t *testing.T, records map[string]string, edit ...func(*http.Server)) (*control.Client, *store.Store) {
	t.Helper()
	kept := storetest.Open(t, filepath.Join(t.TempDir(), "sessions.db"))
	s := newServer(t)
	s.Reports = &daily.Reporter{
		Store: kept, Closed: func(d reporting.Day) bool { return d <= day },
		Record: func(_ context.Context, domain string) (tlsrpt.Record, error) {
			if records[domain] == "" {
				return tlsrpt.Record{}, tlsrpt.ErrNoRecord
			}
			return tlsrpt.ParseRecord([]string{"v=TLSRPTv1; rua=" + records[domain]})
		},
		Mail: targets{}, HTTPS: web{}, Organization: "Sender", Contact: "tlsrpt@sender.example",
		Now: func() time.Time { return (day + 1).Start().Add(time.Hour) },
	}
	return newClient(t, s.Handler(), edit...), kept
}

// counted counts n sessions without a policy.
func counted(t *testing.T, kept *store.Store, on reporting.Day, domain string, n uint64) {
	t.Helper()
	p := reporting.Policy{Type: tlsrpt.NoPolicy, Domain: domain}
	k := reporting.Key{Domain: domain, Source: "postfix", MXHost: "mx." + domain, Policy: p.ID()}
	if err := kept.Write(reporting.Batch{Counts: map[reporting.Day]map[reporting.Key]uint64{on: {k: n}},
		Policies: map[reporting.PolicyID]reporting.Policy{k.Policy: p}}); err != nil {
		t.Fatal(err)
	}
}

func TestReports(t *testing.T) {
	c, kept := newReporting(t, map[string]string{"a.example": "mailto:r@a.example,https://a.example/r", "b.example": "mailto:bad@b.example"})
	for i, domain := range []string{"a.example", "b.example", "c.example"} {
		counted(t, kept, day, domain, uint64(i+1))
	}
	reports := func(domain string, all bool) (list []string, end control.ReportDay) {
		t.Helper()
		end, err := c.Reports(t.Context(), day.String(), domain, all, func(r control.Report) error {
			list = append(list, r.Domain+" "+r.State)
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		return list, end
	}
	list, end := reports("", false)
	if diff := cmp.Diff([]string{"a.example planned", "b.example planned", "c.example planned"}, list); diff != "" {
		t.Errorf("before (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(control.ReportDay{Day: "2026-11-28", Closed: true, States: map[string]uint64{"planned": 3}}, end); diff != "" {
		t.Error(diff)
	}

	sent, err := c.SendReport(t.Context(), control.About{Day: day.String(), Domain: "A.example."}, false)
	if err != nil || sent.State != "sent" || !sent.Delivered() || sent.Done || len(sent.Targets) != 2 || sent.Targets[0].Reply != "250 2.0.0 Ok" {
		t.Errorf("%+v, %v", sent, err)
	}
	if sent, err = c.SendReport(t.Context(), control.About{Day: day.String(), Domain: "a.example"}, false); err != nil || !sent.Done {
		t.Errorf("the second time: %+v, %v", sent, err)
	}
	// Two reports to one place are kept apart: this one waits for its turn.
	if sent, err = c.SendReport(t.Context(), control.About{Day: day.String(), Domain: "a.example"}, true); err != nil || sent.Done || sent.Tries != 1 {
		t.Errorf("again: %+v, %v", sent, err)
	}
	if sent, err = c.SendReport(t.Context(), control.About{Day: day.String(), Domain: "b.example"}, false); err != nil || sent.State != "refused" || sent.Delivered() {
		t.Errorf("refused: %+v, %v", sent, err)
	}
	if sent, err = c.SendReport(t.Context(), control.About{Day: day.String(), Domain: "c.example"}, false); err != nil || sent.State != "no-record" {
		t.Errorf("nobody asks: %+v, %v", sent, err)
	}
	if _, err = c.SendReport(t.Context(), control.About{Day: (day + 1).String(), Domain: "a.example"}, false); err == nil || !strings.Contains(err.Error(), "is not closed") {
		t.Errorf("not closed: %v", err)
	}

	list, end = reports("", false)
	if diff := cmp.Diff([]string{"a.example sent", "b.example refused"}, list); diff != "" {
		t.Errorf("after (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(map[string]uint64{"sent": 1, "refused": 1, "no-record": 1}, end.States); diff != "" {
		t.Error(diff)
	}
	if list, _ = reports("", true); len(list) != 3 {
		t.Errorf("all: %q", list)
	}
	if list, _ = reports("C.example", false); len(list) != 1 {
		t.Errorf("one: %q", list)
	}
}

// Sending may take longer than the server has for small answers.
func TestSlowSend(t *testing.T) {
	c, kept := newReporting(t, map[string]string{"a.example": "mailto:slow@a.example"}, func(s *http.Server) { s.WriteTimeout = time.Millisecond })
	counted(t, kept, day, "a.example", 3)
	if sent, err := c.SendReport(t.Context(), control.About{Day: day.String(), Domain: "a.example"}, false); err != nil || !sent.Delivered() {
		t.Errorf("%+v, %v", sent, err)
	}
}

// A day of many domains is listed whole, or the list says that it is not.
func TestManyReports(t *testing.T) {
	c, kept := newReporting(t, nil)
	counts := map[reporting.Key]uint64{}
	for n := range 2500 {
		counts[reporting.Key{Domain: fmt.Sprintf("d%d.example", n), Source: "postfix"}] = 1
	}
	if err := kept.Write(reporting.Batch{Counts: map[reporting.Day]map[reporting.Key]uint64{day: counts}}); err != nil {
		t.Fatal(err)
	}
	n := uint64(0)
	end, err := c.Reports(t.Context(), day.String(), "", false, func(control.Report) error { n++; return nil })
	if err != nil || n != 2500 || end.States["planned"] != n {
		t.Errorf("%d lines, %+v, %v", n, end, err)
	}
	enough := errors.New("enough")
	if _, err := c.Reports(t.Context(), day.String(), "", false, func(control.Report) error { return enough }); !errors.Is(err, enough) {
		t.Errorf("got %v", err)
	}
	for body, want := range map[string]string{"": "is not whole", `{"domain":"a.example"}`: "is not whole", "{": "is not whole", `{"error":"no disk"}`: "no disk", "[]": "cannot unmarshal"} {
		c := newClient(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, body) }))
		if _, err := c.Reports(t.Context(), day.String(), "", false, func(control.Report) error { return nil }); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", body, err)
		}
	}
}

// What is shown is what is sent, byte by byte.
func TestPreview(t *testing.T) {
	c, kept := newReporting(t, map[string]string{"a.example": "mailto:r@a.example,ftp://a.example,https://a.example/r,mailto:broken@a.example"})
	counted(t, kept, day, "a.example", 3)
	if err := kept.Write(reporting.Batch{Counts: map[reporting.Day]map[reporting.Key]uint64{day: {
		{Domain: "a.example", Source: "postfix"}: 4, {Domain: "a.example", Source: "exim", Standing: reporting.Late}: 5, {Domain: "a.example", Source: "exim", Standing: reporting.Unverified}: 6,
	}}}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Suppress(t.Context(), control.Suppression{URI: "https://a.example/r", Reason: "why not"}); err != nil {
		t.Fatal(err)
	}
	about := control.About{Day: day.String(), Domain: "A.example"}
	p, err := c.Preview(t.Context(), about, true)
	if err != nil {
		t.Fatal(err)
	}
	report, told, err := tlsrpt.Decode(strings.NewReader(p.JSON))
	if err != nil || told != nil || report.Total().Successful != 3 {
		t.Errorf("%+v, %q, %v", report, told, err)
	}
	var plain, packed, mail bytes.Buffer
	if err := errors.Join(report.Encode(&plain), report.EncodeGzip(&packed)); err != nil || plain.String() != p.JSON || !bytes.Equal(packed.Bytes(), p.Packed) || p.Size != packed.Len() {
		t.Errorf("%v, other bytes:\n%s", err, cmp.Diff(plain.String(), p.JSON))
	}
	msg := tlsrpt.Message{Report: &report, Domain: "a.example", From: "tlsrpt@sender.example", To: "r@a.example", Date: (day + 1).Start().Add(time.Hour)}
	if err := msg.Encode(&mail); err != nil || len(p.To) != 3 || !bytes.Equal(mail.Bytes(), p.To[0].Mail) {
		t.Errorf("%v, other bytes of mail: %+v", err, p.To)
	}
	if d := p.To[1]; d.Mail != nil || !d.Withheld || d.Standing == nil || d.Standing.Reason != "why not" {
		t.Errorf("suppressed: %+v", d)
	}
	if d := p.To[2]; d.Mail != nil || d.Trouble != "the key is gone" {
		t.Errorf("broken: %+v", d)
	}
	if p.State != control.Planned || p.Due.IsZero() || !p.Closed || p.NoPolicy != 4 || p.Late != 5 || p.Unverified != 6 || len(p.Notes) != 1 || p.ID != report.ID || p.File != report.FileName("a.example") {
		t.Errorf("%+v", p)
	}
	if p, err = c.Preview(t.Context(), about, false); err != nil || p.Packed != nil || p.To[0].Mail != nil || p.JSON == "" {
		t.Errorf("without mails: %+v, %v", p, err)
	}
	if p, err = c.Preview(t.Context(), control.About{Day: day.String(), Domain: "none.example", MX: true}, true); err != nil || p.JSON != "" || !p.MX || p.NoRecord != "no TLSRPT record" {
		t.Errorf("of nobody: %+v, %v", p, err)
	}
}

// Mails that do not fit into an answer are left out of it, and the answer is not.
func TestPreviewOfLargeMails(t *testing.T) {
	c, kept := newReporting(t, map[string]string{"a.example": "mailto:r1@a.example,mailto:large@a.example,mailto:r3@a.example"})
	counted(t, kept, day, "a.example", 3)
	p, err := c.Preview(t.Context(), control.About{Day: day.String(), Domain: "a.example"}, true)
	if err != nil || p.To[0].Mail == nil || p.To[1].Mail != nil || p.To[2].Mail == nil || !strings.Contains(p.To[1].Trouble, "too large") {
		t.Errorf("%v, %d %d %d bytes", err, len(p.To[0].Mail), len(p.To[1].Mail), len(p.To[2].Mail))
	}
}

func TestTargets(t *testing.T) {
	c, _ := newReporting(t, nil)
	list := func() (list []daily.Standing) {
		t.Helper()
		if err := c.Targets(t.Context(), func(s daily.Standing) error { list = append(list, s); return nil }); err != nil {
			t.Fatal(err)
		}
		return list
	}
	if got := list(); got != nil {
		t.Errorf("%+v", got)
	}
	until := time.Now().Add(time.Hour).UTC().Truncate(time.Second)
	s, err := c.Suppress(t.Context(), control.Suppression{URI: "R@Example.ORG", Until: until, Reason: "asked us to"})
	want := daily.Standing{URI: "mailto:R@example.org", Until: until, Reason: "asked us to", Operator: true}
	if diff := cmp.Diff(want, s); err != nil || diff != "" {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
	if s, err = c.Suppress(t.Context(), control.Suppression{URI: "https://example.org/r"}); err != nil || !control.Forever(s) {
		t.Errorf("%+v, %v", s, err)
	}
	if got := list(); len(got) != 2 {
		t.Errorf("%+v", got)
	}
	was, err := c.Restore(t.Context(), "mailto:R@EXAMPLE.org")
	if diff := cmp.Diff(want, was); err != nil || diff != "" {
		t.Errorf("removed: %v (-want +got):\n%s", err, diff)
	}
	if _, err := c.Restore(t.Context(), "mailto:R@example.org"); err == nil || err.Error() != "nothing speaks against mailto:R@example.org" {
		t.Errorf("got %v", err)
	}
	if got := list(); len(got) != 1 {
		t.Errorf("%+v", got)
	}
	for _, s := range []control.Suppression{
		{URI: "ftp://example.org"}, {URI: ""}, {URI: "folder:/" + strings.Repeat("x", 2000)}, {URI: "r@example.org", Reason: "two\nlines"},
		{URI: "r@example.org", Reason: strings.Repeat("x", 501)}, {URI: "r@example.org", Until: time.Unix(1, 0)},
	} {
		if got, err := c.Suppress(t.Context(), s); err == nil {
			t.Errorf("%.60s was taken: %+v", s.URI, got)
		}
	}
}

// Whatever is asked of a daemon that sends reports, or does not, an error is JSON.
func TestBadReportRequests(t *testing.T) {
	without := newServer(t)
	with := newServer(t)
	with.Reports = &daily.Reporter{} // nothing of it is reached
	for _, tt := range []struct {
		s                    *control.Server
		method, target, body string
		code                 int
	}{
		{with, "GET", "/v1/reports", "", 400},
		{with, "GET", "/v1/reports?day=yesterday", "", 400},
		{with, "GET", "/v1/reports?day=2026-11-28&domain=192.0.2.1", "", 400},
		{with, "GET", "/v1/report?day=2026-11-28", "", 400},
		{with, "GET", "/v1/report?domain=a.example", "", 400},
		{with, "GET", "/v1/report?day=2026-11-28&domain=" + strings.Repeat("x", 5000), "", 400},
		{with, "GET", "/v1/report/send?day=2026-11-28&domain=a.example", "", 404},
		{with, "POST", "/v1/report/send?day=2026-11-28", "", 400},
		{with, "PUT", "/v1/targets", "", 400},
		{with, "PUT", "/v1/targets", `{"uri":"mailto:r@a.example","for":"1h"}`, 400},
		{with, "PUT", "/v1/targets", `{"uri":"mailto:r@a.example"} {}`, 400},
		{with, "PUT", "/v1/targets", `{"uri":"mailto:r@a.example","reason":"` + strings.Repeat("x", 1<<20) + `"}`, 400},
		{with, "DELETE", "/v1/targets", "", 400},
		{without, "GET", "/v1/reports?day=2026-11-28", "", 404},
		{without, "GET", "/v1/report?day=2026-11-28&domain=a.example", "", 404},
		{without, "POST", "/v1/report/send?day=2026-11-28&domain=a.example", "", 404},
		{without, "GET", "/v1/targets", "", 404},
		{without, "PUT", "/v1/targets", `{"uri":"mailto:r@a.example"}`, 404},
		{without, "DELETE", "/v1/targets?target=mailto:r@a.example", "", 404},
	} {
		w := httptest.NewRecorder()
		tt.s.Handler().ServeHTTP(w, httptest.NewRequest(tt.method, tt.target, strings.NewReader(tt.body)))
		var f struct{ Error string }
		if err := json.Unmarshal(w.Body.Bytes(), &f); w.Code != tt.code || err != nil || f.Error == "" {
			t.Errorf("%s %.60s %.40s: %d, want %d: %s", tt.method, tt.target, tt.body, w.Code, tt.code, w.Body)
		}
	}
}

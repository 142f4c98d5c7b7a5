package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
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

// reportBed is a daemon that sends reports, as far as the commands see one: it is 2:00 of
// 2026-01-03, and the day before is closed.
type reportBed struct {
	*testing.T
	dir, config string
	store       *store.Store
	records     map[string]string
	refuse      atomic.Bool  // targets refuse what comes
	passed      atomic.Int64 // seconds since 2:00
	script      strings.Builder
}

const reportDay = reporting.Day(20455) // 2026-01-02

func newReportBed(t *testing.T) *reportBed {
	t.Helper()
	dir, err := os.MkdirTemp("", "ps")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	b := &reportBed{T: t, dir: dir, config: filepath.Join(dir, "postseal.toml"), store: storetest.Open(t, filepath.Join(dir, "sessions.db")), records: map[string]string{}}
	s := &control.Server{Log: slog.New(slog.DiscardHandler), Reports: &daily.Reporter{
		Store: b.store, Closed: func(d reporting.Day) bool { return d <= reportDay },
		Record: b.record, Mail: b, HTTPS: webOf{b}, Organization: "Sender Ltd", Contact: "tlsrpt@sender.example",
		Now: func() time.Time {
			return (reportDay + 1).Start().Add(2*time.Hour + time.Duration(b.passed.Load())*time.Second)
		},
	}}
	ln, err := net.Listen("unix", filepath.Join(dir, "control.sock"))
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewUnstartedServer(s.Handler())
	srv.Listener.Close()
	srv.Listener = ln
	srv.Start()
	t.Cleanup(srv.Close)
	text := fmt.Sprintf("state_dir = %q\ncontrol.listen = [%q]\n", dir, "unix:"+ln.Addr().String())
	if err := os.WriteFile(b.config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return b
}

func (b *reportBed) record(_ context.Context, domain string) (tlsrpt.Record, error) {
	if b.records[domain] == "" {
		return tlsrpt.Record{}, tlsrpt.ErrNoRecord
	}
	return tlsrpt.ParseRecord([]string{"v=TLSRPTv1; rua=" + b.records[domain]})
}

func (b *reportBed) MessageID(r *tlsrpt.Report, to string) string {
	return (&tlsrpt.Message{Report: r, From: "tlsrpt@sender.example", To: to}).MessageID()
}

func (b *reportBed) Message(r *tlsrpt.Report, domain, to string, date time.Time) ([]byte, error) {
	var buf bytes.Buffer
	m := tlsrpt.Message{Report: r, Domain: domain, From: "tlsrpt@sender.example", To: to, Date: date}
	err := m.Encode(&buf)
	return buf.Bytes(), err
}

func (b *reportBed) Send(context.Context, []byte, string) (string, error) {
	if b.refuse.Load() {
		return "", &send.Failure{Target: true, Final: true, Err: errors.New("550 5.1.1 no such user")}
	}
	return "250 2.0.0 Ok: queued as 4711", nil
}

// webOf are the web servers.
type webOf struct{ *reportBed }

func (w webOf) Send(context.Context, string, *tlsrpt.Report) (string, error) {
	if w.refuse.Load() {
		return "", &send.Failure{Target: true, Err: errors.New("503 Service Unavailable")}
	}
	return "201 Created", nil
}

// count counts sessions on reportDay.
func (b *reportBed) count(domain string, n uint64, edit ...func(*reporting.Key, *reporting.Policy)) {
	b.Helper()
	p := reporting.Policy{Type: tlsrpt.NoPolicy, Domain: domain}
	k := reporting.Key{Domain: domain, Source: "postfix", MXHost: "mx." + domain, MXIP: netip.MustParseAddr("192.0.2.1")}
	for _, f := range edit {
		f(&k, &p)
	}
	k.Policy = p.ID()
	if err := b.store.Write(reporting.Batch{Counts: map[reporting.Day]map[reporting.Key]uint64{reportDay: {k: n}},
		Policies: map[reporting.PolicyID]reporting.Policy{k.Policy: p}}); err != nil {
		b.Fatal(err)
	}
}

// seed counts sessions with a domain that asks for reports in two ways.
func (b *reportBed) seed() {
	b.records["a.example"] = "mailto:r@a.example,https://a.example/r"
	sts := func(k *reporting.Key, p *reporting.Policy) {
		*p = reporting.Policy{Type: tlsrpt.STS, Domain: "a.example", Strings: []string{"version: STSv1", "mode: enforce", "mx: mx.a.example", "max_age: 86400"}, MX: []string{"mx.a.example"}}
	}
	b.count("a.example", 48, sts)
	b.count("a.example", 2, sts, func(k *reporting.Key, _ *reporting.Policy) { k.Result, k.Reason = tlsrpt.CertificateExpired, "expired" })
	b.count("a.example", 3, func(k *reporting.Key, _ *reporting.Policy) { k.Standing = reporting.Late })
}

// run runs a command with arguments in words, and the exit code that it must have.
func (b *reportBed) run(code int, words ...string) (stdout, stderr string) {
	b.Helper()
	var out, errs bytes.Buffer
	argv := append(append([]string{"postseal"}, words...), "--config", b.config)
	if got := run(b.Context(), argv, strings.NewReader(""), &out, &errs); got != code {
		b.Errorf("%q: exit code %d, not %d\n%s%s", words, got, code, &out, &errs)
	}
	return out.String(), errs.String()
}

// try runs a command and takes down what it says.
func (b *reportBed) try(code int, command string) {
	b.Helper()
	out, errs := b.run(code, strings.Fields(command)...)
	fmt.Fprintf(&b.script, "$ postseal %s\n%s", command, out)
	for line := range strings.Lines(errs) {
		b.script.WriteString("! " + line)
	}
	b.script.WriteString("\n")
}

var update = flag.Bool("update", false, "write the golden files")

// golden compares all that was taken down with a file.
func (b *reportBed) golden(name string) {
	b.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, []byte(b.script.String()), 0o644); err != nil {
			b.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		b.Fatal(err)
	}
	if diff := cmp.Diff(strings.Split(string(want), "\n"), strings.Split(b.script.String(), "\n")); diff != "" {
		b.Errorf("%s (-want +got):\n%s", name, diff)
	}
}

// What an operator does about a report that was planned, sent, and then refused.
func TestReportSend(t *testing.T) {
	b := newReportBed(t)
	b.seed()
	b.count("b.example", 1)
	b.try(0, "report list --day 2026-01-02")
	b.try(0, "report send --day 2026-01-02 --domain a.example --dry-run")
	b.try(1, "report send --day 2026-01-02 --domain b.example --dry-run")
	b.try(1, "report send --day 2026-01-02 --domain b.example")
	b.try(0, "report send --day 2026-01-02 --domain A.example.")
	b.try(1, "report send --day 2026-01-02 --domain a.example")
	b.try(1, "report send --day 2026-01-02 --domain a.example --dry-run")
	b.try(0, "report list --day 2026-01-02")
	b.try(0, "report list --day 2026-01-02 --all --json")
	b.passed.Store(60) // reports to one place are kept apart
	b.refuse.Store(true)
	b.try(0, "report send --day 2026-01-02 --domain a.example --again --dry-run")
	b.try(1, "report send --day 2026-01-02 --domain a.example --again")
	b.try(0, "report send --day 2026-01-02 --domain a.example --dry-run")
	b.try(0, "report list --day 2026-01-02 --domain a.example")
	b.try(1, "report send --day 2026-01-02 --domain b.example --again --json")
	b.try(1, "report send --day 2026-01-03 --domain a.example")
	b.try(1, "report send --day 2026-01-03 --domain a.example --dry-run")
	b.try(0, "report list --day 2026-01-03")
	b.try(0, "report suppress")
	b.try(0, "report suppress add https://a.example/r --reason private")
	b.try(0, "report suppress add r@a.example")
	b.passed.Store(120)
	b.try(1, "report send --day 2026-01-02 --domain a.example --again --dry-run")
	b.try(1, "report send --day 2026-01-02 --domain a.example --again")
	b.golden("report-send.golden")
}

func TestReportShow(t *testing.T) {
	b := newReportBed(t)
	b.seed()
	b.records["a.example"] += ",ftp://a.example/"
	b.count("c.example", 4, func(_ *reporting.Key, p *reporting.Policy) { *p = reporting.Policy{} })
	b.try(0, "report show --day 2026-01-02 --domain a.example")
	b.try(0, "report show --day 2026-01-02 --domain a.example --json")
	b.try(1, "report show --day 2026-01-01 --domain a.example")
	b.try(1, "report show --day 2026-01-02 --domain c.example")
	b.try(1, "report show --day 2026-01-02 --domain mx.a.example --mx")
	b.try(0, "report preview --day 2026-01-02 --domain a.example")
	b.try(1, "report preview --day 2026-01-02 --domain c.example")
	b.golden("report-show.golden")
}

func TestReportSuppress(t *testing.T) {
	b := newReportBed(t)
	b.try(0, "report suppress list")
	b.try(0, "report suppress add r@A.example --reason asked")
	b.try(0, "report suppress add https://a.example/r?a=$x&b='")
	b.try(0, "report suppress")
	b.try(0, "report suppress list --json")
	b.try(0, "report suppress --json")
	b.try(0, "report suppress remove mailto:r@A.example")
	b.try(1, "report suppress remove mailto:r@a.example")
	b.try(2, "report suppress remove r")
	b.try(2, "report suppress add ftp://a.example")
	b.try(2, "report suppress add r@a.example --expires yesterday")
	b.try(2, "report suppress r@a.example")
	b.golden("report-suppress.golden")
	out, _ := b.run(0, "report", "suppress", "add", "--expires", "36h", "--json", "r@a.example")
	if until := time.Now().Add(36 * time.Hour).UTC().Format("2006-01-02T15:"); !strings.Contains(out, `"until": "`+until) {
		t.Errorf("%s", out)
	}
}

// With --out the very bytes that are sent are in files.
func TestReportPreviewFiles(t *testing.T) {
	b := newReportBed(t)
	b.seed()
	out, _ := b.run(0, "report", "preview", "--day", "2026-01-02", "--domain", "a.example", "--out", filepath.Join(b.dir, "new", "folder"))
	shown, _ := b.run(0, "report", "show", "--day", "2026-01-02", "--domain", "a.example", "--json")
	files, err := os.ReadDir(filepath.Join(b.dir, "new", "folder"))
	if err != nil || len(files) != 3 {
		t.Fatalf("%v, %v\n%s", files, err, out)
	}
	for _, f := range files {
		if !strings.Contains(out, f.Name()) {
			t.Errorf("%s is not named in\n%s", f.Name(), out)
		}
		data, err := os.ReadFile(filepath.Join(b.dir, "new", "folder", f.Name()))
		if err != nil {
			t.Fatal(err)
		}
		if strings.HasSuffix(f.Name(), ".json") && string(data) != shown {
			t.Errorf("another JSON: %s", data)
		}
		report, told, err := tlsrpt.Read(bytes.NewReader(data))
		if err != nil || told != nil || report.Total() != (tlsrpt.Summary{Successful: 48, Failed: 2}) {
			t.Errorf("%s: %+v, %q, %v", f.Name(), report, told, err)
		}
	}
	// A file of that name is replaced, one that a link leads to is left alone.
	link, elsewhere := filepath.Join(b.dir, "new", "folder", files[1].Name()), filepath.Join(b.dir, "precious")
	if err := errors.Join(os.Remove(link), os.WriteFile(elsewhere, []byte("x"), 0o600), os.Symlink(elsewhere, link)); err != nil {
		t.Fatal(err)
	}
	b.run(0, "report", "preview", "--day", "2026-01-02", "--domain", "a.example", "--out", filepath.Join(b.dir, "new", "folder"))
	kept, err := os.ReadFile(elsewhere)
	again, err2 := os.ReadFile(link)
	if string(kept) != "x" || string(again) != shown || err != nil || err2 != nil {
		t.Errorf("%q, %q, %v, %v", kept, again, err, err2)
	}
}

// Without --day a preview is of the last day that there is something of.
func TestReportPreviewDay(t *testing.T) {
	b := newReportBed(t)
	b.records["a.example"] = "mailto:r@a.example"
	p := reporting.Policy{Type: tlsrpt.NoPolicy, Domain: "a.example"}
	today := reporting.DayOf(time.Now())
	on := func(day reporting.Day) {
		t.Helper()
		if err := b.store.Write(reporting.Batch{Counts: map[reporting.Day]map[reporting.Key]uint64{day: {{Domain: "a.example", Source: "postfix", Policy: p.ID()}: 1}},
			Policies: map[reporting.PolicyID]reporting.Policy{p.ID(): p}}); err != nil {
			t.Fatal(err)
		}
	}
	on(today)
	if out, _ := b.run(0, "report", "preview", "--domain", "a.example"); !strings.Contains(out, "day         "+today.String()+" (UTC, NOT CLOSED)\n") {
		t.Errorf("%s", out)
	}
	on(today - 1)
	if out, _ := b.run(0, "report", "preview", "--domain", "a.example"); !strings.Contains(out, "day         "+(today-1).String()) {
		t.Errorf("%s", out)
	}
}

// What targets, the host's mail server and strangers have said is shown on a terminal.
func TestReportsCannotMoveTheTerminal(t *testing.T) {
	evil := "x\x1b[2J\u202ey\nz"
	at := []daily.TargetProgress{{URI: "mailto:" + evil, State: "sent", Reply: evil}}
	r := control.Report{Domain: evil, State: evil, Reason: evil, Targets: at}
	p := &control.Preview{Report: r, ID: evil, File: evil, JSON: "{}", NoRecord: evil, Notes: []string{evil},
		To: []control.Destination{{URI: "mailto:" + evil, Address: evil, Standing: &daily.Standing{Reason: evil}, Trouble: evil}, {URI: evil}, {URI: evil, Folder: evil}}}
	var b bytes.Buffer
	table := &reportTable{w: &b}
	err := errors.Join(table.add(r), printDestinations(&b, p))
	b.Write(renderPreview(p))
	b.Write(renderSent(control.Sent{Report: r}))
	if code := run(t.Context(), []string{"postseal", "report", "read", evil}, nil, io.Discard, &b); code != 1 {
		t.Errorf("a file of that name: exit code %d", code)
	}
	if text := b.String(); err != nil || strings.ContainsAny(text, "\x1b\u202e") || strings.Contains(text, "\nz") || strings.Count(text, "?[2J?y") < 10 {
		t.Errorf("%v\n%q", err, text)
	}
}

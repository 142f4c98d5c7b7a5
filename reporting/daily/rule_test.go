package daily_test

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"postseal/reporting/daily"
	"postseal/reporting/store"
	"postseal/reporting/tlsrpt"
)

func target(t testing.TB, s string) daily.Target {
	t.Helper()
	to, err := daily.ParseTarget(s)
	if err != nil {
		t.Fatal(err)
	}
	return to
}

// The first rule that fits decides.
func TestRules(t *testing.T) {
	bubble(t, func(b *bed) {
		day := yesterday()
		b.asking(day, "a.example", "sub.a.example", "b.example", "sub.b.example", "c.example", "xb.example")
		b.sessions(day, "silent.example", 1)
		b.Rules = []daily.Rule{
			{Domains: []string{"a.example"}, Action: daily.Drop},
			{Domains: []string{"b.example", ".b.example"}, Action: daily.Replace, To: []daily.Target{target(t, "https://ours.example/")}},
			{Domains: []string{"silent.example"}, Action: daily.Replace, To: []daily.Target{target(t, "mailto:us@ours.example")}},
			{Domains: []string{"*"}, Action: daily.Accept, Copy: []daily.Target{target(t, "mailto:copy@ours.example")}},
		}
		b.run(6 * time.Hour)
		got := map[string]bool{}
		for _, a := range b.arrivals() {
			got[a] = true
		}
		want := []string{
			"b.example https://ours.example/",
			"c.example mailto:copy@ours.example", "c.example mailto:reports@c.example",
			"silent.example mailto:us@ours.example",
			"sub.a.example mailto:copy@ours.example", "sub.a.example mailto:reports@sub.a.example",
			"sub.b.example https://ours.example/",
			"xb.example mailto:copy@ours.example", "xb.example mailto:reports@xb.example",
		}
		if diff := cmp.Diff(want, sorted(got)); diff != "" || len(b.arrived) != len(want) {
			t.Errorf("%d reports (-want +got)\n%s", len(b.arrived), diff)
		}
		if p := b.state(day, "a.example"); p.State != daily.Dropped || b.lookups["a.example"]+b.lookups["b.example"] > 0 {
			t.Errorf("%+v", p)
		}
	})
}

// A rule that comes while a report waits ends it; what a target took stays sent.
func TestRuleMeanwhile(t *testing.T) {
	bubble(t, func(b *bed) {
		day := yesterday()
		b.askingAt(day, func(d string) string { return "https://" + d + "/,https://stuck.example/" }, "taken.example")
		b.askingAt(day, func(string) string { return "https://stuck.example/" }, "waits.example")
		b.takes = func(_ context.Context, a arrival) error {
			if a.target == "https://stuck.example/" {
				return temporary("503")
			}
			return nil
		}
		b.run(5 * time.Hour)
		b.setup = func(r *daily.Reporter) { r.Rules = []daily.Rule{{Domains: []string{"*"}, Action: daily.Drop}} }
		b.restart()
		b.run(6 * time.Hour)
		for domain, want := range map[string]daily.State{"taken.example": daily.Sent, "waits.example": daily.Dropped} {
			p := b.state(day, domain)
			if p.State != want || p.Delivered() != (want == daily.Sent) {
				t.Errorf("%s: %+v", domain, p)
			}
			for _, at := range p.Targets {
				if at.State == daily.Waiting {
					t.Errorf("%s: %+v", domain, at)
				}
			}
		}
	})
}

// A copy that arrives does not hide that the domain got nothing.
func TestCopyAlone(t *testing.T) {
	bubble(t, func(b *bed) {
		day := yesterday()
		b.askingAt(day, func(d string) string { return "https://" + d + "/" }, "refuses.example", "takes.example")
		b.sessions(day, "silent.example", 1)
		copied := target(t, "https://copies.example/")
		b.Rules = []daily.Rule{{Domains: []string{"*"}, Action: daily.Accept, Copy: []daily.Target{copied}}}
		b.takes = func(_ context.Context, a arrival) error {
			if a.target == "https://refuses.example/" {
				return refused("410 Gone")
			}
			return nil
		}
		b.run(6 * time.Hour)
		for domain, want := range map[string]daily.State{"refuses.example": daily.Refused, "takes.example": daily.Sent, "silent.example": daily.Sent} {
			if p := b.state(day, domain); p.State != want || p.Delivered() != (want == daily.Sent) {
				t.Errorf("%s: %+v", domain, p)
			}
		}
		if s := b.Stats(); len(b.arrived) != 4 || s.GaveUp != 1 {
			t.Errorf("%d reports, %+v", len(b.arrived), s)
		}
	})
}

// A copy in a folder is whole or not there, and a folder that takes none harms no other.
func TestFolder(t *testing.T) {
	bubble(t, func(b *bed) {
		day, root := yesterday(), t.TempDir()
		good, bad := filepath.Join(root, "good"), filepath.Join(root, "bad")
		if err := os.Mkdir(good, 0o700); err != nil {
			t.Fatal(err)
		}
		b.asking(day, "a.example")
		b.sessions(day, "silent.example", 2) // is copied too
		b.Rules = []daily.Rule{{Domains: []string{"*"}, Action: daily.Accept, Copy: []daily.Target{target(t, "folder:"+good), target(t, "folder:"+bad)}}}
		b.run(6 * time.Hour)
		if p := b.state(day, "a.example"); p.State != daily.Waiting || !p.Delivered() || len(b.arrived) != 1 {
			t.Errorf("%+v, %d reports", p, len(b.arrived))
		}
		if err := os.Mkdir(bad, 0o700); err != nil {
			t.Fatal(err)
		}
		b.run(6 * time.Hour)
		if p := b.state(day, "a.example"); p.State != daily.Sent || len(b.arrived) != 1 {
			t.Errorf("%+v, %d reports", p, len(b.arrived))
		}
		for _, folder := range []string{good, bad} {
			files, err := os.ReadDir(folder)
			if err != nil || len(files) != 2 {
				t.Fatalf("%s: %v %v", folder, files, err)
			}
			for _, f := range files {
				in, err := os.Open(filepath.Join(folder, f.Name()))
				if err != nil {
					t.Fatal(err)
				}
				r, notes, err := tlsrpt.Read(in)
				in.Close()
				if err != nil || len(notes) > 0 {
					t.Errorf("%s: %v %v", f.Name(), notes, err)
				}
				if want := "sender.example!" + strings.Split(f.Name(), "!")[1]; !strings.HasPrefix(f.Name(), want) || r.Submitter() != "sender.example" {
					t.Errorf("%s: %+v", f.Name(), r)
				}
			}
		}
	})
}

func TestParseTarget(t *testing.T) {
	for _, s := range []string{"folder:relative", "folder:/a/../b", "folder:", "ftp://a.example/", "postmaster@a.example", ""} {
		if to, err := daily.ParseTarget(s); err == nil {
			t.Errorf("%q: %+v", s, to)
		}
	}
	if to := target(t, "folder:/var/lib/reports"); to.Folder != "/var/lib/reports" || to.Mail() {
		t.Errorf("%+v", to)
	}
}

// MX hosts that have a record of their own get a report about their TLSA records.
func TestHosts(t *testing.T) {
	world := func(b *bed) {
		day := yesterday()
		for _, domain := range []string{"a.example", "b.example", "mx.prov.example"} {
			b.sessions(day, domain, 2, tlsa("mx.prov.example", dane1))
			b.sessions(day, domain, 1, tlsa("mx.prov.example", dane1), failed(tlsrpt.TLSAInvalid, ""))
		}
		b.sessions(day, "a.example", 40)
		b.sessions(day, "a.example", 50, tlsa("mx2.prov.example", dane1))
		b.records["mx.prov.example"] = "v=TLSRPTv1; rua=mailto:dane@prov.example"
	}
	t.Run("RPT-002 with", func(t *testing.T) {
		bubble(t, func(b *bed) {
			b.Hosts = true
			world(b)
			b.run(6 * time.Hour)
			if len(b.arrived) != 2 || b.arrived[0].id == b.arrived[1].id {
				t.Fatalf("%+v", b.arrived)
			}
			totals := map[tlsrpt.Summary]bool{}
			for _, a := range b.arrived {
				totals[a.report.Total()] = true
				if len(a.report.Policies) != 1 || a.domain != "mx.prov.example" {
					t.Errorf("%+v", a.report)
				}
			}
			if !totals[tlsrpt.Summary{Successful: 6, Failed: 3}] || !totals[tlsrpt.Summary{Successful: 2, Failed: 1}] {
				t.Errorf("%v", totals)
			}
		})
	})
	t.Run("RPT-002 without", func(t *testing.T) {
		bubble(t, func(b *bed) {
			world(b)
			b.run(6 * time.Hour)
			if len(b.arrived) != 1 || b.arrived[0].report.Total().Successful != 2 {
				t.Errorf("%+v", b.arrived)
			}
		})
	})
	t.Run("RPT-002 no more", func(t *testing.T) {
		bubble(t, func(b *bed) {
			b.Hosts = true
			world(b)
			b.run(16 * time.Minute) // finds the hosts
			arrived := len(b.arrived)
			b.restart()
			b.run(6 * time.Hour)
			if len(b.arrived) != 1 || arrived > 0 {
				t.Errorf("%d reports, then %d", arrived, len(b.arrived))
			}
			if err := b.Each(yesterday(), func(of store.Subject, _ daily.Progress, _ time.Time) bool {
				if of.Host {
					t.Errorf("%+v", of)
				}
				return true
			}); err != nil {
				t.Error(err)
			}
		})
	})
	t.Run("many domains", func(t *testing.T) {
		bubble(t, func(b *bed) {
			const n = 1500
			batch := emptyBatch(yesterday())
			for _, domain := range names(n) {
				addSessions(batch, yesterday(), domain, 2, tlsa("mx.prov.example", dane1), failed(tlsrpt.TLSAInvalid, "from "+domain))
			}
			b.write(batch)
			for range 2 {
				if err := b.Store.IndexHosts(yesterday()); err != nil {
					t.Fatal(err)
				}
			}
			v, err := b.Preview(context.Background(), yesterday(), store.Subject{Name: "mx.prov.example", Host: true})
			if err != nil || v.Report.Total().Failed != 2*n {
				t.Fatalf("%+v %v", v.Report, err)
			}
			if n := len(v.Report.Policies[0].Failures); n > 1000 {
				t.Errorf("%d details", n)
			}
		})
	})
}

// A state that cannot be read is that of a report that was not begun.
func FuzzProgress(f *testing.F) {
	f.Add([]byte(`{"state":"waiting","begun":"2026-01-02T00:20:00Z","next":"2026-01-02T00:30:00Z","tries":1,"targets":[{"uri":"mailto:a@b.example","state":"waiting","trying":true}]}`))
	f.Add([]byte(`{"state":"sent"`))
	f.Add([]byte("\x00"))
	f.Fuzz(func(t *testing.T, state []byte) {
		var want daily.Progress
		readable := json.Unmarshal(state, &want) == nil
		if got := daily.Decode(state); readable && got.Done() != want.Done() || !readable && got.Done() {
			t.Errorf("%+v", got)
		}
	})
}

package daily_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"postseal/reporting"
	"postseal/reporting/daily"
	"postseal/reporting/store"
	"postseal/reporting/tlsrpt"
)

var update = flag.Bool("update", false, "rewrite the golden files")

type edit = func(*reporting.Key, *reporting.Policy)

func sts(strings ...string) edit {
	return func(_ *reporting.Key, p *reporting.Policy) {
		*p = reporting.Policy{Type: tlsrpt.STS, Domain: p.Domain, Strings: strings, MX: []string{"mail.example.com", "*.example.net"}}
	}
}

func tlsa(base string, records ...string) edit {
	return func(_ *reporting.Key, p *reporting.Policy) {
		*p = reporting.Policy{Type: tlsrpt.TLSA, Domain: base, Strings: records}
	}
}

func failed(result tlsrpt.ResultType, reason string) edit {
	return func(k *reporting.Key, _ *reporting.Policy) {
		k.Result, k.Reason = result, reason
		k.SendingIP, k.MXIP = netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")
	}
}

func from(s reporting.Source) edit {
	return func(k *reporting.Key, _ *reporting.Policy) { k.Source = s }
}

func with(s reporting.Standing) edit {
	return func(k *reporting.Key, _ *reporting.Policy) { k.Standing = s }
}

func unknown(_ *reporting.Key, p *reporting.Policy) { *p = reporting.Policy{} }

const (
	dane1 = "3 1 1 2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881"
	mx1   = "mx.prov.example"
)

// composition is a day of one domain, and what its report shows.
var compositions = []struct {
	name     string
	golden   string
	sessions func(add func(n uint64, edits ...edit))
}{
	{"RPT-021 RPT-029 RPT-054 RPT-055 RPT-056 RPT-057 RPT-058 RPT-059 an STS policy", "sts", func(add func(uint64, ...edit)) {
		policy := sts("version: STSv1", "mode: enforce", "mx: mail.example.com", "mx: *.example.net", "max_age: 86400")
		add(100, policy)
		add(3, policy, failed(tlsrpt.CertificateExpired, "certificate has expired"))
		add(2, policy, failed(tlsrpt.CertificateHostMismatch, ""))
		add(1, policy, failed(tlsrpt.STSPolicyFetchError, "timeout"), func(k *reporting.Key, _ *reporting.Policy) { // RPT-029
			k.MXHost, k.MXIP, k.SendingIP = "", netip.Addr{}, netip.Addr{}
		})
	}},
	{"RPT-054 TLSA records", "tlsa", func(add func(uint64, ...edit)) {
		add(7, tlsa(mx1, dane1))
		add(1, tlsa(mx1, dane1), failed(tlsrpt.ValidationFailure, "no matching certificate"))
		add(1, tlsa(mx1, dane1), failed(tlsrpt.DNSSECInvalid, ""))
	}},
	{"RPT-031 RPT-053 no policy found", "no-policy-found", func(add func(uint64, ...edit)) {
		add(12)
		add(4, failed(tlsrpt.StartTLSNotSupported, ""))
	}},
	{"RPT-022 RPT-023 RPT-050 RPT-051 RPT-052 SEED-011 both and a changed policy", "both", func(add func(uint64, ...edit)) {
		add(5, sts("version: STSv1", "mode: testing", "mx: mail.example.com", "max_age: 86400"))
		add(6, sts("version: STSv1", "mode: enforce", "mx: mail.example.com", "max_age: 86400"))
		add(1, sts("version: STSv1", "mode: testing", "mx: mail.example.com", "max_age: 86400"), failed(tlsrpt.CertificateNotTrusted, "self-signed")) // RPT-028
		add(8, tlsa(mx1, dane1))
		add(2, tlsa("mx2.prov.example", dane1), failed(tlsrpt.TLSAInvalid, ""))
	}},
	{"RPT-025 nothing failed", "success", func(add func(uint64, ...edit)) { add(9) }},
	{"RPT-061 equal details from two sources", "merged", func(add func(uint64, ...edit)) {
		add(2, failed(tlsrpt.StartTLSNotSupported, ""))
		add(3, failed(tlsrpt.StartTLSNotSupported, ""), from("delivery"))
		add(4, from("probe"))
		add(20, with(reporting.Late)) // in no report
		add(20, with(reporting.Unverified))
		add(20, unknown)
	}},
}

// A report as it is sent: its JSON is in testdata.
func TestComposition(t *testing.T) {
	for _, c := range compositions {
		t.Run(c.name, func(t *testing.T) {
			bubble(t, func(b *bed) {
				day, domain := yesterday(), "xn--bcher-kva.example" // RPT-055
				b.asking(day, "other.example")
				b.records[domain] = "v=TLSRPTv1; rua=mailto:reports@example.com"
				c.sessions(func(n uint64, edits ...edit) { b.sessions(day, domain, n, edits...) })
				v, err := b.Preview(b.Context(), day, store.Subject{Name: domain})
				if err != nil {
					t.Fatal(err)
				}
				b.run(5 * time.Hour)
				var sent *tlsrpt.Report
				for _, a := range b.arrived {
					if a.domain == domain {
						sent = a.report
					}
				}
				if sent == nil {
					t.Fatal("no report")
				}
				got := indented(t, sent)
				if diff := cmp.Diff(indented(t, v.Report), got); diff != "" {
					t.Error("preview and report:", diff)
				}
				path := filepath.Join("testdata", c.golden+".json")
				if *update {
					if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
						t.Fatal(err)
					}
				}
				want, err := os.ReadFile(path)
				if err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff(string(want), got); diff != "" {
					t.Errorf("(-want +got)\n%s", diff)
				}
				if !regexp.MustCompile(`"start-datetime": "1999-12-31T00:00:00Z",\s+"end-datetime": "1999-12-31T23:59:59Z"`).MatchString(got) {
					t.Error("RPT-020: not the day")
				}
			})
		})
	}
}

func indented(t *testing.T, r *tlsrpt.Report) string {
	t.Helper()
	var raw, out bytes.Buffer
	if err := r.Encode(&raw); err != nil {
		t.Fatal(err)
	}
	if err := json.Indent(&out, raw.Bytes(), "", "  "); err != nil { // RPT-021
		t.Fatal(err)
	}
	return strings.TrimSpace(out.String()) + "\n"
}

// What is in no report, and what is said of it.
func TestNothingToReport(t *testing.T) {
	for _, c := range []struct {
		name, reason string
		edits        []edit
		count        func(v *daily.Preview) uint64
	}{
		{"the policy is not known", "of no session is it known which policy it was held to", []edit{unknown}, func(v *daily.Preview) uint64 { return v.NoPolicy }},
		{"RPT-028 in testing nobody has verified", "the policy is in mode testing, and nobody has verified the MX hosts", []edit{with(reporting.Unverified)}, func(v *daily.Preview) uint64 { return v.Unverified }},
		{"late", "all sessions became known after the day was closed", []edit{with(reporting.Late)}, func(v *daily.Preview) uint64 { return v.Late }},
	} {
		t.Run(c.name, func(t *testing.T) {
			bubble(t, func(b *bed) {
				day := yesterday()
				b.records["a.example"] = "v=TLSRPTv1; rua=mailto:a@a.example"
				b.sessions(day, "a.example", 3, c.edits...)
				b.run(5 * time.Hour)
				v, err := b.Preview(b.Context(), day, store.Subject{Name: "a.example"})
				if err != nil || v.Report != nil || c.count(&v) != 3 || !v.Due.IsZero() {
					t.Errorf("%+v %v", v, err)
				}
				if v.Progress.State != daily.Nothing || v.Progress.Reason != c.reason || len(b.arrived) > 0 {
					t.Errorf("%+v, %d reports", v.Progress, len(b.arrived))
				}
			})
		})
	}
}

// A report is always the same, and its id that of no other.
func TestIdentity(t *testing.T) {
	t.Run("RPT-060", func(t *testing.T) {
		ids := map[string]bool{}
		n := 0
		for _, host := range []string{"mx1.sender.example", "mx2.sender.example"} {
			bubble(t, func(b *bed) {
				b.Host = host
				for _, day := range []reporting.Day{yesterday(), yesterday() - 1} {
					b.asking(day, names(50)...)
					for _, domain := range names(50) {
						n++
						for range 2 {
							v, err := b.Preview(b.Context(), day, store.Subject{Name: domain})
							if err != nil {
								t.Fatal(err)
							}
							ids[v.Report.ID] = true
						}
					}
				}
			})
		}
		if len(ids) != n {
			t.Errorf("%d ids of %d reports", len(ids), n)
		}
	})
}

// Hostile servers may have ever new reasons; the report stays small and its totals right.
func TestSize(t *testing.T) {
	t.Run("RPT-083 reasons", func(t *testing.T) {
		bubble(t, func(b *bed) {
			const n = 100_000
			b.Store.MaxDetails = n // beyond what the store lets through
			batch := emptyBatch(yesterday())
			for i := range n {
				addSessions(batch, yesterday(), "a.example", 1, failed(tlsrpt.ValidationFailure, fmt.Sprintf("reason %d", i)))
			}
			addSessions(batch, yesterday(), "a.example", 7)
			b.write(batch)
			v, err := b.Preview(b.Context(), yesterday(), store.Subject{Name: "a.example"})
			if err != nil {
				t.Fatal(err)
			}
			if got := v.Report.Total(); got != (tlsrpt.Summary{Successful: 7, Failed: n}) || v.Loss.Details < n-1000 {
				t.Errorf("%+v, loss %+v", got, v.Loss)
			}
			if text := indented(t, v.Report); len(text) > 1<<20 {
				t.Errorf("%d bytes", len(text))
			}
		})
	})
	t.Run("RPT-083 policies", func(t *testing.T) {
		bubble(t, func(b *bed) {
			const n = 1200 // of 8 KiB each
			batch := emptyBatch(yesterday())
			for i := range n {
				line := fmt.Sprintf("x%d: %s", i, strings.Repeat("x", 8<<10))
				addSessions(batch, yesterday(), "a.example", 2, sts("version: STSv1", "mode: enforce", "mx: a.example", line))
			}
			b.write(batch)
			v, err := b.Preview(b.Context(), yesterday(), store.Subject{Name: "a.example"})
			if err != nil {
				t.Fatal(err)
			}
			if got := v.Report.Total(); got.Successful+v.Loss.Sessions != 2*n {
				t.Errorf("%+v, loss %+v", got, v.Loss)
			}
			if text := indented(t, v.Report); len(text) > 10<<20 {
				t.Errorf("%d bytes", len(text))
			}
		})
	})
}

// What is nobody's business is left out (RFC 8460 §8).
func TestPrivacy(t *testing.T) {
	t.Run("RPT-084", func(t *testing.T) {
		bubble(t, func(b *bed) {
			b.HideSendingIP = true
			b.sessions(yesterday(), "a.example", 3, failed(tlsrpt.CertificateNotTrusted, "certificate of <jane.doe@corp.example> is self-signed"))
			v, err := b.Preview(b.Context(), yesterday(), store.Subject{Name: "a.example"})
			if err != nil {
				t.Fatal(err)
			}
			text := indented(t, v.Report)
			for _, secret := range []string{"sending-mta-ip", "192.0.2.1", "jane", "corp.example"} {
				if strings.Contains(text, secret) {
					t.Errorf("%q is in the report:\n%s", secret, text)
				}
			}
			if got := v.Report.Policies[0]; got.Summary.Failed != 3 || len(got.Failures) != 1 {
				t.Errorf("%+v", got)
			}
		})
	})
	t.Run("RPT-026 RPT-024 sessions once each in the total", func(t *testing.T) {
		bubble(t, func(b *bed) {
			b.sessions(yesterday(), "a.example", 3, failed(tlsrpt.CertificateExpired, ""))
			b.sessions(yesterday(), "a.example", 2, failed(tlsrpt.CertificateHostMismatch, ""))
			b.sessions(yesterday(), "a.example", 4)
			v, err := b.Preview(b.Context(), yesterday(), store.Subject{Name: "a.example"})
			if err != nil || v.Report.Total() != (tlsrpt.Summary{Successful: 4, Failed: 5}) {
				t.Errorf("%+v %v", v.Report, err)
			}
		})
	})
}

package daemon

import (
	"errors"
	"strings"
	"testing"
	"time"

	"postseal/policy/dnssec/dnstest"
	"postseal/reporting/tlsrpt"
)

// The record is asked for by way of DNS (RFC 8460 §3).
func TestTLSRPTRecord(t *testing.T) {
	dns := dnstest.New(t, `
_smtp._tls.one.test. TXT "v=TLSRPTv1; rua=mailto:r@one.test"
_smtp._tls.split.test. TXT "v=TLSRPTv1; rua=mail" "to:r@split.test,https://split.test/r%2C1"
_smtp._tls.spf.test. TXT "v=spf1 -all"
_smtp._tls.spf.test. TXT "v=TLSRPTv1;rua=mailto:r@spf.test"
_smtp._tls.two.test. TXT "v=TLSRPTv1; rua=mailto:a@two.test"
_smtp._tls.two.test. TXT "v=TLSRPTv1; rua=mailto:b@two.test"
_smtp._tls.draft.test. TXT "v=TLSRPT1; rua=mailto:r@draft.test"
_smtp-tlsrpt.seed.test. TXT "v=TLSRPTv1; rua=mailto:r@seed.test"
_smtp._tls.alias.test. CNAME _smtp._tls.one.test.
one.test. A 192.0.2.1
`)
	dns.Fail("_smtp._tls.broken.test", "TXT", "SERVFAIL")
	client := dns.Client()
	client.TryTimeout, client.Timeout = time.Second, 3*time.Second
	d := &daemon{dns: client}
	for name, c := range map[string]struct {
		domain string
		uris   string
		err    error
	}{
		"RPT-001 at its name":            {"one.test", "mailto:r@one.test", nil},
		"RPT-001 by an alias":            {"alias.test", "mailto:r@one.test", nil},
		"RPT-002 not of a parent":        {"mx.one.test", "", tlsrpt.ErrNoRecord},
		"RPT-003 the draft's version":    {"draft.test", "", tlsrpt.ErrNoRecord},
		"RPT-004 beside others":          {"spf.test", "mailto:r@spf.test", nil},
		"RPT-004 two":                    {"two.test", "", tlsrpt.ErrSeveralRecords},
		"RPT-005 RPT-008 split":          {"split.test", "mailto:r@split.test https://split.test/r%2C1", nil},
		"SEED-010 the draft's name":      {"seed.test", "", tlsrpt.ErrNoRecord},
		"too long for the record's name": {strings.Repeat("a.", 122) + "test", "", tlsrpt.ErrNoRecord},
	} {
		t.Run(name, func(t *testing.T) {
			record, err := d.tlsrptRecord(t.Context(), c.domain)
			var uris []string
			for _, target := range record.Targets {
				uris = append(uris, target.URI)
			}
			if got := strings.Join(uris, " "); got != c.uris || !errors.Is(err, c.err) {
				t.Errorf("%q, %v", got, err)
			}
		})
	}
	t.Run("RPT-011 a failed lookup is no answer", func(t *testing.T) {
		_, err := d.tlsrptRecord(t.Context(), "broken.test")
		if err == nil || errors.Is(err, tlsrpt.ErrNoRecord) {
			t.Error(err)
		}
	})
	if dns.Count("TXT", "_smtp._tls.one.test") == 0 {
		t.Errorf("asked for %q", dns.Queries())
	}
}

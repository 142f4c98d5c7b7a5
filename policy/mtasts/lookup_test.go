package mtasts_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"postseal/policy/dnssec"
	"postseal/policy/dnssec/dnstest"
	"postseal/policy/mtasts"
)

func TestLookupRecord(t *testing.T) {
	long63 := strings.Repeat("a", 63)
	for _, c := range []struct {
		name, zone, domain string
		id                 string
		err                error
		ttl                time.Duration
		queries            []string
	}{
		{
			name: "STS-010 record", domain: "example.com", id: "20260101", ttl: 300 * time.Second,
			zone:    `_mta-sts.example.com. 300 IN TXT "v=STSv1; id=20260101;"`,
			queries: []string{"TXT _mta-sts.example.com"},
		},
		{
			name: "STS-010 wrong name", domain: "example.com", err: mtasts.ErrNoRecord,
			zone:    `mta-sts.example.com. 300 IN TXT "v=STSv1; id=20260101;"`,
			queries: []string{"TXT _mta-sts.example.com"},
		},
		{
			name: "STS-003 no climbing", domain: "mail.example.com", err: mtasts.ErrNoRecord,
			zone:    `_mta-sts.example.com. 300 IN TXT "v=STSv1; id=20260101;"`,
			queries: []string{"TXT _mta-sts.mail.example.com"},
		},
		{
			name: "STS-011 alias", domain: "user.example", id: "a", ttl: 60 * time.Second,
			zone: "_mta-sts.user.example. 60 IN CNAME _mta-sts.provider.example.\n" +
				`_mta-sts.provider.example. 300 IN TXT "v=STSv1; id=a;"`,
		},
		{
			name: "STS-012 strings are joined", domain: "example.com", id: "2026", ttl: 300 * time.Second,
			zone: `_mta-sts.example.com. 300 IN TXT "v=STSv1; id=20" "26;"`,
		},
		{
			name: "STS-013 other records", domain: "example.com", id: "1", ttl: 300 * time.Second,
			zone: `_mta-sts.example.com. 300 IN TXT "google-site-verification=x"` + "\n" +
				`_mta-sts.example.com. 300 IN TXT "v=STSv1; id=1;"`,
		},
		{
			name: "STS-014 two records", domain: "example.com", err: mtasts.ErrSeveralRecords, ttl: 300 * time.Second,
			zone: `_mta-sts.example.com. 300 IN TXT "v=STSv1; id=1;"` + "\n" +
				`_mta-sts.example.com. 300 IN TXT "v=STSv1; id=2;"`,
		},
		{
			name: "STS-022 not ASCII", domain: "example.com", err: new(mtasts.RecordError), ttl: 300 * time.Second,
			zone: `_mta-sts.example.com. 300 IN TXT "v=STSv1; id=\195;"`,
		},
		{name: "STS-008 long domain", domain: strings.Repeat("a.", 124) + "ab", err: mtasts.ErrNoRecord, ttl: 24 * time.Hour, queries: []string{}},
		{name: "STS-008 long label", domain: long63 + "a.example", err: mtasts.ErrNoRecord, ttl: 24 * time.Hour, queries: []string{}},
		{
			name: "STS-008 longest domain", domain: long63 + "." + long63 + "." + long63 + "." + strings.Repeat("b", 52), id: "a", ttl: 300 * time.Second,
			zone: `_mta-sts.` + long63 + "." + long63 + "." + long63 + "." + strings.Repeat("b", 52) + `. 300 IN TXT "v=STSv1; id=a;"`,
		},
		{
			name: "SEED-001 record of 2016", domain: "example.com", err: mtasts.ErrNoRecord,
			zone:    `_smtp_sts.example.com. 300 IN TXT "v=STS1; to=true; mx=*.example.com; a=dnssec; c=webpki; e=86400"`,
			queries: []string{"TXT _mta-sts.example.com"},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := dnstest.New(t, c.zone)
			r, ttl, err := mtasts.LookupRecord(t.Context(), s.Client(), c.domain)
			var malformed *mtasts.RecordError
			if wanted := new(mtasts.RecordError); errors.As(c.err, &wanted) {
				if !errors.As(err, &malformed) {
					t.Errorf("error %v", err)
				}
			} else if !errors.Is(err, c.err) {
				t.Errorf("error %v, want %v", err, c.err)
			}
			if r.ID != c.id {
				t.Errorf("id %q, want %q", r.ID, c.id)
			}
			if c.ttl != 0 && ttl != c.ttl {
				t.Errorf("TTL %v, want %v", ttl, c.ttl)
			}
			if c.queries != nil && fmt.Sprint(s.Queries()) != fmt.Sprint(c.queries) {
				t.Errorf("queries %q, want %q", s.Queries(), c.queries)
			}
		})
	}
}

func TestLookupRecordNegativeTTL(t *testing.T) {
	t.Run("STS-026 minimum of the SOA", func(t *testing.T) {
		s := dnstest.New(t, "example.com. 900 IN SOA ns.example.com. admin.example.com. 1 2 3 4 120\nexample.com. 300 IN A 192.0.2.1\n")
		_, ttl, err := mtasts.LookupRecord(t.Context(), s.Client(), "example.com")
		if !errors.Is(err, mtasts.ErrNoRecord) || ttl != 2*time.Minute {
			t.Errorf("TTL %v, %v; want 2m0s (RFC 2308 §5)", ttl, err)
		}
	})
}

func TestLookupRecordFailure(t *testing.T) {
	for fault, kind := range map[string]dnssec.Kind{"SERVFAIL": dnssec.ServFail, "BOGUS": dnssec.Bogus, "REFUSED": dnssec.Refused, "TIMEOUT": dnssec.Timeout} {
		t.Run("STS-025 "+fault, func(t *testing.T) {
			s := dnstest.New(t, `_mta-sts.example.com. 300 IN TXT "v=STSv1; id=20260101;"`)
			s.Fail("_mta-sts.example.com", "TXT", fault)
			r, _, err := mtasts.LookupRecord(t.Context(), s.Client(), "example.com")
			var failure *dnssec.Error
			if !errors.As(err, &failure) || failure.Kind != kind {
				t.Errorf("%+v, %v; want a dnssec.Error, %v", r, err, kind)
			}
		})
	}
	t.Run("STS-011 loop", func(t *testing.T) {
		s := dnstest.New(t, "_mta-sts.example.com. 300 IN CNAME _mta-sts.example.net.\n_mta-sts.example.net. 300 IN CNAME _mta-sts.example.com.\n")
		_, _, err := mtasts.LookupRecord(t.Context(), s.Client(), "example.com")
		var failure *dnssec.Error
		if !errors.As(err, &failure) {
			t.Errorf("%v, want a dnssec.Error", err)
		}
	})
}

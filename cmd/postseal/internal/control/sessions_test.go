package control_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"postseal/cmd/postseal/internal/control"
	"postseal/policy"
	"postseal/policy/probe"
	"postseal/policy/smtpclient"
	"postseal/reporting"
	"postseal/reporting/store"
	"postseal/reporting/store/storetest"
	"postseal/reporting/tlsrpt"
)

const day = reporting.Day(20785) // 2026-11-28

// newRecorded serves what is in a store, which it returns.
func newRecorded(t *testing.T) (*control.Client, *store.Store) {
	t.Helper()
	kept := storetest.Open(t, filepath.Join(t.TempDir(), "sessions.db"))
	kept.MaxDetails = 3000
	recorder := &reporting.Recorder{Store: kept}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- recorder.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
	s := newServer(t)
	s.Recorded = &control.Recorded{Store: kept, Recorder: recorder, Closed: func(d reporting.Day) bool { return d < day }}
	return newClient(t, s.Handler()), kept
}

func TestSessions(t *testing.T) {
	c, kept := newRecorded(t)
	p := reporting.Policy{Type: tlsrpt.STS, Domain: "a.example"}
	ok := reporting.Key{Domain: "a.example", Policy: p.ID(), Source: "postfix", MXHost: "mx.a.example", MXIP: netip.MustParseAddr("192.0.2.1")}
	other, failed := ok, ok
	other.MXHelo, other.SendingIP = "helo.a.example", netip.MustParseAddr("192.0.2.9") // which is not shown
	failed.Result, failed.Reason, failed.Standing = tlsrpt.CertificateExpired, "expired", reporting.Late
	b := reporting.Key{Domain: "b.example", Source: "exim"}
	if err := kept.Write(reporting.Batch{
		Counts:   map[reporting.Day]map[reporting.Key]uint64{day: {ok: 2, other: 3, failed: 4, b: 5}},
		Policies: map[reporting.PolicyID]reporting.Policy{p.ID(): p},
	}); err != nil {
		t.Fatal(err)
	}
	sessions := func(domain string) (list []control.Sessions) {
		t.Helper()
		end, err := c.Sessions(t.Context(), day.String(), domain, func(s control.Sessions) error {
			s.Policy = ""
			list = append(list, s)
			return nil
		})
		if diff := cmp.Diff(control.Day{Day: "2026-11-28", Domains: 2}, end); err != nil || diff != "" {
			t.Errorf("%v: %s", err, diff)
		}
		return list
	}
	a := control.Outcome{Domain: "a.example", MXHost: "mx.a.example", IP: "192.0.2.1", Outcome: "success", PolicyType: "sts"}
	late := a
	late.Outcome, late.ResultType, late.Reason = "failure", "certificate-expired", "expired"
	want := []control.Sessions{
		{Day: "2026-11-28", Outcome: a, Count: 5, Source: "postfix", Standing: "reported"},
		{Day: "2026-11-28", Outcome: late, Count: 4, Source: "postfix", Standing: "late"},
		{Day: "2026-11-28", Outcome: control.Outcome{Domain: "b.example", Outcome: "success"}, Count: 5, Source: "exim", Standing: "reported"},
	}
	if diff := cmp.Diff(want, sessions("")); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(want[:2], sessions("A.Example.")); diff != "" {
		t.Errorf("one domain (-want +got):\n%s", diff)
	}
}

// A day is longer than what the store reads at once.
func TestManySessions(t *testing.T) {
	c, kept := newRecorded(t)
	counts := map[reporting.Key]uint64{}
	for n := range 2500 {
		counts[reporting.Key{Domain: fmt.Sprintf("d%d.example", n%3), Source: "postfix", MXHost: fmt.Sprintf("mx%d.example", n)}] = uint64(n)
	}
	if err := kept.Write(reporting.Batch{Counts: map[reporting.Day]map[reporting.Key]uint64{day: counts}}); err != nil {
		t.Fatal(err)
	}
	var n, sum uint64
	if _, err := c.Sessions(t.Context(), day.String(), "", func(s control.Sessions) error { n++; sum += s.Count; return nil }); err != nil {
		t.Fatal(err)
	}
	if n != 2499 || sum != 2500*2499/2 { // one of them counts 0
		t.Errorf("%d lines, %d sessions", n, sum)
	}
	enough := errors.New("enough")
	if _, err := c.Sessions(t.Context(), day.String(), "", func(control.Sessions) error { return enough }); !errors.Is(err, enough) {
		t.Errorf("got %v", err)
	}
}

func TestProbe(t *testing.T) {
	s := newServer(t)
	addr := netip.MustParseAddrPort("192.0.2.1:25")
	s.Probe = func(_ context.Context, dest policy.Destination) ([]probe.Answer, error) {
		if dest.Domain != "example.org" {
			return nil, errors.New("this machine has no name")
		}
		return []probe.Answer{
			{Host: "mx.example.org", Addr: addr, Info: smtpclient.Info{TLS: true, Version: 0x304, Cipher: 0x1301, Secured: smtpclient.PKIX, DANEErr: errors.New("no record matches")}},
			{Host: "mx.example.org", Addr: addr, Err: &smtpclient.Failure{Result: "starttls-not-supported",
				Reply: smtpclient.Reply{Code: 451, Text: "mx.example.org[192.0.2.1]: STARTTLS is not offered"}}},
			{Host: "mx.example.org", Addr: addr, Info: smtpclient.Info{NoTLS: &smtpclient.Failure{Reply: smtpclient.Reply{Code: 451, Text: "refused"}}}},
		}, nil
	}
	c := newClient(t, s.Handler())
	got, err := c.Probe(t.Context(), "example.org")
	want := control.Probed{Answers: []control.Probe{
		{Host: "mx.example.org", Address: "192.0.2.1:25", TLS: "TLS 1.3", Cipher: "TLS_AES_128_GCM_SHA256", Proven: "pkix", DANE: "no record matches"},
		{Host: "mx.example.org", Address: "192.0.2.1:25", Failure: "STARTTLS is not offered", Result: "starttls-not-supported"},
		{Host: "mx.example.org", Address: "192.0.2.1:25", Failure: "refused"},
	}}
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
	if _, err := c.Probe(t.Context(), "example.net"); err == nil || err.Error() != "this machine has no name" {
		t.Errorf("got %v", err)
	}
}

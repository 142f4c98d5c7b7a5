package dnssec_test

import (
	"errors"
	"testing"

	"go.uber.org/goleak"

	"postseal/policy/dnssec"
	"postseal/policy/dnssec/dnstest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// kind asserts that err is an [*dnssec.Error] of the kind, and returns it.
func kind(t *testing.T, err error, want dnssec.Kind) *dnssec.Error {
	t.Helper()
	var e *dnssec.Error
	if !errors.As(err, &e) {
		t.Fatalf("error %v, want one of kind %q", err, want)
	}
	if e.Kind != want {
		t.Fatalf("error %v of kind %q, want %q", err, e.Kind, want)
	}
	return e
}

func TestMX(t *testing.T) {
	s := dnstest.New(t, `example.org. 120 MX 10 MX.Example.org.
example.org. MX 0 .
alias.example.org. CNAME example.org.
mx.example.org. A 192.0.2.1
mx.example.org. AAAA 2001:db8::1`, "example.org")
	a, err := s.Client().LookupMX(t.Context(), "Alias.example.org.")
	t.Logf("%+v %v", a, err)
	if err != nil || !a.Secure || len(a.Records) != 2 {
		t.Fatal(a, err)
	}
	n, err := s.Client().LookupTXT(t.Context(), "Alias.example.org.")
	t.Logf("%+v %v", n, err)
	n, err = s.Client().LookupTXT(t.Context(), "x.example.org.")
	t.Logf("%+v %v", n, err)
}

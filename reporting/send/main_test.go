package send_test

import (
	"errors"
	"testing"
	"time"

	"go.uber.org/goleak"

	"postseal/reporting/send"
	"postseal/reporting/tlsrpt"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// day is the one that the reports of the tests are about.
var day = time.Date(2026, 1, 2, 13, 14, 15, 0, time.UTC)

func report() *tlsrpt.Report {
	r := &tlsrpt.Report{
		Organization: "Example Org",
		Contact:      "tlsrpt@mta.example.org",
		ID:           tlsrpt.ReportID(day, "example.com", "mta.example.org", "mx1"),
		Policies: []tlsrpt.PolicyResult{{
			Policy:   tlsrpt.Policy{Type: tlsrpt.NoPolicy, Domain: "example.com"},
			Summary:  tlsrpt.Summary{Successful: 7, Failed: 3},
			Failures: []tlsrpt.FailureDetail{{Result: tlsrpt.StartTLSNotSupported, MXHost: "mx.example.com", Sessions: 3}},
		}},
	}
	r.Start, r.End = tlsrpt.Day(day)
	r.Tidy()
	return r
}

// failure checks the kind of a failure and returns it.
func failure(t *testing.T, err error, target, final bool) *send.Failure {
	t.Helper()
	var f *send.Failure
	if !errors.As(err, &f) {
		t.Fatalf("%v is no *Failure", err)
	}
	if f.Target != target || f.Final != final {
		t.Errorf("target %v, final %v; want %v, %v: %v", f.Target, f.Final, target, final, err)
	}
	text := f.Error()
	if len(text) > 500 {
		t.Errorf("%d bytes: %s", len(text), text)
	}
	for _, c := range []byte(text) {
		if c < ' ' || c > '~' {
			t.Errorf("not printable: %q", text)
			break
		}
	}
	return f
}

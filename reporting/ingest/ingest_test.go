package ingest_test

import (
	"testing"

	"postseal/reporting/ingest"
	"postseal/reporting/ingest/maillog"
)

// Whoever changes the format of a log loses what was open, and nothing else.
func TestFormats(t *testing.T) {
	states := map[string][]byte{}
	for _, format := range []string{"postfix", "exim", "sendmail"} {
		r, err := ingest.New(format, maillog.Options{})
		if err != nil {
			t.Fatal(err)
		}
		states[format] = r.AppendState(nil)
	}
	for format := range states {
		for other, state := range states {
			r, err := ingest.New(format, maillog.Options{})
			if err != nil {
				t.Fatal(err)
			}
			if err := r.RestoreState(state); (err == nil) != (format == other) {
				t.Errorf("%s with the state of %s: %v", format, other, err)
			}
		}
	}
	if _, err := ingest.New("qmail", maillog.Options{}); err == nil {
		t.Error("the format qmail is known")
	}
}

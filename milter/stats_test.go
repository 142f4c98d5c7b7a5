package milter_test

import (
	"io"
	"log/slog"
	"testing"

	"github.com/google/go-cmp/cmp"

	"postseal/milter"
)

func TestStats(t *testing.T) {
	s := &milter.Server{Rules: []milter.Rule{{Recipient: "b@example.net", Tag: "requiretls"}}}
	once(t, s, far, mail{})
	once(t, s, far, mail{from: "<sender@example.org> REQUIRETLS"})
	once(t, s, far, mail{header: []string{"TLS-Required: No"}})
	once(t, s, far, mail{from: "<>", header: []string{"TLS-Required: No"}})
	if diff := cmp.Diff(milter.Stats{Messages: 4, Required: 1, Relaxed: 1}, s.Stats()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}

	broken := &milter.Server{OnError: milter.Accept, Log: slog.New(panics{slog.NewTextHandler(io.Discard, nil)})}
	once(t, broken, far, mail{header: []string{"TLS-Required: No"}})
	if diff := cmp.Diff(milter.Stats{Messages: 1, Errors: 1}, broken.Stats()); diff != "" {
		t.Errorf("broken (-want +got):\n%s", diff)
	}
}

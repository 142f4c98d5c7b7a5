package daily_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"postseal/reporting"
	"postseal/reporting/daily"
)

const fortnight = 14 * 24 * time.Hour

// Report mails make sessions, which the next report would be about, for ever. Datagrams
// do not tell them from others (RFC 8460 §3).
func TestOwnMail(t *testing.T) {
	t.Run("RPT-077", func(t *testing.T) {
		bubble(t, func(b *bed) {
			b.Nameless = []reporting.Source{"datagram"}
			first := yesterday()
			for _, domain := range []string{"quiet.example", "busy.example", "elsewhere.example", "logged.example"} {
				b.records[domain] = "v=TLSRPTv1; rua=mailto:reports@" + domain
			}
			b.records["elsewhere.example"] = "v=TLSRPTv1; rua=mailto:reports@quiet.example"
			b.sessions(first, "quiet.example", 1, from("datagram"))
			for day := range reporting.Day(14) {
				b.sessions(first+day, "busy.example", 3, from("datagram"))
				b.sessions(first+day, "elsewhere.example", 1, from("datagram"))
				b.sessions(first+day, "logged.example", 1)
			}
			b.takes = func(_ context.Context, a arrival) error {
				_, domain, _ := strings.Cut(a.target, "@")
				b.sessions(reporting.DayOf(time.Now()), domain, 1, from("datagram"))
				return nil
			}
			b.run(fortnight)
			count := map[string]int{}
			for domain, at := range b.at() {
				count[domain] = len(at)
			}
			want := map[string]int{"quiet.example": 1, "busy.example": 14, "elsewhere.example": 14, "logged.example": 14}
			if diff := cmp.Diff(want, count); diff != "" {
				t.Errorf("reports in two weeks (-want +got)\n%s", diff)
			}
			if p := b.state(first+1, "quiet.example"); p.State != daily.OwnMail {
				t.Errorf("%+v", p)
			}
		})
	})
}

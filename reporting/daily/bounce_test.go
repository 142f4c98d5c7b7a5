package daily_test

import (
	"context"
	"testing"
	"time"

	"postseal/reporting"
	"postseal/reporting/daily"
	"postseal/reporting/tlsrpt"
)

// What the host MTA's log says of a report mail that bounced counts against its target.
func TestBounced(t *testing.T) {
	bubble(t, func(b *bed) {
		const target = "mailto:reports@a.example"
		first := yesterday()
		b.records["a.example"] = "v=TLSRPTv1; rua=" + target + ",mailto:reports@b.example"
		for day := range reporting.Day(3) {
			b.sessions(first+day, "a.example", 1)
		}
		for day := range reporting.Day(3) {
			b.run(23 * time.Hour)
			var report *tlsrpt.Report
			for _, a := range b.arrived {
				report = a.report
			}
			id := b.Mail.MessageID(report, "reports@a.example")
			b.Bounced(id, "somebody@else.example", "550 no such user", time.Now())                                    // forwarded
			b.Bounced("<tlsrpt.0123456789abcdef0123456789abcdef@sender.example>", "", "550 no such user", time.Now()) // none of ours
			b.Bounced(id, "Reports@A.example", "550 5.1.1 no such user", time.Now())
			b.Bounced(id, "", "550 5.1.1 no such user", time.Now()) // once more, after a crash
			p := b.state(first+day, "a.example")
			if p.State != daily.Sent || p.Targets[0].State != daily.Bounced || p.Targets[0].Reply != "550 5.1.1 no such user" || p.Targets[1].State != daily.Sent {
				t.Errorf("day %d: %+v", day, p)
			}
			list, err := b.Standings()
			if err != nil || len(list) != 1 || list[0].URI != target || list[0].BadDays != int(day)+1 {
				t.Errorf("day %d: %+v, %v", day, list, err)
			}
			if got := list[0].Suppressed(time.Now()); got != (day == 2) {
				t.Errorf("day %d: suppressed: %v", day, got)
			}
			time.Sleep(time.Hour)
		}
	})
}

// A bounce may be in the log before the attempt at another target has ended.
func TestBouncedMeanwhile(t *testing.T) {
	bubble(t, func(b *bed) {
		day := yesterday()
		b.askingAt(day, func(string) string { return "mailto:reports@a.example,https://slow.example/" }, "a.example")
		b.takes = func(ctx context.Context, a arrival) error {
			if a.target != "https://slow.example/" {
				return nil
			}
			time.Sleep(10 * time.Second)
			b.Bounced(b.Mail.MessageID(a.report, "reports@a.example"), "reports@a.example", "550 5.1.1 no such user", time.Now())
			return temporary("503")
		}
		b.run(b.dues(day)["a.example"].Add(time.Minute).Sub(midnight()))
		if p := b.state(day, "a.example"); p.State != daily.Waiting || p.Targets[0].State != daily.Bounced || p.Delivered() {
			t.Errorf("%+v", p)
		}
		b.run(30 * time.Hour)
		if p := b.state(day, "a.example"); p.State != daily.GivenUp || len(b.arrived) != 1 {
			t.Errorf("%+v, %d reports", p, len(b.arrived))
		}
	})
}

// Bounces with good days between them are no row.
func TestBouncedNowAndThen(t *testing.T) {
	bubble(t, func(b *bed) {
		first := yesterday()
		b.records["a.example"] = "v=TLSRPTv1; rua=mailto:reports@a.example"
		for day := range reporting.Day(9) {
			b.sessions(first+day, "a.example", 1)
		}
		for day := range reporting.Day(9) {
			b.run(23 * time.Hour)
			if day%2 == 0 {
				b.Bounced(b.Mail.MessageID(b.arrived[len(b.arrived)-1].report, "reports@a.example"), "", "552 5.2.2 mailbox full", time.Now())
			}
			time.Sleep(time.Hour)
		}
		if len(b.arrived) != 9 {
			t.Errorf("%d reports on 9 days", len(b.arrived))
		}
	})
}

package daily_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"postseal/reporting"
	"postseal/reporting/daily"
	"postseal/reporting/store"
)

const oneDay = 24 * time.Hour

// daysOf counts sessions of a domain on each of many days.
func (b *bed) daysOf(domain, rua string, days int) {
	b.Helper()
	b.records[domain] = "v=TLSRPTv1; rua=" + rua
	batch := reporting.Batch{Counts: map[reporting.Day]map[reporting.Key]uint64{}, Policies: map[reporting.PolicyID]reporting.Policy{}}
	for i := range reporting.Day(days) {
		batch.Counts[yesterday()+i] = map[reporting.Key]uint64{}
		addSessions(batch, yesterday()+i, domain, 1)
	}
	b.write(batch)
}

// A target that refuses three days in a row rests for 30, and is tried again then.
func TestSuppression(t *testing.T) {
	bubble(t, func(b *bed) {
		first := yesterday()
		b.daysOf("a.example", "https://a.example/", 40)
		var tried []reporting.Day
		b.takes = func(_ context.Context, a arrival) error {
			tried = append(tried, reporting.DayOf(a.report.Start)-first)
			return refused("410 Gone")
		}
		b.run(40 * oneDay)
		if diff := cmp.Diff([]reporting.Day{0, 1, 2, 32, 33, 34}, tried, cmp.Comparer(near)); diff != "" {
			t.Errorf("tried on days (-want +got)\n%s", diff)
		}
		if p := b.state(first+5, "a.example"); p.State != daily.Suppressed || p.Targets[0].Tries != 0 || !strings.Contains(p.Targets[0].Reply, "410 Gone") {
			t.Errorf("%+v", p)
		}
		if n := strings.Count(b.log.String(), "no reports for now"); n != 2 {
			t.Errorf("told %d times", n)
		}
	})
}

// near: when exactly a rest ends depends on the moments within the days.
func near(a, b reporting.Day) bool { return a-b <= 1 && b-a <= 1 }

// Success in between begins anew.
func TestSuccessInBetween(t *testing.T) {
	bubble(t, func(b *bed) {
		b.daysOf("a.example", "https://a.example/", 8)
		n := 0
		b.takes = func(context.Context, arrival) error {
			if n++; n%3 == 0 {
				return nil
			}
			return refused("410 Gone")
		}
		b.run(9 * oneDay)
		if n != 8 || len(b.arrived) != 2 {
			t.Errorf("tried %d times, %d arrived", n, len(b.arrived))
		}
	})
}

func (b *bed) standing(uri string) daily.Standing {
	b.Helper()
	list, err := b.Standings()
	if err != nil {
		b.Fatal(err)
	}
	i := slices.IndexFunc(list, func(s daily.Standing) bool { return s.URI == uri })
	if i < 0 {
		return daily.Standing{}
	}
	return list[i]
}

// Bounces come late, twice, and in any order.
func TestBounces(t *testing.T) {
	bubble(t, func(b *bed) {
		const uri = "mailto:full@a.example"
		now := time.Now()
		for _, at := range []time.Time{now, now.Add(time.Hour), now.Add(oneDay), now, now.Add(oneDay)} {
			b.Bad(uri, "552 5.2.2 mailbox full", at)
		}
		if s := b.standing(uri); s.BadDays != 2 || s.Suppressed(now.Add(oneDay)) {
			t.Errorf("%+v", s)
		}
		b.Bad(uri, "552 5.2.2 mailbox full", now.Add(2*oneDay))
		if s := b.standing(uri); s.BadDays != 3 || !s.Suppressed(now.Add(31*oneDay)) || s.Suppressed(now.Add(32*oneDay)) {
			t.Errorf("%+v", s)
		}
		b.Bad(uri, "552 5.2.2 mailbox full", now.Add(2*oneDay)) // does not make the rest longer
		if s := b.standing(uri); s.Suppressed(now.Add(32 * oneDay)) {
			t.Errorf("%+v", s)
		}
		b.Bad("mailto:x@b.example", "gone", now)
		b.Bad("mailto:x@b.example", "gone", now.Add(5*oneDay)) // not in a row
		if s := b.standing("mailto:x@b.example"); s.BadDays != 1 {
			t.Errorf("%+v", s)
		}
		b.Good(uri)
		if s := b.standing(uri); s.URI != "" {
			t.Errorf("%+v", s)
		}
	})
}

// What makes no difference any more is forgotten, so that strangers cannot fill the disk.
func TestStandingsForgotten(t *testing.T) {
	bubble(t, func(b *bed) {
		for _, domain := range names(5) {
			b.Bad("mailto:x@"+domain, "gone", time.Now())
		}
		kept, err := daily.ParseTarget("mailto:kept@a.example")
		if err != nil {
			t.Fatal(err)
		}
		if err := b.Suppress(kept, time.Now().Add(20*oneDay), "asked us to"); err != nil {
			t.Fatal(err)
		}
		b.run(10 * oneDay)
		list, err := b.Standings()
		if err != nil || len(list) != 1 || list[0].URI != kept.URI {
			t.Errorf("%+v %v", list, err)
		}
	})
}

// The operator's word counts until the operator takes it back.
func TestOperator(t *testing.T) {
	bubble(t, func(b *bed) {
		target, err := daily.ParseTarget("https://a.example/")
		if err != nil {
			t.Fatal(err)
		}
		first := yesterday()
		b.daysOf("a.example", target.URI, 6)
		if err := b.Suppress(target, time.Now().Add(365*oneDay), "asked us to"); err != nil {
			t.Fatal(err)
		}
		b.run(2 * oneDay)
		b.Bad(target.URI, "a bounce that comes late", time.Now())
		if s := b.standing(target.URI); s.Reason != "asked us to" || s.BadDays != 1 {
			t.Errorf("%+v", s)
		}
		b.Good(target.URI)
		if s := b.standing(target.URI); s.Reason != "asked us to" || s.BadDays != 0 {
			t.Errorf("%+v", s)
		}
		b.run(oneDay)
		if p := b.state(first+2, "a.example"); p.State != daily.Suppressed || len(b.arrived) > 0 {
			t.Errorf("%+v, %d reports", p, len(b.arrived))
		}
		if was, err := b.Restore(target); !was || err != nil {
			t.Errorf("%v %v", was, err)
		}
		if was, err := b.Restore(target); was || err != nil {
			t.Errorf("the second time: %v %v", was, err)
		}
		b.run(oneDay)
		if len(b.arrived) != 1 {
			t.Errorf("%d reports", len(b.arrived))
		}
	})
}

// What is left of the operator's word when its time is over does not outlast a success.
func TestOperatorOver(t *testing.T) {
	bubble(t, func(b *bed) {
		target, err := daily.ParseTarget("https://a.example/")
		if err != nil {
			t.Fatal(err)
		}
		if err := b.Suppress(target, time.Now().Add(oneDay), "moving house"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * oneDay)
		b.Bad(target.URI, "410 Gone", time.Now())
		if s := b.standing(target.URI); s.Reason != "410 Gone" || s.BadDays != 1 {
			t.Errorf("%+v", s)
		}
		b.Good(target.URI)
		if s := b.standing(target.URI); s.URI != "" {
			t.Errorf("%+v", s)
		}
	})
}

// The operator may send a report now, and again.
func TestSend(t *testing.T) {
	bubble(t, func(b *bed) {
		day, of := yesterday(), store.Subject{Name: "a.example"}
		b.asking(day, "a.example")
		if _, err := b.Send(b.Context(), day, of, false); err == nil || len(b.arrived) > 0 {
			t.Error("sent before the day was closed")
		}
		time.Sleep(11 * time.Minute)
		if p, err := b.Send(b.Context(), day, of, false); err != nil || p.State != daily.Sent {
			t.Errorf("%+v %v", p, err)
		}
		b.run(5 * time.Hour)
		if len(b.arrived) != 1 {
			t.Errorf("%d reports", len(b.arrived))
		}
		_, err := b.Send(b.Context(), day, of, false)
		if done, ok := errors.AsType[*daily.DoneError](err); !ok || done.Progress.State != daily.Sent {
			t.Errorf("%v", err)
		}
		if p, err := b.Send(b.Context(), day, of, true); err != nil || p.State != daily.Sent || len(b.arrived) != 2 || b.arrived[0].id != b.arrived[1].id {
			t.Errorf("%+v %v, %d reports", p, err, len(b.arrived))
		}
		b.takes = func(context.Context, arrival) error { return temporary("450") }
		if p, err := b.Send(b.Context(), day, of, true); err != nil || p.State != daily.Waiting {
			t.Errorf("%+v %v", p, err)
		}
		b.takes = nil
		b.run(time.Hour) // goes on with it, although the day was done with
		if len(b.arrived) != 3 || b.Stats().Waiting != 0 {
			t.Errorf("%d reports, %+v", len(b.arrived), b.Stats())
		}
	})
}

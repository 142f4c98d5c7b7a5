package daemon

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"postseal/cache/boltdb"
	"postseal/reporting"
	"postseal/reporting/store"
)

func TestKeepDays(t *testing.T) {
	db, err := boltdb.Open(filepath.Join(t.TempDir(), "sessions.db"), boltdb.Options{Schema: sessionsSchema, Buckets: store.Buckets})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	s := &store.Store{DB: db}
	now := time.Date(2026, 11, 28, 0, 0, 1, 0, time.UTC)
	today := reporting.DayOf(now)
	counts := map[reporting.Day]map[reporting.Key]uint64{}
	for _, d := range []reporting.Day{0, today - 11, today - 10, today, today + 1} {
		counts[d] = map[reporting.Key]uint64{{Domain: "example.org"}: 1}
	}
	if err := s.Write(reporting.Batch{Counts: counts}); err != nil {
		t.Fatal(err)
	}
	k := &keeper{store: s, days: 10}
	all := []reporting.Day{0, today - 11, today - 10, today, today + 1}
	for _, look := range []struct {
		ahead time.Duration
		want  []reporting.Day
	}{
		{365 * 24 * time.Hour, all}, // the clock is not right yet
		{0, all[2:]},
		{365 * 24 * time.Hour, all[2:]},
		{time.Hour, all[2:]},
		{24 * time.Hour, all[2:]},
		{24*time.Hour + forgetEvery, all[3:]},
	} {
		if err := k.forget(now.Add(look.ahead)); err != nil {
			t.Fatal(err)
		}
		days, err := s.Days()
		if diff := cmp.Diff(look.want, days); err != nil || diff != "" {
			t.Errorf("%v ahead: %v (-want +got):\n%s", look.ahead, err, diff)
		}
	}
}

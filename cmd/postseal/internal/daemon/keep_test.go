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
	if err := (&keeper{s, 10}).forget(now); err != nil {
		t.Fatal(err)
	}
	days, err := s.Days()
	if diff := cmp.Diff([]reporting.Day{today - 10, today, today + 1}, days); err != nil || diff != "" {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
}

package daemon

import (
	"context"
	"time"

	"postseal/reporting"
	"postseal/reporting/store"
)

// forgetEvery is how often days are looked through that are old.
const forgetEvery = time.Hour

// keeper drops the days that are older than reporting.keep_days.
type keeper struct {
	store *store.Store
	days  int
}

// Run drops days until ctx ends.
func (k *keeper) Run(ctx context.Context) error {
	tick := time.NewTicker(forgetEvery)
	defer tick.Stop()
	for {
		if err := k.forget(time.Now()); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

func (k *keeper) forget(now time.Time) error {
	days, err := k.store.Days()
	if err != nil {
		return err
	}
	for _, d := range days {
		if d >= reporting.DayOf(now)-reporting.Day(k.days) {
			return nil
		}
		if err := k.store.Drop(d); err != nil {
			return err
		}
	}
	return nil
}

package daemon

import (
	"context"
	"time"

	"postseal/reporting"
	"postseal/reporting/store"
)

// forgetEvery is how often days are looked through that are old.
const forgetEvery = time.Hour

// keeper drops the days that are older than reporting.keep_days. What is too old must be
// so at two looks: a clock that is ahead for a moment must not cost all days, whose
// reports may not have been sent.
type keeper struct {
	store *store.Store
	days  int

	looked bool
	oldest reporting.Day // to keep, at the last look
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
	oldest := reporting.DayOf(now) - reporting.Day(k.days)
	keep := min(oldest, k.oldest)
	if !k.looked {
		keep = 0
	}
	k.looked, k.oldest = true, oldest
	days, err := k.store.Days()
	if err != nil {
		return err
	}
	for _, d := range days {
		if d >= keep {
			return nil
		}
		if err := k.store.Drop(d); err != nil {
			return err
		}
	}
	return nil
}

package daily

import (
	"context"

	"postseal/reporting"
)

// Decode reads a stored state.
func Decode(state []byte) Progress { return decode(state) }

// Plan looks through a day's reports.
func (r *Reporter) Plan(ctx context.Context, day reporting.Day) error {
	r.init()
	return r.plan(ctx, r.now(), []reporting.Day{day})
}

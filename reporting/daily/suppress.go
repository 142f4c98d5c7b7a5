package daily

import (
	"encoding/json"
	"time"

	"postseal/reporting"
)

const (
	// badDays in a row make a target suppressed, for restFor: mailboxes that are gone stay
	// gone, and full ones are emptied one day.
	badDays = 3
	restFor = 30 * 24 * time.Hour
	// rowGap is the most days between two bad ones of a row: not every day has a report.
	rowGap = 3
)

// Standing is what is remembered of a target that failed.
type Standing struct {
	URI      string    `json:"uri"`
	BadDays  int       `json:"bad_days,omitempty"` // in a row
	Last     time.Time `json:"last,omitzero"`
	Accepted time.Time `json:"accepted,omitzero"` // when the host MTA last took a report for it
	Reason   string    `json:"reason,omitempty"`
	Until    time.Time `json:"until,omitzero"` // suppressed until then; zero: not suppressed
	Operator bool      `json:"operator,omitempty"`
}

// Suppressed reports whether nothing is to be sent to the target. A rest that is longer
// than it can be was begun while the clock was ahead.
func (s *Standing) Suppressed(now time.Time) bool {
	return now.Before(s.Until) && (s.Operator || s.Until.Sub(now) <= restFor)
}

// idle reports whether a standing makes no difference any more.
func (s *Standing) idle(now time.Time) bool {
	gap := reporting.DayOf(now) - reporting.DayOf(s.Last)
	return !s.Suppressed(now) && (gap > rowGap || gap < -rowGap)
}

// Bad tells that a target refused a report, let it bounce, or did not take it for a
// whole day. May be told twice.
func (r *Reporter) Bad(uri, reason string, at time.Time) {
	r.init()
	day := reporting.DayOf(at)
	err := r.edit(uri, func(s *Standing) bool {
		last := reporting.DayOf(s.Last)
		switch {
		case s.Last.IsZero() || day-last > rowGap || last-day > rowGap: // or the clock was ahead
			s.BadDays, s.Last = 1, time.Time{}
		case day > last:
			s.BadDays++
		}
		if at.After(s.Last) {
			s.Last = at
			if !s.Operator || !s.Suppressed(at) { // whose word is not to be lost
				s.Reason = reason
			}
		}
		if s.BadDays >= badDays && !s.Suppressed(at) {
			s.Until, s.Operator = at.Add(restFor), false
			r.Log.Warn("no reports for now to a target that has failed for days", "target", uri, "days", s.BadDays, "until", s.Until.Format(time.DateOnly), "reason", reason)
		}
		return true
	})
	if err != nil {
		r.Log.Error("that a target failed cannot be written", "target", uri, "error", err)
	}
}

// accepted notes that the host MTA took a report for a target that something speaks
// against. Whether it arrives will be seen: a day with one and without a bounce ends a
// row.
func (r *Reporter) accepted(uri string, at time.Time) {
	if state, err := r.Store.Target(uri); err == nil && state == nil {
		return // the usual case, without writing
	}
	if err := r.edit(uri, func(s *Standing) bool {
		if before := reporting.DayOf(s.Accepted); before > reporting.DayOf(s.Last) && before < reporting.DayOf(at) {
			s.BadDays = 0
		}
		s.Accepted = at
		return s.BadDays > 0 || s.Operator || s.Suppressed(at)
	}); err != nil {
		r.Log.Error("that a report was taken for a target that had failed cannot be written", "target", uri, "error", err)
	}
}

// Good tells that a report has arrived at a target for certain.
func (r *Reporter) Good(uri string) {
	r.init()
	if state, err := r.Store.Target(uri); err == nil && state == nil {
		return // the usual case, without writing
	}
	now := r.now()
	err := r.edit(uri, func(s *Standing) bool {
		s.BadDays, s.Last = 0, time.Time{}
		return s.Operator && s.Suppressed(now)
	})
	if err != nil {
		r.Log.Error("that a target works again cannot be written", "target", uri, "error", err)
	}
}

// Suppress sends nothing to a target until then, by the operator's word.
func (r *Reporter) Suppress(t Target, until time.Time, reason string) error {
	r.init()
	return r.edit(t.URI, func(s *Standing) bool {
		s.Until, s.Reason, s.Operator = until, reason, true
		return true
	})
}

// Restore forgets what speaks against a target, and reports whether anything did.
func (r *Reporter) Restore(t Target) (was bool, err error) {
	r.init()
	err = r.Store.EditTarget(t.URI, func(state []byte) []byte {
		was = state != nil
		return nil
	})
	return was, err
}

// Standings are those of all targets that something speaks against.
func (r *Reporter) Standings() (list []Standing, err error) {
	err = r.Store.EachTarget(func(uri string, state []byte) bool {
		s := decodeStanding(state)
		s.URI = uri
		list = append(list, s)
		return true
	})
	return list, err
}

// prune forgets once a day what makes no difference: strangers name ever new targets.
func (r *Reporter) prune(now time.Time) error {
	today := reporting.DayOf(now)
	r.mu.Lock()
	done := r.pruned == today
	r.pruned = today
	r.mu.Unlock()
	if done {
		return nil
	}
	return r.Store.ForgetTargets(func(state []byte) bool {
		s := decodeStanding(state)
		return s.idle(now)
	})
}

// standing is that of one target.
func (r *Reporter) standing(uri string) (Standing, error) {
	state, err := r.Store.Target(uri)
	s := decodeStanding(state)
	s.URI = uri
	return s, err
}

// edit changes what is remembered; f returns whether anything is to be.
func (r *Reporter) edit(uri string, f func(*Standing) (keep bool)) error {
	return r.Store.EditTarget(uri, func(state []byte) []byte {
		s := decodeStanding(state)
		if !f(&s) {
			return nil
		}
		s.URI = "" // is the key
		b, err := json.Marshal(s)
		if err != nil { // of strings and numbers, there is none
			return state
		}
		return b
	})
}

func decodeStanding(state []byte) (s Standing) {
	if json.Unmarshal(state, &s) != nil {
		return Standing{}
	}
	return s
}

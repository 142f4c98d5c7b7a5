package policy

import (
	"encoding/json"
	"fmt"
	"sync/atomic"
	"time"

	"postseal/policy/dane"
	"postseal/policy/mtasts"
)

// memo is all that is remembered of one destination. A published memo is
// never changed, except for the time of its last use.
type memo struct {
	key      string
	sts      stsState // of plain domains only; other destinations use their domain's
	dane     daneState
	answered []Answered
	used     atomic.Int64 // Unix seconds

	decision *Decision // not stored; nil after a restart
}

// daneState is the last outcome of the lookups for DANE.
type daneState struct {
	known    bool
	class    dane.Class
	mxSecure bool
	reason   string
	at       time.Time // when that was learnt; zero after a restart
	until    time.Time

	proven   dane.Class // last class that was not broken
	provenAt time.Time
	used     time.Time // last time secure TLSA records were seen

	plan *dane.Plan // not stored
}

// with returns a copy for change.
func (m *memo) with() *memo {
	c := &memo{key: m.key, sts: m.sts, dane: m.dane, answered: m.answered, decision: m.decision}
	c.used.Store(m.used.Load())
	return c
}

// usedGranularity keeps the time of last use from being written at each lookup.
const usedGranularity = 60 // seconds

// touch notes a use, cheaply.
func (m *memo) touch(now time.Time) {
	if s := now.Unix(); s-m.used.Load() >= usedGranularity {
		m.used.Store(s)
	}
}

func (m *memo) lastUsed() time.Time { return time.Unix(m.used.Load(), 0) }

// The stored form: JSON with short names, times in Unix seconds, one record a
// destination. A field may be added; a change of meaning is a new schema.
type storedMemo struct {
	STS      *storedSTS       `json:"s,omitempty"`
	DANE     *storedDANE      `json:"d,omitempty"`
	Answered []storedAnswered `json:"a,omitempty"`
	Used     int64            `json:"u"`
}

type storedSTS struct {
	Record      string `json:"r,omitempty"`
	RecordWhy   string `json:"rw,omitempty"`
	RecordUntil int64  `json:"ru,omitempty"`
	Text        string `json:"t,omitempty"`
	ID          string `json:"i,omitempty"`
	Fetched     int64  `json:"f,omitempty"`
	Refresh     int64  `json:"n,omitempty"`
	FailedID    string `json:"xi,omitempty"`
	Failed      int64  `json:"xf,omitempty"`
	Failures    int    `json:"xn,omitempty"`
	Failure     string `json:"x,omitempty"`
}

type storedDANE struct {
	Class    dane.Class `json:"c,omitempty"`
	MXSecure bool       `json:"m,omitempty"`
	Reason   string     `json:"r,omitempty"`
	Until    int64      `json:"t"`
	Proven   dane.Class `json:"p,omitempty"`
	ProvenAt int64      `json:"pt,omitempty"`
	Used     int64      `json:"u,omitempty"`
}

type storedAnswered struct {
	Start   int64    `json:"s"`
	Type    string   `json:"t,omitempty"`
	Strings []string `json:"p,omitempty"` // absent for STS when Text is
	Text    string   `json:"x,omitempty"` // an STS policy that is not the current one
}

func unix(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.Unix()
}

func fromUnix(s int64) time.Time {
	if s == 0 {
		return time.Time{}
	}
	return time.Unix(s, 0)
}

func appendMemo(dst []byte, m *memo) []byte {
	st := storedMemo{Used: m.used.Load()}
	if s := &m.sts; !s.recordUntil.IsZero() {
		st.STS = &storedSTS{Record: s.record, RecordWhy: s.recordWhy, RecordUntil: unix(s.recordUntil),
			ID: s.id, Fetched: unix(s.fetched), Refresh: unix(s.refresh),
			FailedID: s.failedID, Failed: unix(s.failed), Failures: s.failures, Failure: s.failure}
		if s.policy != nil {
			st.STS.Text = s.policy.Text
		}
	}
	if d := &m.dane; d.known {
		st.DANE = &storedDANE{Class: d.class, MXSecure: d.mxSecure, Reason: d.reason, Until: unix(d.until),
			Proven: d.proven, ProvenAt: unix(d.provenAt), Used: unix(d.used)}
	}
	for _, a := range m.answered {
		sa := storedAnswered{Start: unix(a.Start), Type: a.Type, Strings: a.tlsa}
		if a.sts != nil && (m.sts.policy == nil || a.sts.Text != m.sts.policy.Text) {
			sa.Text = a.sts.Text
		}
		st.Answered = append(st.Answered, sa)
	}
	b, err := json.Marshal(st)
	if err != nil { // strings and numbers only: cannot happen
		panic(err)
	}
	return append(dst, b...)
}

func decodeMemo(key string, data []byte) (*memo, error) {
	var st storedMemo
	if err := json.Unmarshal(data, &st); err != nil {
		return nil, fmt.Errorf("stored state of %s: %w", key, err)
	}
	m := &memo{key: key}
	m.used.Store(st.Used)
	if s := st.STS; s != nil {
		m.sts = stsState{record: s.Record, recordWhy: s.RecordWhy, recordUntil: fromUnix(s.RecordUntil),
			id: s.ID, fetched: fromUnix(s.Fetched), refresh: fromUnix(s.Refresh),
			failedID: s.FailedID, failed: fromUnix(s.Failed), failures: s.Failures, failure: s.Failure}
		if s.Text != "" {
			p, _, err := mtasts.ParsePolicy(s.Text)
			if err != nil {
				return nil, fmt.Errorf("stored policy of %s: %w", key, err)
			}
			m.sts.policy = p
		}
	}
	if d := st.DANE; d != nil {
		m.dane = daneState{known: true, class: d.Class, mxSecure: d.MXSecure, reason: d.Reason, until: fromUnix(d.Until),
			proven: d.Proven, provenAt: fromUnix(d.ProvenAt), used: fromUnix(d.Used)}
	}
	for _, a := range st.Answered {
		m.answered = append(m.answered, a.restore(m.sts.policy))
	}
	return m, nil
}

func (a storedAnswered) restore(current *mtasts.Policy) Answered {
	r := Answered{Start: fromUnix(a.Start), Type: a.Type, tlsa: a.Strings}
	switch {
	case a.Text != "":
		if p, _, err := mtasts.ParsePolicy(a.Text); err == nil {
			r.sts = p
		}
	case a.Type == TypeSTS:
		r.sts = current
	}
	return r
}

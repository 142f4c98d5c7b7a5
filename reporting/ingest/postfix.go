package ingest

import "postseal/reporting"

// postfix reads the log of Postfix 3.4 to 3.12.
type postfix struct {
	o     Options
	clock clock
	stats Stats
}

func newPostfix(o Options) *postfix {
	return &postfix{o: o, clock: clock{location: o.Location, now: o.Now}}
}

func (p *postfix) Line(line []byte, emit func(reporting.Session)) {}

func (p *postfix) Flush(emit func(reporting.Session)) {}

func (p *postfix) Stats() Stats { return p.stats }

func (p *postfix) AppendState(dst []byte) []byte { return dst }

func (p *postfix) RestoreState(state []byte) error { return nil }

package policy

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"postseal/policy/dnssec"
)

// Trail is a decision with every step that led to it.
type Trail struct {
	Decision *Decision
	Steps    []Step // in the order of their ends
	Made     time.Time
	Cached   bool // made for an earlier question
}

// Step is one thing that was asked or concluded.
type Step struct {
	At    time.Duration // its end, since the start
	Took  time.Duration
	Topic string // "dns", "sts" or "dane"
	Text  string // one line, printable
}

// maxSteps bounds a trail: a domain may have many hosts, a person few screens.
const maxSteps = 200

func (f *flight) note(topic, format string, args ...any) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.stepLocked(topic, 0, fmt.Sprintf(format, args...))
}

func (f *flight) stepLocked(topic string, took time.Duration, text string) {
	if len(f.steps) < maxSteps {
		f.steps = append(f.steps, Step{At: f.e.now().Sub(f.start), Took: took, Topic: topic, Text: text})
	}
}

// exchange notes one DNS lookup.
func (f *flight) exchange(x dnssec.Exchange) {
	text := fmt.Sprintf("%-5s %s: ", x.Type, x.Name)
	switch {
	case x.Err != nil:
		text += x.Err.Error()
	case x.Status == dnssec.Found:
		for i, r := range x.Records {
			if i > 0 {
				text += ", "
			}
			text += short(r, x.Name)
		}
	default:
		text += x.Status.String()
	}
	if x.Err == nil {
		secure := "insecure"
		if x.Secure {
			secure = "secure"
		}
		text += fmt.Sprintf(" (%s, ttl %s)", secure, x.TTL)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.stepLocked("dns", x.Took, text)
}

// short leaves away what a record in presentation form repeats of the question.
func short(record, name string) string {
	fields := strings.SplitN(record, " ", 5) // owner, TTL, class, type, data
	if len(fields) < 5 || !strings.EqualFold(strings.TrimSuffix(fields[0], "."), name) || fields[3] == "CNAME" {
		return record
	}
	return fields[4]
}

// Explain returns how the decision for dest came about: of the remembered one
// or, if that is unknown or fresh is set, of one made now, for which everything
// is asked again and the policy fetched. It waits until ctx ends.
func (e *Engine) Explain(ctx context.Context, dest Destination, fresh bool) *Trail {
	key := dest.String()
	e.memos()
	if d := e.ruled(dest, e.now()); d != nil {
		return &Trail{Decision: d, Made: d.Made}
	}
	if t, ok := e.trails.Get(key); ok && !fresh && t.Decision.Fresh(e.now()) && t.Decision.generation == e.generation.Load() {
		c := *t
		c.Cached = true
		return &c
	}
	how := recheck
	if fresh {
		how = refetch
	}
	f := e.join(key, dest, how)
	if f == nil {
		d := e.busy(dest, e.now())
		return &Trail{Decision: d, Made: d.Made}
	}
	d := f.wait(ctx)
	if d.Level == LevelDANEOnly {
		f.settle(ctx) // explain shows MTA-STS too, though it did not decide
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.final != nil {
		d = f.final
	}
	return &Trail{Decision: d, Steps: slices.Clone(f.steps), Made: d.Made}
}

// settle waits for the end of the flight, or of ctx.
func (f *flight) settle(ctx context.Context) {
	for {
		f.mu.Lock()
		done, moved := f.final != nil, f.moved
		f.mu.Unlock()
		if done {
			return
		}
		select {
		case <-moved:
		case <-ctx.Done():
			return
		}
	}
}

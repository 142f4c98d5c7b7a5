package policy

import (
	"cmp"
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
	Summary  Summary // what is remembered of the destination
	Steps    []Step  // in the order of their ends
	Made     time.Time
	Cached   bool // made for an earlier question

	start   time.Time
	partial bool // some steps were made so long ago that they are lost
}

// Step is one thing that was asked or concluded.
type Step struct {
	At    time.Duration // its end, since the start; negative for what was found for an earlier question
	Took  time.Duration
	Topic string // "dns", "sts" or "dane"
	Text  string // one line, printable

	part string // "sts" or "dane": whose lookups it belongs to
	kept bool   // tells only that something is remembered
}

// maxSteps bounds a trail: a domain may have many hosts, a person few screens.
const maxSteps = 200

// note adds a step of DANE or MTA-STS, by its topic.
func (f *flight) note(topic, format string, args ...any) {
	f.step(Step{Topic: topic, Text: fmt.Sprintf(format, args...), part: topic})
}

func (f *flight) step(s Step) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.stepLocked(s)
}

func (f *flight) stepLocked(s Step) {
	if len(f.steps) < maxSteps {
		s.At = f.e.now().Sub(f.start)
		f.steps = append(f.steps, s)
	}
}

// kept says that a part needed no lookup; its earlier steps count.
func (f *flight) kept(part, format string, args ...any) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.stepLocked(Step{Topic: part, Text: fmt.Sprintf(format, args...), part: part, kept: true})
	f.keptParts = append(f.keptParts, part)
}

// trailLocked puts the steps of this flight behind those of earlier ones that
// its parts rest on.
func (f *flight) trailLocked(d *Decision) *Trail {
	t := &Trail{Decision: d, Made: d.Made, start: f.start}
	before, ok := f.e.trails.Peek(f.key)
	t.partial = len(f.keptParts) > 0 && (!ok || before.partial)
	for _, s := range f.steps {
		if t.partial || !slices.Contains(f.keptParts, s.part) {
			t.Steps = append(t.Steps, s)
		}
	}
	if t.partial {
		return t
	}
	for _, part := range f.keptParts {
		for _, s := range before.Steps {
			if s.part == part && !s.kept {
				s.At -= f.start.Sub(before.start)
				t.Steps = append(t.Steps, s)
			}
		}
	}
	slices.SortStableFunc(t.Steps, func(a, b Step) int { return cmp.Compare(a.At, b.At) })
	return t
}

// traced returns a context whose DNS lookups are noted as steps of a part.
func (f *flight) traced(ctx context.Context, part string) context.Context {
	return dnssec.WithTrace(ctx, func(x dnssec.Exchange) {
		f.step(Step{Took: x.Took, Topic: "dns", Text: exchange(x), part: part})
	})
}

// exchange is one DNS lookup in words.
func exchange(x dnssec.Exchange) string {
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
	return text
}

// short leaves away what a record in presentation form repeats of the question.
func short(record, name string) string {
	fields := strings.SplitN(record, " ", 5) // owner, TTL, class, type, data
	if len(fields) < 5 || !strings.EqualFold(strings.TrimSuffix(fields[0], "."), name) || fields[3] == "CNAME" {
		return record
	}
	return fields[4]
}

// Explain returns how the decision for dest came about: the remembered one or,
// if its steps are not, one made now; with fresh everything is asked again and
// the policy fetched. It waits until ctx ends.
func (e *Engine) Explain(ctx context.Context, dest Destination, fresh bool) *Trail {
	key := dest.String()
	e.memos()
	if d := e.ruled(dest, e.now()); d != nil {
		return e.trail(&Trail{Decision: d, Made: d.Made})
	}
	if t, ok := e.trails.Get(key); ok && !fresh && !t.partial && e.usable(t.Decision, e.now()) {
		c := *t
		c.Cached = true
		return e.trail(&c)
	}
	how := recheck
	if fresh {
		how = refetch
	}
	f, err := e.join(key, dest, how)
	if err != nil {
		d := e.busy(key, dest, err)
		return e.trail(&Trail{Decision: d, Made: d.Made})
	}
	d := f.wait(ctx)
	f.settle(ctx) // MTA-STS is shown too where it did not decide
	f.mu.Lock()
	if f.final != nil {
		d = f.final
	}
	t := f.trailLocked(d)
	f.mu.Unlock()
	return e.trail(t)
}

// trail adds what is remembered of the destination.
func (e *Engine) trail(t *Trail) *Trail {
	t.Summary.Key = t.Decision.Destination.String()
	m, ok := e.memos().Get(t.Summary.Key)
	if !ok {
		return t
	}
	t.Summary = m.summary(e.now())
	if d := t.Decision.Destination; !d.plain() { // the policy is its domain's
		if m, ok := e.memos().Get(d.Domain); ok {
			t.Summary.setSTS(m, e.now())
		}
	}
	return t
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

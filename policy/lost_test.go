package policy

import (
	"context"
	"fmt"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"postseal/cache/boltdb"
	"postseal/policy/dane"
	"postseal/policy/dnssec"
	"postseal/policy/mtasts"
)

// lossless is an engine that looks nothing up, with room for size destinations in
// memory.
func lossless(t *testing.T, db *boltdb.DB, size int) *Engine {
	t.Helper()
	if db == nil {
		var err error
		if db, err = boltdb.Open(filepath.Join(t.TempDir(), "policies.db"), boltdb.Options{Schema: 1, Buckets: []string{Bucket}}); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { db.Close() })
	}
	e := &Engine{DNS: &dnssec.Client{TrustAD: dnssec.TrustNever}, DB: db, CacheSize: size}
	e.memos()
	return e
}

// enforces gives a domain a policy in mode enforce.
func (e *Engine) enforces(t *testing.T, domain string) {
	p, _, err := mtasts.ParsePolicy("version: STSv1\nmode: enforce\nmx: mx." + domain + "\nmax_age: 86400\n")
	if err != nil {
		t.Error(err)
	}
	now := time.Now()
	e.publish(domain, 0, func(m *memo) bool {
		m.sts = stsState{record: "1", id: "1", policy: p, fetched: now, recordUntil: now.Add(time.Hour)}
		return true
	})
}

func (e *Engine) flush(t *testing.T) {
	t.Helper()
	if err := e.memory.Flush(context.Background()); err != nil {
		t.Fatal(err)
	}
}

// TestNoPolicyIsLost: however small the memory, and however many publish side by
// side, a change of a memo is a change of what is on disk.
func TestNoPolicyIsLost(t *testing.T) {
	const domains = 400
	name := func(i int) string { return fmt.Sprintf("d%d.test", i) }
	first := lossless(t, nil, 0)
	for i := range domains {
		first.enforces(t, name(i))
	}
	first.flush(t)
	e := lossless(t, first.DB, 50) // after a restart
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error)
	go func() { ended <- e.Run(ctx) }()
	var g sync.WaitGroup
	for worker := range 50 {
		g.Go(func() {
			for i := worker; i < domains; i += 50 {
				e.Decide(context.Background(), Destination{Domain: name(i), Port: 25})
				e.enforces(t, fmt.Sprintf("w%d.d%d.test", worker, i))
				e.publish(name(i), 0, func(m *memo) bool {
					m.touch(time.Now())
					return true
				})
			}
		})
	}
	g.Wait()
	cancel()
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	for i := range domains {
		if m, ok := e.memory.Get(name(i)); !ok || m.sts.policy == nil {
			t.Errorf("the policy of %s is lost", name(i))
		}
	}
}

// over is a flight for example.test that knows all and has not ended.
func (e *Engine) over(sts stsState) *flight {
	f := &flight{e: e, key: "example.test", dest: Destination{Domain: "example.test", Port: 25}, moved: make(chan struct{}), start: time.Now()}
	f.sts, f.stsDone, f.daneDone = sts, true, true
	f.dane.learn(&dane.Plan{TTL: time.Hour}, 0, f.start)
	return f
}

// TestEarlyAnswerIsNotKept: what is told at a deadline is noted for the reports,
// and used for nobody else.
func TestEarlyAnswerIsNotKept(t *testing.T) {
	e := lossless(t, nil, 0)
	f := e.over(stsState{recordUntil: time.Now().Add(time.Hour)})
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	d := f.wait(ctx)
	e.enforces(t, "example.test") // meanwhile
	f.answered(d)
	e.running.Wait()
	if d := e.Cached([]byte("example.test")); d != nil {
		t.Errorf("%s by %q is in memory", d.Level, d.Rule)
	}
	if a, ok := e.PolicyAt("example.test", time.Now()); !ok || a.Type != TypeNoPolicy {
		t.Errorf("%v, %+v", ok, a)
	}
}

// TestPurgeEndsSharing: after a purge nobody joins a flight that began before it.
func TestPurgeEndsSharing(t *testing.T) {
	e := lossless(t, nil, 0)
	f := e.over(stsState{})
	e.flights[f.key] = f
	if _, err := e.Purge(""); err != nil {
		t.Fatal(err)
	}
	if got, err := e.join(f.key, f.dest, asDue); got == f || err != nil {
		t.Errorf("joined, %v", err)
	}
	e.stop(errStopping)
	e.running.Wait()
}

package policy

import (
	"context"
	"testing"
	"time"

	"postseal/policy/dane"
	"postseal/policy/dnssec"
	"postseal/policy/mtasts"
)

// A flight that saw the old policy ends after the background has fetched a new one.
func TestPublishAfterARefresh(t *testing.T) {
	e := &Engine{DNS: &dnssec.Client{TrustAD: dnssec.TrustNever}}
	e.memos()
	now := time.Now()
	was, is := &mtasts.Policy{Mode: mtasts.Testing, Text: "a", MaxAge: 24 * time.Hour}, &mtasts.Policy{Mode: mtasts.Enforce, Text: "b", MaxAge: 24 * time.Hour}
	f := &flight{e: e, key: "example.test", dest: Destination{Domain: "example.test", Port: 25}, moved: make(chan struct{}), start: now}
	f.sts, f.stsDone = stsState{record: "1", id: "1", policy: was, fetched: now, recordUntil: now.Add(time.Hour)}, true
	e.publish("example.test", 0, func(m *memo) bool {
		m.sts = f.sts
		m.sts.policy, m.sts.fetched = is, now.Add(time.Second)
		return true
	})
	f.daneDone = true
	f.dane.learn(&dane.Plan{TTL: time.Hour}, 0, now)
	f.finish()
	if d := e.Cached([]byte("example.test")); d != nil {
		t.Errorf("%s by %q is in memory beside a policy in mode enforce", d.Level, d.Rule)
	}
}

// The agenda holds a domain once, however often it is discovered.
func TestAgendaHoldsOne(t *testing.T) {
	e := &Engine{DNS: &dnssec.Client{}}
	e.memos()
	now := time.Now()
	e.agenda.reset(now.Add(time.Hour))
	for i := range 200 {
		e.agenda.add("example.test", now.Add(time.Duration(i)*time.Second))
	}
	if n := len(e.agenda.items); n != 1 {
		t.Errorf("%d items", n)
	}
	if key, _, ok := e.agenda.next(now); key != "example.test" || !ok {
		t.Errorf("%q, %v", key, ok)
	}
	e.agenda.add("example.test", now.Add(50*time.Minute))
	e.agenda.add("example.test", now.Add(5*time.Minute)) // the earlier one counts
	later := now.Add(time.Hour)
	if key, _, ok := e.agenda.next(now.Add(6 * time.Minute)); key != "example.test" || !ok {
		t.Errorf("at the earlier time: %q, %v", key, ok)
	}
	if key, _, ok := e.agenda.next(later); ok {
		t.Errorf("%q a second time", key)
	}
}

// None, then a host with TLSA beside one that fails: DANE is no longer proven absent.
func TestLearn(t *testing.T) {
	var d daneState
	now := time.Now()
	d.learn(&dane.Plan{Class: dane.ClassNone, Hosts: []dane.Host{{State: dane.NoTLSA}}}, 0, now)
	d.learn(&dane.Plan{Class: dane.ClassNone, Hosts: []dane.Host{{State: dane.Broken}}}, 0, now.Add(time.Second))
	if d.proven != dane.ClassNone || !d.provenAt.Equal(now) || !d.used.IsZero() {
		t.Errorf("a failure proved something: %+v", d)
	}
	d.learn(&dane.Plan{Class: dane.ClassPartial, Hosts: []dane.Host{{State: dane.Usable}, {State: dane.Broken}}}, 0, now)
	if d.proven != dane.ClassPartial || d.used.IsZero() {
		t.Errorf("TLSA was seen: %+v", d)
	}
	d.learn(&dane.Plan{Class: dane.ClassBroken, Hosts: []dane.Host{{State: dane.Broken}}}, 0, now)
	if d.proven != dane.ClassPartial {
		t.Errorf("broken proves nothing: %+v", d)
	}
}

// More TLSA records than are kept for reports do not cost the rest of the memo.
func TestManyTLSAStrings(t *testing.T) {
	plan := &dane.Plan{Port: 25, Hosts: []dane.Host{{Base: "mx.example.test"}}}
	for i := range 5000 {
		plan.Hosts[0].TLSA = append(plan.Hosts[0].TLSA, dnssec.TLSA{Usage: 3, Data: []byte{byte(i >> 8), byte(i)}})
	}
	m := &memo{key: "example.test"}
	m.remember(&Decision{Level: LevelDANEOnly, Plan: plan, Made: time.Now()})
	back, err := decodeMemo("example.test", appendMemo(nil, m))
	if err != nil || len(back.answered) != 1 || len(back.answered[0].tlsa) != maxStrings {
		t.Errorf("%v, %+v", err, back)
	}
}

// A record with a changed byte, or under another key, is no record.
func TestStoredChecksum(t *testing.T) {
	m := &memo{key: "example.test"}
	m.dane = daneState{known: true, reason: "because", until: time.Now()}
	data := appendMemo([]byte("before"), m)[len("before"):]
	if _, err := decodeMemo("example.test", data); err != nil {
		t.Fatal(err)
	}
	if _, err := decodeMemo("example.tesu", data); err == nil {
		t.Error("taken under another key")
	}
	for i := range data {
		data[i] ^= 4
		if _, err := decodeMemo("example.test", data); err == nil {
			t.Errorf("taken with byte %d changed", i)
		}
		data[i] ^= 4
	}
}

// What the end of the engine cuts short starts nothing.
func TestBusyWhenStopping(t *testing.T) {
	e := &Engine{DNS: &dnssec.Client{TrustAD: dnssec.TrustNever}}
	e.memos()
	e.ended = true
	d := e.Decide(context.Background(), Destination{Domain: "example.test", Port: 25})
	if d.Level != LevelTemp || d.Reason != errStopping.Error() {
		t.Errorf("%s: %s", d.Level, d.Reason)
	}
}

package policy_test

import (
	"context"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"postseal/cache/boltdb"
	"postseal/policy"
	"postseal/policy/dnssec/dnstest"
	"postseal/policy/mtasts"
	"postseal/policy/mtasts/ststest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// tlsa is a usable record; what it pins does not matter to a decision.
var tlsa = "3 1 1 " + strings.Repeat("ab", 32)

// bed is an engine with an Internet of its own.
type bed struct {
	*policy.Engine
	t    testing.TB
	dns  *dnstest.Server
	web  *ststest.Server
	path string // of the database

	mu    sync.Mutex
	ahead time.Duration // of the engine's clock

	stop func()
}

// newBed starts an engine on a zone text; names below "signed.test." are signed.
func newBed(t testing.TB, zone string, change ...func(*policy.Engine)) *bed {
	t.Helper()
	b := &bed{t: t, dns: dnstest.New(t, zone, "signed.test."), web: ststest.New(t), path: filepath.Join(t.TempDir(), "policies.db")}
	b.start(change...)
	t.Cleanup(func() { b.stop() })
	return b
}

func (b *bed) start(change ...func(*policy.Engine)) {
	b.t.Helper()
	db, err := boltdb.Open(b.path, boltdb.Options{Schema: 1, Buckets: []string{policy.Bucket}})
	if err != nil {
		b.t.Fatal(err)
	}
	client := b.dns.Client()
	client.TryTimeout, client.Timeout = time.Second, 3*time.Second // a busy machine is no dead resolver
	e := &policy.Engine{DNS: client, DB: db, Now: b.now,
		Fetch: &mtasts.Fetcher{DNS: client, Roots: b.web.Roots, AllowPrivate: true, Port: b.web.Port}}
	for _, f := range change {
		f(e)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := e.Run(ctx); err != nil {
			b.t.Error(err)
		}
		if err := db.Close(); err != nil {
			b.t.Error(err)
		}
	}()
	b.Engine = e
	b.stop = sync.OnceFunc(func() { cancel(); <-done })
}

// restart ends the engine in order and starts another on the same database.
func (b *bed) restart(change ...func(*policy.Engine)) {
	b.stop()
	b.start(change...)
}

func (b *bed) now() time.Time {
	b.mu.Lock()
	defer b.mu.Unlock()
	return time.Now().Add(b.ahead)
}

func (b *bed) advance(d time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.ahead += d
}

// decide asks with all the time in the world.
func (b *bed) decide(key string) *policy.Decision {
	b.t.Helper()
	dest, err := policy.ParseDestination(key)
	if err != nil {
		b.t.Fatalf("%s: %v", key, err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	return b.Decide(ctx, dest)
}

// hurry asks with a deadline that has passed already, so that only what is
// known counts; the lookups go on behind.
func (b *bed) hurry(key string) *policy.Decision {
	b.t.Helper()
	dest, err := policy.ParseDestination(key)
	if err != nil {
		b.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return b.Decide(ctx, dest)
}

func (b *bed) want(key string, level policy.Level, rule string) *policy.Decision {
	b.t.Helper()
	d := b.decide(key)
	if d.Level != level || d.Rule != rule {
		b.t.Errorf("%s: got %s by %q (%s), want %s by %q", key, d.Level, d.Rule, d.Reason, level, rule)
	}
	return d
}

// policyText is a policy of some mode for the usual MX host names.
func policyText(mode, maxAge string, mx ...string) string {
	s := "version: STSv1\nmode: " + mode + "\n"
	for _, p := range mx {
		s += "mx: " + p + "\n"
	}
	return s + "max_age: " + maxAge + "\n"
}

// stsZone is what a domain publishes for MTA-STS.
func stsZone(domain, id string) string {
	return "_mta-sts." + domain + ". 300 IN TXT \"v=STSv1; id=" + id + ";\"\nmta-sts." + domain + ". 300 IN A 127.0.0.1\n"
}

func parsePolicy(t testing.TB, text string) *mtasts.Policy {
	t.Helper()
	p, _, err := mtasts.ParsePolicy(text)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

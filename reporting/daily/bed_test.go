package daily_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"postseal/cache/boltdb"
	"postseal/reporting"
	"postseal/reporting/daily"
	"postseal/reporting/store"
	"postseal/reporting/store/storetest"
	"postseal/reporting/tlsrpt"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// bed is a reporter with the world around it: DNS, the host MTA and web servers. Inside a
// bubble its clock begins at midnight, when the day before is over.
type bed struct {
	testing.TB
	*daily.Reporter
	path  string
	db    *boltdb.DB
	setup func(*daily.Reporter) // after each start; nil: nothing
	log   strings.Builder       // warnings and worse

	mu      sync.Mutex
	records map[string]string // TXT by domain; absent: no record
	lookups map[string]int
	down    map[string]bool                                // domains whose lookup fails
	stalls  func(ctx context.Context, domain string) error // of lookups; nil: none does
	takes   func(ctx context.Context, a arrival) error     // what targets say; nil: they take all
	arrived []arrival
}

// arrival is a report at a target.
type arrival struct {
	at     time.Time
	domain string // that it is about, as its file name has it
	target string
	id     string
	report *tlsrpt.Report
	mail   string // "" where it came by https
}

func newBed(t testing.TB) *bed {
	b := &bed{TB: t, path: filepath.Join(t.TempDir(), "sessions.db"), records: map[string]string{}, lookups: map[string]int{}, down: map[string]bool{}}
	b.start()
	return b
}

// start makes the reporter of a daemon that was started.
func (b *bed) start() {
	b.Helper()
	kept := storetest.Open(b.TB, b.path)
	b.db = kept.DB
	b.Reporter = &daily.Reporter{
		Store: kept, Closed: func(d reporting.Day) bool { return time.Now().After((d + 1).Start().Add(10 * time.Minute)) },
		Record: b.record, Mail: mailer{b}, HTTPS: poster{b},
		Organization: "Example", Contact: "tlsrpt@sender.example", Host: "mx1.sender.example",
		Log: slog.New(slog.NewTextHandler(io.MultiWriter(b.Output(), &b.log), &slog.HandlerOptions{Level: slog.LevelWarn})),
	}
	if b.setup != nil {
		b.setup(b.Reporter)
	}
}

// restart ends the daemon and starts it again.
func (b *bed) restart() {
	b.Helper()
	b.db.Close()
	b.start()
}

// run runs the reporter for a while.
func (b *bed) run(d time.Duration) {
	b.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- b.Run(ctx) }()
	time.Sleep(d)
	cancel()
	if err := <-done; err != nil {
		b.Error(err)
	}
}

func (b *bed) record(ctx context.Context, domain string) (tlsrpt.Record, error) {
	if b.stalls != nil {
		if err := b.stalls(ctx, domain); err != nil {
			return tlsrpt.Record{}, err
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.lookups[domain]++
	if b.down[domain] {
		return tlsrpt.Record{}, fmt.Errorf("TXT lookup of _smtp._tls.%s: timeout", domain)
	}
	txt, ok := b.records[domain]
	if !ok {
		return tlsrpt.Record{}, tlsrpt.ErrNoRecord
	}
	return tlsrpt.ParseRecord([]string{txt})
}

func (b *bed) arrive(ctx context.Context, a arrival) error {
	a.at, a.id = time.Now().UTC(), a.report.ID
	b.mu.Lock()
	takes := b.takes
	b.mu.Unlock()
	if takes != nil {
		if err := takes(ctx, a); err != nil {
			return err
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.arrived = append(b.arrived, a)
	return nil
}

type mailer struct{ *bed }

func (m mailer) MessageID(r *tlsrpt.Report, to string) string {
	return (&tlsrpt.Message{Report: r, From: "tlsrpt@sender.example", To: to}).MessageID()
}

func (m mailer) Message(r *tlsrpt.Report, domain, to string, date time.Time) ([]byte, error) {
	var b strings.Builder
	msg := tlsrpt.Message{Report: r, Domain: domain, From: "tlsrpt@sender.example", To: to, Date: date}
	err := msg.Encode(&b)
	return []byte(b.String()), err
}

func (m mailer) Send(ctx context.Context, message []byte, to string) (string, error) {
	r, _, err := tlsrpt.Read(strings.NewReader(string(message)))
	if err != nil {
		return "", err
	}
	return "250 2.0.0 Ok", m.arrive(ctx, arrival{domain: header(message, "TLS-Report-Domain"), target: "mailto:" + to, report: &r, mail: string(message)})
}

// header is a field of a message that is on one line.
func header(message []byte, name string) string {
	_, rest, _ := strings.Cut(string(message), "\r\n"+name+": ")
	value, _, _ := strings.Cut(rest, "\r\n")
	return value
}

type poster struct{ *bed }

func (p poster) Send(ctx context.Context, uri string, r *tlsrpt.Report) (string, error) {
	if err := r.Encode(io.Discard); err != nil {
		return "", err
	}
	// DATE.HASH.DOMAIN@submitter
	domain, _, _ := strings.Cut(strings.SplitN(r.ID, ".", 3)[2], "@")
	return "201 Created", p.arrive(ctx, arrival{domain: domain, target: uri, report: r})
}

// yesterday is the day before the bubble's clock begins.
func yesterday() reporting.Day { return reporting.DayOf(time.Now()) - 1 }

// sessions counts n sessions with a domain.
func (b *bed) sessions(day reporting.Day, domain string, n uint64, edit ...func(*reporting.Key, *reporting.Policy)) {
	b.Helper()
	batch := emptyBatch(day)
	addSessions(batch, day, domain, n, edit...)
	b.write(batch)
}

func emptyBatch(day reporting.Day) reporting.Batch {
	return reporting.Batch{Counts: map[reporting.Day]map[reporting.Key]uint64{day: {}}, Policies: map[reporting.PolicyID]reporting.Policy{}}
}

func addSessions(to reporting.Batch, day reporting.Day, domain string, n uint64, edit ...func(*reporting.Key, *reporting.Policy)) {
	k, p := reporting.Key{Domain: domain, Source: "postfix", MXHost: "mx." + domain}, reporting.Policy{Type: tlsrpt.NoPolicy, Domain: domain}
	for _, f := range edit {
		f(&k, &p)
	}
	k.Policy = p.ID()
	to.Counts[day][k] += n
	to.Policies[k.Policy] = p
}

func (b *bed) write(batch reporting.Batch) {
	b.Helper()
	if err := b.Store.Write(batch); err != nil {
		b.Fatal(err)
	}
}

// asking adds domains with sessions that ask for reports by mail.
func (b *bed) asking(day reporting.Day, domains ...string) {
	b.askingAt(day, func(domain string) string { return "mailto:reports@" + domain }, domains...)
}

// askingAt adds domains with sessions that name targets.
func (b *bed) askingAt(day reporting.Day, rua func(domain string) string, domains ...string) {
	b.Helper()
	batch := emptyBatch(day)
	for _, d := range domains {
		b.records[d] = "v=TLSRPTv1; rua=" + rua(d)
		addSessions(batch, day, d, 1)
	}
	b.write(batch)
}

// dues are when the reports of a day are due.
func (b *bed) dues(day reporting.Day) map[string]time.Time {
	b.Helper()
	m := map[string]time.Time{}
	if err := b.Each(day, func(of store.Subject, _ daily.Progress, due time.Time) bool {
		m[of.Name] = due
		return true
	}); err != nil {
		b.Fatal(err)
	}
	return m
}

// at is when a report about each domain arrived.
func (b *bed) at() map[string][]time.Time {
	b.mu.Lock()
	defer b.mu.Unlock()
	m := map[string][]time.Time{}
	for _, a := range b.arrived {
		m[a.domain] = append(m[a.domain], a.at)
	}
	return m
}

// arrivals are "domain target" in order of time.
func (b *bed) arrivals() (list []string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, a := range b.arrived {
		list = append(list, a.domain+" "+a.target)
	}
	return list
}

func (b *bed) state(day reporting.Day, domain string) daily.Progress {
	b.Helper()
	var found daily.Progress
	err := b.Each(day, func(of store.Subject, p daily.Progress, _ time.Time) bool {
		if of == (store.Subject{Name: domain}) {
			found = p
		}
		return true
	})
	if err != nil {
		b.Fatal(err)
	}
	return found
}

func names(n int) (list []string) {
	for i := range n {
		list = append(list, fmt.Sprintf("d%d.example", i))
	}
	return list
}

func midnight() time.Time { return time.Now().UTC().Truncate(24 * time.Hour) }

func sorted(m map[string]bool) []string { return slices.Sorted(maps.Keys(m)) }

func bubble(t *testing.T, f func(b *bed)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) { f(newBed(t)) })
}

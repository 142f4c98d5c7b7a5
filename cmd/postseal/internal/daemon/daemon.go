// Package daemon is "postseal serve": it puts the parts together, starts them in
// the order in which they need each other, and stops them in the reverse one.
//
// What can fail fails before the first question is answered: the configuration,
// the database, the operator's rules, the sockets. Nothing slow stands before the
// listening, since mail waits while the daemon restarts. At the end the doors
// close first, requests in flight get their answers, then what was learned is
// written, then the database is closed.
package daemon

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"postseal/cache/boltdb"
	"postseal/cmd/postseal/internal/config"
	"postseal/cmd/postseal/internal/control"
	"postseal/cmd/postseal/internal/overrides"
	"postseal/cmd/postseal/internal/status"
	"postseal/milter"
	"postseal/policy"
	"postseal/policy/delivery"
	"postseal/policy/delivery/ledger"
	"postseal/policy/dnssec"
	"postseal/policy/mtasts"
	"postseal/socketmap"
	"postseal/socketmap/exim"
)

const (
	// drainLimit is for requests in flight when the daemon stops; longer than
	// any of them waits for its decision.
	drainLimit = 10 * time.Second
	// cutLimit is what remains of it after a second signal.
	cutLimit = time.Second
	// schema is the version of the contents of policies.db.
	schema = 1
)

// Options of Run.
type Options struct {
	Load     func() (*config.Config, error) // at start and at every reload
	Version  string
	Log      io.Writer          // log lines; nil: discarded
	Signals  <-chan os.Signal   // SIGHUP reloads, any other stops, one more stops at once; nil: none
	Files    []*os.File         // sockets of the service manager, by name
	Notify   func(state string) // tells the service manager (sd_notify(3)); nil: nobody
	Watchdog time.Duration      // how often it wants to hear from us; 0: never
}

// daemon is what Run has put together.
type daemon struct {
	Options
	config  *config.Config // as started or reloaded
	started time.Time
	level   slog.LevelVar
	log     *slog.Logger

	doors     doors
	dns       *dnssec.Client
	engine    *policy.Engine
	rules     *overrides.Store
	socketmap *socketmap.Server
	exim      *exim.Server
	milter    *milter.Server
	delivery  *delivery.Server // nil: not configured
	ledger    *ledger.Ledger   // nil without delivery
	recording *recording       // nil: there is nothing to record
	reloads   chan chan reloaded
}

// Run is the daemon's life: it returns after a signal to stop, the end of ctx, or
// the failure of a part, when everything has ended and is written.
func Run(ctx context.Context, o Options) error {
	d := &daemon{Options: o, started: time.Now(), reloads: make(chan chan reloaded)}
	if d.Log == nil {
		d.Log = io.Discard
	}
	if d.Notify == nil {
		d.Notify = func(string) {}
	}
	c, err := o.Load()
	if err != nil {
		return err
	}
	d.config = c
	if level, err := c.LogLevel(); err == nil { // as checked
		d.level.Set(level)
	}
	d.log = newLogger(d.Log, c, &d.level)
	d.log.Info("starting", keyVersion, o.Version, keyConfig, c.Origin(), keyStateDir, c.StateDir)

	// 0700: the file of rules says whom the operator writes to.
	if err := os.MkdirAll(c.StateDir, 0o700); err != nil {
		return fmt.Errorf("state_dir: %w", err)
	}
	db, err := boltdb.Open(c.Policies(), boltdb.Options{Schema: schema, Buckets: []string{policy.Bucket}, Log: d.log})
	if err != nil {
		return err
	}
	defer db.Close()
	closeLedger, err := d.openLedger()
	if err != nil {
		return err
	}
	defer closeLedger()
	if err := d.build(db); err != nil {
		return err
	}
	closeSessions, err := d.openRecording()
	if err != nil {
		return err
	}
	defer closeSessions()
	if d.doors, err = openDoors(c, o.Files); err != nil {
		return err
	}
	defer d.doors.close()
	if err := d.checkInherited(); err != nil {
		return err
	}
	return d.serve(ctx)
}

// build makes the parts; nothing runs yet.
func (d *daemon) build(db *boltdb.DB) error {
	c := d.config
	dns, fetcher, err := Lookups(c, d.log)
	if err != nil {
		return err
	}
	first, err := c.FirstContact()
	if err != nil {
		return err
	}
	d.dns = dns
	d.engine = &policy.Engine{DNS: dns, Fetch: fetcher, DB: db, CacheSize: c.Policy.CacheEntries, FirstContact: first, Log: d.log}
	if err := overrides.Sweep(c.StateDir); err != nil { // the lock on the database says that nobody else saves
		d.log.Warn("leftovers in the folder for state", keyErr, err)
	}
	d.rules = &overrides.Store{Path: c.Overrides(), Apply: d.engine.SetOverrides}
	if err := d.rules.Reload(); err != nil {
		return err
	}
	d.log.Info("overrides read", keyRules, len(d.rules.List()))
	d.socketmap = Maps(c)
	d.socketmap.Decider, d.socketmap.Log = d.engine, d.log
	d.exim = &exim.Server{Decider: d.engine, Host: exim.Host{DANE: c.Host.DANE}, Log: d.log}
	if err := d.buildMilter(); err != nil {
		return err
	}
	return d.buildDelivery()
}

// Maps are the maps that a configuration asks for, still without decisions.
func Maps(c *config.Config) *socketmap.Server {
	s := &socketmap.Server{HostDANE: c.Host.DANE}
	if c.Delivers() {
		s.Delivery = &socketmap.Delivery{Takes: c.Fallback(), NextHop: c.Delivery.NextHop}
	}
	return s
}

// Lookups makes the clients for DNS and for policies that a configuration asks for.
func Lookups(c *config.Config, log *slog.Logger) (*dnssec.Client, *mtasts.Fetcher, error) {
	trust, err := c.TrustAD()
	if err != nil {
		return nil, nil, err
	}
	roots, err := c.Roots()
	if err != nil {
		return nil, nil, fmt.Errorf("sts.ca_file: %w", err)
	}
	dns := &dnssec.Client{Servers: c.Resolvers(), TrustAD: trust, SelfTest: c.SelfTest(), Log: log}
	return dns, &mtasts.Fetcher{DNS: dns, Roots: roots, AllowPrivate: c.STS.AllowPrivateAddresses}, nil
}

// serve runs everything until it is time to stop.
func (d *daemon) serve(ctx context.Context) error {
	background := context.WithoutCancel(ctx)
	lookups, stopLookups := context.WithCancel(background)
	defer stopLookups()
	inside, insideCtx := errgroup.WithContext(lookups)
	inside.Go(func() error { return d.dns.Run(insideCtx) })
	inside.Go(func() error { return d.engine.Run(insideCtx) })
	d.runRecording(insideCtx, inside)
	if d.ledger != nil {
		inside.Go(func() error { return d.ledger.Run(insideCtx) })
	}

	listening, closeDoors := context.WithCancel(background)
	defer closeDoors()
	outside, outsideCtx := errgroup.WithContext(listening)
	d.open(outsideCtx, outside)
	d.Notify("READY=1")
	d.log.Info("ready", keyTook, time.Since(d.started).Round(time.Millisecond))
	if v := d.dns.Validation(); !v.On {
		d.log.Warn("DANE is off", keyReason, v.Reason)
	}

	d.wait(ctx, outsideCtx, insideCtx)
	d.Notify("STOPPING=1")
	closeDoors()
	drained := make(chan error, 1)
	go func() { drained <- outside.Wait() }()
	err := d.drain(drained, stopLookups)
	stopLookups()
	if failure := inside.Wait(); err == nil {
		err = failure
	}
	d.log.Info("stopped")
	return err
}

// open lets everybody in.
func (d *daemon) open(ctx context.Context, g *errgroup.Group) {
	controlled := d.control().Handler()
	page := status.Handler(d.report, d.config.HTTP.Listen.Names())
	for _, ln := range d.doors["control"] {
		g.Go(func() error { return serveHTTP(ctx, ln, controlled, d.log) })
	}
	for _, ln := range d.doors["socketmap"] {
		g.Go(func() error { return d.socketmap.Serve(ctx, ln) })
	}
	for _, ln := range d.doors["exim"] {
		g.Go(func() error { return d.exim.Serve(ctx, ln) })
	}
	for _, ln := range d.doors["http"] {
		g.Go(func() error { return serveHTTP(ctx, ln, page, d.log) })
	}
	d.openMail(ctx, g)
	for name := range d.doors {
		d.log.Info("listening", keySection, name, keyListen, d.doors.list(name))
	}
	d.warnExposed()
	d.warnInherited()
	for _, w := range d.config.Warnings() {
		d.log.Warn("the configuration is only half made", keyReason, w)
	}
}

// warnExposed: there is no authentication in these protocols.
func (d *daemon) warnExposed() {
	for name := range d.doors {
		for _, s := range d.doors.list(name) {
			if e, err := config.ParseEndpoint(s); err == nil && e.Exposed() {
				d.log.Warn("other machines may reach this listener, and it asks nobody who they are", keySection, name, keyListen, s)
			}
		}
	}
}

// warnInherited: whoever took an address out of the configuration may think that it
// is closed.
func (d *daemon) warnInherited() {
	for _, section := range d.config.Sections() {
		for _, s := range d.doors.strange(section) {
			d.log.Warn("the service manager has opened a listener that the configuration does not name; it closes with its socket unit", keySection, section.Name, keyListen, s)
		}
	}
}

// wait returns when the daemon shall stop. Signals to reload are obeyed meanwhile.
func (d *daemon) wait(ctx, outside, inside context.Context) {
	var beat <-chan time.Time
	if d.Watchdog > 0 {
		t := time.NewTicker(d.Watchdog / 2) // sd_watchdog_enabled(3)
		defer t.Stop()
		beat = t.C
	}
	for {
		select {
		case <-ctx.Done():
			d.log.Info("stopping", keyReason, context.Cause(ctx).Error())
			return
		case <-outside.Done():
			d.log.Error("stopping: a listener failed")
			return
		case <-inside.Done():
			d.log.Error("stopping: a part failed")
			return
		case s := <-d.Signals:
			if s != syscall.SIGHUP {
				d.log.Info("stopping", keySignal, s.String())
				return
			}
			d.reload()
		case answer := <-d.reloads:
			answer <- d.reload()
		case <-beat:
			d.engine.Status() // takes the engine's locks: a deadlock ends the beat
			d.Notify("WATCHDOG=1")
		}
	}
}

// drain waits until the doors are closed and the requests in flight answered.
// Another signal ends the lookups that they wait for.
func (d *daemon) drain(drained <-chan error, stopLookups func()) error {
	limit := time.NewTimer(drainLimit + cutLimit)
	defer limit.Stop()
	signals := d.Signals
	for {
		select {
		case err := <-drained:
			return err
		case s := <-signals:
			if s == syscall.SIGHUP {
				continue
			}
			d.log.Warn("stopping at once", keySignal, s.String())
			signals = nil
			stopLookups()
			limit.Reset(cutLimit)
		case <-limit.C:
			d.log.Warn("clients did not take their answers in time")
			return nil
		}
	}
}

func (d *daemon) control() *control.Server {
	s := &control.Server{Engine: d.engine, Answers: d.socketmap, Rules: d.rules, Probe: d.probe, Status: d.status, Reload: d.askReload, Log: d.log}
	if r := d.recording; r != nil {
		s.Recorded = &control.Recorded{Store: r.store, Recorder: r.recorder, Closed: r.closing.Closed}
		s.Reports = r.reporter
	}
	return s
}

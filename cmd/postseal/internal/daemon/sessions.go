package daemon

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"postseal/cache/boltdb"
	"postseal/cmd/postseal/internal/config"
	"postseal/policy"
	"postseal/policy/probe"
	"postseal/policy/smtpclient"
	"postseal/reporting"
	"postseal/reporting/daily"
	"postseal/reporting/ingest"
	"postseal/reporting/ingest/datagram"
	"postseal/reporting/ingest/exim"
	"postseal/reporting/ingest/maillog"
	"postseal/reporting/store"
	"postseal/reporting/tlsrpt"
)

// sessionsSchema is the version of the contents of sessions.db.
const sessionsSchema = 1

// Sources of sessions, but for the logs, which have the names of their formats.
const (
	fromDatagrams reporting.Source = "datagram"
	fromEvents    reporting.Source = "event"
	fromDelivery  reporting.Source = "delivery"
	fromPolicy    reporting.Source = "policy"
)

// recording is how it becomes known what happened.
type recording struct {
	store     *store.Store
	recorder  *reporting.Recorder
	closing   *reporting.Closing
	logs      []mailLog
	datagrams *datagram.Receiver
	socket    *net.UnixConn
	events    *exim.Events
	prober    *probe.Prober
	reporter  *daily.Reporter // nil: no reports are sent

	// Our reports are known by their Message-ID; delivered hears what a log says became of
	// one. Both are nil while none are sent.
	own       func(messageID []byte) bool
	delivered func(maillog.Delivery)

	// Of a domain in mode testing a datagram says that it has no policy, and of a
	// success not even the MX host; a log that is followed for what is missing does.
	testingInLog bool
}

// mailLog is a log that is followed.
type mailLog struct {
	config.MailLog
	follower
}

// follower is ingest.Follower or ingest.Journal.
type follower interface {
	Run(context.Context) error
	CaughtUp() time.Time
	Stats() maillog.Stats
}

// openRecording opens the database of sessions and makes the parts that fill it, if
// there is anything to record.
func (d *daemon) openRecording() (close func() error, err error) {
	c := d.config
	if !c.Records() {
		return func() error { return nil }, nil
	}
	db, err := boltdb.Open(c.Sessions(), boltdb.Options{Schema: sessionsSchema, Buckets: store.Buckets, Log: d.log})
	if err != nil {
		return nil, err
	}
	if err := d.buildRecording(db); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return db.Close, nil
}

func (d *daemon) buildRecording(db *boltdb.DB) error {
	r := &recording{store: &store.Store{DB: db}}
	r.recorder = &reporting.Recorder{Store: r.store, PolicyAt: d.policyAt, Judge: d.judge, Now: time.Now, Log: d.log}
	r.closing = &reporting.Closing{Recorder: r.recorder, Log: d.log}
	if err := d.buildReporter(r); err != nil { // first: the logs are to know its mails
		return err
	}
	for _, l := range d.config.Reporting.Logs {
		f, err := d.follower(r, l)
		if err != nil {
			return err
		}
		r.logs = append(r.logs, mailLog{l, f})
		r.closing.Logs = append(r.closing.Logs, f.CaughtUp)
	}
	if err := r.closing.Restore(); err != nil {
		return err
	}
	r.recorder.Closed = r.closing.Closed
	d.recording = r
	d.engine.Report = d.recordPolicy
	if d.delivery != nil {
		d.delivery.Report, d.delivery.Reported = d.recordDelivery, r.recorder.Sync
	}
	if d.config.Reporting.EximEvents {
		roots, err := d.config.DeliveryRoots()
		if err != nil {
			return err
		}
		r.events = &exim.Events{Roots: roots, Own: r.own, Emit: func(s reporting.Session) { r.recorder.Record(s, fromEvents) }}
		d.exim.Event = r.events.Line
	}
	if d.config.Reporting.Probe {
		d.buildProber(r)
	}
	return d.openDatagrams(r)
}

func (d *daemon) follower(r *recording, l config.MailLog) (follower, error) {
	location, err := l.Location()
	if err != nil {
		return nil, err
	}
	reader, err := ingest.New(l.Format, maillog.Options{Location: location, Own: r.own, Delivered: r.delivered})
	if err != nil {
		return nil, err
	}
	var keep func(*reporting.Session) bool
	switch {
	case l.Sessions != "missing":
	case l.Format == "postfix" && d.config.Reporting.TLSRPTSocket != "":
		r.testingInLog = true
		keep = func(s *reporting.Session) bool { return ingest.Missing(s) || d.inTestingMode(s) }
	case l.Format == "exim":
		keep = notInPolicy
	default:
		keep = ingest.Missing
	}
	source := reporting.Source(l.Format)
	if l.Path == config.Journal {
		return &ingest.Journal{Reader: reader, Source: source, Recorder: r.recorder, Store: r.store, Keep: keep, Log: d.log}, nil
	}
	return &ingest.Follower{Path: l.Path, Reader: reader, Source: source, Recorder: r.recorder, Store: r.store, Keep: keep, Log: d.log}, nil
}

// buildProber makes the prober, unless this machine has no name to greet with.
func (d *daemon) buildProber(r *recording) {
	p, err := Prober(d.config, d.engine, d.log)
	if err != nil {
		d.log.Warn("hosts of domains in mode testing are not probed", keyErr, err)
		return
	}
	r.prober = p
}

// Prober is the one that a configuration asks for.
func Prober(c *config.Config, resolver probe.Resolver, log *slog.Logger) (*probe.Prober, error) {
	hostname, err := c.Hostname()
	if err != nil {
		return nil, err
	}
	roots, err := c.DeliveryRoots()
	if err != nil {
		return nil, fmt.Errorf("delivery.ca_file: %w", err)
	}
	return &probe.Prober{Resolver: resolver, Port: uint16(c.Delivery.Port), AllowPrivate: c.Delivery.AllowPrivateAddresses, Log: log,
		Client: &smtpclient.Client{Hostname: hostname, Roots: roots, Limits: probe.Limits(), Log: log}}, nil
}

// probe asks the hosts of a destination for a person.
func (d *daemon) probe(ctx context.Context, dest policy.Destination) ([]probe.Answer, error) {
	if d.recording != nil && d.recording.prober != nil {
		return d.recording.prober.Ask(ctx, dest), nil
	}
	p, err := Prober(d.config, d.engine, d.log)
	if err != nil {
		return nil, err
	}
	return p.Ask(ctx, dest), nil
}

// openDatagrams opens the socket of libtlsrpt.
func (d *daemon) openDatagrams(r *recording) error {
	path := d.config.TLSRPTPath()
	if path == "" {
		return nil
	}
	uids, err := d.config.TLSRPTUIDs()
	if err != nil {
		return err
	}
	rc := &d.config.Reporting
	if r.socket, err = openUnixgram(path, permissions{rc.Mode, rc.Owner, rc.Group}); err != nil {
		return fmt.Errorf("reporting.tlsrpt_socket: %w", err)
	}
	d.warnOfQueue("/proc/sys/net/unix/max_dgram_qlen")
	r.datagrams = &datagram.Receiver{UIDs: uids, Log: d.log, Emit: func(s reporting.Session) {
		if s.Policy.Type == tlsrpt.NoPolicy && r.testingInLog && d.inTestingMode(&s) {
			return
		}
		r.recorder.Record(s, fromDatagrams)
	}}
	return nil
}

// fewDatagrams wait for 25 ms at 20 000 a second; systemd sets as many.
const fewDatagrams = 512

// warnOfQueue says where Linux queues few datagrams (unix(7)): nobody here sees one that
// libtlsrpt could not send.
func (d *daemon) warnOfQueue(path string) {
	text, err := os.ReadFile(path)
	if err != nil {
		return // another system
	}
	if n, err := strconv.Atoi(strings.TrimSpace(string(text))); err == nil && n < fewDatagrams {
		d.log.Warn("the kernel queues few datagrams, and more at a moment are lost; set it higher and restart", "net.unix.max_dgram_qlen", n, "better", fewDatagrams)
	}
}

// openUnixgram binds a socket for datagrams under a name beside the wanted one, as
// openUnix does. Nobody can tell whether another program has it; the lock on the
// database says that it is not another postseal.
func openUnixgram(path string, p permissions) (*net.UnixConn, error) {
	switch info, err := os.Lstat(path); {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return nil, err
	case info.Mode().Type() != fs.ModeSocket:
		return nil, fmt.Errorf("%s: there is a file that is no socket", path)
	}
	temporary := path + ".new"
	if err := os.Remove(temporary); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: temporary, Net: "unixgram"})
	if err != nil {
		return nil, err
	}
	if err := errors.Join(permit(temporary, p), os.Rename(temporary, path)); err != nil {
		conn.Close()
		os.Remove(temporary)
		return nil, err
	}
	return conn, nil
}

// runRecording starts all parts, those that write last of all to end with ctx. What
// goes wrong here is logged and tried again: mail flows without reports.
func (d *daemon) runRecording(ctx context.Context, g *errgroup.Group) {
	r := d.recording
	if r == nil {
		return
	}
	sources, stopSources := context.WithCancel(ctx)
	writing, stopWriting := context.WithCancel(context.WithoutCancel(ctx))
	g.Go(func() error {
		defer stopWriting()
		defer stopSources()
		var parts errgroup.Group
		for _, l := range r.logs {
			parts.Go(d.again(sources, "follow "+l.Path, l.Run))
		}
		parts.Go(d.again(sources, "close days", r.closing.Run))
		keep := keeper{store: r.store, days: d.config.Reporting.KeepDays}
		parts.Go(d.again(sources, "forget old days", keep.Run))
		if r.reporter != nil {
			parts.Go(d.again(sources, "send reports", r.reporter.Run))
		}
		if r.datagrams != nil {
			parts.Go(func() error {
				if err := r.datagrams.Run(sources, r.socket); err != nil {
					d.log.Error("no datagrams are received any more", keyErr, err)
				}
				return nil
			})
		}
		if r.prober != nil {
			parts.Go(func() error { return r.prober.Run(sources) })
		}
		err := parts.Wait()
		if r.events != nil {
			r.events.Flush()
		}
		if err != nil {
			d.log.Error("reporting failed", keyErr, err)
		}
		return nil
	})
	g.Go(func() error {
		if err := r.recorder.Run(writing); err != nil {
			d.log.Error("reporting failed", keyErr, err)
		}
		return nil
	})
}

// again runs a part once more when it fails.
func (d *daemon) again(ctx context.Context, what string, run func(context.Context) error) func() error {
	const pause = 5 * time.Second
	return func() error {
		for {
			err := run(ctx)
			if ctx.Err() != nil || err == nil {
				return nil
			}
			d.log.Error("reporting failed, will try again", "part", what, keyErr, err)
			select {
			case <-ctx.Done():
				return nil
			case <-time.After(pause):
			}
		}
	}
}

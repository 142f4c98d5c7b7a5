package daemon

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"

	"golang.org/x/sync/errgroup"

	"postseal/cache/boltdb"
	"postseal/milter"
	"postseal/policy/delivery"
	"postseal/policy/delivery/ledger"
	"postseal/policy/requiretls"
	"postseal/policy/smtpclient"
	"postseal/socketmap/exim"
)

// ledgerSchema is the version of the contents of delivery.db.
const ledgerSchema = 1

// modes of the listeners of the delivery fallback, by their names.
var modes = map[string]requiretls.Mode{
	"delivery":            requiretls.Normal,
	"delivery-requiretls": requiretls.Required,
	"delivery-relaxed":    requiretls.Relaxed,
}

// openLedger opens the database of what was delivered, if there is a fallback.
func (d *daemon) openLedger() (close func() error, err error) {
	if !d.config.Delivers() {
		return func() error { return nil }, nil
	}
	db, err := boltdb.Open(d.config.Ledger(), boltdb.Options{Schema: ledgerSchema, Buckets: []string{ledger.Bucket}, Log: d.log})
	if err != nil {
		return nil, err
	}
	d.ledger = &ledger.Ledger{DB: db, Log: d.log}
	return db.Close, nil
}

// buildDelivery makes the delivery fallback and tells the doors of it.
func (d *daemon) buildDelivery() error {
	c := d.config
	if !c.Delivers() {
		return nil
	}
	hostname, err := c.Hostname()
	if err != nil {
		return fmt.Errorf("delivery.hostname: %w", err)
	}
	roots, err := c.DeliveryRoots()
	if err != nil {
		return fmt.Errorf("delivery.ca_file: %w", err)
	}
	if err := delivery.Sweep(c.StateDir); err != nil { // the lock on the database says that nobody else delivers
		d.log.Warn("leftovers in the folder for state", keyErr, err)
	}
	addresses, err := ownAddresses()
	if err != nil {
		return fmt.Errorf("addresses of this machine: %w", err)
	}
	d.delivery = &delivery.Server{
		Resolver: d.engine, Ledger: d.ledger, Log: d.log, Hostname: hostname,
		Addresses:    addresses,
		TempDir:      c.StateDir, // on a disk: /tmp may be memory
		Client:       &smtpclient.Client{Hostname: hostname, Roots: roots, Log: d.log},
		Port:         uint16(c.Delivery.Port),
		AllowPrivate: c.Delivery.AllowPrivateAddresses,
		LocalDomains: c.Fallback().Local,
		LocalRelay:   c.Delivery.LocalRelay,
		Routes:       c.SmartHosts(),
		Deadline:     c.Delivery.Deadline,
		MaxMessage:   c.Delivery.MaxMessage,
		Grace:        drainLimit / 2, // the other half is for replies to what was sent whole
	}
	takes := c.Fallback()
	takes.Mixed = takes.Mixed && !c.Host.DANE // with DANE, Exim does it host by host, beside MTA-STS
	d.exim.Host = exim.Host{DANE: c.Host.DANE, Fallback: true, Takes: takes}
	return nil
}

// buildMilter makes the milter.
func (d *daemon) buildMilter() error {
	c := d.config
	networks, err := c.TrustedNetworks()
	if err != nil {
		return fmt.Errorf("milter.trusted_networks: %w", err)
	}
	d.milter = &milter.Server{
		TrustedNetworks: networks, RelaxedFrom: milter.Who(c.Milter.RelaxedFrom),
		Route: milter.Route(c.Milter.Route), OnError: milter.OnError(c.Milter.OnError), Log: d.log,
	}
	for _, r := range c.Milter.Rules {
		d.milter.Rules = append(d.milter.Rules, milter.Rule(r))
	}
	return d.milter.Check()
}

// ownAddresses are those of this machine, by which a delivery knows when it would
// come back.
func ownAddresses() ([]netip.Addr, error) {
	list, err := net.InterfaceAddrs()
	if err != nil {
		return nil, err
	}
	var addresses []netip.Addr
	for _, a := range list {
		if prefix, err := netip.ParsePrefix(a.String()); err == nil && !prefix.Addr().IsLoopback() {
			addresses = append(addresses, prefix.Addr().WithZone(""))
		}
	}
	return addresses, nil
}

// openMail lets the mail server in.
func (d *daemon) openMail(ctx context.Context, g *errgroup.Group) {
	for _, ln := range d.doors["milter"] {
		g.Go(func() error { return d.milter.Serve(ctx, ln) })
	}
	for name, mode := range modes {
		for _, ln := range d.doors[name] {
			g.Go(func() error { return d.delivery.Serve(ctx, ln, mode) })
		}
	}
}

// checkInherited: the service manager may open a listener of a part that the
// configuration leaves out.
func (d *daemon) checkInherited() error {
	for name := range modes {
		if len(d.doors[name]) > 0 && d.delivery == nil {
			return errors.New("the service manager has opened the socket " + name + ", but no listener of [delivery] is set in the configuration")
		}
	}
	return nil
}

package daemon

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"postseal/cmd/postseal/internal/config"
	"postseal/policy/mtasts"
	"postseal/reporting"
	"postseal/reporting/daily"
	"postseal/reporting/ingest/maillog"
	"postseal/reporting/send"
	"postseal/reporting/tlsrpt"
)

// buildReporter makes the part that sends reports, if the configuration has any sent.
func (d *daemon) buildReporter(r *recording) error {
	c := d.config
	if !c.Reports() {
		return nil
	}
	rc := &c.Reporting
	mail, err := mailer(c)
	if err != nil {
		return err
	}
	for _, k := range mail.Keys {
		if w := k.Warning(); w != "" {
			d.log.Warn("a key is weak", keyReason, w)
		}
	}
	roots, err := c.ReportRoots()
	if err != nil {
		return fmt.Errorf("reporting.ca_file: %w", err)
	}
	https := &send.HTTPS{Lookup: d.addresses, Roots: roots, Insecure: rc.AllowBadCertificates, Log: d.log}
	if !rc.AllowPrivateAddresses {
		https.Public = mtasts.IsPublic
	}
	r.reporter = &daily.Reporter{
		Store: r.store, Closed: r.closing.Closed, Record: d.tlsrptRecord, Mail: mail, HTTPS: https,
		Organization: rc.Organization, Contact: rc.Contact, Host: mail.Hostname, HideSendingIP: rc.HideSendingIP,
		Hosts: rc.MXHosts, Rules: c.ReportRules(), Nameless: []reporting.Source{fromDatagrams, fromEvents},
		Spread: rc.Spread, Retry: rc.Retry, Log: d.log,
	}
	sender := mail.From[strings.LastIndexByte(mail.From, '@')+1:]
	r.own = func(id []byte) bool { return tlsrpt.IsMessageID(id, sender) }
	r.delivered = func(m maillog.Delivery) {
		if m.Status == maillog.Bounced {
			r.reporter.Bounced(m.MessageID, m.Recipient, m.Text, m.Time)
		}
	}
	return nil
}

// mailer hands reports to the mail server.
func mailer(c *config.Config) (*send.Mail, error) {
	rc := &c.Reporting
	m := &send.Mail{Submit: rc.Submit, From: c.ReportFrom(), Envelope: rc.BouncesTo}
	if name, err := c.Hostname(); err == nil {
		m.Hostname = name // without one, the host's own server greets localhost as well
	}
	var err error
	m.Keys, err = c.ReportKeys()
	return m, err
}

// tlsrptRecord asks who wants reports about a domain.
func (d *daemon) tlsrptRecord(ctx context.Context, domain string) (tlsrpt.Record, error) {
	name, err := tlsrpt.RecordName(domain)
	if err != nil { // which no domain has that mail went to
		return tlsrpt.Record{}, fmt.Errorf("%w: %w", tlsrpt.ErrNoRecord, err)
	}
	a, err := d.dns.LookupTXT(ctx, name)
	if err != nil {
		return tlsrpt.Record{}, err
	}
	return tlsrpt.ParseRecord(a.Records)
}

// addresses are those of a web server.
func (d *daemon) addresses(ctx context.Context, host string) ([]netip.Addr, error) {
	a4, err4 := d.dns.LookupA(ctx, host)
	a6, err6 := d.dns.LookupAAAA(ctx, host)
	list := slices.Concat(a4.Records, a6.Records)
	if len(list) > 0 {
		return list, nil
	}
	return nil, errors.Join(err4, err6)
}

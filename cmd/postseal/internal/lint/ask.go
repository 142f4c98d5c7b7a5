package lint

import (
	"context"
	"fmt"
	"strconv"
	"sync"

	"postseal/policy"
	"postseal/policy/dane"
	"postseal/policy/dnssec"
	"postseal/policy/mtasts"
)

// Records are what a domain publishes now.
type Records struct {
	Destination policy.Destination

	MX   []dnssec.MX // as published, a null MX among others included; nil where there is none, or it could not be asked
	Plan *dane.Plan  // the hosts with their TLSA records

	STS       Texts           // at _mta-sts
	Policy    *mtasts.Fetched // nil: there is none to be had
	PolicyErr error           // why; nil if none is announced

	TLSRPT Texts   // at _smtp._tls
	Drafts []Texts // that were found at the names of drafts

	Unsigned []string // hosts with TLSA records, at an address that no DNSSEC proves
	Aliased  []string // hosts that are aliases
}

// Texts are the TXT records of one name.
type Texts struct {
	Name string
	Text []string
	Err  error // the lookup failed
}

// maxUnsigned is at how many hosts TLSA records are looked for that no sender looks for.
const maxUnsigned = 5

// draftNames are where the drafts of 2016 had the records of MTA-STS (before and in
// draft-ietf-uta-mta-sts-00) and of TLSRPT (draft-ietf-uta-smtp-tlsrpt-00). The
// daemon never asks for them.
var draftNames = [...]string{"_smtp_sts.", "_mta_sts.", "_smtp_tlsrpt."}

// Ask looks everything up, side by side. It waits until ctx ends; what failed is in
// the records.
func Ask(ctx context.Context, dns *dnssec.Client, fetch *mtasts.Fetcher, dest policy.Destination) *Records {
	r := &Records{Destination: dest}
	domain := dest.Domain
	drafts := make([]Texts, len(draftNames))
	var g sync.WaitGroup
	g.Go(func() { r.askHosts(ctx, dns) })
	g.Go(func() { r.TLSRPT = texts(ctx, dns, "_smtp._tls."+domain) })
	g.Go(func() {
		r.STS = texts(ctx, dns, "_mta-sts."+domain)
		if _, err := mtasts.ParseRecord(r.STS.Text); r.STS.Err == nil && err == nil {
			r.Policy, r.PolicyErr = fetch.Fetch(ctx, domain)
		}
	})
	for i, prefix := range draftNames {
		g.Go(func() { drafts[i] = texts(ctx, dns, prefix+domain) })
	}
	g.Wait()
	for _, t := range drafts {
		if t.Err == nil && len(t.Text) > 0 {
			r.Drafts = append(r.Drafts, t)
		}
	}
	return r
}

func texts(ctx context.Context, dns *dnssec.Client, name string) Texts {
	a, err := dns.LookupTXT(ctx, name)
	return Texts{Name: name, Text: a.Records, Err: err}
}

// askHosts asks besides for what a sender has no need to know.
func (r *Records) askHosts(ctx context.Context, dns *dnssec.Client) {
	d := r.Destination
	if !d.Fixed {
		if mx, err := dns.LookupMX(ctx, d.Domain); err == nil {
			r.MX = mx.Records
		}
	}
	r.Plan = dane.Lookup(ctx, dns, d.Domain, d.Port, d.Fixed)
	unsigned := 0
	for i := range r.Plan.Hosts {
		h := &r.Plan.Hosts[i]
		if r.Plan.Implicit || d.Fixed || h.State == dane.Broken || h.State == dane.Absent {
			continue
		}
		if alias, err := dns.LookupCNAME(ctx, h.Name); err == nil && len(alias.Records) > 0 {
			r.Aliased = append(r.Aliased, h.Name)
		}
		if h.State != dane.Insecure || unsigned == maxUnsigned {
			continue
		}
		unsigned++
		if a, err := dns.LookupTLSA(ctx, "_"+strconv.Itoa(int(d.Port))+"._tcp."+h.Name); err == nil && len(a.Records) > 0 {
			r.Unsigned = append(r.Unsigned, h.Name)
		}
	}
}

// tlsaName is where the TLSA records of a host stand.
func (r *Records) tlsaName(base string) string {
	return fmt.Sprintf("_%d._tcp.%s", r.Destination.Port, base)
}

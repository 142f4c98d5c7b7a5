package dnssec

import (
	"context"
	"strings"
	"time"

	"github.com/miekg/dns"
)

const (
	maxTraced      = 20  // records of a lookup
	maxTracedBytes = 300 // of a record
)

type traceKey struct{}

// WithTrace returns a context under which every finished lookup is handed to f,
// from whichever goroutine made it. A lookup whose alias chain had to be asked
// for in parts is handed over part by part.
func WithTrace(ctx context.Context, f func(Exchange)) context.Context {
	return context.WithValue(ctx, traceKey{}, f)
}

func trace(ctx context.Context, q question, start time.Time, p part, err *Error) {
	f, ok := ctx.Value(traceKey{}).(func(Exchange))
	if !ok {
		return
	}
	x := Exchange{
		Name: q.name, Type: q.typ(), Server: p.server, Took: time.Since(start),
		Status: p.status, Secure: p.secure, TTL: p.ttl,
	}
	if err != nil {
		x.Err = err
		x.Server = err.Server
		x.Name = printable(x.Name, maxTracedBytes)
	}
	for _, list := range [...][]record{p.chain, p.records} {
		for _, rr := range list {
			if len(x.Records) < maxTraced {
				x.Records = append(x.Records, rr.presentation())
			}
		}
	}
	f(x)
}

// presentation is the record as in a zone file (RFC 1035 §5.1), cut to a bound.
func (r record) presentation() string {
	h := dns.RR_Header{Name: dns.Fqdn(r.name), Rrtype: r.rtype, Class: dns.ClassINET, Ttl: r.ttl, Rdlength: uint16(len(r.data()))}
	rr, _, err := dns.UnpackRRWithHeader(h, r.msg, r.off)
	if err != nil {
		return printable(r.name+" "+dns.TypeToString[r.rtype]+" (malformed)", maxTracedBytes)
	}
	return printable(strings.ReplaceAll(rr.String(), "\t", " "), maxTracedBytes)
}

// printable replaces what is not printable ASCII, and cuts to at most n bytes.
func printable(s string, n int) string {
	b := []byte(s[:min(len(s), n)])
	for i, ch := range b {
		if ch < ' ' || ch > '~' {
			b[i] = '?'
		}
	}
	if len(s) > n && n > 3 {
		copy(b[n-3:], "...")
	}
	return string(b)
}

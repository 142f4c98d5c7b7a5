// Package probe verifies MX hosts without mail, for policies in mode testing.
//
// In mode testing a policy holds nothing back, but what would have failed is to be
// reported (RFC 8461 §5, RFC 8460 §4). A mail server that is told nothing cannot tell:
// it neither compares MX names with the policy nor verifies certificates. So the
// hosts of a domain that gets mail are asked: connect, EHLO, STARTTLS, verify, QUIT.
// What such a probe has shown holds for the sessions with the same host within a
// day.
//
// Nobody asked for these connections, so they are few: one a day and MX host, sooner
// only under a changed policy; never for a domain that got no mail; a bounded number
// at a time and an hour.
package probe

import (
	"context"
	"crypto/sha256"
	"errors"
	"log/slog"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"golang.org/x/time/rate"

	"postseal/policy"
	"postseal/policy/dane"
	"postseal/policy/mtasts"
	"postseal/policy/smtpclient"
)

const (
	// valid is how long a verdict is used, and again how often a host is asked.
	valid = 24 * time.Hour
	// again is when a host is asked once more that could not be reached.
	again = time.Hour

	perHour = 600 // probes; a provider's mail goes to fewer new domains in mode testing
	burst   = 20
	queued  = 1000  // domains that wait
	known   = 20000 // hosts and domains that are remembered

	workers  = 4
	maxHosts = 10 // of a domain
	maxAddrs = 2  // of a host, until one answers
)

// Limits are for the Client of a Prober: a probe gives up sooner than a delivery.
func Limits() smtpclient.Limits {
	return smtpclient.Limits{Connect: 30 * time.Second, Greeting: time.Minute, Hello: time.Minute, Handshake: time.Minute}
}

// Resolver decides; policy.Engine does.
type Resolver interface {
	// Resolve returns the decision together with everything that DNS says about
	// the hosts; the plan is never nil.
	Resolve(ctx context.Context, dest policy.Destination) (*policy.Decision, *dane.Plan)
}

// Verdict is what a probe has shown of a host.
type Verdict struct {
	At     time.Time
	Result string // RFC 8460 §4.3; "": the host satisfies the policy
	Reason string // failure-reason-code: printable and short
}

// Prober asks. Set the fields, then call Run in a goroutine of its own; the other
// methods may be called from any number of goroutines.
type Prober struct {
	Resolver     Resolver
	Client       *smtpclient.Client // with limits that fit; see [Limits]
	Port         uint16             // of MX hosts; 0: 25
	AllowPrivate bool               // MX hosts at loopback and private addresses are contacted
	Log          *slog.Logger       // nil: none
	Now          func() time.Time   // nil: time.Now

	once    sync.Once
	limit   *rate.Limiter
	queue   chan string
	waiting sync.Map // domains in the queue
	hosts   *lru.Cache[string, Verdict]
	domains *lru.Cache[string, asked]
	count   atomic.Uint64
}

// asked is when the hosts of a domain were asked, and under which policy.
type asked struct {
	at     time.Time
	policy [sha256.Size]byte
}

func (p *Prober) init() {
	p.once.Do(func() {
		p.limit = rate.NewLimiter(rate.Limit(float64(perHour)/time.Hour.Seconds()), burst)
		p.queue = make(chan string, queued)
		p.hosts, _ = lru.New[string, Verdict](known) // fails for sizes below 1 only
		p.domains, _ = lru.New[string, asked](known)
		if p.Log == nil {
			p.Log = slog.New(slog.DiscardHandler)
		}
		if p.Now == nil {
			p.Now = time.Now
		}
	})
}

// Note tells that mail went to a domain whose policy is in mode testing, with the MX
// patterns of that. Its hosts will be asked if that is due. It never waits.
func (p *Prober) Note(domain string, patterns []string) {
	p.init()
	if !p.due(domain, patterns) {
		return
	}
	if _, already := p.waiting.LoadOrStore(domain, nil); already {
		return
	}
	select {
	case p.queue <- domain:
	default: // too many; the next mail tells again
		p.waiting.Delete(domain)
	}
}

func (p *Prober) due(domain string, patterns []string) bool {
	last, ok := p.domains.Get(domain)
	return !ok || last.policy != sum(patterns) || p.Now().Sub(last.at) >= valid
}

// sum tells one list of patterns from another.
func sum(patterns []string) [sha256.Size]byte {
	return sha256.Sum256([]byte(strings.ToLower(strings.Join(patterns, "\n"))))
}

// Verdict is what the latest probe of an MX host has shown, if that was within a day
// before or after t: a log is read some time after the session.
func (p *Prober) Verdict(mx string, t time.Time) (Verdict, bool) {
	p.init()
	v, ok := p.hosts.Peek(mx)
	if !ok || t.Sub(v.At).Abs() > valid {
		return Verdict{}, false
	}
	return v, true
}

// Count is how many hosts were asked since the start.
func (p *Prober) Count() uint64 { return p.count.Load() }

// Run asks until ctx ends.
func (p *Prober) Run(ctx context.Context) error {
	p.init()
	var g sync.WaitGroup
	for range workers {
		g.Go(func() {
			for {
				select {
				case <-ctx.Done():
					return
				case domain := <-p.queue:
					p.domain(ctx, domain)
					p.waiting.Delete(domain)
				}
			}
		})
	}
	g.Wait()
	return nil
}

// domain asks the hosts of a domain.
func (p *Prober) domain(ctx context.Context, domain string) {
	d, plan := p.Resolver.Resolve(ctx, policy.Destination{Domain: domain, Port: p.port()})
	if d.STS == nil || d.STS.Mode != mtasts.Testing || plan.Err != nil {
		return
	}
	last, ok := p.domains.Get(domain)
	next := asked{at: p.Now(), policy: sum(d.STS.MX)}
	changed := ok && last.policy != next.policy
	for i := range plan.Hosts[:min(len(plan.Hosts), maxHosts)] {
		h := &plan.Hosts[i]
		if !d.STS.Match(h.Name) || len(h.Addrs) == 0 {
			continue // judged without contact, or unreachable
		}
		if v, fresh := p.Verdict(h.Name, next.at); fresh && !changed && next.at.Sub(v.At) < valid {
			continue
		}
		if !p.host(ctx, d, plan, h) {
			next.at = p.Now().Add(again - valid)
		}
	}
	if ctx.Err() == nil {
		p.domains.Add(domain, next)
	}
}

// host asks one host, and reports whether there was an answer.
func (p *Prober) host(ctx context.Context, d *policy.Decision, plan *dane.Plan, h *dane.Host) bool {
	for _, target := range p.targets(plan, h, smtpclient.Demand{Security: smtpclient.PKIX, STS: d.STS, Plan: plan, Host: h}) {
		if p.limit.Wait(ctx) != nil {
			return false
		}
		p.count.Add(1)
		session, err := p.Client.Connect(ctx, target)
		if err == nil {
			session.Close()
			p.hosts.Add(h.Name, Verdict{At: p.Now()})
			return true
		}
		if ctx.Err() != nil {
			return false
		}
		// A moment's trouble on the way must not speak for a day of sessions.
		if f, ok := errors.AsType[*smtpclient.Failure](err); ok && f.Broken {
			continue
		}
		if result, reason := smtpclient.Classify(err); result != "" {
			p.Log.Info("a host does not satisfy its domain's policy in mode testing", "domain", d.Destination.Domain, "host", h.Name, "result", result, "reason", reason)
			p.hosts.Add(h.Name, Verdict{At: p.Now(), Result: result, Reason: reason})
			return true
		}
	}
	return false
}

// targets are the addresses of a host that may be contacted.
func (p *Prober) targets(plan *dane.Plan, h *dane.Host, demand smtpclient.Demand) []smtpclient.Target {
	var list []smtpclient.Target
	for _, a := range h.Addrs {
		if len(list) < maxAddrs && (p.AllowPrivate || mtasts.IsPublic(a)) {
			list = append(list, smtpclient.Target{Name: h.Name, Addr: netip.AddrPortFrom(a, plan.Port), Demand: demand})
		}
	}
	return list
}

func (p *Prober) port() uint16 {
	if p.Port == 0 {
		return 25
	}
	return p.Port
}

// Answer is what one address of an MX host has shown.
type Answer struct {
	Host string
	Addr netip.AddrPort
	Info smtpclient.Info     // of a session that came about
	Err  *smtpclient.Failure // why there is none
}

// Ask asks all hosts of a destination now, whatever its policy, at each address, for
// a person who wants to know. It is not bounded by the rate.
func (p *Prober) Ask(ctx context.Context, dest policy.Destination) []Answer {
	p.init()
	d, plan := p.Resolver.Resolve(ctx, dest)
	var list []Answer
	for i := range plan.Hosts[:min(len(plan.Hosts), maxHosts)] {
		h := &plan.Hosts[i]
		for _, target := range p.targets(plan, h, smtpclient.Demand{STS: d.STS, Plan: plan, Host: h}) {
			a := Answer{Host: h.Name, Addr: target.Addr}
			session, err := p.Client.Connect(ctx, target)
			if err == nil {
				a.Info = session.Info()
				session.Close()
			} else if !errors.As(err, &a.Err) { // all errors of Connect are
				continue
			}
			list = append(list, a)
		}
	}
	return list
}

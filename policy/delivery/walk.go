package delivery

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"postseal/policy"
	"postseal/policy/dane"
	"postseal/policy/mtasts"
	"postseal/policy/requiretls"
	"postseal/policy/smtpclient"
)

const (
	// maxAddrs addresses of one host are tried, and maxTries in all: so many that
	// all time out, after 30 s each, within the deadline. Postfix tries 5
	// addresses of all hosts together (smtp_mx_address_limit).
	maxAddrs, maxTries = 5, 15
)

// walk delivers to one next hop, host by host, until all recipients have a final
// reply or no host is left (RFC 5321 §5.1).
type walk struct {
	*delivery
	*group

	decision  *policy.Decision         // nil for address literals and the local relay
	left      []int                    // recipients without a final reply
	temporary map[int]smtpclient.Reply // what a host said to one of them, of class 4
	setbacks  []setback
	untried   bool                // there were more hosts or addresses than are tried
	taker     *smtpclient.Session // that took the message; nil: none did
}

// candidate is one host.
type candidate struct {
	client *smtpclient.Client
	name   string
	addrs  []netip.AddrPort
	demand smtpclient.Demand
}

// run ends when every recipient of the group has a reply.
func (w *walk) run(ctx context.Context) {
	start := w.s.now()
	defer func() { w.tell(start) }()
	defer w.caught()
	candidates, r := w.find(ctx)
	if r.Code == 0 {
		w.visit(ctx, candidates)
		r = w.verdict(ctx)
	}
	replies := map[int]smtpclient.Reply{}
	for _, i := range w.left {
		replies[i] = r
		if t, ok := w.temporary[i]; ok && r.Code != 0 {
			replies[i] = t
		}
	}
	w.settle(replies)
}

// caught keeps an error of ours from ending the daemon, which all other mail needs:
// the mail server would bring the message that it trips over again and again.
func (w *walk) caught() {
	v := recover()
	if v == nil {
		return
	}
	w.log.Error("panic in a delivery", "nexthop", w.nextHop.String(), "panic", fmt.Sprint(v), "stack", string(debug.Stack()))
	replies := map[int]smtpclient.Reply{}
	for _, i := range w.recipients {
		replies[i] = answer(451, "4.3.0", "internal error")
	}
	w.settle(replies)
}

// tell logs what became of the group.
func (w *walk) tell(start time.Time) {
	count := [3]int{}
	w.mu.Lock()
	for _, i := range w.recipients {
		switch w.replies[i].Code / 100 {
		case 2:
			count[0]++
		case 5:
			count[2]++
		default:
			count[1]++
		}
	}
	w.mu.Unlock()
	attrs := []any{"nexthop", w.nextHop.String(), "mode", w.mode.String(),
		"sent", count[0], "deferred", count[1], "refused", count[2], "setbacks", len(w.setbacks), "took", w.s.now().Sub(start)}
	if w.taker != nil {
		secured := "no"
		if i := w.taker.Info(); i.TLS {
			secured = i.Secured.String()
		}
		attrs = append(attrs, "host", w.taker.Target().String(), "secured", secured)
	}
	w.log.Info("delivery", attrs...)
}

// find gives the hosts in the order in which they are to be tried; or the reply for
// all recipients, where there is none.
func (w *walk) find(ctx context.Context) ([]*candidate, smtpclient.Reply) {
	switch {
	case w.local:
		c, err := w.s.localRelay()
		if err != nil {
			return nil, answer(451, "4.3.5", err.Error())
		}
		return []*candidate{c}, smtpclient.Reply{}
	case w.literal.IsValid():
		return w.atLiteral()
	}
	d, p := w.s.Resolver.Resolve(ctx, w.dest)
	w.decision = d
	if r := w.unroutable(ctx, d, p); r.Code != 0 {
		return nil, r
	}
	hosts, r := w.hosts(p)
	if r.Code != 0 {
		return nil, r
	}
	w.untried = p.Skipped > 0

	var candidates []*candidate
	for _, h := range hosts {
		demand, f := smtpclient.Require(d, p, h, w.mode, w.m.envelope.From == "")
		if f != nil {
			w.failed(h, f)
			w.s.unmet(w, h, f)
			continue
		}
		c := &candidate{client: w.s.Client, name: h.Name, demand: demand}
		for _, a := range h.Addrs {
			c.addrs = append(c.addrs, netip.AddrPortFrom(a, w.dest.Port))
		}
		candidates = append(candidates, c)
	}
	return candidates, smtpclient.Reply{}
}

// unroutable is the reply where DNS leaves no host to try, or the requirement
// cannot be told.
func (w *walk) unroutable(ctx context.Context, d *policy.Decision, p *dane.Plan) smtpclient.Reply {
	domain := w.dest.Domain
	switch {
	case ctx.Err() != nil:
		return unfinished(ctx, "DNS lookups for "+domain)
	case len(p.Hosts) == 0 && p.Err != nil:
		return answer(451, "4.4.3", p.Err.Error())
	case d.Level == policy.LevelTemp && !w.relaxed():
		w.reportBroken(d, p)
		return answer(451, "4.7.5", "the TLS policy of "+domain+" cannot be told: "+d.Reason)
	case p.NullMX: // RFC 7505 §3
		return answer(556, "5.1.10", domain+" accepts no mail (null MX)")
	case p.NoDomain: // RFC 5321 §5.1
		return answer(550, "5.1.2", domain+" does not exist")
	}
	return smtpclient.Reply{}
}

// hosts are those of the plan that come before ourselves, equal ones in random order
// (RFC 5321 §5.1).
func (w *walk) hosts(p *dane.Plan) ([]*dane.Host, smtpclient.Reply) {
	var hosts []*dane.Host
	for i := range p.Hosts {
		hosts = append(hosts, &p.Hosts[i])
	}
	rand.Shuffle(len(hosts), func(i, j int) { hosts[i], hosts[j] = hosts[j], hosts[i] })
	slices.SortStableFunc(hosts, func(a, b *dane.Host) int { return int(a.Preference) - int(b.Preference) })

	for _, own := range hosts {
		if !w.s.isOwn(own, p) {
			continue
		}
		better := slices.IndexFunc(hosts, func(h *dane.Host) bool { return h.Preference >= own.Preference })
		if better == 0 {
			return nil, answer(554, "5.4.6", "mail for "+w.dest.Domain+" loops back to myself: "+own.Name+"; are these local recipients, which delivery.local_domains lacks?")
		}
		return hosts[:better], smtpclient.Reply{}
	}
	return hosts, smtpclient.Reply{}
}

// isOwn reports whether a host is this one: by its name or address, unless it was
// named by an administrator, who may well run something else at another port; or
// by an address at which we listen, which mail would come back from for ever.
func (s *Server) isOwn(h *dane.Host, p *dane.Plan) bool {
	if !p.Fixed {
		for _, name := range append([]string{s.ownName()}, s.Names...) {
			if name != "" && strings.EqualFold(strings.TrimSuffix(name, "."), h.Name) {
				return true
			}
		}
	}
	for _, a := range h.Addrs {
		if !p.Fixed && slices.Contains(s.Addresses, a) || s.state.listens(netip.AddrPortFrom(a, p.Port)) {
			return true
		}
	}
	return false
}

// ownName is the name that we go by.
func (s *Server) ownName() string {
	if s.Hostname != "" {
		return s.Hostname
	}
	name, err := os.Hostname()
	if err != nil {
		return ""
	}
	return name
}

// atLiteral is the one candidate of an address literal. It has no policy (RFC 8461
// §3.4) and no name that a certificate could prove, hence no REQUIRETLS.
func (w *walk) atLiteral() ([]*candidate, smtpclient.Reply) {
	if w.s.state.listens(w.literal) || !w.routed && slices.Contains(w.s.Addresses, w.literal.Addr()) {
		return nil, answer(554, "5.4.6", "mail for "+w.literal.String()+" loops back to myself")
	}
	c := &candidate{client: w.s.Client, addrs: []netip.AddrPort{w.literal}}
	if w.mode == requiretls.Required && w.m.envelope.From != "" {
		c.demand = smtpclient.Demand{Security: smtpclient.PKIX, RequireTLS: true}
	}
	return []*candidate{c}, smtpclient.Reply{}
}

// visit goes through the addresses of the hosts in order. Those at which nothing
// answered a moment ago come last, if there are others.
func (w *walk) visit(ctx context.Context, candidates []*candidate) {
	type target struct {
		*candidate
		addr netip.AddrPort
	}
	var alive, dead []target
	now := w.s.now()
	for _, c := range candidates {
		addrs := w.usable(c)
		if len(addrs) > maxAddrs {
			addrs, w.untried = few(addrs), true
		}
		for _, a := range addrs {
			if w.s.state.dead.is(a, now) {
				dead = append(dead, target{c, a})
				continue
			}
			alive = append(alive, target{c, a})
		}
	}
	for tries, t := range append(alive, dead...) {
		if ctx.Err() != nil { // what is not begun by now never is, not even over a session that waits
			return
		}
		if tries == maxTries {
			w.untried = true
			return
		}
		if !w.attempt(ctx, t.candidate, t.addr) || len(w.left) == 0 {
			return
		}
	}
}

// few are the first maxAddrs of more addresses, in their order, two of each family
// at least where there are so many: this machine may have no route to one of them.
func few(addrs []netip.AddrPort) []netip.AddrPort {
	const each = 2
	var total [2]int // by family
	for _, a := range addrs {
		total[family(a)]++
	}
	var kept []netip.AddrPort
	room := [2]int{maxAddrs - min(each, total[1]), maxAddrs - min(each, total[0])}
	for _, a := range addrs {
		if f := family(a); room[f] > 0 && len(kept) < maxAddrs {
			room[f]--
			kept = append(kept, a)
		}
	}
	return kept
}

func family(a netip.AddrPort) int {
	if a.Addr().Unmap().Is4() {
		return 0
	}
	return 1
}

// usable are the addresses of a host that may be connected to. Whoever can publish an
// MX record must not choose hosts inside the operator's network.
func (w *walk) usable(c *candidate) []netip.AddrPort {
	if w.local || w.routed || w.s.AllowPrivate {
		return c.addrs
	}
	var public []netip.AddrPort
	for _, a := range c.addrs {
		if mtasts.IsPublic(a.Addr()) {
			public = append(public, a)
			continue
		}
		t := smtpclient.Target{Name: c.name, Addr: a}
		w.failed(c.demand.Host, &smtpclient.Failure{Stage: smtpclient.StageConnect, Reply: answer(451, "4.4.4", t.String()+": not a public address")})
	}
	return public
}

func (w *walk) relaxed() bool { return w.mode == requiretls.Relaxed }

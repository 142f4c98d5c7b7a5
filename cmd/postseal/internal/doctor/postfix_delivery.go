package doctor

import (
	"context"
	"slices"
	"strings"
)

// checkPostfixDelivery looks at both halves of the way to the delivery fallback.
func checkPostfixDelivery(_ context.Context, e *env) []Finding {
	p := e.postfix
	if p == nil {
		return nil
	}
	maps := slices.DeleteFunc(p.socketmaps("transport_maps"), func(m socketmap) bool {
		return !e.listed(m.place, e.Config.Socketmap.Listen)
	})
	d := &e.Config.Delivery
	switch {
	case len(maps) == 0 && len(d.Listen) == 0:
		return nil
	case len(maps) == 0:
		if len(d.For) == 0 {
			return nil
		}
		return []Finding{warning("delivery.for sends mail to the fallback, but transport_maps does not ask postseal: nothing gets there", "postconf -e 'transport_maps = "+e.suggestMap("transport")+"'; postfix reload   (your own maps before it); or delivery.for = []")}
	case len(d.Listen) == 0:
		return []Finding{warning("transport_maps asks postseal, but delivery.listen is not set: nothing is ever routed", "delivery.listen in "+e.file()+"; or take it out of transport_maps: while the daemon is down it makes RCPT TO fail with 451")}
	}
	found := []Finding{}
	if m := maps[0]; m.name != "transport" {
		found = append(found, failure("transport_maps asks the map "+m.name+", which is none of transports", "postconf -e 'transport_maps = "+e.suggestMap("transport")+"'; postfix reload"))
	} else {
		found = append(found, e.inChroot(m, "transport_maps", "trivial-rewrite")...)
	}
	if p.service("postseal", "unix") == nil {
		found = append(found, failure("master.cf has no service postseal, which the map transport names: such mail waits", "add the lines of contrib's master.cf; postfix reload"))
	}
	if at, good := p.place(d.NextHop); !good || !e.listed(at, d.Listen) {
		found = append(found, failure("delivery.nexthop "+d.NextHop+" is none of delivery.listen, "+strings.Join(d.Listen, ", ")+": such mail waits", `delivery.nexthop = "`+e.postfixPlace(d.Listen[0])+`"`))
	}
	if len(found) == 0 {
		found = append(found, ok("transport_maps routes to the delivery fallback"))
	}
	return found
}

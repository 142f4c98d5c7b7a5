package lint

import (
	"fmt"
	"net/netip"

	"postseal/policy/dane"
	"postseal/policy/mtasts"
)

// mx looks at the MX records themselves.
func (c *checker) mx() {
	r, p := c.Records, c.Records.Plan
	null := 0
	for _, m := range r.MX {
		if m.Host == "" {
			null++
		}
	}
	switch {
	case p.Fixed:
		return
	case p.NoDomain:
		c.add(Error, "there is no domain "+c.domain(), "mail to it bounces (RFC 5321 §5.1)", "register it, or mend its delegation")
	case p.NullMX:
		c.nullMX()
	case null > 0:
		c.add(Warning, "a null MX (0 .) stands beside other MX records of "+c.domain(),
			"a domain that accepts no mail must not have another MX; senders differ in which they believe (RFC 7505 §3)",
			"remove the null MX, or all the others")
	case p.Implicit:
		c.add(Tip, c.domain()+" has no MX record and is its own mail host", "senders fall back to its address (RFC 5321 §5.1); it works, but is often an accident",
			fmt.Sprintf("%s. MX 10 %s.; or, if it gets no mail, %s. MX 0 . (RFC 7505)", c.domain(), c.domain(), c.domain()))
	}
	for _, m := range r.MX {
		if _, err := netip.ParseAddr(m.Host); err == nil {
			c.add(Error, "the MX record names an address, "+m.Host, "it must name a host: this one resolves to nothing, and neither DANE nor MTA-STS can hold (RFC 5321 §5.1, RFC 7672 §2.2)",
				"a host name with an A or AAAA record")
		}
	}
}

// nullMX: what else is published for a domain that takes no mail helps nobody.
func (c *checker) nullMX() {
	if _, err := mtasts.ParseRecord(c.Records.STS.Text); err == nil {
		c.add(Tip, "an MTA-STS record stands beside a null MX", "nobody delivers to a domain with a null MX (RFC 7505 §3), so nobody needs its policy",
			"remove _mta-sts."+c.domain())
	}
}

// hosts looks at what the MX records name.
func (c *checker) hosts() {
	for _, name := range c.Records.Aliased {
		c.add(Warning, "MX host "+name+" is an alias (CNAME)", "an MX must name a host with addresses of its own (RFC 5321 §5.1, RFC 2181 §10.3); some senders refuse it, and MTA-STS compares the name in the MX record, not its target (RFC 8461 §4.1)",
			"name the target in the MX record")
	}
	for i := range c.Records.Plan.Hosts {
		switch h := &c.Records.Plan.Hosts[i]; {
		case h.State == dane.Absent, h.State == dane.Insecure && len(h.Addrs) == 0 && !c.Records.Plan.NoDomain:
			c.add(Warning, "MX host "+h.Name+" has no address", "senders try it in vain, and if it is the only one, mail waits or bounces (RFC 5321 §5.1)",
				"an A or AAAA record, or no MX record that names it")
		case h.State == dane.Broken:
			c.add(Error, "MX host "+h.Name+": "+h.Reason, "senders that do DANE treat it as unreachable and let mail wait (RFC 7672 §2.1.2)",
				"mend the name servers or the signatures of its zone")
		}
	}
	if p := c.Records.Plan; p.Class == dane.ClassBroken && len(p.Hosts) == 0 {
		c.add(Error, "the MX records cannot be looked up: "+p.Reason, "senders that do DANE let mail wait (RFC 7672 §2.1.2)", "mend the name servers or the signatures of "+c.domain())
	}
}

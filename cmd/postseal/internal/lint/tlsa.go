package lint

import (
	"encoding/hex"
	"fmt"
	"slices"
	"strings"

	"postseal/cmd/postseal/internal/control"
	"postseal/policy/dane"
	"postseal/policy/dnssec"
)

// dnssec looks at which hosts DANE can hold at.
func (c *checker) dnssec() {
	p := c.Records.Plan
	if !c.Explanation.Validation.On {
		c.add(Tip, "DNSSEC and TLSA records cannot be judged from here", "DNSSEC validation is off: "+c.Explanation.Validation.Reason+" (RFC 7672 §2.1.1)", `run "postseal doctor", then ask again`)
		return
	}
	for _, name := range c.Records.Unsigned {
		c.add(Error, c.Records.tlsaName(name)+" has TLSA records, but the addresses of "+name+" are not signed", "senders must not use TLSA records without DNSSEC, and do not even ask (RFC 7672 §2.2.2)", "sign the zone of "+name+", with a DS record at its parent")
	}
	var with, without []string
	for i := range p.Hosts {
		switch h := &p.Hosts[i]; h.State {
		case dane.Usable:
			with = append(with, h.Name)
		case dane.NoTLSA, dane.Insecure, dane.Unusable:
			without = append(without, h.Name)
		}
	}
	if len(with) > 0 && !p.MXSecure && !p.Fixed {
		c.add(Warning, "the MX records of "+c.domain()+" are not signed, though "+list(with)+" has TLSA records", "who forges the MX records leads mail elsewhere; DANE protects only the way to the host that they name (RFC 7672 §2.2.1)", "sign "+c.domain()+", with a DS record at its parent")
	}
	if len(with) > 0 && len(without) > 0 {
		c.add(Warning, fmt.Sprintf("%s has usable TLSA records, but %s has not", list(with), list(without)), "who can make the first fail has mail delivered to the others without authentication (RFC 7672 §2.2)", "TLSA records for every MX host")
	}
}

// tlsa looks at the TLSA records of each host.
func (c *checker) tlsa() {
	if !c.Explanation.Validation.On {
		return
	}
	seen := map[string]bool{}
	for i := range c.Records.Plan.Hosts {
		h := &c.Records.Plan.Hosts[i]
		if h.Base == "" || seen[h.Base] {
			continue
		}
		seen[h.Base] = true
		name := c.Records.tlsaName(h.Base)
		c.useless(name, h)
		c.forms(name, valid(h.TLSA))
		c.spare(name, h.Usable)
		c.uneven(name, h.TLSA)
	}
}

// useless tells of records that no sender uses, DANE-060 and DANE-061.
func (c *checker) useless(name string, h *dane.Host) {
	severity, why := Warning, "senders pass it over (RFC 7672 §3.1.3, RFC 6698 §4.1)"
	if len(h.Usable) == 0 {
		severity, why = Error, "no record is usable: senders demand TLS, but authenticate nobody (RFC 7672 §2.2)"
	}
	for _, r := range h.TLSA {
		err := dane.Check(r)
		if err == nil {
			continue
		}
		c.add(severity, fmt.Sprintf("%s: record %s: %v", name, written(r), err), why, bestForm)
	}
}

// bestForm is RFC 7672 §3.1, RFC 7671 §5.1.
const bestForm = "TLSA 3 1 1 with the SHA-256 of the server's public key; or TLSA 2 1 1 or 2 0 1 of the authority that issues its certificates"

// valid are the records that a sender may use, of whatever digest: one that knows the
// stronger digest passes over the weaker, and another the other way round.
func valid(records []dnssec.TLSA) []dnssec.TLSA {
	return slices.DeleteFunc(slices.Clone(records), func(r dnssec.TLSA) bool { return dane.Check(r) != nil })
}

// forms tells of records that work but not everywhere, DANE-101.
func (c *checker) forms(name string, usable []dnssec.TLSA) {
	sha256 := func(r dnssec.TLSA) bool { return r.MatchingType == 1 }
	for _, r := range usable {
		switch {
		case r.MatchingType == 0:
			c.add(Warning, fmt.Sprintf("%s: record %s has the whole certificate or key, not its digest", name, written(r)), "it makes answers large, which do not get through everywhere, and some senders do not take it (RFC 7671 §10.1.2)", bestForm)
		case r.Usage == 3 && r.Selector == 0:
			c.add(Tip, fmt.Sprintf("%s: record %s is of the certificate, not of its key", name, written(r)), "it fails at every renewal, even with the same key (RFC 7671 §5.1)", "TLSA 3 1 1")
		}
	}
	if len(usable) > 0 && !slices.ContainsFunc(usable, sha256) && slices.ContainsFunc(usable, func(r dnssec.TLSA) bool { return r.MatchingType == 2 }) {
		c.add(Warning, name+" has no SHA-256 digest", "it is the one that every sender must know; SHA-512 is optional (RFC 7672 §5, RFC 6698 §6)", "the same records with matching type 1")
	}
}

// spare tells of a host whose next key has no record yet, DANE-100.
func (c *checker) spare(name string, usable []dnssec.TLSA) {
	if len(usable) != 1 || usable[0].Usage != 3 {
		return
	}
	c.add(Warning, name+" has no roll-over record: one TLSA record, and none for the next key", "when the key changes, mail waits until every cached copy is gone; both must stand for two TTLs before (RFC 7671 §8, RFC 7672 §4)",
		"a second TLSA 3 1 1 of the next key, or a TLSA 2 1 1 of the authority that will issue its certificate")
}

// uneven tells of digests that cover different keys, DANE-102: senders use only the
// strongest digest of each usage and selector, which hides the keys of the others.
func (c *checker) uneven(name string, all []dnssec.TLSA) {
	type kind struct{ usage, selector uint8 }
	digests := map[kind][3]map[string]bool{}
	var kinds []kind
	for _, r := range all {
		if dane.Check(r) != nil || r.MatchingType == 0 {
			continue
		}
		k := kind{r.Usage, r.Selector}
		d, ok := digests[k]
		if !ok {
			d = [3]map[string]bool{1: {}, 2: {}}
			digests[k] = d
			kinds = append(kinds, k)
		}
		d[r.MatchingType][string(r.Data)] = true
	}
	for _, k := range kinds {
		one, two := len(digests[k][1]), len(digests[k][2])
		if one == 0 || two == 0 || one == two {
			continue
		}
		c.add(Warning, fmt.Sprintf("%s: TLSA %d %d 1 has %d digests, but %d %d 2 has %d", name, k.usage, k.selector, one, k.usage, k.selector, two),
			"senders use only the strongest digest of a usage and selector, so a key that it leaves out does not count (RFC 7671 §8, §9)",
			fmt.Sprintf("each key in both, or only TLSA %d %d 1", k.usage, k.selector))
	}
}

// written is a record with as much of its data as tells it from others.
func written(r dnssec.TLSA) string {
	const most = 8 // octets
	s := fmt.Sprintf("%d %d %d %s", r.Usage, r.Selector, r.MatchingType, hex.EncodeToString(r.Data[:min(len(r.Data), most)]))
	if len(r.Data) > most {
		s += "..."
	}
	return s
}

// probed looks at what the hosts have shown, where they were connected to.
func (c *checker) probed() {
	x := c.Explanation
	if x.Probed == nil {
		return
	}
	for i := range c.Records.Plan.Hosts {
		h := &c.Records.Plan.Hosts[i]
		var answers []control.Probe
		for _, p := range x.Probed.Answers {
			if strings.EqualFold(p.Host, h.Name) {
				answers = append(answers, p)
			}
		}
		c.selective(h, answers)
		for _, p := range answers {
			c.answer(h, p)
		}
	}
}

const noSTARTTLS = "starttls-not-supported" // RFC 8460 §4.3.1

// selective tells of a host with TLSA records that has STARTTLS for some only,
// DANE-103. From one machine that shows when one of its addresses, IPv4 or IPv6, is
// treated otherwise than the other.
func (c *checker) selective(h *dane.Host, answers []control.Probe) {
	var offered, refused []string
	for _, p := range answers {
		switch {
		case p.TLS != "":
			offered = append(offered, p.Address)
		case p.Result == noSTARTTLS:
			refused = append(refused, p.Address)
		}
	}
	switch {
	case h.Base == "" || len(refused) == 0:
	case len(offered) > 0:
		c.add(Warning, fmt.Sprintf("%s has TLSA records and offers STARTTLS at %s, but not at %s", h.Name, list(offered), list(refused)), "a host with TLSA records must offer it to every client: some senders' mail waits (RFC 7672 §9.2)", "STARTTLS for all clients at all addresses")
	default:
		c.add(Error, h.Name+" has TLSA records, but does not offer STARTTLS", "senders that do DANE never deliver there in clear: mail waits, and bounces in the end (RFC 7672 §2.2)", "STARTTLS; or remove the TLSA records, and wait two TTLs")
	}
}

func (c *checker) answer(h *dane.Host, p control.Probe) {
	at := h.Name + " (" + p.Address + ")"
	if p.DANE != "" {
		instead := "a TLSA record of the certificate that is in use, beside the old one; no renewal before its record has stood for two TTLs (RFC 7671 §8)"
		if !slices.ContainsFunc(h.Usable, func(r dnssec.TLSA) bool { return r.Usage != 2 }) {
			instead = "a server that sends the certificate of usage 2 in its chain, below a leaf that bears the host's name (RFC 7671 §5.2.2); or TLSA 3 1 1"
		}
		c.add(Error, at+" fails by its TLSA records: "+p.DANE, "senders that do DANE do not deliver there (RFC 7672 §2.2)", instead)
	}
	if f := c.Records.Policy; f != nil && p.STS != "" && p.STS == p.PKIX {
		c.add(Error, at+" fails by its certificate: "+p.PKIX, "senders that honour the MTA-STS policy do not deliver there, with mode enforce (RFC 8461 §4.2)", "a certificate of a known authority for "+h.Name+", with its intermediates")
	}
}

package postfix

import (
	"bytes"
	"encoding/binary"
	"strings"

	"postseal/reporting/ingest/foreign"
)

// nameCache keeps what was read of the last hosts and domains, each in the one
// place that it may have: logs are full of the same ones.
type nameCache struct {
	hosts   [1 << cacheBits]mxHost
	domains [1 << cacheBits]recipientDomain
}

// cacheBits keeps the cache within what a processor has near it.
const cacheBits = 12

// recipientDomain is a domain as it was logged, and as it is reported.
type recipientDomain struct{ logged, name string }

// place mixes the beginning and the end of a name, where names differ. What collides is
// read again.
func place(name []byte) uint64 {
	var short [8]byte
	first := name
	if len(name) < len(short) {
		copy(short[:], name)
		first = short[:]
	}
	h := binary.LittleEndian.Uint64(first)*0x9e3779b97f4a7c15 ^ binary.LittleEndian.Uint64(first[len(first)-8:])
	return h * 0x9e3779b97f4a7c15 >> (64 - cacheBits) // 2^64 by the golden ratio, as Fibonacci hashing does
}

// of reads "H[IP]".
func (n *nameCache) of(relay []byte) mxHost {
	kept := &n.hosts[place(relay)]
	if kept.relay != string(relay) {
		*kept = mxHost{relay: string(relay)}
		if host, ip, ok := strings.Cut(kept.relay, "["); ok {
			kept.host, _ = foreign.DomainName(host)
			kept.ip = foreign.Address(strings.TrimSuffix(ip, "]"))
		}
	}
	return *kept
}

// domain is that of a recipient; "" if it has none to report to.
func (n *nameCache) domain(address []byte) string {
	i := bytes.LastIndexByte(address, '@')
	if i < 0 || len(address)-i > 4*foreign.MaxName {
		return ""
	}
	logged := address[i+1:]
	kept := &n.domains[place(logged)]
	if kept.logged != string(logged) {
		kept.logged = string(logged)
		kept.name, _ = foreign.DomainName(kept.logged)
	}
	return kept.name
}

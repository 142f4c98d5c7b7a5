package ingest

import (
	"bytes"
	"hash/crc32"
	"strings"
)

// nameCache keeps what was read of the last hosts and domains, each in the place that
// its checksum gives: logs are full of the same ones.
type nameCache struct {
	hosts   [1 << cacheBits]mxHost
	domains [1 << cacheBits]recipientDomain
}

// cacheBits keeps the cache within what a processor has near it.
const cacheBits = 12

// recipientDomain is a domain as it was logged, and as it is reported.
type recipientDomain struct{ logged, name string }

// castagnoli has instructions of its own on most processors.
var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// of reads "H[IP]".
func (n *nameCache) of(relay []byte) mxHost {
	place := &n.hosts[crc32.Checksum(relay, castagnoli)>>(32-cacheBits)]
	if place.relay != string(relay) {
		*place = mxHost{relay: string(relay)}
		if host, ip, ok := strings.Cut(place.relay, "["); ok {
			place.host, _ = domainName(host)
			place.ip = address(strings.TrimSuffix(ip, "]"))
		}
	}
	return *place
}

// domain is that of a recipient; "" if it has none to report to.
func (n *nameCache) domain(address []byte) string {
	i := bytes.LastIndexByte(address, '@')
	if i < 0 || len(address)-i > 4*maxName {
		return ""
	}
	logged := address[i+1:]
	place := &n.domains[crc32.Checksum(logged, castagnoli)>>(32-cacheBits)]
	if place.logged != string(logged) {
		place.logged = string(logged)
		place.name, _ = domainName(place.logged)
	}
	return place.name
}

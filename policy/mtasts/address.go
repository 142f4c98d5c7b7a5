package mtasts

import (
	"net/netip"
)

// special4 are the special-purpose blocks of IPv4 in which no public web server
// can be (IANA IPv4 Special-Purpose Address Registry, RFC 6890).
var special4 = [...]netip.Prefix{
	netip.MustParsePrefix("0.0.0.0/8"),       // this network, RFC 791
	netip.MustParsePrefix("10.0.0.0/8"),      // private, RFC 1918
	netip.MustParsePrefix("100.64.0.0/10"),   // shared (CGNAT), RFC 6598
	netip.MustParsePrefix("127.0.0.0/8"),     // loopback, RFC 1122
	netip.MustParsePrefix("169.254.0.0/16"),  // link-local, RFC 3927; metadata services of clouds
	netip.MustParsePrefix("172.16.0.0/12"),   // private, RFC 1918
	netip.MustParsePrefix("192.0.0.0/24"),    // IETF protocols, RFC 6890
	netip.MustParsePrefix("192.0.2.0/24"),    // documentation, RFC 5737
	netip.MustParsePrefix("192.88.99.0/24"),  // 6to4 relays, RFC 7526
	netip.MustParsePrefix("192.168.0.0/16"),  // private, RFC 1918
	netip.MustParsePrefix("198.18.0.0/15"),   // benchmarks, RFC 2544
	netip.MustParsePrefix("198.51.100.0/24"), // documentation, RFC 5737
	netip.MustParsePrefix("203.0.113.0/24"),  // documentation, RFC 5737
	netip.MustParsePrefix("224.0.0.0/4"),     // multicast, RFC 5771
	netip.MustParsePrefix("240.0.0.0/4"),     // reserved and broadcast, RFC 1112
}

var (
	global6 = netip.MustParsePrefix("2000::/3")     // all of global unicast, RFC 4291
	nat64   = netip.MustParsePrefix("64:ff9b::/96") // RFC 6052: IPv4 in the last 4 bytes
	sixTo4  = netip.MustParsePrefix("2002::/16")    // RFC 3056: IPv4 in bytes 2 to 5

	// special6 are the parts of global6 without public servers (IANA IPv6
	// Special-Purpose Address Registry).
	special6 = [...]netip.Prefix{
		netip.MustParsePrefix("2001::/23"),     // IETF protocols with Teredo, RFC 2928
		netip.MustParsePrefix("2001:db8::/32"), // documentation, RFC 3849
		netip.MustParsePrefix("3fff::/20"),     // documentation, RFC 9637
	}
)

// IsPublic reports whether a public server can have the address. Otherwise whoever
// controls a domain could have us connect to the operator's own network by
// giving its policy host, or its MX host, such an address.
func IsPublic(addr netip.Addr) bool {
	addr = addr.WithZone("").Unmap()
	if addr.Is4() {
		for _, p := range special4 {
			if p.Contains(addr) {
				return false
			}
		}
		return true
	}
	if !addr.IsValid() {
		return false
	}
	b := addr.As16()
	if nat64.Contains(addr) {
		return IsPublic(netip.AddrFrom4([4]byte(b[12:16])))
	}
	if sixTo4.Contains(addr) {
		return IsPublic(netip.AddrFrom4([4]byte(b[2:6])))
	}
	if !global6.Contains(addr) {
		return false
	}
	for _, p := range special6 {
		if p.Contains(addr) {
			return false
		}
	}
	return true
}

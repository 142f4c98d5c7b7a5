package send

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"strconv"
	"strings"

	"golang.org/x/net/idna"
)

const (
	httpsPort = "443"
	maxURI    = 2048 // twice what a record's may have, for a redirect
	maxName   = 253  // RFC 1035 §2.3.4
)

// origin is a URI to post to, and the server that it names.
type origin struct {
	url  *url.URL   // as published
	host string     // in lower-case A-labels without final dot, or an address
	addr netip.Addr // if host is an address
	port uint16
}

func (o *origin) String() string { return printable(o.host, maxName) }

func parseOrigin(uri string) (*origin, error) {
	if len(uri) > maxURI {
		return nil, fmt.Errorf("longer than %d bytes", maxURI)
	}
	u, err := url.Parse(uri)
	if err != nil || u.Host == "" || u.Opaque != "" {
		return nil, errors.New("no URL with a host")
	}
	return newOrigin(u)
}

func newOrigin(u *url.URL) (*origin, error) {
	if u.Scheme != "https" {
		return nil, errors.New("not https")
	}
	if u.User != nil {
		return nil, errors.New("has a user name")
	}
	port, err := strconv.ParseUint(cmp.Or(u.Port(), httpsPort), 10, 16)
	if err != nil || port == 0 {
		return nil, errors.New("no valid port")
	}
	o := &origin{url: u, host: u.Hostname(), port: uint16(port)}
	if o.addr, err = netip.ParseAddr(o.host); err == nil {
		o.addr = o.addr.Unmap()
		return o, nil
	}
	if o.host, err = hostName(o.host); err != nil {
		return nil, err
	}
	return o, nil
}

// hostName makes a name fit for a query and for SNI.
func hostName(s string) (string, error) {
	s = strings.TrimSuffix(s, ".")
	for i := range len(s) {
		if s[i] >= 0x80 {
			ascii, err := idna.Lookup.ToASCII(s)
			if err != nil {
				return "", errors.New("no valid host name")
			}
			s = ascii
			break
		}
	}
	if !isName(s) {
		return "", errors.New("no valid host name")
	}
	return strings.ToLower(s), nil
}

// isName reports whether s can be a name in A-labels, with underscores.
func isName(s string) bool {
	if len(s) > maxName {
		return false
	}
	for label := range strings.SplitSeq(s, ".") {
		if label == "" || len(label) > 63 || strings.ContainsFunc(label, func(c rune) bool {
			return (c < '0' || c > '9') && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && c != '-' && c != '_'
		}) {
			return false
		}
	}
	return true
}

// redirect is where a Location leads to (RFC 9110 §10.2.2), if that is on the same
// server.
func (o *origin) redirect(location string) (*origin, error) {
	if location == "" || len(location) > maxURI {
		return nil, errors.New("no Location, or a very long one")
	}
	u, err := o.url.Parse(location)
	if err != nil || u.Opaque != "" {
		return nil, fmt.Errorf("%s is no URL", quoted(location))
	}
	next, err := newOrigin(u)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", quoted(location), err)
	}
	if next.host != o.host || next.addr != o.addr || next.port != o.port {
		return nil, fmt.Errorf("%s is on another server", quoted(location))
	}
	return next, nil
}

package policy

import (
	"errors"
	"strconv"
	"strings"
	"unicode/utf8"

	"golang.org/x/net/idna"
)

// ErrNoPolicy is returned for keys that no policy can exist for: parents
// (".example.org"), address literals, socket paths, single labels, names that
// are no host names. No question may be asked about them.
var ErrNoPolicy = errors.New("no policy can exist for this destination")

// maxName is the longest domain name in presentation form (RFC 1035 §2.3.4).
const maxName = 253

// Destination is a next hop as a mail server names it.
type Destination struct {
	Domain string // A-labels, lower case, no final dot
	Port   uint16 // 25 unless the key said otherwise
	Fixed  bool   // [host]: the mail server makes no MX lookup
}

// String is the canonical form, which is also the key it is remembered under:
// "example.org", "example.org:587", "[mx.example.org]:25".
func (d Destination) String() string {
	switch {
	case d.Fixed:
		return "[" + d.Domain + "]:" + strconv.Itoa(int(d.Port))
	case d.Port != 25:
		return d.Domain + ":" + strconv.Itoa(int(d.Port))
	}
	return d.Domain
}

// Unicode is String with U-labels, as a mail server with SMTPUTF8 may name it.
func (d Destination) Unicode() string {
	if name, err := userName.ToUnicode(d.Domain); err == nil {
		d.Domain = name
	}
	return d.String()
}

// services are the port names that mail configurations use (IANA names of
// ports 25, 465 and 587; Postfix passes "[host]:smtp" on as written).
var services = map[string]uint16{"smtp": 25, "submission": 587, "submissions": 465, "smtps": 465}

// ParseDestination reads a Postfix next hop: D, D., D:port, [D], [D]:port, in
// any case, D in A-labels or U-labels (postconf(5), relayhost). Every other
// key is ErrNoPolicy.
func ParseDestination(key string) (Destination, error) {
	d := Destination{Port: 25}
	host, port, fixed := splitKey(key)
	if port != "" {
		n, ok := parsePort(port)
		if !ok {
			return Destination{}, ErrNoPolicy
		}
		d.Port = n
	}
	d.Fixed = fixed
	name, err := canonical(host)
	if err != nil {
		return Destination{}, err
	}
	d.Domain = name
	return d, nil
}

func splitKey(key string) (host, port string, fixed bool) {
	if rest, ok := strings.CutPrefix(key, "["); ok {
		host, rest, ok := strings.Cut(rest, "]")
		if !ok {
			return "", "", true
		}
		port, colon := strings.CutPrefix(rest, ":")
		if rest != "" && (!colon || port == "") {
			return "", "", true
		}
		return host, port, true
	}
	host, port, colon := strings.Cut(key, ":")
	if colon && port == "" {
		return "", "", false
	}
	return host, port, false
}

func parsePort(s string) (uint16, bool) {
	if n, ok := services[strings.ToLower(s)]; ok {
		return n, true
	}
	n, err := strconv.ParseUint(s, 10, 16)
	return uint16(n), err == nil && n != 0 && s[0] != '+'
}

// userName maps what people write to A-labels (RFC 8461 §3.2, RFC 5891 §5).
var userName = idna.New(idna.MapForLookup(), idna.StrictDomainName(true), idna.VerifyDNSLength(true), idna.BidiRule())

func canonical(host string) (string, error) {
	if len(host) > 4*maxName { // UTF-8 of a name that could still fit
		return "", ErrNoPolicy
	}
	if name, ok := AppendName(nil, []byte(host)); ok {
		return string(name), nil
	}
	if isASCII(host) || !utf8.ValidString(host) {
		return "", ErrNoPolicy
	}
	ascii, err := userName.ToASCII(strings.TrimSuffix(host, "."))
	if err != nil { // the library returns a name beside the error
		return "", ErrNoPolicy
	}
	name, ok := AppendName(nil, []byte(ascii))
	if !ok {
		return "", ErrNoPolicy
	}
	return string(name), nil
}

func isASCII(s string) bool {
	for i := range len(s) {
		if s[i] >= 0x80 {
			return false
		}
	}
	return true
}

// AppendName appends the canonical form of key to dst, without allocating if
// dst has room, when key is a plain ASCII domain name of two labels or more;
// ok is false for every other key. Underscores are let through since Postfix
// lets them (valid_hostname(3)); an all-digit last label would be an address.
func AppendName(dst, key []byte) (name []byte, ok bool) {
	if n := len(key); n > 0 && key[n-1] == '.' {
		key = key[:n-1]
	}
	if len(key) == 0 || len(key) > maxName {
		return nil, false
	}
	start := len(dst)
	label, dots, digits := 0, 0, true
	for i, c := range key {
		if c >= 'A' && c <= 'Z' {
			c |= 0x20
		}
		switch {
		case c == '.':
			if label == 0 || key[i-1] == '-' {
				return nil, false
			}
			label, digits = -1, true
			dots++
		case c == '-':
			if label == 0 {
				return nil, false
			}
			digits = false
		case c >= 'a' && c <= 'z', c == '_':
			digits = false
		case c >= '0' && c <= '9':
		default:
			return nil, false
		}
		if label++; label > 63 { // RFC 1035 §2.3.4
			return nil, false
		}
		dst = append(dst, c)
	}
	if dots == 0 || label == 0 || digits || dst[len(dst)-1] == '-' {
		return nil, false
	}
	return dst[start:], true
}

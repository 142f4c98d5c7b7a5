package config

import (
	"crypto/x509"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"time"

	"postseal/cmd/postseal/internal/tomlfile"
	"postseal/milter"
	"postseal/policy"
	"postseal/policy/delivery"
)

// Milter tags messages for REQUIRETLS and TLS-Required: No (RFC 8689).
type Milter struct {
	Listen          Listen       `toml:"listen"`
	Mode            string       `toml:"mode"` // octal
	Owner           string       `toml:"owner"`
	Group           string       `toml:"group"`
	Route           string       `toml:"route"`    // "header" or "recipient"
	OnError         string       `toml:"on_error"` // "tempfail" or "accept"
	TrustedNetworks []string     `toml:"trusted_networks"`
	RelaxedFrom     string       `toml:"relaxed_from"` // "anyone" or "trusted"
	Rules           []MilterRule `toml:"rule"`
}

// MilterRule tags what it matches; the first that matches counts. Empty patterns
// match everything, but not all may be empty.
type MilterRule struct {
	Sender    string `toml:"sender"`    // "user@example.org", "@example.org", ".example.org", "*"
	Recipient string `toml:"recipient"` // the same
	User      string `toml:"user"`      // authenticated
	Tag       string `toml:"tag"`       // "requiretls", "relaxed" or "none"
}

// Delivery is the fallback for what the mail server cannot do. Mode, owner and
// group are of its unix sockets.
type Delivery struct {
	Listen                Listen        `toml:"listen"`
	RequireTLSListen      Listen        `toml:"requiretls_listen"`
	RelaxedListen         Listen        `toml:"relaxed_listen"`
	Mode                  string        `toml:"mode"`
	Owner                 string        `toml:"owner"`
	Group                 string        `toml:"group"`
	Hostname              string        `toml:"hostname"` // "": the system's
	Port                  int           `toml:"port"`
	CAFile                string        `toml:"ca_file"` // "": the system's authorities
	AllowPrivateAddresses bool          `toml:"allow_private_addresses"`
	NextHop               string        `toml:"nexthop"`
	For                   []string      `toml:"for"`
	LocalDomains          []string      `toml:"local_domains"`
	LocalRelay            string        `toml:"local_relay"` // an endpoint; "": none
	Deadline              time.Duration `toml:"deadline"`
	MaxMessage            int64         `toml:"max_message"` // octets
	Routes                []Route       `toml:"route"`
}

// Route sends the mail of a domain, or of all below it, to a smart host.
type Route struct {
	Domain           string `toml:"domain"`  // "example.org", ".example.org" or "*"
	NextHop          string `toml:"nexthop"` // "host", "[host]", "host:port" or "[host]:port"; or an address in brackets
	RequireTLSExempt bool   `toml:"requiretls_exempt"`
}

// smartHost is r with its domain as names are compared.
func (r Route) smartHost() delivery.Route {
	if r.Domain != "*" {
		r.Domain = canonicalList([]string{r.Domain})[0] // which is one, as checked
	}
	return delivery.Route(r)
}

// SmartHosts are delivery.route.
func (c *Config) SmartHosts() []delivery.Route {
	var list []delivery.Route
	for _, r := range c.Delivery.Routes {
		list = append(list, r.smartHost())
	}
	return list
}

// Reasons to route to the fallback, in delivery.for.
const (
	forMixed    = "mixed"
	forDANE     = "dane"
	forSTS      = "sts"
	forUnusable = "unusable-tlsa"
)

func defaultMilter() Milter {
	return Milter{Listen: Listen{}, Mode: "0660", Route: "header", OnError: "tempfail",
		TrustedNetworks: []string{"127.0.0.0/8", "::1/128"}, RelaxedFrom: "anyone", Rules: []MilterRule{}}
}

func defaultDelivery() Delivery {
	return Delivery{Listen: Listen{}, RequireTLSListen: Listen{}, RelaxedListen: Listen{}, Mode: "0660", Port: 25,
		NextHop: "inet:127.0.0.1:8463", For: []string{forMixed, forDANE}, LocalDomains: []string{},
		Deadline: 9 * time.Minute, MaxMessage: 100 << 20, Routes: []Route{}}
}

const (
	minDeadline = time.Second
	// maxDeadline is below the 600 s that Postfix and Exim wait for the reply to the
	// last dot, by default (lmtp_data_done_timeout, final_timeout), even if the disk
	// stalls while a delivery and its sessions are recorded, 10 s each.
	maxDeadline   = 570 * time.Second
	minMaxMessage = 64 << 10 // RFC 5321 §4.5.3.1.7
)

func (c *Config) checkMilter(f *tomlfile.File) error {
	m := &c.Milter
	for _, w := range []struct {
		key, value string
		words      []string
	}{
		{"milter.route", m.Route, []string{"header", "recipient"}},
		{"milter.on_error", m.OnError, []string{"tempfail", "accept"}},
		{"milter.relaxed_from", m.RelaxedFrom, []string{"anyone", "trusted"}},
	} {
		if err := oneOf(w.value, w.words...); err != nil {
			return f.Error(w.key, "%v", err)
		}
	}
	if _, err := c.TrustedNetworks(); err != nil {
		return f.Error("milter.trusted_networks", "%v", err)
	}
	for i, r := range m.Rules {
		at := fmt.Sprintf("milter.rule.%d", i+1)
		if r.Sender == "" && r.Recipient == "" && r.User == "" {
			return f.Error(at, "has neither sender, recipient nor user")
		}
		if err := milter.Rule(r).Check(); err != nil {
			return f.Error(at, "%v", err)
		}
	}
	return nil
}

func (c *Config) checkDelivery(f *tomlfile.File) error {
	d := &c.Delivery
	if d.Port < 1 || d.Port > 65535 {
		return f.Error("delivery.port", "%d is no port", d.Port)
	}
	if d.Deadline < minDeadline || d.Deadline > maxDeadline {
		return f.Error("delivery.deadline", "%s is not between %s and %s, below what the mail server waits", d.Deadline, minDeadline, maxDeadline)
	}
	if d.MaxMessage < minMaxMessage {
		return f.Error("delivery.max_message", "%d is less than the %d octets that every mail server takes", d.MaxMessage, minMaxMessage)
	}
	if d.Hostname != "" && !isDomain(d.Hostname) {
		return f.Error("delivery.hostname", "%q is no host name with a domain", d.Hostname)
	}
	if _, err := c.DeliveryRoots(); err != nil {
		return f.Error("delivery.ca_file", "%v", err)
	}
	if strings.ContainsFunc(d.NextHop, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return f.Error("delivery.nexthop", "%q has blanks or other bytes that no next hop has", d.NextHop)
	}
	for _, word := range d.For {
		if oneOf(word, forMixed, forDANE, forSTS, forUnusable) != nil && !isDomain(strings.TrimPrefix(word, ".")) {
			return f.Error("delivery.for", "%q is neither mixed, dane, sts, unusable-tlsa nor a domain", word)
		}
	}
	for _, domain := range d.LocalDomains {
		if !isDomain(strings.TrimPrefix(domain, ".")) {
			return f.Error("delivery.local_domains", "%q is no domain", domain)
		}
	}
	if d.LocalRelay != "" {
		if _, err := ParseEndpoint(d.LocalRelay); err != nil {
			return f.Error("delivery.local_relay", "%v", err)
		}
	}
	return checkRoutes(f, d.Routes)
}

func checkRoutes(f *tomlfile.File, routes []Route) error {
	seen := map[string]bool{}
	for i, r := range routes {
		at := fmt.Sprintf("delivery.route.%d", i+1)
		if r.Domain != "*" && !isDomain(strings.TrimPrefix(r.Domain, ".")) {
			return f.Error(at+".domain", "%q is neither a domain nor *", r.Domain)
		}
		s := r.smartHost()
		if seen[s.Domain] {
			return f.Error(at+".domain", "%q has a route already", r.Domain)
		}
		seen[s.Domain] = true
		if err := s.Check(); err != nil {
			return f.Error(at+".nexthop", "%v", err)
		}
	}
	return nil
}

func oneOf(value string, words ...string) error {
	for _, w := range words {
		if value == w {
			return nil
		}
	}
	last := len(words) - 1
	if last == 1 {
		return fmt.Errorf("%q is neither %s nor %s", value, words[0], words[1])
	}
	return fmt.Errorf("%q is not %s or %s", value, strings.Join(words[:last], ", "), words[last])
}

func isDomain(s string) bool {
	_, ok := policy.AppendName(nil, []byte(s))
	return ok
}

// TrustedNetworks are milter.trusted_networks.
func (c *Config) TrustedNetworks() ([]netip.Prefix, error) {
	var list []netip.Prefix
	for _, s := range c.Milter.TrustedNetworks {
		p, err := netip.ParsePrefix(s)
		if err != nil {
			addr, err := netip.ParseAddr(s)
			if err != nil {
				return nil, fmt.Errorf("%q is no network such as 192.0.2.0/24", s)
			}
			p = netip.PrefixFrom(addr, addr.BitLen())
		}
		list = append(list, p.Masked())
	}
	return list, nil
}

// DeliveryRoots are the authorities of delivery.ca_file; nil for the system's.
func (c *Config) DeliveryRoots() (*x509.CertPool, error) { return roots(c.Delivery.CAFile) }

// Delivers reports whether there is any listener of the delivery fallback.
func (c *Config) Delivers() bool {
	d := &c.Delivery
	return len(d.Listen)+len(d.RequireTLSListen)+len(d.RelaxedListen) > 0
}

// Fallback is delivery.for: what the fallback takes over from the mail server.
// The reason dane counts only where the host has no DANE of its own; that tags go to
// the recipients tells that the mail server is Sendmail.
func (c *Config) Fallback() *policy.Fallback {
	f := &policy.Fallback{Local: canonicalList(c.Delivery.LocalDomains), Sendmail: c.Milter.Route == "recipient"}
	for _, word := range c.Delivery.For {
		switch word {
		case forMixed:
			f.Mixed = true
		case forDANE:
			f.DANE = !c.Host.DANE
		case forSTS:
			f.STS = true
		case forUnusable:
			f.Unusable = true
		default:
			f.Domains = append(f.Domains, canonicalList([]string{word})...)
		}
	}
	return f
}

func canonicalList(domains []string) []string {
	var list []string
	for _, d := range domains {
		parent, below := strings.CutPrefix(d, ".")
		name, ok := policy.AppendName(nil, []byte(parent))
		switch {
		case !ok: // checked before
		case below:
			list = append(list, "."+string(name))
		default:
			list = append(list, string(name))
		}
	}
	return list
}

// Hostname is delivery.hostname or the system's, which must be a name with a
// domain: remote hosts refuse others (RFC 5321 §4.1.1.1).
func (c *Config) Hostname() (string, error) {
	if c.Delivery.Hostname != "" {
		return strings.ToLower(strings.TrimSuffix(c.Delivery.Hostname, ".")), nil
	}
	name, err := os.Hostname()
	if err != nil {
		return "", err
	}
	if !isDomain(name) {
		return "", errors.New(`the name of this machine, "` + name + `", has no domain; set delivery.hostname to the mail server's name`)
	}
	return strings.ToLower(name), nil
}

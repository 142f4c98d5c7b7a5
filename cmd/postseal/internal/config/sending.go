package config

import (
	"crypto/x509"
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"time"

	"postseal/cmd/postseal/internal/tomlfile"
	"postseal/reporting/daily"
	"postseal/reporting/send"
	"postseal/reporting/tlsrpt"
)

// Sending is the part of [reporting] about the reports to others (RFC 8460). Without a
// contact none are sent.
type Sending struct {
	Organization string `toml:"organization"` // "": the domain of the contact
	Contact      string `toml:"contact"`      // address; "": no reports
	From         string `toml:"from"`         // address; "": the contact
	BouncesTo    string `toml:"bounces_to"`   // address; "": from
	Submit       string `toml:"submit"`       // "smtp://host:port" or "sendmail:/path"

	Spread        time.Duration `toml:"spread"`
	Retry         time.Duration `toml:"retry"`
	MXHosts       bool          `toml:"mx_hosts"`
	HideSendingIP bool          `toml:"hide_sending_ip"`

	CAFile                string `toml:"ca_file"` // "": the system's authorities
	AllowBadCertificates  bool   `toml:"allow_bad_certificates"`
	AllowPrivateAddresses bool   `toml:"allow_private_addresses"`

	DKIM  []DKIMKey    `toml:"dkim"`
	Rules []ReportRule `toml:"rule"`
}

// DKIMKey signs report mails.
type DKIMKey struct {
	Domain   string `toml:"domain"` // "": that of from
	Selector string `toml:"selector"`
	KeyFile  string `toml:"key_file"`
}

// ReportRule says where reports on some domains go; the first that fits counts.
type ReportRule struct {
	Domains []string `toml:"domains"` // "example.org", ".example.org" or "*"
	Action  string   `toml:"action"`  // "accept", "drop" or "replace"; "": accept
	To      []string `toml:"to"`      // of replace: "mailto:…", "https://…" or "folder:/…"
	Copy    []string `toml:"copy"`    // the same
}

func defaultSending() Sending {
	return Sending{Submit: "smtp://127.0.0.1:25", Spread: 4 * time.Hour, Retry: 10 * time.Minute, DKIM: []DKIMKey{}, Rules: []ReportRule{}}
}

const (
	minSpread, maxSpread = time.Minute, 20 * time.Hour // within the day that follows
	minRetry, maxRetry   = time.Second, 4 * time.Hour
)

func (c *Config) checkSending(f *tomlfile.File) error {
	r := &c.Reporting
	for _, a := range []struct{ key, address string }{
		{"reporting.contact", r.Contact}, {"reporting.from", r.From}, {"reporting.bounces_to", r.BouncesTo},
	} {
		if parsed, err := tlsrpt.ParseAddress(a.address); a.address != "" && (err != nil || parsed != a.address) {
			return f.Error(a.key, "%q is no bare mail address with a domain in A-labels, such as tlsrpt@example.org", a.address)
		}
	}
	if err := checkSubmit(r.Submit); err != nil {
		return f.Error("reporting.submit", "%v", err)
	}
	if r.Spread < minSpread || r.Spread > maxSpread {
		return f.Error("reporting.spread", "%s is not between %s and %s", r.Spread, minSpread, maxSpread)
	}
	if r.Retry < minRetry || r.Retry > maxRetry {
		return f.Error("reporting.retry", "%s is not between %s and %s", r.Retry, minRetry, maxRetry)
	}
	if _, err := c.ReportRoots(); err != nil {
		return f.Error("reporting.ca_file", "%v", err)
	}
	for i, k := range r.DKIM {
		at := fmt.Sprintf("reporting.dkim.%d", i+1)
		switch {
		case k.Selector == "":
			return f.Error(at, "has no selector")
		case !filepath.IsAbs(k.KeyFile):
			return f.Error(at+".key_file", "%q is no absolute path", k.KeyFile)
		case k.Domain != "" && !isDomain(k.Domain):
			return f.Error(at+".domain", "%q is no domain", k.Domain)
		}
	}
	for i, rule := range r.Rules {
		if _, err := rule.rule(); err != nil {
			return f.Error(fmt.Sprintf("reporting.rule.%d", i+1), "%v", err)
		}
	}
	return nil
}

func checkSubmit(s string) error {
	if path, ok := strings.CutPrefix(s, "sendmail:"); ok && filepath.IsAbs(path) {
		return nil
	}
	if address, ok := strings.CutPrefix(s, "smtp://"); ok {
		if host, port, err := net.SplitHostPort(address); err == nil && host != "" && port != "" {
			return nil
		}
	}
	return fmt.Errorf("%q is neither smtp://host:port nor sendmail:/path", s)
}

func (r *ReportRule) rule() (daily.Rule, error) {
	rule := daily.Rule{Action: daily.Action(r.Action)}
	if rule.Action == "" {
		rule.Action = daily.Accept
	}
	if err := oneOf(string(rule.Action), string(daily.Accept), string(daily.Drop), string(daily.Replace)); err != nil {
		return rule, fmt.Errorf("action: %v", err)
	}
	if len(r.Domains) == 0 {
		return rule, fmt.Errorf(`has no domains; "*" is all`)
	}
	for _, d := range r.Domains {
		if d != "*" && !isDomain(strings.TrimPrefix(d, ".")) {
			return rule, fmt.Errorf("domains: %q is no domain", d)
		}
		if d == "*" {
			rule.Domains = append(rule.Domains, d)
			continue
		}
		rule.Domains = append(rule.Domains, canonicalList([]string{d})...)
	}
	if (rule.Action == daily.Replace) != (len(r.To) > 0) {
		return rule, fmt.Errorf("to belongs to action replace, and that to it")
	}
	for _, list := range []struct {
		key  string
		from []string
		to   *[]daily.Target
	}{{"to", r.To, &rule.To}, {"copy", r.Copy, &rule.Copy}} {
		for _, s := range list.from {
			t, err := daily.ParseTarget(s)
			if err != nil {
				return rule, fmt.Errorf("%s: %q %v", list.key, s, err)
			}
			*list.to = append(*list.to, t)
		}
	}
	return rule, nil
}

// Reports reports whether reports are sent.
func (c *Config) Reports() bool { return c.Reporting.Contact != "" && c.Records() }

// ReportRules are reporting.rule.
func (c *Config) ReportRules() []daily.Rule {
	var list []daily.Rule
	for _, r := range c.Reporting.Rules {
		if rule, err := r.rule(); err == nil { // as checked
			list = append(list, rule)
		}
	}
	return list
}

// ReportFrom is reporting.from.
func (c *Config) ReportFrom() string {
	if c.Reporting.From != "" {
		return c.Reporting.From
	}
	return c.Reporting.Contact
}

// ReportKeys reads the keys of reporting.dkim.
func (c *Config) ReportKeys() (keys []send.Key, err error) {
	for _, k := range c.Reporting.DKIM {
		domain := k.Domain
		if domain == "" {
			domain = domainOf(c.ReportFrom())
		}
		key, err := send.LoadKey(domain, k.Selector, k.KeyFile)
		if err != nil {
			return nil, fmt.Errorf("reporting.dkim: %w", err)
		}
		keys = append(keys, key)
	}
	return keys, nil
}

func domainOf(address string) string { return address[strings.LastIndexByte(address, '@')+1:] }

// ReportRoots are the authorities of reporting.ca_file; nil for the system's.
func (c *Config) ReportRoots() (*x509.CertPool, error) { return roots(c.Reporting.CAFile) }

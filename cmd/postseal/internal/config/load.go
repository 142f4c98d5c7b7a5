package config

import (
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/netip"
	"path/filepath"
	"strconv"
	"strings"

	"postseal/cmd/postseal/internal/tomlfile"
	"postseal/policy"
	"postseal/policy/dnssec"
)

const (
	maxFile  = 1 << 20  // of the configuration, which people write
	maxRoots = 16 << 20 // of a file of authorities; all of a system take 0.3 MiB
)

// Load reads the named file or, with "", the default file if there is one, and
// fills in what depends on the environment.
func Load(name string, getenv func(string) string) (*Config, error) {
	c := Default()
	file := name
	if file == "" {
		file = DefaultFile
	}
	text, err := tomlfile.Read(file, maxFile)
	switch {
	case name == "" && errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return nil, fmt.Errorf("read the configuration: %w", err)
	default:
		c.File = file
		if err := c.decode(string(text)); err != nil {
			return nil, err
		}
	}
	if err := c.complete(getenv); err != nil {
		return nil, err
	}
	return c, nil
}

// Decode reads a file's text, as Load does, but without the environment.
func Decode(name, text string) (*Config, error) {
	c := Default()
	c.File = name
	if err := c.decode(text); err != nil {
		return nil, err
	}
	return c, nil
}

func (c *Config) decode(text string) error {
	f, err := tomlfile.Decode(c.File, text, c)
	if err != nil {
		return err
	}
	return c.check(f)
}

// complete finds the folder for state: that of the service manager
// (systemd.exec(5)), else the user's own (XDG Base Directory Specification), and
// the place of the control socket.
func (c *Config) complete(getenv func(string) string) error {
	if c.StateDir == "" {
		c.StateDir = stateDir(getenv)
		c.StateByDefault = getenv("STATE_DIRECTORY") == ""
	}
	if c.StateDir == "" {
		return errors.New("no folder for state: set state_dir in the configuration, or STATE_DIRECTORY or HOME in the environment")
	}
	if c.ControlByDefault = len(c.Control.Listen) == 0; c.ControlByDefault {
		dir := c.StateDir
		if run, _, _ := strings.Cut(getenv("RUNTIME_DIRECTORY"), ":"); run != "" {
			dir = run
		}
		path, err := filepath.Abs(filepath.Join(dir, "control.sock"))
		if err != nil {
			return err
		}
		if c.Control.Listen = (Listen{"unix:" + path}); len(path) > maxSocketPath {
			return fmt.Errorf("control socket %s: the path is longer than %d bytes; set control.listen", path, maxSocketPath)
		}
	}
	return nil
}

func stateDir(getenv func(string) string) string {
	if dir, _, _ := strings.Cut(getenv("STATE_DIRECTORY"), ":"); dir != "" {
		return dir
	}
	if dir := getenv("XDG_STATE_HOME"); filepath.IsAbs(dir) { // a relative one is to be ignored
		return filepath.Join(dir, "postseal")
	}
	if home := getenv("HOME"); home != "" {
		return filepath.Join(home, ".local", "state", "postseal")
	}
	return ""
}

// check finds values that make no sense.
func (c *Config) check(f *tomlfile.File) error {
	if c.StateDir != "" && !filepath.IsAbs(c.StateDir) {
		return f.Error("state_dir", "%q must be an absolute path", c.StateDir)
	}
	for _, s := range c.DNS.Servers {
		if _, err := parseServer(s); err != nil {
			return f.Error("dns.servers", "%v", err)
		}
	}
	if _, err := c.TrustAD(); err != nil {
		return f.Error("dns.trust_ad", "%v", err)
	}
	if err := c.checkSelfTest(f); err != nil {
		return err
	}
	if _, err := c.FirstContact(); err != nil {
		return f.Error("policy.first_contact", "%v", err)
	}
	if n := c.Policy.CacheEntries; n < 1 || n > 10_000_000 {
		return f.Error("policy.cache_entries", "%d is not between 1 and 10000000", n)
	}
	if _, err := c.Roots(); err != nil {
		return f.Error("sts.ca_file", "%v", err)
	}
	if _, err := c.LogLevel(); err != nil {
		return f.Error("log.level", "%v", err)
	}
	if c.Log.Format != "text" && c.Log.Format != "json" {
		return f.Error("log.format", "%q is neither text nor json", c.Log.Format)
	}
	if err := c.checkMilter(f); err != nil {
		return err
	}
	if err := c.checkDelivery(f); err != nil {
		return err
	}
	if err := c.checkReporting(f); err != nil {
		return err
	}
	return c.checkListeners(f)
}

func (c *Config) checkSelfTest(f *tomlfile.File) error {
	if !c.DNS.SelfTest {
		return nil
	}
	for _, t := range []struct {
		key   string
		names []string
	}{
		{"dns.self_test_signed", c.DNS.SelfTestSigned},
		{"dns.self_test_unsigned", []string{c.DNS.SelfTestUnsigned}},
		{"dns.self_test_bogus", []string{c.DNS.SelfTestBogus}},
	} {
		if len(t.names) == 0 || t.names[0] == "" {
			return f.Error(t.key, "must have a name, since dns.self_test is on")
		}
		for _, name := range t.names {
			if _, ok := policy.AppendName(nil, []byte(name)); !ok {
				return f.Error(t.key, "%q is no domain name", name)
			}
		}
	}
	return nil
}

func (c *Config) checkListeners(f *tomlfile.File) error {
	seen := map[Endpoint]string{}
	for _, s := range c.Sections() {
		endpoints, err := s.Listen.Endpoints()
		if err != nil {
			return f.Error(s.Key, "%v", err)
		}
		for _, e := range endpoints {
			_, port, _ := net.SplitHostPort(e.Address)
			switch other, taken := seen[e]; {
			case s.Name == "control" && e.Network != "unix":
				return f.Error(s.Key, "%s: the control socket must be a unix socket, since whoever reaches it may change policies", e)
			case strings.HasPrefix(s.Name, "delivery") && port == "25": // RFC 2033 §5
				return f.Error(s.Key, "%s: LMTP must not be on port 25, which is for SMTP", e)
			case taken && port != "0":
				return f.Error(s.Key, "%s is listed in %s already", e, other)
			}
			seen[e] = s.Key
		}
		if _, err := ParseMode(s.Mode); err != nil {
			table, _, _ := strings.Cut(s.Key, ".")
			return f.Error(table+".mode", "%v", err)
		}
	}
	return nil
}

// Section is a listener as it is configured. Mode, owner and group are of its unix
// sockets.
type Section struct {
	Name               string // of the listener, also for the service manager (FileDescriptorName=)
	Key                string // in the file
	Listen             Listen
	Mode, Owner, Group string
}

// Sections are all listeners that there can be.
func (c *Config) Sections() []Section {
	d := &c.Delivery
	return []Section{
		{"control", "control.listen", c.Control.Listen, "0600", "", ""},
		{"socketmap", "socketmap.listen", c.Socketmap.Listen, c.Socketmap.Mode, c.Socketmap.Owner, c.Socketmap.Group},
		{"exim", "exim.listen", c.Exim.Listen, c.Exim.Mode, c.Exim.Owner, c.Exim.Group},
		{"milter", "milter.listen", c.Milter.Listen, c.Milter.Mode, c.Milter.Owner, c.Milter.Group},
		{"delivery", "delivery.listen", d.Listen, d.Mode, d.Owner, d.Group},
		{"delivery-requiretls", "delivery.requiretls_listen", d.RequireTLSListen, d.Mode, d.Owner, d.Group},
		{"delivery-relaxed", "delivery.relaxed_listen", d.RelaxedListen, d.Mode, d.Owner, d.Group},
		{"http", "http.listen", c.HTTP.Listen, "0600", "", ""},
	}
}

// ParseMode reads the octal permissions of a socket.
func ParseMode(s string) (fs.FileMode, error) {
	n, err := strconv.ParseUint(s, 8, 32)
	if err != nil || n > 0o777 {
		return 0, fmt.Errorf("%q is not octal permissions such as 0660", s)
	}
	return fs.FileMode(n), nil
}

// parseServer reads the address of a resolver, with port 53 if it has none.
func parseServer(s string) (string, error) {
	if addr, err := netip.ParseAddr(s); err == nil {
		return netip.AddrPortFrom(addr, 53).String(), nil
	}
	ap, err := netip.ParseAddrPort(s)
	if err != nil || ap.Port() == 0 {
		return "", fmt.Errorf("%q is not the address of a resolver, such as 127.0.0.1:53 or [::1]:53", s)
	}
	return ap.String(), nil
}

// Resolvers are the addresses of dns.servers with their ports.
func (c *Config) Resolvers() []string {
	var list []string
	for _, s := range c.DNS.Servers {
		if server, err := parseServer(s); err == nil { // as checked
			list = append(list, server)
		}
	}
	return list
}

// TrustAD is dns.trust_ad.
func (c *Config) TrustAD() (dnssec.TrustAD, error) {
	switch c.DNS.TrustAD {
	case "auto":
		return dnssec.TrustAuto, nil
	case "always":
		return dnssec.TrustAlways, nil
	case "never":
		return dnssec.TrustNever, nil
	}
	return 0, fmt.Errorf("%q is not auto, always or never", c.DNS.TrustAD)
}

// SelfTest is dns.self_test with its names; zero if it is off.
func (c *Config) SelfTest() dnssec.SelfTest {
	if !c.DNS.SelfTest {
		return dnssec.SelfTest{}
	}
	return dnssec.SelfTest{Signed: c.DNS.SelfTestSigned, Unsigned: c.DNS.SelfTestUnsigned, Bogus: c.DNS.SelfTestBogus}
}

// FirstContact is policy.first_contact.
func (c *Config) FirstContact() (policy.FirstContact, error) {
	switch c.Policy.FirstContact {
	case "deliver":
		return policy.Deliver, nil
	case "defer":
		return policy.Defer, nil
	}
	return 0, fmt.Errorf("%q is neither deliver nor defer", c.Policy.FirstContact)
}

// Roots are the authorities of sts.ca_file; nil for the system's.
func (c *Config) Roots() (*x509.CertPool, error) { return roots(c.STS.CAFile) }

func roots(file string) (*x509.CertPool, error) {
	if file == "" {
		return nil, nil
	}
	pem, err := tomlfile.Read(file, maxRoots)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("no certificate in %s", file)
	}
	return pool, nil
}

// LogLevel is log.level.
func (c *Config) LogLevel() (slog.Level, error) {
	switch c.Log.Level {
	case "debug":
		return slog.LevelDebug, nil
	case "info":
		return slog.LevelInfo, nil
	case "warn":
		return slog.LevelWarn, nil
	case "error":
		return slog.LevelError, nil
	}
	return 0, fmt.Errorf("%q is not debug, info, warn or error", c.Log.Level)
}

// Package config reads the configuration file, the one place where the program
// looks at files and the environment for how it shall behave. It is TOML; a key
// that is unknown, or a value that makes no sense, is an error that names file,
// line and key, for a misread setting could leave mail unprotected.
//
// Without a file the defaults apply: an unprivileged daemon on loopback that
// keeps its state in the user's own folder. contrib/postseal.toml says what every
// key means.
package config

import (
	"path/filepath"
	"reflect"
	"strings"

	"github.com/BurntSushi/toml"
)

// DefaultFile is read when no other is named, if it exists.
const DefaultFile = "/etc/postseal/postseal.toml"

// Config is a whole configuration. Fields with a TOML name are the file's.
type Config struct {
	File             string `toml:"-"` // that it was read from; "" for the defaults
	ControlByDefault bool   `toml:"-"` // Control.Listen was filled in
	StateByDefault   bool   `toml:"-"` // StateDir was filled in with the user's own

	StateDir  string    `toml:"state_dir"`
	Host      Host      `toml:"host"`
	DNS       DNS       `toml:"dns"`
	Policy    Policy    `toml:"policy"`
	STS       STS       `toml:"sts"`
	Socketmap Door      `toml:"socketmap"`
	Exim      Door      `toml:"exim"`
	Milter    Milter    `toml:"milter"`
	Delivery  Delivery  `toml:"delivery"`
	Reporting Reporting `toml:"reporting"`
	Control   Control   `toml:"control"`
	HTTP      HTTP      `toml:"http"`
	Log       Log       `toml:"log"`
}

// Host says what the mail server beside us can do.
type Host struct {
	DANE bool `toml:"dane"`
}

// DNS is about the resolvers and the test of their validation.
type DNS struct {
	Servers          []string `toml:"servers"` // "host:port"; empty: those of /etc/resolv.conf
	TrustAD          string   `toml:"trust_ad"`
	SelfTest         bool     `toml:"self_test"`
	SelfTestSigned   []string `toml:"self_test_signed"`
	SelfTestUnsigned string   `toml:"self_test_unsigned"`
	SelfTestBogus    string   `toml:"self_test_bogus"`
}

// Policy is about deciding and remembering.
type Policy struct {
	FirstContact string `toml:"first_contact"`
	CacheEntries int    `toml:"cache_entries"`
}

// STS is about fetching MTA-STS policies.
type STS struct {
	CAFile                string `toml:"ca_file"` // "": the system's authorities
	AllowPrivateAddresses bool   `toml:"allow_private_addresses"`
}

// Door is a listener that mail servers connect to. Mode, owner and group are of
// its unix sockets.
type Door struct {
	Listen Listen `toml:"listen"`
	Mode   string `toml:"mode"` // octal
	Owner  string `toml:"owner"`
	Group  string `toml:"group"`
}

// Control is the socket of the other subcommands, always of mode 0600.
type Control struct {
	Listen Listen `toml:"listen"`
}

// HTTP is the status page.
type HTTP struct {
	Listen Listen `toml:"listen"`
}

// Log is what is logged to standard error, and how.
type Log struct {
	Level  string `toml:"level"`
	Format string `toml:"format"`
}

// Default is the configuration of an empty file. Empty StateDir and Control.Listen
// are filled in by Load, from the environment.
func Default() *Config {
	return &Config{
		Host: Host{DANE: true},
		DNS: DNS{
			Servers:          []string{},
			TrustAD:          "auto",
			SelfTest:         true,
			SelfTestSigned:   []string{"ietf.org", "nlnetlabs.nl"},
			SelfTestUnsigned: "google.com",
			SelfTestBogus:    "dnssec-failed.org",
		},
		Policy:    Policy{FirstContact: "deliver", CacheEntries: 12000},
		Socketmap: Door{Listen: Listen{"tcp:127.0.0.1:8461"}, Mode: "0660"},
		Exim:      Door{Listen: Listen{}, Mode: "0660"},
		Milter:    defaultMilter(),
		Delivery:  defaultDelivery(),
		Reporting: defaultReporting(),
		Control:   Control{Listen: Listen{}},
		HTTP:      HTTP{Listen: Listen{"tcp:127.0.0.1:8460"}},
		Log:       Log{Level: "info", Format: "text"},
	}
}

// TOML is the effective configuration as a file.
func (c *Config) TOML() (string, error) {
	var b strings.Builder
	enc := toml.NewEncoder(&b)
	enc.Indent = ""
	err := enc.Encode(c)
	return b.String(), err
}

// Origin names the file, or says that there is none.
func (c *Config) Origin() string {
	if c.File == "" {
		return "built-in defaults, since there is no " + DefaultFile
	}
	return c.File
}

// Overrides is the path of the operator's rules.
func (c *Config) Overrides() string { return filepath.Join(c.StateDir, "overrides.toml") }

// Policies is the path of the database of policies.
func (c *Config) Policies() string { return filepath.Join(c.StateDir, "policies.db") }

// Ledger is the path of the database of what was delivered.
func (c *Config) Ledger() string { return filepath.Join(c.StateDir, "delivery.db") }

// Diff lists the keys in which two configurations differ.
func Diff(a, b *Config) []string {
	var keys []string
	diff("", reflect.ValueOf(*a), reflect.ValueOf(*b), &keys)
	return keys
}

func diff(prefix string, a, b reflect.Value, keys *[]string) {
	for i := range a.NumField() {
		name := a.Type().Field(i).Tag.Get("toml")
		switch x, y := a.Field(i), b.Field(i); {
		case name == "-":
		case a.Type().Field(i).Anonymous:
			diff(prefix, x, y, keys)
		case x.Kind() == reflect.Struct:
			diff(prefix+name+".", x, y, keys)
		case !reflect.DeepEqual(x.Interface(), y.Interface()):
			*keys = append(*keys, prefix+name)
		}
	}
}

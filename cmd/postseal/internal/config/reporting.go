package config

import (
	"fmt"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"postseal/cmd/postseal/internal/tomlfile"
)

// Reporting is about how sessions become known. Mode, owner and group are of
// TLSRPTSocket.
type Reporting struct {
	TLSRPTSocket string    `toml:"tlsrpt_socket"` // "unix:/path"; "": none
	TLSRPTUsers  []string  `toml:"tlsrpt_users"`  // names or numbers; empty: all
	Mode         string    `toml:"mode"`
	Owner        string    `toml:"owner"`
	Group        string    `toml:"group"`
	EximEvents   bool      `toml:"exim_events"`
	Probe        bool      `toml:"probe"`
	KeepDays     int       `toml:"keep_days"`
	Logs         []MailLog `toml:"log"`

	Sending
}

// MailLog is a log that is followed.
type MailLog struct {
	Path     string `toml:"path"`     // a file, or "journal"
	Format   string `toml:"format"`   // "postfix", "exim" or "sendmail"
	Sessions string `toml:"sessions"` // "all", or "missing": those that datagrams and events lack; "": all
	TimeZone string `toml:"timezone"` // of stamps without one; "": the system's
}

// Journal is the Path of the journal of systemd.
const Journal = "journal"

func defaultReporting() Reporting {
	return Reporting{TLSRPTUsers: []string{}, Mode: "0660", Probe: true, KeepDays: 10, Logs: []MailLog{}, Sending: defaultSending()}
}

// minKeepDays are the days for which reports may still be owed, or under way: mail
// servers try for five before they let a mail bounce (RFC 5321 §4.5.4.1).
const minKeepDays = 7

func (c *Config) checkReporting(f *tomlfile.File) error {
	r := &c.Reporting
	if r.TLSRPTSocket != "" {
		if e, err := ParseEndpoint(r.TLSRPTSocket); err != nil || e.Network != "unix" {
			return f.Error("reporting.tlsrpt_socket", "%q is not unix:/path", r.TLSRPTSocket)
		}
	}
	if _, err := ParseMode(r.Mode); err != nil {
		return f.Error("reporting.mode", "%v", err)
	}
	if r.KeepDays < minKeepDays || r.KeepDays > 400 {
		return f.Error("reporting.keep_days", "%d is not between %d and 400", r.KeepDays, minKeepDays)
	}
	seen := map[string]bool{}
	for i, l := range r.Logs {
		at := fmt.Sprintf("reporting.log.%d", i+1)
		if err := c.checkLog(f, at, l); err != nil {
			return err
		}
		if seen[l.Path] {
			return f.Error(at+".path", "%s is followed already", l.Path)
		}
		seen[l.Path] = true
	}
	return c.checkSending(f)
}

// checkLog refuses two sources of successes for one mail server: each session would
// count twice.
func (c *Config) checkLog(f *tomlfile.File, at string, l MailLog) error {
	if l.Path != Journal && !filepath.IsAbs(l.Path) {
		return f.Error(at+".path", `%q is neither an absolute path nor "journal"`, l.Path)
	}
	if err := oneOf(l.Format, "postfix", "exim", "sendmail"); err != nil {
		return f.Error(at+".format", "%v", err)
	}
	if err := oneOf(l.Sessions, "", "all", "missing"); err != nil {
		return f.Error(at+".sessions", `%q is neither all nor missing`, l.Sessions)
	}
	if _, err := l.Location(); err != nil {
		return f.Error(at+".timezone", "%v", err)
	}
	switch {
	case l.Sessions == "missing":
	case l.Format == "postfix" && c.Reporting.TLSRPTSocket != "":
		return f.Error(at+".sessions", `must be "missing", since reporting.tlsrpt_socket has the sessions of Postfix already`)
	case l.Format == "exim" && c.Reporting.EximEvents:
		return f.Error(at+".sessions", `must be "missing", since reporting.exim_events has the sessions of Exim already`)
	}
	return nil
}

// Location is where stamps without a zone were written.
func (l MailLog) Location() (*time.Location, error) {
	if l.TimeZone == "" {
		return time.Local, nil
	}
	return time.LoadLocation(l.TimeZone)
}

// TLSRPTUIDs are the users of reporting.tlsrpt_users.
func (c *Config) TLSRPTUIDs() ([]uint32, error) {
	var list []uint32
	for _, name := range c.Reporting.TLSRPTUsers {
		id := name
		if u, err := user.Lookup(name); err == nil {
			id = u.Uid
		}
		n, err := strconv.ParseUint(id, 10, 32)
		if err != nil {
			return nil, fmt.Errorf("reporting.tlsrpt_users: there is no user %q", name)
		}
		list = append(list, uint32(n))
	}
	return list, nil
}

// Records reports whether there is any source of sessions.
func (c *Config) Records() bool {
	r := &c.Reporting
	return len(r.Logs) > 0 || r.TLSRPTSocket != "" || r.EximEvents || c.Delivers()
}

// Sessions is the path of the database of sessions.
func (c *Config) Sessions() string { return filepath.Join(c.StateDir, "sessions.db") }

// TLSRPTPath is the path of the socket for datagrams, "" if there is none.
func (c *Config) TLSRPTPath() string { return strings.TrimPrefix(c.Reporting.TLSRPTSocket, "unix:") }

package postfix_test

import (
	"slices"
	"strings"
	"testing"

	"postseal/cmd/postseal/internal/setup/setuptest"
)

func TestUnix(t *testing.T) {
	m := newMachine(t, "bookworm")
	o := everything
	o.Unix, o.TLSRPT = true, false
	p, err := m.plan(t, o)
	if err != nil {
		t.Fatal(err)
	}
	if got := valueOf(p, "smtp_tls_policy_maps"); got != "socketmap:unix:postseal/map.sock:postfix" {
		t.Errorf("got %s", got)
	}
	toml := setuptest.Lines(p, setuptest.TOML)
	for _, want := range []string{
		`socketmap.listen = ["tcp:127.0.0.1:8461", "unix:/var/spool/postfix/postseal/map.sock"]`,
		`milter.listen = ["unix:/var/spool/postfix/postseal/milter.sock"]`,
		`delivery.requiretls_listen = ["unix:/var/spool/postfix/postseal/lmtp-requiretls.sock"]`,
		`delivery.listen = ["tcp:127.0.0.1:8463"]`, // REQUIRETLS of 3.11 is passed inside TLS only
		`delivery.group = "postfix"`,
	} {
		if !slices.Contains(toml, want) {
			t.Errorf("%s is missing: %q", want, toml)
		}
	}
	if !slices.Contains(p.Before, "install -d -o postseal -g postfix -m 2750 /var/spool/postfix/postseal") {
		t.Errorf("nobody makes the folder: %q", p.Before)
	}
}

// TestOtherPorts follows a daemon that listens elsewhere.
func TestOtherPorts(t *testing.T) {
	m := newMachine(t, "bookworm")
	m.Write(setuptest.TOML, "[socketmap]\nlisten = [\"unix:/run/x\", \"tcp:0.0.0.0:9461\"]\n[delivery]\nlisten = 'tcp:[::1]:9463'\n")
	o := onlyMaps
	o.Fallback = true
	p, err := m.plan(t, o)
	if err != nil {
		t.Fatal(err)
	}
	if got := valueOf(p, "smtp_tls_policy_maps"); got != "socketmap:inet:127.0.0.1:9461:postfix" {
		t.Errorf("got %s", got)
	}
	for _, l := range setuptest.Lines(p, setuptest.TOML) {
		if strings.Contains(l, "listen") {
			t.Errorf("changed: %s", l)
		}
		if name, value, _ := strings.Cut(l, " = "); name == "delivery.nexthop" && value != `"inet:[::1]:9463"` {
			t.Errorf("got %s", l)
		}
	}
}

func TestSessions(t *testing.T) {
	const group = "root:x:0:\nadm:x:4:syslog\nsystemd-journal:x:101:postseal\n"
	for _, c := range []struct {
		name, version string
		files         []string
		direct        bool
		log           string // in postseal.toml
		datagrams     bool
		refuses       string
	}{
		{"log", "3.7.11", []string{"/var/log/mail.log"}, false, "path = \"/var/log/mail.log\"\nformat = \"postfix\"", false, ""},
		{"the log comes first", "3.10.13", []string{"/var/log/maillog"}, false, "path = \"/var/log/maillog\"\nformat = \"postfix\"", false, ""},
		{"journal", "3.7.11", []string{"/var/log/journal/x"}, false, "path = \"journal\"\nformat = \"postfix\"", false, ""},
		{"no log", "3.10.13", nil, false, "", true, ""},
		{"datagrams", "3.10.13", []string{"/var/log/mail.log"}, true, "path = \"/var/log/mail.log\"\nformat = \"postfix\"\nsessions = \"missing\"", true, ""},
		{"neither", "3.7.11", nil, false, "", false, "cannot report sessions by itself"},
		{"too old for datagrams", "3.9.1", []string{"/var/log/mail.log"}, true, "", false, "cannot report sessions by itself"},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := newMachine(t, "bookworm")
			m.version = c.version
			m.Write("/etc/group", group)
			for _, name := range c.files {
				m.Write(name, "")
			}
			o := onlyMaps
			o.TLSRPT, o.Direct = true, c.direct
			p, err := m.plan(t, o)
			if c.refuses != "" {
				setuptest.Refused(t, err, c.refuses)
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			toml := strings.Join(setuptest.Lines(p, setuptest.TOML), "\n")
			if _, got, _ := strings.Cut(toml, "[[reporting.log]]\n"); got != c.log {
				t.Errorf("got %q, want %q", got, c.log)
			}
			if !strings.Contains(toml, `delivery.hostname = "mail.example.org"`) {
				t.Errorf("probes do not greet by the name of Postfix: %s", toml)
			}
			if got := valueOf(p, "smtp_tlsrpt_enable") == "yes" && strings.Contains(toml, "reporting.tlsrpt_socket"); got != c.datagrams {
				t.Errorf("datagrams: %v", got)
			}
		})
	}
}

// TestOtherLog does not count from two logs of one mail server.
func TestOtherLog(t *testing.T) {
	m := newMachine(t, "bookworm")
	m.Write("/var/log/mail.log", "")
	m.Write(setuptest.TOML, "[delivery]\nhostname = \"mx.example.org\"\n[[reporting.log]]\npath = \"journal\"\nformat = \"postfix\"\n")
	o := onlyMaps
	o.TLSRPT = true
	p, err := m.plan(t, o)
	if err != nil || len(setuptest.Lines(p, setuptest.TOML)) > 0 || !strings.Contains(strings.Join(p.Kept, "\n"), "sessions are counted from journal") {
		t.Errorf("got %+v, %v", p, err)
	}
}

func TestRelayPort(t *testing.T) {
	m := newMachine(t, "bookworm")
	m.Write("/etc/postfix/master.cf", m.Text("/etc/postfix/master.cf")+"127.0.0.1:10026 inet n - y - - smtpd\n    -o content_filter=\n")
	o := onlyMaps
	o.RequireTLS = true
	_, err := m.plan(t, o)
	setuptest.Refused(t, err, "--relay-port")
	o.RelayPort = "10027"
	p, err := m.plan(t, o)
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(setuptest.Lines(p, "/etc/postfix/master.cf"), "\n"); !strings.Contains(got, "127.0.0.1:10027 inet n") {
		t.Errorf("got %s", got)
	}
	if got := setuptest.Lines(p, setuptest.TOML); !slices.Contains(got, `delivery.local_relay = "tcp:127.0.0.1:10027"`) {
		t.Errorf("got %q", got)
	}
}

func TestConfigDir(t *testing.T) {
	m := newMachine(t, "bookworm")
	m.put("multi_instance_directories", "/etc/postfix-out")
	m.Write("/etc/postfix-out/main.cf", m.Text("/etc/postfix/main.cf"))
	m.Write("/etc/postfix-out/master.cf", m.Text("/etc/postfix/master.cf"))
	o := onlyMaps
	o.Dir = "/etc/postfix-out"
	p, err := m.plan(t, o)
	if err != nil {
		t.Fatal(err)
	}
	if len(setuptest.Lines(p, "/etc/postfix-out/main.cf")) == 0 || !slices.Equal(p.Reload[0], []string{"postfix", "-c", "/etc/postfix-out", "reload"}) {
		t.Errorf("got %+v", p)
	}
	var out strings.Builder
	p.Print(&out)
	if !strings.Contains(out.String(), "\n/etc/postfix-out/main.cf\n  # Which TLS each destination needs\n  smtp_tls_policy_maps = socketmap:") {
		t.Errorf("printed: %s", out.String())
	}
}

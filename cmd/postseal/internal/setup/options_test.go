package setup_test

import (
	"slices"
	"strings"
	"testing"
)

func TestPostfixUnix(t *testing.T) {
	m := newMachine(t, "bookworm")
	o := everything
	o.Unix, o.TLSRPT = true, false
	p, err := m.Postfix(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	if got := valueOf(p, "smtp_tls_policy_maps"); got != "socketmap:unix:postseal/map.sock:postfix" {
		t.Errorf("got %s", got)
	}
	toml := lines(p, "/etc/postseal/postseal.toml")
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

// TestPostfixOtherPorts follows a daemon that listens elsewhere.
func TestPostfixOtherPorts(t *testing.T) {
	m := newMachine(t, "bookworm")
	m.write("/etc/postseal/postseal.toml", "[socketmap]\nlisten = [\"unix:/run/x\", \"tcp:0.0.0.0:9461\"]\n[delivery]\nlisten = 'tcp:[::1]:9463'\n")
	o := onlyMaps
	o.Fallback = true
	p, err := m.Postfix(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	if got := valueOf(p, "smtp_tls_policy_maps"); got != "socketmap:inet:127.0.0.1:9461:postfix" {
		t.Errorf("got %s", got)
	}
	for _, l := range lines(p, "/etc/postseal/postseal.toml") {
		if strings.Contains(l, "listen") {
			t.Errorf("changed: %s", l)
		}
		if name, value, _ := strings.Cut(l, " = "); name == "delivery.nexthop" && value != `"inet:[::1]:9463"` {
			t.Errorf("got %s", l)
		}
	}
}

func TestPostfixSessions(t *testing.T) {
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
			m.write("/etc/group", group)
			for _, name := range c.files {
				m.write(name, "")
			}
			o := onlyMaps
			o.TLSRPT, o.Direct = true, c.direct
			p, err := m.Postfix(t.Context(), o)
			if c.refuses != "" {
				refusal(t, err, c.refuses)
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			toml := strings.Join(lines(p, "/etc/postseal/postseal.toml"), "\n")
			if _, got, _ := strings.Cut(toml, "[[reporting.log]]\n"); got != c.log {
				t.Errorf("got %q, want %q", got, c.log)
			}
			if got := valueOf(p, "smtp_tlsrpt_enable") == "yes" && strings.Contains(toml, "reporting.tlsrpt_socket"); got != c.datagrams {
				t.Errorf("datagrams: %v", got)
			}
		})
	}
}

// TestPostfixOtherLog does not count from two logs of one mail server.
func TestPostfixOtherLog(t *testing.T) {
	m := newMachine(t, "bookworm")
	m.write("/var/log/mail.log", "")
	m.write("/etc/postseal/postseal.toml", "[[reporting.log]]\npath = \"journal\"\nformat = \"postfix\"\n")
	o := onlyMaps
	o.TLSRPT = true
	p, err := m.Postfix(t.Context(), o)
	if err != nil || len(lines(p, "/etc/postseal/postseal.toml")) > 0 || !strings.Contains(strings.Join(p.Kept, "\n"), "sessions are counted from journal") {
		t.Errorf("got %+v, %v", p, err)
	}
}

func TestPostfixRelayPort(t *testing.T) {
	m := newMachine(t, "bookworm")
	m.write("/etc/postfix/master.cf", m.text("/etc/postfix/master.cf")+"127.0.0.1:10026 inet n - y - - smtpd\n    -o content_filter=\n")
	o := onlyMaps
	o.RequireTLS = true
	_, err := m.Postfix(t.Context(), o)
	refusal(t, err, "--relay-port")
	o.RelayPort = "10027"
	p, err := m.Postfix(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(lines(p, "/etc/postfix/master.cf"), "\n"); !strings.Contains(got, "127.0.0.1:10027 inet n") {
		t.Errorf("got %s", got)
	}
	if got := lines(p, "/etc/postseal/postseal.toml"); !slices.Contains(got, `delivery.local_relay = "tcp:127.0.0.1:10027"`) {
		t.Errorf("got %q", got)
	}
}

// TestDaemonFile is about what postseal.toml may look like.
func TestDaemonFile(t *testing.T) {
	o := onlyMaps
	o.RequireTLS = true
	for _, c := range []struct{ name, text, want, refuses string }{
		{"all keys as shipped", "", "", ""},
		{"own domains stay", "[delivery]\nlocal_domains = [\"mine.example\"]\n", `local_domains = ["mine.example", "mail.example.org", "example.org"]`, ""},
		{"own address stays", "[milter]\nlisten = [\"tcp:127.0.0.1:9462\"]\n", `listen = ["tcp:127.0.0.1:9462"]`, ""},
		{"one address without brackets", "[socketmap]\nlisten = \"unix:/run/x\"\n", `listen = ["unix:/run/x", "tcp:127.0.0.1:8461"]`, ""},
		{"another relay", "[delivery]\nlocal_relay = \"tcp:127.0.0.1:25\"\n", "", `has delivery.local_relay = "tcp:127.0.0.1:25"`},
		{"a list over lines", "[delivery]\nlocal_domains = [\n  \"mine.example\",\n]\n", "", "in a form that setup cannot change"},
		{"inline table", "delivery = { port = 26 }\n", "", "is not valid"},
		{"no line end", "[milter]", "[milter]\nlisten = [\"tcp:127.0.0.1:8462\"]\n", ""},
		{"behind a comment", "[milter] # here\n\n# more\n", "[milter] # here\nlisten = [\"tcp:127.0.0.1:8462\"]\n\n# more\n", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := newMachine(t, "bookworm")
			text := c.text
			if text == "" {
				text = sample(t)
			}
			m.write("/etc/postseal/postseal.toml", text)
			p, err := m.Postfix(t.Context(), o)
			if c.refuses != "" {
				refusal(t, err, c.refuses)
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			for _, change := range p.Changes {
				if change.Path == "/etc/postseal/postseal.toml" && !strings.Contains(string(change.After), c.want) {
					t.Errorf("got %s, want %s", change.After, c.want)
				}
			}
		})
	}
}

func TestPostfixConfigDir(t *testing.T) {
	m := newMachine(t, "bookworm")
	m.put("multi_instance_directories", "/etc/postfix-out")
	m.write("/etc/postfix-out/main.cf", m.text("/etc/postfix/main.cf"))
	m.write("/etc/postfix-out/master.cf", m.text("/etc/postfix/master.cf"))
	o := onlyMaps
	o.Dir = "/etc/postfix-out"
	p, err := m.Postfix(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	if len(lines(p, "/etc/postfix-out/main.cf")) == 0 || !slices.Equal(p.Reload[0], []string{"postfix", "-c", "/etc/postfix-out", "reload"}) {
		t.Errorf("got %+v", p)
	}
	var out strings.Builder
	p.Print(&out)
	if !strings.Contains(out.String(), "\n/etc/postfix-out/main.cf\n  # Which TLS each destination needs\n  smtp_tls_policy_maps = socketmap:") {
		t.Errorf("printed: %s", out.String())
	}
}

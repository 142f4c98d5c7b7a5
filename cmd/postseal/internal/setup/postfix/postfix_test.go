package postfix_test

import (
	"context"
	"maps"
	"slices"
	"strings"
	"testing"

	"postseal/cmd/postseal/internal/setup"
	"postseal/cmd/postseal/internal/setup/postfix"
	"postseal/cmd/postseal/internal/setup/setuptest"
	postfixfiles "postseal/contrib/postfix"
)

// onlyMaps is the smallest set-up.
var onlyMaps = postfix.Options{Options: setuptest.Auto()}

// valueOf is what a plan sets a parameter of main.cf to; "" if it does not.
func valueOf(p *setup.Plan, name string) string {
	for _, l := range setuptest.Lines(p, "/etc/postfix/main.cf") {
		if value, ok := strings.CutPrefix(l, name+" = "); ok {
			return value
		}
	}
	return ""
}

func TestVersions(t *testing.T) {
	for _, v := range []struct{ version, dialect, warns, refuses string }{
		{"2.11.3", "", "", "too old"},
		{"3.3.0", "", "", "before 3.4 it does not know the attribute servername"},
		{"3.3-20180106", "", "", "too old"},
		{"3.4-20180605", "", "", "too old"},
		{"3.4.0", "postfix", "", ""},
		{"3.5.25", "postfix", "", ""},
		{"3.7.11", "postfix", "", ""},
		{"3.9.0", "postfix", "", ""},
		{"3.9.0-RC1", "postfix", "", ""},
		{"3.10-20240902", "postfix", "snapshot from before 3.10", ""},
		{"3.10.0", "postfix-tlsrpt", "", ""},
		{"3.10.13", "postfix-tlsrpt", "", ""},
		{"3.11.7", "postfix-tlsrpt", "", ""},
		{"3.12.0", "postfix-tlsrpt", "newer than all that were tried", ""},
		{"3.12-20260821", "postfix-tlsrpt", "newer than all that were tried", ""},
		{"4.0.1", "postfix-tlsrpt", "newer than all that were tried", ""},
		{"unknown", "", "", ""},
	} {
		t.Run("SM-042 "+v.version, func(t *testing.T) {
			m := newMachine(t, "bookworm")
			m.version = v.version
			p, err := m.plan(t, onlyMaps)
			switch {
			case v.refuses != "":
				setuptest.Refused(t, err, v.refuses)
				return
			case v.dialect == "":
				if err == nil {
					t.Error("a version that is none was taken")
				}
				return
			case err != nil:
				t.Fatal(err)
			}
			if got, want := valueOf(p, "smtp_tls_policy_maps"), "socketmap:inet:127.0.0.1:8461:"+v.dialect; got != want {
				t.Errorf("got %q, want %q", got, want)
			}
			if warned := strings.Join(p.Warnings, "\n"); v.warns == "" && warned != "" || !strings.Contains(warned, v.warns) {
				t.Errorf("warned of %q, want %q", warned, v.warns)
			}
		})
	}
}

// TestDefaults is what nothing but policies takes, with the stock files of
// Debian 12 and 13.
func TestDefaults(t *testing.T) {
	for tree, want := range map[string][]string{
		"bookworm": {
			"smtp_tls_policy_maps = socketmap:inet:127.0.0.1:8461:postfix",
			"smtp_dns_support_level = dnssec",
			"smtp_tls_loglevel = 1",
			"smtp_tls_CAfile = /etc/ssl/certs/ca-certificates.crt",
		},
		"trixie": {
			"smtp_tls_policy_maps = socketmap:inet:127.0.0.1:8461:postfix",
			"smtp_dns_support_level = dnssec",
			"smtp_tls_loglevel = 1",
		},
	} {
		t.Run("SM-042 "+tree, func(t *testing.T) {
			m := newMachine(t, tree)
			before := m.Tree()
			p, err := m.plan(t, onlyMaps)
			if err != nil {
				t.Fatal(err)
			}
			if len(p.Changes) != 1 || !slices.Equal(setuptest.Lines(p, "/etc/postfix/main.cf"), want) {
				t.Errorf("got %q\nwant %q", setuptest.Lines(p, "/etc/postfix/main.cf"), want)
			}
			for _, c := range p.Changes {
				for _, l := range c.Lines {
					if l.Why == "" {
						t.Errorf("%s has no reason", l.Text)
					}
				}
			}
			if !maps.Equal(before, m.Tree()) {
				t.Error("a dry run has changed something")
			}
		})
	}
}

// TestSettings is about values that are there already.
func TestSettings(t *testing.T) {
	for _, c := range []struct{ name, parameter, has, want string }{
		{"no TLS level", "smtp_tls_security_level", "", "may"},
		{"TLS off", "smtp_tls_security_level", "none", "may"},
		{"dane stays", "smtp_tls_security_level", "dane", ""},
		{"encrypt stays", "smtp_tls_security_level", "encrypt", ""},
		{"own authorities stay", "smtp_tls_CAfile", "/etc/ssl/mine.pem", ""},
		{"more in the log stays", "smtp_tls_loglevel", "2", ""},
		{"dnssec is there", "smtp_dns_support_level", "dnssec", ""},
	} {
		t.Run("SM-042 "+c.name, func(t *testing.T) {
			m := newMachine(t, "bookworm")
			m.put(c.parameter, c.has)
			p, err := m.plan(t, onlyMaps)
			if err != nil {
				t.Fatal(err)
			}
			if got := valueOf(p, c.parameter); got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

func TestPolicyMaps(t *testing.T) {
	const ours, theirs = "socketmap:inet:127.0.0.1:8461:postfix", "socketmap:inet:127.0.0.1:8642:QUERY"
	for _, c := range []struct{ name, has, from, want, refuses string }{
		{"own table wins", "hash:/etc/postfix/tls_policy", "", "hash:/etc/postfix/tls_policy, " + ours, ""},
		{"two tables", "inline:{{a.test=may}, {b.test = none}}, texthash:x", "", "inline:{{a.test=may}, {b.test = none}}, texthash:x, " + ours, ""},
		{"there already", ours, "", "", ""},
		{"there behind a table", "hash:x " + ours, "", "", ""},
		{"there as localhost", "socketmap:inet:localhost:8461:postfix", "", "", ""},
		{"another dialect", "hash:x, " + ours + "-tlsrpt", "", "hash:x, " + ours, ""},
		{"in a variable", "$mine", "", "$mine, " + ours, ""},
		{"the daemon is back", "hash:x, $postseal_known", "", "hash:x, " + ours, ""},
		{"rival", theirs, "", "", "say --from postfix-tlspol"},
		{"rival on a unix socket", "socketmap:unix:private/tlspol:QUERY", "", "", "say --from postfix-tlspol"},
		{"rival is replaced", "hash:x, " + theirs, "postfix-tlspol", "hash:x, " + ours, ""},
		{"rival was replaced", "hash:x, " + ours, "postfix-tlspol", "", ""},
		{"another rival", theirs, "postfix-mta-sts-resolver", "", "is of postfix-tlspol, not of"},
		{"no rival", "hash:x", "postfix-tlspol", "", "has no line of postfix-tlspol"},
		{"rival in a variable", "$theirs", "postfix-tlspol", "", "comes from another setting"},
		{"unknown service", "socketmap:inet:127.0.0.1:5555:sts", "", "", "a service that setup does not know"},
	} {
		t.Run("SM-042 "+c.name, func(t *testing.T) {
			m := newMachine(t, "bookworm")
			m.put("mine", "hash:/etc/postfix/mine")
			m.put("theirs", theirs)
			m.put("postseal_known", "texthash:/etc/postfix/postseal_policies")
			m.put("smtp_tls_policy_maps", c.has)
			o := onlyMaps
			o.From = c.from
			p, err := m.plan(t, o)
			if c.refuses != "" {
				setuptest.Refused(t, err, c.refuses)
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got := valueOf(p, "smtp_tls_policy_maps"); got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

// TestResolver moves from postfix-mta-sts-resolver, whose line may be the same as
// ours: only its files tell.
func TestResolver(t *testing.T) {
	m := newMachine(t, "bookworm")
	m.put("smtp_tls_policy_maps", "socketmap:inet:127.0.0.1:8461:postfix")
	m.Write("/etc/mta-sts-daemon.yml", "")
	_, err := m.plan(t, onlyMaps)
	setuptest.Refused(t, err, "say --from postfix-mta-sts-resolver")

	o := onlyMaps
	o.From = postfix.FromResolver
	p, err := m.plan(t, o)
	if err != nil {
		t.Fatal(err)
	}
	if got := valueOf(p, "smtp_tls_policy_maps"); got != "" {
		t.Errorf("the line is changed to %q", got)
	}
	if !strings.HasPrefix(strings.Join(p.Before, "\n"), "systemctl disable --now postfix-mta-sts-resolver") {
		t.Errorf("before our start: %q", p.Before)
	}
	m.version = "3.10.13"
	if p, err = m.plan(t, o); err != nil || valueOf(p, "smtp_tls_policy_maps") != "socketmap:inet:127.0.0.1:8461:postfix-tlsrpt" {
		t.Errorf("got %v, %v", p, err)
	}
	o.KeepLine = true
	if p, err = m.plan(t, o); err != nil || valueOf(p, "smtp_tls_policy_maps") != "" || len(p.Warnings) != 1 {
		t.Errorf("got %v, %v", p, err)
	}
}

func TestKeepLine(t *testing.T) {
	o := onlyMaps
	o.From, o.KeepLine = postfix.FromTLSPol, true
	m := newMachine(t, "bookworm")
	m.put("smtp_tls_policy_maps", "hash:x, socketmap:inet:127.0.0.1:8642:QUERY")
	p, err := m.plan(t, o)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := setuptest.Lines(p, setuptest.TOML), []string{`socketmap.listen = ["tcp:127.0.0.1:8461", "tcp:127.0.0.1:8642"]`}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if got := valueOf(p, "smtp_tls_policy_maps"); got != "" {
		t.Errorf("the line is changed to %q", got)
	}
	m.put("smtp_tls_policy_maps", "socketmap:inet:127.0.0.1:8642:QUERYwithTLSRPT")
	_, err = m.plan(t, o)
	setuptest.Refused(t, err, "does not understand the answers of the map QUERYwithTLSRPT")
	m.put("smtp_tls_policy_maps", "socketmap:inet:127.0.0.1:8642:zone")
	_, err = m.plan(t, o)
	setuptest.Refused(t, err, `no map "zone"`)
}

func TestRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		spoil func(*machine)
		want  string
	}{
		"no TLS":               {func(m *machine) { m.tls = "" }, "without TLS"},
		"several instances":    {func(m *machine) { m.put("multi_instance_directories", "/etc/postfix-out") }, "--config-dir"},
		"broken postseal.toml": {func(m *machine) { m.Write(setuptest.TOML, "[hosts]\n") }, "hosts: unknown key"},
		"no Postfix":           {func(m *machine) { m.Run = nil; m.Write("/usr/sbin/none", "") }, "there is no Postfix"},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMachine(t, "bookworm")
			c.spoil(m)
			_, err := m.plan(t, onlyMaps)
			setuptest.Refused(t, err, c.want)
		})
	}
}

// TestDANE has Postfix do DANE itself, or has the daemon told that it does not.
func TestDANE(t *testing.T) {
	for _, c := range []struct {
		name, choice    string
		validates, dane bool
	}{
		{"proven", setup.DANEAuto, true, true},
		{"does not validate", setup.DANEAuto, false, false},
		{"demanded", setup.DANEYes, false, true},
		{"refused", setup.DANENo, true, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := newMachine(t, "bookworm")
			o := onlyMaps
			o.DANE, o.Validates = c.choice, func(context.Context, []string) (bool, string) { return c.validates, "" }
			p, err := m.plan(t, o)
			if err != nil {
				t.Fatal(err)
			}
			if got := valueOf(p, "smtp_dns_support_level") == "dnssec"; got != c.dane {
				t.Errorf("smtp_dns_support_level is set: %v", got)
			}
			if got := slices.Equal(setuptest.Lines(p, setuptest.TOML), []string{"host.dane = false"}); got == c.dane {
				t.Errorf("host.dane = false is set: %v", got)
			}
		})
	}
}

// TestOverruled warns of services that main.cf does not reach.
func TestOverruled(t *testing.T) {
	m := newMachine(t, "bookworm")
	m.Write("/etc/postfix/master.cf", m.Text("/etc/postfix/master.cf")+
		"submission inet n - y - - smtpd\n    -o smtpd_milters=inet:127.0.0.1:8891\nslow unix - - y - - smtp\n    -o smtp_tls_policy_maps=\n")
	o := onlyMaps
	p, err := m.plan(t, o)
	if err != nil || len(p.Warnings) != 1 || !strings.Contains(p.Warnings[0], "slow/unix has -o smtp_tls_policy_maps=") {
		t.Errorf("got %+v, %v", p, err)
	}
	o.RequireTLS = true
	if p, err = m.plan(t, o); err != nil || !strings.Contains(strings.Join(p.Warnings, "\n"), "submission/inet has -o smtpd_milters=inet:127.0.0.1:8891") {
		t.Errorf("got %+v, %v", p, err)
	}
	if _, err := m.Apply(p); err != nil {
		t.Fatal(err)
	}
	if p, err = m.plan(t, o); err != nil || strings.Contains(strings.Join(p.Warnings, "\n"), "127.0.0.1:10026") {
		t.Errorf("warned of a service of ours: %+v, %v", p, err)
	}
}

func TestChroot(t *testing.T) {
	m := newMachine(t, "bookworm")
	m.Write("/var/spool/postfix/etc/resolv.conf", "nameserver 192.0.2.53\n")
	p, err := m.plan(t, onlyMaps)
	if err != nil || !strings.Contains(strings.Join(p.Found, "\n"), "chrooted in /var/spool/postfix") || !strings.Contains(strings.Join(p.After, "\n"), "systemctl restart postfix") {
		t.Errorf("got %+v, %v", p, err)
	}
	m.chroot = "n"
	if p, err = m.plan(t, onlyMaps); err != nil || strings.Contains(strings.Join(p.Found, "\n"), "chrooted") {
		t.Errorf("got %+v, %v", p, err)
	}
}

// TestSets asserts that setup knows every line of contrib/postfix.
func TestSets(t *testing.T) {
	entries, err := postfixfiles.Files.ReadDir(".")
	if err != nil {
		t.Fatal(err)
	}
	seen := 0
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), ".cf") || e.Name() == "master.cf" {
			continue
		}
		for name, value := range postfix.Settings(e.Name()) {
			seen++
			if !slices.Contains(postfix.Sets(), name) {
				t.Errorf("%s: %s is in no set", e.Name(), name)
			}
			if e.Name() == "main.cf" && strings.Contains(strings.ReplaceAll(value, "$postseal_milter_down", ""), "$") {
				t.Errorf("%s: %s = %s is not expanded", e.Name(), name, value)
			}
		}
	}
	if seen != len(postfix.Sets()) || len(postfix.Services()) != 4 {
		t.Errorf("%d settings and services %v", seen, postfix.Services())
	}
	if got := postfix.Settings("main.cf", "main_3.10.cf")["smtp_tls_policy_maps"]; got != "socketmap:unix:postseal/map.sock:postfix-tlsrpt" {
		t.Errorf("got %s", got)
	}
}

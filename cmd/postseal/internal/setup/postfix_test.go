package setup_test

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"

	"postseal/cmd/postseal/internal/setup"
	postfixfiles "postseal/contrib/postfix"
)

// onlyMaps is the smallest set-up.
var onlyMaps = setup.PostfixOptions{Options: setup.Options{DANE: setup.DANEAuto}}

// lines are what a plan changes in a file, "name = value" each.
func lines(p *setup.Plan, file string) []string {
	var all []string
	for _, c := range p.Changes {
		if c.Path == file {
			for _, l := range c.Lines {
				all = append(all, l.Text)
			}
		}
	}
	return all
}

// valueOf is what a plan sets a parameter of main.cf to; "" if it does not.
func valueOf(p *setup.Plan, name string) string {
	for _, l := range lines(p, "/etc/postfix/main.cf") {
		if value, ok := strings.CutPrefix(l, name+" = "); ok {
			return value
		}
	}
	return ""
}

func refusal(t *testing.T, err error, want string) {
	t.Helper()
	if r, ok := errors.AsType[*setup.Refusal](err); !ok || !strings.Contains(r.Why+" "+strings.Join(r.Hints, " "), want) {
		t.Errorf("got %v, want a refusal with %q", err, want)
	}
}

func TestPostfixVersions(t *testing.T) {
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
			p, err := m.Postfix(t.Context(), onlyMaps)
			switch {
			case v.refuses != "":
				refusal(t, err, v.refuses)
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

// TestPostfixDefaults is what nothing but policies takes, with the stock files of
// Debian 12 and 13.
func TestPostfixDefaults(t *testing.T) {
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
			before := m.tree()
			p, err := m.Postfix(t.Context(), onlyMaps)
			if err != nil {
				t.Fatal(err)
			}
			if len(p.Changes) != 1 || !slices.Equal(lines(p, "/etc/postfix/main.cf"), want) {
				t.Errorf("got %q\nwant %q", lines(p, "/etc/postfix/main.cf"), want)
			}
			for _, c := range p.Changes {
				for _, l := range c.Lines {
					if l.Why == "" {
						t.Errorf("%s has no reason", l.Text)
					}
				}
			}
			if !maps.Equal(before, m.tree()) {
				t.Error("a dry run has changed something")
			}
		})
	}
}

// TestPostfixSettings is about values that are there already.
func TestPostfixSettings(t *testing.T) {
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
			p, err := m.Postfix(t.Context(), onlyMaps)
			if err != nil {
				t.Fatal(err)
			}
			if got := valueOf(p, c.parameter); got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

func TestPostfixPolicyMaps(t *testing.T) {
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
			p, err := m.Postfix(t.Context(), o)
			if c.refuses != "" {
				refusal(t, err, c.refuses)
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

// TestPostfixResolver moves from postfix-mta-sts-resolver, whose line may be the same as
// ours: only its files tell.
func TestPostfixResolver(t *testing.T) {
	m := newMachine(t, "bookworm")
	m.put("smtp_tls_policy_maps", "socketmap:inet:127.0.0.1:8461:postfix")
	m.write("/etc/mta-sts-daemon.yml", "")
	_, err := m.Postfix(t.Context(), onlyMaps)
	refusal(t, err, "say --from postfix-mta-sts-resolver")

	o := onlyMaps
	o.From = setup.FromResolver
	p, err := m.Postfix(t.Context(), o)
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
	if p, err = m.Postfix(t.Context(), o); err != nil || valueOf(p, "smtp_tls_policy_maps") != "socketmap:inet:127.0.0.1:8461:postfix-tlsrpt" {
		t.Errorf("got %v, %v", p, err)
	}
	o.KeepLine = true
	if p, err = m.Postfix(t.Context(), o); err != nil || valueOf(p, "smtp_tls_policy_maps") != "" || len(p.Warnings) != 1 {
		t.Errorf("got %v, %v", p, err)
	}
}

func TestPostfixKeepLine(t *testing.T) {
	o := onlyMaps
	o.From, o.KeepLine = setup.FromTLSPol, true
	m := newMachine(t, "bookworm")
	m.put("smtp_tls_policy_maps", "hash:x, socketmap:inet:127.0.0.1:8642:QUERY")
	p, err := m.Postfix(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := lines(p, "/etc/postseal/postseal.toml"), []string{`socketmap.listen = ["tcp:127.0.0.1:8461", "tcp:127.0.0.1:8642"]`}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if got := valueOf(p, "smtp_tls_policy_maps"); got != "" {
		t.Errorf("the line is changed to %q", got)
	}
	m.put("smtp_tls_policy_maps", "socketmap:inet:127.0.0.1:8642:QUERYwithTLSRPT")
	_, err = m.Postfix(t.Context(), o)
	refusal(t, err, "does not understand the answers of the map QUERYwithTLSRPT")
	m.put("smtp_tls_policy_maps", "socketmap:inet:127.0.0.1:8642:zone")
	_, err = m.Postfix(t.Context(), o)
	refusal(t, err, `no map "zone"`)
}

func TestPostfixRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		spoil func(*machine)
		want  string
	}{
		"no TLS":               {func(m *machine) { m.tls = "" }, "without TLS"},
		"several instances":    {func(m *machine) { m.put("multi_instance_directories", "/etc/postfix-out") }, "--config-dir"},
		"broken postseal.toml": {func(m *machine) { m.write("/etc/postseal/postseal.toml", "[hosts]\n") }, "hosts: unknown key"},
		"no Postfix":           {func(m *machine) { m.Run = nil; m.write("/usr/sbin/none", "") }, "there is no Postfix"},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMachine(t, "bookworm")
			c.spoil(m)
			_, err := m.Postfix(t.Context(), onlyMaps)
			refusal(t, err, c.want)
		})
	}
}

func TestPostfixDANE(t *testing.T) {
	for _, c := range []struct {
		name, resolv, choice string
		validates            bool
		dane                 bool
		says                 string
	}{
		{"proven", "nameserver 127.0.0.1\noptions trust-ad\n", "auto", true, true, "its word may be taken"},
		{"IPv6", "nameserver ::1\noptions edns0 trust-ad\n", "auto", true, true, "its word may be taken"},
		{"no trust-ad", "nameserver 127.0.0.1\n", "auto", true, false, "trust-ad"},
		{"elsewhere", "nameserver 127.0.0.1\nnameserver 192.0.2.53\noptions trust-ad\n", "auto", true, false, "192.0.2.53 is not on this machine"},
		{"container", "nameserver 127.0.0.11\noptions trust-ad\n", "auto", true, false, "127.0.0.11 is not on this machine"},
		{"does not validate", "nameserver 127.0.0.1\noptions trust-ad\n", "auto", false, false, "bogus"},
		{"demanded", "nameserver 192.0.2.53\n", "yes", false, true, "as demanded"},
		{"refused", "nameserver 127.0.0.1\noptions trust-ad\n", "no", true, false, "as demanded"},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := newMachine(t, "bookworm")
			m.write("/etc/resolv.conf", c.resolv)
			m.Validates = func(context.Context, []string) (bool, string) { return c.validates, "bogus is answered" }
			p, err := m.Postfix(t.Context(), setup.PostfixOptions{Options: setup.Options{DANE: c.choice}})
			if err != nil {
				t.Fatal(err)
			}
			if got := valueOf(p, "smtp_dns_support_level") == "dnssec"; got != c.dane {
				t.Errorf("smtp_dns_support_level is set: %v", got)
			}
			if got := slices.Equal(lines(p, "/etc/postseal/postseal.toml"), []string{"host.dane = false"}); got == c.dane {
				t.Errorf("host.dane = false is set: %v", got)
			}
			if found := strings.Join(p.Found, "\n"); !strings.Contains(found, c.says) {
				t.Errorf("found %q, want %q", found, c.says)
			}
		})
	}
}

// TestPostfixOverruled warns of services that main.cf does not reach.
func TestPostfixOverruled(t *testing.T) {
	m := newMachine(t, "bookworm")
	m.write("/etc/postfix/master.cf", m.text("/etc/postfix/master.cf")+
		"submission inet n - y - - smtpd\n    -o smtpd_milters=inet:127.0.0.1:8891\nslow unix - - y - - smtp\n    -o smtp_tls_policy_maps=\n")
	o := onlyMaps
	p, err := m.Postfix(t.Context(), o)
	if err != nil || len(p.Warnings) != 1 || !strings.Contains(p.Warnings[0], "slow/unix has -o smtp_tls_policy_maps=") {
		t.Errorf("got %+v, %v", p, err)
	}
	o.RequireTLS = true
	if p, err = m.Postfix(t.Context(), o); err != nil || !strings.Contains(strings.Join(p.Warnings, "\n"), "submission/inet has -o smtpd_milters=inet:127.0.0.1:8891") {
		t.Errorf("got %+v, %v", p, err)
	}
	if _, err := m.Apply(p); err != nil {
		t.Fatal(err)
	}
	if p, err = m.Postfix(t.Context(), o); err != nil || strings.Contains(strings.Join(p.Warnings, "\n"), "127.0.0.1:10026") {
		t.Errorf("warned of a service of ours: %+v, %v", p, err)
	}
}

func TestPostfixChroot(t *testing.T) {
	m := newMachine(t, "bookworm")
	m.write("/var/spool/postfix/etc/resolv.conf", "nameserver 192.0.2.53\n")
	p, err := m.Postfix(t.Context(), onlyMaps)
	if err != nil || !strings.Contains(strings.Join(p.Found, "\n"), "chrooted in /var/spool/postfix") || !strings.Contains(strings.Join(p.After, "\n"), "systemctl restart postfix") {
		t.Errorf("got %+v, %v", p, err)
	}
	m.chroot = "n"
	if p, err = m.Postfix(t.Context(), onlyMaps); err != nil || strings.Contains(strings.Join(p.Found, "\n"), "chrooted") {
		t.Errorf("got %+v, %v", p, err)
	}
}

// TestPostfixSets asserts that setup knows every line of contrib/postfix.
func TestPostfixSets(t *testing.T) {
	entries, err := postfixfiles.Files.ReadDir(".")
	if err != nil {
		t.Fatal(err)
	}
	seen := 0
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), ".cf") || e.Name() == "master.cf" {
			continue
		}
		for name, value := range setup.Settings(e.Name()) {
			seen++
			if !slices.Contains(setup.Sets(), name) {
				t.Errorf("%s: %s is in no set", e.Name(), name)
			}
			if e.Name() == "main.cf" && strings.Contains(strings.ReplaceAll(value, "$postseal_milter_down", ""), "$") {
				t.Errorf("%s: %s = %s is not expanded", e.Name(), name, value)
			}
		}
	}
	if seen != len(setup.Sets()) || len(setup.Services()) != 4 {
		t.Errorf("%d settings and services %v", seen, setup.Services())
	}
	if got := setup.Settings("main.cf", "main_3.10.cf")["smtp_tls_policy_maps"]; got != "socketmap:unix:postseal/map.sock:postfix-tlsrpt" {
		t.Errorf("got %s", got)
	}
}

func TestSplitList(t *testing.T) {
	for list, want := range map[string][]string{
		"":                                      nil,
		" a,b c\td , ":                          {"a", "b", "c", "d"},
		"inline:{{a=b}, {c = d}}, { x, y=z },w": {"inline:{{a=b}, {c = d}}", "{ x, y=z }", "w"},
	} {
		if got := setup.SplitList(list); !slices.Equal(got, want) {
			t.Errorf("%q: got %q, want %q", list, got, want)
		}
	}
}

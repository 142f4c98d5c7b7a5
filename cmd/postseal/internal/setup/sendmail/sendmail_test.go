package sendmail_test

import (
	"maps"
	"os"
	"strings"
	"testing"

	"postseal/cmd/postseal/internal/setup/sendmail"
	"postseal/cmd/postseal/internal/setup/setuptest"
)

const built817 = `Version 8.17.1.9
 Compiled with: DNSMAP LOG MAP_REGEX MILTER
		SOCKETMAP STARTTLS TLS_EC TLS_VRFY_PER_CTX
   FFR Defines: _FFR_MAIL_MACRO _FFR_MTA_STS
		_FFR_TLS_ALTNAMES
  (canonical domain name) $j = mail.example.org
`

func newMachine(t *testing.T) *setuptest.Machine {
	t.Helper()
	m := setuptest.New(t, "sendmail")
	m.Commands["sendmail"] = built817
	return m
}

func TestPlan(t *testing.T) {
	for _, c := range []struct {
		name  string
		spoil func(*setuptest.Machine)
		above string // in front of the first include
		dane  bool
	}{
		{"8.17", func(*setuptest.Machine) {}, "define(`POSTSEAL_LOCAL_PORT', `8467')dnl\n", false},
		{"8.18", func(m *setuptest.Machine) {
			m.Commands["sendmail"] = strings.NewReplacer("8.17.1.9", "8.18.1", "LOG", "DANE LOG").Replace(built817)
		}, "define(`confDANE', `true')dnl\ndefine(`POSTSEAL_LOCAL_PORT', `8467')dnl\n", true},
		{"own mailertable", func(m *setuptest.Machine) {
			m.Write("/etc/mail/sendmail.mc", "FEATURE(`mailertable', `hash /etc/mail/mailertable')dnl\n"+m.Text("/etc/mail/sendmail.mc"))
		}, "define(`POSTSEAL_RULE_0')dnl\ndefine(`POSTSEAL_LOCAL_PORT', `8467')dnl\n", false},
		{"default daemon", func(m *setuptest.Machine) {
			m.Write("/etc/mail/sendmail.mc", "MAILER(`local')dnl\nMAILER(`smtp')dnl\n")
		}, "DAEMON_OPTIONS(`Name=MTA')dnl\ndefine(`POSTSEAL_LOCAL_PORT', `8467')dnl\n", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := newMachine(t)
			c.spoil(m)
			before := m.Tree()
			p, err := sendmail.Plan(t.Context(), m.System, setuptest.Auto())
			if err != nil {
				t.Fatal(err)
			}
			if _, err := m.Apply(p); err != nil {
				t.Fatal(err)
			}
			const files = "/usr/local/share/postseal/sendmail"
			text := m.Text("/etc/mail/sendmail.mc")
			head := ""
			if c.name != "default daemon" {
				head = "MAILER_DEFINITIONS\n"
			}
			want := c.above + "include(`" + files + "/postseal.m4')dnl\n" + head +
				"MAILER(`local')dnl\nMAILER(`smtp')dnl\ninclude(`" + files + "/postseal_rules.m4')dnl\n"
			if !strings.Contains(text, want) {
				t.Errorf("got %s\nwant %s", text, want)
			}
			toml := m.Text(setuptest.TOML)
			if got := !strings.Contains(toml, "dane = false"); got != c.dane {
				t.Errorf("dane: %v", got)
			}
			if !strings.Contains(toml, "route = \"recipient\"\n") || !strings.Contains(toml, `local_domains = ["example.org", "mail.example.org"]`) {
				t.Errorf("postseal.toml: %s", toml)
			}
			if p, err = sendmail.Plan(t.Context(), m.System, setuptest.Auto()); err != nil || !p.Empty() {
				t.Errorf("the second time: %+v, %v", p, err)
			}
			if _, err := m.Revert("sendmail"); err != nil || !maps.Equal(before, m.Tree()) {
				t.Errorf("not as before: %v", err)
			}
		})
	}
}

func TestRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		spoil func(*setuptest.Machine)
		want  string
	}{
		"another mail server": {func(m *setuptest.Machine) { m.Commands["sendmail"] = "exim" }, "there is no Sendmail"},
		"without FFR":         {func(m *setuptest.Machine) { m.Commands["sendmail"] = strings.Replace(built817, "_FFR_MTA_STS", "", 1) }, "built without _FFR_MTA_STS"},
		"sts already": {func(m *setuptest.Machine) {
			m.Write("/etc/mail/sendmail.mc", "FEATURE(`sts', `socket inet:5461@127.0.0.1')dnl\n"+m.Text("/etc/mail/sendmail.mc"))
		}, "sendmail.mc:1 has FEATURE(sts) already"},
		"no sendmail.mc": {func(m *setuptest.Machine) { os.Remove(m.Path("/etc/mail/sendmail.mc")) }, "there is no /etc/mail/sendmail.mc"},
		"no mailers":     {func(m *setuptest.Machine) { m.Write("/etc/mail/sendmail.mc", "dnl MAILER(`smtp')\n") }, "has no MAILER lines"},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMachine(t)
			c.spoil(m)
			_, err := sendmail.Plan(t.Context(), m.System, setuptest.Auto())
			setuptest.Refused(t, err, c.want)
		})
	}
}

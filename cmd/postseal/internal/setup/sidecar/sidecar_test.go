package sidecar_test

import (
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"postseal/cmd/postseal/internal/config"
	"postseal/cmd/postseal/internal/setup"
	"postseal/cmd/postseal/internal/setup/setuptest"
	"postseal/cmd/postseal/internal/setup/sidecar"
)

// sample is contrib/postseal.toml, which has every key.
func sample(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("../../../../../contrib/postseal.toml")
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func open(t *testing.T, text string) (*setuptest.Machine, *sidecar.File) {
	t.Helper()
	m := setuptest.New(t, "")
	m.Write(setuptest.TOML, text)
	f, err := sidecar.Open(m.System, "")
	if err != nil {
		t.Fatal(err)
	}
	return m, f
}

// tagging needs a little of everything.
func tagging(f *sidecar.File) {
	f.Need(sidecar.Key{Table: "host", Name: "dane", Value: true, Must: true})
	f.UseTCP(sidecar.Map, "")
	f.UseTCP(sidecar.Milter, "")
	f.Need(sidecar.Key{Table: "delivery", Name: "local_domains", Value: []string{"mail.example.org", "example.org"}, Also: true})
	f.Need(sidecar.Key{Table: "delivery", Name: "local_relay", Value: "tcp:127.0.0.1:10026", Why: "the way back"})
}

// TestChange is about what postseal.toml may look like.
func TestChange(t *testing.T) {
	for _, c := range []struct{ name, text, want, refuses string }{
		{"all keys as shipped", "", "local_relay = \"tcp:127.0.0.1:10026\"\n", ""},
		{"own domains stay", "[delivery]\nlocal_domains = [\"mine.example\"]\n", `local_domains = ["mine.example", "mail.example.org", "example.org"]`, ""},
		{"own address stays", "[milter]\nlisten = [\"tcp:127.0.0.1:9462\"]\n", "[milter]\nlisten = [\"tcp:127.0.0.1:9462\"]\n\n[delivery]", ""},
		{"what must be", "[host]\ndane = false # for now\n", "[host]\ndane = true\n", ""},
		{"one address without brackets", "[socketmap]\nlisten = \"unix:/run/x\"\n", `listen = ["unix:/run/x", "tcp:127.0.0.1:8461"]`, ""},
		{"another relay", "[delivery]\nlocal_relay = \"tcp:127.0.0.1:25\"\n", "", `has delivery.local_relay = "tcp:127.0.0.1:25", but "tcp:127.0.0.1:10026" is needed: the way back`},
		{"a list over lines", "[delivery]\nlocal_domains = [\n  \"mine.example\",\n]\n", "", "in a form that setup cannot change"},
		{"inline table", "delivery = { port = 26 }\n", "", "is not valid"},
		{"no line end", "[milter]", "[milter]\nlisten = [\"tcp:127.0.0.1:8462\"]\n", ""},
		{"behind a comment", "[milter] # here\n\n# more\n", "[milter] # here\nlisten = [\"tcp:127.0.0.1:8462\"]\n\n# more\n", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			text := c.text
			if text == "" {
				text = sample(t)
			}
			m, f := open(t, text)
			tagging(f)
			change, err := f.Change()
			if c.refuses != "" {
				setuptest.Refused(t, err, c.refuses)
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if !strings.Contains(string(change.After), c.want) || len(change.Lines) == 0 {
				t.Errorf("got %s, want %s", change.After, c.want)
			}
			m.Write(setuptest.TOML, string(change.After))
			if f, err = sidecar.Open(m.System, ""); err != nil {
				t.Fatal(err)
			}
			tagging(f)
			if change, err = f.Change(); err != nil || change.Any() {
				t.Errorf("the second time: %+v, %v", change.Lines, err)
			}
		})
	}
}

func TestOpen(t *testing.T) {
	m := setuptest.New(t, "")
	f, err := sidecar.Open(m.System, "")
	if err != nil {
		t.Fatal(err)
	}
	f.UseTCP(sidecar.Map, "")
	if c, err := f.Change(); err != nil || c.Any() {
		t.Errorf("what is so by default is written into a new file: %+v, %v", c, err)
	}
	m.Write(setuptest.TOML, "[hosts]\n")
	_, err = sidecar.Open(m.System, "")
	setuptest.Refused(t, err, "hosts: unknown key")
}

func TestDoor(t *testing.T) {
	_, f := open(t, "[socketmap]\nlisten = [\"unix:/run/x\", \"tcp:0.0.0.0:9461\"]\n[delivery]\nlisten = 'tcp:[::1]:9463'\n")
	for _, c := range []struct {
		name string
		door sidecar.Door
		tcp  string
		port string // on 127.0.0.1, if it is not the usual one
	}{
		{"everywhere", sidecar.Map, "127.0.0.1:9461", "9461"},
		{"IPv6", sidecar.Delivery, "[::1]:9463", ""},
		{"usual", sidecar.Milter, "127.0.0.1:8462", ""},
	} {
		if got := f.TCP(c.door); got != c.tcp {
			t.Errorf("%s: got %s, want %s", c.name, got, c.tcp)
		}
		if port, moved := f.MovedPort(c.door); moved != (c.port != "") || moved && port != c.port {
			t.Errorf("%s: got %s, %v; want %q", c.name, port, moved, c.port)
		}
	}
}

// gid is the group of a file, as group(5) has it.
func gid(t *testing.T, m *setuptest.Machine, name string) string {
	t.Helper()
	info, err := m.Stat(name)
	if err != nil {
		t.Fatal(err)
	}
	return strconv.FormatUint(uint64(info.Sys().(*syscall.Stat_t).Gid), 10)
}

func TestCountFrom(t *testing.T) {
	l := config.MailLog{Path: "/var/log/mail.log", Format: "postfix"}
	const block = "[[reporting.log]]\npath = \"/var/log/mail.log\"\nformat = \"postfix\"\n"
	for _, c := range []struct {
		name, text, group string
		mode              os.FileMode
		want, before      string // in postseal.toml; in Before
		kept, warns       string
		files             map[string]string
	}{
		{name: "for everybody", mode: 0o644, want: block},
		{name: "for a group", mode: 0o640, want: block, before: "usermod -aG adm postseal"},
		{name: "as a member", mode: 0o640, group: "syslog,postseal", want: block},
		{name: "by the unit", mode: 0o640, want: block, files: map[string]string{
			"/run/systemd/system/x": "", "/usr/lib/systemd/system/postseal.service": "[Service]\nSupplementaryGroups=adm systemd-journal\n"}},
		{name: "by the unit of another group", mode: 0o640, want: block, before: "usermod -aG adm postseal", files: map[string]string{
			"/run/systemd/system/x": "", "/etc/systemd/system/postseal.service": "[Service]\nSupplementaryGroups=systemd-journal\n",
			"/usr/lib/systemd/system/postseal.service": "[Service]\nSupplementaryGroups=adm systemd-journal\n"}},
		{name: "without systemd", mode: 0o640, want: block, before: "usermod -aG adm postseal", files: map[string]string{
			"/usr/lib/systemd/system/postseal.service": "[Service]\nSupplementaryGroups=adm systemd-journal\n"}},
		{name: "for its owner", mode: 0o600, want: block, warns: "is for its owner alone"},
		{name: "there already", mode: 0o644, text: block},
		{name: "from another", mode: 0o644, text: "[[reporting.log]]\npath = \"journal\"\nformat = \"postfix\"\n", kept: "counted from journal"},
		{name: "none, in brackets", mode: 0o644, text: "[reporting]\nlog = []\n", want: "[reporting]\n\n" + block},
	} {
		t.Run(c.name, func(t *testing.T) {
			m, f := open(t, c.text)
			m.Write(l.Path, "")
			for name, text := range c.files {
				m.Write(name, text)
			}
			m.Write("/etc/group", "adm:x:"+gid(t, m, l.Path)+":"+c.group+"\n")
			if err := os.Chmod(m.Path(l.Path), c.mode); err != nil {
				t.Fatal(err)
			}
			if found := sidecar.FindLog(m.System, "/var/log/none", l.Path); found != l.Path {
				t.Errorf("found %q", found)
			}
			var p setup.Plan
			f.CountFrom(&p, l)
			change, err := f.Change()
			if err != nil || change.Any() != (c.want != "") || !strings.HasSuffix(string(change.After), c.want) {
				t.Errorf("got %q, %v; want %q", change.After, err, c.want)
			}
			for _, said := range []struct {
				what, want string
				lines      []string
			}{{"before", c.before, p.Before}, {"kept", c.kept, p.Kept}, {"warnings", c.warns, p.Warnings}} {
				if got := strings.Join(said.lines, "\n"); (got == "") != (said.want == "") || !strings.Contains(got, said.want) {
					t.Errorf("%s: got %q, want %q", said.what, got, said.want)
				}
			}
		})
	}
	m := setuptest.New(t, "")
	if found := sidecar.FindLog(m.System, l.Path); found != "" {
		t.Errorf("found %q", found)
	}
	m.Write("/run/log/journal/x", "")
	if found := sidecar.FindLog(m.System, l.Path); found != config.Journal {
		t.Errorf("found %q", found)
	}
}

package postfix_test

import (
	"encoding/json"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"postseal/cmd/postseal/internal/setup"
	"postseal/cmd/postseal/internal/setup/edit"
	"postseal/cmd/postseal/internal/setup/postfix"
	"postseal/cmd/postseal/internal/setup/setuptest"
)

// everything is the largest set-up.
var everything = func() postfix.Options {
	o := postfix.Options{Options: setuptest.Auto(), Fallback: true, RequireTLS: true}
	o.TLSRPT = true
	return o
}()

// with gives a machine whose administrator has things of his own.
func with(t *testing.T, version string) *machine {
	t.Helper()
	m := newMachine(t, "bookworm")
	m.version = version
	m.put("smtp_tls_policy_maps", "hash:/etc/postfix/tls_policy")
	m.put("transport_maps", "hash:/etc/postfix/transport")
	m.put("smtpd_milters", "inet:127.0.0.1:8891")
	m.put("non_smtpd_milters", "$smtpd_milters")
	m.put("virtual_mailbox_domains", "example.net, hash:/etc/postfix/domains")
	m.Write("/var/log/mail.log", "")
	m.Write(setuptest.TOML, "# mine\n[host]\ndane = false # for now\n\n[milter]\nlisten = []\n\n[log]\nlevel = \"warn\"\n")
	return m
}

func apply(t *testing.T, m *machine, o postfix.Options) (*setup.Plan, string) {
	t.Helper()
	p, err := m.plan(t, o)
	if err != nil {
		t.Fatal(err)
	}
	folder, err := m.Apply(p)
	if err != nil {
		t.Fatal(err)
	}
	return p, folder
}

func TestApply(t *testing.T) {
	m := with(t, "3.11.7")
	before := m.Tree()
	if err := os.Chmod(m.Path("/etc/postfix/main.cf"), 0o640); err != nil {
		t.Fatal(err)
	}
	p, folder := apply(t, m, everything)

	main := m.main("/etc/postfix")
	for name, want := range map[string]string{
		"smtp_tls_policy_maps":                   "hash:/etc/postfix/tls_policy, socketmap:inet:127.0.0.1:8461:postfix-tlsrpt",
		"transport_maps":                         "hash:/etc/postfix/transport, socketmap:inet:127.0.0.1:8461:transport",
		"smtpd_milters":                          "inet:127.0.0.1:8891, { inet:127.0.0.1:8462, connect_timeout=5s, command_timeout=10s, default_action=$postseal_milter_down }",
		"postseal_milter_down":                   "tempfail",
		"non_smtpd_milters":                      "$smtpd_milters",
		"milter_header_checks":                   "regexp:/etc/postfix/postseal_milter_header_checks",
		"smtp_dns_support_level":                 "dnssec",
		"postseal_destination_concurrency_limit": "50",
		"postseal-requiretls_destination_concurrency_failed_cohort_limit": "0",
	} {
		if main[name] != want {
			t.Errorf("%s = %s, want %s", name, main[name], want)
		}
	}
	if got := main["smtp_requiretls_policy"]; !strings.HasSuffix(got, "socketmap:inet:127.0.0.1:8461:requiretls, enforce") || !strings.Contains(got, "{$mydomain=opportunistic}") {
		t.Errorf("smtp_requiretls_policy = %s", got)
	}
	for name, want := range postfix.Services() {
		if got := strings.Join(strings.Fields(m.master("/etc/postfix", name)), " "); got != want {
			t.Errorf("%s: got %s, want %s", name, got, want)
		}
	}
	checks := m.Text("/etc/postfix/postseal_milter_header_checks")
	if !strings.Contains(checks, "requiretls$/\tFILTER postseal-requiretls:inet:[127.0.0.1]:8465\n") || strings.Contains(checks, "unix:") {
		t.Errorf("header checks: %s", checks)
	}
	const wantTOML = `# mine
[host]
dane = true

[milter]
listen = ["tcp:127.0.0.1:8462"]

[log]
level = "warn"

[delivery]
listen = ["tcp:127.0.0.1:8463"]
nexthop = "inet:[127.0.0.1]:8463"
hostname = "mail.example.org"
local_domains = ["mail.example.org", "example.org", "example.net"]
requiretls_listen = ["tcp:127.0.0.1:8465"]
relaxed_listen = ["tcp:127.0.0.1:8466"]
local_relay = "tcp:127.0.0.1:10026"

[[reporting.log]]
path = "/var/log/mail.log"
format = "postfix"
`
	if got := m.Text(setuptest.TOML); got != wantTOML {
		t.Errorf("postseal.toml:\n%s\nwant:\n%s", got, wantTOML)
	}
	if !strings.Contains(strings.Join(p.Warnings, "\n"), "hash:/etc/postfix/domains (virtual_mailbox_domains)") {
		t.Errorf("warnings: %q", p.Warnings)
	}
	if info, err := os.Stat(m.Path("/etc/postfix/main.cf")); err != nil || info.Mode().Perm() != 0o640 {
		t.Errorf("main.cf is now %v, %v", info.Mode(), err)
	}
	again(t, m)
	copies(t, m, folder, before)
	if _, err := m.Revert("postfix"); err != nil || !maps.Equal(before, m.Tree()) {
		t.Errorf("undone it is not as before: %v", err)
	}
}

// again applies once more, which changes nothing.
func again(t *testing.T, m *machine) {
	t.Helper()
	before := m.Tree()
	p, err := m.plan(t, everything)
	if err != nil {
		t.Fatal(err)
	}
	if !p.Empty() {
		t.Errorf("the second time: %+v", p.Changes)
	}
	if !maps.Equal(before, m.Tree()) {
		t.Error("the second time something is changed")
	}
}

// copies looks at what is kept of a run.
func copies(t *testing.T, m *machine, folder string, before map[string]string) {
	t.Helper()
	var manifest struct {
		MTA, State string
		Files      []struct {
			Path, Before, After string
			Lines               []edit.Line
		}
	}
	if err := json.Unmarshal([]byte(m.Text(folder+"/manifest.json")), &manifest); err != nil {
		t.Fatal(err)
	}
	if manifest.MTA != "postfix" || manifest.State != "done" || len(manifest.Files) != 4 {
		t.Fatalf("manifest: %+v", manifest)
	}
	for _, f := range manifest.Files {
		if old, had := before[f.Path]; had && m.Text(folder+"/"+f.Before) != old || !had && f.Before != "" {
			t.Errorf("the copy of %s differs", f.Path)
		}
		if m.Text(folder+"/"+f.After) != m.Text(f.Path) {
			t.Errorf("%s is not what the manifest says", f.Path)
		}
		for _, l := range f.Lines {
			if l.Text == "" {
				t.Errorf("%s: %+v", f.Path, l)
			}
		}
	}
	if info, err := os.Stat(m.Path(folder)); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("the folder is %v, %v", info, err)
	}
}

func TestReload(t *testing.T) {
	m := with(t, "3.7.11")
	p, _ := apply(t, m, onlyMaps)
	if slices.Contains(m.Ran, "postfix reload") {
		t.Error("reloaded without being told")
	}
	m.Commands["postfix"] = ""
	if err := setup.Reload(t.Context(), m.System, p); err != nil || !slices.Contains(m.Ran, "postfix reload") {
		t.Errorf("ran %q, %v", m.Ran, err)
	}
}

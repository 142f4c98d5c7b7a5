package setup_test

import (
	"encoding/json"
	"errors"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"postseal/cmd/postseal/internal/setup"
)

// everything is the largest set-up.
var everything = setup.PostfixOptions{Options: setup.Options{DANE: setup.DANEAuto, TLSRPT: true}, Fallback: true, RequireTLS: true}

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
	m.write("/var/log/mail.log", "")
	m.write("/etc/postseal/postseal.toml", "# mine\n[host]\ndane = false # for now\n\n[milter]\nlisten = []\n\n[log]\nlevel = \"warn\"\n")
	return m
}

func apply(t *testing.T, m *machine, o setup.PostfixOptions) (*setup.Plan, string) {
	t.Helper()
	p, err := m.Postfix(t.Context(), o)
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
	before := m.tree()
	if err := os.Chmod(m.path("/etc/postfix/main.cf"), 0o640); err != nil {
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
	for name, want := range setup.Services() {
		if got := strings.Join(strings.Fields(m.master("/etc/postfix", name)), " "); got != want {
			t.Errorf("%s: got %s, want %s", name, got, want)
		}
	}
	checks := m.text("/etc/postfix/postseal_milter_header_checks")
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
	if got := m.text("/etc/postseal/postseal.toml"); got != wantTOML {
		t.Errorf("postseal.toml:\n%s\nwant:\n%s", got, wantTOML)
	}
	if !strings.Contains(strings.Join(p.Warnings, "\n"), "hash:/etc/postfix/domains (virtual_mailbox_domains)") {
		t.Errorf("warnings: %q", p.Warnings)
	}
	if info, err := os.Stat(m.path("/etc/postfix/main.cf")); err != nil || info.Mode().Perm() != 0o640 {
		t.Errorf("main.cf is now %v, %v", info.Mode(), err)
	}
	again(t, m)
	copies(t, m, folder, before)
}

// again applies once more, which changes nothing.
func again(t *testing.T, m *machine) {
	t.Helper()
	before := m.tree()
	p, err := m.Postfix(t.Context(), everything)
	if err != nil {
		t.Fatal(err)
	}
	if !p.Empty() {
		t.Errorf("the second time: %+v", p.Changes)
	}
	if !maps.Equal(before, m.tree()) {
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
			Lines               []setup.Line
		}
	}
	if err := json.Unmarshal([]byte(m.text(folder+"/manifest.json")), &manifest); err != nil {
		t.Fatal(err)
	}
	if manifest.MTA != "postfix" || manifest.State != "done" || len(manifest.Files) != 4 {
		t.Fatalf("manifest: %+v", manifest)
	}
	for _, f := range manifest.Files {
		if old, had := before[f.Path]; had && m.text(folder+"/"+f.Before) != old || !had && f.Before != "" {
			t.Errorf("the copy of %s differs", f.Path)
		}
		if m.text(folder+"/"+f.After) != m.text(f.Path) {
			t.Errorf("%s is not what the manifest says", f.Path)
		}
		for _, l := range f.Lines {
			if l.Text == "" {
				t.Errorf("%s: %+v", f.Path, l)
			}
		}
	}
	if info, err := os.Stat(m.path(folder)); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("the folder is %v, %v", info, err)
	}
}

func TestRevert(t *testing.T) {
	m := with(t, "3.7.11")
	before := m.tree()
	apply(t, m, onlyMaps)
	between := m.tree()
	_, folder := apply(t, m, everything)
	r, err := m.Revert("postfix")
	if err != nil || !slices.Equal(r.Runs, []string{folder}) || r.Older != 1 {
		t.Fatalf("got %+v, %v", r, err)
	}
	if !maps.Equal(between, m.tree()) {
		t.Error("the second run is not undone")
	}
	if r, err = m.Revert("postfix"); err != nil || len(r.Runs) != 1 || r.Older != 0 {
		t.Fatalf("got %+v, %v", r, err)
	}
	if !maps.Equal(before, m.tree()) {
		t.Error("the first run is not undone")
	}
	if r, err = m.Revert("postfix"); err != nil || len(r.Runs) != 0 {
		t.Fatalf("got %+v, %v", r, err)
	}
}

// TestRevertEdited undoes what is ours beside what an administrator has changed since,
// and refuses where that is the same line.
func TestRevertEdited(t *testing.T) {
	m := with(t, "3.7.11")
	before := m.text("/etc/postfix/main.cf")
	apply(t, m, everything)
	m.put("biff", "yes")
	m.put("mine", "new")
	if _, err := m.Revert("postfix"); err != nil {
		t.Fatal(err)
	}
	want := strings.Replace(before, "biff = no", "biff = yes", 1) + "mine = new\n"
	if got := m.text("/etc/postfix/main.cf"); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}

	apply(t, m, everything)
	m.put("smtp_tls_policy_maps", "hash:/etc/postfix/other")
	left := m.tree()
	_, err := m.Revert("postfix")
	refusal(t, err, "/etc/postfix/main.cf: smtp_tls_policy_maps = hash:/etc/postfix/tls_policy, socketmap:inet:127.0.0.1:8461:postfix")
	m.write("/etc/postfix/postseal_milter_header_checks", "/^X-Mine/ DUNNO\n")
	_, err = m.Revert("postfix")
	refusal(t, err, "/etc/postfix/postseal_milter_header_checks: all of it was new")
	delete(left, "/etc/postfix/postseal_milter_header_checks")
	for name, text := range left {
		if m.text(name) != text {
			t.Errorf("a refused revert has changed %s", name)
		}
	}
}

// TestKilled ends a run after each of its files, as kill -9 would. Undoing it, or doing
// it again and undoing both, leads back to the start.
func TestKilled(t *testing.T) {
	killed := errors.New("killed")
	for after := range 4 {
		for _, finish := range []bool{false, true} {
			m := with(t, "3.11.7")
			before := m.tree()
			p, err := m.Postfix(t.Context(), everything)
			if err != nil {
				t.Fatal(err)
			}
			written := 0
			m.Wrote(func(string) error {
				if written++; written > after {
					return killed
				}
				return nil
			})
			if _, err := m.Apply(p); !errors.Is(err, killed) {
				t.Fatal(err)
			}
			m.Wrote(nil)
			if finish {
				p, err := m.Postfix(t.Context(), everything)
				if err != nil {
					t.Fatal(err)
				}
				if _, err := m.Apply(p); err != nil {
					t.Fatal(err)
				}
				again(t, m)
			}
			if _, err := m.Revert("postfix"); err != nil {
				t.Fatal(err)
			}
			if !maps.Equal(before, m.tree()) {
				t.Errorf("after %d files, finished %v: not as before", after+1, finish)
			}
			if r, err := m.Revert("postfix"); err != nil || len(r.Runs) != 0 {
				t.Errorf("after %d files, finished %v: still in force: %+v, %v", after+1, finish, r, err)
			}
		}
	}
}

// TestRevertKilled dies between two files of an undo: the next one does the rest.
func TestRevertKilled(t *testing.T) {
	m := with(t, "3.7.11")
	before := m.tree()
	_, folder := apply(t, m, everything)
	m.put("mine", "new")
	if _, err := m.Revert("postfix"); err != nil {
		t.Fatal(err)
	}
	// All files are written, but the manifest is that of the moment before.
	m.write(folder+"/manifest.json", strings.Replace(m.text(folder+"/manifest.json"), `"reverted"`, `"done"`, 1))
	if _, err := m.Revert("postfix"); err != nil {
		t.Fatal(err)
	}
	before["/etc/postfix/main.cf"] += "mine = new\n"
	if !maps.Equal(before, m.tree()) {
		t.Error("not as before")
	}
	if !strings.Contains(m.text(folder+"/manifest.json"), `"reverted"`) {
		t.Error("the manifest does not say that the run was undone")
	}
}

// TestApplyChangedMeanwhile does not overwrite what somebody else has just written.
func TestApplyChangedMeanwhile(t *testing.T) {
	m := with(t, "3.7.11")
	p, err := m.Postfix(t.Context(), onlyMaps)
	if err != nil {
		t.Fatal(err)
	}
	m.put("biff", "yes")
	if _, err := m.Apply(p); err == nil || !strings.Contains(err.Error(), "/etc/postfix/main.cf was changed by somebody else") {
		t.Errorf("got %v", err)
	}
	if m.main("/etc/postfix")["biff"] != "yes" {
		t.Error("it was overwritten")
	}
}

func TestReload(t *testing.T) {
	m := with(t, "3.7.11")
	p, _ := apply(t, m, onlyMaps)
	if slices.Contains(m.ran, "postfix reload") {
		t.Error("reloaded without being told")
	}
	m.commands["postfix"] = ""
	if err := m.Reload(t.Context(), p); err != nil || !slices.Contains(m.ran, "postfix reload") {
		t.Errorf("ran %q, %v", m.ran, err)
	}
}

package overrides_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"postseal/cmd/postseal/internal/overrides"
	"postseal/policy"
	"postseal/policy/mtasts"
)

const policyText = "version: STSv1\nmode: enforce\nmx: mail.example.org\nmax_age: 86400\n"

func TestRules(t *testing.T) {
	bad := func(r overrides.Rule, want string) {
		t.Helper()
		err := r.Normalize()
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: got %v, want %s", r, err, want)
		}
	}
	good := func(r overrides.Rule) policy.Override {
		t.Helper()
		if err := r.Normalize(); err != nil {
			t.Errorf("%+v: %v", r, err)
		}
		o, err := r.Compile()
		if err != nil {
			t.Errorf("%+v: %v", r, err)
		}
		return o
	}
	bad(overrides.Rule{}, "domain")
	bad(overrides.Rule{Domain: "localhost", Action: "exempt"}, "domain")
	bad(overrides.Rule{Domain: "[mx.example.org]", Action: "exempt"}, "domain")
	bad(overrides.Rule{Domain: "example.org:587", Action: "exempt"}, "domain")
	bad(overrides.Rule{Domain: "..example.org", Action: "exempt"}, "domain")
	bad(overrides.Rule{Domain: "example.org"}, "action: is missing")
	bad(overrides.Rule{Domain: "example.org", Action: "allow"}, "action")
	bad(overrides.Rule{Domain: "example.org", Action: "exempt", Level: "encrypt"}, "level: has no meaning here")
	bad(overrides.Rule{Domain: "example.org", Action: "require"}, "level: is missing")
	bad(overrides.Rule{Domain: "example.org", Action: "require", Level: "may"}, "level")
	bad(overrides.Rule{Domain: "example.org", Action: "require", Level: "encrypt", Match: []string{"mx.example.org"}}, "match: has no meaning here")
	bad(overrides.Rule{Domain: ".example.org", Action: "require", Level: "secure"}, "match: is missing")
	bad(overrides.Rule{Domain: "example.org", Action: "require", Level: "secure", Match: []string{"a b"}}, "match")
	bad(overrides.Rule{Domain: "example.org", Action: "require", Level: "secure", Match: []string{"a.test\nmx: b.test"}}, "match")
	bad(overrides.Rule{Domain: "example.org", Action: "require", Level: "secure", Match: []string{"a.test servername=b"}}, "match")
	bad(overrides.Rule{Domain: "example.org", Action: "pin"}, "mode: is missing")
	bad(overrides.Rule{Domain: "example.org", Action: "pin", Mode: "enforce"}, "mx: is missing")
	bad(overrides.Rule{Domain: "example.org", Action: "pin", Mode: "strict", MX: []string{"mx.example.org"}}, `mode: "strict" is not`)
	bad(overrides.Rule{Domain: "example.org", Action: "pin", Policy: "mode: enforce"}, "policy")
	bad(overrides.Rule{Domain: "example.org", Action: "pin", Policy: policyText, Mode: "enforce"}, "mode: has no meaning here")
	bad(overrides.Rule{Domain: "example.org", RequireTLS: "maybe"}, "requiretls")
	bad(overrides.Rule{Domain: "example.org", Action: "exempt", Reason: "two\nlines"}, "reason")
	bad(overrides.Rule{Domain: "example.org", Action: "exempt", Author: strings.Repeat("x", 501)}, "author")

	if o := good(overrides.Rule{Domain: "BÜCHER.example.", Action: "exempt"}); o.Domain != "xn--bcher-kva.example" || o.Action != policy.Exempt {
		t.Errorf("got %+v", o)
	}
	if o := good(overrides.Rule{Domain: ".Example.ORG", Action: "require", Level: "dane-only"}); o.Domain != ".example.org" || o.Level != policy.LevelDANEOnly {
		t.Errorf("got %+v", o)
	}
	o := good(overrides.Rule{Domain: "example.org", Action: "require", Level: "secure"})
	if o.Level != policy.LevelSTS || !slices.Equal(o.Policy.MX, []string{"example.org", "*.example.org"}) {
		t.Errorf("got %+v", o.Policy)
	}
	o = good(overrides.Rule{Domain: "example.org", Action: "pin", Mode: "testing", MX: []string{"MX.example.org", ".example.net"}})
	if o.Policy.Mode != mtasts.Testing || !slices.Equal(o.Policy.MX, []string{"mx.example.org", "*.example.net"}) {
		t.Errorf("got %+v", o.Policy)
	}
	if o = good(overrides.Rule{Domain: "example.org", Action: "pin", Mode: "none"}); o.Policy.Mode != mtasts.None {
		t.Errorf("got %+v", o.Policy)
	}
	if o = good(overrides.Rule{Domain: "example.org", Action: "pin", Policy: policyText}); o.Policy.MaxAge != 24*time.Hour {
		t.Errorf("got %+v", o.Policy)
	}
	good(overrides.Rule{Domain: "example.org", RequireTLS: "opportunistic+starttls"})
}

func TestFile(t *testing.T) {
	bad := func(text, want string) {
		t.Helper()
		if _, err := overrides.Parse("f.toml", text); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("got  %v\nwant %s", err, want)
		}
	}
	bad("[[override]]\ndomain = 'a.test'\nation = 'exempt'\n", "f.toml:3: override.ation: unknown key")
	bad("[[overide]]\ndomain = 'a.test'\n", "f.toml:1: overide: unknown key")
	bad("[[override]]\naction = 'exempt'\n", `f.toml:1: override.1.domain: "" is neither a domain nor a dot and a domain`)
	bad("[[override]]\ndomain = 'a.test'\naction = 'exempt'\n\n[[override]]\ndomain = 'b.test'\naction = 'forbid'\n",
		`f.toml:7: override.2.action: "forbid" is not exempt, require or pin`)
	bad("[[override]]\ndomain = 'a.test'\naction = 'exempt'\n[[override]]\ndomain = 'A.test.'\naction = 'exempt'\n",
		"f.toml:5: override.2.domain: a.test has a rule already, the one with number 1")
	bad("[[override]]\ndomain = 'a.test'\naction = 'pin'\npolicy = '''\nversion: STSv1\nmode: enforce\nmax_age: 1\n'''\n",
		"f.toml:4: override.1.policy: ")
	bad("[[override]]\ndomain = 'a.test'\naction = 'exempt'\nexpires = 'soon'\n",
		`f.toml:4: override.expires: parsing time "soon"`)
}

// What is saved is read again as it was, and the old content is never lost in part.
func TestSave(t *testing.T) {
	path := filepath.Join(t.TempDir(), "overrides.toml")
	if rules, err := overrides.Load(path); err != nil || rules != nil {
		t.Fatalf("a file that does not exist: %v, %v", rules, err)
	}
	rules := []overrides.Rule{
		{Domain: "a.test", Action: "exempt", Expires: time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC), Reason: `quotes " and \ and #`, Author: "me", Created: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)},
		{Domain: ".b.test", Action: "require", Level: "secure", Match: []string{"mx.b.test", "*.b.test"}},
		{Domain: "c.test", Action: "pin", Policy: policyText, RequireTLS: "enforce"},
		{Domain: "d.test", Action: "pin", Mode: "enforce", MX: []string{"mx.d.test"}},
	}
	for range 2 {
		if err := overrides.Save(path, rules); err != nil {
			t.Fatal(err)
		}
	}
	got, err := overrides.Load(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(rules, got); diff != "" {
		t.Errorf("(-saved +loaded):\n%s", diff)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if left, _ := filepath.Glob(filepath.Join(filepath.Dir(path), ".overrides-*")); left != nil {
		t.Errorf("left behind: %v", left)
	}
	if err := overrides.Save(filepath.Join(path, "x"), rules); err == nil {
		t.Error("saved into a folder that is none")
	}
}

func TestDamage(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "overrides.toml")
	for _, name := range []string{"overrides.toml", ".overrides-123", ".overrides-mine"} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := overrides.Load(path); err == nil || !strings.Contains(err.Error(), "empty") {
		t.Errorf("a file of no bytes: %v", err)
	}
	if _, err := overrides.Load("/dev/zero"); err == nil || !strings.Contains(err.Error(), "larger than") {
		t.Errorf("a file without end: %v", err)
	}
	if err := overrides.Sweep(dir); err != nil {
		t.Error(err)
	}
	left, _ := filepath.Glob(filepath.Join(dir, "*"))
	want := []string{filepath.Join(dir, ".overrides-mine"), path}
	if diff := cmp.Diff(want, left); diff != "" {
		t.Errorf("left (-want +got):\n%s", diff)
	}
}

func TestStore(t *testing.T) {
	path := filepath.Join(t.TempDir(), "overrides.toml")
	var applied []policy.Override
	s := &overrides.Store{Path: path, Apply: func(o []policy.Override) { applied = o }}
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	set := func(r overrides.Rule) {
		t.Helper()
		_, _, err := s.Set(r)
		check(err)
	}
	check(s.Reload())
	set(overrides.Rule{Domain: "a.test", Action: "exempt"})
	set(overrides.Rule{Domain: "b.test", Action: "exempt"})
	set(overrides.Rule{Domain: "a.test", Action: "require", Level: "encrypt"})
	if len(applied) != 2 || applied[0].Action != policy.Require {
		t.Errorf("applied: %+v", applied)
	}

	// What somebody wrote into the file meanwhile is kept.
	check(os.WriteFile(path, []byte("[[override]]\ndomain = 'hand.test'\naction = 'exempt'\n"), 0o600))
	set(overrides.Rule{Domain: "c.test", Action: "exempt"})
	if len(applied) != 2 || applied[0].Domain != "hand.test" {
		t.Errorf("applied: %+v", applied)
	}
	if found, err := s.Remove("hand.test"); found == nil || err != nil {
		t.Errorf("remove: %v, %v", found, err)
	}
	if found, err := s.Remove("hand.test"); found != nil || err != nil {
		t.Errorf("remove again: %v, %v", found, err)
	}

	// A file that cannot be used changes nothing, and is not written over.
	check(os.WriteFile(path, []byte("nonsense"), 0o600))
	if _, _, err := s.Set(overrides.Rule{Domain: "d.test", Action: "exempt"}); err == nil || s.Reload() == nil {
		t.Error("a broken file is no error")
	}
	if len(s.List()) != 1 || len(applied) != 1 {
		t.Errorf("rules: %v", s.List())
	}
	if text, _ := os.ReadFile(path); string(text) != "nonsense" {
		t.Errorf("the file is now %q", text)
	}
}

func FuzzParse(f *testing.F) {
	f.Add("[[override]]\ndomain = 'a.test'\naction = 'exempt'\nexpires = 2026-01-01\n")
	f.Add("[[override]]\ndomain = '.a.test'\naction = 'require'\nlevel = 'secure'\nmatch = ['.b.test']\n")
	f.Add("[[override]]\ndomain = 'a.test'\naction = 'pin'\npolicy = '''" + policyText + "'''\n")
	f.Fuzz(func(t *testing.T, text string) {
		rules, err := overrides.Parse("f.toml", text)
		if err != nil {
			if !strings.HasPrefix(err.Error(), "f.toml") {
				t.Errorf("the error does not name the file: %v", err)
			}
			return
		}
		if _, err := overrides.Compile(rules); err != nil {
			t.Errorf("accepted, but %v", err)
		}
	})
}

package config_test

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/BurntSushi/toml"
	"github.com/google/go-cmp/cmp"

	"postseal/cmd/postseal/internal/config"
	"postseal/policy"
	"postseal/policy/delivery"
	"postseal/policy/dnssec"
)

const sample = "../../../../contrib/postseal.toml"

// The annotated sample has every key, and each with its default.
func TestSampleIsTheDefaults(t *testing.T) {
	text, err := os.ReadFile(sample)
	if err != nil {
		t.Fatal(err)
	}
	got, err := config.Decode(sample, string(text))
	if err != nil {
		t.Fatal(err)
	}
	want := config.Default()
	want.File = sample
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("the sample is not the defaults (-want +got):\n%s", diff)
	}
	var all map[string]any
	meta, err := toml.Decode(string(text), &all)
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range keys(reflect.TypeFor[config.Config](), nil) {
		if !meta.IsDefined(key...) {
			t.Errorf("the sample lacks %s", strings.Join(key, "."))
		}
	}
}

func keys(of reflect.Type, prefix []string) [][]string {
	var all [][]string
	for f := range of.Fields() {
		name := f.Tag.Get("toml")
		path := append(prefix[:len(prefix):len(prefix)], name)
		switch {
		case name == "-":
		case f.Anonymous:
			all = append(all, keys(f.Type, prefix)...)
		case f.Type.Kind() == reflect.Struct:
			all = append(all, keys(f.Type, path)...)
		default:
			all = append(all, path)
		}
	}
	return all
}

// What config show prints is a configuration with the same meaning.
func TestShownIsReadAgain(t *testing.T) {
	c, err := config.Decode("f.toml", "state_dir = '/s'\n[socketmap]\nlisten = 'unix:/a'\ngroup = 'mail'\n[log]\nlevel = 'warn'\n")
	if err != nil {
		t.Fatal(err)
	}
	text, err := c.TOML()
	if err != nil {
		t.Fatal(err)
	}
	again, err := config.Decode("f.toml", text)
	if err != nil {
		t.Fatalf("%v in\n%s", err, text)
	}
	if diff := cmp.Diff(c, again); diff != "" {
		t.Errorf("(-first +again):\n%s", diff)
	}
}

func TestValues(t *testing.T) {
	bad := func(text, want string) {
		t.Helper()
		_, err := config.Decode("f.toml", text)
		if err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%q:\ngot  %v\nwant %s…", text, err, want)
		}
	}
	good := func(text string) *config.Config {
		t.Helper()
		c, err := config.Decode("f.toml", text)
		if err != nil {
			t.Errorf("%q: %v", text, err)
			return config.Default()
		}
		return c
	}
	bad("state_dir = 'here'", `f.toml:1: state_dir: "here" must be an absolute path`)
	bad("\n[dns]\nservers = ['localhost']", `f.toml:3: dns.servers: "localhost" is not the address of a resolver`)
	bad("[dns]\nservers = ['127.0.0.1:0']", "f.toml:2: dns.servers: ")
	bad("[dns]\nself_test_bogus = 'not a name'", `f.toml:2: dns.self_test_bogus: "not a name" is no domain name`)
	bad("[dns]\nself_test_signed = []", "f.toml:2: dns.self_test_signed: must have a name")
	bad("[policy]\nfirst_contact = 'maybe'", `f.toml:2: policy.first_contact: "maybe" is neither deliver nor defer`)
	bad("[policy]\ncache_entries = 0", "f.toml:2: policy.cache_entries: 0 is not between")
	bad("[policy]\ncache_entries = 1.5", "f.toml:2: policy.cache_entries: ")
	bad("[log]\nlevel = 'loud'", "f.toml:2: log.level: ")
	bad("[log]\nformat = 'xml'", `f.toml:2: log.format: "xml" is neither text nor json`)
	bad("[socketmap]\nlisten = ['8461']", `f.toml:2: socketmap.listen: "8461" is neither unix:/path nor tcp:host:port`)
	bad("[socketmap]\nlisten = ['tcp:127.0.0.1']", "f.toml:2: socketmap.listen: ")
	bad("[socketmap]\nlisten = ['tcp:127.0.0.1:smtp']", "f.toml:2: socketmap.listen: ")
	bad("[socketmap]\nlisten = ['unix:relative']", "f.toml:2: socketmap.listen: ")
	bad("[socketmap]\nlisten = ['unix:/"+strings.Repeat("x", 100)+"']", "f.toml:2: socketmap.listen: ")
	bad("[socketmap]\nlisten = 1", "f.toml:2: socketmap.listen: must be a list of addresses")
	bad("[socketmap]\nlisten = [['tcp:127.0.0.1:1']]", "f.toml:2: socketmap.listen: must be a list of addresses")
	bad("[socketmap]\nmode = 'rw'", `f.toml:2: socketmap.mode: "rw" is not octal`)
	bad("[exim]\nmode = '7777'", "f.toml:2: exim.mode: ")
	bad("[exim]\nlisten = ['tcp:127.0.0.1:8461']", "f.toml:2: exim.listen: tcp:127.0.0.1:8461 is listed in socketmap.listen already")
	bad("control.listen = 'tcp:127.0.0.1:1'", "f.toml:1: control.listen: ")
	bad("[milter]\nroute = 'suffix'", `f.toml:2: milter.route: "suffix" is neither header nor recipient`)
	bad("[milter]\non_error = 'reject'", `f.toml:2: milter.on_error: "reject" is neither tempfail nor accept`)
	bad("[milter]\nrelaxed_from = ''", `f.toml:2: milter.relaxed_from: "" is neither anyone nor trusted`)
	bad("[milter]\ntrusted_networks = ['localnet']", `f.toml:2: milter.trusted_networks: "localnet" is no network`)
	bad("[[milter.rule]]\nsender = '*'\n[[milter.rule]]\nsender = '*'\ntag = 'tls'", `f.toml:1: milter.rule.1: tag "" is not requiretls, relaxed or none`)
	bad("[[milter.rule]]\nsender = '*'\ntag = 'none'\n[[milter.rule]]\nsender = '*'\ntag = 'tls'", `f.toml:4: milter.rule.2: tag "tls" is not requiretls, relaxed or none`)
	bad("[[milter.rule]]\ntag = 'none'", "f.toml:1: milter.rule.1: has neither sender, recipient nor user")
	bad("[[milter.rule]]\nsender = 'bank'\ntag = 'none'", `f.toml:1: milter.rule.1: sender: "bank" is not "user@domain"`)
	bad("[[milter.rule]]\nrecipient = 'user@'\ntag = 'none'", `f.toml:1: milter.rule.1: recipient: "user@" is not "user@domain"`)
	bad("[delivery]\nlisten = 'tcp:127.0.0.1:25'", "f.toml:2: delivery.listen: tcp:127.0.0.1:25: LMTP must not be on port 25")
	bad("[delivery]\nrequiretls_listen = 'tcp:127.0.0.1:8461'", "f.toml:2: delivery.requiretls_listen: tcp:127.0.0.1:8461 is listed in socketmap.listen already")
	bad("[delivery]\nport = 0", "f.toml:2: delivery.port: 0 is no port")
	bad("[delivery]\ndeadline = '10m'", "f.toml:2: delivery.deadline: 10m0s is not between 1s and 9m30s")
	bad("[delivery]\ndeadline = 'soon'", "f.toml:2: delivery.deadline: ")
	bad("[delivery]\nmax_message = 1000", "f.toml:2: delivery.max_message: 1000 is less than")
	bad("[delivery]\nhostname = 'mail'", `f.toml:2: delivery.hostname: "mail" is no host name with a domain`)
	bad("[delivery]\nca_file = '/nonexistent/ca.pem'", "f.toml:2: delivery.ca_file: open /nonexistent/ca.pem")
	bad("[delivery]\nnexthop = 'inet: 127.0.0.1'", "f.toml:2: delivery.nexthop: ")
	bad("[delivery]\nfor = ['tls']", `f.toml:2: delivery.for: "tls" is neither mixed, dane, sts, unusable-tlsa nor a domain`)
	bad("[delivery]\nlocal_domains = ['localhost']", `f.toml:2: delivery.local_domains: "localhost" is no domain`)
	bad("[delivery]\nlocal_relay = '127.0.0.1:10025'", "f.toml:2: delivery.local_relay: ")
	bad("[[delivery.route]]\ndomain = 'x'\nnexthop = 'a.example'", `f.toml:2: delivery.route.1.domain: "x" is neither a domain nor *`)
	bad("[[delivery.route]]\ndomain = 'A.example'\nnexthop = 'x.example'\n[[delivery.route]]\ndomain = 'a.example.'\nnexthop = 'y.example'", `f.toml:5: delivery.route.2.domain: "a.example." has a route already`)
	bad("[[delivery.route]]\ndomain = '*'\nnexthop = '[192.0.2.1]:0'", `f.toml:3: delivery.route.1.nexthop: "[192.0.2.1]:0" is not host`)
	bad("[[delivery.route]]\ndomain = '*'\nnexthop = '192.0.2.1'", `f.toml:3: delivery.route.1.nexthop: "192.0.2.1" is not host`)
	bad("[[delivery.route]]\ndomain = '*'\nnexthop = ''", `f.toml:3: delivery.route.1.nexthop: "" is not host`)
	bad("[[delivery.route]]\ndomain = '*'\nnexthop = 'a.example'\n[[delivery.route]]\ndomain = '*'\nnexthop = 'b.example'", `f.toml:5: delivery.route.2.domain: "*" has a route already`)

	c := good("[[delivery.route]]\ndomain = '.A.example.'\nnexthop = '[192.0.2.1]'\n[[delivery.route]]\ndomain = '*'\nnexthop = '[IPv6:2001:db8::1]:587'\nrequiretls_exempt = true")
	if diff := cmp.Diff([]delivery.Route{{Domain: ".a.example", NextHop: "[192.0.2.1]"}, {Domain: "*", NextHop: "[IPv6:2001:db8::1]:587", RequireTLSExempt: true}}, c.SmartHosts()); diff != "" {
		t.Error(diff)
	}
	c = good("[dns]\nservers = ['127.0.0.1', '::1', '[2001:db8::1]:5353', '192.0.2.1:5353']\ntrust_ad = 'always'\nself_test = false\nself_test_bogus = ''")
	if diff := cmp.Diff([]string{"127.0.0.1:53", "[::1]:53", "[2001:db8::1]:5353", "192.0.2.1:5353"}, c.Resolvers()); diff != "" {
		t.Error(diff)
	}
	if trust, _ := c.TrustAD(); trust != dnssec.TrustAlways {
		t.Errorf("trust_ad is %v", trust)
	}
	if s := c.SelfTest(); s.Bogus != "" || s.Signed != nil {
		t.Errorf("a self-test that is off has names: %v", s)
	}
	c = good("[policy]\nfirst_contact = 'defer'\n[socketmap]\nlisten = []\n[http]\nlisten = []\n")
	if first, _ := c.FirstContact(); first != policy.Defer {
		t.Errorf("first_contact is %v", first)
	}
	if len(c.Socketmap.Listen)+len(c.HTTP.Listen) > 0 {
		t.Error("an empty list does not switch a listener off")
	}
}

func TestEndpoints(t *testing.T) {
	for s, exposed := range map[string]bool{
		"tcp:127.0.0.1:8461":  false,
		"inet:localhost:8461": false,
		"tcp:[::1]:8461":      false,
		"unix:/run/x.sock":    false,
		"tcp:0.0.0.0:8461":    true,
		"tcp::8461":           true,
		"inet:[::]:8461":      true,
		"tcp:192.0.2.1:8461":  true,
		"tcp:mail.test:8461":  true,
	} {
		t.Run("SM-014 "+s, func(t *testing.T) {
			e, err := config.ParseEndpoint(s)
			if err != nil {
				t.Fatal(err)
			}
			if e.Exposed() != exposed {
				t.Errorf("exposed: %v, want %v", e.Exposed(), exposed)
			}
		})
	}
}

// Without a file the daemon needs no rights and is reached from this machine alone.
func TestDefaults(t *testing.T) {
	env := func(pairs ...string) func(string) string {
		return func(name string) string {
			for i := 0; i < len(pairs); i += 2 {
				if pairs[i] == name {
					return pairs[i+1]
				}
			}
			return ""
		}
	}
	for _, tt := range []struct {
		name       string
		env        func(string) string
		state, run string
	}{
		{"systemd", env("STATE_DIRECTORY", "/var/lib/postseal", "RUNTIME_DIRECTORY", "/run/postseal", "HOME", "/root"), "/var/lib/postseal", "/run/postseal"},
		{"XDG", env("XDG_STATE_HOME", "/x", "HOME", "/users/u"), "/x/postseal", "/x/postseal"},
		{"relative XDG is ignored", env("XDG_STATE_HOME", "x", "HOME", "/users/u"), "/users/u/.local/state/postseal", "/users/u/.local/state/postseal"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c, err := config.Load("", tt.env)
			if err != nil {
				t.Fatal(err)
			}
			if c.StateDir != tt.state || c.Control.Listen[0] != "unix:"+tt.run+"/control.sock" {
				t.Errorf("state in %s, control socket %s", c.StateDir, c.Control.Listen)
			}
		})
	}
	t.Run("SM-014 loopback", func(t *testing.T) {
		c := config.Default()
		for _, s := range append(c.Socketmap.Listen, c.HTTP.Listen...) {
			if e, err := config.ParseEndpoint(s); err != nil || e.Exposed() {
				t.Errorf("%s: %v", s, err)
			}
		}
	})
	if _, err := config.Load("", env()); err == nil || !strings.Contains(err.Error(), "set state_dir") {
		t.Errorf("no place for state: %v", err)
	}
	if _, err := config.Load(filepath.Join(t.TempDir(), "none.toml"), env("HOME", "/h")); err == nil {
		t.Error("a named file that does not exist is no error")
	}
}

func TestDiff(t *testing.T) {
	a, err := config.Decode("f.toml", "[log]\nlevel = 'debug'\n[socketmap]\nlisten = []\n")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"socketmap.listen", "log.level"}, config.Diff(config.Default(), a)); diff != "" {
		t.Error(diff)
	}
	if d := config.Diff(a, a); d != nil {
		t.Errorf("a configuration differs from itself: %v", d)
	}
}

func FuzzDecode(f *testing.F) {
	if text, err := os.ReadFile(sample); err == nil {
		f.Add(string(text))
	}
	f.Add("dns.servers = ['::1%eth0']")
	f.Add("[socketmap]\nlisten = 'unix:/'")
	f.Add("control = 1")
	f.Fuzz(func(t *testing.T, text string) {
		// Files are not to be opened by a fuzzer.
		if strings.Contains(text, "ca_file") && !strings.Contains(text, `ca_file = ""`) {
			return
		}
		c, err := config.Decode("f.toml", text)
		if err != nil {
			if !strings.HasPrefix(err.Error(), "f.toml") {
				t.Errorf("the error does not name the file: %v", err)
			}
			return
		}
		for _, l := range []config.Listen{c.Socketmap.Listen, c.Exim.Listen, c.Control.Listen, c.HTTP.Listen} {
			if _, err := l.Endpoints(); err != nil {
				t.Errorf("accepted, but %v", err)
			}
		}
	})
}

func TestFallback(t *testing.T) {
	for _, c := range []struct {
		text string
		want policy.Fallback
	}{
		{"", policy.Fallback{Mixed: true}},
		{"host.dane = false", policy.Fallback{Mixed: true, DANE: true}},
		{"[delivery]\nfor = ['sts', 'unusable-tlsa', 'Chosen.Example', '.Below.example']\nlocal_domains = ['Own.example']",
			policy.Fallback{STS: true, Unusable: true, Domains: []string{"chosen.example", ".below.example"}, Local: []string{"own.example"}}},
	} {
		conf, err := config.Decode("f.toml", c.text)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(&c.want, conf.Fallback()); diff != "" {
			t.Errorf("%q (-want +got):\n%s", c.text, diff)
		}
	}
}

func TestListenersOfLMTP(t *testing.T) {
	t.Run("SMTP-126 LMTP is never on port 25", func(t *testing.T) {
		for _, key := range []string{"listen", "requiretls_listen", "relaxed_listen"} {
			_, err := config.Decode("f.toml", "[delivery]\n"+key+" = 'tcp:127.0.0.1:25'")
			if err == nil || !strings.Contains(err.Error(), "port 25") {
				t.Errorf("%s: %v", key, err)
			}
		}
		if _, err := config.Decode("f.toml", "socketmap.listen = 'tcp:127.0.0.1:25'"); err != nil {
			t.Errorf("a socketmap may be anywhere: %v", err)
		}
	})
}

func TestWarnings(t *testing.T) {
	const listen = "[delivery]\nlisten = 'tcp:127.0.0.1:8463'\n"
	for text, words := range map[string][]string{
		"":     nil,
		listen: nil,
		"[milter]\nlisten = 'tcp:127.0.0.1:8462'\n" + listen:                                                                                     {"delivery.requiretls_listen is not", "delivery.relaxed_listen is not", "delivery.local_domains is not"},
		"[delivery]\nrequiretls_listen = 'tcp:127.0.0.1:8465'\n":                                                                                 {"delivery.listen is not set"},
		"[delivery]\nfor = []\nrequiretls_listen = 'tcp:127.0.0.1:8465'\n":                                                                       nil,
		listen + "local_domains = ['a.example']\n":                                                                                               {"delivery.local_relay is not"},
		listen + "local_relay = 'tcp:127.0.0.1:10025'\n":                                                                                         {"delivery.local_domains is empty"},
		listen + "local_domains = ['a.example']\nlocal_relay = 'inet:127.0.0.1:8463'":                                                            {"our own delivery.listen"},
		"[reporting]\nexim_events = true\n":                                                                                                      {"exim.listen is not set: no event can come in"},
		"[exim]\nlisten = 'tcp:127.0.0.1:8464'\n[reporting]\nexim_events = true\n":                                                               nil,
		"[[reporting.log]]\npath = '/m'\nformat = 'postfix'\n[[reporting.log]]\npath = 'journal'\nformat = 'postfix'\n":                          {"both /m and the journal as logs of postfix"},
		"[[reporting.log]]\npath = '/m'\nformat = 'postfix'\n[[reporting.log]]\npath = 'journal'\nformat = 'exim'\n":                             nil,
		"[reporting]\ncontact = 'r@a.example'\n":                                                                                                 {"no source of sessions"},
		"[reporting]\norganization = 'A'\n":                                                                                                      {"reporting.contact is not set"},
		"[reporting]\ncontact = 'r@a.example'\ntlsrpt_socket = 'unix:/s'\ndkim = [{ selector = 's', key_file = '/k', domain = 'b.example' }]":    {"a signature of b.example is not one of the sender r@a.example"},
		"[reporting]\ncontact = 'r@mx.a.example'\ntlsrpt_socket = 'unix:/s'\ndkim = [{ selector = 's', key_file = '/k', domain = 'a.example' }]": nil,
	} {
		c, err := config.Decode("f.toml", text)
		if err != nil {
			t.Fatal(err)
		}
		got := c.Warnings()
		if len(got) != len(words) {
			t.Errorf("%q: warned of %q, want %q", text, got, words)
			continue
		}
		for i, w := range words {
			if !strings.Contains(got[i], w) {
				t.Errorf("%q: warned of %q, want %q", text, got[i], w)
			}
		}
	}
}

package postconf_test

import (
	"maps"
	"slices"
	"testing"

	"postseal/cmd/postseal/internal/host/postconf"
)

func TestRelease(t *testing.T) {
	for _, c := range []struct {
		version          string
		is               string
		servername, tags bool // from 3.4 on; from 3.10 on
	}{
		{"2.11.3", "2.11", false, false},
		{"3.3-20180106", "3.3", false, false},
		{"3.4-20180605", "3.4", false, false},
		{"3.4.0", "3.4", true, false},
		{"3.9.0-RC1", "3.9", true, false},
		{"3.10-20240902", "3.10", true, false},
		{"3.10.0", "3.10", true, true},
		{"3.11-20250101", "3.11", true, true},
		{"4.0.1", "4.0", true, true},
	} {
		r, err := postconf.ParseRelease(c.version)
		if err != nil || r.String() != c.is || r.Has(postconf.Oldest) != c.servername || r.Has(postconf.Patterns) != c.tags {
			t.Errorf("%s: got %s, %v, %v, %v", c.version, r, r.Has(postconf.Oldest), r.Has(postconf.Patterns), err)
		}
	}
	for _, version := range []string{"", "unknown", "3", "v3.4"} {
		if r, err := postconf.ParseRelease(version); err == nil {
			t.Errorf("%q: got %s", version, r)
		}
	}
}

func TestValues(t *testing.T) {
	got := postconf.Values("a = b\nempty =\nlmtp/unix/o = x = y\nnone\n")
	if want := map[string]string{"a": "b", "empty": "", "lmtp/unix/o": "x = y"}; !maps.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestList(t *testing.T) {
	for list, want := range map[string][]string{
		"":                                      nil,
		" a,b c\td , ":                          {"a", "b", "c", "d"},
		"inline:{{a=b}, {c = d}}, { x, y=z },w": {"inline:{{a=b}, {c = d}}", "{ x, y=z }", "w"},
	} {
		if got := postconf.List(list); !slices.Equal(got, want) {
			t.Errorf("%q: got %q, want %q", list, got, want)
		}
	}
}

func TestChrooted(t *testing.T) {
	for _, c := range []struct {
		column, level string
		want          bool
	}{{"y", "3.6", true}, {"n", "0", false}, {"-", "0", true}, {"-", "3.10", false}, {"-", "", false}} {
		if got := postconf.Chrooted(c.column, c.level); got != c.want {
			t.Errorf("%q at level %q: got %v", c.column, c.level, got)
		}
	}
}

func TestSocketmap(t *testing.T) {
	for item, want := range map[string]postconf.Socketmap{
		"socketmap:inet:127.0.0.1:8461:postfix":        {Kind: "inet", Address: "127.0.0.1:8461", Name: "postfix"},
		"proxy:socketmap:unix:private/x:QUERY":         {Kind: "unix", Address: "private/x", Name: "QUERY", Proxied: true},
		"socketmap:inet:[::1]:8461:postfix-tlsrpt":     {Kind: "inet", Address: "[::1]:8461", Name: "postfix-tlsrpt"},
		"hash:/etc/postfix/tls_policy":                 {},
		"socketmap:unix":                               {},
		"socketmap:unix:path":                          {},
		"inline:{{a=socketmap:inet:127.0.0.1:8461:b}}": {},
	} {
		if got, ok := postconf.ParseSocketmap(item); got != want || ok != (want.Kind != "") {
			t.Errorf("%s: got %+v, %v", item, got, ok)
		}
	}
}

func TestDialect(t *testing.T) {
	for name, want := range map[string][2]bool{
		"postfix": {false, true}, "QUERY": {false, true}, "postfix-tlsrpt": {true, true}, "QUERYwithTLSRPT": {true, true}, "transport": {},
	} {
		if patterns, known := postconf.Dialect(name); [2]bool{patterns, known} != want {
			t.Errorf("%s: got %v, %v", name, patterns, known)
		}
	}
}

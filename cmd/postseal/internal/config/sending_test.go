package config_test

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"postseal/cmd/postseal/internal/config"
	"postseal/reporting/daily"
	"postseal/reporting/tlsrpt"
)

func TestSending(t *testing.T) {
	for text, want := range map[string]string{
		"contact = 'tlsrpt'":                                        `f.toml:2: reporting.contact: "tlsrpt" is no bare mail address`,
		"contact = 'R <r@a.example>'":                               `f.toml:2: reporting.contact: "R <r@a.example>" is no bare mail address`,
		"from = 'r@bücher.example'":                                 `f.toml:2: reporting.from: "r@bücher.example" is no bare mail address`,
		"bounces_to = '<>'":                                         "f.toml:2: reporting.bounces_to: ",
		"submit = '127.0.0.1:25'":                                   `f.toml:2: reporting.submit: "127.0.0.1:25" is neither smtp://host:port nor sendmail:/path`,
		"submit = 'smtp://127.0.0.1'":                               "f.toml:2: reporting.submit: ",
		"submit = 'sendmail:sendmail'":                              "f.toml:2: reporting.submit: ",
		"spread = '24h'":                                            "f.toml:2: reporting.spread: 24h0m0s is not between 1m0s and 20h0m0s",
		"retry = '0s'":                                              "f.toml:2: reporting.retry: 0s is not between 1s and 4h0m0s",
		"ca_file = '/nonexistent/ca.pem'":                           "f.toml:2: reporting.ca_file: open /nonexistent/ca.pem",
		"dkim = [{ key_file = '/k' }]":                              "f.toml:2: reporting.dkim.1: has no selector",
		"dkim = [{ selector = 's' }]":                               `f.toml:2: reporting.dkim.1.key_file: "" is no absolute path`,
		"rule = [{ action = 'drop' }]":                              `f.toml:2: reporting.rule.1: has no domains; "*" is all`,
		"rule = [{ domains = ['a b'] }]":                            `f.toml:2: reporting.rule.1: domains: "a b" is no domain`,
		"rule = [{ domains = ['*'], action = 'bounce' }]":           `f.toml:2: reporting.rule.1: action: `,
		"rule = [{ domains = ['*'], action = 'replace' }]":          `f.toml:2: reporting.rule.1: to belongs to action replace`,
		"rule = [{ domains = ['*'], to = ['mailto:a@b.example'] }]": `f.toml:2: reporting.rule.1: to belongs to action replace`,
		"rule = [{ domains = ['*'], copy = ['folder:reports'] }]":   `f.toml:2: reporting.rule.1: copy: "folder:reports" is not folder: and a clean absolute path`,
		"rule = [{ domains = ['*'], action = 'replace', to = ['http://b.example/'] }]": `f.toml:2: reporting.rule.1: to: "http://b.example/" is neither mailto nor https`,
	} {
		_, err := config.Decode("f.toml", "[reporting]\n"+text)
		if err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%q:\ngot  %v\nwant %s…", text, err, want)
		}
	}
}

func TestSendingDefaults(t *testing.T) {
	c := config.Default()
	if c.Reports() || c.Reporting.Submit != "smtp://127.0.0.1:25" || c.Reporting.Spread != 4*time.Hour || c.Reporting.Retry != 10*time.Minute {
		t.Errorf("%+v", c.Reporting.Sending)
	}
	c, err := config.Decode("f.toml", `[reporting]
contact = "tlsrpt@a.example"
tlsrpt_socket = "unix:/run/tlsrpt.sock"
[[reporting.rule]]
domains = ["B.example.", ".c.example"]
action = "replace"
to = ["mailto:x@d.example"]
copy = ["folder:/srv/reports"]
[[reporting.rule]]
domains = ["*"]
`)
	if err != nil {
		t.Fatal(err)
	}
	if !c.Reports() || c.ReportFrom() != "tlsrpt@a.example" {
		t.Errorf("%+v", c.Reporting.Sending)
	}
	want := []daily.Rule{
		{Domains: []string{"b.example", ".c.example"}, Action: daily.Replace,
			To:   []daily.Target{{Target: tlsrpt.Target{URI: "mailto:x@d.example", Address: "x@d.example"}}},
			Copy: []daily.Target{{Target: tlsrpt.Target{URI: "folder:/srv/reports"}, Folder: "/srv/reports"}}},
		{Domains: []string{"*"}, Action: daily.Accept},
	}
	if diff := cmp.Diff(want, c.ReportRules()); diff != "" {
		t.Error(diff)
	}
}

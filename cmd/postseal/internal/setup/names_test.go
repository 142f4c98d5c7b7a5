package setup_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"postseal/cmd/postseal/internal/config"
	"postseal/cmd/postseal/internal/setup"
	"postseal/policy/dnssec"
)

// TestSelfTestNames: the resolver is tested with the names that the daemon tests it with.
func TestSelfTestNames(t *testing.T) {
	usual := config.Default().SelfTest()
	own := dnssec.SelfTest{Signed: []string{"a.example.org", "b.example.org"}, Unsigned: "example.net", Bogus: "bogus.example.org"}
	for _, c := range []struct {
		name, toml string
		want       dnssec.SelfTest
	}{
		{"default", "", usual},
		{"of the site", `dns = { self_test_signed = ["a.example.org", "b.example.org"], self_test_unsigned = "example.net", self_test_bogus = "bogus.example.org" }`, own},
		{"off", "dns = { self_test = false }", usual},
	} {
		t.Run(c.name, func(t *testing.T) {
			daemon, err := config.Decode("postseal.toml", c.toml)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.want, setup.SelfTestNames(daemon)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

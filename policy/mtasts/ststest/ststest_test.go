package ststest_test

import (
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"strconv"
	"testing"

	"go.uber.org/goleak"

	"postseal/policy/mtasts/ststest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// get asks the server for the policy of a domain as any HTTP client would.
func get(t *testing.T, s *ststest.Server, domain string) (int, string, error) {
	t.Helper()
	conn, err := tls.Dial("tcp", net.JoinHostPort(s.IP, strconv.Itoa(int(s.Port))), &tls.Config{
		RootCAs:    s.Roots,
		ServerName: "mta-sts." + domain,
	})
	if err != nil {
		return 0, "", err
	}
	client := &http.Client{Transport: &http.Transport{
		DialTLSContext:    func(context.Context, string, string) (net.Conn, error) { return conn, nil },
		DisableKeepAlives: true,
	}}
	resp, err := client.Get("https://mta-sts." + domain + "/.well-known/mta-sts.txt")
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(body), err
}

func TestServer(t *testing.T) {
	s := ststest.New(t)
	s.Set("example.org", "one")
	s.Set("example.net", "two")
	good := func(domain string, code int, want string) {
		t.Helper()
		if c, body, err := get(t, s, domain); err != nil || c != code || body != want {
			t.Errorf("get %s = %d, %q, %v; want %d, %q", domain, c, body, err, code, want)
		}
	}
	bad := func(domain string) {
		t.Helper()
		if code, _, err := get(t, s, domain); err == nil {
			t.Errorf("get %s = %d, want an error", domain, code)
		}
	}
	good("example.org", 200, "one")
	good("example.net", 200, "two")
	bad("example.com") // never set

	s.Down()
	bad("example.org")
	s.Up()
	good("example.org", 200, "one")

	for _, fault := range []string{"expired", "notyet", "selfsigned", "wrongname", "cnonly", "badcert", "oldissuer", "tls11", "close", "truncate", "garbage"} {
		s.Fault("example.org", fault)
		bad("example.org")
	}
	s.Fault("example.org", "404")
	good("example.org", 404, "one")
	s.Fault("example.org", "103")
	good("example.org", 200, "one")
	s.Fault("example.org", "")
	good("example.org", 200, "one")

	s.Names("example.org", "example.com")
	bad("example.org")
	s.Names("example.org", "*.example.org")
	good("example.org", 200, "one")

	if got := s.Gets("example.net"); got != 1 {
		t.Errorf("Gets = %d, want 1", got)
	}
	r := s.Requests("example.net")[0]
	if r.URI != "/.well-known/mta-sts.txt" || r.Host != "mta-sts.example.net" || r.ServerName != "mta-sts.example.net" {
		t.Errorf("request %+v", r)
	}
}

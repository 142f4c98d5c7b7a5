package control_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"postseal/cmd/postseal/internal/control"
	"postseal/cmd/postseal/internal/overrides"
	"postseal/policy"
	"postseal/policy/dnssec/dnstest"
	"postseal/policy/mtasts"
	"postseal/socketmap"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const zone = `
example.org. MX 10 mx.example.org.
mx.example.org. A 192.0.2.1
_25._tcp.mx.example.org. TLSA 3 1 1 0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef
plain.test. MX 10 mx.plain.test.
mx.plain.test. A 192.0.2.2
`

// newServer serves an engine that asks a resolver of its own.
func newServer(t *testing.T) *control.Server {
	t.Helper()
	dns := dnstest.New(t, zone, "example.org").Client()
	engine := &policy.Engine{DNS: dns, Fetch: &mtasts.Fetcher{DNS: dns}}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- engine.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return &control.Server{
		Engine: engine, Answers: &socketmap.Server{HostDANE: true},
		Rules:  &overrides.Store{Path: filepath.Join(t.TempDir(), "overrides.toml"), Apply: engine.SetOverrides},
		Status: func() control.Status { return control.Status{FailingDomains: []string{"failing.test"}} },
		Reload: func(context.Context) (control.Reloaded, error) {
			return control.Reloaded{}, errors.New("the file is broken")
		},
		Log: slog.New(slog.DiscardHandler),
	}
}

func newClient(t *testing.T, h http.Handler, edit ...func(*http.Server)) *control.Client {
	t.Helper()
	dir, err := os.MkdirTemp("", "ps")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	path := filepath.Join(dir, "c.sock")
	ln, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewUnstartedServer(h)
	srv.Listener.Close()
	srv.Listener = ln
	for _, f := range edit {
		f(srv.Config)
	}
	srv.Start()
	t.Cleanup(srv.Close)
	return &control.Client{Sockets: []string{filepath.Join(dir, "none.sock"), path}}
}

func TestClientAndServer(t *testing.T) {
	c := newClient(t, newServer(t).Handler())
	ctx := t.Context()

	x, err := c.Explain(ctx, "Example.ORG.", false)
	if err != nil {
		t.Fatal(err)
	}
	if !x.Daemon || x.Level != "dane-only" || x.Destination != "example.org" || len(x.DANE.Hosts) != 1 || x.DANE.Hosts[0].State != "usable" {
		t.Errorf("explanation: %+v", x)
	}
	if len(x.Answers) < 3 || x.Answers[0].Text != "OK dane-only" || len(x.Steps) == 0 {
		t.Errorf("answers %v, %d steps", x.Answers, len(x.Steps))
	}
	if x, err = c.Explain(ctx, "example.org", false); err != nil || !x.Cached {
		t.Errorf("the second time: %+v, %v", x, err)
	}
	if x, err = c.Refresh(ctx, "example.org"); err != nil || x.Cached {
		t.Errorf("refreshed: %+v, %v", x, err)
	}
	if _, err = c.Explain(ctx, "[192.0.2.1]", false); err == nil || !strings.Contains(err.Error(), `"[192.0.2.1]" is no mail domain`) {
		t.Errorf("got %v", err)
	}

	if _, err := c.Explain(ctx, "plain.test:587", false); err != nil {
		t.Error(err)
	}
	if got := list(t, c, ""); len(got) < 2 {
		t.Errorf("listed: %v", got)
	}
	if got := list(t, c, "plain.test"); len(got) != 2 { // the domain's MTA-STS state, and the port's
		t.Errorf("listed: %v", got)
	}
	if p, err := c.Purge(ctx, "example.org"); err != nil || p.Removed != 1 {
		t.Errorf("purged %+v, %v", p, err)
	}
	if _, err := c.Purge(ctx, ""); err != nil {
		t.Error(err)
	}
	if got := list(t, c, ""); got != nil {
		t.Errorf("after the purge: %v", got)
	}

	if s, err := c.Status(ctx); err != nil || len(s.FailingDomains) != 1 {
		t.Errorf("status: %+v, %v", s, err)
	}
	if _, err := c.Reload(ctx); err == nil || err.Error() != "the file is broken" {
		t.Errorf("reload: %v", err)
	}
}

func list(t *testing.T, c *control.Client, domain string) (keys []string) {
	t.Helper()
	err := c.List(t.Context(), domain, func(e control.Entry) error {
		keys = append(keys, e.Destination)
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	return keys
}

func TestOverrides(t *testing.T) {
	c := newClient(t, newServer(t).Handler())
	ctx := t.Context()
	stored, err := c.SetOverride(ctx, overrides.Rule{Domain: "Example.org", Action: "exempt", Reason: "a test"})
	if err != nil || stored.Domain != "example.org" || stored.Created.IsZero() {
		t.Errorf("stored %+v, %v", stored, err)
	}
	if _, err := c.SetOverride(ctx, overrides.Rule{Domain: "example.org", Action: "exempt", Expires: time.Unix(1, 0)}); err == nil {
		t.Error("a rule that has expired was taken")
	}
	if _, err := c.SetOverride(ctx, overrides.Rule{Domain: "example.org", Action: "forbid"}); err == nil || !strings.HasPrefix(err.Error(), "action: ") {
		t.Errorf("got %v", err)
	}
	o, err := c.Overrides(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]overrides.Rule{stored.Rule}, o.Overrides); diff != "" {
		t.Errorf("listed (-want +got):\n%s", diff)
	}
	x, err := c.Explain(ctx, "example.org", false)
	if err != nil || x.Override == nil || x.Override.Action != "exempt" || x.Level != "may" {
		t.Errorf("explanation %+v, %v", x, err)
	}
	if _, err := c.RemoveOverride(ctx, "EXAMPLE.org"); err != nil {
		t.Error(err)
	}
	if _, err := c.RemoveOverride(ctx, "example.org"); err == nil || err.Error() != "there is no override of example.org" {
		t.Errorf("got %v", err)
	}
}

// Whatever is sent is answered with an error as JSON.
func TestBadRequests(t *testing.T) {
	h := newServer(t).Handler()
	for _, tt := range []struct {
		method, target, body string
		code                 int
	}{
		{"GET", "/", "", 404},
		{"GET", "/v2/status", "", 404},
		{"POST", "/v1/status", "", 404},
		{"GET", "/v1/explain", "", 400},
		{"GET", "/v1/explain?domain=" + strings.Repeat("x", 5000), "", 400},
		{"GET", "/v1/probe?domain=192.0.2.1", "", 400},
		{"GET", "/v1/sessions", "", 400},
		{"GET", "/v1/sessions?day=today", "", 400},
		{"GET", "/v1/sessions?day=2026-11-28&domain=a", "", 400},
		{"GET", "/v1/sessions?day=2026-11-28", "", 404}, // nothing is recorded
		{"GET", "/v1/cache?domain=", "", 400},
		{"DELETE", "/v1/cache", "", 400},
		{"PUT", "/v1/overrides", "", 400},
		{"PUT", "/v1/overrides", "[]", 400},
		{"PUT", "/v1/overrides", `{"domain":"example.org","action":"exempt","until":"x"}`, 400},
		{"PUT", "/v1/overrides", `{"domain":"example.org","action":"exempt"} {}`, 400},
		{"PUT", "/v1/overrides", `{"domain":"example.org","policy":"` + strings.Repeat("x", 1<<20) + `"}`, 400},
		{"DELETE", "/v1/overrides?domain=x", "", 400},
		{"POST", "/v1/reload", "", 422},
	} {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(tt.method, tt.target, strings.NewReader(tt.body)))
		name := fmt.Sprintf("%s %.60s %.40s", tt.method, tt.target, tt.body)
		if w.Code != tt.code {
			t.Errorf("%s: %d, want %d: %s", name, w.Code, tt.code, w.Body)
		}
		if !strings.HasPrefix(w.Body.String(), `{"error":"`) {
			t.Errorf("%s: %s", name, w.Body)
		}
	}
}

func TestNoDaemon(t *testing.T) {
	dir := t.TempDir()
	c := &control.Client{Sockets: []string{filepath.Join(dir, "a.sock"), filepath.Join(dir, "b.sock")}}
	_, err := c.Status(t.Context())
	if !errors.Is(err, control.ErrNoDaemon) || !strings.Contains(err.Error(), "a.sock: ") || !strings.Contains(err.Error(), "b.sock: ") || strings.Contains(err.Error(), "http://") {
		t.Errorf("got %v", err)
	}
}

// A server of another kind behind the socket is an error, not nonsense.
func TestStranger(t *testing.T) {
	for body, want := range map[string]string{"": "500", "<html>": "500", `{"error":"mine"}`: "mine"} {
		c := newClient(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(500)
			io.WriteString(w, body)
		}))
		if _, err := c.Status(t.Context()); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v", body, err)
		}
	}
	c := newClient(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "{") }))
	if _, err := c.Status(t.Context()); err == nil {
		t.Error("half an answer is no error")
	}
	if err := c.List(t.Context(), "", func(control.Entry) error { return nil }); err == nil {
		t.Error("half a list is no error")
	}
	for _, body := range []string{"{", "", `{"day":"2026-11-28"}`, `{"error":"no disk"}`} {
		c := newClient(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, body) }))
		if _, err := c.Sessions(t.Context(), "2026-11-28", "", func(control.Sessions) error { return nil }); err == nil {
			t.Errorf("%q is a whole day", body)
		}
	}
}

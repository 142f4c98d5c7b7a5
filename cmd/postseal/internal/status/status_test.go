package status_test

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"postseal/cmd/postseal/internal/status"
)

func report() status.Report {
	return status.Report{
		Version: "v1<script>", PID: 7, Started: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), Config: "/etc/postseal/postseal.toml",
		Validation:       status.Validation{Reason: "the bogus name was answered"},
		Decisions:        map[string]uint64{"dane-only": 12345},
		FailingRefreshes: 3,
		Listen:           map[string][]string{"socketmap": {"tcp:127.0.0.1:8461"}},
		Answers:          map[string]map[string]uint64{"postfix": {"ok": 23456, "notfound": 2, "temp": 3}},
		Milter:           &status.Milter{Messages: 34567, Errors: 4},
		Delivery:         &status.Delivery{Messages: 45678, Bounced: 5},
		Recording: &status.Recording{Sessions: 56789, LastDay: "2026-01-01", Logs: []status.Log{{Path: "/var/log/mail.log", Sessions: 67890}},
			Datagrams: &status.Datagrams{Lost: 6}, Events: &status.Events{Received: 78901}},
	}
}

func get(t *testing.T, method, path string) *httptest.ResponseRecorder {
	t.Helper()
	w := httptest.NewRecorder()
	status.Handler(report, []string{"example.com"}).ServeHTTP(w, httptest.NewRequest(method, path, nil))
	return w
}

// A name that somebody lets point to this machine gets nothing.
func TestHost(t *testing.T) {
	h := status.Handler(report, []string{"Mail.example.org"})
	for host, want := range map[string]int{
		"127.0.0.1:8460": 200, "[::1]:8460": 200, "[::1]": 200, "localhost": 200, "LOCALHOST.:8460": 200, "mail.example.org:8460": 200, "": 200,
		"evil.example.net:8460": 421, "127.0.0.1.example.net": 421, "localhost.example.net": 421,
	} {
		r := httptest.NewRequest(http.MethodGet, "/status.json", nil)
		r.Host = host
		w := httptest.NewRecorder()
		if h.ServeHTTP(w, r); w.Code != want {
			t.Errorf("%q: got %d, want %d", host, w.Code, want)
		}
	}
}

func TestPage(t *testing.T) {
	w := get(t, http.MethodGet, "/")
	body := w.Body.String()
	for _, want := range []string{"DNSSEC validation: OFF: DANE is not used: the bogus name was answered", `class="bad"`, "12345", "23456",
		"v1&lt;script&gt;", "tcp:127.0.0.1:8461", `<td class="alarm">3</td>`, ", up ",
		"<td>34567</td>", `<td class="alarm">4</td>`, "<td>45678</td>", "<td>56789</td>", "/var/log/mail.log: sessions", "<td>67890</td>",
		`<td class="alarm">6</td>`, "<td>78901</td>"} {
		if !strings.Contains(body, want) {
			t.Errorf("the page lacks %q:\n%s", want, body)
		}
	}
	// Nothing is loaded from anywhere, and nothing runs.
	if m := regexp.MustCompile(`(?i)<script|src=|url\(|@import|https?:|\son\w+=|style=`).FindString(body); m != "" {
		t.Errorf("the page has %q", m)
	}
	style := regexp.MustCompile(`(?s)<style>(.*?)</style>`).FindStringSubmatch(body)
	sum := sha256.Sum256([]byte(style[1]))
	csp := w.Header().Get("Content-Security-Policy")
	if hash := "'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"; !strings.Contains(csp, hash) {
		t.Errorf("the policy %q does not allow the page's own style, %s", csp, hash)
	}
	if !strings.HasPrefix(csp, "default-src 'none';") {
		t.Errorf("policy %q", csp)
	}
}

func TestJSON(t *testing.T) {
	var got status.Report
	if err := json.Unmarshal(get(t, http.MethodGet, "/status.json").Body.Bytes(), &got); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(report(), got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestOthers(t *testing.T) {
	for _, tt := range []struct {
		method, path string
		code         int
	}{
		{"GET", "/healthz", 200},
		{"HEAD", "/", 200},
		{"GET", "/etc/passwd", 404},
		{"POST", "/", 405},
		{"GET", "/v1/status", 404},
	} {
		if w := get(t, tt.method, tt.path); w.Code != tt.code {
			t.Errorf("%s %s: %d, want %d", tt.method, tt.path, w.Code, tt.code)
		}
	}
}

func TestWords(t *testing.T) {
	for want, v := range map[string]status.Validation{
		"on":                             {On: true},
		"on, but not proven":             {On: true, Reason: "not proven"},
		"OFF: DANE is not used: it lies": {Reason: "it lies"},
		"off by configuration (dns.trust_ad): DANE is not used": {Never: true, Reason: "x"},
	} {
		if got := v.Words(); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

package send_test

import (
	"net/http"
	"net/url"
	"strings"
	"testing"

	"postseal/reporting/send"
)

// FuzzRedirect: no Location leads to another server than the domain has named.
func FuzzRedirect(f *testing.F) {
	for _, location := range []string{
		"/a", "b?c", "//example.net/", "https://example.com:8443/", "https://example.com@example.net/", "https://EXAMPLE.com.:8443//x",
		"\\\\example.net", "https:example.net", "https://example.com:8443\\@example.net", "?", "https://[::1]:8443/", "https://example.com:08443/",
	} {
		f.Add(location)
	}
	f.Fuzz(func(t *testing.T, location string) {
		to, err := send.Redirect("https://example.com:8443/reports", location)
		if err != nil {
			return
		}
		u, err := url.Parse(to)
		if err != nil {
			t.Fatalf("%q: %v", to, err)
		}
		name := strings.ToLower(strings.TrimSuffix(u.Hostname(), "."))
		if u.Scheme != "https" || name != "example.com" || strings.TrimLeft(u.Port(), "0") != "8443" || u.User != nil {
			t.Errorf("%q leads to %q", location, to)
		}
	})
}

// FuzzAnswer: what is kept of a response is bounded and printable.
func FuzzAnswer(f *testing.F) {
	for _, response := range []string{
		"HTTP/1.1 201 Created\r\n\r\n",
		"HTTP/1.1 103 Early\r\n\r\nHTTP/1.1 404 Not\x1b Found\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n3\r\na\x00b\r\n0\r\n\r\n",
		"HTTP/1.1 307 x\r\nLocation: /y\r\n\r\n", "HTTP/2 200\r\n\r\n",
		"HTTP/1.1 500 x\r\nContent-Type: application/json\r\n\r\n" + strings.Repeat("\xff", 500),
	} {
		f.Add(response)
	}
	f.Fuzz(func(t *testing.T, response string) {
		req, err := http.NewRequest(http.MethodPost, "https://example.com/", nil)
		if err != nil {
			t.Fatal(err)
		}
		code, status, _, words, err := send.Answer(strings.NewReader(response), req)
		if err != nil {
			return
		}
		if code < 200 {
			t.Errorf("code %d", code)
		}
		if shown := status + words; len(shown) > 300 || strings.ContainsFunc(shown, func(c rune) bool { return c < ' ' || c > '~' }) {
			t.Errorf("%q", shown)
		}
	})
}

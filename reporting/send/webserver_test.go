package send_test

import (
	"context"
	"crypto/x509"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"postseal/reporting/send"
)

// webServer takes reports, or does what the first word of the path says. Its
// certificate is for example.com and 127.0.0.1, until 2084.
type webServer struct {
	*httptest.Server
	port string

	mu       sync.Mutex
	requests []request
}

type request struct {
	method, uri, host string
	header            http.Header
	length            int64
	body              []byte
}

func serveWeb(t *testing.T) *webServer {
	t.Helper()
	s := &webServer{}
	s.Server = httptest.NewUnstartedServer(http.HandlerFunc(s.handle))
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.StartTLS()
	t.Cleanup(s.Close)
	u, err := url.Parse(s.URL)
	if err != nil {
		t.Fatal(err)
	}
	s.port = u.Port()
	return s
}

// uri is of a path on the server.
func (s *webServer) uri(path string) string { return "https://example.com:" + s.port + path }

// client trusts the server and finds it.
func (s *webServer) client() *send.HTTPS {
	roots := x509.NewCertPool()
	roots.AddCert(s.Certificate())
	return &send.HTTPS{
		Roots:  roots,
		Lookup: func(context.Context, string) ([]netip.Addr, error) { return []netip.Addr{loopback}, nil },
	}
}

var loopback = netip.MustParseAddr("127.0.0.1")

func (s *webServer) taken() []request {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.requests
}

func (s *webServer) handle(w http.ResponseWriter, r *http.Request) {
	words := strings.Split(r.URL.Path+"//", "/")
	fault, argument := words[1], words[2]
	if fault == "early" { // without reading
		raw(w, "HTTP/1.1 413 Content Too Large\r\nContent-Type: text/plain\r\nContent-Length: 8\r\n\r\ntoo long")
		return
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	s.mu.Lock()
	s.requests = append(s.requests, request{r.Method, r.RequestURI, r.Host, r.Header, r.ContentLength, body})
	s.mu.Unlock()
	header := w.Header()
	header.Set("Set-Cookie", "session=1")
	switch fault {
	case "status":
		status(w, argument)
	case "moved":
		header.Set("Location", r.URL.Query().Get("to"))
		status(w, argument)
	case "loop":
		header.Set("Location", r.RequestURI)
		w.WriteHeader(http.StatusTemporaryRedirect)
	case "hints":
		w.WriteHeader(http.StatusEarlyHints)
		w.WriteHeader(http.StatusCreated)
	case "switch":
		raw(w, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n")
	case "gigabyte":
		header.Set("Content-Type", "text/plain")
		header.Set("Content-Length", "1073741824")
		status(w, argument)
		endless(w, "gigabyte ")
	case "header":
		raw(w, "HTTP/1.1 200 OK\r\n", "X: "+strings.Repeat("x", 1000)+"\r\n")
	case "line":
		raw(w, "HTTP/1.1 200 OK\r\nX: ", "xxxxxxxx")
	case "garbage":
		raw(w, "220 \x1b[31m not HTTP\r\n\r\n")
	case "unprintable":
		raw(w, "HTTP/1.1 500 \x1b[31mno\xff\r\nContent-Type: text/plain\r\n\r\nred \x1b[31m\x00\r\nalert")
	case "close":
		raw(w, "")
	case "words":
		header.Set("Content-Type", r.URL.Query().Get("type"))
		w.WriteHeader(http.StatusBadRequest)
		io.WriteString(w, "no such domain\nhere")
	case "stall":
		<-r.Context().Done()
	case "stallbody":
		header.Set("Content-Type", "text/plain")
		status(w, argument)
		http.NewResponseController(w).Flush()
		<-r.Context().Done()
	}
}

func status(w http.ResponseWriter, code string) {
	switch code {
	case "200":
	case "201":
		w.WriteHeader(http.StatusCreated)
	case "202":
		w.WriteHeader(http.StatusAccepted)
	case "301":
		w.WriteHeader(http.StatusMovedPermanently)
	case "302":
		w.WriteHeader(http.StatusFound)
	case "303":
		w.WriteHeader(http.StatusSeeOther)
	case "304":
		w.WriteHeader(http.StatusNotModified)
	case "307":
		w.WriteHeader(http.StatusTemporaryRedirect)
	case "308":
		w.WriteHeader(http.StatusPermanentRedirect)
	case "404":
		w.WriteHeader(http.StatusNotFound)
	case "500":
		w.WriteHeader(http.StatusInternalServerError)
	}
}

// endless writes for as long as somebody reads.
func endless(w io.Writer, text string) {
	text = strings.Repeat(text, 1000)
	for {
		if _, err := io.WriteString(w, text); err != nil {
			return
		}
	}
}

// raw writes what is no answer of net/http, the second part for as long as somebody
// reads it, and hangs up.
func raw(w http.ResponseWriter, text string, forever ...string) {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(time.Minute))
	io.WriteString(conn, text)
	for _, text := range forever {
		endless(conn, text)
	}
}

// deaf is an address where connections are taken and nothing is said.
func deaf(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	return ln.Addr().String()
}

// Package ststest is an MTA-STS policy host for tests.
//
// One HTTPS server on a loopback address is the policy host of any number of
// domains, told apart by SNI and Host. Its certificates come from a CA of its own
// and are valid from 1990 to 2100, so that tests may choose their time.
package ststest

import (
	"context"
	"crypto/x509"
	"io"
	"log"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"postseal/policy/dnssec"
	"postseal/policy/mtasts"
)

// Server is an HTTPS policy host on a loopback address with a CA of its own. Its
// methods may be called at any time, side by side.
type Server struct {
	Roots *x509.CertPool
	Port  uint16
	IP    string // 127.0.0.1

	tb testing.TB
	ca authority

	mu    sync.Mutex
	hosts map[string]*policyHost // by domain
	delay time.Duration
	let   chan struct{} // closed when the delay changes
	down  bool
	conns int
}

// policyHost is the state of one domain.
type policyHost struct {
	body     string
	fault    string
	names    []string // of the certificate
	media    *string  // Content-Type; nil: text/plain
	requests []Request
}

// Request is a request as the server saw it.
type Request struct {
	Method     string
	URI        string // as in the request line
	Host       string // the header
	ServerName string // SNI
	Header     http.Header
}

// New starts a server that ends with the test.
func New(t testing.TB) *Server {
	t.Helper()
	ca, err := newAuthority()
	if err != nil {
		t.Fatalf("ststest: %v", err)
	}
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatalf("ststest: %v", err)
	}
	addr := ln.Addr().(*net.TCPAddr)
	s := &Server{
		Roots: x509.NewCertPool(),
		Port:  uint16(addr.Port),
		IP:    addr.IP.String(),
		tb:    t,
		ca:    ca,
		hosts: map[string]*policyHost{},
	}
	s.Roots.AddCert(ca.cert)

	var conns, serving sync.WaitGroup
	server := &http.Server{
		Handler:  http.HandlerFunc(s.serve),
		ErrorLog: log.New(io.Discard, "", 0), // faults are meant
		ConnState: func(_ net.Conn, state http.ConnState) {
			switch state {
			case http.StateNew: // comes from the goroutine that serving waits for
				conns.Add(1)
			case http.StateClosed, http.StateHijacked:
				conns.Done()
			}
		},
	}
	server.SetKeepAlivesEnabled(false)
	serving.Go(func() { server.Serve(&listener{Listener: ln, server: s}) })
	t.Cleanup(func() {
		server.Close() // ends the context of every request
		serving.Wait()
		conns.Wait()
	})
	return s
}

// Fetcher returns a fetcher that connects to this server, given a DNS client that
// knows mta-sts.DOMAIN to have the address IP.
func (s *Server) Fetcher(dns *dnssec.Client) *mtasts.Fetcher {
	return &mtasts.Fetcher{DNS: dns, Roots: s.Roots, AllowPrivate: true, Port: s.Port}
}

// CA is the certificate authority, in DER, for another process.
func (s *Server) CA() []byte { return s.ca.cert.Raw }

// Set gives the policy host of domain a body (text/plain, 200) and a good
// certificate. A domain never set has none, and the handshake with its host fails.
func (s *Server) Set(domain, body string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.host(domain).body = body
}

// Fault makes the policy host of domain misbehave; "" mends it. Faults are:
//
//	expired, notyet, selfsigned, wrongname, cnonly, badcert   the certificate
//	oldissuer   an expired intermediate certificate
//	tls11       TLS 1.1 at most
//	close       closes the connection instead of a response
//	truncate    closes it in the midst of the body
//	garbage     answers with what is not HTTP
//	slow        never answers
//	drip        sends the body one octet every 20 ms
//	big         a valid policy of 64 KiB and one octet
//	chunked     sends the body in chunks of one octet
//	bigheader   a response header of 64 KiB
//	gzip        sends the body with Content-Encoding gzip
//	html, nocontenttype   the media type
//	redirect    status 301 to another path of the same host
//	103         Early Hints before the good response
//	hang404     status 404 with a body that does not come
//	204, 404, … any status from 200 on, with the body; 3xx with a Location
func (s *Server) Fault(domain, fault string) {
	s.tb.Helper()
	if !isFault(fault) {
		s.tb.Errorf("ststest: unknown fault %q", fault)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.host(domain).fault = fault
}

// Names gives the policy host of domain a certificate for just these names
// instead of mta-sts.DOMAIN; without names it gets the good one back.
func (s *Server) Names(domain string, names ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.host(domain).names = names
}

// ContentType has the policy of domain sent with this Content-Type.
func (s *Server) ContentType(domain, value string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.host(domain).media = &value
}

// Delay holds every response back from now on, and lets those go that an
// earlier call holds back.
func (s *Server) Delay(d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.delay = d
	if s.let != nil {
		close(s.let)
	}
	s.let = make(chan struct{})
}

// Gets counts the requests for domain so far, whatever their path.
func (s *Server) Gets(domain string) int { return len(s.Requests(domain)) }

// Requests returns the requests for domain so far.
func (s *Server) Requests(domain string) []Request {
	s.mu.Lock()
	defer s.mu.Unlock()
	if h := s.hosts[domain]; h != nil {
		return slices.Clone(h.requests)
	}
	return nil
}

// Conns counts the connections so far.
func (s *Server) Conns() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.conns
}

// Down resets all new connections; Up undoes it. The port stays taken.
func (s *Server) Down() { s.setDown(true) }

// Up undoes Down.
func (s *Server) Up() { s.setDown(false) }

func (s *Server) setDown(down bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.down = down
}

// host returns the state of a domain, made at its first use. s.mu is held.
func (s *Server) host(domain string) *policyHost {
	h := s.hosts[domain]
	if h == nil {
		h = &policyHost{}
		s.hosts[domain] = h
	}
	return h
}

// look returns a copy of the state of the domain whose policy host is name.
func (s *Server) look(name string) (domain string, h policyHost, ok bool) {
	domain, ok = strings.CutPrefix(name, "mta-sts.")
	s.mu.Lock()
	defer s.mu.Unlock()
	found := s.hosts[domain]
	if !ok || found == nil {
		return domain, policyHost{}, false
	}
	return domain, *found, true
}

// serve answers one request.
func (s *Server) serve(w http.ResponseWriter, r *http.Request) {
	domain, h, ok := s.look(r.Host)
	if !ok {
		http.NotFound(w, r)
		return
	}
	s.mu.Lock()
	delay, let := s.delay, s.let
	live := s.host(domain)
	live.requests = append(live.requests, Request{
		Method:     r.Method,
		URI:        r.RequestURI,
		Host:       r.Host,
		ServerName: r.TLS.ServerName,
		Header:     r.Header.Clone(),
	})
	s.mu.Unlock()
	if delay > 0 && !wait(r.Context(), delay, let) {
		return
	}
	if r.Method != http.MethodGet || r.RequestURI != "/.well-known/mta-sts.txt" {
		http.NotFound(w, r)
		return
	}
	respond(w, r, h)
}

// wait returns false if ctx ends before let is closed or d has passed.
func wait(ctx context.Context, d time.Duration, let <-chan struct{}) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-let:
		return true
	case <-ctx.Done():
		return false
	}
}

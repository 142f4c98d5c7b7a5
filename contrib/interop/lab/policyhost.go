package main

import (
	"crypto/tls"
	"errors"
	"io"
	"log"
	"net/http"
	"slices"
	"strings"
	"sync"
)

// policyHost serves the MTA-STS policies of all domains from one address: the
// name in the TLS handshake chooses the certificate, the Host header the policy.
type policyHost struct {
	mu       sync.Mutex
	policies map[string]string          // by domain
	certs    map[string]tls.Certificate // by host name
	fetched  map[string]int             // by domain
	reports  []posted

	server *http.Server
	done   chan struct{}
}

func newPolicyHost(ca *authority) (*policyHost, error) {
	p := &policyHost{policies: map[string]string{}, certs: map[string]tls.Certificate{}, fetched: map[string]int{}}
	for _, s := range scenarios {
		if s.sts == nil {
			continue
		}
		host := "mta-sts." + s.domain()
		c, err := ca.issue(host, s.sts.cert)
		if err != nil {
			return nil, err
		}
		p.policies[s.domain()], p.certs[host] = s.policy(), c
	}
	c, err := ca.issue(reportHost, good)
	if err != nil {
		return nil, err
	}
	p.certs[reportHost] = c
	return p, nil
}

// reportHost takes reports at any path.
const reportHost = "web.rua." + string(plain)

// posted is a report that was posted to reportHost.
type posted struct {
	path      string
	mediaType string
	body      []byte
}

// taken are the reports that were posted so far.
func (p *policyHost) taken() []posted {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.reports)
}

// start listens on port 443; stop ends that.
func (p *policyHost) start() error {
	l, err := tls.Listen("tcp", policyAddress+":443", &tls.Config{GetCertificate: func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
		c, found := p.certs[hello.ServerName]
		if !found {
			return nil, errors.New("no such policy host")
		}
		return &c, nil
	}})
	if err != nil {
		return err
	}
	p.server = &http.Server{Handler: p, ErrorLog: log.New(io.Discard, "", 0)} // refused certificates are part of the plan
	p.done = make(chan struct{})
	go func() {
		defer close(p.done)
		p.server.Serve(l)
	}()
	return nil
}

func (p *policyHost) stop() {
	p.server.Close()
	<-p.done
}

func (p *policyHost) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if r.Host == reportHost && r.Method == http.MethodPost {
		body, err := io.ReadAll(io.LimitReader(r.Body, 10<<20))
		if err != nil {
			return
		}
		p.reports = append(p.reports, posted{r.URL.Path, r.Header.Get("Content-Type"), body})
		w.WriteHeader(http.StatusCreated)
		return
	}
	domain := strings.TrimPrefix(r.Host, "mta-sts.")
	text := p.policies[domain]
	if text == "" || r.URL.Path != "/.well-known/mta-sts.txt" { // RFC 8461 §3.3
		http.NotFound(w, r)
		return
	}
	p.fetched[domain]++
	w.Header().Set("Content-Type", "text/plain")
	io.WriteString(w, text)
}

// publish replaces a domain's policy.
func (p *policyHost) publish(domain, text string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.policies[domain] = text
}

// fetches counts how often a domain's policy was asked for.
func (p *policyHost) fetches(domain string) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.fetched[domain]
}

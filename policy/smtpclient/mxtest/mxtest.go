// Package mxtest is a set of MX hosts for tests: SMTP servers on loopback addresses
// that take mail, remember all that was said, and misbehave on request.
//
// All hosts of one [Net] have certificates of its own CA, valid from 1990 to 2100,
// so that tests may choose their time, and listen at the same port, each at
// an address of its own, as MX hosts do. A host without an address is reached
// through [Host.Dial] alone, over a connection in memory, for tests with
// synthetic time.
package mxtest

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// Net is a CA and the hosts that it certifies.
type Net struct {
	Roots *x509.CertPool
	Port  uint16 // of all hosts; known when the first has been made

	tb testing.TB
	ca authority
}

// New makes a network without hosts.
func New(tb testing.TB) *Net {
	tb.Helper()
	ca, err := newAuthority("mxtest CA", date(2100), nil)
	if err != nil {
		tb.Fatalf("mxtest: %v", err)
	}
	n := &Net{Roots: x509.NewCertPool(), tb: tb, ca: ca}
	n.Roots.AddCert(ca.cert)
	return n
}

// CA is the certificate authority, in DER, for another process.
func (n *Net) CA() []byte { return n.ca.cert.Raw }

// Config is how a host behaves. The zero value is a good host.
type Config struct {
	// Keywords are the lines of the EHLO reply without TLS, after the name
	// and without STARTTLS. nil: PIPELINING, SIZE 0, 8BITMIME, SMTPUTF8, DSN
	// and ENHANCEDSTATUSCODES.
	Keywords []string
	// TLSKeywords are those inside TLS. nil: as without TLS by default, and
	// REQUIRETLS.
	TLSKeywords []string
	NoSTARTTLS  bool   // not offered
	Inject      string // sent right behind the reply to STARTTLS, in clear text
	Handshake   string // instead of the handshake: an action, or a text that is sent in clear
	Banner      string // sent instead of the greeting, as it stands

	// Certificate is "" for a good one, or: expired, notyet, selfsigned,
	// otherca, wrongname, cnonly, ipsan, intermediate (good), oldissuer (of an
	// intermediate that has expired), malformed, huge (a chain of 1 MiB).
	Certificate string
	Names       []string // of the certificate; nil: the host's
	MaxVersion  uint16   // of TLS; 0: any. Below 1.2 the lowest is 1.0
	AskCert     bool     // ask for a client certificate
	NeedCert    bool     // and insist on one
	NoTickets   bool     // no TLS session tickets; needed with connections in memory

	Discard  bool // count the octets of messages, and do not keep them
	MaxRcpts int  // recipients in one transaction, beyond that 452 4.5.3; 0: any number
}

// Actions, in place of replies.
const (
	Drop    = "drop"    // close the connection
	Reset   = "reset"   // close it with RST
	Stall   = "stall"   // nothing until Release, then the usual reply; or what follows: Stall + " 451 late"
	Endless = "endless" // a reply without end
	Long    = "long"    // a line without end
)

// Host is one MX host. Its methods may be called at any time, side by side.
type Host struct {
	Name string
	IP   string // "" if it does not listen

	net *Net

	mu      sync.Mutex
	key     *ecdsa.PrivateKey
	cert    *tls.Certificate // nil: to be made
	config  Config
	scripts []*script
	conns   []*conn
	closed  bool
	open    sync.WaitGroup
	stalled chan struct{} // closed by Release
}

// script is what Reply set.
type script struct {
	verb, part string
	replies    []string
}

// Host makes a host that ends with the test. ip is a loopback address like
// 127.0.0.11, or "" for a host that does not listen.
func (n *Net) Host(name, ip string) *Host {
	n.tb.Helper()
	h := &Host{Name: name, IP: ip, net: n, stalled: make(chan struct{})}
	h.Rekey()
	var ln net.Listener
	if ip != "" {
		ln = n.listen(ip)
		h.open.Go(func() {
			for {
				c, err := ln.Accept()
				if err != nil {
					return
				}
				h.serve(c)
			}
		})
	}
	n.tb.Cleanup(func() {
		if ln != nil {
			ln.Close()
		}
		h.hangUp()
		h.open.Wait()
	})
	return h
}

// listen takes a port that is free at the first address, and hopes for it at the others.
func (n *Net) listen(ip string) net.Listener {
	n.tb.Helper()
	ln, err := net.Listen("tcp", net.JoinHostPort(ip, strconv.Itoa(int(n.Port))))
	if err != nil {
		n.tb.Fatalf("mxtest: %v", err)
	}
	n.Port = uint16(ln.Addr().(*net.TCPAddr).Port)
	return ln
}

// Addr is where the host listens.
func (h *Host) Addr() netip.AddrPort {
	if h.IP == "" {
		return netip.AddrPortFrom(netip.MustParseAddr("192.0.2.25"), 25)
	}
	return netip.AddrPortFrom(netip.MustParseAddr(h.IP), h.net.Port)
}

// Dial connects in memory, whatever the address. It is for smtpclient.Client.Dial.
func (h *Host) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	client, server := net.Pipe()
	if !h.serve(server) {
		return nil, errors.New("mxtest: the test has ended")
	}
	return client, nil
}

// Set makes the host behave as c says, from the next connection on.
func (h *Host) Set(c Config) {
	h.net.tb.Helper()
	if !slices.Contains(certificates(), c.Certificate) {
		h.net.tb.Errorf("mxtest: unknown certificate %q", c.Certificate)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.config, h.cert = c, nil
}

// Rekey gives the host a new key, which its TLSA records 3 1 x do not match.
func (h *Host) Rekey() {
	h.net.tb.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		h.net.tb.Fatalf("mxtest: %v", err)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.key, h.cert = key, nil
}

// Reply sets what the host says to a command. command is a verb, or a verb and
// something that the line must contain: "RCPT", "RCPT x@y". Besides the commands
// there are "GREETING", "CONTENT", which takes effect before the message is read,
// and ".", the reply to a message. The longest command that fits is taken; its
// replies are used up one after the other, and the last stays. "\n" in a reply
// separates lines; what has no code is an action, like [Drop]. Without replies
// the host is as before.
func (h *Host) Reply(command string, replies ...string) {
	verb, part, _ := strings.Cut(command, " ")
	verb = strings.ToUpper(verb)
	h.mu.Lock()
	defer h.mu.Unlock()
	h.scripts = slices.DeleteFunc(h.scripts, func(s *script) bool { return s.verb == verb && s.part == part })
	if len(replies) > 0 {
		h.scripts = append(h.scripts, &script{verb, part, replies})
	}
}

// scripted takes the next reply that Reply set for a command line.
func (h *Host) scripted(verb, line string) (string, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	var best *script
	for _, s := range h.scripts {
		if s.verb == verb && strings.Contains(line, s.part) && (best == nil || len(s.part) > len(best.part)) {
			best = s
		}
	}
	if best == nil {
		return "", false
	}
	reply := best.replies[0]
	if len(best.replies) > 1 {
		best.replies = best.replies[1:]
	}
	return reply, true
}

// Release lets all go on that stall now.
func (h *Host) Release() {
	h.mu.Lock()
	defer h.mu.Unlock()
	close(h.stalled)
	h.stalled = make(chan struct{})
}

// Conns are the connections so far, in the order in which they came. What has not
// been said yet is missing.
func (h *Host) Conns() []Conn {
	h.mu.Lock()
	defer h.mu.Unlock()
	var all []Conn
	for _, c := range h.conns {
		all = append(all, c.record.clone())
	}
	return all
}

// Ended waits until all connections have ended, and returns them.
func (h *Host) Ended() []Conn {
	h.net.tb.Helper()
	h.mu.Lock()
	conns := slices.Clone(h.conns)
	h.mu.Unlock()
	timeout := time.NewTimer(20 * time.Second)
	defer timeout.Stop()
	for _, c := range conns {
		select {
		case <-c.done:
		case <-timeout.C:
			h.net.tb.Errorf("mxtest: a connection with %s does not end", h.Name)
			return h.Conns()
		}
	}
	return h.Conns()
}

// Mails are the messages that the host took, whatever it said to them then.
func (h *Host) Mails() []Mail {
	var all []Mail
	for _, c := range h.Conns() {
		all = append(all, c.Mails...)
	}
	return all
}

// Forget drops what was recorded of connections that have ended.
func (h *Host) Forget() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.conns = slices.DeleteFunc(h.conns, func(c *conn) bool {
		select {
		case <-c.done:
			return true
		default:
			return false
		}
	})
}

// serve speaks SMTP over c in the background, unless the test has ended.
func (h *Host) serve(c net.Conn) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		c.Close()
		return false
	}
	conn := &conn{host: h, raw: c, config: h.config, done: make(chan struct{})}
	h.conns = append(h.conns, conn)
	h.open.Go(func() {
		defer close(conn.done)
		defer c.Close()
		conn.serve()
	})
	return true
}

func (h *Host) hangUp() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.closed = true
	close(h.stalled)
	h.stalled = make(chan struct{})
	for _, c := range h.conns {
		c.raw.Close()
	}
}

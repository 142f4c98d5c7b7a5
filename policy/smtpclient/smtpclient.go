// Package smtpclient holds one SMTP conversation with one MX host (RFC 5321) under
// what is demanded of it: connect, EHLO, STARTTLS (RFC 3207), judge, EHLO again, send.
//
// [Require] turns the decision for a destination into a [Demand] on one of its
// hosts: DANE where the host has usable TLSA records (RFC 7672 §2.2), else MTA-STS
// (RFC 8461 §4), and what REQUIRETLS adds (RFC 8689 §4.2.1). [Client.Connect] opens
// a [Session] that satisfies it, at one address. Every TLS session is judged by all
// there is to judge it by, but only what is demanded decides. A session that falls
// short gets QUIT, never MAIL. Clear text is for hosts of which nothing is demanded:
// where they do not offer STARTTLS or refuse it, and over a new connection where
// TLS fails (RFC 3207 §4, RFC 7672 §2.2).
//
// Nothing is believed of the other side but reply codes and keywords, and keywords
// only inside TLS if there is TLS. Each wait has an end, each reply a largest size.
// What goes wrong is a [Failure] with a reply for the mail server that says at
// which host, and why. The package neither chooses hosts nor tries again.
package smtpclient

import (
	"context"
	"crypto/x509"
	"log/slog"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"postseal/policy/dane"
	"postseal/policy/mtasts"
)

// Security is what must be true of a session before mail goes over it.
type Security uint8

const (
	Opportunistic Security = iota // TLS if it is offered, whoever answers; clear text where it is not, or fails
	Encrypt                       // TLS, whoever answers
	PKIX                          // TLS with a certificate for the host's name from a known authority (RFC 8461 §4.2)
	DANE                          // TLS that the host's TLSA records authenticate (RFC 7672 §2.2)
)

func (s Security) String() string {
	return [...]string{"opportunistic", "encrypt", "pkix", "dane"}[s]
}

// Demand is what one MX host must prove.
type Demand struct {
	Security   Security
	RequireTLS bool // the host must offer REQUIRETLS inside TLS, and gets the parameter (RFC 8689 §4.2.1); implies PKIX or DANE
	AskTLS     bool // the host gets the parameter if its session would satisfy RequireTLS, which is not demanded

	// What the session is judged by, whatever Security demands: of an
	// opportunistic session it is reported only. Each may be nil.
	Plan *dane.Plan
	Host *dane.Host // of Plan
	STS  *mtasts.Policy
}

// Target is one address of one MX host.
type Target struct {
	Name   string // the host as in the MX record, in A-labels; "" for an address literal
	Addr   netip.AddrPort
	Demand Demand
}

// String names host and address as replies to the mail server do:
// "mx.example.org[192.0.2.1]", with ":port" behind it unless that is 25.
func (t Target) String() string {
	s := clip(t.Name, maxName) + "[" + t.Addr.Addr().Unmap().String() + "]"
	if port := t.Addr.Port(); port != 25 {
		s += ":" + strconv.Itoa(int(port))
	}
	return s
}

// host is the name for SNI and certificates: without the final dot, in lower case.
func (t Target) host() string { return strings.ToLower(strings.TrimSuffix(t.Name, ".")) }

// Client opens sessions. Its methods may be called side by side; nothing may be
// changed after the first use.
type Client struct {
	Hostname string         // our own name, for EHLO; "": the connection's local address
	Roots    *x509.CertPool // of MX certificates; nil: the system's
	Limits   Limits
	Dial     func(ctx context.Context, network, address string) (net.Conn, error) // nil: net.Dialer
	Now      func() time.Time                                                     // for certificates; nil: time.Now
	Log      *slog.Logger                                                         // nil: none

	seen memory
}

// Limits are the longest waits; zero means the default.
type Limits struct {
	Connect   time.Duration // 30 s, as Postfix has it
	Greeting  time.Duration // 5 min (RFC 5321 §4.5.3.2.1)
	Hello     time.Duration // 5 min: the replies to EHLO, HELO and STARTTLS
	Handshake time.Duration // 1 min
	Mail      time.Duration // 5 min (§4.5.3.2.2)
	Rcpt      time.Duration // 5 min for each reply (§4.5.3.2.3)
	Data      time.Duration // 2 min for 354 (§4.5.3.2.4)
	Block     time.Duration // 3 min for each piece written (§4.5.3.2.5)
	End       time.Duration // 10 min for the reply to the last dot (§4.5.3.2.6)
	Quit      time.Duration // 5 s; nobody needs the reply
	Reset     time.Duration // 20 s, as Postfix has it
}

func (l Limits) orDefault() Limits {
	for _, d := range []struct {
		limit *time.Duration
		usual time.Duration
	}{
		{&l.Connect, 30 * time.Second},
		{&l.Greeting, 5 * time.Minute},
		{&l.Hello, 5 * time.Minute},
		{&l.Handshake, time.Minute},
		{&l.Mail, 5 * time.Minute},
		{&l.Rcpt, 5 * time.Minute},
		{&l.Data, 2 * time.Minute},
		{&l.Block, 3 * time.Minute},
		{&l.End, 10 * time.Minute},
		{&l.Quit, 5 * time.Second},
		{&l.Reset, 20 * time.Second},
	} {
		if *d.limit <= 0 {
			*d.limit = d.usual
		}
	}
	return l
}

// Info is what is known of a session, for logs, Received lines and reports.
type Info struct {
	Local, Remote netip.AddrPort
	Name          string // of the remote, from its EHLO reply; printable and bounded
	TLS           bool
	Version       uint16   // of TLS
	Cipher        uint16   //
	Secured       Security // what was proven: DANE, PKIX, Encrypt; Opportunistic without TLS
	DANEErr       error    // why it is not DANE, where the host has usable TLSA records; else nil
	PKIXErr       error    // why it is not PKIX; nil without TLS
	STSErr        error    // why it does not satisfy Demand.STS, if there is one; else nil
	NoTLS         *Failure // why the session is in clear text; nil with TLS
	Lost          bool     // the host did TLS before, and does not offer it now (RFC 3207 §6)
}

// Envelope is the envelope of a message. Parameters go out as they stand here,
// where the host offers their extension.
type Envelope struct {
	From  string // as written, without angle brackets; "" is the null path
	To    []Recipient
	Body  string // "", "7BIT" or "8BITMIME"
	UTF8  bool   // SMTPUTF8
	Ret   string // "", "FULL" or "HDRS"
	EnvID string // xtext, as received
}

// Recipient of an Envelope.
type Recipient struct {
	Addr   string // as written, without angle brackets
	Notify string // as received
	ORcpt  string // as received, with its type
}

// Result is what became of one transaction.
type Result struct {
	// Replies has one for each recipient, in order: the host's final word, to
	// MAIL, RCPT, DATA or the last dot. Its Text is the host's alone and does
	// not name it. Code 0 means that there is none. An address that cannot
	// be said at all has 553 5.1.3, which is ours.
	Replies []Reply
	Failure *Failure // why some have none; nil if all have one
	// Rest are the recipients that were refused because there were too many
	// (RFC 5321 §4.5.3.1.10): another transaction may take them.
	Rest []int
	// Uncertain: the message was sent whole, and the connection was lost before
	// the reply, or what came was no reply.
	Uncertain bool
	Usable    bool // another transaction may follow
}

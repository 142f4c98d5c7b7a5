package main

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"net"
	"strings"
	"sync"
	"time"
)

// sink is the SMTP server of one MX host. It takes every message and remembers
// who came.
type sink struct {
	name      string
	address   string
	cert      tls.Certificate
	noTLS     bool
	authority string // hash of the issuer's key, for DANE-TA

	mu     sync.Mutex
	visits []visit

	listener net.Listener
	group    sync.WaitGroup
}

// visit is one connection to a sink.
type visit struct {
	from string   // IP address: tells the Postfixes apart
	tls  bool     // STARTTLS was done
	to   []string // recipients of messages that were taken
}

// listen starts the server; close ends it.
func (s *sink) listen() error {
	l, err := net.Listen("tcp", s.address+":25")
	if err != nil {
		return err
	}
	s.listener = l
	s.group.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			s.group.Go(func() { s.serve(c) })
		}
	})
	return nil
}

func (s *sink) close() {
	s.listener.Close()
	s.group.Wait()
}

// seen returns the connections from an address.
func (s *sink) seen(from string) []visit {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []visit
	for _, v := range s.visits {
		if v.from == from {
			out = append(out, v)
		}
	}
	return out
}

// note changes the record of one connection.
func (s *sink) note(id int, change func(*visit)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change(&s.visits[id])
}

func (s *sink) serve(c net.Conn) {
	defer func() { c.Close() }()
	c.SetDeadline(time.Now().Add(20 * time.Second))
	from, _, _ := net.SplitHostPort(c.RemoteAddr().String())
	s.mu.Lock()
	id := len(s.visits)
	s.visits = append(s.visits, visit{from: from})
	s.mu.Unlock()

	lines := bufio.NewScanner(c)
	say := func(text string) { fmt.Fprintf(c, "%s\r\n", text) }
	say("220 " + s.name + " ESMTP")
	var to []string
	secure := false
	for lines.Scan() {
		verb, rest, _ := strings.Cut(lines.Text(), " ")
		switch strings.ToUpper(verb) {
		case "EHLO":
			say("250-" + s.name)
			if !s.noTLS && !secure {
				say("250-STARTTLS")
			}
			say("250 PIPELINING")
		case "STARTTLS":
			say("220 go ahead")
			session := tls.Server(c, &tls.Config{Certificates: []tls.Certificate{s.cert}, SessionTicketsDisabled: true})
			if session.Handshake() != nil {
				return
			}
			c, lines, secure = session, bufio.NewScanner(session), true
			s.note(id, func(v *visit) { v.tls = true })
		case "RCPT":
			to = append(to, strings.Trim(strings.TrimPrefix(rest, "TO:"), "<>"))
			say("250 ok")
		case "DATA":
			say("354 go ahead")
			for lines.Scan() && lines.Text() != "." {
			}
			s.note(id, func(v *visit) { v.to = append(v.to, to...) })
			to = nil
			say("250 taken")
		case "QUIT":
			say("221 bye")
			return
		default: // MAIL, RSET, NOOP
			say("250 ok")
		}
	}
}

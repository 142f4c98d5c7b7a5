package send_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/emersion/go-smtp"
)

// mailServer is the mail server of a host: go-smtp, which refuses what it is told to.
type mailServer struct {
	address           string
	atMail, atRcpt    *smtp.SMTPError
	atData, atMessage *smtp.SMTPError

	mu   sync.Mutex
	mail []submitted
}

type submitted struct {
	hello, from, to string
	options         string
	text            string
	tls             bool
}

// serve starts the server, with DSN, and with STARTTLS if it has a certificate.
func (s *mailServer) serve(t *testing.T, config *tls.Config) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s.address = ln.Addr().String()
	server := smtp.NewServer(smtp.BackendFunc(func(c *smtp.Conn) (smtp.Session, error) {
		return &mailSession{server: s, conn: c}, nil
	}))
	server.Domain, server.EnableDSN, server.TLSConfig = "mx.test", true, config
	server.ErrorLog = log.New(io.Discard, "", 0)
	var wg sync.WaitGroup
	wg.Go(func() { server.Serve(ln) })
	t.Cleanup(func() {
		server.Close()
		wg.Wait()
	})
}

func (s *mailServer) taken() []submitted {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.mail
}

type mailSession struct {
	server *mailServer
	conn   *smtp.Conn
	now    submitted
}

// refusal keeps a nil error nil.
func refusal(e *smtp.SMTPError) error {
	if e == nil {
		return nil
	}
	return e
}

func (s *mailSession) Mail(from string, o *smtp.MailOptions) error {
	_, secure := s.conn.TLSConnectionState()
	s.now = submitted{hello: s.conn.Hostname(), from: from, options: string(o.Return), tls: secure}
	return refusal(s.server.atMail)
}

func (s *mailSession) Rcpt(to string, o *smtp.RcptOptions) error {
	s.now.to = to
	s.now.options += fmt.Sprint(" ", o.Notify)
	return refusal(s.server.atRcpt)
}

func (s *mailSession) Data(r io.Reader) error {
	if s.server.atData != nil {
		return s.server.atData
	}
	text, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	if s.server.atMessage != nil {
		return s.server.atMessage
	}
	s.now.text = string(text)
	s.server.mu.Lock()
	defer s.server.mu.Unlock()
	s.server.mail = append(s.server.mail, s.now)
	return nil
}

func (*mailSession) Reset()        {}
func (*mailSession) Logout() error { return nil }

// script is a server that speaks as written, one connection after another: a line is
// said, "<" waits for a line of the client, "<." for the end of a message, "tls" does a
// handshake, "nontls" says what is none, "flood" says the next line for ever, "wait"
// waits for the client to hang up.
func script(t *testing.T, config *tls.Config, connections ...string) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for _, lines := range connections {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			if err := play(conn, config, strings.Split(lines, "\n")); err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, net.ErrClosed) {
				t.Logf("script: %v", err)
			}
			conn.Close()
		}
	})
	t.Cleanup(func() {
		ln.Close()
		wg.Wait()
	})
	return ln.Addr().String()
}

func play(conn net.Conn, config *tls.Config, lines []string) error {
	r := bufio.NewReader(conn)
	for i, line := range lines {
		var err error
		switch line = strings.TrimSpace(line); line {
		case "":
		case "<":
			_, err = r.ReadString('\n')
		case "<.":
			for text := ""; text != ".\r\n" && err == nil; {
				text, err = r.ReadString('\n')
			}
		case "tls":
			secure := tls.Server(conn, config)
			if err = secure.HandshakeContext(context.Background()); err == nil {
				conn, r = secure, bufio.NewReader(secure)
			}
		case "flood":
			for err == nil {
				_, err = io.WriteString(conn, lines[i+1]+"\r\n")
			}
		case "wait":
			_, err = io.Copy(io.Discard, r)
		default:
			_, err = io.WriteString(conn, line+"\r\n")
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// certificate is the one that httptest has.
func certificate(t *testing.T) *tls.Config {
	t.Helper()
	s := httptest.NewTLSServer(nil)
	s.Close()
	return &tls.Config{Certificates: s.TLS.Certificates}
}

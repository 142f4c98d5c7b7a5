package main

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/smtp"
	"net/textproto"
	"strings"
	"time"
)

// mail is a message that a client submits to a mail server.
type mail struct {
	from       string
	params     string // of MAIL FROM, for example "RET=FULL"
	to         []string
	headers    []string // "Name: value", beside From, To, Subject and Message-ID
	id         string   // Message-ID without angle brackets; "": none of ours
	body       string
	client     string // IP address that the client comes from; "": the loopback's first
	port       string // "": 25
	startTLS   bool
	bdat       bool   // BDAT in place of DATA (RFC 3030)
	beforeData func() // called when the recipients are accepted
}

// stranger is the address of a client that the milter does not trust.
const stranger = "127.0.66.6"

// insecure is for the lab's own servers, over loopback.
func insecure() *tls.Config { return &tls.Config{InsecureSkipVerify: true} }

// text is the message as it is sent.
func (m mail) text() string {
	lines := []string{"From: <" + m.from + ">", "To: <" + strings.Join(m.to, ">, <") + ">", "Subject: lab"}
	if m.id != "" {
		lines = append(lines, "Message-ID: <"+m.id+">")
	}
	lines = append(append(lines, m.headers...), "")
	body := m.body
	if body == "" {
		body = "hello"
	}
	return strings.Join(lines, "\r\n") + "\r\n" + body + "\r\n"
}

// submit gives the message to the mail server at an address. A refusal is a
// *textproto.Error.
func (m mail) submit(address string) error {
	port := m.port
	if port == "" {
		port = "25"
	}
	dialer := net.Dialer{Timeout: 10 * time.Second}
	if m.client != "" {
		dialer.LocalAddr = &net.TCPAddr{IP: net.ParseIP(m.client)}
	}
	conn, err := dialer.Dial("tcp", net.JoinHostPort(address, port))
	if err != nil {
		return err
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(patience))
	c, err := smtp.NewClient(conn, address)
	if err != nil {
		return err
	}
	if err := m.talk(c); err != nil {
		return err
	}
	return c.Quit()
}

func (m mail) talk(c *smtp.Client) error {
	if err := c.Hello("client.lab.test"); err != nil {
		return err
	}
	if m.startTLS {
		if err := c.StartTLS(insecure()); err != nil {
			return err
		}
	}
	if err := say(c, 250, "%s", strings.TrimSpace("MAIL FROM:<"+m.from+"> "+m.params)); err != nil {
		return err
	}
	for _, to := range m.to {
		if err := say(c, 250, "RCPT TO:<%s>", to); err != nil {
			return err
		}
	}
	if m.beforeData != nil {
		m.beforeData()
	}
	if m.bdat {
		text := m.text()
		half := len(text) / 2
		for _, chunk := range []string{fmt.Sprintf("BDAT %d\r\n%s", half, text[:half]), fmt.Sprintf("BDAT %d LAST\r\n%s", len(text)-half, text[half:])} {
			if _, err := c.Text.W.WriteString(chunk); err != nil {
				return err
			}
			if err := c.Text.W.Flush(); err != nil {
				return err
			}
			if _, _, err := c.Text.ReadResponse(250); err != nil {
				return err
			}
		}
		return nil
	}
	w, err := c.Data()
	if err != nil {
		return err
	}
	if _, err := w.Write([]byte(m.text())); err != nil {
		return err
	}
	return w.Close()
}

// say sends one command and reads the reply.
func say(c *smtp.Client, code int, format string, args ...any) error {
	if err := c.Text.PrintfLine(format, args...); err != nil {
		return err
	}
	_, _, err := c.Text.ReadResponse(code)
	return err
}

// code is the reply code of a refusal, 0 if there was none.
func code(err error) int {
	var reply *textproto.Error
	if !errors.As(err, &reply) {
		return 0
	}
	return reply.Code
}

// later reports whether a refusal is a temporary one.
func later(err error) bool { return code(err)/100 == 4 }

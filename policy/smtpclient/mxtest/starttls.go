package mxtest

import (
	"bufio"
	"crypto/tls"
	"io"
)

// startTLS does the host's side of RFC 3207.
func (c *conn) startTLS(line string) error {
	reply := c.reply("STARTTLS", line, "220 2.0.0 go on")
	if reply[:3] != "220" {
		return c.send(reply)
	}
	if c.config.Inject != "" { // in one segment
		_, err := io.WriteString(c.w, reply+"\r\n"+c.config.Inject)
		if err != nil {
			return err
		}
	} else if err := c.send(reply); err != nil {
		return err
	}
	if c.config.Handshake != "" {
		return c.noTLS()
	}
	conn := tls.Server(c.raw, c.tlsConfig())
	err := conn.Handshake()
	state := conn.ConnectionState()
	c.note(func(r *Conn) {
		r.TLS, r.Resumed, r.Certs = err == nil, state.DidResume, len(state.PeerCertificates)
		if err != nil {
			r.TLSErr = err.Error()
		}
	})
	if err != nil {
		return err
	}
	c.r, c.w = bufio.NewReader(conn), conn
	c.secure = true
	c.reset()
	return nil
}

// noTLS does something else when the handshake begins.
func (c *conn) noTLS() error {
	c.r.Peek(1)
	if c.config.Handshake == Stall {
		c.stall()
		return errGone
	}
	if err := c.send(c.config.Handshake); err != nil {
		return err
	}
	io.Copy(io.Discard, c.r) // closing at once would be a reset
	return errGone
}

func (c *conn) tlsConfig() *tls.Config {
	return &tls.Config{
		GetConfigForClient: func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
			seen := *hello
			seen.Conn = nil
			c.note(func(r *Conn) { r.Hello = &seen })
			cert, err := c.host.certificate()
			if err != nil {
				return nil, err
			}
			config := &tls.Config{
				Certificates:           []tls.Certificate{*cert},
				MaxVersion:             c.config.MaxVersion,
				SessionTicketsDisabled: c.config.NoTickets,
			}
			if v := c.config.MaxVersion; v != 0 && v < tls.VersionTLS12 {
				config.MinVersion = tls.VersionTLS10
			}
			if c.config.AskCert {
				config.ClientAuth = tls.RequestClientCert
			}
			if c.config.NeedCert {
				config.ClientAuth = tls.RequireAnyClientCert
			}
			return config, nil
		},
	}
}

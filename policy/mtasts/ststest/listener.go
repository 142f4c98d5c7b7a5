package ststest

import (
	"crypto/tls"
	"net"
)

// listener counts connections, resets them while the server is down, and speaks TLS.
type listener struct {
	net.Listener
	server *Server
}

func (l *listener) Accept() (net.Conn, error) {
	for {
		conn, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		s := l.server
		s.mu.Lock()
		s.conns++
		down := s.down
		s.mu.Unlock()
		if !down {
			return tls.Server(conn, s.tlsConfig()), nil
		}
		conn.(*net.TCPConn).SetLinger(0) // reset
		conn.Close()
	}
}

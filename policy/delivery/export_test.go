package delivery

import (
	"context"
	"io"
	"net"
	"net/netip"

	"postseal/policy/delivery/ledger"
	"postseal/policy/requiretls"
	"postseal/policy/smtpclient"
)

// Message is what the listener made of a transaction, read out.
type Message struct {
	Mode     requiretls.Mode
	Envelope smtpclient.Envelope
	Modes    []requiretls.Mode
	Original string // all that was received
	Digest   ledger.Digest
	Content  string
	Size     int64 // of Content, as announced
	Received string
	QueueID  string
}

// ServeWith is Serve with something else in the place of the delivery.
func (s *Server) ServeWith(ctx context.Context, ln net.Listener, mode requiretls.Mode, deliver func(context.Context, *Message) []smtpclient.Reply) error {
	return s.serve(ctx, ln, mode, func(ctx context.Context, m *message) []smtpclient.Reply {
		return deliver(ctx, &Message{
			Mode: m.mode, Envelope: m.envelope, Modes: m.modes,
			Original: readAll(m.content.(*edited).body), Digest: m.digest, Content: readAll(m.content), Size: m.content.Size(),
			Received: m.received, QueueID: m.queueID,
		})
	})
}

func readAll(c content) string {
	b, err := io.ReadAll(c.Open())
	if err != nil {
		return "unreadable: " + err.Error()
	}
	return string(b)
}

// InMemory is what the messages together keep in memory.
func (s *Server) InMemory() int64 { return s.memory.used.Load() }

// Allowed reports whether a TCP listener takes connections from addr.
func Allowed(t interface{ Fatal(...any) }, s *Server, addr string) bool {
	d, err := s.door(&net.TCPAddr{}, requiretls.Normal)
	if err != nil {
		t.Fatal(err)
	}
	return d.allowed(net.TCPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(addr), 1)))
}

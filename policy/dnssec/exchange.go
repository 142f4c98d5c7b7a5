package dnssec

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"
)

// errTruncated is returned for a reply that is cut even over TCP.
var errTruncated = errors.New("truncated over TCP")

// packets holds buffers for queries and UDP replies.
type packets struct{ sync.Pool }

// packetSize is more than udpSize for servers that do not keep to it.
const packetSize = 4096

func (p *packets) get() *[packetSize]byte {
	if b, ok := p.Pool.Get().(*[packetSize]byte); ok {
		return b
	}
	return new([packetSize]byte)
}

// exchange asks one server once, over UDP and, if the reply is truncated, over
// TCP (RFC 7766 §5). Every question has its own socket, and so a random source
// port, and a random id (RFC 5452 §9.2). It returns soon after ctx ends.
func (c *Client) exchange(ctx context.Context, s *server, q question, deadline time.Time) (reply, error) {
	if err := ctx.Err(); err != nil {
		return reply{}, err
	}
	if s.err != nil {
		return reply{}, s.err
	}
	buf := c.pool.packets.get()
	defer c.pool.packets.Put(buf)
	var random [2]byte
	rand.Read(random[:])
	id := binary.BigEndian.Uint16(random[:])

	// The length in front is for TCP (RFC 1035 §4.2.2).
	query := appendQuery(buf[2:2], id, q)
	binary.BigEndian.PutUint16(buf[:], uint16(len(query)))
	framed := buf[:2+len(query)]

	r, err := exchangeUDP(ctx, s, framed, buf[len(framed):], id, q, c.tryEnd(deadline))
	if err == nil && r.truncated {
		r, err = exchangeTCP(ctx, s, framed, id, q, c.tryEnd(deadline))
	}
	if ctxErr := ctx.Err(); err != nil && ctxErr != nil {
		return reply{}, ctxErr
	}
	return r, err
}

// tryEnd is the end of a try that begins now.
func (c *Client) tryEnd(deadline time.Time) time.Time {
	end := time.Now().Add(c.tryTimeout())
	if end.After(deadline) {
		return deadline
	}
	return end
}

func exchangeUDP(ctx context.Context, s *server, framed, buf []byte, id uint16, q question, end time.Time) (reply, error) {
	// A connected socket takes packets from the server alone, and learns of a
	// closed port at once.
	conn, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(s.addr))
	if err != nil {
		return reply{}, err
	}
	defer conn.Close()
	conn.SetDeadline(end)
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	if _, err := conn.Write(framed[2:]); err != nil {
		return reply{}, err
	}
	foreign := false
	for {
		n, err := conn.Read(buf)
		if errors.Is(err, os.ErrDeadlineExceeded) && foreign {
			return reply{}, errForeign
		}
		if err != nil {
			return reply{}, err
		}
		r, err := parseReply(bytes.Clone(buf[:n]), id, q)
		if errors.Is(err, errForeign) {
			// Late, or forged: who guesses must not end the waiting either.
			foreign = true
			continue
		}
		return r, err
	}
}

func exchangeTCP(ctx context.Context, s *server, framed []byte, id uint16, q question, end time.Time) (reply, error) {
	dialer := net.Dialer{Deadline: end}
	conn, err := dialer.DialContext(ctx, "tcp", s.addr.String())
	if err != nil {
		return reply{}, err
	}
	defer conn.Close()
	conn.SetDeadline(end)
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	if _, err := conn.Write(framed); err != nil {
		return reply{}, err
	}
	var length [2]byte
	if _, err := io.ReadFull(conn, length[:]); err != nil {
		return reply{}, fmt.Errorf("reply over TCP: %w", err)
	}
	msg := make([]byte, binary.BigEndian.Uint16(length[:]))
	if _, err := io.ReadFull(conn, msg); err != nil {
		return reply{}, fmt.Errorf("reply over TCP: %w", err)
	}
	r, err := parseReply(msg, id, q)
	if err == nil && r.truncated {
		err = errTruncated
	}
	return r, err
}

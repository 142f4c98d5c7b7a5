package smtpclient

import "sync"

// maxMemory bounds the hosts that are known to do TLS: what is forgotten beyond
// is only a warning.
const maxMemory = 4096

// memory is which hosts did TLS (RFC 3207 §6). Nothing but a warning comes of it:
// who may insist on TLS says so by DANE or MTA-STS.
type memory struct {
	mu    sync.Mutex
	hosts map[string]struct{}
	lost  uint64
}

// remember notes whether a host does TLS, and warns if it did and does not offer
// it any more. TLS that breaks is no loss of the offer.
func (c *Client) remember(s *Session) {
	name := s.target.host()
	m := &c.seen
	m.mu.Lock()
	_, did := m.hosts[name]
	switch {
	case name == "":
	case s.info.TLS:
		if m.hosts == nil {
			m.hosts = make(map[string]struct{})
		}
		if len(m.hosts) >= maxMemory {
			for some := range m.hosts {
				delete(m.hosts, some)
				break
			}
		}
		m.hosts[name] = struct{}{}
	case did && s.info.NoTLS != nil && s.info.NoTLS.Stage == StageSTARTTLS:
		s.info.Lost = true
		m.lost++
	}
	m.mu.Unlock()
	if s.info.Lost {
		c.log().Warn("host did TLS before and does not now", "host", s.target.String())
	}
}

// Lost counts the sessions in clear text with hosts that did TLS before, and then
// did not offer it or refused it.
func (c *Client) Lost() uint64 {
	c.seen.mu.Lock()
	defer c.seen.mu.Unlock()
	return c.seen.lost
}

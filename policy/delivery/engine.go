package delivery

import (
	"context"

	"postseal/policy/smtpclient"
)

// Outcome of one session with an MX host.
type Outcome struct{}

// state is what the engine keeps between messages.
type state struct{}

// deliver returns one reply for each recipient of m, in order.
func (s *Server) deliver(ctx context.Context, m *message) []smtpclient.Reply {
	replies := make([]smtpclient.Reply, len(m.envelope.To))
	for i := range replies {
		replies[i] = smtpclient.Reply{Code: 451, Enhanced: "4.3.0", Text: "delivery is not built yet"}
	}
	return replies
}

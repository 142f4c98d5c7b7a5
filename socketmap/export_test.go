package socketmap

import "log/slog"

// ParseFrame is the reader of requests.
func ParseFrame(buf []byte) (content []byte, size, need int, err error) { return parseFrame(buf) }

// NewHandler is what a connection does with a request that need not wait, but for
// reading and writing. It is not for concurrent use.
func NewHandler(s *Server) func(dst, request []byte) []byte {
	se := newSession(s, slog.New(slog.DiscardHandler), nil)
	return func(dst, request []byte) []byte {
		q := se.ask(request)
		if q.wait {
			panic("not known: " + string(request))
		}
		return se.answer(dst, &q)
	}
}

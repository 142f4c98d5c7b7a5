package exim

import "context"

// AnswerLine is what a connection does with a line.
func (s *Server) AnswerLine(ctx context.Context, line string) string { return s.answer(ctx, line) }

package send

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"strconv"
)

// printable returns at most about limit bytes of s, with everything but printable
// ASCII escaped, for messages that hold words of a stranger.
func printable(s string, limit int) string {
	cut := len(s) > limit
	if cut {
		s = s[:limit]
	}
	clean := true
	for i := range len(s) {
		if s[i] < ' ' || s[i] > '~' {
			clean = false
			break
		}
	}
	if !clean {
		q := strconv.QuoteToASCII(s)
		s = q[1 : len(q)-1]
		if len(s) > limit {
			s, cut = s[:limit], true
		}
	}
	if cut {
		s += "..."
	}
	return s
}

// quoted is printable in quotation marks, for a single value.
func quoted(s string) string { return `"` + printable(s, 128) + `"` }

// cause is the error of a connection without the addresses, or the end of ctx, which
// closed the connection.
func cause(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return errors.New("the connection was closed")
	}
	op, ok := errors.AsType[*net.OpError](err)
	if !ok || op.Op == "remote error" {
		return err
	}
	if call, ok := errors.AsType[*os.SyscallError](op.Err); ok {
		return call.Err
	}
	return op.Err
}

package ingest

import (
	"bytes"
	"errors"
	"fmt"
	"io"

	"postseal/reporting"
	"postseal/reporting/ingest/maillog"
)

// replayBuffer stays in the cache of a processor between the kernel and us, and
// holds several of the longest lines.
const replayBuffer = 256 << 10

// Replay reads a whole log from its beginning. The last line may lack its end, and then
// counts like any other. Of a line longer than MaxLine the beginning is passed on,
// which is still too long and so is counted. Flush is left to the caller, since
// another file may go on where this one ends.
func Replay(from io.Reader, to maillog.Reader, emit func(reporting.Session)) error {
	buf := make([]byte, replayBuffer)
	start, seen, end := 0, 0, 0 // of the line; up to where it has no end; of what was read
	skipping := false           // the rest of a line that was too long
	for {
		for {
			i := bytes.IndexByte(buf[seen:end], '\n')
			if i < 0 {
				break
			}
			if !skipping {
				to.Line(buf[start:seen+i], emit)
			}
			skipping = false
			start, seen = seen+i+1, seen+i+1
		}
		if !skipping && end-start > maillog.MaxLine {
			to.Line(buf[start:end], emit)
			skipping = true
		}
		if skipping {
			start = end
		}
		if len(buf)-end <= maillog.MaxLine {
			start, end = 0, copy(buf, buf[start:end])
		}
		seen = end
		n, err := from.Read(buf[end:])
		end += n
		switch {
		case err == nil:
		case errors.Is(err, io.EOF):
			return replayTail(buf[start:end], skipping, to, emit)
		default:
			return fmt.Errorf("read log: %w", err)
		}
	}
}

// replayTail reads what came with the end of the input.
func replayTail(rest []byte, skipping bool, to maillog.Reader, emit func(reporting.Session)) error {
	for len(rest) > 0 {
		line, after, _ := bytes.Cut(rest, []byte("\n"))
		if !skipping {
			to.Line(line, emit)
		}
		skipping, rest = false, after
	}
	return nil
}

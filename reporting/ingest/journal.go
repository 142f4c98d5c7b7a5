package ingest

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os/exec"
	"strings"
	"sync/atomic"
	"time"

	"postseal/reporting"
	"postseal/reporting/ingest/maillog"
)

const (
	// A child that ends at once is started again ever more rarely.
	journalPause    = time.Second
	journalMaxPause = time.Minute

	// journalQuiet is how long nothing comes until all there was is read: journalctl
	// does not say that it waits, and opening a large journal takes it some seconds.
	journalQuiet = 10 * time.Second

	journalBatch     = 256 << 10 // bytes, as of a file
	journalComplaint = 400       // bytes kept of what it writes to standard error

	// maxCursor is more than twice what systemd makes of its five numbers.
	maxCursor = 1 << 10

	journalVersion = 1
	journalMark    = "journal"
)

// Journal records the sessions of a mail server that logs to systemd's journal, as
// [Follower] does from a file. It reads what a child, journalctl(1), writes; the
// cursor of the last entry is stored in one transaction with the sessions.
type Journal struct {
	Command  []string       // and its first arguments; nil: journalctl
	Reader   maillog.Reader // a new one
	Source   reporting.Source
	Recorder *reporting.Recorder
	Store    reporting.Store               // the recorder's
	Keep     func(*reporting.Session) bool // which sessions count; nil: all
	Pause    time.Duration                 // before a child that has ended is replaced, doubled up to a minute; 0: 1 s
	Quiet    time.Duration                 // after which all that there was has been read; 0: 10 s
	Log      *slog.Logger                  // nil: none

	caughtUp atomic.Int64 // Unix nanoseconds
	stats    atomic.Pointer[maillog.Stats]
}

// CaughtUp is the last time up to which everything in the journal had been read and
// recorded; zero before the first.
func (j *Journal) CaughtUp() time.Time {
	n := j.caughtUp.Load()
	if n == 0 {
		return time.Time{}
	}
	return time.Unix(0, n)
}

// Stats counts lines since the start.
func (j *Journal) Stats() maillog.Stats {
	if s := j.stats.Load(); s != nil {
		return *s
	}
	return maillog.Stats{}
}

// Run follows the journal until ctx ends; what is not recorded by then is read again
// by the next run. The error is that of the store.
func (j *Journal) Run(ctx context.Context) error {
	if j.Log == nil {
		j.Log = slog.New(slog.DiscardHandler)
	}
	r := &journalRun{Journal: j, marked: time.Now()}
	if err := r.restore(); err != nil {
		return err
	}
	first := orPause(j.Pause, journalPause)
	pause := first
	for {
		started := time.Now()
		err := r.child(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if errors.Is(err, errJournalStore) {
			return err
		}
		if time.Since(started) > journalMaxPause {
			pause = first
		}
		j.Log.Warn("the journal is not followed any more, will try again", "in", pause, "error", err)
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(pause):
		}
		pause = min(2*pause, journalMaxPause)
	}
}

func orPause(d, usual time.Duration) time.Duration {
	if d <= 0 {
		return usual
	}
	return d
}

// errJournalStore marks errors of the recorder's.
var errJournalStore = errors.New("sessions of the journal are not recorded")

// journalRun is what a run has read.
type journalRun struct {
	*Journal
	cursor   string
	sessions []reporting.Session
	unmarked int // bytes
	marked   time.Time
}

// restore goes on where the last run was. What cannot be read is as if there had
// been none.
func (r *journalRun) restore() error {
	mark, err := r.Store.Mark(journalMark)
	if err != nil || mark == nil {
		return err
	}
	cursor, state, err := cutCursor(mark)
	if err == nil {
		err = r.Reader.RestoreState(state)
	}
	if err != nil {
		r.Log.Warn("how far the journal was read cannot be told; starting anew", "error", err)
		return nil
	}
	r.cursor = cursor
	return nil
}

// arguments of journalctl, of which 2017's systemd 236 knows all. --all is for
// messages of 4 KiB and more.
func (r *journalRun) arguments() []string {
	args := []string{"--output=json", "--output-fields=MESSAGE,SYSLOG_IDENTIFIER,SYSLOG_PID,_PID,_HOSTNAME", "--all", "--quiet", "--no-pager", "--follow"}
	if r.cursor == "" {
		return append(args, "--lines=1") // for its cursor alone
	}
	return append(args, "--no-tail", "--after-cursor="+r.cursor)
}

// child runs one journalctl until it ends.
func (r *journalRun) child(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	command := r.Command
	if len(command) == 0 {
		command = []string{"journalctl"}
	}
	cmd := exec.CommandContext(ctx, command[0], append(command[1:len(command):len(command)], r.arguments()...)...)
	cmd.WaitDelay = time.Second // for one whose own child has its output open
	var complaint clipped
	cmd.Stderr = &complaint
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	defer context.AfterFunc(ctx, func() { out.Close() })()
	if err := cmd.Start(); err != nil {
		return err
	}
	chunks := make(chan []byte)
	ended := make(chan error, 1)
	go func() {
		defer close(chunks)
		ended <- readChunks(ctx, out, chunks)
	}()
	failure := r.take(ctx, chunks)
	cancel()
	for range chunks { // its sender has nobody else
	}
	reading := <-ended
	waiting := cmd.Wait()
	if failure != nil {
		return failure
	}
	return fmt.Errorf("%s ended: %w: %s", command[0], errors.Join(reading, waiting), complaint.String())
}

// take records what comes until there is no more.
func (r *journalRun) take(ctx context.Context, chunks <-chan []byte) error {
	quiet := orPause(r.Quiet, journalQuiet)
	timer := time.NewTicker(quiet)
	defer timer.Stop()
	for {
		select {
		case chunk, ok := <-chunks:
			if !ok {
				return nil
			}
			if err := r.lines(ctx, chunk); err != nil {
				return err
			}
			timer.Reset(quiet)
		case now := <-timer.C:
			if r.unmarked > 0 && now.Sub(r.marked) > markEvery {
				if err := r.commit(ctx); err != nil {
					return err
				}
			}
			r.caughtUp.Store(now.Add(-quiet).UnixNano())
		}
	}
}

func (r *journalRun) lines(ctx context.Context, chunk []byte) error {
	emit := func(s reporting.Session) {
		if r.Keep == nil || r.Keep(&s) {
			r.sessions = append(r.sessions, s)
		}
	}
	r.unmarked += len(chunk)
	begins := r.cursor == ""
	if begins {
		chunk = r.begin(chunk)
	}
	for rest := chunk; len(rest) > 0; {
		var line []byte
		line, rest, _ = bytes.Cut(rest, []byte{'\n'})
		r.Reader.Line(line, emit)
	}
	stats := r.Reader.Stats()
	r.stats.Store(&stats)
	at := r.move(chunk)
	if begins && r.cursor != "" || len(r.sessions) > 0 || r.unmarked > markAfter || time.Since(r.marked) > markEvery {
		if err := r.commit(ctx); err != nil {
			return err
		}
	}
	if now := time.Now(); at.After(now) { // the clock was set back
		at = now
	}
	if !at.IsZero() {
		r.caughtUp.Store(at.UnixNano())
	}
	return nil
}

// begin takes off the last entry from before the first start. Its cursor is stored at
// once: without one, a restart would begin behind what was written meanwhile.
func (r *journalRun) begin(chunk []byte) []byte {
	for r.cursor == "" && len(chunk) > 0 {
		var line []byte
		line, chunk, _ = bytes.Cut(chunk, []byte{'\n'})
		if cursor := Cursor(line); len(cursor) <= maxCursor {
			r.cursor = cursor
		}
	}
	return chunk
}

// move puts the cursor behind the last entry of a chunk and tells when that was
// written. What is no entry has no cursor, and no sessions either.
func (r *journalRun) move(chunk []byte) time.Time {
	for len(chunk) > 0 {
		chunk = chunk[:len(chunk)-1] // the line end
		start := bytes.LastIndexByte(chunk, '\n') + 1
		if cursor := Cursor(chunk[start:]); cursor != "" && len(cursor) <= maxCursor {
			r.cursor = cursor
			e, _ := maillog.Head(chunk[start:])
			at, _ := (&maillog.Clock{}).At(e.Stamp)
			return at
		}
		chunk = chunk[:start]
	}
	return time.Time{}
}

// commit waits for the disk, so that nothing is read beyond what is safe.
func (r *journalRun) commit(ctx context.Context) error {
	mark := r.Reader.AppendState(appendCursor(nil, r.cursor))
	if err := r.Recorder.Commit(ctx, r.sessions, r.Source, map[string][]byte{journalMark: mark}); err != nil {
		return fmt.Errorf("%w: %w", errJournalStore, err)
	}
	r.sessions, r.unmarked, r.marked = r.sessions[:0], 0, time.Now()
	return nil
}

// Cursor is where in the journal an object of journalctl -o json stands:
// --after-cursor goes on behind it. It is "" for any other line.
func Cursor(line []byte) string {
	var object struct {
		Cursor string `json:"__CURSOR"`
	}
	if len(line) == 0 || line[0] != '{' || json.Unmarshal(line, &object) != nil {
		return ""
	}
	return object.Cursor
}

func appendCursor(dst []byte, cursor string) []byte {
	dst = binary.AppendUvarint(append(dst, journalVersion), uint64(len(cursor)))
	return append(dst, cursor...)
}

var errCursor = errors.New("the stored cursor cannot be read")

func cutCursor(b []byte) (cursor string, rest []byte, err error) {
	if len(b) == 0 || b[0] != journalVersion {
		return "", nil, errCursor
	}
	n, size := binary.Uvarint(b[1:])
	if size <= 0 || n > maxCursor || uint64(len(b)-1-size) < n {
		return "", nil, errCursor
	}
	b = b[1+size:]
	return string(b[:n]), b[n:], nil
}

// readChunks sends whole lines, as many as there are. Of a line that is too long it
// sends as much as shows that.
func readChunks(ctx context.Context, from io.Reader, to chan<- []byte) error {
	b := bufio.NewReaderSize(from, journalBatch)
	for {
		line, err := b.ReadSlice('\n')
		if errors.Is(err, bufio.ErrBufferFull) {
			line = append(bytes.Clone(line[:maillog.MaxLine+1]), '\n')
			err = skipLine(b)
		}
		if err != nil {
			return err
		}
		chunk := bytes.Clone(line)
		for len(chunk) < journalBatch {
			ready, _ := b.Peek(b.Buffered())
			end := bytes.LastIndexByte(ready, '\n')
			if end < 0 {
				break
			}
			chunk = append(chunk, ready[:end+1]...)
			b.Discard(end + 1)
		}
		select {
		case to <- chunk:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// skipLine reads up to the next line end.
func skipLine(b *bufio.Reader) error {
	for {
		if _, err := b.ReadSlice('\n'); !errors.Is(err, bufio.ErrBufferFull) {
			return err
		}
	}
}

// clipped keeps the beginning of what is written to it.
type clipped struct{ bytes.Buffer }

func (c *clipped) Write(p []byte) (int, error) {
	c.Buffer.Write(p[:min(len(p), journalComplaint-c.Len())])
	return len(p), nil
}

// String is one printable line.
func (c *clipped) String() string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return ' '
		}
		return r
	}, strings.TrimSpace(c.Buffer.String()))
}

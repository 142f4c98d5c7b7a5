// Package follow reads a log file that others write, line by line, over rotation and
// restarts, so that no line is missed and none is read twice.
//
// How far it has read is a [Position]: which file (device and inode), the offset of
// the next line, and a hash of the bytes before it. The hash tells the file from
// another one that got the same inode, from one that was truncated and has grown
// again (logrotate's copytruncate), and finds the rest of what was not read yet in a
// copy, or in a file that was renamed and perhaps packed (logrotate(8)).
//
// The caller gets whole lines with the position behind them. Storing both in one
// transaction is what makes counts exact over a crash: nothing is asked of this
// package again that is not behind the stored position.
package follow

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"time"
)

const (
	defaultPoll = time.Second

	// bufferSize is the most that the caller gets at once.
	bufferSize = 256 << 10

	// settle is how many polls in a row a file that was renamed must not grow: its
	// writer has it open until it is told (rsyslog's HUP), a moment later.
	settle = 2
)

// Log is a log file.
type Log struct {
	Path string
	Poll time.Duration // between looks for more; 0: 1 s
	Log  *slog.Logger  // nil: none

	// AtEnd is called, in the goroutine of Run, whenever all that there is has been
	// handed out. nil: nothing is.
	AtEnd func()

	// Whole says to begin with the first line of the file when there is no
	// position yet, not behind the last.
	Whole bool
}

// Take gets whole lines, each with its line end but perhaps the last of a file that
// will not grow any more, and the position behind them. Where there was no position,
// it first gets the one to begin with, and no lines. An error ends Run.
type Take func(lines []byte, behind Position) error

// Run hands out what is behind from, and then what is added, until ctx ends or take
// fails. The file need not exist yet. What goes wrong with it is logged once, and
// tried again.
func (l *Log) Run(ctx context.Context, from Position, take Take) error {
	r := &run{Log: l, take: take, at: from, buf: make([]byte, 0, bufferSize)}
	if r.Log.Log == nil {
		r.log = slog.New(slog.DiscardHandler)
	} else {
		r.log = r.Log.Log
	}
	defer r.close()
	tick := time.NewTicker(orDefault(l.Poll, defaultPoll))
	defer tick.Stop()
	for {
		if err := r.step(ctx); err != nil {
			if errors.Is(err, errTake) || ctx.Err() != nil {
				return r.reason(ctx, err)
			}
			r.complain(err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

func orDefault(d, def time.Duration) time.Duration {
	if d <= 0 {
		return def
	}
	return d
}

// errTake marks errors of the caller's.
var errTake = errors.New("lines not taken")

// run is the state of Run.
type run struct {
	*Log
	log      *slog.Logger
	take     Take
	file     *os.File
	at       Position      // of the first byte that was not handed out
	before   Position      // at the beginning of a file: where that before it ended, see unread
	known    []predecessor // that were read up to before
	window   window        // before it
	buf      []byte        // what is behind it
	skipping bool          // the line at at is too long; buf is empty
	skipped  int64         // of it …
	long     window        // … and what comes behind that
	quiet    int           // polls without growth since the file was replaced
	said     string        // last complaint
}

func (r *run) reason(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}

func (r *run) complain(err error) {
	text := err.Error()
	if text == r.said {
		return
	}
	r.said = text
	switch {
	case errors.Is(err, errMoved):
		r.log.Info("log is being rotated, will look again", "path", r.Path)
		return
	case errors.Is(err, fs.ErrNotExist):
		r.log.Info("log does not exist yet", "path", r.Path)
		return
	}
	r.log.Warn("log cannot be read, will try again", "path", r.Path, "error", err)
}

func (r *run) close() {
	if r.file != nil {
		r.file.Close()
		r.file = nil
	}
}

// step reads all that there is now.
func (r *run) step(ctx context.Context) error {
	if r.file == nil {
		if err := r.open(ctx); err != nil {
			return err
		}
	}
	if err := r.check(ctx); err != nil {
		return err
	}
	grown, err := r.drain(ctx, r.file)
	if err != nil {
		return err
	}
	r.said = ""
	if err := r.replaced(ctx, grown); err != nil {
		return err
	}
	if r.AtEnd != nil && ctx.Err() == nil {
		r.AtEnd()
	}
	return nil
}

// open finds the file of the position and what followed it.
func (r *run) open(ctx context.Context) error {
	f, err := os.Open(r.Path)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) && r.at == (Position{}) {
			r.at = start(fileID{}) // all of what is written later is new
			return errors.Join(err, r.begin())
		}
		return err
	}
	id, size, err := identify(f)
	if err != nil {
		f.Close()
		return err
	}
	switch {
	case r.at == (Position{}):
		if r.at, err = r.first(f, id, size); err == nil {
			err = r.begin()
		}
	case r.at.file != id && r.at.offset > 0 && r.at.in(f):
		r.at.file = id // on a device that has another number since the last boot, or restored
	case r.at.file != id || size < r.at.offset || !r.at.in(f):
		if err = r.catchUp(ctx); err == nil {
			r.goOn(f, id)
		}
	}
	if err != nil {
		f.Close()
		return err
	}
	return r.restart(f)
}

// begin tells the caller where it begins, so that this is not found anew after a
// crash, when more has been written.
func (r *run) begin() error {
	if err := r.take(nil, r.at); err != nil {
		return fmt.Errorf("%w: %w", errTake, err)
	}
	return nil
}

// restart reads f from the position on.
func (r *run) restart(f *os.File) (err error) {
	r.close()
	r.file, r.buf, r.skipping, r.skipped, r.quiet = f, r.buf[:0], false, 0, 0
	r.window, err = windowAt(f, r.at.offset)
	return err
}

// first is where to begin without a position: behind the last whole line.
func (r *run) first(f *os.File, id fileID, size int64) (Position, error) {
	if r.Whole {
		return start(id), nil
	}
	end, err := lastLineEnd(f, size)
	if err != nil {
		return Position{}, err
	}
	w, err := windowAt(f, end)
	return Position{file: id, offset: end, hash: w.hash()}, err
}

// check finds out whether the open file was truncated, even if it has grown again.
func (r *run) check(ctx context.Context) error {
	_, size, err := identify(r.file)
	if err != nil {
		return err
	}
	behind := r.at.offset + int64(len(r.buf)) + r.skipped
	if size == behind || size > behind && r.at.in(r.file) {
		return nil
	}
	id := r.at.file
	if err := r.catchUp(ctx); err != nil {
		r.close() // where the position is now, open finds out
		return err
	}
	r.goOn(r.file, id)
	r.buf, r.skipping, r.skipped = r.buf[:0], false, 0
	r.window, err = windowAt(r.file, r.at.offset)
	return err
}

// replaced goes on to the new file when the open one was renamed and its writer has
// let go of it.
func (r *run) replaced(ctx context.Context, grown bool) error {
	f, err := os.Open(r.Path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // it will come
	}
	if err != nil {
		return err
	}
	id, _, err := identify(f)
	if err != nil || id == r.at.file {
		f.Close()
		return err
	}
	if r.quiet++; grown {
		r.quiet = 0
	}
	if r.quiet < settle {
		f.Close()
		return nil
	}
	err = r.rest()
	if err == nil {
		_, err = r.readOn(ctx) // files that came and went meanwhile, while a disk had stalled
	}
	if err != nil {
		f.Close()
		return err
	}
	r.goOn(f, id)
	if err := r.restart(f); err != nil {
		return err
	}
	_, err = r.drain(ctx, r.file)
	return err
}

// rest hands out a last line without its end.
func (r *run) rest() error {
	if len(r.buf) == 0 {
		return nil
	}
	if err := r.unread(); err != nil {
		return err
	}
	return r.hand(len(r.buf))
}

// drain reads f to its present end.
func (r *run) drain(ctx context.Context, f io.ReaderAt) (grown bool, err error) {
	for ctx.Err() == nil {
		n, err := f.ReadAt(r.buf[len(r.buf):cap(r.buf)], r.at.offset+int64(len(r.buf))+r.skipped)
		if n > 0 && !r.at.in(f) { // truncated since the last lines, and grown again
			r.close()
			return grown, errMoved
		}
		r.buf = r.buf[:len(r.buf)+n]
		if n > 0 {
			grown = true
			if err := r.lines(); err != nil {
				return grown, err
			}
		}
		if errors.Is(err, io.EOF) || n == 0 && err == nil {
			return grown, nil
		}
		if err != nil {
			return grown, err
		}
	}
	return grown, context.Cause(ctx)
}

// lines hands out the whole lines of the buffer. Of a line that does not fit, it
// waits for the end, which alone moves the position.
func (r *run) lines() error {
	if err := r.unread(); err != nil {
		return err
	}
	if r.skipping {
		end := bytes.IndexByte(r.buf, '\n')
		if end < 0 {
			r.skip(len(r.buf))
			return nil
		}
		r.skip(end + 1)
		r.at.offset += r.skipped
		r.window, r.at.hash = r.long, r.long.hash()
		r.skipping, r.skipped = false, 0
		r.log.Warn("a line of the log is too long and was skipped", "path", r.Path)
	}
	end := bytes.LastIndexByte(r.buf, '\n')
	switch {
	case end >= 0:
		return r.hand(end + 1)
	case len(r.buf) == cap(r.buf):
		r.skipping, r.long = true, r.window
		r.skip(len(r.buf))
	}
	return nil
}

// skip drops the first n bytes of the buffer, which are of a line that is too long.
func (r *run) skip(n int) {
	r.long.shift(r.buf[:n])
	r.skipped += int64(n)
	r.buf = r.buf[:copy(r.buf, r.buf[n:])]
}

// hand gives the first n bytes of the buffer away.
func (r *run) hand(n int) error {
	w, behind := r.window, r.at
	w.shift(r.buf[:n])
	behind.offset += int64(n)
	behind.hash = w.hash()
	if err := r.take(r.buf[:n], behind); err != nil {
		return fmt.Errorf("%w: %w", errTake, err)
	}
	r.window, r.at = w, behind
	r.buf = r.buf[:copy(r.buf, r.buf[n:])]
	return nil
}

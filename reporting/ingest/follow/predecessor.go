package follow

import (
	"compress/gzip"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// maxPredecessors that are looked at: a year of daily ones.
const maxPredecessors = 400

// predecessor is a file that has the path and an addition as its name, such as
// mail.log.1, mail.log-20261128 or mail.log.2.gz.
type predecessor struct {
	path    string
	changed time.Time
}

// predecessors of the log, the latest first.
func (l *Log) predecessors() ([]predecessor, error) {
	dir, base := filepath.Split(l.Path)
	entries, err := os.ReadDir(filepath.Clean(dir))
	if err != nil {
		return nil, err
	}
	var list []predecessor
	for _, e := range entries {
		rest, ok := strings.CutPrefix(e.Name(), base)
		if !ok || rest == "" || rest[0] != '.' && rest[0] != '-' || !e.Type().IsRegular() {
			continue
		}
		if info, err := e.Info(); err == nil {
			list = append(list, predecessor{filepath.Join(dir, e.Name()), info.ModTime()})
		}
	}
	slices.SortStableFunc(list, func(a, b predecessor) int { return b.changed.Compare(a.changed) })
	return list[:min(len(list), maxPredecessors)], nil
}

// catchUp reads what was written behind the position before the log became another
// file: the rest of the one that the position is in, under its new name or in a copy,
// and all that came between. That takes a while in which the log may be rotated once
// more, so it looks again until there is nothing behind the position. Without any
// trace of it, lines may be lost, which is said.
func (r *run) catchUp(ctx context.Context) error {
	if r.at == (Position{}) || r.at.offset == 0 && r.at.file == (fileID{}) {
		return nil
	}
	for {
		before := r.at
		found, err := r.readPredecessors(ctx)
		if err != nil {
			return err
		}
		if !found {
			r.log.Warn("what was last read of the log is nowhere; lines may be missed", "path", r.Path)
			return nil
		}
		if r.at == before || r.at.offset == 0 {
			return nil
		}
	}
}

// readPredecessors reads those from the position on that there are now, and reports
// whether it is in one of them.
func (r *run) readPredecessors(ctx context.Context) (bool, error) {
	list, err := r.predecessors()
	if err != nil {
		return false, err
	}
	found := -1
	for i, p := range list {
		if ctx.Err() != nil {
			return false, context.Cause(ctx)
		}
		if r.has(p) {
			found = i
			break
		}
	}
	if found < 0 {
		return false, nil
	}
	for i := found; i >= 0; i-- { // from there to the latest
		if i != found {
			if !list[i].changed.After(list[found].changed) {
				continue // which came first cannot be told, and twice is worse than not
			}
			r.at = start(fileID{})
		}
		if err := r.readThrough(ctx, list[i]); err != nil {
			return false, err
		}
	}
	return true, nil
}

// goOn is where to read on in f when what came before it was read. A copy that was
// still being made, or a file that was renamed meanwhile, has the beginning of f
// itself.
func (r *run) goOn(f io.ReaderAt, id fileID) {
	if r.at.offset == 0 || !r.at.in(f) {
		r.at = start(id)
	}
	r.at.file = id
}

// has reports whether a predecessor holds the text that the position is behind.
func (r *run) has(p predecessor) bool {
	f, err := openLog(p.path)
	if err != nil {
		return false
	}
	defer f.Close()
	if plain, ok := f.(*os.File); ok {
		return r.at.in(plain)
	}
	before := max(0, r.at.offset-int64(len(window{})))
	if _, err := io.CopyN(io.Discard, f, before); err != nil {
		return false
	}
	var w window
	if _, err := io.ReadFull(f, w[int64(len(w))-(r.at.offset-before):]); err != nil && r.at.offset > 0 {
		return false
	}
	return w.hash() == r.at.hash
}

// readThrough hands out what a predecessor has behind the position, a last line
// without its end included.
func (r *run) readThrough(ctx context.Context, p predecessor) error {
	f, err := openLog(p.path)
	if err != nil {
		return err
	}
	defer f.Close()
	var w window
	before := max(0, r.at.offset-int64(len(w)))
	if _, err := io.CopyN(io.Discard, f, before); err != nil {
		return err
	}
	if _, err := io.ReadFull(f, w[int64(len(w))-(r.at.offset-before):]); err != nil && r.at.offset > before {
		return err
	}
	r.window, r.buf, r.skipping, r.skipped = w, r.buf[:0], false, 0
	said := false
	for ctx.Err() == nil {
		n, err := f.Read(r.buf[len(r.buf):cap(r.buf)])
		if n > 0 && !said {
			said = true
			r.log.Info("reading the rest of a log that was rotated", "path", p.path)
		}
		r.buf = r.buf[:len(r.buf)+n]
		if n > 0 {
			if err := r.lines(); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			return r.rest()
		}
		if err != nil {
			return err
		}
	}
	return context.Cause(ctx)
}

// openLog opens a file that may be packed.
func openLog(path string) (io.ReadCloser, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	if !strings.HasSuffix(path, ".gz") {
		return f, nil
	}
	z, err := gzip.NewReader(f)
	if err != nil {
		f.Close()
		return nil, err
	}
	return packed{z, f}, nil
}

// packed closes both.
type packed struct {
	*gzip.Reader
	file *os.File
}

func (p packed) Close() error {
	return errors.Join(p.Reader.Close(), p.file.Close())
}

// lastLineEnd is the offset behind the last whole line of a file.
func lastLineEnd(f io.ReaderAt, size int64) (int64, error) {
	buf := make([]byte, 64<<10)
	for end := size; end > 0; {
		from := max(0, end-int64(len(buf)))
		n, err := f.ReadAt(buf[:end-from], from)
		if err != nil && !errors.Is(err, io.EOF) {
			return 0, err
		}
		if at := lastNewline(buf[:n]); at >= 0 {
			return from + int64(at) + 1, nil
		}
		end = from
	}
	return 0, nil
}

package follow

import (
	"bytes"
	"compress/flate"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"
)

// maxPredecessors that are looked at: a year of daily ones.
const maxPredecessors = 400

// predecessor is a file that has the path and a number or date as its name, such as
// mail.log.1, mail.log-20261128 or mail.log.2.gz. Other files beside a log may hold
// the same lines, as mail.info does beside mail.
type predecessor struct {
	path    string
	file    fileID
	size    int64
	changed time.Time
}

// rotated is what logrotate(8), newsyslog(8) and savelog(8) put behind the name of a log.
// Of what packs files, only gzip can be read here.
var rotated = regexp.MustCompile(`^[.-](old|[0-9][0-9.:T_-]*)(\.gz)?$`)

const gz = ".gz"

// predecessors of the log, the latest first. One that is there twice, since it is
// being packed, is the one that is whole.
func (l *Log) predecessors() ([]predecessor, error) {
	path, err := filepath.EvalSymlinks(l.Path) // logs are rotated where they are
	if err != nil {
		path = l.Path // it is away at the moment
	}
	dir, base := filepath.Split(path)
	entries, err := os.ReadDir(filepath.Clean(dir))
	if err != nil {
		return nil, err
	}
	names := map[string]bool{}
	for _, e := range entries {
		names[e.Name()] = true
	}
	var list []predecessor
	for _, e := range entries {
		rest, ok := strings.CutPrefix(e.Name(), base)
		plain, packed := strings.CutSuffix(e.Name(), gz)
		if !ok || !rotated.MatchString(rest) || !e.Type().IsRegular() || packed && names[plain] {
			continue
		}
		info, err := e.Info()
		if err != nil {
			return nil, fmt.Errorf("%w: %w", errMoved, err)
		}
		id, err := idOf(info)
		if err != nil {
			return nil, err
		}
		list = append(list, predecessor{filepath.Join(dir, e.Name()), id, info.Size(), info.ModTime()})
	}
	slices.SortStableFunc(list, func(a, b predecessor) int { return b.changed.Compare(a.changed) })
	return list[:min(len(list), maxPredecessors)], nil
}

// errMoved says that files were renamed or packed while they were looked through.
var errMoved = errors.New("logs are being rotated")

// catchUp reads what was written behind the position before the log became another
// file: the rest of the one that the position is in, under its new name or in a copy,
// and all that came between. That takes a while in which the log may be rotated once
// more, so it looks again until there is nothing behind the position. Without any
// trace of it, lines may be lost, which is said.
func (r *run) catchUp(ctx context.Context) error {
	if r.at == (Position{}) || r.at.offset == 0 && r.at.file == (fileID{}) {
		return nil
	}
	found, err := r.readOn(ctx)
	if err == nil && !found {
		r.log.Warn("what was last read of the log is nowhere; lines may be missed", "path", r.Path)
	}
	return err
}

// readOn is readAll from the end of the file before, where nothing was handed out of
// this one: all beginnings look the same, and a copy of it could not be told.
func (r *run) readOn(ctx context.Context) (found bool, err error) {
	at, before := r.at, r.before
	r.before = Position{}
	if at.offset == 0 && before.offset > 0 {
		r.at = before
		if found, err = r.readAll(ctx); found || err != nil {
			return found, err
		}
		r.at = at
	}
	return r.readAll(ctx)
}

// unread makes sure, before the first lines of a file are handed out, that none came
// between it and its predecessors: it may have been copied and truncated since those
// were read, and what was in it is in a copy now. Then all is looked at anew.
func (r *run) unread() error {
	if r.at.offset > 0 || r.before.offset == 0 {
		return nil
	}
	list, err := r.predecessors()
	if err != nil || slices.Equal(list, r.known) {
		return err
	}
	r.at, r.before = r.before, Position{}
	r.close()
	return errMoved
}

// readAll reads predecessors until there is nothing behind the position, and reports
// whether that was in any.
func (r *run) readAll(ctx context.Context) (found bool, err error) {
	for {
		before := r.at
		now, err := r.readPredecessors(ctx)
		if err != nil {
			return found, err
		}
		found = found || now
		if !now || r.at == before || r.at.offset == 0 {
			return found, nil
		}
	}
}

// readPredecessors reads those from the position on that there are now, and reports
// whether it is in one of them. After an error the position is still in one.
func (r *run) readPredecessors(ctx context.Context) (bool, error) {
	list, err := r.predecessors()
	if err != nil {
		return false, err
	}
	r.known = list
	found, err := r.among(ctx, list)
	if err != nil || found < 0 {
		return false, err
	}
	for i := found; i >= 0; i-- { // from there to the latest
		before := r.at
		if i != found {
			if !list[i].changed.After(list[found].changed) {
				continue // which came first cannot be told, and twice is worse than not
			}
			r.at = start(fileID{})
		}
		err := r.readThrough(ctx, list[i])
		if r.at.offset == 0 {
			r.at = before
		}
		if err != nil {
			return false, err
		}
	}
	return true, nil
}

// among finds the predecessor that the position is in; -1 is none.
func (r *run) among(ctx context.Context, list []predecessor) (int, error) {
	for i, p := range list {
		if ctx.Err() != nil {
			return -1, context.Cause(ctx)
		}
		if has, err := r.has(p); has || err != nil {
			return i, err
		}
	}
	return -1, nil
}

// goOn is where to read on in f when what came before it was read. A copy that was
// still being made, or a file that was renamed meanwhile, has the beginning of f
// itself.
func (r *run) goOn(f io.ReaderAt, id fileID) {
	r.before = Position{}
	if r.at.offset == 0 || !r.at.in(f) {
		r.at, r.before = start(id), r.at
	}
	r.at.file = id
}

// has reports whether a predecessor holds the text that the position is behind.
// Before the first line, where there is none, it must be the same file.
func (r *run) has(p predecessor) (bool, error) {
	if r.at.offset == 0 {
		return p.file == r.at.file, nil
	}
	f, err := p.open()
	if err != nil {
		if errors.Is(err, errMoved) {
			return false, err
		}
		return false, nil // others may be readable
	}
	defer f.Close()
	if plain, ok := f.(*os.File); ok {
		return r.at.in(plain), nil
	}
	w, err := r.windowIn(f)
	return err == nil && w.hash() == r.at.hash, nil
}

// windowIn reads f up to the position.
func (r *run) windowIn(f io.Reader) (w window, err error) {
	before := max(0, r.at.offset-int64(len(w)))
	if _, err := io.CopyN(io.Discard, f, before); err != nil {
		return w, err
	}
	_, err = io.ReadFull(f, w[int64(len(w))-(r.at.offset-before):])
	return w, err
}

// readThrough hands out what a predecessor has behind the position, a last line
// without its end included. Of a packed one that is damaged, it takes what can be had.
func (r *run) readThrough(ctx context.Context, p predecessor) error {
	f, err := p.open()
	if err != nil {
		if unpacking(err) {
			return r.damaged(p, err)
		}
		return err
	}
	defer f.Close()
	w, err := r.windowIn(f)
	if err != nil {
		if unpacking(err) {
			return r.damaged(p, err)
		}
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
		switch {
		case errors.Is(err, io.EOF):
			return r.rest()
		case unpacking(err):
			return errors.Join(r.damaged(p, err), r.rest())
		case err != nil:
			return err
		}
	}
	return context.Cause(ctx)
}

// damaged goes on without what cannot be had.
func (r *run) damaged(p predecessor, err error) error {
	r.log.Warn("a log that was packed is damaged; lines may be missed", "path", p.path, "error", err)
	return nil
}

// unpacking reports whether an error is that of the contents of a packed file.
func unpacking(err error) bool {
	_, corrupt := errors.AsType[flate.CorruptInputError](err)
	return corrupt || errors.Is(err, gzip.ErrHeader) || errors.Is(err, gzip.ErrChecksum) || errors.Is(err, io.ErrUnexpectedEOF)
}

// open opens a file that may be packed, if it still has its name.
func (p predecessor) open() (io.ReadCloser, error) {
	f, err := os.Open(p.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: %w", errMoved, err)
	}
	if err != nil {
		return nil, err
	}
	id, _, err := identify(f)
	if err == nil && id != p.file {
		err = fmt.Errorf("%w: %s is another file now", errMoved, p.path)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	if !strings.HasSuffix(p.path, gz) {
		return f, nil
	}
	z, err := gzip.NewReader(f)
	if err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
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
		if at := bytes.LastIndexByte(buf[:n], '\n'); at >= 0 {
			return from + int64(at) + 1, nil
		}
		end = from
	}
	return 0, nil
}

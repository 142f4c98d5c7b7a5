package edit

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
)

// Conflict is why nothing was undone: lines that were written have been changed since.
type Conflict struct {
	Lines []string // with the path of their file each
	Runs  []string // folders of the runs that were to be undone
}

func (c *Conflict) Error() string {
	return "lines that setup wrote have been changed since:\n" + strings.Join(c.Lines, "\n")
}

// Reverted is what Revert has done.
type Reverted struct {
	Runs  []string // folders of the runs that were undone, the latest first
	Files []string // that were written or removed
	Older int      // runs before that are still in force
}

// Revert undoes the latest run for a mail server that is still in force, with those
// right before it that never came to their end. Lines that others have added since
// stay. If any of ours has been changed, nothing is undone, and the error is a
// [Conflict] that names these lines.
func (h *History) Revert(mta string) (*Reverted, error) {
	runs, err := h.runs(mta)
	if err != nil {
		return nil, err
	}
	count := 0
	for count < len(runs) && (count == 0 || runs[count].State == begun) {
		count++
	}
	r := &Reverted{Older: len(runs) - count}
	work := &undoing{History: h, texts: map[string][]byte{}, gone: map[string]bool{}}
	for _, m := range runs[:count] {
		r.Runs = append(r.Runs, m.folder)
		for i := range m.Files {
			if err := work.undo(m, &m.Files[i]); err != nil {
				return nil, err
			}
		}
	}
	if len(work.changed) > 0 {
		return nil, &Conflict{Lines: work.changed, Runs: r.Runs}
	}
	return r, work.write(runs[:count], r)
}

// runs reads the manifests of a mail server that are in force, the latest first.
func (h *History) runs(mta string) ([]*manifest, error) {
	entries, err := os.ReadDir(h.Path(h.folder()))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var all []*manifest
	for _, e := range entries {
		folder := path.Join(h.folder(), e.Name())
		text, exists, err := h.Lookup(path.Join(folder, manifestName))
		if err != nil {
			return nil, err
		}
		if !exists { // died before it changed anything
			continue
		}
		m := &manifest{folder: folder}
		if err := json.Unmarshal(text, m); err != nil {
			return nil, fmt.Errorf("%s: %w", path.Join(folder, manifestName), err)
		}
		if m.Format != 1 {
			return nil, fmt.Errorf("%s is of format %d, which this version does not know", path.Join(folder, manifestName), m.Format)
		}
		if m.MTA == mta && m.State != reverted {
			all = append(all, m)
		}
	}
	slices.SortStableFunc(all, func(a, b *manifest) int {
		if c := b.Started.Compare(a.Started); c != 0 {
			return c
		}
		return len(b.folder) - len(a.folder) + strings.Compare(b.folder, a.folder)
	})
	return all, nil
}

// undoing collects what the files shall be.
type undoing struct {
	*History
	order   []string
	texts   map[string][]byte // by path
	gone    map[string]bool   // files that shall not be
	changed []string          // lines that are not ours any more
}

// current is a file as it will be after the runs that were undone before.
func (u *undoing) current(name string) (text []byte, exists bool, err error) {
	if u.gone[name] {
		return nil, false, nil
	}
	if text, ok := u.texts[name]; ok {
		return text, true, nil
	}
	return u.Lookup(name)
}

func (u *undoing) set(name string, text []byte, exists bool) {
	if !slices.Contains(u.order, name) {
		u.order = append(u.order, name)
	}
	u.texts[name], u.gone[name] = text, !exists
}

// undo takes back one file of a run.
func (u *undoing) undo(m *manifest, e *entry) error {
	now, exists, err := u.current(e.Path)
	if err != nil {
		return err
	}
	after, _, err := u.Lookup(path.Join(m.folder, e.After))
	if err != nil {
		return err
	}
	if e.Before == "" {
		switch {
		case !exists: // never written, or removed already
		case !bytes.Equal(now, after):
			u.changed = append(u.changed, e.Path+": all of it was new; remove it by hand")
		default:
			u.set(e.Path, nil, false)
		}
		return nil
	}
	before, kept, err := u.Lookup(path.Join(m.folder, e.Before))
	if err != nil {
		return err
	}
	if !kept {
		return fmt.Errorf("%s, the copy of %s, is missing", path.Join(m.folder, e.Before), e.Path)
	}
	if !exists {
		u.changed = append(u.changed, e.Path+": the file is gone")
		return nil
	}
	if bytes.Equal(now, before) || e.Undone == sum(now) {
		return nil
	}
	text, changed := undo(before, after, now)
	for _, line := range changed {
		u.changed = append(u.changed, e.Path+": "+line)
	}
	if changed == nil {
		e.Undone = sum(text)
		u.set(e.Path, text, true)
	}
	return nil
}

func sum(text []byte) string {
	h := sha256.Sum256(text)
	return hex.EncodeToString(h[:])
}

// write says in the manifests what is to come, and then does it.
func (u *undoing) write(runs []*manifest, r *Reverted) error {
	for _, m := range runs {
		if err := u.save(m); err != nil {
			return err
		}
	}
	// The other way round than Apply: what others refer to goes last.
	slices.Reverse(u.order)
	for _, name := range u.order {
		if u.gone[name] {
			if err := os.Remove(u.Path(name)); err != nil {
				return err
			}
		} else if err := u.replace(name, u.texts[name], 0o644); err != nil {
			return err
		}
		r.Files = append(r.Files, name)
	}
	for _, m := range runs {
		m.State = reverted
		if err := u.save(m); err != nil {
			return err
		}
	}
	return nil
}

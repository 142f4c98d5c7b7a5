package edit

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"postseal/cmd/postseal/internal/host"
)

// DefaultFolder is where copies and manifests are kept. It is root's own, not the
// folder for state: that belongs to the user of the daemon, and who may write there
// could have Revert put anything into the mail server's configuration.
const DefaultFolder = "/var/backups/postseal"

// States of a run.
const (
	begun    = "begun"    // some files may not have been written
	done     = "done"     // all were
	reverted = "reverted" // all are as they were
)

// manifest is what one run has changed. It is on disk before the first change.
type manifest struct {
	Format  int       `json:"format"`
	MTA     string    `json:"mta"`
	Started time.Time `json:"started"`
	State   string    `json:"state"`
	Files   []entry   `json:"files"`

	folder string // of the run, within the root
}

// entry is one file of a run. Before and After are copies beside the manifest.
type entry struct {
	Path   string `json:"path"`
	Before string `json:"before,omitempty"` // "" if there was none
	After  string `json:"after"`
	Lines  []Line `json:"lines"`
	Undone string `json:"undone,omitempty"` // what Revert was about to write, as SHA-256
}

const manifestName = "manifest.json"

// History is what was changed on a system, run by run.
type History struct {
	*host.System
	Folder string           // of copies and manifests, within the root; "": DefaultFolder
	Now    func() time.Time // nil: time.Now
}

func (h *History) now() time.Time {
	if h.Now != nil {
		return h.Now()
	}
	return time.Now()
}

func (h *History) folder() string {
	if h.Folder != "" {
		return h.Folder
	}
	return DefaultFolder
}

// Apply makes changes to the files of a mail server, in their order, and returns the
// folder with the copies and the manifest; "" if nothing was changed. If it fails on the
// way, Revert undoes what was done. A file that is no longer as it was is not replaced.
func (h *History) Apply(mta string, changes []Change) (folder string, err error) {
	m, err := h.begin(mta, changes)
	if err != nil {
		return "", fmt.Errorf("keep copies of what is changed: %w", err)
	}
	for _, c := range changes {
		now, exists, err := h.Lookup(c.Path)
		if err != nil {
			return m.folder, err
		}
		if exists == c.New || !bytes.Equal(now, c.Before) {
			return m.folder, fmt.Errorf("%s was changed by somebody else just now", c.Path)
		}
		if err := h.replace(c.Path, c.After, c.Mode); err != nil {
			return m.folder, err
		}
	}
	m.State = done
	return m.folder, h.save(m)
}

// begin writes copies and manifest of a run.
func (h *History) begin(mta string, changes []Change) (*manifest, error) {
	if err := os.MkdirAll(h.Path(h.folder()), 0o700); err != nil {
		return nil, err
	}
	started := h.now().UTC().Truncate(time.Second)
	m := &manifest{Format: 1, MTA: mta, Started: started, State: begun}
	name := path.Join(h.folder(), mta+"-"+started.Format("20060102-150405"))
	for n := 1; ; n++ {
		if m.folder = name; n > 1 {
			m.folder += "-" + strconv.Itoa(n) // more than one in a second
		}
		err := os.Mkdir(h.Path(m.folder), 0o700)
		if err == nil {
			break
		}
		if !errors.Is(err, fs.ErrExist) || n > 99 {
			return nil, err
		}
	}
	for i, c := range changes {
		e := entry{Path: c.Path, Lines: c.Lines}
		number := strconv.Itoa(i + 1)
		if !c.New {
			e.Before = number + ".before"
			if err := h.replace(path.Join(m.folder, e.Before), c.Before, 0o600); err != nil {
				return nil, err
			}
		}
		e.After = number + ".after"
		if err := h.replace(path.Join(m.folder, e.After), c.After, 0o600); err != nil {
			return nil, err
		}
		m.Files = append(m.Files, e)
	}
	return m, h.save(m)
}

func (h *History) save(m *manifest) error {
	text, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return err
	}
	return h.replace(path.Join(m.folder, manifestName), append(text, '\n'), 0o600)
}

// replace writes a file in one step: whoever reads sees the old or the new one, also
// after a crash. Owner and mode stay; a new file, with its folders, gets mode.
func (h *History) replace(name string, text []byte, mode fs.FileMode) error {
	target := h.Path(name)
	info, err := os.Lstat(target)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		info = nil
		if err := os.MkdirAll(filepath.Dir(target), 0o755); err != nil {
			return err
		}
	case err != nil:
		return err
	case info.Mode()&fs.ModeSymlink != 0 && h.Root == "":
		if target, err = filepath.EvalSymlinks(target); err != nil {
			return err
		}
		if info, err = os.Stat(target); err != nil {
			return err
		}
	case !info.Mode().IsRegular():
		return fmt.Errorf("%s is no plain file", name)
	}
	return install(target, text, mode, info)
}

// install writes a file beside its place and moves it there. info is of the old one.
func install(target string, text []byte, mode fs.FileMode, info fs.FileInfo) error {
	f, err := os.CreateTemp(filepath.Dir(target), ".postseal-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // there only after an error
	defer f.Close()
	if _, err := f.Write(text); err != nil {
		return err
	}
	if info != nil {
		mode = info.Mode()
		if owner, ok := info.Sys().(*syscall.Stat_t); ok {
			if err := keepOwner(f, owner); err != nil {
				return err
			}
		}
	}
	// Behind the owner, since a change of that clears bits of the mode.
	if err := f.Chmod(mode.Perm()); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), target); err != nil {
		return err
	}
	return syncFolder(filepath.Dir(target))
}

// keepOwner gives a file the owner of the one that it replaces.
func keepOwner(f *os.File, owner *syscall.Stat_t) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if mine, ok := info.Sys().(*syscall.Stat_t); ok && mine.Uid == owner.Uid && mine.Gid == owner.Gid {
		return nil
	}
	return f.Chown(int(owner.Uid), int(owner.Gid))
}

func syncFolder(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

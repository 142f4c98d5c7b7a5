// Package edit changes configuration files so that it can be undone.
//
// A [Change] is one file as it is and as it shall be. [History.Apply] makes a list of
// them. Before the first file is touched there is a folder on disk with a copy of each,
// before and after, and a manifest that says how far it has come; each file is then
// replaced in one step (rename(2)), so that whoever dies, the program or the machine,
// leaves only whole files, and [History.Revert] knows what to undo.
//
// Undoing is a merge of three texts: the file before, the file as we left it, and the
// file as it is now (diff3(1) with the sides turned round). What others have written
// since stays. Where they have changed a line of ours, nothing is undone, and a
// [Conflict] names the lines.
package edit

import (
	"bytes"
	"io/fs"

	"postseal/cmd/postseal/internal/host"
)

// Change is one file as it is and as it shall be.
type Change struct {
	Path   string // absolute, within the root
	Before []byte
	After  []byte
	New    bool        // there is no such file yet
	Mode   fs.FileMode // of a new file
	Lines  []Line      // what differs, for people
	Copy   string      // instead of Lines: the file of this program that it is a copy of
}

// Line is one line or setting that is changed.
type Line struct {
	Text string `json:"text"`
	Was  string `json:"was,omitempty"` // what it replaces; "" if it is added
	Why  string `json:"why,omitempty"`
}

// Of reads a file that is to be changed; everybody may read it if it is new.
func Of(s *host.System, path string) (Change, error) {
	before, exists, err := s.Lookup(path)
	return Change{Path: path, Before: before, New: !exists, Mode: 0o644}, err
}

// Any reports whether there is anything to change.
func (c *Change) Any() bool { return c.New || !bytes.Equal(c.Before, c.After) }

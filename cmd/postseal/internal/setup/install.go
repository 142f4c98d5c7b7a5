package setup

import (
	"embed"
	"io/fs"
	"path"
	"regexp"
	"strings"
)

// Where a package puts the files that Exim and Sendmail include, and where setup does
// without a package: everybody may read there, since Exim does not as root.
const (
	packaged = "/usr/share/postseal"
	ownFiles = "/usr/local/share/postseal"
)

// included finds the folder of the files that mta includes, of which probe is one. If
// no package has brought them, the plan does.
func (s *System) included(p *Plan, mta, probe string, files embed.FS) (string, error) {
	folder := path.Join(packaged, mta)
	installed := s.exists(path.Join(folder, probe))
	if !installed {
		folder = path.Join(ownFiles, mta)
	}
	entries, err := fs.ReadDir(files, ".")
	if err != nil {
		return "", err
	}
	for _, e := range entries {
		text, err := files.ReadFile(e.Name())
		if err != nil {
			return "", err
		}
		c := Change{Path: path.Join(folder, e.Name()), After: text, Mode: 0o644, Copy: "contrib/" + mta + "/" + e.Name()}
		var exists bool
		if c.Before, exists, err = s.read(c.Path); err != nil {
			return "", err
		}
		c.New = !exists
		switch {
		case !installed:
			p.change(c)
		case string(c.Before) != string(text):
			p.warn("%s is of another version of postseal than this program", c.Path)
		}
	}
	return folder, nil
}

// insertion is a block of lines to be put into a text.
type insertion struct {
	text string // with its line end
	why  string
	at   func(lines []string) int // the line before which it stands; -1: there is no such place
	mark string                   // a part of it that tells that it is there already
}

// insert puts blocks into a file that has one place for each. missing is the text of a
// block without one.
func insert(c *Change, blocks []insertion) (missing string) {
	lines := splitLines(c.Before)
	for _, b := range blocks {
		if hasLine(lines, b.mark) {
			continue
		}
		at := b.at(lines)
		if at < 0 {
			return b.text
		}
		lines = append(lines[:at:at], append([]string{b.text}, lines[at:]...)...)
		// Split again: blocks have several lines.
		lines = splitLines([]byte(strings.Join(lines, "")))
		c.Lines = append(c.Lines, Line{Text: strings.TrimSuffix(b.text, "\n"), Why: b.why})
	}
	c.After = []byte(strings.Join(lines, ""))
	return ""
}

// hasLine reports whether a line that is no comment contains mark.
func hasLine(lines []string, mark string) bool {
	for _, line := range lines {
		line = strings.TrimSpace(line)
		if !strings.HasPrefix(line, "#") && !strings.HasPrefix(line, "dnl") && strings.Contains(line, mark) {
			return true
		}
	}
	return false
}

// lineOf is the first line that matches; -1 without one.
func lineOf(lines []string, want *regexp.Regexp) int {
	for i, line := range lines {
		if want.MatchString(strings.TrimRight(line, "\r\n")) {
			return i
		}
	}
	return -1
}

package edit

import (
	"regexp"
	"slices"
	"strings"
)

// Block is lines to be put into a text.
type Block struct {
	Text string // with its line end
	Why  string
	At   func(lines []string) int // the line before which it stands; -1: there is no such place
	Mark string                   // a part of it that tells that it is there already
}

// Insert puts blocks into a file that has one place for each. missing is the text of a
// block without one.
func (c *Change) Insert(blocks []Block) (missing string) {
	lines := Lines(c.Before)
	for _, b := range blocks {
		if hasLine(lines, b.Mark) {
			continue
		}
		at := b.At(lines)
		if at < 0 {
			return b.Text
		}
		// Split again: blocks have several lines.
		lines = Lines([]byte(strings.Join(slices.Insert(lines, at, b.Text), "")))
		c.Lines = append(c.Lines, Line{Text: strings.TrimSuffix(b.Text, "\n"), Why: b.Why})
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

// LineOf is the first line that matches; -1 without one.
func LineOf(lines []string, want *regexp.Regexp) int {
	for i, line := range lines {
		if want.MatchString(strings.TrimRight(line, "\r\n")) {
			return i
		}
	}
	return -1
}

// Lines splits a text into lines with their ends.
func Lines(text []byte) []string {
	if len(text) == 0 {
		return nil
	}
	lines := strings.SplitAfter(string(text), "\n")
	if lines[len(lines)-1] == "" {
		lines = lines[:len(lines)-1]
	}
	return lines
}

// Package setup writes into the configuration of a mail server what it needs to ask
// postseal: Postfix by postconf(1), Exim and Sendmail by lines that include files of
// contrib. What is written comes from contrib, the same files that the lab runs.
//
// First comes a [Plan]: every file as it is and as it shall be, with a reason for
// each line. Printing it changes nothing. [System.Apply] keeps a copy of each file
// and a manifest on disk before it replaces the first one, so that [System.Revert]
// can undo it whenever the program or the machine dies. Lines that the administrator
// has changed since are never undone: that is refused, with the lines named.
//
// A site's own tables keep winning: ours are put behind them. What is not understood
// (several instances, another policy service, a list hidden in a variable) is refused
// with a [Refusal] that says what to do, for a wrong guess would stop all mail.
package setup

import (
	"bytes"
	"fmt"
	"io/fs"
)

// Plan is what setup would do.
type Plan struct {
	MTA      string   // "postfix", "exim" or "sendmail"
	Found    []string // what was seen, for people
	Kept     []string // settings that stay as the administrator has them, and why
	Warnings []string
	Changes  []Change   // of files, in the order in which they are written
	ByHand   []string   // what setup cannot change itself
	Before   []string   // what is to be done before the mail server is told, in words or commands
	Reload   [][]string // commands that make the mail server read its configuration again
	After    []string   // what is to be done then
}

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

// Refusal is why setup changes nothing: what it found is not what it understands.
type Refusal struct {
	Why   string
	Hints []string
}

func (r *Refusal) Error() string { return r.Why }

func refuse(hint, format string, args ...any) error {
	r := &Refusal{Why: fmt.Sprintf(format, args...)}
	if hint != "" {
		r.Hints = []string{hint}
	}
	return r
}

// Empty reports whether there is nothing to change.
func (p *Plan) Empty() bool { return len(p.Changes) == 0 }

func (p *Plan) found(format string, args ...any) {
	p.Found = append(p.Found, fmt.Sprintf(format, args...))
}

func (p *Plan) kept(format string, args ...any) {
	p.Kept = append(p.Kept, fmt.Sprintf(format, args...))
}

func (p *Plan) warn(format string, args ...any) {
	p.Warnings = append(p.Warnings, fmt.Sprintf(format, args...))
}

// change adds a change, unless there is none.
func (p *Plan) change(c Change) {
	if c.New || !bytes.Equal(c.Before, c.After) {
		p.Changes = append(p.Changes, c)
	}
}

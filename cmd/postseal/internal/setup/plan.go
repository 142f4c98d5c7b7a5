// Package setup plans what a mail server's configuration needs so that it asks postseal:
// Postfix by postconf(1), Exim and Sendmail by lines that include files of contrib. What
// is written comes from contrib, the same files that the lab runs.
//
// A [Plan] has every file as it is and as it shall be, with a reason for each line, and
// in words what is left to do. Here is what the plans of all mail servers have in common;
// packages postfix, exim and sendmail make them, package sidecar completes postseal.toml,
// and package edit makes the changes and undoes them. Making and printing a plan changes
// nothing.
//
// A site's own tables keep winning: ours are put behind them. What is not understood
// (several instances, another policy service, a list hidden in a variable) is refused
// with a [Refusal] that says what to do, for a wrong guess would stop all mail. Whether
// the mail server may do DANE itself is proven, not assumed ([Plan.DANE], RFC 7672 §2.1.1).
package setup

import (
	"context"
	"fmt"

	"postseal/cmd/postseal/internal/host"
	"postseal/cmd/postseal/internal/setup/edit"
)

// Options are those of every mail server.
type Options struct {
	Config string // postseal.toml; "": the default
	Dir    string // the mail server's configuration folder; "": where it says itself
	DANE   string // DANEAuto, DANEYes or DANENo
	TLSRPT bool   // count sessions, from the log if there is one
	Direct bool   // from what Postfix or Exim says by itself instead, with TLSRPT

	// Validates says whether the resolvers at these addresses validate and may be
	// believed, and if not why. nil: the self-test of policy/dnssec.
	Validates func(ctx context.Context, servers []string) (bool, string)
}

// Plan is what setup would do.
type Plan struct {
	MTA      string   // "postfix", "exim" or "sendmail"
	Found    []string // what was seen, for people
	Kept     []string // settings that stay as the administrator has them, and why
	Warnings []string
	Changes  []edit.Change //  of files, in the order in which they are written
	ByHand   []string      // what setup cannot change itself
	Before   []string      // what is to be done before the mail server is told, in words or commands
	Reload   [][]string    // commands that make the mail server read its configuration again
	After    []string      // what is to be done then
}

// Refusal is why setup changes nothing: what it found is not what it understands.
type Refusal struct {
	Why   string
	Hints []string
}

func (r *Refusal) Error() string { return r.Why }

// Refuse makes a [Refusal]; hint may be empty.
func Refuse(hint, format string, args ...any) error {
	r := &Refusal{Why: fmt.Sprintf(format, args...)}
	if hint != "" {
		r.Hints = []string{hint}
	}
	return r
}

// Empty reports whether there is nothing to change.
func (p *Plan) Empty() bool { return len(p.Changes) == 0 }

// Saw notes what was found.
func (p *Plan) Saw(format string, args ...any) {
	p.Found = append(p.Found, fmt.Sprintf(format, args...))
}

// Keep notes a setting that stays.
func (p *Plan) Keep(format string, args ...any) {
	p.Kept = append(p.Kept, fmt.Sprintf(format, args...))
}

// Warn notes what the administrator must know.
func (p *Plan) Warn(format string, args ...any) {
	p.Warnings = append(p.Warnings, fmt.Sprintf(format, args...))
}

// Change adds a change, unless there is none.
func (p *Plan) Change(c edit.Change) {
	if c.Any() {
		p.Changes = append(p.Changes, c)
	}
}

// Reload has the mail server read its configuration again, by the commands of a plan.
func Reload(ctx context.Context, s *host.System, p *Plan) error {
	for _, argv := range p.Reload {
		if _, err := s.Output(ctx, argv...); err != nil {
			return err
		}
	}
	return nil
}

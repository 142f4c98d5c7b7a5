package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"postseal/cmd/postseal/internal/control"
	"postseal/policy"
	"postseal/reporting"
	"postseal/reporting/daily"
)

func reportsCommand() *cli.Command {
	return &cli.Command{
		Name:  "report",
		Usage: "look at the TLS reports to other domains, send them, and read theirs",
		Description: `Every day that is over is reported to the domains that ask for it in DNS (RFC 8460).

  postseal report list                              # what became of yesterday's
  postseal report show --domain example.org         # what stands in one
  postseal report preview --domain example.org      # what would be sent now, and where to
  postseal report send --domain example.org --day 2026-11-27
  postseal report suppress add mailto:tls@example.org --reason "asked us to stop"
  postseal report read report.json.gz`,
		Subcommands: []*cli.Command{
			reportListCommand(), reportShowCommand(), reportPreviewCommand(), reportSendCommand(), suppressCommand(), reportReadCommand(),
		},
		Action: needsSubcommand,
	}
}

func reportListCommand() *cli.Command {
	return &cli.Command{
		Name:  "list",
		Usage: "list the reports of a day and what became of them",
		Description: `Domains that ask for no reports are left out, and counted at the end. The states:

planned     will be sent when it is due      sent        at least one target took it
waiting     will be tried again              refused     no target will take it
given-up    tried for a day in vain          bounced     your mail server could not deliver it
no-record   the domain asks for none         suppressed  nothing is sent to its targets
nothing     no session can be reported       dropped     by a rule of the configuration
missed      the day is too long ago          own-mail    no mail but our own reports

With --json one object a line.

  postseal report list
  postseal report list --day 2026-11-27 --domain example.org
  postseal report list --json | jq -r 'select(.state == "given-up").domain'`,
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "day", Usage: "`DAY`, as 2026-11-28 (default: yesterday, in UTC)"},
			&cli.StringFlag{Name: "domain", Usage: "`DOMAIN` or MX host that the report is about (default: all)"},
			&cli.BoolFlag{Name: "all", Usage: "list domains that ask for no reports too", DisableDefaultText: true},
			jsonFlag(),
		},
		HideHelpCommand: true,
		Action:          reportList,
	}
}

func reportList(c *cli.Context) error {
	if err := none(c); err != nil {
		return err
	}
	now := time.Now()
	day, err := dayOr(c, now, reporting.DayOf(now)-1)
	if err != nil {
		return err
	}
	if c.IsSet("domain") {
		if err := checkDomain(c); err != nil {
			return err
		}
	}
	client, err := daemonClient(c)
	if err != nil {
		return err
	}
	print := (&reportTable{w: c.App.Writer}).add
	if c.Bool("json") {
		enc := json.NewEncoder(c.App.Writer)
		enc.SetEscapeHTML(false)
		print = func(r control.Report) error { return enc.Encode(r) }
	}
	lines := 0
	end, err := client.Reports(c.Context, day, c.String("domain"), c.Bool("all"), func(r control.Report) error {
		lines++
		return print(r)
	})
	if err != nil || c.Bool("json") {
		return noDaemon(err)
	}
	if lines > 0 {
		fmt.Fprintln(c.App.Writer)
	}
	_, err = c.App.Writer.Write(renderReportDay(end))
	return err
}

// checkDomain is a usage error unless --domain is one.
func checkDomain(c *cli.Context) error {
	if _, ok := policy.AppendName(nil, []byte(c.String("domain"))); !ok {
		return usage("", "option --domain: %w", control.NotDestination(c.String("domain")))
	}
	return nil
}

// about is the report that the options name, for a command that is about one.
func about(c *cli.Context, day string) (control.About, error) {
	if !c.IsSet("domain") {
		return control.About{}, wrongCount(c, "needs --domain DOMAIN")
	}
	return control.About{Day: day, Domain: c.String("domain"), MX: c.Bool("mx")}, checkDomain(c)
}

// aboutFlags are the options of a command that is about one report.
func aboutFlags(def string, more ...cli.Flag) []cli.Flag {
	return append([]cli.Flag{
		&cli.StringFlag{Name: "domain", Usage: "`DOMAIN` that the report is about"},
		&cli.StringFlag{Name: "day", Usage: "`DAY`, as 2026-11-28" + def},
		&cli.BoolFlag{Name: "mx", Usage: "the domain is an MX host, which asks for reports on its TLSA records", DisableDefaultText: true},
	}, more...)
}

const reportRow = "%-44s %-10s %-21s %5s\n"

// reportTable prints reports as they come.
type reportTable struct {
	w      io.Writer
	titled bool
}

func (t *reportTable) add(r control.Report) error {
	var b sheet
	if !t.titled {
		t.titled = true
		fmt.Fprintf(&b, reportRow, "DOMAIN", "STATE", "NEXT TRY", "TRIES")
	}
	name := r.Domain
	if r.MX {
		name += " (MX host)"
	}
	fmt.Fprintf(&b, reportRow, printable(name), printable(r.State), dash(when(r.Due)), fmt.Sprint(r.Tries))
	b.indented(r.Reason, 3)
	for _, p := range r.Targets {
		b.indented(atTarget(p), 3)
	}
	_, err := t.w.Write(b.Bytes())
	return err
}

// indented adds text below a row, at most most lines of it.
func (s *sheet) indented(text string, most int) {
	if text == "" {
		return
	}
	for i, part := range wrap(printable(text), columns-4, most) {
		if i > 0 {
			part = "  " + part
		}
		s.WriteString("  " + part + "\n")
	}
}

// atTarget is what became of a report at one target, in a line.
func atTarget(p daily.TargetProgress) string {
	text := p.URI + ": " + string(p.State)
	if p.Tries > 1 {
		text += fmt.Sprintf(" after %d tries", p.Tries)
	}
	if !p.At.IsZero() {
		text += ", " + stamp(p.At)
	}
	if p.Trying {
		text += ", under way or broken off"
	}
	if p.Reply != "" {
		text += ": " + p.Reply
	}
	return text
}

// stateWords name the states where they are counted, in this order.
var stateWords = [][2]string{
	{string(daily.Sent), "sent"}, {string(daily.Waiting), "waiting"}, {control.Planned, "planned"}, {string(daily.Refused), "refused"}, {string(daily.Bounced), "bounced"},
	{string(daily.GivenUp), "given up"}, {string(daily.Suppressed), "suppressed"}, {string(daily.Dropped), "dropped by a rule"},
	{string(daily.OwnMail), "of our own mail alone"}, {string(daily.Nothing), "with nothing to report"}, {control.Missed, "missed"},
	{string(daily.NoRecord), "asking for none"},
}

// renderReportDay counts the reports of a day.
func renderReportDay(d control.ReportDay) []byte {
	var counts []string
	total := uint64(0)
	for _, s := range stateWords {
		if n := d.States[s[0]]; n > 0 {
			counts = append(counts, fmt.Sprintf("%d %s", n, s[1]))
			total += n
		}
	}
	state := "closed"
	if !d.Closed {
		state = "not closed yet, so nothing is sent"
	}
	b := &sheet{}
	b.line(d.Day, fmt.Sprintf("(UTC, %s) reports: %d; %s", state, total, list(counts)), 3)
	return bytes.Replace(b.Bytes(), []byte("; none\n"), []byte("\n"), 1)
}

// printLines prints text of several lines.
func printLines(w io.Writer, text string) error {
	var b strings.Builder
	for line := range strings.Lines(text) {
		b.WriteString(printable(strings.TrimRight(line, "\r\n")) + "\n")
	}
	_, err := io.WriteString(w, b.String())
	return err
}

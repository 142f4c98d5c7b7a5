package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"postseal/cmd/postseal/internal/control"
	"postseal/cmd/postseal/internal/status"
)

func statusCommand() *cli.Command {
	return &cli.Command{
		Name:  "status",
		Usage: "show what the daemon is doing, and whether it can do DANE",
		Description: `  postseal status
  postseal status --json`,
		Flags:           []cli.Flag{jsonFlag()},
		HideHelpCommand: true,
		Action: func(c *cli.Context) error {
			if err := none(c); err != nil {
				return err
			}
			client, err := daemonClient(c)
			if err != nil {
				return err
			}
			s, err := client.Status(c.Context)
			if err != nil {
				return noDaemon(err)
			}
			if c.Bool("json") {
				return printJSON(c.App.Writer, s)
			}
			_, err = c.App.Writer.Write(renderStatus(s))
			return err
		},
	}
}

func renderStatus(s control.Status) []byte {
	b := &sheet{}
	b.line("postseal", fmt.Sprintf("%s, process %d, up %s", s.Version, s.PID, time.Since(s.Started).Round(time.Second)), 1)
	b.line("config", s.Config, 2)
	b.line("DNSSEC", "validation is "+s.Validation.Words(), 3)
	for i, name := range slices.Sorted(maps.Keys(s.Listen)) {
		title := ""
		if i == 0 {
			title = "listening"
		}
		b.line(title, fmt.Sprintf("%-19s %s", name, strings.Join(s.Listen[name], " ")), 2)
	}
	b.line("memory", fmt.Sprintf("%d destinations remembered, %d being looked up", s.Entries, s.Lookups), 1)
	b.line("connections", fmt.Sprintf("%d of mail servers, %d refused as too many", s.Connections, s.Refused), 1)
	var made []string
	for _, level := range slices.Sorted(maps.Keys(s.Decisions)) {
		if n := s.Decisions[level]; n > 0 {
			made = append(made, fmt.Sprintf("%s %d", level, n))
		}
	}
	b.line("decisions", list(made), 2)
	b.line("overrides", fmt.Sprintf("%d, of which %d have expired", s.Overrides, s.ExpiredOverrides), 1)
	statusOfMail(b, s)
	if s.Recording != nil {
		statusOfRecording(b, s.Recording)
	}
	if s.FailingRefreshes > 0 {
		b.line("FAILING", fmt.Sprintf("%d policies cannot be refreshed: %s", s.FailingRefreshes, strings.Join(s.FailingDomains, " ")), 5)
	}
	return b.Bytes()
}

// statusOfMail is what the milter and the delivery fallback have done.
func statusOfMail(b *sheet, s control.Status) {
	if m := s.Milter; m != nil {
		b.line("milter", fmt.Sprintf("messages %d, tagged requiretls %d, relaxed %d, not judged %d", m.Messages, m.Required, m.Relaxed, m.Errors), 1)
	}
	if d := s.Delivery; d != nil {
		b.line("delivery", fmt.Sprintf("messages %d, in flight %d; recipients delivered %d (before: %d), deferred %d, bounced %d",
			d.Messages, d.InFlight, d.Delivered, d.Already, d.Deferred, d.Bounced), 2)
	}
}

// statusOfRecording is how it becomes known what happened.
func statusOfRecording(b *sheet, r *status.Recording) {
	b.line("sessions", fmt.Sprintf("recorded %d, lost %d, hosts probed %d; last day closed: %s", r.Sessions, r.Dropped, r.Probes, r.LastDay), 1)
	for i, l := range r.Logs {
		title := ""
		if i == 0 {
			title = "logs"
		}
		upTo := "not read to its end yet"
		if !l.CaughtUp.IsZero() {
			upTo = "read up to " + stamp(l.CaughtUp)
		}
		b.line(title, fmt.Sprintf("%s (%s), %s", l.Path, l.Format, upTo), 2)
		b.line("", fmt.Sprintf("lines %d, sessions %d, not understood %d", l.Lines, l.Sessions, l.Unparsed+l.Oversize), 1)
	}
	if d := r.Datagrams; d != nil {
		b.line("datagrams", fmt.Sprintf("received %d, sessions %d, lost %d, malformed %d, refused %d", d.Received, d.Sessions, d.Lost, d.Malformed, d.Refused), 1)
	}
	if e := r.Events; e != nil {
		b.line("Exim events", fmt.Sprintf("received %d, sessions %d, malformed %d, without result %d", e.Received, e.Sessions, e.Malformed, e.Dropped), 1)
	}
	if p := r.Reports; p != nil {
		b.line("reports", fmt.Sprintf("sent %d, waiting %d, attempts failed %d, given up %d", p.Sent, p.Waiting, p.Failed, p.GaveUp), 1)
	}
}

// list joins words with commas; "none" if there are none.
func list(words []string) string {
	if len(words) == 0 {
		return "none"
	}
	return strings.Join(words, ", ")
}

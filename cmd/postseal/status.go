package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"postseal/cmd/postseal/internal/control"
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
		b.line(title, fmt.Sprintf("%-10s %s", name, strings.Join(s.Listen[name], " ")), 2)
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
	if s.FailingRefreshes > 0 {
		b.line("FAILING", fmt.Sprintf("%d policies cannot be refreshed: %s", s.FailingRefreshes, strings.Join(s.FailingDomains, " ")), 5)
	}
	return b.Bytes()
}

// list joins words with commas; "none" if there are none.
func list(words []string) string {
	if len(words) == 0 {
		return "none"
	}
	return strings.Join(words, ", ")
}

package main

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"postseal/cmd/postseal/internal/control"
	"postseal/reporting/daily"
)

func suppressCommand() *cli.Command {
	return &cli.Command{
		Name:  "suppress",
		Usage: "list, add or remove targets that get no reports",
		Flags: []cli.Flag{jsonFlag()},
		Description: `Without a command they are listed.

A target that has failed on three days in a row is left alone for 30 days: it refused
the report, let the mail bounce, or did not take it for a whole day. What you add is
left alone until then or until you remove it.

  postseal report suppress
  postseal report suppress add mailto:tls@example.org --reason "asked us to stop"
  postseal report suppress remove mailto:tls@example.org`,
		Subcommands: []*cli.Command{
			{
				Name:  "list",
				Usage: "list the targets that are suppressed, or have failed lately",
				Description: `With --json one object a line.

  postseal report suppress list
  postseal report suppress list --json | jq -r .uri`,
				Flags:           []cli.Flag{jsonFlag()},
				HideHelpCommand: true,
				Action:          suppressList,
			},
			{
				Name:      "add",
				Usage:     "send no reports to a target",
				ArgsUsage: "TARGET",
				Description: `A target is written as in a TLSRPT record: mailto:address, or the https address.

  postseal report suppress add mailto:tls@example.org --reason "asked us to stop"
  postseal report suppress add https://example.net/tlsrpt --expires 14d`,
				Flags: []cli.Flag{
					&cli.StringFlag{Name: "expires", Usage: "`TIME` of the end: 36h, 14d, 2027-01-31 or 2027-01-31T12:00:00Z (default: never)"},
					&cli.StringFlag{Name: "reason", Usage: "`TEXT` for whoever finds it later"},
					jsonFlag(),
				},
				HideHelpCommand: true,
				Action:          suppressAdd,
			},
			{
				Name:      "remove",
				Usage:     "send reports to a target again, and forget its failures",
				ArgsUsage: "TARGET",
				Description: `A report that was given up for it is sent by: postseal report send --again

  postseal report suppress remove mailto:tls@example.org`,
				HideHelpCommand: true,
				Action:          suppressRemove,
			},
		},
		Action: suppressList,
	}
}

func suppressList(c *cli.Context) error {
	if err := none(c); err != nil {
		return err
	}
	client, err := daemonClient(c)
	if err != nil {
		return err
	}
	if c.Bool("json") {
		enc := json.NewEncoder(c.App.Writer)
		enc.SetEscapeHTML(false)
		return noDaemon(client.Targets(c.Context, func(s daily.Standing) error { return enc.Encode(s) }))
	}
	found, now := false, time.Now()
	err = client.Targets(c.Context, func(s daily.Standing) error {
		found = true
		return printStanding(c, s, now)
	})
	if err == nil && !found {
		fmt.Fprintln(c.App.Writer, "nothing speaks against any target")
	}
	return noDaemon(err)
}

func printStanding(c *cli.Context, s daily.Standing, now time.Time) error {
	b := &sheet{}
	b.WriteString(printable(s.URI) + "\n")
	text := against(s, s.Suppressed(now))
	if !s.Until.IsZero() && !s.Suppressed(now) {
		text = "no longer suppressed; " + text
	}
	b.indented(text, 4)
	_, err := c.App.Writer.Write(b.Bytes())
	return err
}

func suppressAdd(c *cli.Context) error {
	s, err := suppressionOf(c)
	if err != nil {
		return err
	}
	client, err := daemonClient(c)
	if err != nil {
		return err
	}
	stored, err := client.Suppress(c.Context, s)
	switch {
	case err != nil:
		return noDaemon(err)
	case c.Bool("json"):
		return printJSON(c.App.Writer, stored)
	}
	if err := printStanding(c, stored, time.Now()); err != nil {
		return err
	}
	_, err = fmt.Fprintf(c.App.Writer, "undone by: postseal report suppress remove %s\n", quotedWord(stored.URI))
	return err
}

// quotedWord is a word as a shell takes it.
func quotedWord(s string) string {
	s = printable(s)
	if strings.Trim(s, wordBytes) == "" {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

// wordBytes are what no shell gives a meaning to.
const wordBytes = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789@%+=:,./_-"

func suppressionOf(c *cli.Context) (s control.Suppression, err error) {
	if err := exactly(c, 1, "one TARGET"); err != nil {
		return s, err
	}
	s = control.Suppression{URI: c.Args().First(), Reason: c.String("reason")}
	if s.Until, err = expiry(c.String("expires"), time.Now()); err != nil {
		return s, usage("", "option --expires: %w", err)
	}
	if err := s.Check(); err != nil {
		return s, usage("a target is mailto:address or an https address", "%w", err)
	}
	return s, nil
}

func suppressRemove(c *cli.Context) error {
	if err := exactly(c, 1, "one TARGET"); err != nil {
		return err
	}
	if _, err := control.ReadTarget(c.Args().First()); err != nil {
		return usage("a target is mailto:address or an https address", "%w", err)
	}
	client, err := daemonClient(c)
	if err != nil {
		return err
	}
	was, err := client.Restore(c.Context, c.Args().First())
	if err != nil {
		return noDaemon(err)
	}
	fmt.Fprintln(c.App.Writer, "removed: "+printable(was.URI))
	b := &sheet{}
	b.indented(against(was, was.Suppressed(time.Now())), 4)
	_, err = c.App.Writer.Write(b.Bytes())
	return err
}

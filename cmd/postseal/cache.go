package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/urfave/cli/v2"

	"postseal/cmd/postseal/internal/control"
)

func cacheCommand() *cli.Command {
	return &cli.Command{
		Name:  "cache",
		Usage: "list, show, refresh, purge or export what is remembered of domains",
		Description: `  postseal cache list
  postseal cache show example.org
  postseal cache export                    # a table for Postfix, for while the daemon is down
  postseal cache refresh example.org       # their new policy, now
  postseal cache purge example.org         # forget a policy that has not expired, too`,
		Subcommands: []*cli.Command{
			{
				Name:  "list",
				Usage: "list the destinations that are remembered",
				Description: `With --json one object a line.

  postseal cache list
  postseal cache list --json | jq -r 'select(.sts_mode == "enforce").destination'`,
				Flags:           []cli.Flag{jsonFlag()},
				HideHelpCommand: true,
				Action:          cacheList,
			},
			{
				Name:            "show",
				Usage:           "show what is remembered of a domain, at all its ports and hosts",
				ArgsUsage:       "DOMAIN",
				Description:     "  postseal cache show example.org",
				Flags:           []cli.Flag{jsonFlag()},
				HideHelpCommand: true,
				Action:          cacheShow,
			},
			{
				Name:            "refresh",
				Usage:           "look a domain up again and fetch its policy",
				ArgsUsage:       "DOMAIN",
				Description:     "  postseal cache refresh example.org",
				Flags:           []cli.Flag{jsonFlag()},
				HideHelpCommand: true,
				Action:          cacheRefresh,
			},
			{
				Name:      "purge",
				Usage:     "forget a domain",
				ArgsUsage: "DOMAIN",
				Description: `Forgets a policy that has not expired too: mail is protected again only when it
has been found again.

  postseal cache purge example.org
  postseal cache purge --all`,
				Flags:           []cli.Flag{&cli.BoolFlag{Name: "all", Usage: "forget everything", DisableDefaultText: true}},
				HideHelpCommand: true,
				Action:          cachePurge,
			},
			exportCommand(),
		},
		Action: needsSubcommand,
	}
}

func cacheList(c *cli.Context) error {
	if err := none(c); err != nil {
		return err
	}
	client, err := daemonClient(c)
	if err != nil {
		return err
	}
	if c.Bool("json") {
		enc := json.NewEncoder(c.App.Writer)
		return noDaemon(client.List(c.Context, "", func(e control.Entry) error { return enc.Encode(e) }))
	}
	const row = "%-36s %-10s %-9s %-8s %s\n"
	titled := false
	return noDaemon(client.List(c.Context, "", func(e control.Entry) error {
		if !titled {
			titled = true
			fmt.Fprintf(c.App.Writer, row, "DESTINATION", "LEVEL", "DANE", "STS", "POLICY UNTIL")
		}
		_, err := fmt.Fprintf(c.App.Writer, row, printable(e.Destination), dash(e.Level), dash(e.DANE), dash(e.STSMode), dash(when(e.STSExpires)))
		return err
	}))
}

func cacheShow(c *cli.Context) error {
	if err := exactly(c, 1, "one DOMAIN"); err != nil {
		return err
	}
	client, err := daemonClient(c)
	if err != nil {
		return err
	}
	domain, found := c.Args().First(), []control.Entry{}
	err = client.List(c.Context, domain, func(e control.Entry) error {
		found = append(found, e)
		return nil
	})
	switch {
	case err != nil:
		return noDaemon(err)
	case c.Bool("json"):
		return printJSON(c.App.Writer, found)
	case len(found) == 0:
		return hinted(errors.New("nothing is remembered of "+strconv.Quote(domain)), "postseal explain "+domain+" looks it up")
	}
	for i, e := range found {
		if i > 0 {
			fmt.Fprintln(c.App.Writer)
		}
		if _, err := c.App.Writer.Write(renderEntry(e)); err != nil {
			return err
		}
	}
	return nil
}

func renderEntry(e control.Entry) []byte {
	b := &sheet{}
	b.line(e.Destination, "", 1)
	decision := "none yet since the daemon started"
	if e.Rule != "" {
		decision = e.Level + ", by the rule: " + e.Rule
	}
	b.line("decision", decision, 2)
	if e.DANE != "" {
		b.line("DANE", e.DANE+", looked up again at "+stamp(e.DANEUntil), 1)
	}
	if e.STSMode != "" {
		b.line("MTA-STS", fmt.Sprintf("mode %s, id %s, fetched %s", e.STSMode, e.STSID, stamp(e.STSFetched)), 1)
		b.line("", fmt.Sprintf("in force until %s, fetched again at %s", stamp(e.STSExpires), stamp(e.STSRefresh)), 1)
	} else {
		b.line("MTA-STS", "no policy in force", 1)
	}
	if e.LastError != "" {
		b.line("failing", fmt.Sprintf("%d times in a row: %s", e.Failures, e.LastError), 4)
	}
	b.line("last used", dash(when(e.LastUsed)), 1)
	return b.Bytes()
}

func cacheRefresh(c *cli.Context) error {
	if err := exactly(c, 1, "one DOMAIN"); err != nil {
		return err
	}
	client, err := daemonClient(c)
	if err != nil {
		return err
	}
	x, err := client.Refresh(c.Context, c.Args().First())
	switch {
	case err != nil:
		return noDaemon(err)
	case c.Bool("json"):
		return printJSON(c.App.Writer, x)
	}
	_, err = c.App.Writer.Write(render(x))
	return err
}

func cachePurge(c *cli.Context) error {
	domain := c.Args().First()
	switch all := c.Bool("all"); {
	case all && c.Args().Len() > 0:
		return wrongCount(c, "takes --all or a DOMAIN, not both")
	case !all:
		if err := exactly(c, 1, "one DOMAIN, or --all"); err != nil {
			return err
		}
		if domain == "" {
			return wrongCount(c, "needs one DOMAIN, or --all")
		}
	}
	client, err := daemonClient(c)
	if err != nil {
		return err
	}
	p, err := client.Purge(c.Context, domain)
	if err != nil {
		return noDaemon(err)
	}
	fmt.Fprintf(c.App.Writer, "forgotten: %d\n", p.Removed)
	return nil
}

func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

func when(t time.Time) string {
	if t.IsZero() || t.Unix() == 0 {
		return ""
	}
	return stamp(t)
}

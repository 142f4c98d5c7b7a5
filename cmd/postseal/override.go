package main

import (
	"fmt"
	"io"
	"os"
	"os/user"
	"strconv"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"postseal/cmd/postseal/internal/overrides"
)

// maxPolicy bounds what is read for --policy: RFC 8461 §3.3 suggests 64 KiB.
const maxPolicy = 64 << 10

func overrideCommand() *cli.Command {
	return &cli.Command{
		Name:  "override",
		Usage: "list, set or remove your own rules for domains",
		Description: `A rule comes before whatever a domain publishes. One for example.org is for that
domain alone, one for .example.org for every name below it.

  postseal override set example.org exempt --expires 24h --reason "certificate expired"
  postseal override set example.net require --level encrypt
  postseal override set example.com pin --mode enforce --mx mx1.example.com
  postseal override list
  postseal override remove example.org`,
		Subcommands: []*cli.Command{
			{
				Name:            "list",
				Usage:           "list the rules, expired ones too",
				Flags:           []cli.Flag{jsonFlag()},
				Description:     "  postseal override list\n  postseal override list --json",
				HideHelpCommand: true,
				Action:          overrideList,
			},
			overrideSetCommand(),
			{
				Name:            "remove",
				Usage:           "remove the rule of a domain",
				ArgsUsage:       "DOMAIN",
				Description:     "  postseal override remove example.org\n  postseal override remove .example.com",
				HideHelpCommand: true,
				Action:          overrideRemove,
			},
		},
		Action: needsSubcommand,
	}
}

func overrideSetCommand() *cli.Command {
	return &cli.Command{
		Name:      "set",
		Usage:     "add a rule, or replace the one of the same domain",
		ArgsUsage: "DOMAIN exempt|require|pin",
		Description: `exempt   deliver with whatever TLS there is
require  demand --level, whatever is published
pin      take this MTA-STS policy for the published one; DANE still goes first

  postseal override set example.org exempt --expires 24h --reason "certificate expired"
  postseal override set example.net require --level secure --match mx.example.net
  postseal override set .example.com pin --policy policy.txt
  postseal override set example.org --requiretls opportunistic`,
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "level", Usage: "of require: encrypt, secure, dane or dane-only"},
			&cli.StringSliceFlag{Name: "match", Usage: "of require at level secure: `NAME` of an MX host, or .domain; again for more (default: the domain and the names below it)"},
			&cli.StringFlag{Name: "policy", Usage: "of pin: `FILE` with the text of a policy; - for standard input"},
			&cli.StringFlag{Name: "mode", Usage: "of pin: enforce, testing or none"},
			&cli.StringSliceFlag{Name: "mx", Usage: "of pin: `NAME` of an MX host, or .domain; again for more"},
			&cli.StringFlag{Name: "requiretls", Usage: "answer of the map requiretls, and what the fallback does: enforce, opportunistic, opportunistic+starttls or disable"},
			&cli.StringFlag{Name: "expires", Usage: "`TIME` of the end: 36h, 14d, 2027-01-31 or 2027-01-31T12:00:00Z (default: never)"},
			&cli.StringFlag{Name: "reason", Usage: "`TEXT` for whoever finds the rule later"},
			&cli.StringFlag{Name: "author", Usage: "`NAME` of who answers for it (default: the user)"},
			jsonFlag(),
		},
		HideHelpCommand: true,
		Action:          overrideSet,
	}
}

func overrideSet(c *cli.Context) error {
	rule, err := ruleOf(c)
	if err != nil {
		return err
	}
	client, err := daemonClient(c)
	if err != nil {
		return err
	}
	stored, err := client.SetOverride(c.Context, rule)
	if err != nil {
		return noDaemon(err, "without a daemon, overrides.toml in state_dir may be edited by hand")
	}
	if c.Bool("json") {
		return printJSON(c.App.Writer, stored)
	}
	fmt.Fprintln(c.App.Writer, printable(describe(&stored.Rule)))
	if stored.Replaced != nil {
		fmt.Fprintln(c.App.Writer, "replaced: "+printable(describe(stored.Replaced)))
	}
	return nil
}

func ruleOf(c *cli.Context) (overrides.Rule, error) {
	args := c.Args()
	if n := args.Len(); n != 1 && n != 2 || n == 1 && !c.IsSet("requiretls") {
		return overrides.Rule{}, wrongCount(c, "needs a DOMAIN and exempt, require or pin")
	}
	r := overrides.Rule{Domain: args.Get(0), Action: args.Get(1), Level: c.String("level"), Match: c.StringSlice("match"),
		Mode: c.String("mode"), MX: c.StringSlice("mx"), RequireTLS: c.String("requiretls"),
		Reason: c.String("reason"), Author: c.String("author")}
	if r.Author == "" {
		r.Author = author()
	}
	var err error
	if r.Expires, err = expiry(c.String("expires"), time.Now()); err != nil {
		return r, usage("", "option --expires: %w", err)
	}
	if name := c.String("policy"); name != "" {
		if r.Policy, err = readPolicy(c, name); err != nil {
			return r, err
		}
	}
	if err := r.Normalize(); err != nil {
		return r, usage("see "+c.Command.HelpName+" --help", "%w", err)
	}
	return r, nil
}

func readPolicy(c *cli.Context, name string) (string, error) {
	in := c.App.Reader
	if name != "-" {
		f, err := os.Open(name)
		if err != nil {
			return "", err
		}
		defer f.Close()
		in = f
	}
	text, err := io.ReadAll(io.LimitReader(in, maxPolicy+1))
	if err != nil {
		return "", err
	}
	if len(text) > maxPolicy {
		return "", fmt.Errorf("%s is larger than %d bytes", name, maxPolicy)
	}
	return string(text), nil
}

// author is who called, also through sudo.
func author() string {
	if name := os.Getenv("SUDO_USER"); name != "" {
		return name
	}
	if u, err := user.Current(); err == nil {
		return u.Username
	}
	return ""
}

// expiry reads a point in time or a duration from now.
func expiry(s string, now time.Time) (time.Time, error) {
	if s == "" {
		return time.Time{}, nil
	}
	var t time.Time
	days, isDays := strings.CutSuffix(s, "d")
	if n, err := strconv.ParseUint(days, 10, 16); isDays && err == nil {
		t = now.AddDate(0, 0, int(n))
	} else if d, err := time.ParseDuration(s); err == nil {
		t = now.Add(d)
	} else if at, err := time.Parse(time.RFC3339, s); err == nil {
		t = at
	} else if day, err := time.ParseInLocation(time.DateOnly, s, time.Local); err == nil {
		t = day
	} else {
		return t, fmt.Errorf("%q is neither a duration (36h, 14d) nor a time (2027-01-31, 2027-01-31T12:00:00Z)", s)
	}
	if !t.After(now) {
		return t, fmt.Errorf("%q lies in the past", s)
	}
	return t.UTC().Truncate(time.Second), nil
}

func overrideList(c *cli.Context) error {
	if err := none(c); err != nil {
		return err
	}
	client, err := daemonClient(c)
	if err != nil {
		return err
	}
	o, err := client.Overrides(c.Context)
	switch {
	case err != nil:
		return noDaemon(err)
	case c.Bool("json"):
		return printJSON(c.App.Writer, o)
	}
	if len(o.Overrides) == 0 {
		fmt.Fprintln(c.App.Writer, "there are no overrides")
	}
	now := time.Now()
	for _, r := range o.Overrides {
		note := ""
		if r.Expired(now) {
			note = " (expired)"
		}
		fmt.Fprintf(c.App.Writer, "%s%s\n", printable(describe(&r)), note)
	}
	return nil
}

func overrideRemove(c *cli.Context) error {
	if err := exactly(c, 1, "one DOMAIN"); err != nil {
		return err
	}
	client, err := daemonClient(c)
	if err != nil {
		return err
	}
	removed, err := client.RemoveOverride(c.Context, c.Args().First())
	if err != nil {
		return noDaemon(err)
	}
	fmt.Fprintln(c.App.Writer, "removed: "+printable(describe(&removed)))
	return nil
}

package main

import (
	"bufio"
	"fmt"
	"regexp"
	"strings"

	"github.com/urfave/cli/v2"

	"postseal/cmd/postseal/internal/control"
)

func exportCommand() *cli.Command {
	return &cli.Command{
		Name:  "export",
		Usage: "print a table for Postfix of what known domains demand",
		Description: `For while the daemon is down: a line "DOMAIN<tab>ANSWER" for each domain of which it
is known that it demands something, by what was last proven, and for each override.
An answer that begins with TEMP is no level, so that Postfix keeps the mail.

  postseal cache export > policies.new && mv policies.new policies
  postseal cache export --map postfix-tlsrpt    # Postfix 3.10 and later
  postseal cache export --none may              # known domains that demand nothing, too

contrib/postfix/README.md says how Postfix comes to use it.`,
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "map", Value: "postfix", Usage: "`NAME` of the map that answers: postfix, postfix-tlsrpt, transport"},
			&cli.StringFlag{Name: "none", Usage: "`ANSWER` for known domains that demand nothing (default: they are left out)"},
		},
		HideHelpCommand: true,
		Action:          cacheExport,
	}
}

// oneWord is what a level or a transport of Postfix looks like.
var oneWord = regexp.MustCompile(`^[!-~]+$`)

func cacheExport(c *cli.Context) error {
	if err := none(c); err != nil {
		return err
	}
	nothing := c.String("none")
	if c.IsSet("none") && !oneWord.MatchString(nothing) {
		return usage("", "option --none: %q is no word", nothing)
	}
	client, err := daemonClient(c)
	if err != nil {
		return err
	}
	out := bufio.NewWriter(c.App.Writer)
	err = client.Answers(c.Context, c.String("map"), func(k control.Known) error {
		answer := strings.TrimPrefix(k.Answer, "OK ")
		if answer == "NOTFOUND" {
			answer = nothing
		}
		if answer == "" {
			return nil
		}
		for _, key := range keys(k) {
			if _, err := fmt.Fprintf(out, "%s\t%s\n", key, answer); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return noDaemon(err)
	}
	return out.Flush()
}

// keys are the forms in which Postfix may ask for a destination: a next hop
// "[host]" without the port, too.
func keys(k control.Known) []string {
	list := []string{k.Destination}
	if k.Unicode != "" {
		list = append(list, k.Unicode)
	}
	for _, key := range list {
		if bare, ok := strings.CutSuffix(key, "]:25"); ok {
			list = append(list, bare+"]")
		}
	}
	return list
}

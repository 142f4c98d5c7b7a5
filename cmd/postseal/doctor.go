package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"postseal/cmd/postseal/internal/config"
	"postseal/cmd/postseal/internal/control"
	"postseal/cmd/postseal/internal/doctor"
	"postseal/policy"
)

func doctorCommand() *cli.Command {
	return &cli.Command{
		Name:  "doctor",
		Usage: "find out what is wrong with the set-up, and what to type",
		Description: `Looks at everything that has to be right: the daemon, its sockets as the mail
server's user sees them from its chroot, the mail server's settings, the resolver and
its validation, the clock, the authorities, the ways out, the logs, and what reports
need. It asks the daemon where there is one, works without, and takes at most 15 s.
As root it sees more. Nothing is changed, and no mail is sent.

Exit code, as monitors have it: 0 if nothing or only hints were found, 1 for warnings,
2 for errors, and for a command that was mistyped.

  postseal doctor
  postseal doctor --json                         # for a monitor
  postseal doctor --mta exim                     # if several mail servers are found
  postseal doctor --sts-domain partner.example   # must have a policy, mode enforce`,
		Flags: []cli.Flag{
			jsonFlag(),
			&cli.StringSliceFlag{Name: "mta", Usage: "look at `NAME`: postfix, exim or sendmail; again for more (default: those that are found)"},
			&cli.StringSliceFlag{Name: "sts-domain", Usage: "a `DOMAIN` that has an MTA-STS policy in mode enforce; again for more (default: " + doctor.DefaultSTSDomain + ")"},
			&cli.StringSliceFlag{Name: "dane-domain", Usage: "a `DOMAIN` whose MX hosts have TLSA records; again for more (default: dns.self_test_signed)"},
		},
		HideHelpCommand: true,
		Action:          runDoctor,
	}
}

func runDoctor(c *cli.Context) error {
	if err := none(c); err != nil {
		return err
	}
	for _, name := range c.StringSlice("mta") {
		if !slices.Contains([]string{"postfix", "exim", "sendmail"}, name) {
			return usage("", "option --mta: %q is not postfix, exim or sendmail", name)
		}
	}
	for _, option := range []string{"sts-domain", "dane-domain"} {
		for _, domain := range c.StringSlice(option) {
			if _, err := policy.ParseDestination(domain); err != nil {
				return usage("", "option --%s: %w", option, control.NotDestination(domain))
			}
		}
	}
	cfg, unusable := loadService(c)
	if unusable != nil {
		cfg = config.Default()
		cfg.File = c.String("config")
		cfg.StateDir, cfg.ControlByDefault = serviceState, true
	}
	client := clientOf(cfg)
	o := doctor.Options{
		Config: cfg, ConfigErr: unusable, Status: client.Status, MTAs: c.StringSlice("mta"),
		STSDomains: c.StringSlice("sts-domain"), DANEDomains: c.StringSlice("dane-domain"),
		Explain: func(ctx context.Context, domain string) (*control.Explanation, error) {
			return explainBriefly(ctx, client, cfg, domain)
		},
	}
	if len(o.DANEDomains) == 0 && cfg.DNS.SelfTest {
		o.DANEDomains, o.OneDANE = cfg.DNS.SelfTestSigned, true
	}
	r := doctor.Run(c.Context, o)
	if c.Bool("json") {
		if err := printJSON(c.App.Writer, r); err != nil {
			return err
		}
	} else if _, err := c.App.Writer.Write(renderDoctor(&r)); err != nil {
		return err
	}
	return verdict(r.Level)
}

// verdict is the exit code as monitors have it (Monitoring Plugins Development
// Guidelines, plugin return codes).
func verdict(l doctor.Level) error {
	switch l {
	case doctor.Warning:
		return &exitError{code: 1}
	case doctor.Error:
		return &exitError{code: 2}
	}
	return nil
}

// explainBriefly asks the daemon, and decides alone where it does not answer.
func explainBriefly(ctx context.Context, client *control.Client, cfg *config.Config, domain string) (*control.Explanation, error) {
	dest, err := policy.ParseDestination(domain)
	if err != nil {
		return nil, err
	}
	x, err := client.Explain(ctx, dest.String(), false)
	if errors.Is(err, control.ErrNoDaemon) || errors.Is(err, os.ErrPermission) {
		return decide(ctx, cfg, dest, io.Discard, false)
	}
	return x, err
}

// renderDoctor is a report for people. What is to be typed stands on a line of its own,
// in one piece.
func renderDoctor(r *doctor.Report) []byte {
	s := &sheet{}
	counts := map[doctor.Level]int{}
	for _, f := range r.Findings {
		counts[f.Level]++
		s.line(string(f.Level), f.Check+": "+f.Text, 5)
		if f.Do != "" {
			fmt.Fprintf(s, "%-*s-> %s\n", indent, "", printable(f.Do))
		}
	}
	var parts []string
	for _, level := range []doctor.Level{doctor.Error, doctor.Warning, doctor.Hint} {
		if n := counts[level]; n > 0 {
			parts = append(parts, fmt.Sprintf("%s: %d", level, n))
		}
	}
	s.WriteString("\n")
	if len(parts) == 0 {
		parts = []string{"nothing is wrong"}
	}
	s.line("in all", strings.Join(parts, ", "), 1)
	return s.Bytes()
}

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/urfave/cli/v2"

	"postseal/cmd/postseal/internal/config"
	"postseal/cmd/postseal/internal/control"
	"postseal/cmd/postseal/internal/daemon"
	"postseal/cmd/postseal/internal/lint"
	"postseal/cmd/postseal/internal/overrides"
	"postseal/policy"
)

// explainLimit is for all lookups; the engine gives up after a minute.
const explainLimit = 65 * time.Second

func explainCommand() *cli.Command {
	return &cli.Command{
		Name:      "explain",
		Usage:     "show how the decision for a domain comes about",
		ArgsUsage: "DOMAIN",
		Description: `Shows every record with its authenticity and TTL, the policy and how it was
fetched, the rule that decided, and what each kind of mail server is told. The
daemon tells what it decided and when; without one, or with --fresh, everything is
looked up here and now, and the output says so.

With --probe the MX hosts are connected to as well, at each address, up to STARTTLS,
and judged by DANE, by their certificates and by the MTA-STS policy, whatever the
decision demands. No mail is sent.

With --lint hints for the domain's owner follow: errors, warnings and what could be
better in its MX, MTA-STS, TLSA and TLSRPT records, as they are published now, each
with the section of the RFC and what to publish instead. With --probe it sees more.

  postseal explain example.org
  postseal explain example.org --probe
  postseal explain example.org --lint --probe
  postseal explain example.org --fresh
  postseal explain '[mx.example.org]:587' --json`,
		Flags: []cli.Flag{
			jsonFlag(),
			&cli.BoolFlag{Name: "fresh", Usage: "look everything up now, without the daemon and what it remembers", DisableDefaultText: true},
			&cli.BoolFlag{Name: "probe", Usage: "connect to the MX hosts and show what they prove", DisableDefaultText: true},
			&cli.BoolFlag{Name: "lint", Usage: "show what the domain's owner should mend", DisableDefaultText: true},
		},
		HideHelpCommand: true,
		Action:          explain,
	}
}

func explain(c *cli.Context) error {
	if err := exactly(c, 1, "one DOMAIN"); err != nil {
		return err
	}
	dest, err := policy.ParseDestination(c.Args().First())
	if err != nil {
		return usage("a next hop is example.org, example.org:587, [mx.example.org] or [mx.example.org]:587", "%w", control.NotDestination(c.Args().First()))
	}
	limit := explainLimit
	if c.Bool("probe") {
		limit += control.ProbeLimit
	}
	ctx, cancel := context.WithTimeout(c.Context, limit)
	defer cancel()
	x, err := explanation(ctx, c, dest)
	if err != nil {
		return err
	}
	if c.Bool("lint") {
		return explainHints(ctx, c, dest, x)
	}
	if c.Bool("json") {
		return printJSON(c.App.Writer, x)
	}
	_, err = c.App.Writer.Write(render(x))
	return err
}

// explainHints prints hints for the owner beneath the explanation. What is published
// now is looked up here, even where a daemon explains: it never asks for the half of it.
func explainHints(ctx context.Context, c *cli.Context, dest policy.Destination, x *control.Explanation) error {
	cfg, err := load(c)
	if err != nil {
		return err
	}
	dns, fetcher, err := daemon.Lookups(cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	hints := lint.Check(lint.Facts{Records: lint.Ask(ctx, dns, fetcher, dest), Explanation: x, Now: time.Now()})
	if c.Bool("json") {
		return printJSON(c.App.Writer, struct {
			*control.Explanation
			Hints []lint.Hint `json:"hints"`
		}{x, append([]lint.Hint{}, hints...)})
	}
	_, err = c.App.Writer.Write(append(render(x), renderHints(hints)...))
	return err
}

func explanation(ctx context.Context, c *cli.Context, dest policy.Destination) (*control.Explanation, error) {
	if c.Bool("fresh") {
		return alone(ctx, c, dest)
	}
	client, err := daemonClient(c)
	if err != nil {
		return nil, err
	}
	x, err := client.Explain(ctx, dest.String(), false)
	switch {
	case errors.Is(err, os.ErrPermission):
		fmt.Fprintf(c.App.ErrWriter, "postseal: not asking the daemon: %v\n", err)
		return alone(ctx, c, dest)
	case errors.Is(err, control.ErrNoDaemon):
		return alone(ctx, c, dest)
	case err != nil:
		return nil, err
	}
	if c.Bool("probe") {
		p, err := client.Probe(ctx, dest.String())
		if err != nil {
			return nil, err
		}
		x.Probed = &p
	}
	return x, nil
}

// alone decides in this process, with nothing remembered from before, but with
// the operator's rules as far as they can be read.
func alone(ctx context.Context, c *cli.Context, dest policy.Destination) (*control.Explanation, error) {
	cfg, err := loadService(c)
	if err != nil {
		return nil, err
	}
	return decide(ctx, cfg, dest, c.App.ErrWriter, c.Bool("probe"))
}

// decide is alone with a configuration; what is amiss, but does not prevent it, is
// written to warn.
func decide(ctx context.Context, cfg *config.Config, dest policy.Destination, warn io.Writer, probes bool) (*control.Explanation, error) {
	dns, fetcher, err := daemon.Lookups(cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		return nil, err
	}
	engine := &policy.Engine{DNS: dns, Fetch: fetcher}
	rules, err := overrides.Load(cfg.Overrides())
	if err != nil {
		fmt.Fprintf(warn, "postseal: without the overrides, which cannot be read: %v\n", err)
	}
	compiled, err := overrides.Compile(rules)
	if err != nil {
		return nil, err
	}
	engine.SetOverrides(compiled)

	running, stop := context.WithCancel(ctx)
	var g sync.WaitGroup
	g.Go(func() { dns.Run(running) })    // the self-test, as far as it gets meanwhile
	g.Go(func() { engine.Run(running) }) // without a database there is nothing to fail
	defer g.Wait()
	defer stop()
	t := engine.Explain(ctx, dest, true)
	x := control.NewExplanation(t, dns.Validation(), daemon.Maps(cfg))
	if probes {
		prober, err := daemon.Prober(cfg, engine, slog.New(slog.DiscardHandler))
		if err != nil {
			return nil, err
		}
		probing, cancel := context.WithTimeout(ctx, control.ProbeLimit)
		defer cancel()
		p := control.NewProbed(prober.Ask(probing, dest))
		x.Probed = &p
	}
	return x, nil
}

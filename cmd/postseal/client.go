package main

import (
	"encoding/json"
	"errors"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"postseal/cmd/postseal/internal/config"
	"postseal/cmd/postseal/internal/control"
)

// load reads the configuration that the command line asks for.
func load(c *cli.Context) (*config.Config, error) {
	return config.Load(c.String("config"), os.Getenv)
}

// loadService is load for those who look at the daemon's files beside it: an
// administrator's shell has not its environment, and means the service's state, not a
// folder of root's own.
func loadService(c *cli.Context) (*config.Config, error) {
	cfg, err := load(c)
	if err == nil {
		preferService(cfg, os.Getuid(), serviceState)
	}
	return cfg, err
}

func preferService(cfg *config.Config, uid int, state string) {
	if info, err := os.Stat(state); cfg.StateByDefault && uid == 0 && err == nil && info.IsDir() {
		cfg.StateDir = state
	}
}

// daemonClient is a client of the daemon that the configuration describes.
func daemonClient(c *cli.Context) (*control.Client, error) {
	cfg, err := load(c)
	if err != nil {
		return nil, err
	}
	return clientOf(cfg), nil
}

func clientOf(cfg *config.Config) *control.Client {
	client := &control.Client{}
	for _, s := range cfg.Control.Listen {
		client.Sockets = append(client.Sockets, strings.TrimPrefix(s, "unix:"))
	}
	if cfg.ControlByDefault && !slices.Contains(client.Sockets, serviceSocket) {
		client.Sockets = append(client.Sockets, serviceSocket)
	}
	return client
}

// noDaemon adds advice to the error of a client.
func noDaemon(err error, hints ...string) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, os.ErrPermission):
		return hinted(err, "the socket is for the user that the daemon runs as, and for root")
	case errors.Is(err, control.ErrNoDaemon):
		return hinted(err, append([]string{`start it with "postseal serve"; or name its configuration with --config FILE`}, hints...)...)
	}
	return err
}

// exactly is a usage error unless there are n arguments.
func exactly(c *cli.Context, n int, what string) error {
	if got := c.Args().Len(); got != n {
		return wrongCount(c, "needs "+what)
	}
	return nil
}

// none is a usage error if there are arguments.
func none(c *cli.Context) error {
	if c.Args().Len() > 0 {
		return usage("see "+c.Command.HelpName+" --help", "%s takes no argument, but got %q", c.Command.HelpName, c.Args().First())
	}
	return nil
}

func wrongCount(c *cli.Context, what string) error {
	return usage("see "+c.Command.HelpName+" --help", "%s %s", c.Command.HelpName, what)
}

func printJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}

func jsonFlag() cli.Flag {
	return &cli.BoolFlag{Name: "json", Usage: "print JSON", DisableDefaultText: true}
}

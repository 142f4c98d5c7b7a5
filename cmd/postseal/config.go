package main

import (
	"fmt"

	"github.com/urfave/cli/v2"

	"postseal/cmd/postseal/internal/overrides"
)

func configCommand() *cli.Command {
	return &cli.Command{
		Name:  "config",
		Usage: "check or show the configuration",
		Description: `  postseal config check                  # before a restart
  postseal config check --config new.toml
  postseal config show                   # the settings in force, as a file`,
		Subcommands: []*cli.Command{
			{
				Name:  "check",
				Usage: "read the configuration and the overrides and say what is wrong with them",
				Description: `Without state_dir in the configuration the overrides are those of the service, as
root, and else your own.

  postseal config check
  postseal config check --config /etc/postseal/new.toml && systemctl restart postseal`,
				HideHelpCommand: true,
				Action:          configCheck,
			},
			{
				Name:  "show",
				Usage: "print the settings in force, with the defaults, as a file",
				Description: `  postseal config show
  postseal config show | grep -A5 reporting`,
				HideHelpCommand: true,
				Action:          configShow,
			},
		},
		Action: needsSubcommand,
	}
}

// needsSubcommand is for commands that do nothing by themselves.
func needsSubcommand(c *cli.Context) error {
	var names []string
	for _, sub := range c.Command.Subcommands {
		if sub.Name != "help" {
			names = append(names, sub.Name)
		}
	}
	return usage("see "+c.Command.HelpName+" --help", "%s needs a command: %s", c.Command.HelpName, list(names))
}

func configCheck(c *cli.Context) error {
	if err := none(c); err != nil {
		return err
	}
	cfg, err := loadService(c)
	if err != nil {
		return err
	}
	rules, err := overrides.Load(cfg.Overrides())
	if err != nil {
		return err
	}
	if cfg.Delivers() {
		if _, err := cfg.Hostname(); err != nil {
			return fmt.Errorf("delivery.hostname: %w", err)
		}
	}
	if cfg.Reports() {
		if _, err := cfg.ReportKeys(); err != nil {
			return err
		}
	}
	fmt.Fprintf(c.App.Writer, "configuration: %s: ok\noverrides: %s: %d, ok\n", cfg.Origin(), cfg.Overrides(), len(rules))
	for _, e := range cfg.Exposed() {
		fmt.Fprintf(c.App.ErrWriter, "postseal: warning: other machines may reach %s, and it asks nobody who they are\n", e)
	}
	for _, w := range cfg.Warnings() {
		fmt.Fprintf(c.App.ErrWriter, "postseal: warning: %s\n", w)
	}
	return nil
}

func configShow(c *cli.Context) error {
	if err := none(c); err != nil {
		return err
	}
	cfg, err := load(c)
	if err != nil {
		return err
	}
	text, err := cfg.TOML()
	if err != nil {
		return err
	}
	fmt.Fprintf(c.App.Writer, "# %s\n%s", cfg.Origin(), text)
	return nil
}

package main

import "github.com/urfave/cli/v2"

func overrideCommand() *cli.Command { return &cli.Command{Name: "override"} }

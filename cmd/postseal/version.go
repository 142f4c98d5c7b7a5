package main

import (
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/urfave/cli/v2"
)

// release is the version of a package, set by its build (contrib/packaging/build):
// go build -ldflags "-X main.release=1.2.3". Empty: what the Go tools know.
var release string

// build is what the Go tools recorded of the build.
type build struct {
	Version  string `json:"version"`
	Revision string `json:"revision,omitempty"`
	Time     string `json:"time,omitempty"`
	Modified bool   `json:"modified,omitempty"`
	Go       string `json:"go"`
	Platform string `json:"platform"`
}

func version() build {
	b := build{Version: "unknown", Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return b
	}
	b.Version = info.Main.Version
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			b.Revision = s.Value
		case "vcs.time":
			b.Time = s.Value
		case "vcs.modified":
			b.Modified = s.Value == "true"
		}
	}
	switch {
	case release != "":
		b.Version = release
	case b.Version == "":
		b.Version = "(devel)"
	}
	return b
}

func versionCommand() *cli.Command {
	return &cli.Command{
		Name:  "version",
		Usage: "print the version and how it was built",
		Description: `  postseal version
  postseal version --json | jq -r .revision`,
		Flags:           []cli.Flag{jsonFlag()},
		HideHelpCommand: true,
		Action: func(c *cli.Context) error {
			if err := none(c); err != nil {
				return err
			}
			b := version()
			if c.Bool("json") {
				return printJSON(c.App.Writer, b)
			}
			fmt.Fprintf(c.App.Writer, "postseal %s\n", b.Version)
			if b.Revision != "" {
				changed := ""
				if b.Modified {
					changed = ", with changes"
				}
				fmt.Fprintf(c.App.Writer, "revision %s of %s%s\n", b.Revision, b.Time, changed)
			}
			fmt.Fprintf(c.App.Writer, "%s %s\n", b.Go, b.Platform)
			return nil
		},
	}
}
